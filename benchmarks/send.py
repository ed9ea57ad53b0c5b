"""One send against a bare call and against what else one would use, at several concurrencies, on every loop.

A contestant plays a match against the bare call: they take turns of some hundredths of a second, and each turn is
compared with the bare call's turns right before and after it, so that whatever the machine does besides falls on both
alike. A match's ratio is the median of its turns', a figure the median of its matches, one a round. Each round has new
processes and another order. The bare call plays against itself, too: that row shows what the other figures are worth.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.contestants import BASE, CONTESTANTS, LIMIT, OURS
from benchmarks.environment import Environment
from benchmarks.figures import Spread, plain, table
from benchmarks.processes import ContestantError, ServerProcess, Worker
from benchmarks.worker import Sample, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SERVER_IS_BUSY: Final = 0.8
"""The server's share of processor time from which a turn is marked: it may have been what the client waited for."""

LONGEST_MATCH: Final = 2.0
"""Seconds after which a match gets no more turns, if it has had two."""

FEWEST_TURNS: Final = 2


@attrs.frozen
class Plan:
    """What to measure."""

    contestants: tuple[str, ...] = tuple(CONTESTANTS)
    loops: tuple[str, ...] = ("asyncio",)
    concurrencies: tuple[int, ...] = (1, 64, 512)
    rounds: int = 3
    turns: int = 9
    seconds: float = 0.03
    calls: int = 0


@attrs.frozen
class Match:
    """What the turns of a contestant have cost, and those of the bare call: one before each, and one in the end."""

    turns: list[Sample]
    beside: list[Sample]

    @property
    def ratio(self) -> float:
        """The contestant's processor time as a multiple of the bare call's."""
        around = zip(self.turns, self.beside, self.beside[1:], strict=False)
        return statistics.median(2 * turn.cpu / (before.cpu + after.cpu) for turn, before, after in around)

    def median(self, part: Callable[[Sample], float]) -> float:
        """Return the median of a part of the contestant's turns."""
        return statistics.median(map(part, self.turns))


@attrs.frozen
class Figure:
    """What one contestant cost on one loop at one concurrency.

    Attributes:
        contestant: Its name.
        loop: The event loop's.
        concurrency: Calls at a time.
        calls: In each turn.
        rounds: How many there were, of one match each.
        cpu: The client's processor time a call, in microseconds.
        wall: Time on the clock a call, in microseconds: of all calls together, so at a concurrency of 64 each took
            about 64 times as long.
        ratio: Of ``cpu`` to the bare call's in the turns beside.
        server_share: The server's highest share of processor time.
        server_was_busy: It was so high that the server may have been what the client waited for.
        connections: How many were opened while it was measured, at most.
    """

    contestant: str
    loop: str
    concurrency: int
    calls: int
    rounds: int
    cpu: Spread
    wall: Spread
    ratio: Spread
    server_share: float
    server_was_busy: bool
    connections: int


