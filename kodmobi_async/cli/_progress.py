"""How a bulk run gets on, and how it ended: counts, and the ways to show them."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kodmobi_async.cli._output import seconds
from kodmobi_async.journal import State

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kodmobi_async.cli._output import Output
    from kodmobi_async.integrations.taskiq import WorkerProgress

__all__ = ("BAD", "LABELS", "Tally")

BAD: Final = "bad"
LABELS: Final = {
    State.SENT.word: ("sent", "green"),
    State.BLOCKED.word: ("too soon", "yellow"),
    State.REFUSED.word: ("refused", "red"),
    State.NOT_SENT.word: ("not sent", "red"),
    State.UNKNOWN.word: ("unknown", "magenta"),
    BAD: ("bad rows", "red"),
    State.LEFT.word: ("left", "yellow"),
}
"""What becomes of rows, in the order in which it is told; the keys are those of the JSON."""

_MEMORY: Final = 10.0
"""Seconds over which the rate is taken."""
_MOST_WORKERS: Final = 8
"""Workers that are shown by name."""
_MOST_REASONS: Final = 50
"""Reasons counted by name; a service that invents ever new ones fills no memory."""


class Tally:
    """The counts of a run.

    Args:
        rows: How many rows there are.
        began: When it began, on the loop's clock.
    """

    def __init__(self, rows: int, began: float) -> None:
        self.rows = rows
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {}
        self.earlier = 0
        """How many of them an earlier run had done."""
        self.confirmed = 0
        self.in_flight = 0
        self.paused_for = 0.0
        """Seconds for which nothing is sent, as the account is limited."""
        self.workers: dict[str, WorkerProgress] = {}
        """Those of a fleet, by name."""
        self._began = began
        self._samples: deque[tuple[float, int]] = deque([(began, 0)])

    @property
    def done(self) -> int:
        """How many rows are accounted for."""
        return self.counts.total()

    def add(self, kind: str, reason: str | None = None) -> None:
        """Count a row."""
        self.counts[kind] += 1
        if reason is not None:
            reasons = self.reasons.setdefault(kind, Counter())
            reasons[reason if reason in reasons or len(reasons) < _MOST_REASONS else "others"] += 1

    def note_worker(self, worker: WorkerProgress) -> None:
        """Keep what a worker tells, the last of it."""
        self.workers[worker.worker] = worker

    def add_rest(self) -> None:
        """Count as left what nobody has read."""
        self.counts[State.LEFT.word] += self.rows - self.done

    # -- on the way ------------------------------------------------------------------------------------------------

    def _speed(self, now: float) -> tuple[float, float | None]:
        """Return the rows a second of late, and the seconds left; ``None`` where nobody can say."""
        worked = self.done - self.earlier
        self._samples.append((now, worked))
        while len(self._samples) > 2 and self._samples[1][0] < now - _MEMORY:  # noqa: PLR2004 an interval has two ends
            self._samples.popleft()
        then, before = self._samples[0]
        rate = (worked - before) / (now - then) if now > then else 0.0
        return rate, (self.rows - self.done) / rate if rate else None

    def _facts(self, now: float) -> list[str]:
        rate, left = self._speed(now)
        facts = [f"{self.done:,} of {self.rows:,}", f"{rate:,.0f}/s", f"{self.in_flight} in flight"]
        if self.paused_for > 0:
            facts.append(f"the account is limited, goes on in {_duration(self.paused_for)}")
        elif left is not None:
            facts.append(f"{_duration(left)} left")
        return facts

    def picture(self, now: float) -> RenderableType:
        """Draw the progress for a terminal."""
        counts = Text("  ").join(
            Text(f"{label} {self.counts[kind]:,}", style if self.counts[kind] else "dim")
            for kind, (label, style) in LABELS.items()
            if kind != State.LEFT.word
        )
        facts = Text("  ".join(self._facts(now)))
        bar = Table.grid(expand=True)  # a bar ends no line by itself
        bar.add_row(ProgressBar(total=max(1, self.rows), completed=self.done))
        return Group(bar, facts, counts, *self._workers())

    def words(self, now: float) -> str:
        """Tell the progress in one line."""
        counts = [f"{label} {self.counts[kind]:,}" for kind, (label, _) in LABELS.items() if self.counts[kind]]
        alive = sum(worker.is_alive for worker in self.workers.values())
        workers = [f"{alive} workers"] if self.workers else []
        return ", ".join([*self._facts(now), *counts, *workers])

    def _workers(self) -> list[RenderableType]:
        """Draw those that are at work, the busiest first; of many, the first."""
        alive = sorted((each for each in self.workers.values() if each.is_alive), key=lambda each: -each.done)
        if not self.workers:
            return []
        table = Table.grid(padding=(0, 2))
        for each in alive[:_MOST_WORKERS]:
            table.add_row(
                f"worker {each.worker}",
                f"{each.done:,} done",
                f"{each.in_flight:,} in flight",
                f"{each.waiting:,} waiting" if each.waiting else "",
            )
        more = len(alive) - _MOST_WORKERS
        last = f"{more} workers more" if more > 0 else "" if alive else "no worker is heard of"
        return [table, Text(last)] if last else [table]

    # -- in the end ------------------------------------------------------------------------------------------------

    def summarize(self, output: Output, now: float) -> None:
        """Tell a person how it ended; the numbers add up to that of the rows."""
        duration = now - self._began
        worked = self.done - self.earlier - self.counts[State.LEFT.word]
        rate = f", {worked / duration:,.0f}/s" if duration > 0 else ""
        output.say(f"{self.rows:,} rows in {_duration(duration)}{rate}", style="bold")
        rows = [
            (label, f"{self.counts[kind]:,}", self._why(kind))
            for kind, (label, _) in LABELS.items()
            if self.counts[kind] or kind == State.SENT.word
        ]
        output.columns(rows)
        if self.earlier:
            output.say(f"  of these, {self.earlier:,} were done by an earlier run")

    def _why(self, kind: str) -> str:
        if kind == State.SENT.word:
            return f"{self.confirmed:,} of them confirmed by asking" if self.confirmed else ""
        return ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.get(kind, Counter()).most_common())

    def as_json(self, now: float) -> dict[str, object]:
        """Return the summary for programs."""
        return {
            "rows": self.rows,
            **{kind: self.counts[kind] for kind in LABELS},
            "confirmed": self.confirmed,
            "earlier": self.earlier,
            "duration": round(now - self._began, 3),
            "reasons": {kind: dict(reasons) for kind, reasons in self.reasons.items()},
        }


def _duration(value: float) -> str:
    """Write a number of seconds as a clock does, once it is a minute."""
    if value < 60:  # noqa: PLR2004 a minute
        return seconds(value)
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
