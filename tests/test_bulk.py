"""Many sends: every request that was read has one outcome, and no channel two codes in a window."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ulid import ULID

from kodmobi_async import (
    AttemptFinished,
    AuthenticationError,
    BulkStoppedError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    InvalidRequestError,
    KodmobiClient,
    Limits,
    MemoryCooldownTracker,
    NotFoundError,
    Outcome,
    RateLimitedError,
    RetryPolicy,
    SendInterruptedError,
    SendMany,
    SendOutcome,
    SendRequest,
    SendResult,
    SessionChannel,
)
from kodmobi_async._calls.run import MOST_POSTPONED
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from kodmobi_async import Record

WINDOW: Final = 60.0
DUST: Final = 1e-6
"""What is lost in sums of floating-point numbers."""
CHANNEL: Final = SessionChannel("SMS", "sms", is_active=True, timeout=60.0, image_url="", link="")


async def outcomes_of(sends: SendMany) -> list[SendOutcome]:
    return [outcome async for outcome in sends]


async def collect(sends: SendMany, outcomes: list[SendOutcome]) -> None:
    async for outcome in sends:
        outcomes.append(outcome)  # noqa: PERF401 what came before an error is wanted


def endless(emulator: Emulator, taken: list[str] | None = None) -> Iterator[tuple[str, str]]:
    while True:
        session = emulator.add_session()
        if taken is not None:
            taken.append(session)
        yield session, "sms"


@pytest.fixture
async def sessions(emulator: Emulator) -> list[str]:
    return [emulator.add_session() for _ in range(200)]


# -- the plain case ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 64, 1000])
async def test_every_request_has_its_outcome(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], concurrency: int
) -> None:
    sends = client.send_many([(session, "sms") for session in sessions], concurrency=concurrency)
    outcomes = await outcomes_of(sends)
    assert {outcome.request.session_id for outcome in outcomes} == set(sessions)
    assert all(outcome.result is not None and outcome.error is None for outcome in outcomes)
    assert sends.done == len(outcomes) == len(emulator.ledger) == 200
    assert sends.unread == ()


async def test_requests_may_come_as_objects_pairs_and_asynchronously(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    given = [SendRequest(sessions[0], "sms"), (ULID.from_str(sessions[1]), "sms"), [sessions[2], "sms"]]

    async def later() -> AsyncIterator[Any]:
        for request in given:
            await asyncio.sleep(1)
            yield request

    outcomes = await outcomes_of(client.send_many(later()))
    assert [outcome.request for outcome in outcomes] == [
        given[0],
        SendRequest(ULID.from_str(sessions[1]), "sms"),
        SendRequest(sessions[2], "sms"),
    ]
    assert outcomes[0].request is given[0]
    assert len(emulator.ledger) == 3


async def test_of_nothing_comes_nothing(client: KodmobiClient) -> None:
    assert await outcomes_of(client.send_many([])) == []


async def test_no_more_are_in_flight_than_was_said(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.delay(1.0), times=20)
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcomes = await outcomes_of(client.send_many(itertools.islice(endless(emulator), 20), concurrency=5))
    assert len(outcomes) == 20
    assert loop.time() - began == pytest.approx(4.0, abs=0.2)
    assert emulator.connections == 5


async def test_the_input_is_read_only_as_fast_as_it_is_worked(emulator: Emulator, client: KodmobiClient) -> None:
    taken: list[str] = []
    async with client.send_many(endless(emulator, taken), concurrency=4) as sends:
        for read in range(1, 100):
            await anext(sends)
            await asyncio.sleep(1)  # a consumer that takes its time
            assert len(taken) <= read + 3 * 4


@pytest.mark.parametrize("bad", ["x", 7, None, ("a",), ("a", "b", "c"), ("not a ulid", "sms"), (ULID(), "no channel")])
async def test_what_is_no_request_is_an_outcome_like_any_other(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], bad: Any
) -> None:
    outcomes = await outcomes_of(client.send_many([(sessions[0], "sms"), bad, (sessions[1], "sms")], concurrency=1))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidRequestError, type(None)]
    assert outcomes[1].request in (bad, SendRequest(*bad) if isinstance(bad, tuple) and len(bad) == 2 else bad)
    assert len(emulator.ledger) == 2


@pytest.mark.parametrize(
    ("requests", "more"),
    [
        ("abc", {}),
        (b"abc", {}),
        (7, {}),
        ([], {"concurrency": 0}),
        ([], {"concurrency": True}),
        ([], {"concurrency": 2.5}),
        ([], {"max_wait": -1}),
    ],
)
async def test_what_cannot_be_worked_is_refused_where_it_is_written(
    client: KodmobiClient, requests: Any, more: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        client.send_many(requests, **more)


async def test_a_failure_is_the_outcome_of_its_request_alone(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    outcomes = await outcomes_of(client.send_many([(session, "sms") for session in sessions], concurrency=8))
    assert sum(outcome.error is not None for outcome in outcomes) == 1
    assert len(emulator.ledger) == 199


# -- cooldowns ---------------------------------------------------------------------------------------------------------


async def test_a_repeat_without_time_to_wait_is_refused(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    outcomes = await outcomes_of(client.send_many([(sessions[0], "sms")] * 3))
    assert sorted(type(outcome.error).__name__ for outcome in outcomes) == ["CooldownError"] * 2 + ["NoneType"]
    assert len(emulator.ledger) == 1


async def test_repeats_are_postponed_and_hold_up_nobody(emulator: Emulator, client: KodmobiClient) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = emulator.add_session()
    others = list(itertools.islice(endless(emulator), 50))
    when: dict[float, int] = Counter()
    sends = client.send_many([*[(first, "sms")] * 3, *others], concurrency=2, max_wait=130.0)
    async for outcome in sends:
        assert outcome.error is None
        when[round(loop.time() - began)] += 1
    assert when == {0: 51, 60: 1, 120: 1}


async def test_the_clients_own_max_wait_counts_where_none_is_given(emulator: Emulator) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, max_wait=70.0) as client:
        session = emulator.add_session()
        outcomes = await outcomes_of(client.send_many([(session, "sms")] * 2))
    assert [outcome.error for outcome in outcomes] == [None, None]


async def test_a_wait_is_not_begun_that_would_end_too_late(emulator: Emulator, client: KodmobiClient) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    session = emulator.add_session()
    outcomes = await outcomes_of(client.send_many([(session, "sms")] * 4, max_wait=70.0, concurrency=1))
    waited = [outcome.error for outcome in outcomes]
    assert [type(error) for error in waited].count(CooldownError) == 2
    assert loop.time() - began == pytest.approx(WINDOW, abs=1.0)
    assert len(emulator.ledger) == 2


async def test_a_wait_is_not_begun_that_ends_after_the_session(emulator: Emulator) -> None:
    async with (
        Emulator(session_lifetime=50.0) as short,
        KodmobiClient(short.api_key, base_url=short.base_url) as client,
    ):
        session = short.add_session()
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcomes = await outcomes_of(client.send_many([(session, "sms")] * 2, max_wait=1000.0, concurrency=1))
        assert isinstance(outcomes[1].error, CooldownError)
        assert loop.time() - began < 1.0


async def test_an_earlier_turn_is_taken_first(emulator: Emulator, client: KodmobiClient) -> None:
    """The one whose turn is sooner is postponed while everybody waits for a later one."""
    slow, quick = emulator.add_session(), emulator.add_session()
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=50))
    emulator.script(Fault.delay(2.0))

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield slow, "sms"
        await asyncio.sleep(1)
        emulator.clear_faults()
        emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=5))
        yield quick, "sms"

    order = [outcome.request.session_id async for outcome in client.send_many(requests(), concurrency=3, max_wait=60.0)]
    assert order == [quick, slow]


async def test_only_so_many_are_postponed_and_then_the_reading_waits(emulator: Emulator, client: KodmobiClient) -> None:
    session = emulator.add_session()
    taken: list[int] = []

    def requests() -> Iterator[tuple[str, str]]:
        for number in range(MOST_POSTPONED + 500):
            taken.append(number)
            yield session, "sms"

    async with client.send_many(requests(), concurrency=8, max_wait=10**9) as sends:
        await anext(sends)
        await asyncio.sleep(1)
        assert MOST_POSTPONED <= len(taken) <= MOST_POSTPONED + 8
        await anext(sends)
        assert len(emulator.ledger) == 2


# -- an input that comes in time ---------------------------------------------------------------------------------------


async def test_an_asynchronous_input_that_is_there_keeps_everybody_at_work(sessions: list[str]) -> None:
    """Not one request a turn of the loop, as if everybody had to wait for the one before."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def requests() -> AsyncIterator[tuple[str, str]]:
        for session in sessions:
            yield session, "sms"

    async def send(request: SendRequest) -> SendResult:
        await asyncio.sleep(0)
        return SendResult(ULID.from_str(str(request.session_id)), None, CHANNEL)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    counting = asyncio.create_task(count())
    sends = SendMany(requests(), send, remaining=remaining, concurrency=10)
    assert len(await outcomes_of(sends)) == 200
    counting.cancel()
    assert turns < 200 / 10 * 2