@attrs.frozen
class Comparison:
    """The outcome of a run."""

    environment: Environment
    plan: Plan
    figures: tuple[Figure, ...]
    left_out: dict[str, str]

    def find(self, contestant: str, loop: str, concurrency: int) -> Figure | None:
        """Return the figure for these three, if there is one."""
        for figure in self.figures:
            if (figure.contestant, figure.loop, figure.concurrency) == (contestant, loop, concurrency):
                return figure
        return None

    def doubts(self) -> list[str]:
        """Return why the figures may be wrong; nothing, if they can be trusted."""
        return [
            f"{figure.contestant}, {figure.loop}, {figure.concurrency} at a time: the server used"
            f" {figure.server_share:.0%} of a processor"
            for figure in self.figures
            if is_doubtful(figure)
        ]

    def cheaper_peers(self) -> list[Figure]:
        """Return the figures of those peers that cost less than ours under the same conditions."""
        return [
            figure
            for figure in self.figures
            if CONTESTANTS[figure.contestant].is_peer
            and (ours := self.find(OURS, figure.loop, figure.concurrency)) is not None
            and figure.ratio.median < ours.ratio.median
        ]

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(attrs.asdict(self), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return a table for each loop."""
        return "\n".join([self.environment.to_markdown(), *map(self._table, self.plan.loops), self._remarks()])

    def _table(self, loop: str) -> str:
        widths = self.plan.concurrencies
        head = [f"{loop}: CPU of one call"]
        for width in widths:
            head += [f"{width} at a time", "low-high", "µs CPU", "µs wall"]
        rows: list[tuple[float, list[str]]] = []
        for name in self.plan.contestants:
            found = [self.find(name, loop, width) for width in widths]
            cells = [CONTESTANTS[name].label]
            for figure in found:
                cells += ["", "", "", ""] if figure is None else self._cells(figure)
            known = [figure.ratio.median for figure in found if figure is not None]
            if known:
                rows.append((known[len(known) // 2], cells))
        return table(head, [cells for _, cells in sorted(rows)])

    @staticmethod
    def _cells(figure: Figure) -> list[str]:
        mark = " †" if figure.server_was_busy else ""
        spread = f"{plain(figure.ratio.low)}-{plain(figure.ratio.high)}"
        return [f"{plain(figure.ratio.median)} ×{mark}", spread, plain(figure.cpu.median), plain(figure.wall.median)]

    def _remarks(self) -> str:
        lines = [f"- left out: {CONTESTANTS[name].label}: {reason}" for name, reason in self.left_out.items()]
        if any(figure.server_was_busy for figure in self.figures):
            lines.append(
                f"- † the server used more than {SERVER_IS_BUSY:.0%} of a processor; the clock may have waited for it"
            )
        if OURS in self.plan.contestants and OURS not in self.left_out:
            where: dict[str, list[str]] = {}
            for figure in self.cheaper_peers():
                label = CONTESTANTS[figure.contestant].label
                where.setdefault(label, []).append(f"{figure.loop} {figure.concurrency}")
            cheaper = "; ".join(f"{label} ({', '.join(places)})" for label, places in where.items())
            lines.append(f"- cheaper than {CONTESTANTS[OURS].label}: {cheaper or 'no peer'}")
        return "\n".join([*lines, ""]) if lines else ""


def compare(plan: Plan) -> Comparison:
    """Run it.

    Raises:
        ContestantError: The bare call itself failed, with which all are compared.
    """
    left_out: dict[str, str] = {}
    matches: dict[tuple[str, str, int], list[Match]] = {}
    with ServerProcess() as server:
        for number in range(plan.rounds):
            with contextlib.ExitStack() as stack:
                bare = stack.enter_context(Worker(BASE))
                workers = [stack.enter_context(Worker(name)) for name in plan.contestants if name not in left_out]
                for concurrency in plan.concurrencies:
                    for loop in plan.loops:
                        _say(f"round {number + 1} of {plan.rounds}: {concurrency} at a time on {loop}")
                        terms = Terms(server.port, loop, concurrency, calls=plan.calls, seconds=plan.seconds)
                        for worker in random.sample(workers, len(workers)):
                            try:
                                match = play(bare, worker, terms, plan.turns)
                            except ContestantError as error:
                                if error.worker is bare:
                                    raise
                                left_out[worker.name] = str(error)
                                workers.remove(worker)
                            else:
                                matches.setdefault((worker.name, loop, concurrency), []).append(match)
    figures = [figure_of(key, played) for key, played in matches.items() if key[0] not in left_out]
    figures.sort(key=lambda figure: (figure.loop, figure.concurrency, figure.ratio.median))
    names = [name for name in plan.contestants if name not in left_out]
    return Comparison(Environment.here(names), plan, tuple(figures), left_out)


def play(bare: Worker, worker: Worker, terms: Terms, turns: int, *, beside: Terms | None = None) -> Match:
    """Let a contestant and the bare call take turns.

    Args:
        bare: Makes the bare calls.
        worker: Is the contestant.
        terms: The contestant's.
        turns: So many, unless that takes too long.
        beside: The bare call's terms, if they are others.

    Raises:
        ContestantError: One of them failed; its ``worker`` says which.
    """
    ends = time.monotonic() + LONGEST_MATCH
    with bare.match(beside or terms), worker.match(terms):
        match = Match([], [bare.turn()])
        while len(match.turns) < turns and (len(match.turns) < FEWEST_TURNS or time.monotonic() < ends):
            match.turns.append(worker.turn())
            match.beside.append(bare.turn())
    return match


def is_doubtful(figure: Figure) -> bool:
    """Whether the server may have held a contestant up; the hand-written protocol asks more of it than any other."""
    return figure.server_was_busy and figure.contestant != LIMIT


def figure_of(key: tuple[str, str, int], matches: Sequence[Match]) -> Figure:
    """Sum up the matches of a contestant on a loop at a concurrency."""
    share = max(match.median(lambda turn: turn.server_share) for match in matches)
    return Figure(
        *key,
        calls=matches[0].turns[0].calls,
        rounds=len(matches),
        cpu=Spread.of(match.median(lambda turn: turn.cpu) for match in matches),
        wall=Spread.of(match.median(lambda turn: turn.wall) for match in matches),
        ratio=Spread.of(match.ratio for match in matches),
        server_share=round(share, 3),
        server_was_busy=share > SERVER_IS_BUSY,
        connections=max(turn.connections for match in matches for turn in match.turns),
    )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
