"""Sends as tasks: what a worker does with one, and what the other end gets to know."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from taskiq import AsyncResultBackend, InMemoryBroker, ScheduleSource, TaskiqResult
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.result_backends.dummy import DummyResultBackend
from test_errors import TREE, made
from ulid import ULID

from kodmobi_async import (
    AuthenticationError,
    BulkStoppedError,
    Channel,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiClient,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    RetryPolicy,
    SendOutcome,
    SendRequest,
    SendResult,
    SessionChannel,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations._plain import dump_outcome, load_outcome, serialize_outcome
from kodmobi_async.integrations.taskiq import add_resend, send_through
from kodmobi_async.integrations.taskiq._store import open_store
from kodmobi_async.integrations.taskiq._worker import pause_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from taskiq import ScheduledTask
    from taskiq.depends.progress_tracker import TaskProgress
    from taskiq.message import BrokerMessage

    from kodmobi_async.integrations.taskiq import ResendTask

NEVER_TWICE = RetryPolicy(attempts=1, repeat_unknown=False)
TOO_SOON = Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=17)


class ProgressOnly(AsyncResultBackend[Any]):
    """Results, and progress, and nothing else: what any backend has that is neither Redis nor in memory."""

    def __init__(self) -> None:
        self._kept: InmemoryResultBackend[Any] = InmemoryResultBackend(max_stored_results=-1)

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        await self._kept.set_result(task_id, result)

    async def is_result_ready(self, task_id: str) -> bool:
        return await self._kept.is_result_ready(task_id)

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        return await self._kept.get_result(task_id, with_logs)

    async def set_progress(self, task_id: str, progress: TaskProgress[Any]) -> None:
        await self._kept.set_progress(task_id, progress)

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        return await self._kept.get_progress(task_id)


class Fleet:
    """A broker with one worker, both of this process."""

    def __init__(self, emulator: Emulator, results: AsyncResultBackend[Any] | None = None, **settings: Any) -> None:
        self.broker = InMemoryBroker(max_stored_results=-1)
        if results is not None:
            self.broker.with_result_backend(results)
        self.results = self.broker.result_backend
        self.client = KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=NEVER_TWICE)
        self.resend: ResendTask = add_resend(self.broker, lambda: self.client, **settings)

    async def outcome_of(self, session: str, channel: str = "sms", task_id: str | None = None) -> SendOutcome:
        task = await self.resend.kicker().with_task_id(task_id).kiq(session, channel)
        result = await task.wait_result(timeout=10_000)
        assert not result.is_err
        plain = json.loads(json.dumps(result.return_value))
        outcome = load_outcome(SendRequest(session, channel), plain)
        assert plain["outcome"] == (Outcome.ACCEPTED if outcome.error is None else outcome.error.outcome).value
        return outcome


@pytest.fixture(params=["memory", "progress"])
def results(request: pytest.FixtureRequest) -> AsyncResultBackend[Any] | None:
    """What the broker keeps its results in; with the second, no batches."""
    return None if request.param == "memory" else ProgressOnly()


@pytest.fixture
async def fleet(emulator: Emulator, results: AsyncResultBackend[Any] | None) -> AsyncIterator[Fleet]:
    async with running(Fleet(emulator, results)) as fleet:
        yield fleet


@contextlib.asynccontextmanager
async def running(fleet: Fleet) -> AsyncGenerator[Fleet]:
    await fleet.broker.startup()
    try:
        yield fleet
    finally:
        await fleet.broker.shutdown()


# -- what travels ------------------------------------------------------------------------------------------------------


# (what ends a run is never the outcome of a request)
@pytest.mark.parametrize(
    "kind", [kind for kind in TREE if kind is not BulkStoppedError], ids=lambda kind: kind.__name__
)
def test_an_error_comes_through_any_serializer_whole(kind: type[KodmobiError]) -> None:
    request = SendRequest("01K8N1VMPN0EE389K72YW0CBM2", "sms")
    for outcome in Outcome:
        error = made(kind, outcome)
        found = load_outcome(request, json.loads(json.dumps(dump_outcome(SendOutcome(request, error=error))))).error
        assert type(found) is kind
        assert (str(found), vars(found)) == (str(error), vars(error))


@pytest.mark.parametrize("expires", [None, datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)])
def test_a_result_comes_through_any_serializer_whole(expires: datetime | None) -> None:
    session_id = ULID()
    channel = SessionChannel("SMS", Channel.SMS, True, 60.0, "", "", "words")
    request = SendRequest(session_id, "sms")
    outcome = SendOutcome(request, SendResult(session_id, expires, channel, 2, confirmed=True, window="shared"))
    assert load_outcome(request, json.loads(json.dumps(dump_outcome(outcome)))) == outcome
    assert load_outcome(request, json.loads(serialize_outcome(outcome))) == outcome


def test_a_users_own_kind_of_error_comes_through_as_its_parent() -> None:
    class PatienceError(CooldownError):
        pass

    request = SendRequest("x", "sms")
    error = PatienceError("x", retry_after=1.0, session_id="01K", channel="sms")
    assert type(load_outcome(request, dump_outcome(SendOutcome(request, error=error))).error) is CooldownError


@pytest.mark.parametrize(
    "plain",
    [
        None,
        5,
        {},
        {"error": "OSError", "words": [], "numbers": {}, "outcome": "not_sent"},
        {"error": "ServerError", "words": [], "numbers": {}, "outcome": "maybe"},
        {"error": "ServerError", "words": [], "numbers": None, "outcome": "refused"},
        {"result": None},
        {"result": {"session_expired_at": None, "session_id": "x"}},
        {"result": {"session_expired_at": "tomorrow", "session_id": "01K8N1VMPN0EE389K72YW0CBM2"}},
    ],
)
def test_what_cannot_be_read_is_an_outcome_that_nobody_knows(plain: Any) -> None:
    outcome = load_outcome(SendRequest("x", "sms"), plain)
    assert isinstance(outcome.error, OutcomeUnknownError)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_what_may_have_been_sent_is_never_tried_again(kind: type[KodmobiError]) -> None:
    for outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED):
        assert pause_after(made(kind, outcome), 1) is None


def test_what_another_try_would_not_change_is_not_tried_again() -> None:
    for kind in (ClientClosedError, InvalidRequestError, ConfigurationError, AuthenticationError):
        assert pause_after(made(kind), 1) is None


# -- a worker ----------------------------------------------------------------------------------------------------------


async def test_a_task_sends_a_code_and_tells_its_result(fleet: Fleet, emulator: Emulator, session: str) -> None:
    outcome = await fleet.outcome_of(session)
    assert outcome.result is not None
    assert (str(outcome.result.session_id), outcome.result.channel.timeout) == (session, 60.0)
    assert len(emulator.delivered(session)) == 1


async def test_a_task_that_comes_too_early_is_done_when_the_window_ends(
    fleet: Fleet, emulator: Emulator, session: str
) -> None:
    loop = asyncio.get_running_loop()
    await fleet.client.send(session, "sms")
    began = loop.time()
    assert (await fleet.outcome_of(session)).error is None
    assert loop.time() - began == pytest.approx(60.0, abs=1.0)
    assert len(emulator.delivered(session)) == 2


TRIED_AGAIN = pytest.mark.parametrize(
    ("fault", "posts"),
    [
        (Fault.answer(503), 2),
        (Fault.answer(503, {"Retry-After": "7"}), 2),
        (Fault.answer(429), 2),
        (TOO_SOON, 2),
        (Fault.refuse("ERROR_BLOCKED"), 1),
        (Fault.answer(500), 1),
        (Fault.close(), 1),
    ],
    ids=["busy", "busy for a time", "limited", "too soon", "blocked", "in trouble", "no answer"],
)
"""How often a fault lets a send be made."""


@TRIED_AGAIN
async def test_a_task_is_tried_again_only_where_its_outcome_allows_it(
    fleet: Fleet, emulator: Emulator, session: str, fault: Fault, posts: int
) -> None:
    emulator.script(fault)
    outcome = await fleet.outcome_of(session)
    assert emulator.requests["send"] == posts
    assert (outcome.error is None) == (posts == 2)


async def test_a_service_that_cannot_be_reached_is_tried_a_number_of_times(emulator: Emulator, session: str) -> None:
    fleet = Fleet(emulator, tries=3)
    fleet.client = KodmobiClient("key", base_url="http://127.0.0.1:1", retry=NEVER_TWICE)
    await fleet.broker.startup()
    outcome = await fleet.outcome_of(session)
    assert outcome.error is not None
    assert outcome.error.outcome is Outcome.NOT_SENT
    await fleet.broker.shutdown()


async def test_the_client_is_opened_and_closed_with_the_worker(fleet: Fleet, emulator: Emulator) -> None:
    other = Fleet(emulator)
    await other.broker.startup()
    assert "closed" not in repr(other.client)
    await other.broker.shutdown()
    assert "closed" in repr(other.client)


async def test_a_broker_without_results_is_refused_when_it_starts(emulator: Emulator) -> None:
    fleet = Fleet(emulator)
    fleet.broker.result_backend = DummyResultBackend()  # type: ignore[assignment] # as any other broker has it
    with pytest.raises(ConfigurationError, match="result backend"):
        await fleet.broker.startup()
    await fleet.broker.shutdown()


@pytest.mark.parametrize("settings", [{"tries": 0}, {"tries": True}, {"tries": 1.5}, {"grace": 0}], ids=str)
def test_a_wrong_setting_fails_where_it_is_written(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        add_resend(InMemoryBroker(), **settings)


# -- a task that is delivered twice ------------------------------------------------------------------------------------


async def begin(fleet: Fleet, task_id: str) -> None:
    """Begin the send of a task as another worker does."""
    await open_store(fleet.broker, fleet.resend.task_name).begin(task_id, "another")


async def test_a_send_that_another_worker_began_is_confirmed_by_the_service(
    fleet: Fleet, emulator: Emulator, session: str
) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as dead:
        await begin(fleet, "t")
        await dead.send(session, "sms")
    outcome = await fleet.outcome_of(session, task_id="t")
    assert outcome.result is not None
    assert outcome.result.confirmed
    assert len(emulator.delivered(session)) == 1


@pytest.mark.parametrize("asked", [True, False])
async def test_a_send_that_another_worker_began_and_that_left_no_trace_is_not_repeated(
    fleet: Fleet, emulator: Emulator, session: str, *, asked: bool
) -> None:
    await begin(fleet, "t")
    if not asked:
        emulator.script(Fault.answer(401))
    outcome = await fleet.outcome_of(session, task_id="t")
    assert isinstance(outcome.error, OutcomeUnknownError)
    assert emulator.delivered(session) == []


async def test_a_task_that_another_worker_only_waited_with_is_sent(fleet: Fleet, session: str) -> None:
    await begin(fleet, "t")
    await open_store(fleet.broker, fleet.resend.task_name).release("t", "another")
    assert (await fleet.outcome_of(session, task_id="t")).error is None


async def test_a_task_with_a_result_is_not_run_again(fleet: Fleet, emulator: Emulator, session: str) -> None:
    first = await fleet.outcome_of(session, task_id="t")
    assert await fleet.outcome_of(session, task_id="t") == first
    await fleet.broker.wait_all()
    assert emulator.requests["send"] == 1


async def test_a_task_whose_outcome_another_worker_has_kept_is_not_sent(emulator: Emulator, session: str) -> None:
    """It died before it could store the result."""
    async with running(Fleet(emulator)) as fleet:
        kept = dump_outcome(SendOutcome(SendRequest(session, "sms"), error=made(AuthenticationError)))
        await open_store(fleet.broker, fleet.resend.task_name).finish("t", kept)
        outcome = await fleet.outcome_of(session, task_id="t")
    assert isinstance(outcome.error, AuthenticationError)
    assert emulator.requests["send"] == 0


async def test_a_run_that_comes_to_its_end_meanwhile_is_left_to_tell(
    fleet: Fleet, emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.delay(5.0))
    first = asyncio.create_task(fleet.outcome_of(session, task_id="t"))
    await asyncio.sleep(1.0)
    assert await fleet.outcome_of(session, task_id="t") == await first
    await fleet.broker.wait_all()
    assert emulator.requests["send"] == 1


class Shelf(ScheduleSource):
    """Where tasks lie until somebody brings them back."""

    def __init__(self) -> None:
        self.tasks: list[ScheduledTask] = []

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.tasks

    async def add_schedule(self, schedule: ScheduledTask) -> None:
        self.tasks.append(schedule)


async def test_a_task_that_comes_too_early_is_left_to_the_scheduler(emulator: Emulator, session: str) -> None:
    shelf = Shelf()
    fleet = Fleet(emulator, schedule_source=shelf, tries=2)
    await fleet.broker.startup()
    emulator.script(TOO_SOON)
    task = await fleet.resend.kicker().with_task_id("t").kiq(session, "sms")
    await fleet.broker.wait_all()
    assert not await task.is_ready()
    (scheduled,) = shelf.tasks
    assert scheduled.time is not None
    assert (scheduled.time - datetime.now(UTC)).total_seconds() == pytest.approx(17.0, abs=5.0)
    emulator.script(TOO_SOON)
    await asyncio.sleep(17.0)
    again = fleet.resend.kicker().with_task_id(scheduled.task_id).with_labels(**scheduled.labels)
    await again.kiq(*scheduled.args, **scheduled.kwargs)
    outcome = load_outcome(SendRequest(session, "sms"), (await task.wait_result()).return_value)
    assert isinstance(outcome.error, CooldownError)
    assert emulator.requests["send"] == 2
    await fleet.broker.shutdown()


# -- the other end -----------------------------------------------------------------------------------------------------


async def test_every_request_has_its_outcome_and_no_more_are_out_than_may_be(fleet: Fleet, emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(50)]
    taken = 0

    async def requests() -> AsyncIterator[SendRequest | tuple[str, str]]:
        nonlocal taken
        for number, session in enumerate(sessions):
            taken += 1
            yield SendRequest(session, "sms") if number % 2 else (session, "sms")

    done: list[SendOutcome] = []
    async for outcome in send_through(fleet.resend, requests(), outstanding=8):
        done.append(outcome)
        assert taken - len(done) <= 8
    assert {outcome.request.session_id for outcome in done} == set(sessions)
    assert [outcome.error for outcome in done] == [None] * 50


async def test_a_wrong_request_is_an_outcome_and_never_ends_the_loop(fleet: Fleet, session: str) -> None:
    requests = [(session, "sms"), ("nobody", "sms"), (session, "")]
    found = [outcome.error async for outcome in send_through(fleet.resend, requests)]
    assert sorted(type(error).__name__ for error in found) == ["InvalidRequestError", "InvalidRequestError", "NoneType"]
    assert any(isinstance(error, InvalidRequestError) for error in found)


async def test_a_queue_that_fails_leaves_an_outcome_that_nobody_knows(
    fleet: Fleet, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kick(message: BrokerMessage) -> None:
        raise OSError("broken")

    monkeypatch.setattr(fleet.broker, "kick", kick)
    (outcome,) = [outcome async for outcome in send_through(fleet.resend, [(session, "sms")])]
    assert isinstance(outcome.error, OutcomeUnknownError)


async def test_a_task_that_is_lost_is_handed_over_again(
    fleet: Fleet, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kick, lost = fleet.broker.kick, itertools.count()

    async def lose_the_first(message: BrokerMessage) -> None:
        if next(lost):
            await kick(message)

    monkeypatch.setattr(fleet.broker, "kick", lose_the_first)
    (outcome,) = [outcome async for outcome in send_through(fleet.resend, [(session, "sms")])]
    assert outcome.error is None
    assert next(lost) == 2
    assert len(emulator.delivered(session)) == 1


async def test_without_a_word_from_any_worker_nobody_knows(
    fleet: Fleet, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(message: BrokerMessage) -> None:
        pass

    monkeypatch.setattr(fleet.broker, "kick", lose)
    began = asyncio.get_running_loop().time()
    (outcome,) = [outcome async for outcome in send_through(fleet.resend, [(session, "sms")], timeout=30.0)]
    assert isinstance(outcome.error, OutcomeUnknownError)
    assert asyncio.get_running_loop().time() - began == pytest.approx(30.0, abs=1.0)


@pytest.mark.parametrize("results", [ProgressOnly()], ids=["progress"])
async def test_a_task_that_fails_in_its_worker_is_one_of_which_nobody_knows(
    fleet: Fleet, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(task_id: str) -> None:
        raise OSError("broken")

    monkeypatch.setattr(fleet.results, "get_progress", fail)
    (outcome,) = [outcome async for outcome in send_through(fleet.resend, [(session, "sms")])]
    assert isinstance(outcome.error, OutcomeUnknownError)


@pytest.mark.parametrize("results", [ProgressOnly()], ids=["progress"])
async def test_results_that_cannot_be_read_are_looked_for_again(
    fleet: Fleet, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, failures = fleet.results.get_result, itertools.count()

    async def fail_once(task_id: str, with_logs: bool = False) -> Any:
        if not next(failures):
            raise OSError("broken")
        return await get(task_id, with_logs)

    monkeypatch.setattr(fleet.results, "get_result", fail_once)
    (outcome,) = [outcome async for outcome in send_through(fleet.resend, [(session, "sms")])]
    assert outcome.error is None


async def test_under_its_own_id_a_request_is_sent_once_however_often_it_is_asked_for(
    fleet: Fleet, emulator: Emulator, session: str
) -> None:
    for _ in range(2):
        requests = [(session, "sms")]
        found = [o async for o in send_through(fleet.resend, requests, task_id=lambda request: f"1-{request.channel}")]
        assert [outcome.error for outcome in found] == [None]
    await fleet.broker.wait_all()
    assert emulator.requests["send"] == 1


@pytest.mark.parametrize(
    "settings", [{"outstanding": 0}, {"poll_interval": 0}, {"requeue_after": -1.0}, {"timeout": -1.0}], ids=str
)
async def test_a_wrong_number_is_refused(fleet: Fleet, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        await anext(send_through(fleet.resend, [], **settings))