@pytest.mark.parametrize("leave_at", [0.5, 1.5, 10.5, 1_000.0])
async def test_a_slow_input_is_read_by_one_at_a_time(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], leave_at: float
) -> None:
    readers = 0

    async def slow() -> AsyncIterator[tuple[str, str]]:
        nonlocal readers
        for session in sessions[:20]:
            readers += 1
            assert readers == 1
            await asyncio.sleep(1)
            readers -= 1
            yield session, "sms"

    outcomes: list[SendOutcome] = []
    async with client.send_many(slow(), concurrency=5) as sends:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(leave_at):
                await collect(sends, outcomes)
    assert len(outcomes) + len(sends.unread) == len(emulator.ledger) == min(20, int(leave_at))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_input_may_stop_its_run(emulator: Emulator, client: KodmobiClient, *, asynchronous: bool) -> None:
    def requests() -> Iterator[tuple[str, str]]:
        for number in range(10):
            if number == 5:
                sends.stop()
            yield emulator.add_session(), "sms"

    async def later() -> AsyncIterator[tuple[str, str]]:
        for request in requests():
            await asyncio.sleep(1)
            yield request

    sends = client.send_many(later() if asynchronous else requests(), concurrency=2)
    outcomes = await outcomes_of(sends)
    assert len(emulator.ledger) == 5
    ends = Counter(outcome.error and outcome.error.outcome for outcome in outcomes)
    assert ends == {None: 5, Outcome.NOT_SENT: 1}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_those_postponed_are_sent_in_time_while_the_input_is_quiet(
    emulator: Emulator, client: KodmobiClient, concurrency: int
) -> None:
    session = emulator.add_session()

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield session, "sms"
        yield session, "sms"
        await asyncio.sleep(3_600)
        yield emulator.add_session(), "sms"

    await outcomes_of(client.send_many(requests(), concurrency=concurrency, max_wait=120))
    first, second, third = (code.at for code in emulator.ledger)
    assert second - first == pytest.approx(WINDOW, abs=0.1)
    assert third - first == pytest.approx(3_600, abs=0.1)


