"""One contestant in a process of its own: takes the terms of a match from standard input, then plays turn by turn.

Whatever is not the call itself happens outside of what is measured: session ids are made, connections opened, garbage
collected before.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks.contestants import CONTESTANTS
from benchmarks.loops import factory, raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Call = Callable[[str], Awaitable[object]]

LONGEST_TURN: Final = 180.0
"""Seconds after which a turn is given up."""

CALIBRATION: Final = 24
"""Calls at least from which the number of calls for a turn is told."""

WARM_UP: Final = 0.15
"""Seconds of calls before the first that are measured: a processor that has slept takes so long to get to its speed."""

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@attrs.frozen
class Terms:
    """What the turns of a match are to be.

    Attributes:
        port: The server's.
        loop: The event loop's name.
        concurrency: Calls at a time.
        delay: The server's, in milliseconds.
        calls: So many; 0 = what fits in ``seconds``.
        seconds: For finding out the number of calls.
    """

    port: int
    loop: str
    concurrency: int
    delay: int = 0
    calls: int = 0
    seconds: float = 0.25

    @property
    def base(self) -> str:
        """The address, the delay in it."""
        return f"http://127.0.0.1:{self.port}/{self.delay}"


@attrs.frozen
class Sample:
    """What a turn has cost.

    Attributes:
        calls: How many it was.
        cpu: Microseconds of this process's processor time a call.
        wall: Microseconds a call, on the clock.
        server_share: The server's processor time as a part of the time on the clock; near 1 it was the bottleneck.
        connections: How many were opened while it was measured; all were open before it, so more than a few are the
            contestant's own doing.
    """

    calls: int
    cpu: float
    wall: float
    server_share: float
    connections: int


class UnfairTurnError(Exception):
    """A turn that was not what it was meant to be."""


def session_ids(count: int) -> list[str]:
    """Return so many different ULIDs, of this moment."""
    start = time.time_ns() // 1_000_000 << 80 | random.getrandbits(79)
    return [_spelled(start + number) for number in range(count)]


def _spelled(value: int) -> str:
    return "".join([_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5)])


async def drive(call: Call, ids: list[str], concurrency: int) -> None:
    """Make one call for each id, so many at a time."""
    pending: Iterator[str] = iter(ids)

    async def work() -> None:
        for session_id in pending:
            await call(session_id)

    async with asyncio.timeout(LONGEST_TURN):
        await asyncio.gather(*(work() for _ in range(concurrency)))


def fewest(concurrency: int, delay: int) -> int:
    """Return the calls at least of a turn: enough to get over its first moment, in which all call at once.

    Where the server takes its time, no more than fit in two seconds.
    """
    calls = max(CALIBRATION, min(4 * concurrency, 1_024), 2 * concurrency)
    return min(calls, max(2, 2_000 // delay) * concurrency) if delay else calls


def usage(port: int) -> dict[str, float]:
    """Ask the server what it has used."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/usage")
        answer: dict[str, float] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer


async def play(name: str, terms: Terms, tell: Callable[[dict[str, Any]], None], again: Callable[[], object]) -> None:
    """Open a client, tell how many calls a turn has, and take turns for as long as wanted.

    Raises:
        UnfairTurnError: The server did not see one request for each call.
    """
    async with CONTESTANTS[name].open(terms.base, terms.concurrency) as call:
        await drive(call, session_ids(terms.concurrency), terms.concurrency)  # opens the connections
        fitting = await _warm_up(call, terms)
        calls = terms.calls or fitting
        tell({"calls": calls})
        while again():
            tell(attrs.asdict(await _turn(call, terms, calls)))


async def _warm_up(call: Call, terms: Terms) -> int:
    """Make calls for a while; return how many fit in a turn."""
    least = fewest(terms.concurrency, terms.delay)
    began = time.perf_counter()
    while True:
        ids = session_ids(min(least, max(CALIBRATION, terms.concurrency)))
        start = time.perf_counter()
        await drive(call, ids, terms.concurrency)
        now = time.perf_counter()
        if now - began > WARM_UP:
            return max(least, int(terms.seconds * len(ids) / (now - start)))


async def _turn(call: Call, terms: Terms, calls: int) -> Sample:
    ids = session_ids(calls)
    gc.collect()
    before = usage(terms.port)
    cpu, wall = time.process_time(), time.perf_counter()
    await drive(call, ids, terms.concurrency)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    after = usage(terms.port)
    if after["requests"] - before["requests"] != calls or after["refused"] != before["refused"]:
        raise UnfairTurnError(f"{calls} calls made {after['requests'] - before['requests']:.0f} requests")
    share = (after["cpu"] - before["cpu"]) / (after["wall"] - before["wall"])
    opened = int(after["connections"] - before["connections"]) - 1  # the question about the usage comes over one
    return Sample(calls, cpu / calls * 1e6, wall / calls * 1e6, share, opened)


def stay_on_loopback() -> None:
    """Take away what would lead a client elsewhere, or into debugging."""
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable.startswith(("TWILIO_", "PRELUDE_", "PYTHONASYNCIODEBUG")):
            del os.environ[variable]


def main() -> None:
    """Take the terms of a match as a line of JSON, then play a turn for each line that is not empty.

    Each answer is a line of JSON: the number of calls, a sample, or why there is none.
    """
    name = sys.argv[1]
    stay_on_loopback()
    raise_file_limit()

    def tell(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), flush=True)

    for line in iter(sys.stdin.readline, ""):
        terms = Terms(**json.loads(line))
        try:
            with asyncio.Runner(loop_factory=factory(terms.loop)) as runner:
                runner.run(play(name, terms, tell, lambda: sys.stdin.readline().strip()))
        except ImportError as error:
            tell({"missing": error.name or str(error)})
        except Exception as error:  # noqa: BLE001 whatever a contestant raises is told, and ends the run there
            tell({"failed": f"{type(error).__name__}: {error}"[:300]})


if __name__ == "__main__":
    main()
