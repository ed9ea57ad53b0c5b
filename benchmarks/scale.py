"""How the cost of a send grows: with the calls at a time, with the time that the service takes, with the keys known.

Each point of the curve of calls is a match against the bare call at 64 at a time and no delay. That of keys runs on a
virtual clock: an hour of sends, all to different sessions, in as long as it takes to compute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import tracemalloc
from typing import Final

import attrs

from benchmarks.contestants import BASE, CONTESTANTS, OURS
from benchmarks.environment import Environment
from benchmarks.figures import Spread, plain, table
from benchmarks.loops import raise_file_limit
from benchmarks.processes import ServerProcess, Worker
from benchmarks.send import Match, play
from benchmarks.worker import Terms, session_ids
from kodmobi_async import MemoryCooldownTracker
from kodmobi_async.testing import VirtualClockLoop

DELAYS: Final = (0, 10, 200)
CONCURRENCIES: Final = (1, 8, 64, 512, 4_096)
TURNS: Final = 5
SPARE_FILES: Final = 64
"""Open files that a process has besides its connections."""

SIZES: Final = (60_000, 90_000)
"""Live keys to weigh: shortly before, and shortly after a dictionary has grown."""

HOUR: Final = 3_600.0
WINDOW: Final = 60.0


@attrs.frozen
class Point:
    """What one call cost.

    Attributes:
        contestant: Whose.
        delay: Milliseconds that the server took.
        concurrency: Calls at a time.
        calls: In a turn.
        cpu: Microseconds of processor time a call.
        ratio: To the bare call at 64 at a time and no delay, in the turns beside.
    """

    contestant: str
    delay: int
    concurrency: int
    calls: int
    cpu: Spread
    ratio: Spread


@attrs.frozen
class Keys:
    """What a tracker cost over a virtual hour.

    Attributes:
        count: How many different pairs were reserved and blocked.
        cost: Microseconds of processor time for the two together.
        expected: Pairs that are alive at a time: rate times window.
        most: Entries that were kept at most.
    """

    count: int
    cost: float
    expected: float
    most: int


@attrs.frozen
class Scale:
    """The outcome of a run."""

    environment: Environment
    loop: str
    points: tuple[Point, ...]
    keys: tuple[Keys, ...]
    bytes_per_key: float
    left_out: tuple[int, ...]

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(attrs.asdict(self), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return the tables."""
        parts = [self.environment.to_markdown()]
        widths = sorted({point.concurrency for point in self.points})
        delays = sorted({point.delay for point in self.points})
        rows = [
            [
                f"{CONTESTANTS[name].label}, server takes {delay} ms",
                *(self._cell(name, delay, width) for width in widths),
            ]
            for name in (OURS, BASE)
            for delay in delays
        ]
        rows += [
            [f"the first over the second, {delay} ms", *(self._quotient(delay, width) for width in widths)]
            for delay in delays
        ]
        head = [f"{self.loop}: CPU of one call, by calls at a time", *map(plain_int, widths)]
        parts.append(table(head, rows))
        rows = [
            [plain_int(keys.count), f"{keys.cost:.2f}", plain_int(round(keys.expected)), plain_int(keys.most)]
            for keys in self.keys
        ]
        parts.append(table(["keys in a virtual hour", "µs reserve + start", "rate × window", "entries at most"], rows))
        parts.append(f"Memory of a live key: {self.bytes_per_key:.0f} bytes.\n")
        if self.left_out:
            parts.append(f"- left out, as the system allows too few open files: {', '.join(map(str, self.left_out))}\n")
        return "\n".join(parts)

    def _cell(self, name: str, delay: int, width: int) -> str:
        point = self._find(name, delay, width)
        return "" if point is None else f"{plain(point.ratio.median)} ×"

    def _quotient(self, delay: int, width: int) -> str:
        ours, bare = self._find(OURS, delay, width), self._find(BASE, delay, width)
        return "" if ours is None or bare is None else plain(ours.ratio.median / bare.ratio.median)

    def _find(self, name: str, delay: int, width: int) -> Point | None:
        for point in self.points:
            if (point.contestant, point.delay, point.concurrency) == (name, delay, width):
                return point
        return None


def plain_int(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}".replace(",", " ")


def measure_scale(
    *, loop: str, concurrencies: tuple[int, ...], rounds: int, seconds: float, keys: tuple[int, ...]
) -> Scale:
    """Run it."""
    possible = raise_file_limit() - SPARE_FILES
    fitting = [width for width in concurrencies if width <= possible]
    points = _curve(loop, fitting, rounds, seconds)
    return Scale(
        environment=Environment.here([OURS, BASE]),
        loop=loop,
        points=tuple(points),
        keys=tuple(virtual_hour(count) for count in keys),
        bytes_per_key=round(max(map(bytes_per_key, SIZES)), 1),
        left_out=tuple(width for width in concurrencies if width > possible),
    )


def _curve(loop: str, concurrencies: list[int], rounds: int, seconds: float) -> list[Point]:
    matches: dict[tuple[str, int, int], list[Match]] = {}
    cells = [(name, delay, width) for name in (OURS, BASE) for delay in DELAYS for width in concurrencies]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess())
        bare = stack.enter_context(Worker(BASE))
        workers = {name: stack.enter_context(Worker(name)) for name in (OURS, BASE)}
        beside = Terms(server.port, loop, 64, seconds=seconds)
        for number in range(rounds):
            print(f"scale: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for cell in random.sample(cells, len(cells)):
                name, delay, width = cell
                terms = Terms(server.port, loop, width, delay, seconds=seconds)
                matches.setdefault(cell, []).append(play(bare, workers[name], terms, TURNS, beside=beside))
    return [
        Point(
            *cell,
            calls=played[0].turns[0].calls,
            cpu=Spread.of(match.median(lambda turn: turn.cpu) for match in played),
            ratio=Spread.of(match.ratio for match in played),
        )
        for cell in cells
        if (played := matches.get(cell))
    ]


def virtual_hour(count: int) -> Keys:
    """Send so many codes to different sessions in an hour of a virtual clock, as far as the tracker is concerned."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(_virtual_hour(count))


async def _virtual_hour(count: int) -> Keys:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    tracker = MemoryCooldownTracker()
    step, most, used = HOUR / count, 0, 0.0
    for first in range(0, count, 10_000):
        ids = session_ids(min(10_000, count - first))
        began = time.process_time()
        for session_id in ids:
            await tracker.start(await tracker.acquire(session_id, "telegram", lease=90.0), WINDOW)
            loop.jump(step)
        used += time.process_time() - began
        most = max(most, len(tracker))
    return Keys(count, round(used / count * 1e6, 3), count / HOUR * WINDOW, most)


def bytes_per_key(live: int, turns: int = 3) -> float:
    """Return the memory of a live key in a tracker that has turned over a few times; the session's id is not counted.

    The strings of ids belong to the caller, so they are made before.
    """
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(_bytes_per_key(live, turns))


async def _bytes_per_key(live: int, turns: int) -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    ids = session_ids(live * turns)
    tracemalloc.start()
    try:
        empty, _ = tracemalloc.get_traced_memory()
        tracker = MemoryCooldownTracker()
        for session_id in ids:
            await tracker.start(await tracker.acquire(session_id, "telegram", lease=90.0), WINDOW)
            loop.jump(WINDOW / live)
        full, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (full - empty) / live