@pytest.mark.parametrize("ended", ["not at all", "stopped", "cancelled"])
async def test_a_request_that_comes_while_those_postponed_are_sent_waits_for_its_turn(
    emulator: Emulator, client: KodmobiClient, ended: str
) -> None:
    session = emulator.add_session()
    emulator.script(Fault.delay(0.0), times=1)
    emulator.script(Fault.delay(9.0), times=2)

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield session, "sms"
        yield session, "sms"
        await asyncio.sleep(WINDOW + 4)
        yield emulator.add_session(), "sms"

    loop = asyncio.get_running_loop()
    outcomes: list[SendOutcome] = []
    sends = client.send_many(requests(), concurrency=1, max_wait=100.0, grace=0.0)
    consumer = asyncio.create_task(collect(sends, outcomes))
    if ended == "stopped":
        loop.call_later(WINDOW + 6, sends.stop)
    elif ended == "cancelled":
        loop.call_later(WINDOW + 6, consumer.cancel)
    await asyncio.wait([consumer])
    ends = Counter(outcome.error and outcome.error.outcome for outcome in (*outcomes, *sends.unread))
    if ended == "not at all":
        first, second, third = (code.at for code in emulator.ledger)
        assert second - first == pytest.approx(WINDOW, abs=0.1)
        assert third - second == pytest.approx(9.0, abs=0.1)
    else:
        assert len(emulator.ledger) == 2
        in_flight = Outcome.UNKNOWN if ended == "cancelled" else None
        assert ends == Counter([None, in_flight, Outcome.NOT_SENT])


async def test_workers_that_somebody_cancels_tell_of_what_they_have_read(
    emulator: Emulator, client: KodmobiClient
) -> None:
    """As at the end of a program that cancels all tasks."""
    session = emulator.add_session()

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield session, "sms"
        yield session, "sms"
        await asyncio.sleep(WINDOW + 4)
        yield emulator.add_session(), "sms"

    outcomes: list[SendOutcome] = []
    emulator.script(Fault.delay(0.0), times=1)
    emulator.script(Fault.delay(9.0), times=2)
    consumer = asyncio.create_task(collect(client.send_many(requests(), concurrency=1, max_wait=100.0), outcomes))
    await asyncio.sleep(WINDOW + 6)
    for task in asyncio.all_tasks():
        if "Run._work" in repr(task.get_coro()):
            task.cancel()
    await consumer
    ends = Counter(outcome.error and outcome.error.outcome for outcome in outcomes)
    assert ends == {None: 1, Outcome.UNKNOWN: 1, Outcome.NOT_SENT: 1}


