"""Bulk runs: their rate beside single sends, the longest callback of the loop, and memory over their length.

Each run is a process of its own, against a server in another that answers everything at once. Rates are taken in turn,
and each round's ratio is to the kind it stands beside, in the same round. Callbacks are timed one by one, in runs of
their own: by the processor time of the loop's thread, which other work on the machine leaves alone, and by the clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import attrs

from benchmarks.environment import Environment
from benchmarks.figures import Spread, plain, table
from benchmarks.processes import ROOT, Child

# By its name: what it is, and which other kind it is measured by.
KINDS: Final[dict[str, tuple[str, str]]] = {
    "plain": ("`client.send` in 64 workers", "plain"),
    "many": ("`client.send_many`", "plain"),
    "bulk": ("`kodmobi bulk FILE`", "many"),
    "journal": ("`kodmobi bulk FILE --journal`", "bulk"),
}
LONG_RUNS: Final = ("many", "journal")
SHORTER: Final = 10
"""How many times shorter the other run is, beside which the memory of a long one stands."""

WATCHED_ROWS: Final = 100_000
LONGEST: Final = 3_600.0


@attrs.frozen
class Rate:
    """What a send of many cost.

    Attributes:
        cpu: Microseconds of processor time.
        wall: Microseconds of the whole run, divided by its sends.
        cpu_ratio: To the kind it stands beside.
        wall_ratio: The same, by the clock: how many times longer the run takes.
    """

    cpu: Spread
    wall: Spread
    cpu_ratio: Spread
    wall_ratio: Spread


@attrs.frozen
class Callback:
    """Milliseconds of the longest callback of the loop: of processor time, and on the clock."""

    cpu: float
    wall: float


@attrs.frozen
class Memory:
    """MiB of memory at the peak, in a run and in a shorter one."""

    rows: int
    peak: float
    shorter_rows: int
    shorter_peak: float


@attrs.frozen
class BulkCosts:
    """The outcome, by kind of run."""

    environment: Environment
    rate_rows: int
    rates: dict[str, Rate]
    watched_rows: int
    callbacks: dict[str, Callback]
    memory: dict[str, Memory]

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(attrs.asdict(self), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return the tables."""
        rates = [
            [
                KINDS[kind][0],
                plain(rate.cpu.median),
                plain(rate.wall.median),
                *(["1.00 ×", "1.00 ×", ""] if KINDS[kind][1] == kind else _ratios(rate, KINDS[KINDS[kind][1]][0])),
            ]
            for kind, rate in self.rates.items()
        ]
        callbacks = [
            [KINDS[kind][0], f"{longest.cpu:.1f}", f"{longest.wall:.1f}", "20"]
            for kind, longest in self.callbacks.items()
        ]
        memory = [
            [
                KINDS[kind][0],
                f"{each.shorter_peak:.1f}",
                f"{each.peak:.1f}",
                f"{each.peak / each.shorter_peak:.3f} ×",
                "1.05 ×",
            ]
            for kind, each in self.memory.items()
        ]
        some = next(iter(self.memory.values()))
        parts = [
            self.environment.to_markdown(),
            table(
                [f"{_count(self.rate_rows)} sends, 64 at a time", "µs CPU", "µs wall", "CPU", "wall", "beside"],
                rates,
            ),
            table([f"longest callback, {_count(self.watched_rows)} rows", "ms CPU", "ms wall", "aimed at"], callbacks),
            table(
                [
                    "peak memory, MiB",
                    f"{_count(some.shorter_rows)} rows",
                    f"{_count(some.rows)} rows",
                    "ratio",
                    "aimed at",
                ],
                memory,
            ),
        ]
        return "\n".join(parts)


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _ratios(rate: Rate, other: str) -> list[str]:
    return [f"{rate.cpu_ratio.median:.2f} ×", f"{rate.wall_ratio.median:.2f} ×", other]


def measure_bulk(*, rows: int, rate_rows: int, rounds: int) -> BulkCosts:
    """Measure all of it; ``rows`` are those of the long runs."""
    watched_rows = min(rows, WATCHED_ROWS)
    with Child("bulk_worker", "serve") as server:
        port = int(server.read())
        rates = _rates(rate_rows, rounds, port)
        callbacks = {kind: _callback(_run(kind, watched_rows, port, "watched")) for kind in LONG_RUNS}
        memory = {kind: _memory(kind, rows, port) for kind in LONG_RUNS}
    return BulkCosts(Environment.here(), rate_rows, rates, watched_rows, callbacks, memory)


def _rates(rows: int, rounds: int, port: int) -> dict[str, Rate]:
    samples = [{kind: _run(kind, rows, port) for kind in KINDS} for _ in range(rounds)]

    def of(kind: str, what: str) -> Spread:
        return Spread.of(sample[kind][what] / rows * 1e6 for sample in samples)

    def ratio(kind: str, what: str) -> Spread:
        return Spread.of(sample[kind][what] / sample[KINDS[kind][1]][what] for sample in samples)

    return {kind: Rate(of(kind, "cpu"), of(kind, "wall"), ratio(kind, "cpu"), ratio(kind, "wall")) for kind in KINDS}


def _callback(found: dict[str, float]) -> Callback:
    return Callback(round(found["longest_cpu"] * 1e3, 2), round(found["longest_wall"] * 1e3, 2))


def _memory(kind: str, rows: int, port: int) -> Memory:
    shorter = max(1, rows // SHORTER)
    peaks = [round(_run(kind, each, port)["peak_kib"] / 1024, 2) for each in (shorter, rows)]
    return Memory(rows, peaks[1], shorter, peaks[0])


def _run(kind: str, rows: int, port: int, *more: str) -> dict[str, float]:
    """Do a run in a process of its own, and return what it measured."""
    command = [sys.executable, "-m", "benchmarks.bulk_worker", kind, str(rows), str(port), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT, timeout=LONGEST)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
