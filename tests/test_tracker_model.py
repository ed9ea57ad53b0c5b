"""The in-memory tracker against a reference that is too simple to be wrong, whatever the order of events.

The reference knows a slot's holder, its window and its queue, and nothing but the time. Times are whole 1024ths
of a second, which sums of floats hold exactly, so both have to agree to the last bit about the end of every window.
"""

from __future__ import annotations

import asyncio
import math
import os
from typing import TYPE_CHECKING, Any, Final

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kodmobi_async import CooldownError, MemoryCooldownTracker, Reservation
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

THOROUGH: Final = os.environ.get("KODMOBI_THOROUGH") == "1"
STEPS_A_RUN: Final = 50
RUNS: Final = 2_500 if THOROUGH else 40

WINDOW: Final = 60.0
MOMENT: Final = 1 / 1024

SESSIONS: Final = ("01K8N1VMPN0EE389K72YW0CBM2", "01K8N1VMPN0EE389K72YW0CBM3")
CHANNELS: Final = ("sms", "SMS")  # one and the same

pairs = st.tuples(st.sampled_from(SESSIONS), st.sampled_from(CHANNELS))
near_the_window = st.sampled_from((WINDOW - MOMENT, WINDOW, WINDOW + MOMENT))
leases = st.sampled_from((MOMENT, 5.0, 30.0, WINDOW, 90.0))
waits = st.one_of(st.sampled_from((MOMENT, 1.0, 30.0, 3600.0, math.inf)), near_the_window)
# what a service may say: 0 to 60, and what it may not
windows = st.one_of(
    st.sampled_from((0.0, MOMENT, 1.0, 59.0)), near_the_window, st.sampled_from((-WINDOW, -MOMENT, 3600.0, 86_400.0))
)
pauses = st.one_of(st.sampled_from((0.0, MOMENT, 1.0, 5.0, 29.0, 30.0)), near_the_window)


# -- the reference -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Caller:
    """A caller of `acquire`, and how the call ends."""

    lease: float
    deadline: float
    holds_until: float | None = None
    refused_for: float | None = None
    task: asyncio.Task[Reservation] | None = None


@attrs.define(eq=False)
class Slot:
    """The holder of a slot, the end of its window, and its queue. Time is passed in."""

    holder: Caller | None = None
    blocked_until: float = -math.inf
    queue: list[Caller] = attrs.Factory(list[Caller])
    now: float = 0.0

    def held_until(self) -> float:
        return -math.inf if self.holder is None or self.holder.holds_until is None else self.holder.holds_until

    def free_at(self) -> float:
        return max(self.held_until(), self.blocked_until)

    def grants_on_release(self) -> bool:
        return bool(self.queue) and self.holder is not None and self.blocked_until <= self.now

    def remaining(self) -> float:
        blocked = max(0.0, self.blocked_until - self.now)
        return max(WINDOW, blocked) if self.held_until() > self.now else blocked

    def advance(self, now: float) -> None:
        """Advance to ``now``: free slots go to the first waiters, and waiters are refused at their deadlines."""
        while self.queue:
            moment = min(max(self.free_at(), self.now), *(caller.deadline for caller in self.queue))
            if moment > now:
                break
            self.now = moment
            if self.free_at() <= moment:
                self.grant(self.queue.pop(0))
            self.refuse_until(moment)
        self.now = now

    def grant(self, caller: Caller) -> None:
        self.holder, caller.holds_until = caller, self.now + caller.lease

    def refuse_until(self, latest: float) -> None:
        for caller in [caller for caller in self.queue if caller.deadline <= latest]:
            self.queue.remove(caller)
            caller.refused_for = self.remaining()

    def acquire(self, caller: Caller) -> None:
        if self.free_at() <= self.now:
            self.grant(caller)
        elif caller.deadline <= self.now or caller.deadline < self.blocked_until:
            caller.refused_for = self.remaining()
        else:
            self.queue.append(caller)

    def start(self, caller: Caller, window: float) -> None:
        if self.holder is caller or self.held_until() <= self.now:
            self.holder = None
            self.blocked_until = max(self.blocked_until, self.now + window)
            self.refuse_until(math.nextafter(self.now + window, -math.inf))
            self.advance(self.now)

    def observe(self, seconds: float) -> None:
        if self.now + seconds > max(self.blocked_until, self.now):
            self.blocked_until = self.now + seconds
            self.refuse_until(math.nextafter(self.blocked_until, -math.inf))

    def release(self, caller: Caller) -> None:
        if self.holder is caller:
            self.holder = None
            self.advance(self.now)


async def a_few_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# -- the machine -------------------------------------------------------------------------------------------------------