async def test_a_run_that_is_stopped_waits_for_no_input(emulator: Emulator, client: KodmobiClient) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield emulator.add_session(), "sms"
        await asyncio.sleep(1_000)
        yield emulator.add_session(), "sms"

    loop = asyncio.get_running_loop()
    began = loop.time()
    sends = client.send_many(requests(), concurrency=3)
    loop.call_later(5, sends.stop)
    assert len(await outcomes_of(sends)) == len(emulator.ledger) == 1
    assert loop.time() - began == pytest.approx(5.0, abs=0.1)


# -- a limited account -------------------------------------------------------------------------------------------------


async def test_a_limit_of_the_account_pauses_the_run_and_costs_no_request(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    emulator.script(Fault.delay(0.0), times=50)
    emulator.script(Fault.answer(429, {"Retry-After": "100"}))
    async with client.send_many([(session, "sms") for session in sessions], concurrency=8) as sends:
        assert sends.paused_for == 0.0
        outcomes = [await anext(sends) for _ in range(50)]
        await asyncio.sleep(10)
        assert 80.0 < sends.paused_for <= 90.0
        outcomes += await outcomes_of(sends)
        assert sends.paused_for == 0.0
    assert len(outcomes) == len(emulator.ledger) == 200
    assert all(outcome.error is None for outcome in outcomes)
    assert loop.time() - began == pytest.approx(100.0, abs=5.0)
    assert emulator.requests["send"] == 201


async def test_a_limit_that_does_not_end_stops_the_run(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    emulator.script(Fault.delay(0.0), times=20)
    emulator.script(Fault.answer(429, {"Retry-After": "100"}), times=10_000)
    outcomes: list[SendOutcome] = []
    with pytest.raises(BulkStoppedError) as stopped:
        await collect(client.send_many([(session, "sms") for session in sessions], concurrency=8), outcomes)
    assert isinstance(stopped.value.error, RateLimitedError)
    assert stopped.value.done == len(outcomes) == 28
    assert [type(outcome.error) for outcome in outcomes[20:]] == [RateLimitedError] * 8
    assert loop.time() - began == pytest.approx(300.0, abs=5.0)


@pytest.mark.parametrize("between", [Fault.delay(0.0), Fault.refuse("ERROR_SESSION_EXPIRED")])
async def test_a_limit_that_comes_again_after_other_answers_pauses_the_run_again(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], between: Fault
) -> None:
    for _ in range(10):
        emulator.script(Fault.answer(429, {"Retry-After": "100"}))
        emulator.script(between, times=5)
    outcomes = await outcomes_of(client.send_many([(session, "sms") for session in sessions], concurrency=2))
    assert len(outcomes) == 200
    assert not any(isinstance(outcome.error, RateLimitedError) for outcome in outcomes)


async def test_a_run_that_is_stopped_in_a_pause_ends_at_once(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    emulator.script(Fault.answer(429, {"Retry-After": "100"}))
    sends = client.send_many([(session, "sms") for session in sessions], concurrency=1)
    loop.call_later(5, sends.stop)
    outcomes = await outcomes_of(sends)
    assert [type(outcome.error) for outcome in outcomes] == [RateLimitedError]
    assert loop.time() - began == pytest.approx(5.0, abs=0.5)
    assert len(emulator.ledger) == 0


async def test_a_limit_without_a_time_pauses_for_a_second(sessions: list[str]) -> None:
    refusals = [RateLimitedError("x", status=429)]

    async def send(request: SendRequest) -> SendResult:
        if refusals:
            raise refusals.pop()
        return SendResult(ULID.from_str(str(request.session_id)), None, CHANNEL)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    loop = asyncio.get_running_loop()
    began = loop.time()
    outcomes = await outcomes_of(SendMany([(sessions[0], "sms")], send, remaining=remaining))
    assert [outcome.error for outcome in outcomes] == [None]
    assert loop.time() - began == pytest.approx(1.0, abs=0.1)


async def test_after_a_pause_requests_go_one_after_the_other(
    emulator: Emulator, client: KodmobiClient, sessions: list[str]
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "40"}), times=64)
    await outcomes_of(client.send_many([(session, "sms") for session in sessions[:64]]))
    moments = [code.at for code in emulator.ledger]
    assert max(Counter(moments).values()) == 1
    assert moments[-1] - moments[0] == pytest.approx(64 * 0.01, abs=0.1)


async def test_a_rate_of_ones_own_is_no_limit_of_the_account(emulator: Emulator, sessions: list[str]) -> None:
    """However many wait for their turns: longer than a send may take, most of them."""
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(rate=1)) as client:
        sends = client.send_many([(session, "sms") for session in sessions[:100]])
        assert all(outcome.error is None for outcome in await outcomes_of(sends))
        assert sends.paused_for == 0.0


