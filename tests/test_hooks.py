"""What a client tells its hooks: which records, in which order, and what hooks cannot do to a send."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import attrs
import pytest

from kodmobi_async import (
    AttemptFinished,
    CallFinished,
    CallStarted,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownHit,
    GateClosed,
    KodmobiClient,
    KodmobiError,
    Limits,
    LimitsDegraded,
    MemoryCooldownTracker,
    Outcome,
    OutcomeUnknownError,
    Phase,
    RateLimitedError,
    Record,
    RetryPolicy,
    RetryScheduled,
    SendFinished,
    SendStarted,
    ServerError,
    TrackerDegraded,
    TransportError,
    UnreadableResponseError,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.redis import RedisCooldownTracker, RedisLimits
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import FrameType

R = TypeVar("R")

NO_SERVER = "redis://127.0.0.1:1"
TOO_SOON = Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=17)


OF_A_SEND = set(Record.__args__) - {CallStarted, CallFinished}


class Told(list[Record]):
    """A hook that keeps what it is told."""

    def __call__(self, record: Record, /) -> None:
        self.append(record)

    @property
    def story(self) -> list[str]:
        return [line(record) for record in self]

    def only(self, kind: type[R]) -> R:
        (record,) = (record for record in self if isinstance(record, kind))
        return record


def line(record: Record) -> str:  # noqa: PLR0911 one for each kind
    match record:
        case CallStarted():
            return "started"
        case AttemptFinished():
            return f"attempt {record.number}: {record.outcome}, {record.phase} {record.status}"
        case RetryScheduled():
            return f"retry after {record.after_attempt}"
        case CooldownHit():
            return f"cooldown of {record.retry_after:.0f} s by {'the service' if record.by_service else 'the client'}"
        case TrackerDegraded() | LimitsDegraded():
            return f"degraded: {record.reason}"
        case GateClosed():
            return f"gate closed for {record.seconds:.0f} s"
        case CallFinished():
            end = "result" if record.error is None else type(record.error).__name__
            confirmed = ", confirmed" if record.confirmed else ""
            return f"finished: {record.outcome}, {end}{confirmed}, attempts {record.attempts}"


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def client(emulator: Emulator, told: Told) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[told]) as client:
        yield client


def make_client(emulator: Emulator, *hooks: Any, **settings: Any) -> KodmobiClient:
    return KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=hooks, **settings)


# -- the order ---------------------------------------------------------------------------------------------------------


async def test_a_success_is_three_records(client: KodmobiClient, told: Told, session: str) -> None:
    await client.send(session, "sms")
    assert told.story == ["started", "attempt 1: accepted, answered 200", "finished: accepted, result, attempts 1"]


async def test_a_retry_is_told_between_two_attempts(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.answer(503), times=2)
    await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: refused, answered 503",
        "retry after 1",
        "attempt 2: refused, answered 503",
        "retry after 2",
        "attempt 3: accepted, answered 200",
        "finished: accepted, result, attempts 3",
    ]


async def test_no_retry_is_told_that_is_not_made(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.refuse("ERROR_BLOCKED", status=503))
    emulator.script(Fault.answer(503, {"Retry-After": "3600"}))
    with pytest.raises(KodmobiError):
        await client.send(session, "sms")
    with pytest.raises(ServerError):
        await client.send(session, "sms")
    once = ["started", "attempt 1: refused, answered 503"]
    assert told.story == [
        *once,
        "finished: refused, RecipientBlockedError, attempts 1",
        *once,
        "finished: refused, ServerError, attempts 1",
    ]


async def test_the_clients_own_cooldown_is_told_without_an_attempt(
    client: KodmobiClient, told: Told, session: str
) -> None:
    await client.send(session, "sms")
    told.clear()
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    assert told.story == [
        "started",
        "cooldown of 60 s by the client",
        "finished: not_sent, CooldownError, attempts 0",
    ]


async def test_the_services_own_cooldown_is_told_after_the_attempt(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(TOO_SOON)
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: refused, answered 429",
        "cooldown of 17 s by the service",
        "finished: refused, CooldownError, attempts 1",
    ]


async def test_a_repeat_that_the_service_finds_too_soon_is_told_as_arrival(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.close(process=True))
    emulator.script(Fault.answer(500), times=9, endpoint="channels")
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "retry after 1",
        "attempt 2: refused, answered 429",
        "cooldown of 60 s by the service",
        "finished: accepted, CooldownError, attempts 2",
    ]


async def test_an_unknown_attempt_that_is_confirmed_is_told_so(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.close(process=True))
    await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "finished: accepted, result, confirmed, attempts 1",
    ]


async def test_an_attempt_is_told_by_its_own_outcome_and_the_call_by_the_worst(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.answer(500))
    emulator.script(Fault.answer(404))
    with pytest.raises(OutcomeUnknownError):
        await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: unknown, answered 500",
        "retry after 1",
        "attempt 2: refused, answered 404",
        "finished: unknown, OutcomeUnknownError, attempts 2",
    ]


async def test_an_answer_that_cannot_be_read_is_told_as_accepted(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.close("mid_answer"))
    with pytest.raises(UnreadableResponseError):
        await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: accepted, answered 200",
        "finished: accepted, UnreadableResponseError, attempts 1",
    ]


async def test_an_attempt_that_reached_nobody_is_told_as_not_written(
    emulator: Emulator, told: Told, session: str
) -> None:
    await emulator.aclose()
    async with make_client(emulator, told, retry=RetryPolicy(attempts=2)) as client:
        with pytest.raises(TransportError):
            await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: not_sent, not_written None",
        "retry after 1",
        "attempt 2: not_sent, not_written None",
        "finished: not_sent, TransportError, attempts 2",
    ]


async def test_a_limited_account_closes_the_gate_after_the_attempt(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "7"}))
    await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: refused, answered 429",
        "gate closed for 7 s",
        "retry after 1",
        "attempt 2: accepted, answered 200",
        "finished: accepted, result, attempts 2",
    ]
    assert told.only(GateClosed).call == told.only(SendStarted).call
    assert told.only(RetryScheduled).pause == 0  # the gate sees to the wait


async def test_a_question_after_a_lost_answer_may_close_the_gate(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.close(process=False))
    emulator.script(Fault.answer(429, {"Retry-After": "7"}), endpoint="channels")
    began = loop.time()
    await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "gate closed for 7 s",
        "retry after 1",
        "attempt 2: accepted, answered 200",
        "finished: accepted, result, attempts 2",
    ]
    assert loop.time() - began >= 7


async def test_a_question_for_the_channels_has_its_records_too(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.answer(429), endpoint="channels")
    await client.channels(session)
    assert told.story == [
        "started",
        "attempt 1: refused, answered 429",
        "gate closed for 1 s",
        "retry after 1",
        "attempt 2: accepted, answered 200",
        "finished: accepted, result, attempts 2",
    ]
    assert {(record.kind, record.session_id, record.channel) for record in told} == {("channels", session, None)}
    assert {type(told[0]), type(told[-1])} == {CallStarted, CallFinished}
    assert told.only(CallStarted).url == f"{emulator.base_url}/channels"


async def test_a_closed_gate_that_outlasts_the_call_is_no_attempt(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "3600"}))
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            await client.send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: refused, answered 429",
        "gate closed for 3600 s",
        "finished: refused, RateLimitedError, attempts 1",
        "started",
        "finished: not_sent, RateLimitedError, attempts 0",
    ]


async def reading(emulator: Emulator, endpoint: str = "send") -> None:
    """Wait until the service has read a request."""
    while not emulator.requests[endpoint]:  # noqa: ASYNC110 the emulator counts, it calls nobody
        await asyncio.sleep(0)


@pytest.mark.parametrize("processed", [False, True])
async def test_a_cancelled_call_tells_how_far_its_attempt_came(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str, *, processed: bool
) -> None:
    emulator.script(Fault.silence(process=processed))
    task = asyncio.create_task(client.send(session, "sms"))
    await reading(emulator)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "finished: unknown, CancelledError, attempts 1",
    ]
    assert told.only(SendFinished).cancelled


async def test_a_call_cancelled_in_its_wait_for_a_connection_tells_of_nothing_written(
    emulator: Emulator, told: Told, session: str
) -> None:
    emulator.script(Fault.silence())
    async with make_client(emulator, told, limits=Limits(connections=1)) as client:
        first = asyncio.create_task(client.send(session, "sms"))
        await reading(emulator)
        second = asyncio.create_task(client.send(session, "email"))
        await asyncio.sleep(0.01)
        told.clear()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert told.story == [
            "attempt 1: not_sent, not_written None",
            "finished: not_sent, CancelledError, attempts 1",
        ]
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_call_cancelled_in_its_wait_for_a_cooldown_tells_of_no_attempt(
    client: KodmobiClient, told: Told, session: str
) -> None:
    await client.send(session, "sms")
    told.clear()
    task = asyncio.create_task(client.send(session, "sms", max_wait=100))
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.story == ["started", "finished: not_sent, CancelledError, attempts 0"]
    assert told.only(SendFinished).duration == pytest.approx(10, abs=0.01)


async def test_a_call_that_closing_ends_tells_what_it_raises(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    emulator.script(Fault.silence())
    task = asyncio.create_task(client.send(session, "sms"))
    await reading(emulator)
    await client.aclose()
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "finished: unknown, ClientClosedError, attempts 1",
    ]
    with pytest.raises(ClientClosedError) as caught:
        await task
    assert told.only(SendFinished).error is caught.value
    assert not told.only(SendFinished).cancelled


async def test_what_never_became_a_send_is_not_told(client: KodmobiClient, told: Told, session: str) -> None:
    with pytest.raises(ValueError, match="ULID"):
        await client.send("nonsense", "sms")
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await client.send(session, "sms")
    assert told == []


async def test_an_error_of_a_users_own_tracker_is_told_as_it_is(emulator: Emulator, told: Told, session: str) -> None:
    class Broken(MemoryCooldownTracker):
        async def acquire(self, *_: Any, **__: Any) -> Any:
            raise LookupError("the store is gone")

    async with make_client(emulator, told, cooldowns=Broken()) as client:
        with pytest.raises(LookupError) as caught:
            await client.send(session, "sms")
    assert told.story == ["started", "finished: not_sent, LookupError, attempts 0"]
    assert told.only(SendFinished).error is caught.value
    assert not told.only(SendFinished).cancelled


def test_a_call_whose_loop_goes_away_is_told_as_ended(told: Told) -> None:
    async def begin() -> None:
        async with Emulator() as emulator, make_client(emulator, told) as client:
            session = emulator.add_session()
            await client.send(session, "sms")
        client = make_client(emulator, told, cooldowns=client._cooldowns)
        told.clear()
        forsaken.append(asyncio.create_task(client.send(session, "sms", max_wait=100)))
        await asyncio.sleep(1)

    forsaken: list[asyncio.Task[Any]] = []
    loop = VirtualClockLoop()
    loop.set_exception_handler(lambda *_: None)  # it says what is done here: "Task was destroyed"
    loop.run_until_complete(begin())
    loop.close()
    forsaken.clear()
    gc.collect()
    assert told.story == ["started", "finished: not_sent, GeneratorExit, attempts 0"]


# -- the records -------------------------------------------------------------------------------------------------------


async def test_all_records_of_a_call_share_a_number_and_no_two_calls_do(
    emulator: Emulator, client: KodmobiClient, told: Told
) -> None:
    sessions = [emulator.add_session() for _ in range(20)]
    emulator.script(Fault.answer(503), times=10)
    await asyncio.gather(*(client.send(session, "sms") for session in sessions))
    numbers: dict[str, set[int | None]] = {session: set() for session in sessions}
    for record in told:
        assert record.session_id is not None
        numbers[record.session_id].add(record.call)
        assert record.channel == "sms"
    assert all(len(each) == 1 for each in numbers.values())
    assert len(set.union(*numbers.values())) == 20


async def test_two_clients_never_share_a_number(emulator: Emulator, told: Told) -> None:
    for _ in range(2):
        async with make_client(emulator, told) as client:
            await client.send(emulator.add_session(), "sms")
    assert len({record.call for record in told}) == 2


async def test_the_numbers_in_the_records_are_those_of_the_send(
    emulator: Emulator, client: KodmobiClient, told: Told, session: str
) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.answer(503, {"Retry-After": "4"}))
    emulator.script(Fault.delay(3))
    began = loop.time()
    await client.send(session.lower(), "SMS")
    took = loop.time() - began
    started, first, retry, second, finished = told
    assert isinstance(started, SendStarted)
    assert isinstance(first, AttemptFinished)
    assert isinstance(retry, RetryScheduled)
    assert isinstance(second, AttemptFinished)
    assert isinstance(finished, SendFinished)
    assert (started.session_id, started.channel, started.url) == (session, "sms", f"{emulator.base_url}/send")
    assert 4 <= retry.pause <= 4.1
    assert retry.reason == "HTTP 503"
    assert second.duration == pytest.approx(3, abs=0.1)
    assert finished.duration == pytest.approx(took)
    assert first.phase is Phase.ANSWERED
    assert first.outcome is Outcome.REFUSED


async def test_a_record_is_frozen_and_shows_the_session_shortened(emulator: Emulator, told: Told, session: str) -> None:
    emulator.script(Fault.answer(503))
    emulator.script(Fault.answer(429))
    emulator.script(TOO_SOON)
    async with (
        RedisCooldownTracker(NO_SERVER) as cooldowns,
        RedisLimits(NO_SERVER) as shared,
        make_client(emulator, told, cooldowns=cooldowns, limits=Limits(shared=shared)) as client,
    ):
        with pytest.raises(CooldownError):
            await client.send(session, "sms")
    assert {type(record) for record in told} == OF_A_SEND
    for record in told:
        for field in attrs.fields(type(record)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(record, field.name, getattr(record, field.name))
        with pytest.raises(AttributeError):
            record.more = 1  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue] that it cannot be
        assert session not in repr(record)
        assert isinstance(record, GateClosed) or f"{session[:4]}…{session[-4:]}" in repr(record)


# -- what a hook cannot do ---------------------------------------------------------------------------------------------


class HookError(Exception):
    pass


def raising(failure: BaseException) -> Callable[[Record], None]:
    def hook(_: Record, /) -> None:
        raise failure

    return hook


FAILURES = [
    HookError("the hook's own"),
    asyncio.CancelledError(),
    TimeoutError(),
    StopIteration(),
    GeneratorExit(),
    BaseExceptionGroup("several", [asyncio.CancelledError()]),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_hook_that_fails_is_logged_and_harms_nothing(
    emulator: Emulator, told: Told, session: str, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    emulator.script(Fault.answer(429))
    emulator.script(Fault.answer(503))
    async with make_client(emulator, raising(failure), told) as client:
        result = await client.send(session, "sms")
        assert result.attempts == 3
        assert len(emulator.delivered(session)) == 1
        with pytest.raises(CooldownError):
            await client.send(session, "sms")
        assert await client.remaining(session, "sms") == pytest.approx(60, abs=0.1)
    assert len(told) == len(caplog.records) == 11
    for record, entry in zip(told, caplog.records, strict=True):
        assert (entry.name, entry.levelno) == ("kodmobi_async", logging.ERROR)
        message = entry.getMessage()
        assert message.startswith(f"a hook failed on {type(record).__name__}\n")
        assert type(failure).__name__ in message
        assert "in hook" in message  # the traceback


async def test_a_cancellation_in_a_hook_is_not_the_sends_but_the_tasks_own_still_is(
    emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.silence())
    async with make_client(emulator, raising(asyncio.CancelledError())) as client:
        task = asyncio.create_task(client.send(session, "sms"))
        await reading(emulator)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.remaining(session, "sms") == pytest.approx(60, abs=0.1)


async def test_the_log_of_a_failing_hook_does_not_tell_what_the_send_raised(
    emulator: Emulator, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_client(emulator, raising(HookError())) as client:
        emulator.script(Fault.answer(404, body={"message": f"no session {session}"}))
        with pytest.raises(KodmobiError) as caught:
            await client.send(session, "sms")
        assert session in str(caught.value)  # the service's own words
    assert len(caplog.records) == 3
    assert session not in caplog.text
    assert session[-4:] not in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("moment", [SendStarted, AttemptFinished, SendFinished])
def test_a_hook_may_end_the_process_and_the_slot_is_settled(kind: type[BaseException], moment: type[Record]) -> None:
    def hook(record: Record, /) -> None:
        if isinstance(record, moment):
            raise kind

    emulator = Emulator()
    loop = VirtualClockLoop()
    try:
        loop.run_until_complete(emulator.start())
        session = loop.run_until_complete(add_session(emulator))
        client = make_client(emulator, hook)
        with pytest.raises(kind):
            loop.run_until_complete(client.send(session, "sms"))
        sent = len(emulator.delivered(session))
        assert sent == (moment is not SendStarted)
        assert loop.run_until_complete(client.remaining(session, "sms")) == pytest.approx(60 * sent, abs=0.1)
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(emulator.aclose())
    finally:
        loop.close()


async def add_session(emulator: Emulator) -> str:
    return emulator.add_session()


async def test_a_hook_sees_the_slot_settled_when_the_send_has_finished(emulator: Emulator, session: str) -> None:
    lefts: list[float] = []
    tracker = MemoryCooldownTracker()

    def hook(record: Record, /) -> None:
        if isinstance(record, SendFinished):
            coroutine = tracker.remaining(session, record.channel or "")
            try:
                coroutine.send(None)
            except StopIteration as stop:
                lefts.append(stop.value)

    async with make_client(emulator, hook, cooldowns=tracker) as client:
        await client.send(session, "sms")
        emulator.script(Fault.answer(404))
        with pytest.raises(KodmobiError):
            await client.send(session, "email")
    assert lefts == [pytest.approx(60, abs=0.01), 0.0]


async def test_hooks_are_called_in_their_order(emulator: Emulator, session: str) -> None:
    order: list[int] = []
    hooks = [lambda _, number=number: order.append(number) for number in range(3)]
    async with make_client(emulator, *hooks) as client:
        await client.send(session, "sms")
    assert order == [0, 1, 2] * 3


# -- no hook, no cost --------------------------------------------------------------------------------------------------


# The module's own file, and the name under which attrs compiles what it writes for the module's classes.
HOOKS = re.compile(r"kodmobi_async[/\\.]_values[/\\.]hooks\b")


@contextlib.contextmanager
def entered(module: re.Pattern[str]) -> Iterator[list[str]]:
    """List the functions of a module that run meanwhile."""
    names: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and module.search(frame.f_code.co_filename):
            names.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield names
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("hooked", [False, True])
async def test_without_a_hook_no_line_of_theirs_runs(emulator: Emulator, told: Told, *, hooked: bool) -> None:
    """Through a success, a retry, a closed gate, a lost answer, lost servers, and both kinds of cooldown."""
    async with (
        RedisCooldownTracker(NO_SERVER) as cooldowns,
        RedisLimits(NO_SERVER) as shared,
        make_client(emulator, *[told][: int(hooked)], cooldowns=cooldowns, limits=Limits(shared=shared)) as client,
    ):
        session = emulator.add_session()
        emulator.script(Fault.answer(503))
        emulator.script(Fault.answer(429))
        emulator.script(Fault.close(process=True))
        with entered(HOOKS) as names:
            assert (await client.send(session, "sms")).confirmed
            with pytest.raises(CooldownError):
                await client.send(session, "sms")
            emulator.script(TOO_SOON)
            with pytest.raises(CooldownError):
                await client.send(session, "email")
    names = [name for name in names if name != "shorten"]  # for the error's own message
    assert {type(record) for record in told} == (OF_A_SEND if hooked else set())
    assert names.count("emit") == names.count("__init__") == len(told)
    assert hooked or names == []


# -- what is no hook ---------------------------------------------------------------------------------------------------


async def _asynchronous(_: Record, /) -> None: ...


async def _generating(_: Record, /) -> AsyncIterator[None]:
    yield


class _Asynchronous:
    async def __call__(self, _: Record, /) -> None: ...

    async def method(self, _: Record, /) -> None: ...


@pytest.mark.parametrize(
    ("hooks", "match"),
    [
        (Told().append, "a list of hooks, not one builtin_function_or_method"),
        (print, "a list of hooks, not one builtin_function_or_method"),
        (5, "a list of hooks, not one int"),
        (None, "a list of hooks, not one NoneType"),
        ([None], "NoneType cannot be"),
        (["print"], "str cannot be"),
        ("print", "str cannot be"),
        ([print, 5], "int cannot be"),
        ([Told], r"Told is a class: a hook is an instance, Told\(\)"),
        ([_asynchronous], "would never be awaited"),
        ([_generating], "would never be awaited"),
        ([_Asynchronous()], "would never be awaited"),
        ([_Asynchronous().method], "would never be awaited"),
        ([functools.partial(_asynchronous)], "would never be awaited"),
        ([print, functools.partial(functools.partial(_asynchronous))], "would never be awaited"),
    ],
)
def test_what_cannot_be_a_hook_is_refused_where_it_is_written(hooks: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        KodmobiClient("key", hooks=hooks)


@pytest.mark.parametrize("hooks", [(), [], iter([]), [print], {print}, [Told()], [Told().append], [lambda _: None]])
def test_any_collection_of_ordinary_callables_will_do(hooks: Any) -> None:
    KodmobiClient("key", hooks=hooks)


async def test_a_borrowed_session_tells_the_same(emulator: Emulator, told: Told, session: str) -> None:
    emulator.script(Fault.close(process=True))
    async with aiohttp.ClientSession() as borrowed:
        await make_client(emulator, told, session=borrowed).send(session, "sms")
    assert told.story == [
        "started",
        "attempt 1: unknown, written None",
        "finished: accepted, result, confirmed, attempts 1",
    ]
