"""The shared tracker: the contract, and what this tracker alone promises, on a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import re
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from ports import kept_port
from tracker_contract import LEASE, OTHER, SESSION, TrackerContract
from valkey_server import lossy_proxy, running_valkey

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    KodmobiClient,
    MemoryCooldownTracker,
    Outcome,
    Record,
    TrackerDegraded,
    WrongLoopError,
)
from kodmobi_async._shared.operations import Operation, Unavailable
from kodmobi_async.redis import RedisCooldownTracker
from kodmobi_async.redis._address import open_backend
from kodmobi_async.redis._pipeline import Pipeline
from kodmobi_async.redis._subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from valkey_server import LossyProxy, Valkey

    from kodmobi_async.emulator import Emulator

pytestmark = pytest.mark.real_clock


@pytest.fixture
async def tracker(valkey: Valkey) -> AsyncIterator[RedisCooldownTracker]:
    async with RedisCooldownTracker(valkey.url) as tracker:
        yield tracker


class TestRedisCooldownTracker(TrackerContract):
    # a second of the contract's times is 5 ms of the server's
    scale: ClassVar[float] = 0.005
    grain: ClassVar[float] = 0.02
    slack: ClassVar[float] = 1.0
    windows: ClassVar[tuple[float, ...]] = (20.0, 40.0)


# -- several processes: each tracker stands for one --------------------------------------------------------------------


@pytest.fixture
async def other(valkey: Valkey) -> AsyncIterator[RedisCooldownTracker]:
    async with RedisCooldownTracker(valkey.url) as other:
        yield other


async def test_what_one_process_sent_is_refused_to_another_with_the_time_left(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 30.0)
    with pytest.raises(CooldownError) as caught:
        await other.acquire(SESSION, "SMS", lease=LEASE)
    assert 29.0 < caught.value.retry_after <= 30.0
    assert 29.0 < await other.remaining(SESSION, "sms") <= 30.0


async def test_a_send_in_flight_in_another_process_counts_as_a_full_window(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    assert await other.remaining(SESSION, "sms") == 60.0
    with pytest.raises(CooldownError) as caught:
        await other.acquire(SESSION, "sms", lease=LEASE)
    assert caught.value.retry_after == 60.0
    assert SESSION not in str(caught.value)


async def test_waiters_of_another_process_are_granted_a_released_slot_in_four_round_trips(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    before = valkey.scripts_run()
    waiting = [asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)) for _ in range(100)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in waiting)
    assert valkey.scripts_run() - before == 2  # before and after the subscription began
    released = time.monotonic()
    await tracker.release(held)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert time.monotonic() - released < 0.5
    assert valkey.scripts_run() - before == 4
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_a_waiter_of_another_process_is_granted_the_slot_when_the_window_ends(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 0.3)
    began = time.monotonic()
    await other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)
    assert 0.28 < time.monotonic() - began < 1.0


async def test_a_wait_that_another_process_makes_hopeless_ends_at_once(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = [asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)) for _ in range(3)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await tracker.start(held, 60.0)
    for task in waiting:
        with pytest.raises(CooldownError) as caught:
            await task
        assert 59.0 < caught.value.retry_after <= 60.0
    assert time.monotonic() - began < 0.5


async def test_a_wait_for_a_send_of_another_process_ends_at_its_deadline(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    began = time.monotonic()
    with pytest.raises(CooldownError):
        await other.acquire(SESSION, "sms", lease=LEASE, max_wait=0.1)
    assert 0.1 <= time.monotonic() - began < 0.6


async def test_waiters_of_several_processes_are_granted_the_slot_one_a_window(valkey: Valkey) -> None:
    granted: list[float] = []

    async def take(tracker: RedisCooldownTracker) -> None:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE, max_wait=math.inf)
        granted.append(time.monotonic())
        await tracker.start(held, 0.06)

    async with contextlib.AsyncExitStack() as stack:
        trackers = [await stack.enter_async_context(RedisCooldownTracker(valkey.url)) for _ in range(3)]
        await asyncio.gather(*(take(tracker) for tracker in trackers for _ in range(2)))
    assert len(granted) == 6
    assert all(later - sooner >= 0.06 for sooner, later in itertools.pairwise(granted))


async def test_a_pair_with_a_dead_holder_is_free_after_its_lease(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=0.1)
    began = time.monotonic()
    await other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)
    assert 0.08 < time.monotonic() - began < 1.0


@pytest.mark.parametrize("window", [3_600.0, None])
async def test_only_the_holder_can_settle_a_slot_in_whatever_process(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker, window: float | None
) -> None:
    late = await tracker.acquire(SESSION, "sms", lease=0.05)
    await asyncio.sleep(0.1)
    await other.acquire(SESSION, "sms", lease=LEASE)
    await (tracker.release(late) if window is None else tracker.start(late, window))
    async with RedisCooldownTracker(valkey.url) as third:
        assert await third.remaining(SESSION, "sms") == 60.0


async def test_any_number_of_callers_of_a_process_make_one_request(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    before = valkey.scripts_run()
    results = await asyncio.gather(
        *(tracker.acquire(SESSION, "sms", lease=LEASE) for _ in range(500)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, CooldownError)]
    assert len(refused) == 499
    assert {error.retry_after for error in refused} == {60.0}
    assert valkey.scripts_run() - before == 1


async def test_any_number_of_callers_share_the_reply_that_another_process_holds_the_slot(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    for settled in (False, True):
        if settled:
            await tracker.start(held, 30.0)
        before = valkey.scripts_run()
        results = await asyncio.gather(
            *(other.acquire(SESSION, "sms", lease=LEASE) for _ in range(500)), return_exceptions=True
        )
        numbers = [result.retry_after for result in results if isinstance(result, CooldownError)]
        assert len(numbers) == 500
        assert all(29.0 < number <= 30.0 if settled else number == 60.0 for number in numbers)
        assert valkey.scripts_run() - before == 1


async def test_what_is_certainly_blocked_is_refused_without_a_round_trip(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    before = valkey.scripts_run()
    for _ in range(10):
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        assert await tracker.remaining(SESSION, "sms") > 0
    assert valkey.scripts_run() == before


# -- what is on the server ---------------------------------------------------------------------------------------------


def keys(valkey: Valkey) -> dict[str, str]:
    with valkey.client() as client:
        return {str(key): str(client.get(key)) for key in client.scan_iter()}


async def test_an_error_of_one_pair_is_none_of_those_that_are_asked_along_with_it(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    (key,) = keys(valkey)
    with valkey.client() as client:
        client.delete(key)
        client.lpush(key, "of somebody else")
    channels = ["telegram", "sms", "email"]
    held = await asyncio.gather(*(tracker.acquire(OTHER, channel, lease=LEASE) for channel in channels))
    assert [each.window for each in held] == ["shared"] * 3
    again = [tracker.acquire(session, "whatsapp", lease=LEASE) for session in (SESSION, OTHER)]
    foreign = tracker.observe(SESSION, "sms", 5.0)
    await asyncio.gather(*again, foreign)
    with valkey.client() as client:
        assert client.type(key) == "list"


async def test_a_tracker_is_closed_while_its_commands_gather(valkey: Valkey) -> None:
    async with RedisCooldownTracker(valkey.url) as tracker:
        left = await asyncio.gather(*(tracker.remaining(SESSION, f"channel-{number}") for number in range(20)))
    assert left == [0.0] * 20


async def test_commands_that_gather_when_their_pipeline_is_closed_have_a_reply(valkey: Valkey) -> None:
    backend = open_backend(valkey.url, timeout=1.0)
    pipeline = Pipeline(backend, timeout=1.0)
    await asyncio.gather(*(pipeline.execute(Operation.READ, f"kodmobi:{number}") for number in range(10)))
    late = [pipeline.execute(Operation.READ, f"kodmobi:{number}") for number in range(3)]
    await asyncio.sleep(0)  # they wait for more
    await pipeline.aclose()
    await backend.aclose()
    replies = [await reply for reply in late]
    assert [type(reply) for reply in replies] == [Unavailable] * 3


async def test_a_server_without_the_right_to_run_scripts_refuses_them_all(valkey: Valkey) -> None:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">x", "~*", "&*", "+@all", "-evalsha", "-eval")
        try:
            async with RedisCooldownTracker(valkey.url.replace("//", "//reader:x@")) as tracker:
                asked = [tracker.remaining(SESSION, f"channel-{number}") for number in range(3)]
                found = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            client.execute_command("ACL", "DELUSER", "reader")
    assert [type(each) for each in found] == [ConfigurationError] * 3


async def test_a_pair_has_one_key_that_names_no_session_and_ends_by_itself(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    ((key, token),) = keys(valkey).items()
    assert re.fullmatch(r"kodmobi:[0-9a-f]{40}", key)
    assert re.fullmatch(r"[0-9a-f]{24}", token)
    with valkey.client() as client:
        assert 89_000 < client.pttl(key) <= 90_000
        await tracker.start(held, 60.0)
        assert keys(valkey) == {key: "-"}
        assert 59_000 < client.pttl(key) <= 60_000


async def test_no_two_pairs_share_a_key(valkey: Valkey, tracker: RedisCooldownTracker) -> None:
    pairs = [(SESSION, "sms"), (SESSION, "email"), (OTHER, "sms"), (SESSION, ":sms"), (SESSION, "sms:")]
    for pair in pairs:
        await tracker.acquire(*pair, lease=LEASE)
    assert len(keys(valkey)) == len(pairs)


@pytest.mark.parametrize("settings", [{"prefix": "other:"}, {"secret": "s"}], ids=str)
async def test_another_prefix_or_secret_is_another_set_of_windows(
    valkey: Valkey, tracker: RedisCooldownTracker, settings: dict[str, Any]
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    async with RedisCooldownTracker(valkey.url, **settings) as apart:
        await apart.acquire(SESSION, "sms", lease=LEASE)
    assert len(keys(valkey)) == 2


async def test_a_key_whose_expiry_was_removed_gets_another_one(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    (key,) = keys(valkey)
    with valkey.client() as client:
        client.persist(key)
        assert await other.remaining(SESSION, "sms") == 60.0
        with pytest.raises(CooldownError):
            await other.acquire(SESSION, "sms", lease=LEASE)
        assert 0 < client.pttl(key) <= 90_000


async def test_a_late_start_makes_an_open_window_longer_but_never_shorter(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    late = await tracker.acquire(SESSION, "sms", lease=0.05)
    later = await tracker.acquire(SESSION, "email", lease=0.05)
    await asyncio.sleep(0.1)
    for channel in ("sms", "email"):
        await other.start(await other.acquire(SESSION, channel, lease=LEASE), 30.0)
    await tracker.start(late, 60.0)
    await tracker.start(later, 10.0)
    async with RedisCooldownTracker(valkey.url) as third:
        assert 59.0 < await third.remaining(SESSION, "sms") <= 60.0
        assert 29.0 < await third.remaining(SESSION, "email") <= 30.0


async def test_a_server_that_forgot_the_scripts_gets_them_again(valkey: Valkey, tracker: RedisCooldownTracker) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    with valkey.client() as client:
        client.script_flush()
    await tracker.start(held, 60.0)
    assert list(keys(valkey).values()) == ["-"]


async def test_a_send_takes_two_round_trips(
    valkey: Valkey, emulator: Emulator, session: str, tracker: RedisCooldownTracker
) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, cooldowns=tracker) as client:
        assert (await client.send(session, "sms")).window == "shared"
        before = valkey.scripts_run()
        await client.send(session, "email")
        assert valkey.scripts_run() - before == 2


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_server_that_may_evict_keys_is_warned_about_once(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    with valkey.client() as client:
        client.config_set("maxmemory-policy", policy)
        try:
            async with RedisCooldownTracker(valkey.url) as tracker:
                for channel in ("sms", "email"):
                    await tracker.acquire(SESSION, channel, lease=LEASE)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert [policy in record.getMessage() for record in caplog.records] == [True] * (policy != "noeviction")


async def test_a_server_that_does_not_show_its_settings_serves_as_well(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with as_user(valkey, "~*", "&*", "+@all", "-info") as url:
        async with RedisCooldownTracker(url) as tracker:
            held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    assert held.window == "shared"
    assert caplog.records == []


@contextlib.contextmanager
def as_user(valkey: Valkey, *rules: str) -> Iterator[str]:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "guest", "on", ">hunter2", *rules)
        try:
            yield valkey.url.replace("//", "//guest:hunter2@")
        finally:
            client.execute_command("ACL", "DELUSER", "guest")


async def test_a_waiter_that_may_not_subscribe_polls(
    valkey: Valkey, tracker: RedisCooldownTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._subscription._POLL_OTHERWISE", 0.1)
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    with as_user(valkey, "~*", "&*", "+@all", "-subscribe") as url:
        async with RedisCooldownTracker(url) as polling:
            waiting = asyncio.create_task(polling.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
            await asyncio.sleep(0.2)
            before = valkey.scripts_run()
            await tracker.release(held)
            await waiting
            assert valkey.scripts_run() - before <= 4


async def test_a_waiter_whose_subscription_breaks_misses_nothing(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._subscription._POLL_OTHERWISE", 0.1)
    held = [await tracker.acquire(SESSION, channel, lease=LEASE) for channel in ("sms", "email")]
    waiting = [
        asyncio.create_task(other.acquire(SESSION, channel, lease=LEASE, max_wait=20.0)) for channel in ("sms", "email")
    ]
    await asyncio.sleep(0.1)
    with valkey.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for each in held:
        await tracker.release(each)
    await asyncio.gather(*waiting)


async def test_two_waiters_of_one_process_listen_to_the_same_slot(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = [asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)) for _ in range(2)]
    await asyncio.sleep(0.1)
    (key,) = keys(valkey)
    await tracker.start(held, 0.1)  # the first goes back into the queue, behind the second, and still listens
    await asyncio.sleep(0.05)
    with valkey.client() as client:
        client.set(key, "another", px=10_000)
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        client.delete(key)
        client.publish(key, "")
    (done,), (left,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    began = time.monotonic()
    await other.release(done.result())
    await left
    assert time.monotonic() - began < 1.0


async def test_a_listener_that_begins_as_the_last_one_ends_receives_changes(valkey: Valkey) -> None:
    backend = open_backend(valkey.url, timeout=1.0)
    subscription = Subscription(backend, timeout=1.0)
    with valkey.client() as other:
        for _ in range(3):
            async with subscription.listen("key") as listener:
                assert listener.is_active
                other.publish("key", "")
                await asyncio.wait_for(listener.changed.wait(), 1.0)
    await subscription.aclose()
    await backend.aclose()


async def test_a_listener_without_a_server_is_not_active() -> None:
    backend = open_backend("redis://127.0.0.1:1", timeout=1.0)
    async with Subscription(backend, timeout=1.0).listen("key") as listener:
        assert not listener.is_active
    await backend.aclose()


async def test_a_command_that_is_cancelled_before_its_batch_is_not_sent(valkey: Valkey) -> None:
    backend = open_backend(valkey.url, timeout=1.0)
    pipeline = Pipeline(backend, timeout=1.0)
    before = valkey.scripts_run()
    pipeline.execute(Operation.READ, "key").cancel()
    await asyncio.sleep(0.01)
    assert valkey.scripts_run() == before
    assert await pipeline.execute(Operation.READ, "key") == (0, 0)
    with paused(valkey):
        waiting = pipeline.execute(Operation.READ, "key")
        await asyncio.sleep(0.01)
        await pipeline.aclose()
    await backend.aclose()
    assert await waiting == Unavailable("ClosedError")


# -- lost replies ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[LossyProxy]:
    async with lossy_proxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
async def unsure(proxy: LossyProxy) -> AsyncIterator[RedisCooldownTracker]:
    """Return a tracker whose connection is warm."""
    async with RedisCooldownTracker(proxy.url) as unsure:
        await unsure.remaining(OTHER, "warm")
        yield unsure


async def test_a_reservation_whose_reply_was_lost_finds_its_own_token(
    valkey: Valkey, proxy: LossyProxy, unsure: RedisCooldownTracker
) -> None:
    proxy.lose_next = 1
    held = await unsure.acquire(SESSION, "sms", lease=LEASE)
    assert proxy.lost == 1
    assert (held.window, held.degraded) == ("shared", None)
    await unsure.start(held, 60.0)
    assert list(keys(valkey).values()) == ["-"]


async def test_a_slot_whose_settlement_lost_its_reply_is_settled_once(
    valkey: Valkey, proxy: LossyProxy, unsure: RedisCooldownTracker
) -> None:
    held = await unsure.acquire(SESSION, "sms", lease=LEASE)
    proxy.lose_next = 1
    await unsure.start(held, 60.0)
    assert (proxy.lost, held.window) == (1, "shared")
    held = await unsure.acquire(SESSION, "email", lease=LEASE)
    proxy.lose_next = 1
    await unsure.release(held)
    assert list(keys(valkey).values()) == ["-"]


async def test_a_slot_that_the_flusher_settles_first_is_settled_once(
    valkey: Valkey, proxy: LossyProxy, unsure: RedisCooldownTracker
) -> None:
    first = await unsure.acquire(SESSION, "sms", lease=LEASE)
    second = await unsure.acquire(SESSION, "email", lease=LEASE)
    cancelled = asyncio.create_task(unsure.start(first, 60.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.sleep(0.01)
    assert len(unsure._store.backlog) == 1
    proxy.lose_next = 1
    await unsure.start(second, 60.0)  # repeated when the flusher has long written both
    assert (proxy.lost, second.window) == (1, "shared")
    await back_to_normal(unsure)
    assert list(keys(valkey).values()) == ["-"] * 2


async def test_a_reservation_that_the_server_made_without_our_knowledge_is_settled_when_it_is_back(
    valkey: Valkey, proxy: LossyProxy, unsure: RedisCooldownTracker
) -> None:
    proxy.lose_next = 2
    first = await unsure.acquire(SESSION, "sms", lease=LEASE)
    second = await unsure.acquire(SESSION, "email", lease=LEASE)
    assert (first.window, first.degraded) == ("local", "TimeoutError")
    assert list(keys(valkey).values()) != ["-"]
    await unsure.start(second, 60.0)
    await unsure.release(first)
    await back_to_normal(unsure)
    assert list(keys(valkey).values()) == ["-"]


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """Return a server that may be killed."""
    with running_valkey() as valkey:
        yield valkey


async def back_to_normal(tracker: RedisCooldownTracker) -> None:
    """Wait until the tracker has reached its server again, and has no pending writes."""
    if tracker._store.flusher is not None:
        await asyncio.wait([tracker._store.flusher])
    assert not tracker._store.outage
    assert not tracker._store.backlog


@contextlib.contextmanager
def paused(valkey: Valkey) -> Iterator[None]:
    valkey.pause()
    try:
        yield
    finally:
        valkey.go_on()


async def test_a_server_that_hangs_is_unavailable_after_the_timeout(
    valkey: Valkey,
    emulator: Emulator,
    session: str,
    tracker: RedisCooldownTracker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Record] = []
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, cooldowns=tracker, hooks=[told.append]
    ) as client:
        await client.send(session, "sms")
        with paused(valkey):
            began = time.monotonic()
            result = await client.send(session, "email")
            assert time.monotonic() - began < 0.5 + 0.25
            assert result.window == "local"
            for channel in ("sms", "email"):  # what was sent before, and since
                with pytest.raises(CooldownError):
                    await client.send(session, channel)
            assert 59.0 < await client.remaining(session, "email") <= 60.0
            assert await client.remaining(session, "telegram") == 0.0
    (degraded,) = [record for record in told if isinstance(record, TrackerDegraded)]
    assert (degraded.session_id, degraded.channel, degraded.reason) == (session, "email", "TimeoutError")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "this process uses its own windows" in warning.getMessage()


async def test_what_was_sent_during_an_outage_is_written_when_the_server_is_back(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    with paused(valkey):
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.start(held, 60.0)
        brief = await tracker.acquire(SESSION, "email", lease=LEASE)
        await tracker.start(brief, 0.01)
        assert (held.window, held.degraded) == ("local", "TimeoutError")
        assert repr(tracker) == "<RedisCooldownTracker 'kodmobi:' degraded>"
    await back_to_normal(tracker)
    assert repr(tracker) == "<RedisCooldownTracker 'kodmobi:'>"
    assert 58.0 < await other.remaining(SESSION, "sms") <= 60.0
    assert await other.remaining(SESSION, "email") == 0.0
    assert (await tracker.acquire(SESSION, "telegram", lease=LEASE)).window == "shared"


async def test_a_server_that_stays_unavailable_is_tried_again_and_again(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    with paused(valkey):
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        unused = await tracker.acquire(SESSION, "email", lease=LEASE)
        await tracker.release(unused)
        await tracker.start(held, 60.0)
        await asyncio.sleep(0.4)
        assert len(tracker._store.backlog) == 1
    await back_to_normal(tracker)
    assert 58.0 < await other.remaining(SESSION, "sms") <= 60.0
    assert await other.remaining(SESSION, "email") == 0.0


async def test_windows_that_a_restarted_server_has_lost_still_hold_in_the_process_that_knows_them(
    own_valkey: Valkey,
) -> None:
    async with RedisCooldownTracker(own_valkey.url) as tracker:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
        held = await tracker.acquire(SESSION, "email", lease=LEASE)
        own_valkey.kill()
        assert (await tracker.acquire(SESSION, "telegram", lease=LEASE)).degraded == "ConnectionError"
        own_valkey.start()
        await tracker.start(held, 60.0)
        assert held.degraded == "ConnectionError"
        await back_to_normal(tracker)
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
    assert list(keys(own_valkey).values()) == ["-"]


async def test_with_on_outage_refuse_nothing_is_sent_without_the_server(
    valkey: Valkey, emulator: Emulator, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisCooldownTracker(valkey.url, on_outage="refuse") as tracker,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, cooldowns=tracker) as client,
    ):
        await client.send(session, "sms")
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        with paused(valkey):
            for number in range(2):
                began = time.monotonic()
                results = await asyncio.gather(
                    *(client.send(session, "email") for _ in range(10)), return_exceptions=True
                )
                assert time.monotonic() - began < (0.25 if number else 0.5)
                assert {type(result) for result in results} == {CooldownUnavailableError}
                assert {getattr(result, "outcome", None) for result in results} == {Outcome.NOT_SENT}
            with pytest.raises(CooldownError):
                await client.send(session, "sms")
            with pytest.raises(CooldownUnavailableError):
                await client.remaining(session, "email")
            await tracker.start(held, 60.0)  # what was sent before is held all the same
            assert held.window == "local"
        await back_to_normal(tracker)
        assert len(emulator.delivered(session)) == 1
        assert len(keys(valkey)) == 2
        await client.send(session, "email")
    assert "nothing is sent meanwhile" in caplog.text


async def test_a_foreign_key_counts_as_an_outage(valkey: Valkey, tracker: RedisCooldownTracker) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    (key,) = keys(valkey)
    with valkey.client() as client:
        client.delete(key)
        client.lpush(key, "not", "ours")
    async with RedisCooldownTracker(valkey.url) as other:
        held = await other.acquire(SESSION, "sms", lease=LEASE)
        assert held.degraded == "ResponseError"
        await other.start(held, 0.1)
        await back_to_normal(other)
        assert (await other.acquire(SESSION, "email", lease=LEASE)).window == "shared"


async def test_a_server_that_refuses_writes_counts_as_unavailable(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey.client() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            async with RedisCooldownTracker(valkey.url) as tracker:
                for number in range(3):
                    assert (await tracker.acquire(SESSION, f"channel-{number}", lease=LEASE)).window == "local"
                    await asyncio.sleep(0.05)
        finally:
            client.config_set("min-replicas-to-write", 0)
    assert len(caplog.records) == 1


async def test_closing_writes_what_is_pending(valkey: Valkey) -> None:
    async with RedisCooldownTracker(valkey.url) as tracker:
        with paused(valkey):
            await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    assert list(keys(valkey).values()) == ["-"]


async def test_closing_without_the_server_takes_no_longer_than_the_timeout(valkey: Valkey) -> None:
    tracker = RedisCooldownTracker(valkey.url)
    with paused(valkey):
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
        began = time.monotonic()
        await tracker.aclose()
        assert time.monotonic() - began < 0.75
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)


@pytest.fixture
def node() -> Iterator[Valkey]:
    """Return the one node of a cluster, which refuses a script that touches what it was not told of."""
    with kept_port() as port, running_valkey(cluster_enabled="yes", cluster_port=str(port)) as node:
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True)):
                time.sleep(0.02)
        yield node


async def test_a_node_of_a_cluster_runs_the_scripts(node: Valkey) -> None:
    async with RedisCooldownTracker(node.url) as tracker, RedisCooldownTracker(node.url) as other:
        held = await tracker.acquire(SESSION, "sms", lease=LEASE)
        waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
        await asyncio.sleep(0.1)
        await tracker.release(held)
        held = await waiting
        await other.start(held, 60.0)
        assert (held.window, held.degraded) == ("shared", None)
        assert 59.0 < await tracker.remaining(SESSION, "sms") <= 60.0


# -- what the service reports ------------------------------------------------------------------------------------------


async def test_what_one_process_observes_is_refused_to_another(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.observe(SESSION, "sms", 30.0)
    assert 29.0 < await other.remaining(SESSION, "SMS") <= 30.0
    with pytest.raises(CooldownError) as caught:
        await other.acquire(SESSION, "sms", lease=LEASE)
    assert 29.0 < caught.value.retry_after <= 30.0


async def test_an_observation_lengthens_the_servers_window_and_never_shortens_it(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 30.0)
    (key,) = keys(valkey)
    with valkey.client() as client:
        await other.observe(SESSION, "sms", 20.0)
        assert 29_000 < client.pttl(key) <= 30_000
        await other.observe(SESSION, "sms", 60.0)
        assert 59_000 < client.pttl(key) <= 60_000


async def test_an_observation_brings_back_the_longer_window_that_the_server_knows(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    await other.observe(SESSION, "sms", 20.0)
    before = valkey.scripts_run()
    assert 59.0 < await other.remaining(SESSION, "sms") <= 60.0
    assert valkey.scripts_run() == before


async def test_an_observation_of_nothing_new_takes_no_round_trip(valkey: Valkey, tracker: RedisCooldownTracker) -> None:
    await tracker.observe(SESSION, "sms", 60.0)
    before = valkey.scripts_run()
    for seconds in (50.0, 0.0, -1.0):
        await tracker.observe(SESSION, "sms", seconds)
        await tracker.observe(SESSION, "email", min(seconds, 0.0))
    assert valkey.scripts_run() == before


async def test_an_observation_leaves_a_reservation_of_another_process_alone(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    before = keys(valkey)
    await other.observe(SESSION, "sms", 30.0)
    assert keys(valkey) == before
    await tracker.release(held)
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    with pytest.raises(CooldownError):  # this process still knows
        await other.acquire(SESSION, "sms", lease=LEASE)


async def test_a_release_leaves_the_observed_window_behind(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.1)
    await tracker.observe(SESSION, "sms", 30.0)
    await tracker.release(held)
    assert list(keys(valkey).values()) == ["-"]
    with pytest.raises(CooldownError) as caught:
        await asyncio.wait_for(waiting, 1.0)
    assert 29.0 < caught.value.retry_after <= 30.0


async def test_a_wait_for_a_send_of_another_process_ends_with_the_observation_that_makes_it_hopeless(
    tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.1)
    await other.observe(SESSION, "sms", 30.0)
    with pytest.raises(CooldownError) as caught:
        await asyncio.wait_for(waiting, 1.0)
    assert 29.0 < caught.value.retry_after <= 30.0


async def test_an_observation_during_an_outage_is_written_when_the_server_is_back(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    with paused(valkey):
        await tracker.observe(SESSION, "sms", 30.0)
        await tracker.observe(SESSION, "sms", 60.0)
        assert 59.0 < await tracker.remaining(SESSION, "sms") <= 60.0
    await back_to_normal(tracker)
    assert 59.0 < await other.remaining(SESSION, "sms") <= 60.0


async def test_of_concurrent_observations_the_longest_reaches_the_server(
    valkey: Valkey, proxy: LossyProxy, unsure: RedisCooldownTracker
) -> None:
    proxy.lose_next = 2
    await asyncio.gather(*(unsure.observe(SESSION, "sms", seconds) for seconds in (20.0, 60.0)))
    await back_to_normal(unsure)
    (key,) = keys(valkey)
    with valkey.client() as client:
        assert 59_000 < client.pttl(key) <= 60_000


async def test_an_observation_reaches_the_server_even_if_the_caller_is_cancelled(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    task = asyncio.create_task(tracker.observe(SESSION, "sms", 30.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await back_to_normal(tracker)
    assert list(keys(valkey).values()) == ["-"]


async def test_a_reservation_that_is_cancelled_before_its_reply_leaves_the_observed_window_behind(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    with paused(valkey):
        task = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE))
        await asyncio.sleep(0.05)
        observing = asyncio.create_task(tracker.observe(SESSION, "sms", 30.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await observing
    await back_to_normal(tracker)
    assert list(keys(valkey).values()) == ["-"]


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_a_caller_cancelled_before_the_reply_leaves_no_reservation(
    valkey: Valkey, tracker: RedisCooldownTracker
) -> None:
    with paused(valkey):
        task = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE))
        follower = asyncio.create_task(tracker.acquire(SESSION, "sms", lease=LEASE))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with contextlib.suppress(CooldownError):  # the server may have made the first one's reservation by then
        await tracker.release(await follower)
    await back_to_normal(tracker)
    assert keys(valkey) == {}
    await tracker.acquire(SESSION, "sms", lease=LEASE)


@pytest.mark.parametrize("window", [60.0, None])
async def test_a_slot_is_settled_even_if_the_caller_is_cancelled(
    valkey: Valkey, tracker: RedisCooldownTracker, window: float | None
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    settling = tracker.release(held) if window is None else tracker.start(held, window)
    with paused(valkey):
        task = asyncio.create_task(settling)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await back_to_normal(tracker)
    assert list(keys(valkey).values()) == ["-"] * (window is not None)


async def test_a_cancelled_waiter_unsubscribes(
    valkey: Valkey, tracker: RedisCooldownTracker, other: RedisCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    task = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.1)
    with valkey.client() as client:
        assert len(client.pubsub_channels()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert client.pubsub_channels() == []


# -- loops and processes -----------------------------------------------------------------------------------------------


def test_windows_and_pending_writes_outlive_the_loop_that_they_began_on(valkey: Valkey) -> None:
    tracker = RedisCooldownTracker(valkey.url)

    async def send(channel: str) -> None:
        await tracker.start(await tracker.acquire(SESSION, channel, lease=LEASE), 60.0)

    async def left(channel: str) -> float:
        return await tracker.remaining(SESSION, channel)

    async def settle() -> None:
        await tracker.remaining(SESSION, "sms")
        await back_to_normal(tracker)
        await tracker.aclose()

    asyncio.run(send("sms"))  # without closing the tracker
    assert 59.0 < asyncio.run(left("sms")) <= 60.0
    with paused(valkey):
        asyncio.run(send("email"))
    asyncio.run(settle())
    assert list(keys(valkey).values()) == ["-"] * 2


def test_a_loop_that_ends_while_a_tracker_is_open_logs_nothing(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of the two it closes first, the caller's generator or the connections."""

    async def hold_open() -> AsyncGenerator[None]:
        async with RedisCooldownTracker(valkey.url) as tracker:
            await tracker.remaining(SESSION, "sms")
            yield

    async def use(holding: AsyncGenerator[None]) -> None:
        await anext(holding)

    for _ in range(30):
        asyncio.run(use(hold_open()))
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_tracker_in_use_on_an_open_loop_refuses_another_loop(valkey: Valkey) -> None:
    tracker = RedisCooldownTracker(valkey.url)
    with asyncio.Runner() as runner:
        runner.run(tracker.remaining(SESSION, "sms"))
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(tracker.remaining(SESSION, "sms"))
            except WrongLoopError as error:
                raised.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(raised) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(valkey: Valkey) -> None:
    tracker = RedisCooldownTracker(valkey.url)

    async def send(channel: str) -> None:
        await tracker.start(await tracker.acquire(SESSION, channel, lease=LEASE), 60.0)

    with asyncio.Runner() as runner:
        runner.run(send("sms"))  # the loop stays open in the parent
        child = os.fork()
        if child == 0:  # pragma: no cover the child leaves no data
            status = 1
            try:
                asyncio.run(send("email"))
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.run(send("telegram"))
    assert list(keys(valkey).values()) == ["-"] * 3