async def test_a_turn_of_no_time_is_waited_for_a_moment_at_least(sessions: list[str]) -> None:
    loop = asyncio.get_running_loop()
    began, tries = loop.time(), 0

    async def send(request: SendRequest) -> SendResult:
        nonlocal tries
        tries += 1
        assert tries < 10
        if loop.time() == began:
            raise RateLimitedError("x", status=None, retry_after=0.0)
        return SendResult(ULID.from_str(str(request.session_id)), None, CHANNEL)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    await outcomes_of(SendMany([(sessions[0], "sms")], send, remaining=remaining))
    assert tries == 2


# -- what ends a run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ERROR_ACCESS_DENIED", "ERROR_WRONG_BALANCE"])
async def test_an_error_of_the_account_stops_the_run_and_says_how_far_it_came(
    emulator: Emulator, client: KodmobiClient, code: str
) -> None:
    taken: list[str] = []
    for _ in range(20):
        emulator.script(Fault.delay(0.0))
    emulator.script(Fault.refuse(code), times=1000)
    outcomes: list[SendOutcome] = []
    sends = client.send_many(endless(emulator, taken), concurrency=4)
    with pytest.raises(BulkStoppedError, match=r"stopped after \d+ requests") as caught:
        await collect(sends, outcomes)
    assert caught.value.done == sends.done == len(outcomes) == len(taken)
    assert len(taken) <= 20 + 3 * 4
    assert sum(outcome.error is None for outcome in outcomes) == 20 == len(emulator.ledger)
    assert type(caught.value.error) is type(outcomes[-1].error)
    assert caught.value.outcome is Outcome.REFUSED


async def test_a_closed_client_stops_the_run(emulator: Emulator, client: KodmobiClient) -> None:
    outcomes: list[SendOutcome] = []
    asyncio.get_running_loop().call_later(1, lambda: closing.append(asyncio.ensure_future(client.aclose())))
    closing: list[asyncio.Future[None]] = []
    emulator.script(Fault.delay(2.0), times=64)
    with pytest.raises(BulkStoppedError) as caught:
        await collect(client.send_many(endless(emulator)), outcomes)
    await closing[0]
    assert isinstance(caught.value.error, ClientClosedError)
    assert sum(outcome.error is None for outcome in outcomes) == len(emulator.ledger) == 64


