"""Limits that processes share, on a real Valkey: each `RedisLimits` stands for a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from test_redis_topologies import guest
from test_redis_tracker import own_valkey, paused
from valkey_server import WRONG_ADDRESSES, lossy_proxy, running_valkey
from valkey_topologies import running_cluster, running_sentinels

from kodmobi_async import (
    ConfigurationError,
    KodmobiClient,
    KodmobiError,
    Limits,
    LimitsDegraded,
    LimitsUnavailableError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    Record,
    RetryPolicy,
    Timeout,
    WrongLoopError,
)
from kodmobi_async.emulator import Fault
from kodmobi_async.redis import RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from valkey_server import Valkey

    from kodmobi_async.emulator import Emulator

__all__ = ("own_valkey",)  # the fixture of the tracker's tests

pytestmark = pytest.mark.real_clock

FAST = 50.0
LATE = 0.015
"""Seconds that a moment may be late on a busy machine before a test takes notice."""


@pytest.fixture
async def one(valkey: Valkey) -> AsyncIterator[RedisLimits]:
    async with RedisLimits(valkey.url) as limits:
        yield limits


@pytest.fixture
async def other(valkey: Valkey) -> AsyncIterator[RedisLimits]:
    async with RedisLimits(valkey.url) as limits:
        yield limits


async def listening(*limits: RedisLimits) -> None:
    """Use them, until they would hear of a closure."""
    for each in limits:
        async with asyncio.timeout(5):
            while not each.is_open:
                await each.acquire(rate=None, max_wait=5.0)
                await asyncio.sleep(0.005)


async def moments(*limits: RedisLimits, rate: float | None, requests: int) -> list[float]:
    """Take as many turns of each at once; return the moments at which they came, in order."""
    came: list[float] = []

    async def acquire(each: RedisLimits) -> None:
        assert await each.acquire(rate=rate, max_wait=10.0) is None
        came.append(time.monotonic())

    await asyncio.gather(*(acquire(each) for _ in range(requests) for each in limits))
    return came


async def back_to_normal(limits: RedisLimits) -> None:
    if limits._store.flusher is not None:
        await asyncio.wait([limits._store.flusher])
    assert not limits._store.outage
    assert not limits._store.backlog


# -- the rate ----------------------------------------------------------------------------------------------------------


async def test_requests_of_all_processes_are_spaced_by_one_rate(one: RedisLimits, other: RedisLimits) -> None:
    await listening(one, other)
    came = await moments(one, other, rate=FAST, requests=10)
    assert came[-1] - came[0] == pytest.approx(19 / FAST, abs=2 * LATE)
    for number, moment in enumerate(came):
        assert moment >= came[0] + number / FAST - LATE


async def test_idle_time_is_not_saved_up_for_a_burst(one: RedisLimits) -> None:
    await moments(one, rate=FAST, requests=2)
    await asyncio.sleep(5 / FAST)
    came = await moments(one, rate=FAST, requests=3)
    assert came[-1] - came[0] >= 2 / FAST - LATE


async def test_accounts_of_another_name_or_prefix_have_a_rate_of_their_own(valkey: Valkey) -> None:
    async with (
        RedisLimits(valkey.url) as one,
        RedisLimits(valkey.url, name="other") as named,
        RedisLimits(valkey.url, prefix="apart:") as apart,
    ):
        for limits in (one, named, apart):
            await limits.acquire(rate=0.1, max_wait=0.0)
        with pytest.raises(RateLimitedError):
            await one.acquire(rate=0.1, max_wait=1.0)


async def test_a_wait_that_would_be_too_long_is_refused_at_once_and_takes_no_turn(
    one: RedisLimits, other: RedisLimits
) -> None:
    await one.acquire(rate=0.1, max_wait=0.0)
    for limits in (one, other, one):
        began = time.monotonic()
        with pytest.raises(RateLimitedError, match="holds requests back for another") as caught:
            await limits.acquire(rate=0.1, max_wait=5.0)
        assert time.monotonic() - began < 0.5
        assert caught.value.outcome is Outcome.NOT_SENT
        assert caught.value.retry_after == pytest.approx(10.0, abs=0.5)


async def test_the_turn_of_a_wait_that_is_cancelled_goes_to_another_request(
    one: RedisLimits, other: RedisLimits
) -> None:
    await listening(one, other)
    await one.acquire(rate=5.0, max_wait=1.0)
    began = time.monotonic()
    first, second, third = (asyncio.create_task(one.acquire(rate=5.0, max_wait=9.0)) for _ in range(3))
    await asyncio.sleep(0.05)
    first.cancel()  # from the middle of the queue
    third.cancel()  # from its end
    await asyncio.gather(first, third, return_exceptions=True)
    await asyncio.sleep(0.05)
    await other.acquire(rate=5.0, max_wait=9.0)
    assert 0.2 - LATE <= time.monotonic() - began < 0.4
    await second
    assert 0.4 - LATE <= time.monotonic() - began < 0.6
    await other.acquire(rate=5.0, max_wait=9.0)
    assert 0.6 - LATE <= time.monotonic() - began < 0.8


async def test_a_request_takes_one_round_trip_and_many_at_once_share_it(valkey: Valkey, one: RedisLimits) -> None:
    await listening(one)
    before = valkey.scripts_run()
    await moments(one, rate=1_000.0, requests=50)
    assert valkey.scripts_run() - before <= 50 + 1  # and a sign of life
    with valkey.client() as client:
        assert 0 < client.pttl("kodmobi:limits:account") <= 61_000


async def test_without_a_rate_an_open_account_costs_no_round_trip(
    valkey: Valkey, emulator: Emulator, one: RedisLimits
) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(shared=one)) as client:
        await client.settings()
        await listening(one)
        before = valkey.scripts_run()
        await asyncio.gather(*(client.settings() for _ in range(100)))
        assert valkey.scripts_run() == before


@pytest.mark.parametrize("rate", [5e-324, 1e-6, 1e9])
async def test_any_rate_of_a_client_can_be_shared(one: RedisLimits, rate: float) -> None:
    await one.acquire(rate=rate, max_wait=1.0)
    if rate < 1:
        with pytest.raises(RateLimitedError) as caught:
            await one.acquire(rate=rate, max_wait=1.0)
        assert caught.value.retry_after == pytest.approx(86_400.0, abs=1.0)


async def test_a_server_whose_clock_is_set_back_makes_nobody_wait_for_longer(valkey: Valkey, one: RedisLimits) -> None:
    await one.acquire(rate=FAST, max_wait=1.0)
    with valkey.client() as client:  # as if all that was in an hour
        for member in ("at", "next", "opens"):
            client.zincrby("kodmobi:limits:account", -3_600_000_000, member)
    await one.acquire(rate=FAST, max_wait=1.0)


# -- closures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 1_000.0])
async def test_a_closure_holds_all_processes_back_and_lets_them_out_one_by_one(
    one: RedisLimits, other: RedisLimits, rate: float | None
) -> None:
    await listening(one, other)
    began = time.monotonic()
    await one.close(0.4)
    await asyncio.sleep(0.05)
    assert not one.is_open
    assert not other.is_open
    came = await moments(one, other, rate=rate, requests=8)
    assert came[0] - began >= 0.4 - 0.001
    assert came[0] - began < 0.4 + 0.2
    if rate is None:
        assert came[-1] - came[0] == pytest.approx(15 * 0.01, abs=2 * LATE)
    await listening(one, other)


async def test_who_comes_after_a_closure_need_not_wait_for_those_who_were_held_back(
    one: RedisLimits, other: RedisLimits
) -> None:
    await one.close(0.1)
    waiting = asyncio.create_task(moments(one, rate=None, requests=50))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert await other.acquire(rate=None, max_wait=0.0) is None
    await waiting


@pytest.mark.parametrize("second", [0.1, 0.6])
async def test_the_longer_of_two_closures_counts_whoever_makes_them(
    one: RedisLimits, other: RedisLimits, second: float
) -> None:
    began = time.monotonic()
    await one.close(0.4)
    await other.close(second)
    await other.acquire(rate=None, max_wait=5.0)
    assert max(0.4, second) - 0.001 <= time.monotonic() - began < max(0.4, second) + 0.2


async def test_a_shorter_closure_of_the_same_process_is_not_written(valkey: Valkey, one: RedisLimits) -> None:
    await one.close(0.4)
    before = valkey.scripts_run()
    await one.close(0.1)
    assert valkey.scripts_run() == before


@pytest.mark.parametrize("rate", [None, 4.0])
async def test_who_waits_while_the_account_is_closed_again_comes_out_after_that(
    one: RedisLimits, other: RedisLimits, rate: float | None
) -> None:
    await listening(one, other)
    await one.close(0.2)
    waiting = asyncio.create_task(moments(one, rate=rate, requests=2))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await other.close(0.5)
    first, second = await waiting
    assert first - began >= 0.5 - 0.001
    assert second - first >= (0.01 if rate is None else 0.25) - LATE


async def test_a_turn_after_the_closure_is_kept(one: RedisLimits, other: RedisLimits) -> None:
    await listening(one, other)
    await one.acquire(rate=2.0, max_wait=0.0)
    began = time.monotonic()
    waiting = asyncio.create_task(one.acquire(rate=2.0, max_wait=5.0))
    await asyncio.sleep(0.05)
    await other.close(0.2)
    await waiting
    assert 0.5 - 0.001 <= time.monotonic() - began < 0.9


async def test_a_closure_that_outlasts_a_call_is_refused_at_once(one: RedisLimits, other: RedisLimits) -> None:
    await one.close(60.0)
    with pytest.raises(RateLimitedError) as caught:
        await other.acquire(rate=None, max_wait=30.0)
    assert caught.value.retry_after == pytest.approx(60.0, abs=0.5)


async def test_a_429_of_one_client_holds_back_another_and_the_first_tries_again(
    emulator: Emulator, one: RedisLimits, other: RedisLimits
) -> None:
    await listening(one, other)

    def client(limits: RedisLimits) -> KodmobiClient:
        return KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(shared=limits))

    emulator.script(Fault.answer(429, {"Retry-After": "1"}))
    async with client(one) as first, client(other) as second:
        began = time.monotonic()
        sending = asyncio.create_task(first.send(emulator.add_session(), "sms"))
        await asyncio.sleep(0.2)
        with pytest.raises(RateLimitedError) as caught:
            await second.send(emulator.add_session(), "sms", timeout=0.5)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert caught.value.retry_after == pytest.approx(0.8, abs=0.2)
        await asyncio.gather(sending, second.send(emulator.add_session(), "sms"))
        assert time.monotonic() - began >= 1.0
    assert len(emulator.ledger) == 2


async def test_a_process_that_may_not_subscribe_asks_for_every_request(valkey: Valkey, other: RedisLimits) -> None:
    with guest(valkey, "~*", "&*", "+@all", "-subscribe") as url:
        async with RedisLimits(url) as one:
            for _ in range(3):
                await one.acquire(rate=None, max_wait=0.0)
                assert not one.is_open
            waiting = asyncio.create_task(moments(one, rate=2.0, requests=2))
            await asyncio.sleep(0.1)
            await other.close(0.8)
            began = time.monotonic()
            first, second = await waiting
            assert second - began >= 0.8 - LATE
            assert second > first


async def test_a_client_with_a_single_connection_serves(valkey: Valkey, other: RedisLimits) -> None:
    async with Redis(port=valkey.port, max_connections=1) as client, RedisLimits(client) as one:
        came = await moments(one, other, rate=FAST, requests=5)
        assert came[-1] - came[0] >= 9 / FAST - LATE


async def test_a_subscription_that_breaks_is_begun_again(
    valkey: Valkey, one: RedisLimits, other: RedisLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._watch._INTERVAL", 0.1)
    await listening(one, other)
    with valkey.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.sleep(0.05)
    assert not one.is_open
    await one.close(0.3)
    with pytest.raises(RateLimitedError):
        await other.acquire(rate=None, max_wait=0.1)
    await asyncio.sleep(0.3)
    await listening(one, other)


async def test_that_an_account_is_open_is_asked_again_from_time_to_time(
    valkey: Valkey, one: RedisLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._watch.FRESH", 0.05)
    await listening(one)
    before = valkey.scripts_run()
    await asyncio.sleep(0.1)
    assert not one.is_open
    await one.acquire(rate=None, max_wait=0.0)
    assert valkey.scripts_run() - before <= 1 + 1  # and a sign of life
    assert one.is_open


async def test_a_closure_that_the_server_has_lost_is_taught_by_whoever_knows_it(
    valkey: Valkey, one: RedisLimits, other: RedisLimits
) -> None:
    await one.close(0.6)
    with pytest.raises(RateLimitedError):
        await other.acquire(rate=None, max_wait=0.1)
    with valkey.client() as client:
        client.flushall()
    with pytest.raises(RateLimitedError):  # it has heard of it
        await other.acquire(rate=None, max_wait=0.1)
    async with RedisLimits(valkey.url) as third:
        with pytest.raises(RateLimitedError):
            await third.acquire(rate=None, max_wait=0.1)


# -- lost replies and outages ------------------------------------------------------------------------------------------


async def test_a_lost_reply_costs_a_turn_at_most(valkey: Valkey) -> None:
    async with lossy_proxy(valkey.port) as proxy, RedisLimits(proxy.url) as limits:
        await limits.acquire(rate=FAST, max_wait=1.0)
        proxy.lose_next = 1
        began = time.monotonic()
        assert await limits.acquire(rate=5.0, max_wait=1.0) is None
        assert proxy.lost == 1
        assert time.monotonic() - began < 0.9


async def test_without_the_server_a_process_keeps_its_share_and_says_so_once(
    valkey: Valkey, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Record] = []
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(RedisLimits(valkey.url)) for _ in range(4)]
        for _ in range(2):
            await listening(*processes)
            await moments(*processes, rate=FAST, requests=1)
        shared = processes[0]
        client = await stack.enter_async_context(
            KodmobiClient(
                emulator.api_key,
                base_url=emulator.base_url,
                limits=Limits(rate=FAST, shared=shared),
                hooks=[told.append],
            )
        )
        with paused(valkey):
            await client.settings()
            assert repr(shared) == "<RedisLimits 'kodmobi:limits:account' degraded>"
            began = time.monotonic()
            await asyncio.gather(*(client.settings() for _ in range(5)))
            assert 5 * 4 / FAST - 4 / FAST - LATE <= time.monotonic() - began < 1.0
        await back_to_normal(shared)
        assert repr(shared) == "<RedisLimits 'kodmobi:limits:account'>"
        assert await shared.acquire(rate=FAST, max_wait=1.0) is None
    degraded = [record for record in told if isinstance(record, LimitsDegraded)]
    assert [record.reason for record in degraded] == ["TimeoutError"] * 6
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "the server of the shared limits is unavailable (TimeoutError): this process keeps its share"


async def test_a_process_that_has_never_reached_the_server_keeps_the_whole_rate() -> None:
    async with RedisLimits("redis://127.0.0.1:1") as limits:
        assert await limits.acquire(rate=10.0, max_wait=0.0) == "ConnectionError"
        began = time.monotonic()
        assert await limits.acquire(rate=10.0, max_wait=1.0) == "ConnectionError"
        assert 0.05 <= time.monotonic() - began < 0.3
        assert await limits.acquire(rate=None, max_wait=0.0) == "ConnectionError"


async def test_clients_of_several_rates_share_what_their_process_keeps_without_the_server() -> None:
    async with RedisLimits("redis://127.0.0.1:1") as limits:
        began = time.monotonic()
        for number in range(6):
            assert await limits.acquire(rate=20.0 + number % 2, max_wait=1.0) == "ConnectionError"
            assert await limits.acquire(rate=None, max_wait=0.0) == "ConnectionError"
        assert time.monotonic() - began >= 5 / 21 - LATE


async def test_a_process_that_comes_makes_the_shares_of_the_others_smaller_at_once(
    one: RedisLimits, other: RedisLimits
) -> None:
    await listening(one)
    await one.acquire(rate=FAST, max_wait=1.0)  # which has heard of its own subscription
    assert one._share.processes == 1
    await other.acquire(rate=FAST, max_wait=1.0)
    await asyncio.sleep(0.05)
    await one.acquire(rate=FAST, max_wait=1.0)
    assert (one._share.processes, other._share.processes) == (2, 2)


async def test_without_the_server_a_wait_that_would_be_too_long_is_refused(valkey: Valkey) -> None:
    async with RedisLimits(valkey.url) as limits:
        with paused(valkey):
            await limits.acquire(rate=0.5, max_wait=1.0)
            with pytest.raises(RateLimitedError) as caught:
                await limits.acquire(rate=0.5, max_wait=1.0)
            assert caught.value.retry_after == pytest.approx(2.0, abs=0.2)


async def test_closures_hold_during_an_outage_and_are_told_when_the_server_is_back(
    valkey: Valkey, other: RedisLimits
) -> None:
    async with RedisLimits(valkey.url) as one:
        await listening(one)
        await other.close(0.3)
        with pytest.raises(RateLimitedError):
            await one.acquire(rate=None, max_wait=0.01)
        with paused(valkey):
            with pytest.raises(RateLimitedError):  # what it had heard of
                await one.acquire(rate=None, max_wait=0.01)
            assert await one.acquire(rate=None, max_wait=1.0) is not None
            await one.close(30.0)
            with pytest.raises(RateLimitedError):
                await one.acquire(rate=None, max_wait=5.0)
        await back_to_normal(one)
        with pytest.raises(RateLimitedError) as caught:
            await other.acquire(rate=None, max_wait=5.0)
        assert 25.0 < (caught.value.retry_after or 0.0) <= 30.5


async def test_a_closure_during_an_outage_holds_back_who_waits_for_a_turn(valkey: Valkey, one: RedisLimits) -> None:
    await listening(one)
    with paused(valkey):
        assert await one.acquire(rate=5.0, max_wait=2.0) is not None
        waiting = asyncio.create_task(one.acquire(rate=5.0, max_wait=2.0))
        await asyncio.sleep(0.02)
        began = time.monotonic()
        await one.close(0.5)
        assert await waiting == "TimeoutError"
        assert time.monotonic() - began >= 0.5 - 0.001


async def test_a_turn_that_the_server_has_given_counts_when_it_is_gone(own_valkey: Valkey) -> None:
    async with RedisLimits(own_valkey.url) as limits:
        await listening(limits)
        await limits.acquire(rate=2.0, max_wait=0.0)
        began = time.monotonic()
        waiting = asyncio.create_task(limits.acquire(rate=2.0, max_wait=1.0))
        await asyncio.sleep(0.05)
        own_valkey.kill()
        assert await waiting == "ConnectionError"
        assert time.monotonic() - began < 0.9
        with pytest.raises(RateLimitedError):  # behind it
            await limits.acquire(rate=2.0, max_wait=0.2)


async def test_a_wait_that_is_cancelled_during_an_outage_ends_as_any_other(own_valkey: Valkey) -> None:
    async with RedisLimits(own_valkey.url) as limits:
        await listening(limits)
        await limits.acquire(rate=1.0, max_wait=0.0)
        waiting = asyncio.create_task(limits.acquire(rate=1.0, max_wait=5.0))
        await asyncio.sleep(0.05)
        own_valkey.kill()
        await limits.acquire(rate=None, max_wait=5.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_who_waits_for_its_share_asks_the_server_when_that_is_back(own_valkey: Valkey) -> None:
    async with RedisLimits(own_valkey.url) as limits:
        await listening(limits)
        own_valkey.kill()
        await limits.acquire(rate=1.0, max_wait=0.0)
        waiting = asyncio.create_task(limits.acquire(rate=1.0, max_wait=5.0))
        await asyncio.sleep(0.05)
        own_valkey.start()
        await back_to_normal(limits)
        assert await waiting is None


async def test_with_on_outage_refuse_nothing_is_sent_without_the_server(
    valkey: Valkey, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisLimits(valkey.url, on_outage="refuse") as shared,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(rate=FAST, shared=shared)) as client,
    ):
        session = emulator.add_session()
        await client.send(session, "sms")
        with paused(valkey):
            for _ in range(2):
                with pytest.raises(LimitsUnavailableError, match="nothing was sent") as caught:
                    await client.send(session, "email")
                assert caught.value.outcome is Outcome.NOT_SENT
                assert caught.value.retryable
                assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        await back_to_normal(shared)
        await client.send(session, "email")
    assert len(emulator.ledger) == 2
    assert "nothing is sent meanwhile" in caplog.text


async def test_a_server_that_goes_between_two_attempts_does_not_make_the_outcome_known(
    valkey: Valkey, emulator: Emulator
) -> None:
    async with (
        RedisLimits(valkey.url, on_outage="refuse") as shared,
        KodmobiClient(
            emulator.api_key,
            base_url=emulator.base_url,
            limits=Limits(rate=FAST, shared=shared),
            retry=RetryPolicy(initial_backoff=0.0),
            timeout=Timeout(attempt=0.2),
        ) as client,
    ):
        await client.settings()
        emulator.script(Fault.silence(process=False))
        sending = asyncio.create_task(client.send(emulator.add_session(), "sms"))
        await asyncio.sleep(0.1)
        with paused(valkey), pytest.raises(OutcomeUnknownError) as caught:
            await sending
        assert isinstance(caught.value.__cause__, LimitsUnavailableError)


async def test_closing_during_an_outage_writes_what_is_pending_and_a_later_use_connects_again(
    valkey: Valkey, other: RedisLimits
) -> None:
    limits = RedisLimits(valkey.url)
    with paused(valkey):
        await limits.close(30.0)
    await limits.aclose()
    with pytest.raises(RateLimitedError):
        await other.acquire(rate=None, max_wait=1.0)
    with pytest.raises(RateLimitedError):
        await limits.acquire(rate=None, max_wait=1.0)
    await limits.aclose()


async def test_closing_leaves_no_connection_however_often_the_limits_are_used(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kodmobi_async.redis._watch._INTERVAL", 0.0)
    limits = RedisLimits(valkey.url)
    for _ in range(2):
        await listening(limits)
        await limits.aclose()
    await asyncio.sleep(0.05)
    with valkey.client() as client:
        assert len(client.client_list()) == 1  # this one


async def test_limits_that_were_closed_during_an_outage_serve_on(own_valkey: Valkey) -> None:
    limits = RedisLimits(own_valkey.url)
    own_valkey.kill()
    assert await limits.acquire(rate=None, max_wait=1.0) == "ConnectionError"
    await limits.aclose()
    assert await limits.acquire(rate=None, max_wait=1.0) == "ConnectionError"
    own_valkey.start()
    await back_to_normal(limits)
    assert await limits.acquire(rate=None, max_wait=1.0) is None
    await limits.aclose()


# -- a wrong set-up ----------------------------------------------------------------------------------------------------


async def assert_wrong(server: str, words: str) -> None:
    """Look whether every use says what is wrong, without the address."""
    async with RedisLimits(server, timeout=1.0) as limits:
        for use in (
            limits.ping(),
            limits.acquire(rate=None, max_wait=1.0),
            limits.acquire(rate=None, max_wait=1.0),
            limits.acquire(rate=1.0, max_wait=1.0),
        ):
            with pytest.raises(ConfigurationError, match=rf"^the shared limits cannot be used: .*{words}") as caught:
                await use
            shown = "".join(traceback.format_exception(caught.value))
            assert "hunter2" not in shown
            assert "127.0.0.1" not in shown
        assert limits._store.outage is None


@pytest.mark.parametrize("denied", ["evalsha", "zadd", "zmscore", "zcard", "pexpire", "time"])
async def test_missing_rights_are_a_wrong_set_up(valkey: Valkey, denied: str) -> None:
    with guest(valkey, "~*", "&*", "+@all", f"-{denied}") as url:
        await assert_wrong(url, "ACL")


async def test_the_rights_that_are_documented_suffice(valkey: Valkey) -> None:
    commands = "eval evalsha subscribe time zadd zcard zmscore zrange zremrangebyscore pexpire publish"
    rules = ("~kodmobi:*", "&kodmobi:*", *(f"+{command}" for command in commands.split()))
    with guest(valkey, *rules) as url:
        async with RedisLimits(url) as limits:
            await limits.ping()
            await listening(limits)
            await limits.close(0.05)
            await moments(limits, rate=FAST, requests=3)
    for needed in ("zrange", "zremrangebyscore", "publish"):
        with guest(valkey, "~*", "&*", "+@all", f"-{needed}") as url:
            async with RedisLimits(url) as limits:
                with pytest.raises(ConfigurationError, match="ACL"):
                    await limits.ping()


@pytest.mark.parametrize(("change", "words"), WRONG_ADDRESSES, ids=str)
async def test_a_wrong_address_is_a_wrong_set_up(valkey: Valkey, change: tuple[str, str], words: str) -> None:
    await assert_wrong(valkey.url.replace(*change), words)


async def test_a_replica_is_a_wrong_set_up() -> None:
    with running_valkey(replicaof="127.0.0.1 1") as replica:
        await assert_wrong(replica.url, "read-only replica")


async def test_a_wrong_set_up_is_an_error_of_the_call(valkey: Valkey, emulator: Emulator) -> None:
    async with (
        RedisLimits(valkey.url.replace("//", "//guest:hunter2@")) as shared,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(shared=shared)) as client,
    ):
        with pytest.raises(ConfigurationError, match="user and password") as caught:
            await client.send(emulator.add_session(), "sms")
        assert caught.value.outcome is Outcome.NOT_SENT
    assert emulator.ledger == ()


async def test_a_ping_without_a_server_says_so() -> None:
    async with RedisLimits("redis://127.0.0.1:1") as limits:
        with pytest.raises(LimitsUnavailableError) as caught:
            await limits.ping()
        assert caught.value.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    "settings",
    [{"timeout": 0.0}, {"on_outage": "no"}, {"prefix": 1}, {"name": None}, {"server": "redis://localhost?x=1"}],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisLimits(**{"server": "redis://localhost", **settings})


async def test_a_server_that_may_evict_keys_is_warned_about(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    with valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with RedisLimits(valkey.url) as limits:
                await limits.acquire(rate=None, max_wait=1.0)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "the server of the shared limits has maxmemory-policy allkeys-lru" in caplog.text


# -- clusters, Sentinels, loops and processes --------------------------------------------------------------------------


async def assert_shared(one: RedisLimits, other: RedisLimits) -> None:
    """Try what two processes have to see of each other."""
    await one.ping()
    await listening(one, other)
    came = await moments(one, other, rate=FAST, requests=5)
    assert came[-1] - came[0] >= 9 / FAST - LATE
    await one.close(0.3)
    await asyncio.sleep(0.1)
    assert not other.is_open
    with pytest.raises(RateLimitedError):
        await other.acquire(rate=None, max_wait=0.05)


async def test_processes_share_limits_on_a_cluster() -> None:
    with running_cluster() as cluster:
        async with RedisLimits(cluster.url) as one, RedisLimits(cluster.url) as other:
            await assert_shared(one, other)


async def test_processes_share_limits_behind_sentinels() -> None:
    with running_sentinels() as sentinels:
        async with RedisLimits(f"{sentinels.url}/0") as one, RedisLimits(sentinels.url) as other:
            await assert_shared(one, other)


def test_another_loop_takes_over_when_one_has_been_closed(valkey: Valkey) -> None:
    limits = RedisLimits(valkey.url)

    async def use() -> None:
        assert not limits.is_open
        await listening(limits)
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(asyncio.run, limits.acquire(rate=None, max_wait=1.0))

    for _ in range(2):
        asyncio.run(use())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_a_process_of_its_own(valkey: Valkey) -> None:
    limits = RedisLimits(valkey.url)

    async def use(*, processes: int) -> None:
        assert limits.is_open is False
        await listening(limits)
        await limits.acquire(rate=FAST, max_wait=1.0)
        assert limits._share.processes == processes
        await limits.aclose()

    with asyncio.Runner() as runner:
        runner.run(use(processes=1))
        runner.run(listening(limits))
        child = os.fork()
        if child == 0:  # pragma: no cover the child leaves no data
            status = 1
            try:
                asyncio.run(use(processes=2))
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.run(limits.aclose())
        runner.run(use(processes=2))


async def test_a_client_refuses_with_whatever_error_of_ours_its_limits_raise(emulator: Emulator) -> None:
    class Refusing:
        is_open = False

        async def acquire(self, *, rate: float | None, max_wait: float) -> str | None:
            raise KodmobiError(f"not at {rate}, {max_wait:.0f}")

        async def close(self, seconds: float) -> None:
            raise AssertionError(seconds)

    limits = Limits(rate=2.0, shared=Refusing())
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=limits) as client:
        with pytest.raises(KodmobiError, match=r"not at 2\.0, 30"):
            await client.settings()