class TrackerMachine(RuleBasedStateMachine):
    """Do the same to the tracker and to the reference, and compare."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualClockLoop()
        self.tracker = MemoryCooldownTracker()
        self.slots = {session: Slot(now=self.loop.time()) for session in SESSIONS}
        self.callers: list[tuple[str, Caller]] = []

    def run(self, *work: Coroutine[Any, Any, object]) -> None:
        """Run coroutines in one turn of the loop, and let them take effect."""

        async def main() -> None:
            for one in work:
                await one
            await a_few_turns()

        self.loop.run_until_complete(main())
        type(self).steps += 1

    def acquire(self, pair: tuple[str, str], lease: float, max_wait: float) -> None:
        session, channel = pair
        caller = Caller(lease, self.loop.time() + max_wait)
        acquiring = self.tracker.acquire(session, channel, lease=lease, max_wait=max_wait)
        caller.task = self.loop.create_task(acquiring)
        self.slots[session].acquire(caller)
        self.callers.append((session, caller))
        self.run()

    @rule(pair=pairs, lease=leases)
    def acquire_without_waiting(self, pair: tuple[str, str], lease: float) -> None:
        self.acquire(pair, lease, 0.0)

    @rule(pair=pairs, lease=leases, max_wait=waits)
    def acquire_and_wait(self, pair: tuple[str, str], lease: float, max_wait: float) -> None:
        self.acquire(pair, lease, max_wait)

    def holders(self) -> list[tuple[str, Caller]]:
        """Return all callers that were ever granted a slot."""
        return [(session, caller) for session, caller in self.callers if caller.holds_until is not None]

    def waiters(self) -> list[Caller]:
        return [caller for slot in self.slots.values() for caller in slot.queue]

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), window=windows)
    def start(self, data: st.DataObject, window: float) -> None:
        session, caller = data.draw(st.sampled_from(self.holders()))
        self.slots[session].start(caller, window)
        self.run(self.tracker.start(reservation_of(caller), window))

    @precondition(lambda self: self.holders())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        session, caller = data.draw(st.sampled_from(self.holders()))
        self.slots[session].release(caller)
        self.run(self.tracker.release(reservation_of(caller)))

    @rule(pair=pairs, seconds=windows)
    def observe(self, pair: tuple[str, str], seconds: float) -> None:
        self.slots[pair[0]].observe(seconds)
        self.run(self.tracker.observe(*pair, seconds))

    @precondition(lambda self: self.waiters())
    @rule(data=st.data())
    def cancel_a_waiter(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.waiters()))
        for slot in self.slots.values():
            if caller in slot.queue:
                slot.queue.remove(caller)
        task_of(caller).cancel()
        self.run()

    @precondition(lambda self: any(slot.grants_on_release() for slot in self.slots.values()))
    @rule()
    def cancel_a_waiter_in_the_turn_of_its_grant(self) -> None:
        for slot in self.slots.values():
            if slot.grants_on_release():
                holder, first = slot.holder, slot.queue[0]
                assert holder is not None
                slot.release(holder)
                slot.release(first)
                first.holds_until = None

                async def do(holder: Caller = holder, first: Caller = first) -> None:
                    await self.tracker.release(reservation_of(holder))
                    task_of(first).cancel()

                self.run(do())

    @rule(seconds=pauses)
    def pass_time(self, seconds: float) -> None:
        now = self.loop.time() + seconds
        for slot in self.slots.values():
            slot.advance(now)
        self.run(asyncio.sleep(seconds))
        assert self.loop.time() == now

    # a rule, not an invariant: what the tracker clears away when it looks must not matter
    @rule(pair=pairs)
    def look(self, pair: tuple[str, str]) -> None:
        self.compare_remaining(*pair)
        type(self).steps += 1

    def compare_remaining(self, session: str, channel: str) -> None:
        remaining = self.loop.run_until_complete(self.tracker.remaining(session, channel))
        assert remaining == self.slots[session].remaining()

    @invariant()
    def all_calls_end_alike(self) -> None:
        for _, caller in self.callers:
            task = task_of(caller)
            if caller.refused_for is not None:
                error = task.exception()
                assert isinstance(error, CooldownError)
                assert error.retry_after == caller.refused_for
            elif caller.holds_until is not None:
                assert isinstance(reservation_of(caller), Reservation)
            else:
                assert task.cancelled() or not task.done()

    def teardown(self) -> None:
        for session in SESSIONS:
            self.compare_remaining(session, "sms")
        for _, caller in self.callers:
            task_of(caller).cancel()
        self.run()
        self.loop.close()


def task_of(caller: Caller) -> asyncio.Task[Reservation]:
    assert caller.task is not None
    return caller.task


def reservation_of(caller: Caller) -> Reservation:
    return task_of(caller).result()


def test_the_tracker_does_what_the_reference_does() -> None:
    run_state_machine_as_test(
        TrackerMachine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    assert TrackerMachine.steps >= (100_000 if THOROUGH else RUNS)


# -- a long queue ------------------------------------------------------------------------------------------------------


async def test_ten_thousand_waiters_of_one_slot_are_served_in_order_one_a_window() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    tracker = MemoryCooldownTracker()
    served: list[int] = []

    async def wait(number: int) -> None:
        reservation = await tracker.acquire(SESSIONS[0], "sms", lease=90.0, max_wait=math.inf)
        served.append(number)
        await tracker.start(reservation, WINDOW)

    first = await tracker.acquire(SESSIONS[0], "sms", lease=90.0)
    waiting = [loop.create_task(wait(number)) for number in range(10_000)]
    await a_few_turns()
    await tracker.start(first, WINDOW)
    for window in range(10_000):
        loop.jump(WINDOW - MOMENT)
        if window % 100 == 0:
            await a_few_turns()
        assert len(served) == window
        loop.jump(MOMENT)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(served) == window + 1
    await asyncio.gather(*waiting)
    assert served == list(range(10_000))