async def test_an_account_error_with_requests_postponed_gives_each_its_outcome(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session = emulator.add_session()
    requests = [*[(session, "sms")] * 5, (emulator.add_session(), "sms")]
    emulator.script(Fault.delay(0.0))
    emulator.script(Fault.refuse("ERROR_ACCESS_DENIED"))
    outcomes: list[SendOutcome] = []
    with pytest.raises(BulkStoppedError) as caught:
        await collect(client.send_many(requests, concurrency=1, max_wait=1000.0), outcomes)
    names = Counter(type(outcome.error).__name__ for outcome in outcomes)
    assert names == {"NoneType": 1, "AuthenticationError": 1, "SendInterruptedError": 4}
    assert caught.value.done == 6
    assert isinstance(caught.value.error, AuthenticationError)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_of_the_input_comes_after_all_that_was_begun(
    emulator: Emulator, client: KodmobiClient, *, asynchronous: bool
) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield from itertools.islice(endless(emulator), 10)
        raise OSError("the disk is gone")

    async def broken_later() -> AsyncIterator[tuple[str, str]]:
        for request in broken():
            yield request

    outcomes: list[SendOutcome] = []
    with pytest.raises(OSError, match="the disk is gone"):
        await collect(client.send_many(broken_later() if asynchronous else broken()), outcomes)
    assert len(outcomes) == len(emulator.ledger) == 10
    assert all(outcome.error is None for outcome in outcomes)


async def test_an_error_of_ours_that_the_input_raises_is_the_inputs(emulator: Emulator, client: KodmobiClient) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield emulator.add_session(), "sms"
        await client.channels(str(ULID()))

    outcomes: list[SendOutcome] = []
    with pytest.raises(NotFoundError):
        await collect(client.send_many(requests()), outcomes)
    assert len(outcomes) == 1


@pytest.mark.parametrize("where", ["input", "send"])
async def test_what_is_cancelled_behind_the_run_ends_it_with_that_and_not_in_silence(
    sessions: list[str], where: str
) -> None:
    helper = asyncio.create_task(asyncio.sleep(1_000))
    helper.cancel()

    async def requests() -> AsyncIterator[tuple[str, str]]:
        for session in sessions:
            yield session, "sms"
            if where == "input":
                await helper

    async def send(request: SendRequest) -> SendResult:
        await asyncio.sleep(1)
        if where == "send" and request.session_id == sessions[9]:
            await helper
        return SendResult(ULID.from_str(str(request.session_id)), None, CHANNEL)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    with pytest.raises(asyncio.CancelledError):
        await outcomes_of(SendMany(requests(), send, remaining=remaining, concurrency=3))


async def test_the_input_may_clean_up_however_many_workers_fail(sessions: list[str]) -> None:
    ended: list[str] = []

    async def requests() -> AsyncIterator[tuple[str, str]]:
        try:
            for session in sessions[:4]:
                yield session, "sms"
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(0.5)
            ended.append("in peace")

    async def send(request: SendRequest) -> SendResult:
        await asyncio.sleep(sessions.index(str(request.session_id)) / 10)
        raise AuthenticationError("x", status=401)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    with pytest.raises(BulkStoppedError):
        await outcomes_of(SendMany(requests(), send, remaining=remaining))
    assert ended == ["in peace"]


async def test_a_run_may_be_closed_while_another_task_iterates(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.delay(3.0), times=1_000)
    outcomes: list[SendOutcome] = []
    async with client.send_many(endless(emulator), concurrency=2) as sends:
        consumer = asyncio.create_task(collect(sends, outcomes))
        await asyncio.sleep(1)
    await consumer
    assert len(outcomes) == emulator.requests["send"] == 2
    assert all(outcome.error is None for outcome in outcomes)
    assert sends.unread == ()


@pytest.mark.parametrize("answer", ["an error", "none for a while"])
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_no_outcome_is_lost_where_nobody_can_say_how_long_a_channel_is_blocked(
    sessions: list[str], answer: str, cancellations: int
) -> None:
    async def send(_: SendRequest) -> SendResult:
        await asyncio.sleep(1_000)
        raise AssertionError

    async def remaining(_: SendRequest) -> float:
        if answer == "an error":
            raise CooldownUnavailableError("x")
        await asyncio.sleep(0.2)
        return WINDOW

    sends = SendMany([(session, "sms") for session in sessions[:4]], send, remaining=remaining, grace=0.0)
    consumer = asyncio.create_task(outcomes_of(sends))
    await asyncio.sleep(1)
    for _ in range(cancellations):
        consumer.cancel()
        await asyncio.sleep(0.01)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert [outcome.error and outcome.error.outcome for outcome in sends.unread] == [Outcome.UNKNOWN] * 4
    assert not [task for task in asyncio.all_tasks() if "_work" in repr(task)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no eager tasks")
async def test_tasks_may_begin_eagerly(emulator: Emulator, client: KodmobiClient, sessions: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 the oldest Python has none
    try:
        assert await outcomes_of(client.send_many([])) == []
        assert len(await outcomes_of(client.send_many([("nope", "sms")]))) == 1
        assert len(await outcomes_of(client.send_many([(session, "sms") for session in sessions]))) == 200
    finally:
        loop.set_task_factory(None)


async def test_a_run_may_be_stopped_with_grace(emulator: Emulator, client: KodmobiClient) -> None:
    taken: list[str] = []
    sends = client.send_many(endless(emulator, taken), concurrency=4)
    async for _ in sends:
        if sends.done == 10:
            sends.stop()
    assert sends.done == len(taken) == len(emulator.ledger)
    assert sends.done < 10 + 3 * 4
    assert sends.unread == ()


async def test_a_run_that_is_stopped_is_over_for_workers_who_wait_for_the_consumer(
    emulator: Emulator, client: KodmobiClient
) -> None:
    taken: list[str] = []
    sends = client.send_many(endless(emulator, taken), concurrency=4)
    await anext(sends)
    await asyncio.sleep(5)
    sends.stop()
    assert len(await outcomes_of(sends)) + 1 == len(taken) == len(emulator.ledger)


async def test_any_send_may_be_worked_so(sessions: list[str]) -> None:
    """The fan-out knows no client."""
    refused = {sessions[3]}

    async def send(request: SendRequest) -> SendResult:
        await asyncio.sleep(1)
        if request.session_id in refused:
            refused.clear()
            raise CooldownError("x", retry_after=5.0, session_id=str(request.session_id), channel="sms")
        return SendResult(ULID.from_str(str(request.session_id)), None, CHANNEL)

    async def remaining(_: SendRequest) -> float:
        return 0.0

    sends = SendMany([(session, "sms") for session in sessions], send, remaining=remaining, max_wait=10.0)
    outcomes = await outcomes_of(sends)
    assert len(outcomes) == 200
    assert outcomes[-1].request.session_id == sessions[3]
    assert all(outcome.error is None for outcome in outcomes)


async def test_a_run_that_is_stopped_wakes_those_who_sleep_until_their_turn(
    emulator: Emulator, client: KodmobiClient
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    session = emulator.add_session()
    sends = client.send_many([(session, "sms")] * 3, max_wait=1000.0)
    outcomes = [await anext(sends)]
    loop.call_later(5, sends.stop)
    outcomes += await outcomes_of(sends)
    assert loop.time() - began == pytest.approx(5.0, abs=0.5)
    assert [type(outcome.error).__name__ for outcome in outcomes] == ["NoneType", *["SendInterruptedError"] * 2]


async def test_leaving_the_loop_ends_everything_and_tells_what_was_in_flight(
    emulator: Emulator, client: KodmobiClient
) -> None:
    emulator.script(Fault.delay(0.0))
    emulator.script(Fault.silence(), times=3)
    emulator.script(Fault.delay(0.0), times=1)
    before = asyncio.all_tasks()
    async with client.send_many(endless(emulator), concurrency=4) as sends:
        async for _ in sends:
            await asyncio.sleep(5)
            break
    assert not [task for task in asyncio.all_tasks() - before if "_work" in repr(task)]
    delivered = {code.session_id for code in emulator.ledger}
    for outcome in sends.unread:
        assert (outcome.error is None) <= (outcome.request.session_id in delivered)
        if outcome.error is not None:
            assert isinstance(outcome.error, SendInterruptedError)
            assert outcome.error.outcome is Outcome.UNKNOWN
            assert await client.remaining(outcome.request.session_id, "sms") > 0
    assert sum(outcome.error is not None for outcome in sends.unread) >= 3
    assert sends.done + len(sends.unread) >= len(delivered)
    posts = emulator.requests["send"]
    await asyncio.sleep(120)
    assert emulator.requests["send"] == posts


async def test_what_is_in_flight_is_finished_when_the_loop_is_left(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.delay(0.0))
    emulator.script(Fault.delay(3.0), times=1000)
    taken: list[str] = []
    async with client.send_many(endless(emulator, taken), concurrency=4) as sends:
        await anext(sends)
    assert all(outcome.error is None for outcome in sends.unread)
    assert len(sends.unread) + 1 == len(taken) == len(emulator.ledger)


async def test_a_consumer_that_is_cancelled_again_waits_no_longer(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.silence(), times=1000)
    loop = asyncio.get_running_loop()
    began = loop.time()
    sends = client.send_many(endless(emulator), concurrency=4)
    consumer = asyncio.create_task(outcomes_of(sends))
    await asyncio.sleep(1)
    consumer.cancel()
    await asyncio.sleep(1)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert loop.time() - began == pytest.approx(2.0, abs=0.2)
    assert len(sends.unread) == 4
    assert not [task for task in asyncio.all_tasks() if "_work" in repr(task)]


async def test_what_was_postponed_is_told_too_when_the_loop_is_left(emulator: Emulator, client: KodmobiClient) -> None:
    session = emulator.add_session()
    async with client.send_many([(session, "sms")] * 3, max_wait=100.0) as sends:
        await anext(sends)
    assert [outcome.error.outcome for outcome in sends.unread if outcome.error] == [Outcome.NOT_SENT] * 2


async def test_a_loop_that_is_left_among_those_not_sent_any_more_loses_none(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session = emulator.add_session()
    async with client.send_many([(session, "sms")] * 4, max_wait=100.0) as sends:
        await anext(sends)
        sends.stop()
        await anext(sends)
    assert sends.done == 2
    assert len(sends.unread) == 2


async def test_a_limit_that_comes_after_a_stop_is_the_outcome_of_its_request_and_no_failure(
    emulator: Emulator, sessions: list[str]
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "100"}), times=10_000)

    def stop(record: Record) -> None:
        if isinstance(record, AttemptFinished):
            sends.stop()

    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[stop]) as client:
        sends = client.send_many([(session, "sms") for session in sessions], concurrency=1)
        outcomes = await outcomes_of(sends)
    assert [type(outcome.error) for outcome in outcomes] == [RateLimitedError]


async def test_a_loop_that_is_left_without_a_word_leaves_nothing_running(
    emulator: Emulator, client: KodmobiClient
) -> None:
    async for _ in client.send_many(endless(emulator)):
        break
    gc.collect()
    await asyncio.sleep(1)
    posts = emulator.requests["send"]
    await asyncio.sleep(1)
    assert emulator.requests["send"] == posts
    assert not [task for task in asyncio.all_tasks() if "_work" in repr(task)]


async def test_cancelling_the_consumer_ends_everything(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.silence(), times=1000)
    sends = client.send_many(endless(emulator), concurrency=4)
    consumer = asyncio.create_task(outcomes_of(sends))
    await asyncio.sleep(1)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert len(sends.unread) == 4
    assert len(emulator.ledger) == 4
    assert all(outcome.error is not None and outcome.error.outcome is Outcome.UNKNOWN for outcome in sends.unread)
    assert not [task for task in asyncio.all_tasks() if "_work" in repr(task)]


async def test_a_run_that_was_never_begun_can_be_closed(emulator: Emulator, client: KodmobiClient) -> None:
    taken: list[str] = []
    sends = client.send_many(endless(emulator, taken))
    await sends.aclose()
    assert await outcomes_of(sends) == []
    assert taken == []


async def test_a_failure_that_is_none_of_ours_ends_the_run_but_loses_no_outcome(
    emulator: Emulator,
) -> None:
    class Broken(MemoryCooldownTracker):
        async def start(self, reservation: Any, window: float) -> None:
            await super().start(reservation, window)
            raise RuntimeError("a tracker of the user's own")

    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, cooldowns=Broken()) as client:
        outcomes: list[SendOutcome] = []
        with pytest.raises(RuntimeError, match="of the user's own"):
            await collect(client.send_many(endless(emulator), concurrency=3), outcomes)
    assert len(outcomes) == len(emulator.ledger) == 3
    assert all(outcome.error is not None and outcome.error.outcome is Outcome.UNKNOWN for outcome in outcomes)


async def test_the_example_of_a_script_tells_which_sessions_got_no_code(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    sessions = [emulator.add_session() for _ in range(5)]
    emulator.expire_session(sessions[3])
    file = tmp_path / "sessions.txt"
    file.write_text("\n".join(sessions), "utf-8")
    script = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "bulk_script.py"))
    assert await script["main"](file, "sms") == 1
    assert capsys.readouterr().out == f"{sessions[3]} refused\n"
    assert await script["main"](file, "sms") == 1  # it goes on, and there is nothing left to do
    assert len(emulator.ledger) == 4


