"""What every cooldown tracker promises. A tracker's own test module inherits this suite and provides a ``tracker``.

A tracker with another clock than the loop's virtual one takes a minute for a minute. For it, the tests that wait for
something use shorter times, by ``scale``, and are less exact, by ``grain`` and ``slack``.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import TYPE_CHECKING, ClassVar

import pytest

from kodmobi_async import CooldownError, Outcome

if TYPE_CHECKING:
    from kodmobi_async import CooldownTracker

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
OTHER = "01K8N1VMPN0EE389K72YW0CBM3"
LEASE = 90.0


class TrackerContract:
    scale: ClassVar[float] = 1.0
    """How long one second of waiting is here, in seconds."""
    grain: ClassVar[float] = 0.001
    """How far from its end a window is certainly open or over, in seconds."""
    slack: ClassVar[float] = 0.1
    """How much later than expected something may happen, in seconds; the machine may be busy."""
    windows: ClassVar[tuple[float, ...]] = (0.5, 1.0, 59.0, 60.0, 3600.0)

    async def test_a_free_slot_is_granted_at_once(self, tracker: CooldownTracker) -> None:
        assert await tracker.remaining(SESSION, "sms") == 0.0
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        assert await tracker.remaining(SESSION, "sms") > 0.0

    async def test_a_reserved_slot_is_refused_with_a_full_window(self, tracker: CooldownTracker) -> None:
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        with pytest.raises(CooldownError) as caught:
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        assert caught.value.retry_after == pytest.approx(60.0, abs=self.slack)
        assert caught.value.session_id == SESSION
        assert caught.value.channel == "sms"
        assert caught.value.outcome is Outcome.NOT_SENT

    @pytest.mark.parametrize("pair", [(SESSION, "telegram"), (OTHER, "sms")])
    async def test_another_channel_or_session_is_another_slot(
        self, tracker: CooldownTracker, pair: tuple[str, str]
    ) -> None:
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.acquire(*pair, lease=LEASE)

    async def test_a_channel_spelled_in_another_case_is_the_same_slot(self, tracker: CooldownTracker) -> None:
        await tracker.acquire(SESSION, "Viber", lease=LEASE)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "viber", lease=LEASE)

    async def test_a_released_slot_is_free(self, tracker: CooldownTracker) -> None:
        await tracker.release(await tracker.acquire(SESSION, "sms", lease=LEASE))
        assert await tracker.remaining(SESSION, "sms") == 0.0
        await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_a_started_slot_is_blocked_for_its_window_and_free_at_its_end(self, tracker: CooldownTracker) -> None:
        async def check(channel: str, window: float) -> None:
            await tracker.start(await tracker.acquire(SESSION, channel, lease=LEASE), window)
            assert window - self.slack <= await tracker.remaining(SESSION, channel) <= window
            await asyncio.sleep(window - self.grain)
            with pytest.raises(CooldownError):
                await tracker.acquire(SESSION, channel, lease=LEASE)
            await asyncio.sleep(2 * self.grain)
            await tracker.acquire(SESSION, channel, lease=LEASE)

        windows = [window * self.scale for window in self.windows]
        await asyncio.gather(*(check(f"channel-{number}", window) for number, window in enumerate(windows)))

    async def test_a_window_of_zero_leaves_the_slot_free(self, tracker: CooldownTracker) -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 0.0)
        await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_a_reservation_that_is_not_settled_ends_with_its_lease(self, tracker: CooldownTracker) -> None:
        lease = 40.0 * self.scale
        await tracker.acquire(SESSION, "sms", lease=lease)
        await asyncio.sleep(lease - self.grain)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        await asyncio.sleep(2 * self.grain)
        await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_only_the_holder_can_release(self, tracker: CooldownTracker) -> None:
        late = await tracker.acquire(SESSION, "sms", lease=5.0 * self.scale)
        await asyncio.sleep(5.0 * self.scale + self.grain)
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.release(late)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_a_late_start_does_not_touch_the_slot_of_another_holder(self, tracker: CooldownTracker) -> None:
        late = await tracker.acquire(SESSION, "sms", lease=5.0 * self.scale)
        await asyncio.sleep(5.0 * self.scale + self.grain)
        holder = await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.start(late, 3600.0)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.release(holder)
        assert await tracker.remaining(SESSION, "sms") == 0.0

    async def test_a_late_start_still_blocks_a_slot_that_is_not_held(self, tracker: CooldownTracker) -> None:
        late = await tracker.acquire(SESSION, "sms", lease=5.0 * self.scale)
        await asyncio.sleep(5.0 * self.scale + self.grain)
        await tracker.start(late, 60.0)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(60.0, abs=self.slack)

    async def test_a_late_start_still_blocks_a_slot_whose_next_holder_has_lost_it_too(
        self, tracker: CooldownTracker
    ) -> None:
        late = await tracker.acquire(SESSION, "sms", lease=0.5)
        await asyncio.sleep(0.5)
        await tracker.acquire(SESSION, "sms", lease=0.5)
        await asyncio.sleep(0.5)
        await tracker.start(late, 60.0)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(60.0, abs=0.1)

    async def test_settling_twice_changes_nothing(self, tracker: CooldownTracker) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.start(held, 60.0)
        await tracker.release(held)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(60.0, abs=self.slack)

    async def test_a_waiter_is_granted_the_slot_when_the_window_ends(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        window = 60.0 * self.scale
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), window)
        began = loop.time()
        await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=window + 5 * self.slack)
        assert window - self.grain <= loop.time() - began <= window + self.slack

    async def test_a_waiter_is_granted_the_slot_when_the_holder_releases_it(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
        await asyncio.sleep(1.0 * self.scale)
        released = loop.time()
        await tracker.release(held)
        await waiting
        assert loop.time() - released < 5 * self.slack

    async def test_a_wait_that_cannot_succeed_does_not_begin(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
        began = loop.time()
        with pytest.raises(CooldownError) as caught:
            await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=59.0 - self.slack)
        assert caught.value.retry_after == pytest.approx(60.0, abs=self.slack)
        assert loop.time() - began < 5 * self.slack

    async def test_a_wait_that_becomes_hopeless_ends_at_once(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
        await asyncio.sleep(1.0 * self.scale)
        began = loop.time()
        await tracker.start(held, 60.0)
        with pytest.raises(CooldownError) as caught:
            await waiting
        assert caught.value.retry_after == pytest.approx(60.0, abs=5 * self.slack)
        assert loop.time() - began < 5 * self.slack

    async def test_a_wait_for_a_send_in_flight_ends_at_its_deadline(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        began = loop.time()
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0 * self.scale)
        assert 20.0 * self.scale - self.grain <= loop.time() - began <= 20.0 * self.scale + self.slack

    async def test_waiters_are_granted_the_slot_one_a_window(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        window = 10.0 * self.scale
        granted: list[float] = []

        async def take() -> None:
            held = await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)
            granted.append(loop.time())
            await tracker.start(held, window)

        await asyncio.gather(*(take() for _ in range(5)))
        for sooner, later in itertools.pairwise(granted):
            assert window - self.grain <= later - sooner <= window + self.slack

    async def test_a_cancelled_waiter_is_skipped(self, tracker: CooldownTracker) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        first = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
        await asyncio.sleep(0.1)
        first.cancel()
        await tracker.release(held)
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_a_waiter_cancelled_in_the_turn_of_its_grant_frees_the_slot(self, tracker: CooldownTracker) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        first = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
        await asyncio.sleep(0.1)
        await tracker.release(held)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=1.0)

    async def test_a_caller_that_does_not_wait_does_not_overtake_the_waiters(self, tracker: CooldownTracker) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
        await asyncio.sleep(0.1)
        await tracker.release(held)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        await waiting

    async def test_an_observed_window_blocks_a_free_slot(self, tracker: CooldownTracker) -> None:
        await tracker.observe(SESSION, "sms", 60.0)
        assert await tracker.remaining(SESSION, "SMS") == pytest.approx(60.0, abs=self.slack)
        with pytest.raises(CooldownError) as caught:
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        assert caught.value.retry_after == pytest.approx(60.0, abs=self.slack)
        await tracker.acquire(SESSION, "telegram", lease=LEASE)

    async def test_an_observed_window_ends_by_itself(self, tracker: CooldownTracker) -> None:
        window = 20.0 * self.scale
        await tracker.observe(SESSION, "sms", window)
        await asyncio.sleep(window + self.grain)
        await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_an_observation_lengthens_a_window_and_never_shortens_one(self, tracker: CooldownTracker) -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 30.0)
        for seconds in (20.0, 0.0, -5.0):
            await tracker.observe(SESSION, "sms", seconds)
            assert await tracker.remaining(SESSION, "sms") == pytest.approx(30.0, abs=self.slack)
        await tracker.observe(SESSION, "sms", 60.0)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(60.0, abs=self.slack)

    @pytest.mark.parametrize("seconds", [0.0, -5.0])
    async def test_an_observation_of_zero_or_less_leaves_the_slot_free(
        self, tracker: CooldownTracker, seconds: float
    ) -> None:
        await tracker.observe(SESSION, "sms", seconds)
        assert await tracker.remaining(SESSION, "sms") == 0.0
        await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_a_window_observed_during_a_send_holds_once_the_reservation_is_released(
        self, tracker: CooldownTracker
    ) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.observe(SESSION, "sms", 30.0)
        assert await tracker.remaining(SESSION, "sms") == 60.0  # the send may still succeed
        await tracker.release(held)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(30.0, abs=self.slack)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)

    async def test_a_send_in_flight_with_a_longer_observed_window_counts_as_that_window(
        self, tracker: CooldownTracker
    ) -> None:
        await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.observe(SESSION, "sms", 3600.0)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(3600.0, abs=self.slack)

    @pytest.mark.parametrize(("observed", "left"), [(30.0, 60.0), (90.0, 90.0)])
    async def test_of_an_observed_and_a_started_window_the_longer_holds(
        self, tracker: CooldownTracker, observed: float, left: float
    ) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.observe(SESSION, "sms", observed)
        await tracker.start(held, 60.0)
        assert await tracker.remaining(SESSION, "sms") == pytest.approx(left, abs=self.slack)

    async def test_a_wait_that_an_observation_makes_hopeless_ends_at_once(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 10.0)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
        await asyncio.sleep(1.0 * self.scale)
        began = loop.time()
        await tracker.observe(SESSION, "sms", 60.0)
        with pytest.raises(CooldownError) as caught:
            await waiting
        assert caught.value.retry_after == pytest.approx(60.0, abs=5 * self.slack)
        assert loop.time() - began < 5 * self.slack

    async def test_a_wait_for_a_send_in_flight_ends_with_the_observation_that_makes_it_hopeless(
        self, tracker: CooldownTracker
    ) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
        await asyncio.sleep(1.0 * self.scale)
        await tracker.observe(SESSION, "sms", 60.0)
        for refused in (waiting, tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)):
            with pytest.raises(CooldownError):
                await asyncio.wait_for(refused, 5 * self.slack)
        await tracker.start(held, 60.0)

    async def test_a_waiter_is_granted_the_slot_when_the_observed_window_ends(self, tracker: CooldownTracker) -> None:
        loop = asyncio.get_running_loop()
        window = 60.0 * self.scale
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf))
        await asyncio.sleep(1.0 * self.scale)
        began = loop.time()
        await tracker.observe(SESSION, "sms", window)
        await tracker.release(held)
        await waiting
        assert window - self.grain <= loop.time() - began <= window + self.slack
