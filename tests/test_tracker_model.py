"""The in-memory tracker against a reference that anybody can check by reading it.

Hypothesis plays with both: any order of calls, at moments around the ends of windows, leases and bounds, with the
clock standing still or jumping. ``HYPOTHESIS_PROFILE=long`` plays at least 100 000 steps.
"""

from __future__ import annotations

import asyncio
import math
import os
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kodmobi_async import CooldownError, MemoryCooldownTracker
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from typing import TypeVarTuple, Unpack

    from kodmobi_async._cooldown import Reservation

    Ts = TypeVarTuple("Ts")

SESSION: Final = "01K8N1VMPN0EE389K72YW0CBM2"
CHANNELS: Final[tuple[str, ...]] = ("sms", "email")
LEASE: Final = 90.0

# -- the reference ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Claim:
    """One call of ``acquire``, and what has to become of it: "waits", "holds" or "refused"."""

    channel: str
    lease: float
    deadline: float
    state: str = "waits"
    until: float = 0.0
    retry_after: float = 0.0


class Reference:
    """All claims that were ever made, in order, and until when each channel is blocked."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.blocked: dict[str, float] = dict.fromkeys(CHANNELS, 0.0)

    def holder(self, channel: str, now: float) -> Claim | None:
        held = (claim for claim in self.claims if claim.channel == channel and claim.state == "holds")
        return next((claim for claim in held if claim.until > now), None)

    def remaining(self, channel: str, now: float) -> float:
        return 60.0 if self.holder(channel, now) else max(0.0, self.blocked[channel] - now)

    def settle(self, now: float) -> None:
        """Give each free slot to the first who waits for it; end the waits that have become hopeless."""
        for claim in [claim for claim in self.claims if claim.state == "waits"]:
            if not self.remaining(claim.channel, now):
                claim.state, claim.until = "holds", now + claim.lease
            elif claim.deadline <= now or (
                not self.holder(claim.channel, now) and claim.deadline < self.blocked[claim.channel]
            ):
                claim.state, claim.retry_after = "refused", self.remaining(claim.channel, now)

    def start(self, claim: Claim, window: float, now: float) -> None:
        if self.holder(claim.channel, now) in (None, claim):
            self.blocked[claim.channel] = max(self.blocked[claim.channel], now + window)
            self.release(claim)

    def release(self, claim: Claim) -> None:
        claim.state = "settled"

    def next_event(self, now: float) -> float:
        waits = [claim.deadline for claim in self.claims if claim.state == "waits"]
        holds = [claim.until for claim in self.claims if claim.state == "holds"]
        moments = (*waits, *holds, *self.blocked.values())
        return min((moment for moment in moments if moment > now), default=math.inf)


# -- the play ---------------------------------------------------------------------------------------------------------

channels = st.sampled_from(CHANNELS)
steps = st.sampled_from([0.0, 0.001, 0.5, 5.0, 59.999, 60.0, 60.001])
windows = st.sampled_from([0.0, 1.0, 59.999, 60.0, 60.001, 3600.0]) | st.floats(0.0, 60.0)
leases = st.sampled_from([0.5, 5.0, 60.0])
waits = st.sampled_from([0.0, 1.0, 59.999, 60.0, 60.001, math.inf, math.inf])
picks = st.integers(0, 10**6)


class TrackerMachine(RuleBasedStateMachine):
    steps_played = 0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        loop = self.runner.get_loop()
        assert isinstance(loop, VirtualClockLoop)
        self.loop = loop
        self.tracker = MemoryCooldownTracker()
        self.reference = Reference()
        self.tasks: dict[Claim, asyncio.Task[Reservation]] = {}

    def teardown(self) -> None:
        self.runner.close()

    def turn(self, *calls: Coroutine[Any, Any, None]) -> None:
        """Make calls in one step, let the loop go round until all is done that can be, and compare."""

        async def play() -> None:
            for call in calls:
                await call
            for _ in range(6):
                await asyncio.sleep(0)

        self.runner.run(play())
        self.reference.settle(self.loop.time())

    def pick(self, number: int, *states: str) -> Claim:
        matching = [claim for claim in self.reference.claims if claim.state in states]
        return matching[number % len(matching)]

    def has(self, *states: str) -> bool:
        return any(claim.state in states for claim in self.reference.claims)

    def reservation(self, claim: Claim) -> Reservation:
        return self.tasks[claim].result()

    @rule(channel=channels, lease=leases, max_wait=waits)
    def acquire(self, channel: str, lease: float, max_wait: float) -> None:
        now = self.loop.time()
        claim = Claim(channel, lease, now + max_wait)
        held, left = self.reference.holder(channel, now), self.reference.remaining(channel, now)
        if left and (max_wait == 0 or (held is None and max_wait < left)):
            claim.state, claim.retry_after = "refused", left
        self.reference.claims.append(claim)

        async def call() -> None:
            asking = self.tracker.acquire(SESSION, channel, lease=lease, max_wait=max_wait)
            self.tasks[claim] = asyncio.create_task(asking)

        self.turn(call())

    @rule(channel=channels, lease=leases)
    def acquire_for_as_long_as_it_is_blocked(self, channel: str, lease: float) -> None:
        self.acquire(channel, lease, self.reference.remaining(channel, self.loop.time()))

    @precondition(lambda self: self.has("holds", "settled"))
    @rule(number=picks, window=windows)
    def start(self, number: int, window: float) -> None:
        claim = self.pick(number, "holds", "settled")
        self.reference.start(claim, window, self.loop.time())
        self.turn(self.tracker.start(self.reservation(claim), window))
        self.ask(claim.channel)

    @precondition(lambda self: self.has_bounded_waiter())
    @rule(number=picks)
    def start_for_as_long_as_somebody_waits(self, number: int) -> None:
        """Let the block end at the very moment when a waiter's bound is reached."""
        now = self.loop.time()
        bounded = [c for c in self.reference.claims if c.state == "waits" and c.deadline < math.inf]
        waiter = bounded[number % len(bounded)]
        claim = self.reference.holder(waiter.channel, now)
        if claim is not None:
            self.reference.start(claim, waiter.deadline - now, now)
            self.turn(self.tracker.start(self.reservation(claim), waiter.deadline - now))

    def has_bounded_waiter(self) -> bool:
        return any(claim.state == "waits" and claim.deadline < math.inf for claim in self.reference.claims)

    @precondition(lambda self: self.has("holds", "settled"))
    @rule(number=picks)
    def release(self, number: int) -> None:
        claim = self.pick(number, "holds", "settled")
        self.reference.release(claim)
        self.turn(self.tracker.release(self.reservation(claim)))

    @precondition(lambda self: self.has("waits"))
    @rule(number=picks)
    def cancel(self, number: int) -> None:
        self.turn(self.cancelled(self.pick(number, "waits")))

    @precondition(lambda self: self.has("waits"))
    @rule(number=picks, cancelled_first=st.booleans())
    def the_next_in_line_goes_away_as_the_slot_comes_free(self, number: int, *, cancelled_first: bool) -> None:
        channel = self.pick(number, "waits").channel
        claim = self.reference.holder(channel, self.loop.time())
        if claim is not None:
            waiter = next(c for c in self.reference.claims if (c.channel, c.state) == (channel, "waits"))
            calls = [self.tracker.release(self.reservation(claim)), self.cancelled(waiter)]
            self.reference.release(claim)
            self.turn(*(reversed(calls) if cancelled_first else calls))

    async def cancelled(self, claim: Claim) -> None:
        claim.state = "cancelled"
        self.tasks[claim].cancel()

    @rule(step=steps)
    def let_time_pass(self, step: float) -> None:
        end = self.loop.time() + step
        while (now := self.loop.time()) < end:
            moment = min(end, self.reference.next_event(now))
            while self.loop.time() < moment:
                self.loop.jump(moment - self.loop.time())
            self.turn()

    @rule(channel=channels)
    def ask(self, channel: str) -> None:
        now = self.loop.time()
        assert self.runner.run(self.tracker.remaining(SESSION, channel)) == self.reference.remaining(channel, now)

    @invariant()
    def every_claim_is_where_it_should_be(self) -> None:
        type(self).steps_played += 1
        for claim, task in self.tasks.items():
            assert task.done() == (claim.state != "waits")
            assert task.cancelled() == (claim.state == "cancelled")
            if claim.state == "refused":
                error = task.exception()
                assert isinstance(error, CooldownError)
                assert error.retry_after == pytest.approx(claim.retry_after, abs=1e-6)
            elif claim.state == "holds":
                assert task.result().until == claim.until

    @invariant()
    def at_most_one_holds_a_slot(self) -> None:
        now = self.loop.time()
        for channel in CHANNELS:
            held = [c for c in self.reference.claims if (c.channel, c.state) == (channel, "holds") and c.until > now]
            assert len(held) <= 1


LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PLAY: Final = settings(
    max_examples=1_050 if LONG else 100,
    stateful_step_count=100 if LONG else 40,
    deadline=None,
    derandomize=not LONG,  # the gate must not depend on chance
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no failure
)


def test_the_tracker_does_what_the_reference_does() -> None:
    run_state_machine_as_test(TrackerMachine, settings=PLAY)
    print(f"{TrackerMachine.steps_played} steps")  # noqa: T201 the measure of the long run
    assert TrackerMachine.steps_played >= (100_000 if LONG else 500)


# -- many -------------------------------------------------------------------------------------------------------------


class CountingLoop(VirtualClockLoop):
    """Counts what it is given to run: each wake of a future or task is one callback."""

    callbacks = 0

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.callbacks += 1
        return super().call_soon(callback, *args, context=context)


def test_of_ten_thousand_waiters_one_is_woken_a_window_in_order() -> None:
    tracker = MemoryCooldownTracker()
    granted: list[int] = []

    async def take(number: int) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)
        granted.append(number)
        await tracker.start(held, 60.0)

    async def main(loop: CountingLoop) -> None:
        tasks = [asyncio.create_task(take(number)) for number in range(10_000)]
        await asyncio.sleep(30)
        for window in range(20):
            assert granted == list(range(window + 1))
            before = loop.callbacks
            await asyncio.sleep(60)
            # the waiter's wake, its task's end, and this test's own
            assert loop.callbacks - before <= 5
        before = loop.callbacks
        for task in tasks:
            task.cancel()
        await asyncio.sleep(30)
        assert loop.callbacks - before <= 3 * len(tasks)
        assert len(granted) == 21
        assert all(task.done() for task in tasks)
        assert len(tracker) == 1

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(main(loop))


async def test_an_hour_of_keys_leaves_no_more_than_a_window_of_them() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    keys = 200_000 if os.environ.get("CI") else 20_000
    tracker = MemoryCooldownTracker()
    most = 0
    for number in range(keys):
        await tracker.start(await tracker.acquire(f"{number:026d}", "sms", lease=LEASE), 60.0)
        loop.jump(3600 / keys)
        most = max(most, len(tracker))
    assert keys / 60 <= most <= 1.1 * keys / 60