# -- any input ---------------------------------------------------------------------------------------------------------

FAULTS: Final[tuple[Callable[[], Fault], ...]] = (
    lambda: Fault.delay(0.0),
    lambda: Fault.delay(3.0),
    lambda: Fault.refuse("ERROR_PHONE_BLOCKED"),
    lambda: Fault.answer(503),
    lambda: Fault.answer(500, process=True),
    lambda: Fault.answer(500),
    lambda: Fault.close("before_reading"),
    lambda: Fault.close("after_reading", process=True),
    lambda: Fault.close("mid_answer", reset=True),
    Fault.malformed,
    Fault.silence,
)


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.integers(0, 6), max_size=40),
    faults=st.lists(st.integers(0, len(FAULTS) - 1), max_size=40),
    concurrency=st.integers(1, 9),
    max_wait=st.sampled_from([0.0, 30.0, 200.0]),
    repeat=st.booleans(),
)
def test_whatever_comes_every_row_has_one_outcome_and_no_channel_two_codes_in_a_window(
    *, keys: list[int], faults: list[int], concurrency: int, max_wait: float, repeat: bool
) -> None:
    async def run() -> None:
        async with (
            Emulator(session_lifetime=10_000.0) as emulator,
            KodmobiClient(
                emulator.api_key, base_url=emulator.base_url, retry=RetryPolicy(repeat_unknown=repeat)
            ) as client,
        ):
            sessions = [emulator.add_session() for _ in range(7)]
            for fault in faults:
                emulator.script(FAULTS[fault]())
            requests = [SendRequest(sessions[key], "sms") for key in keys]
            outcomes = await outcomes_of(client.send_many(requests, concurrency=concurrency, max_wait=max_wait))
            assert Counter(map(id, requests)) == Counter(id(outcome.request) for outcome in outcomes)
            check(emulator, outcomes)

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())


def check(emulator: Emulator, outcomes: Iterable[SendOutcome]) -> None:
    for session in {str(outcome.request.session_id) for outcome in outcomes}:
        moments = [code.at for code in emulator.delivered(session)]
        assert all(later - sooner >= WINDOW - DUST for sooner, later in itertools.pairwise(moments))
        ends = [
            Outcome.ACCEPTED
            if isinstance(outcome.result, SendResult) or outcome.error is None
            else outcome.error.outcome
            for outcome in outcomes
            if outcome.request.session_id == session
        ]
        assert (
            ends.count(Outcome.ACCEPTED) <= len(moments) <= ends.count(Outcome.ACCEPTED) + ends.count(Outcome.UNKNOWN)
        )