# -- wrong settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"server": "http://user:hunter2@localhost"},
        {"server": "redis://user:hunter2@localhost:port"},
        {"server": None},
        {"server": 5},
        {"timeout": 0},
        {"timeout": math.inf},
        {"timeout": "1"},
        {"window": -1.0},
        {"on_outage": "unlimited"},
        {"prefix": b"x"},
        {"secret": 5},
    ],
    ids=str,
)
def test_a_wrong_setting_fails_where_it_is_written(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisCooldownTracker(**{"server": "redis://localhost", **settings})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_repr_has_no_address() -> None:
    assert repr(RedisCooldownTracker("redis://user:hunter2@localhost")) == "<RedisCooldownTracker 'kodmobi:'>"


async def test_a_reservation_of_another_tracker_is_refused(tracker: RedisCooldownTracker) -> None:
    foreign = await MemoryCooldownTracker().acquire(SESSION, "sms", lease=LEASE)
    with pytest.raises(ConfigurationError):
        await tracker.start(foreign, 60.0)
    with pytest.raises(ConfigurationError):
        await tracker.release(foreign)


async def test_a_burst_of_many_pairs_shares_a_few_connections(valkey: Valkey, tracker: RedisCooldownTracker) -> None:
    async def send(number: int) -> str:
        held = await tracker.acquire(f"{number:026d}", "sms", lease=LEASE)
        await tracker.start(held, 60.0)
        return held.window

    assert set(await asyncio.gather(*(send(number) for number in range(2_000)))) == {"shared"}
    assert len(keys(valkey)) == 2_000
    with valkey.client() as client:
        assert int(client.info("clients")["connected_clients"]) < 40
