"""The small operations of a send, with pytest-benchmark: ``pytest benchmarks/test_micro.py``.

Each figure is for a batch, since one operation is too short for the clock; ``extra_info`` says how many are in it.
None of the coroutines waits for anything, so a batch of them is awaited in one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks.server import EXAMPLE_ID, send_answer
from benchmarks.worker import session_ids
from kodmobi_async import Channel, CooldownError, KodmobiClient, MemoryCooldownTracker
from kodmobi_async._rules.exchange import Response
from kodmobi_async._rules.http_dates import parse_retry_after
from kodmobi_async._rules.requests import send_request
from kodmobi_async._rules.responses import read_send
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Measure = Callable[[Callable[[], object]], None]

BATCH: Final = 1_000
ROUNDS: Final = 300
NOW: Final = datetime(2025, 10, 28, 10, 30, tzinfo=UTC)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)
        raise AssertionError("it waited for something")


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Return what measures a function that does a batch, in a task of a loop whose clock jumps."""

    def run(function: Callable[[], object]) -> None:
        benchmark.extra_info["operations"] = BATCH

        async def task() -> None:
            benchmark.pedantic(function, rounds=ROUNDS, warmup_rounds=5)

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(task())

    return run


def test_reserve_and_start(measure: Measure) -> None:
    """A pair that was free is reserved, then blocked; as many others are forgotten."""
    tracker = MemoryCooldownTracker()
    ids = iter(session_ids(BATCH * (ROUNDS + 5)))

    async def batch() -> None:
        for session_id in itertools.islice(ids, BATCH):
            reservation = await tracker.acquire(session_id, "telegram", lease=90.0)
            await tracker.start(reservation, 60.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        loop.jump(5.0)

    measure(lambda: finish(batch()))
    assert len(tracker) < BATCH * ROUNDS


def test_blocked_send(measure: Measure) -> None:
    """A send inside the window is refused by the client itself."""
    tracker = MemoryCooldownTracker()
    client = KodmobiClient("benchmark", base_url="http://127.0.0.1:9/session", cooldowns=tracker)
    (session_id,) = session_ids(1)
    blocked: list[float] = []

    async def batch() -> None:
        if not blocked:
            await tracker.start(await tracker.acquire(session_id, "telegram", lease=90.0), 60.0)
        for _ in range(BATCH):
            try:
                await client.send(session_id, Channel.TELEGRAM)
            except CooldownError as error:
                blocked.append(error.retry_after)

    measure(lambda: finish(batch()))
    assert len(blocked) == BATCH * (ROUNDS + 5)


def test_encode(measure: Measure) -> None:
    """A request becomes bytes."""
    (session_id,) = session_ids(1)

    def batch() -> None:
        for _ in range(BATCH):
            send_request(session_id, Channel.TELEGRAM)

    measure(batch)


def test_decode(measure: Measure) -> None:
    """The documented answer becomes a result."""
    answer = Response(200, {}, send_answer(NOW))

    def batch() -> None:
        for _ in range(BATCH):
            read_send(answer, EXAMPLE_ID)

    measure(batch)


@pytest.mark.parametrize("value", ["17", "Tue, 28 Oct 2025 10:31:00 GMT"], ids=["seconds", "date"])
def test_retry_after(measure: Measure, value: str) -> None:
    """A ``Retry-After`` becomes seconds."""

    def batch() -> None:
        for _ in range(BATCH):
            parse_retry_after(value, NOW)

    measure(batch)
