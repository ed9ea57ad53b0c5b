"""The in-memory tracker: the contract, and what this tracker alone promises."""

from __future__ import annotations

import asyncio
import math
import os
import threading

import pytest
from tracker_contract import LEASE, OTHER, SESSION, TrackerContract

from kodmobi_async import CooldownError, MemoryCooldownTracker, WrongLoopError
from kodmobi_async._rules.deadlines import Deadlines
from kodmobi_async.testing import VirtualClockLoop


@pytest.fixture
def tracker() -> MemoryCooldownTracker:
    return MemoryCooldownTracker()


class TestMemoryCooldownTracker(TrackerContract):
    pass


async def test_the_end_of_a_window_is_exact(tracker: MemoryCooldownTracker) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    loop.jump(59.999)
    assert await tracker.remaining(SESSION, "sms") == pytest.approx(0.001)
    loop.jump(0.001)
    assert await tracker.remaining(SESSION, "sms") == 0.0


async def test_waiters_are_granted_the_slot_in_order(tracker: MemoryCooldownTracker) -> None:
    order: list[int] = []

    async def take(number: int) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)
        order.append(number)
        await tracker.start(held, 60.0)

    await asyncio.gather(*(take(number) for number in range(100)))
    assert order == list(range(100))


async def test_a_wait_as_long_as_the_window_succeeds(tracker: MemoryCooldownTracker) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=60.0)


async def test_a_caller_that_comes_as_the_window_ends_does_not_overtake_the_waiters(
    tracker: MemoryCooldownTracker,
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
    await asyncio.sleep(1.0)
    loop.jump(59.0)  # the window is over, but the timer has not had its turn
    with pytest.raises(CooldownError):
        await tracker.acquire(SESSION, "sms", lease=LEASE)
    await waiting


async def test_a_waiter_whose_deadline_is_the_end_of_the_lease_is_granted_the_slot(
    tracker: MemoryCooldownTracker,
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    held = await tracker.acquire(SESSION, "sms", lease=20.0)
    waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0)
    await waiting
    await tracker.release(held)


async def test_a_waiter_whose_deadline_is_the_end_of_a_later_window_is_granted_the_slot(
    tracker: MemoryCooldownTracker,
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=16.0))
    await asyncio.sleep(8.0)
    await tracker.start(held, 8.0)
    await waiting


async def test_a_start_after_the_release_still_blocks_the_slot(tracker: MemoryCooldownTracker) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    await tracker.release(held)
    await tracker.start(held, 60.0)
    assert await tracker.remaining(SESSION, "sms") == 60.0


async def test_a_slot_whose_waiters_are_all_cancelled_is_free(tracker: MemoryCooldownTracker) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = [asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)) for _ in range(10)]
    await asyncio.sleep(1.0)
    for task in waiting:
        task.cancel()
    await tracker.release(held)
    await asyncio.wait(waiting)
    assert await tracker.remaining(SESSION, "sms") == 0.0
    assert len(tracker) == 0


async def test_windows_that_have_ended_are_forgotten_without_a_task_that_sweeps(tracker: MemoryCooldownTracker) -> None:
    """Ten minutes at 50 sends a second keep no more than a window's worth, and a tenth."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    most = 0
    for number in range(50 * 600):
        session = f"{number:026d}"
        await tracker.start(await tracker.acquire(session, "sms", lease=LEASE), 60.0)
        loop.jump(0.02)
        most = max(most, len(tracker))
    assert most <= 1.1 * 50 * 60


async def test_windows_of_any_length_do_not_keep_each_other_alive(tracker: MemoryCooldownTracker) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    await tracker.start(await tracker.acquire(OTHER, "sms", lease=LEASE), 86_400.0)
    for number in range(10_000):
        await tracker.start(await tracker.acquire(f"{number:026d}", "sms", lease=LEASE), 1.0 + number % 7)
        loop.jump(1.0)
    assert len(tracker) < 20


async def test_the_repr_shows_how_many_slots_are_kept(tracker: MemoryCooldownTracker) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    assert repr(tracker) == "<MemoryCooldownTracker slots=1>"


def test_windows_outlive_the_loop_that_they_began_on(tracker: MemoryCooldownTracker) -> None:
    async def send() -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)

    async def left() -> float:
        return await tracker.remaining(SESSION, "sms")

    asyncio.run(send())
    assert asyncio.run(left()) == pytest.approx(60.0, abs=5.0)
    # a loop whose clock shows something else entirely
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        assert runner.run(left()) == pytest.approx(60.0, abs=5.0)
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start=1e9)) as runner:
        assert runner.run(left()) == pytest.approx(60.0, abs=5.0)


def test_time_does_not_go_back_to_before_the_last_send_on_a_loop_that_was_closed(
    tracker: MemoryCooldownTracker,
) -> None:
    async def send() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        await tracker.release(await tracker.acquire(SESSION, "sms", lease=LEASE))
        loop.jump(1_000.0)
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)

    async def left() -> float:
        return await tracker.remaining(SESSION, "sms")

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(send())
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        assert runner.run(left()) == pytest.approx(60.0, abs=5.0)


def test_a_wait_on_a_loop_whose_clock_is_coarser_ends_all_the_same(tracker: MemoryCooldownTracker) -> None:
    """A timer that fires a rounding error too early must not be set to that very moment again."""

    async def send(times: int) -> None:
        for number in range(times):
            held = await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)
            await tracker.start(held, 1.0 + number / 7)

    for start in (0.3, 1e6):
        with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start=start)) as runner:  # noqa: B023 called at once
            runner.run(send(30))


def test_a_tracker_in_use_on_an_open_loop_refuses_another_loop(tracker: MemoryCooldownTracker) -> None:
    async def use() -> None:
        await tracker.remaining(SESSION, "sms")

    with asyncio.Runner() as runner:
        runner.run(use())
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(use())
            except WrongLoopError as error:
                raised.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(raised) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_keeps_its_parents_windows(tracker: MemoryCooldownTracker) -> None:
    async def send() -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)

    async def blocked() -> bool:
        return await tracker.remaining(SESSION, "sms") > 0

    with asyncio.Runner() as runner:
        runner.run(send())  # the loop stays open in the parent
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if asyncio.run(blocked()) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_key_whose_deadline_is_extended_keeps_the_new_one() -> None:
    deadlines = Deadlines()
    deadlines.extend("a", 10.0, 0.0)
    deadlines.extend("a", 100.0, 5.0)
    for second in range(11, 40):
        deadlines.extend(f"b{second}", second + 0.5, float(second))
    assert deadlines.left("a", 40.0) == 60.0
    assert deadlines.end("b39") == 39.5
    assert deadlines.end("never") is None
    assert len(deadlines) < 5


def test_a_key_whose_deadline_has_passed_is_not_kept() -> None:
    deadlines = Deadlines()
    deadlines.extend("past", 1.0, 50.0)
    assert deadlines.left("past", 50.0) == 0.0
    assert len(deadlines) == 0


def test_a_new_deadline_drops_a_few_keys_that_expired_in_whatever_second() -> None:
    deadlines = Deadlines()
    for second in range(1, 11):
        deadlines.extend(f"key-{second}", float(second), 0.0)
    deadlines.extend("new", 100.0, 50.0)
    assert len(deadlines) == 3
    deadlines.extend("newer", 100.0, 50.0)
    assert len(deadlines) == 2
