"""Several processes, one account: its rate and its closures, on a real Valkey, over real HTTP.

Set ``KODMOBI_THOROUGH=1`` to measure for 10 seconds instead of 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_shared_window import started
from valkey_server import running_valkey

from kodmobi_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from valkey_server import Valkey

    from kodmobi_async.emulator import Emulator

pytestmark = pytest.mark.real_clock

WORKER = str(Path(__file__).parent / "limits_worker.py")
PROCESSES = 4
CALLERS = 4
SECONDS = 10 if os.environ.get("KODMOBI_THOROUGH") == "1" else 3
RATE = 40


class Fleet:
    """Processes that share an account's limits, and what arrives from them."""

    def __init__(self, emulator: Emulator, processes: list[asyncio.subprocess.Process]) -> None:
        self._emulator = emulator
        self._processes = processes

    def send(self, sends: int, *, pause: float = 0.0) -> None:
        """Have so many codes sent, by all processes together."""
        each = sends // PROCESSES
        for process in self._processes:
            sessions = [self._emulator.add_session() for _ in range(each)]
            assert process.stdin is not None
            order = {"sessions": sessions, "callers": CALLERS, "pause": pause}
            process.stdin.write(json.dumps(order).encode() + b"\n")

    async def results(self) -> Counter[str]:
        """Return how the calls ended, once all have."""
        results: Counter[str] = Counter()
        for process in self._processes:
            assert process.stdout is not None
            results.update(json.loads(await process.stdout.readline()))
        return results

    def arrivals(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Return the moments at which codes arrived, on this loop's clock."""
        return [delivery.at for delivery in self._emulator.ledger if since <= delivery.at < until]

    async def until_sent(self, sends: int) -> None:
        """Wait until so many codes have arrived."""
        async for _ in self._emulator.deliveries():
            if len(self._emulator.ledger) >= sends:
                break


@contextlib.asynccontextmanager
async def fleet(emulator: Emulator, valkey: Valkey, rate: float | None) -> AsyncGenerator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        arguments = (WORKER, json.dumps(rate))
        running = [await stack.enter_async_context(started(emulator, valkey.url, *arguments)) for _ in range(PROCESSES)]
        for process in running:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        yield Fleet(emulator, running)


async def test_all_processes_together_keep_the_rate_evenly_spaced(emulator: Emulator, valkey: Valkey) -> None:
    async with fleet(emulator, valkey, RATE) as together:
        together.send(RATE * (SECONDS + 2))
        await together.until_sent(RATE // 2)  # all are at work
        begin = together.arrivals()[-1]
        results = await together.results()
    assert results == {"sent": RATE * (SECONDS + 2)}
    arrivals = together.arrivals(begin, begin + SECONDS)
    # Within 2 % in ten seconds. In three, one code at each end may fall in or out, and one may be late: 2.5 %.
    assert len(arrivals) == pytest.approx(RATE * SECONDS, abs=max(3, 0.02 * RATE * SECONDS))
    # A busy machine is late for some, but for few; and what is late is not made up for in a burst.
    late = [moment - begin - number / RATE for number, moment in enumerate(arrivals)]
    middle = sorted(late)[len(late) // 2]
    assert sum(abs(each - middle) < 0.5 / RATE for each in late) >= 0.8 * len(late)
    for first in arrivals:
        assert len([each for each in arrivals if first <= each < first + 0.5]) <= 0.5 * RATE + 2


async def test_what_the_service_tells_one_process_holds_all_back_and_lets_them_out_one_by_one(
    emulator: Emulator, valkey: Valkey
) -> None:
    async with fleet(emulator, valkey, None) as together:
        together.send(240, pause=0.05)
        await together.until_sent(40)
        emulator.script(Fault.answer(429, {"Retry-After": "2"}))
        refused_at = asyncio.get_running_loop().time()
        results = await together.results()
    assert results == {"sent": 240}
    arrivals = together.arrivals()
    last, first = max(pairwise(arrivals), key=lambda pair: pair[1] - pair[0])
    assert last - refused_at < 0.5  # what was under way, and the message to all
    assert first - last > 2.0 - 0.5
    assert first - refused_at >= 2.0
    # All callers of all processes were held back; each has a moment of its own, 10 ms apart. Those who are out come
    # again after 50 ms. Two may come late.
    assert len(together.arrivals(first, first + 0.045)) <= 5 + 2 < PROCESSES * CALLERS


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with running_valkey() as valkey:
        yield valkey


async def test_without_the_server_each_process_keeps_its_share(emulator: Emulator, own_valkey: Valkey) -> None:
    async with fleet(emulator, own_valkey, RATE) as together:
        together.send(RATE * 8)
        await together.until_sent(RATE)
        killed_at = asyncio.get_running_loop().time()
        own_valkey.kill()
        await asyncio.sleep(3.0)
        back_at = asyncio.get_running_loop().time()
        own_valkey.start()
        results = await together.results()
    assert results == {"sent": RATE * 8}
    ended_at = together.arrivals()[-1]
    # half a second to notice, and for turns that the server has given before
    for begin, end in ((killed_at + 0.5, back_at), (back_at + 1.5, ended_at - 0.5)):
        sent = len(together.arrivals(begin, end))
        assert 0.75 * RATE * (end - begin) <= sent <= 1.05 * RATE * (end - begin) + PROCESSES
