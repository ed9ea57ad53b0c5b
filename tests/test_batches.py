"""Batches: each row has an outcome of its own, whatever becomes of its batch, its worker, or the queue."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_broker import Queue, Worker, running_worker
from taskiq import InMemoryBroker
from test_taskiq import TOO_SOON, TRIED_AGAIN, ProgressOnly

from kodmobi_async import (
    BalanceError,
    ClientClosedError,
    CooldownUnavailableError,
    KodmobiClient,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    SendInterruptedError,
    SendOutcome,
    SendRequest,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations._plain import load_outcome
from kodmobi_async.integrations.taskiq import WorkerProgress, add_resend, send_through
from kodmobi_async.integrations.taskiq._sizes import BatchSize
from kodmobi_async.integrations.taskiq._store import MemoryStore, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from taskiq.message import BrokerMessage


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(session_lifetime=600.0) as emulator:
        yield emulator


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
async def worker(queue: Queue, emulator: Emulator) -> AsyncIterator[Worker]:
    async with running_worker(queue, emulator) as worker:
        yield worker


@pytest.fixture
def sessions(emulator: Emulator) -> list[str]:
    return [emulator.add_session() for _ in range(100)]


def now() -> float:
    return asyncio.get_running_loop().time()


async def outcomes_of(worker: Worker, sessions: Iterable[str], **settings: Any) -> dict[str, SendOutcome]:
    found = {}
    async for outcome in send_through(worker.resend, [(session, "sms") for session in sessions], **settings):
        assert outcome.request.session_id not in found
        found[str(outcome.request.session_id)] = outcome
    assert found.keys() == set(sessions)
    return found


async def outcome_of(worker: Worker, session: str, *, batch: bool) -> SendOutcome:
    if batch:
        (outcome,) = (await outcomes_of(worker, [session])).values()
        return outcome
    task = await worker.resend.kiq(session, "sms")
    result = await task.wait_result(timeout=1_000)
    return load_outcome(SendRequest(session, "sms"), result.return_value)


def known(outcomes: Iterable[SendOutcome]) -> Counter[Outcome]:
    return Counter(Outcome.ACCEPTED if each.error is None else each.error.outcome for each in outcomes)


# -- one worker --------------------------------------------------------------------------------------------------------


async def test_rows_go_in_batches_and_come_back_one_by_one(
    queue: Queue, worker: Worker, emulator: Emulator, sessions: list[str]
) -> None:
    found = await outcomes_of(worker, sessions)
    assert known(found.values()) == {Outcome.ACCEPTED: 100}
    assert len(emulator.ledger) == 100
    assert len(queue.kicked) < 20
    (first, *_) = found.values()
    assert first.result is not None
    assert first.result.channel.timeout == 60.0


async def test_a_batch_begins_when_the_one_before_cannot_use_all_slots(queue: Queue, emulator: Emulator) -> None:
    """So that the batches that a worker has taken end one after the other."""
    sessions = [emulator.add_session() for _ in range(100)]
    async with running_worker(queue, emulator, concurrency=4) as worker:
        await outcomes_of(worker, sessions, outstanding=40)
    assert len(queue.kicked) > 5
    order = [sessions.index(str(delivery.session_id)) for delivery in emulator.ledger]
    assert max(abs(place - number) for place, number in enumerate(order)) < 12


async def test_a_row_in_its_cooldown_keeps_no_other_one_up(worker: Worker, emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(20)]
    await worker.client.send(sessions[0], "sms")
    began, came = now(), {}
    async for outcome in send_through(worker.resend, [(session, "sms") for session in sessions]):
        assert outcome.error is None
        came[str(outcome.request.session_id)] = now() - began
    assert came.pop(sessions[0]) == pytest.approx(60.0, abs=1.0)
    assert max(came.values()) < 1.0


@TRIED_AGAIN
async def test_a_row_is_tried_again_only_where_its_outcome_allows_it(
    worker: Worker, emulator: Emulator, session: str, fault: Fault, posts: int
) -> None:
    emulator.script(fault)
    (outcome,) = (await outcomes_of(worker, [session])).values()
    assert emulator.requests["send"] == posts
    assert (outcome.error is None) == (posts == 2)


async def test_a_row_is_tried_a_number_of_times(queue: Queue, emulator: Emulator, session: str) -> None:
    emulator.script(Fault.answer(503), times=100)
    async with running_worker(queue, emulator, tries=3) as worker:
        (outcome,) = (await outcomes_of(worker, [session])).values()
    assert outcome.error is not None
    assert outcome.error.outcome is Outcome.REFUSED
    assert emulator.requests["send"] == 3


async def test_an_account_without_balance_is_asked_for_no_more_than_what_is_in_flight(
    queue: Queue, emulator: Emulator, sessions: list[str]
) -> None:
    emulator.script(Fault.refuse("ERROR_WRONG_BALANCE", status=402), times=1_000)
    async with running_worker(queue, emulator, concurrency=4) as worker:
        found = await outcomes_of(worker, sessions, outstanding=256)
    assert {type(outcome.error) for outcome in found.values()} == {BalanceError}
    assert known(found.values()).keys() == {Outcome.REFUSED, Outcome.NOT_SENT}
    assert emulator.requests["send"] < 50


async def test_a_limit_of_the_account_that_stays_is_the_outcome_of_all(queue: Queue, emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(10)]
    emulator.script(Fault.answer(429, {"Retry-After": "1"}), times=1_000)
    async with running_worker(queue, emulator, tries=2) as worker:
        found = await outcomes_of(worker, sessions)
    assert {type(outcome.error) for outcome in found.values()} == {RateLimitedError}


async def test_a_channel_that_is_blocked_beyond_the_sessions_end_is_not_waited_for(
    queue: Queue, worker: Worker, emulator: Emulator
) -> None:
    emulator.clear_faults()
    session = emulator.add_session()
    await worker.client.send(session, "sms")
    await asyncio.sleep(555.0)
    await worker.client.send(session, "sms")
    began = now()
    (outcome,) = (await outcomes_of(worker, [session])).values()
    assert outcome.error is not None
    assert outcome.error.outcome in (Outcome.NOT_SENT, Outcome.REFUSED)
    assert now() - began < 10.0


async def test_a_bug_in_a_worker_is_an_outcome_and_no_batch_that_comes_again_for_ever(
    queue: Queue, worker: Worker, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: KodmobiClient, *args: object, **settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(KodmobiClient, "send", fail)
    (outcome,) = (await outcomes_of(worker, [session])).values()
    assert isinstance(outcome.error, SendInterruptedError)
    assert outcome.error.outcome is Outcome.NOT_SENT
    assert len(queue.kicked) == 1


# -- rows that another run has begun -----------------------------------------------------------------------------------


def ids(request: SendRequest) -> str:
    return f"id-{request.session_id}"


def store_of(worker: Worker) -> MemoryStore:
    store = open_store(worker.broker, worker.resend.task_name)
    assert isinstance(store, MemoryStore)
    return store


@pytest.mark.parametrize("was_sent", [True, False])
async def test_what_a_dead_worker_had_begun_is_asked_about(
    worker: Worker, emulator: Emulator, session: str, *, was_sent: bool
) -> None:
    await store_of(worker).begin(f"id-{session}", "dead")
    if was_sent:
        async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as dead:
            await dead.send(session, "sms")
    began = now()
    (outcome,) = (await outcomes_of(worker, [session], task_id=ids)).values()
    assert now() - began == pytest.approx(45.0, abs=1.0)
    if was_sent:
        assert outcome.result is not None
        assert outcome.result.confirmed
    else:
        assert isinstance(outcome.error, OutcomeUnknownError)
    assert len(emulator.ledger) == was_sent


async def test_what_another_run_brings_to_its_end_meanwhile_is_not_sent(
    worker: Worker, emulator: Emulator, session: str
) -> None:
    store = store_of(worker)
    await store.begin(f"id-{session}", "slow")
    asking = asyncio.create_task(outcomes_of(worker, [session], task_id=ids))
    await asyncio.sleep(10.0)
    await store.finish(f"id-{session}", {"error": "BalanceError", "words": ["no"], "numbers": {}, "outcome": "refused"})
    (outcome,) = (await asking).values()
    assert isinstance(outcome.error, BalanceError)
    assert emulator.requests["send"] == 0


async def test_a_request_that_was_sent_in_an_earlier_run_has_the_same_outcome(
    worker: Worker, emulator: Emulator, sessions: list[str]
) -> None:
    first = await outcomes_of(worker, sessions, task_id=ids)
    again = await outcomes_of(worker, sessions, task_id=ids)
    assert again == first
    assert len(emulator.ledger) == emulator.requests["send"] == 100


async def test_requests_with_one_id_are_one_send(worker: Worker, emulator: Emulator, session: str) -> None:
    requests = [(session, "sms")] * 3
    found = [outcome async for outcome in send_through(worker.resend, requests, task_id=ids)]
    assert [outcome.error for outcome in found] == [None] * 3
    assert emulator.requests["send"] == 1


async def test_a_batch_that_is_delivered_twice_is_sent_once(
    queue: Queue, emulator: Emulator, sessions: list[str]
) -> None:
    """By two workers at the same time, and again when all is done."""
    put = queue.put
    queue.put = lambda message: (put(message), put(message))  # type: ignore[method-assign, assignment]
    async with running_worker(queue, emulator) as worker, running_worker(queue, emulator):
        found = await outcomes_of(worker, sessions)
        for message in queue.kicked[:3]:
            put(message)
        await asyncio.sleep(100.0)
    assert known(found.values()) == {Outcome.ACCEPTED: 100}
    assert len(emulator.ledger) == emulator.requests["send"] == 100


async def test_a_batch_that_comes_again_while_a_row_of_it_waits_changes_nothing(
    queue: Queue, worker: Worker, emulator: Emulator
) -> None:
    sessions = [emulator.add_session() for _ in range(3)]
    emulator.script(TOO_SOON)
    asking = asyncio.create_task(outcomes_of(worker, sessions, task_id=ids))
    await asyncio.sleep(5.0)
    queue.put(queue.kicked[0])
    found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 3}
    assert len(emulator.ledger) == 3


async def test_a_batch_that_comes_again_when_it_is_done_changes_nothing(
    queue: Queue, worker: Worker, emulator: Emulator
) -> None:
    sessions = [emulator.add_session() for _ in range(2)]

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield sessions[0], "sms"
        await asyncio.sleep(5.0)
        queue.put(queue.kicked[0])
        await asyncio.sleep(5.0)
        yield sessions[1], "sms"

    found = [outcome async for outcome in send_through(worker.resend, requests())]
    assert [outcome.error for outcome in found] == [None] * 2
    assert emulator.requests["send"] == 2


# -- a worker that stops -----------------------------------------------------------------------------------------------


async def test_a_worker_that_is_asked_to_stop_leaves_what_waits_to_others(queue: Queue, emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(10)]
    async with running_worker(queue, emulator) as first:
        for session in sessions:
            await first.client.send(session, "sms")
        asking = asyncio.create_task(outcomes_of(first, sessions))
        await asyncio.sleep(5.0)
        assert await first.stop() < 1.0
        assert queue.waiting
        assert not asking.done()
        async with running_worker(queue, emulator):
            found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 10}
    assert Counter(len(emulator.delivered(session)) for session in sessions) == {2: 10}


async def test_a_single_task_that_waits_goes_back_to_the_queue(queue: Queue, emulator: Emulator, session: str) -> None:
    emulator.script(TOO_SOON)
    async with running_worker(queue, emulator) as first:
        task = await first.resend.kiq(session, "sms")
        await asyncio.sleep(5.0)
        assert await first.stop() < 1.0
        assert not await task.is_ready()
        async with running_worker(queue, emulator):
            result = await task.wait_result(timeout=1_000)
    assert result.return_value["outcome"] == "accepted"
    assert len(emulator.delivered(session)) == 1


@pytest.mark.parametrize("batch", [True, False])
async def test_what_is_in_flight_too_long_is_left_to_another_worker_which_asks(
    queue: Queue, emulator: Emulator, session: str, *, batch: bool
) -> None:
    emulator.script(Fault.delay(25.0))
    async with running_worker(queue, emulator, stop_timeout=5.0) as first:
        asking = asyncio.create_task(outcome_of(first, session, batch=batch))
        await asyncio.sleep(2.0)
        assert await first.stop() == pytest.approx(5.0, abs=0.5)
        async with running_worker(queue, emulator):
            outcome = await asking
    assert outcome.result is not None
    assert outcome.result.confirmed
    assert emulator.requests["send"] == len(emulator.delivered(session)) == 1


@pytest.mark.parametrize("batch", [True, False])
async def test_what_is_cancelled_before_it_was_sent_is_sent_by_another_worker(
    queue: Queue, emulator: Emulator, *, batch: bool
) -> None:
    """One send has the only connection, and the other waits for it."""
    sessions = [emulator.add_session() for _ in range(2)]
    emulator.script(Fault.delay(25.0))
    async with running_worker(queue, emulator, connections=1, stop_timeout=1.0) as first:
        asking = asyncio.create_task(outcomes_of(first, sessions) if batch else all_of(first, sessions))
        await asyncio.sleep(1.0)
        await first.stop()
        assert emulator.requests["send"] == 1
        async with running_worker(queue, emulator):
            found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 2}
    assert len(emulator.ledger) == 2


async def test_what_is_in_flight_gets_its_time(queue: Queue, emulator: Emulator, session: str) -> None:
    emulator.script(Fault.delay(3.0))
    async with running_worker(queue, emulator, stop_timeout=5.0) as worker:
        asking = asyncio.create_task(outcomes_of(worker, [session]))
        await asyncio.sleep(1.0)
        assert await worker.stop() == pytest.approx(2.0, abs=0.5)
        (outcome,) = (await asking).values()
    assert outcome.error is None
    assert not queue.waiting


async def test_what_did_not_reach_the_service_goes_back_and_is_sent(queue: Queue, emulator: Emulator) -> None:
    """Rows of a batch that had not begun when their worker was asked to stop, and one that waited for its slot."""
    sessions = [emulator.add_session() for _ in range(20)]
    emulator.script(Fault.delay(3.0), times=2)
    async with running_worker(queue, emulator, concurrency=2) as first:
        asking = asyncio.create_task(outcomes_of(first, sessions))
        await asyncio.sleep(1.0)
        await first.stop()
        sent = len(emulator.ledger)
        assert sent == 2
        async with running_worker(queue, emulator):
            found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 20}
    assert len(emulator.ledger) == 20


@pytest.mark.parametrize(("delay", "stop_timeout"), [(3.0, 10.0), (30.0, 1.0)], ids=["in time", "time is over"])
async def test_rows_that_wait_for_their_slot_when_the_worker_stops_go_back(
    queue: Queue, emulator: Emulator, delay: float, stop_timeout: float
) -> None:
    """Two batches share two slots, and what is in flight comes to its end, or is cancelled."""
    sessions = [emulator.add_session() for _ in range(20)]
    emulator.script(Fault.delay(0.001), times=9)
    emulator.script(Fault.delay(delay), times=2)
    async with running_worker(queue, emulator, concurrency=2, stop_timeout=stop_timeout) as first:
        asking = asyncio.create_task(outcomes_of(first, sessions))
        await asyncio.sleep(1.0)
        assert emulator.requests["send"] == 11
        assert await first.stop() < 3.0
        async with running_worker(queue, emulator):
            found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 20}
    assert len(emulator.ledger) == 20


async def test_a_row_that_is_refused_for_now_while_the_worker_stops_goes_back(
    queue: Queue, emulator: Emulator, session: str
) -> None:
    emulator.script(attrs.evolve(Fault.answer(429, {"Retry-After": "5"}), delay_after=3.0))
    async with running_worker(queue, emulator) as first:
        asking = asyncio.create_task(outcomes_of(first, [session]))
        await asyncio.sleep(1.0)
        await first.stop()
        assert emulator.requests["send"] == 1
        async with running_worker(queue, emulator):
            (outcome,) = (await asking).values()
    assert outcome.error is None
    assert emulator.requests["send"] == 2


@pytest.mark.parametrize("batch", [True, False])
async def test_tasks_that_somebody_cancels_go_back(queue: Queue, emulator: Emulator, *, batch: bool) -> None:
    """In flight, while they wait, and while a batch waits for room."""
    sessions = [emulator.add_session() for _ in range(30)]
    emulator.script(TOO_SOON, times=2)
    emulator.script(Fault.delay(9.0), times=2)
    async with running_worker(queue, emulator, concurrency=4) as worker:
        if batch:
            asking = asyncio.create_task(outcomes_of(worker, sessions))
        else:
            asking = asyncio.create_task(all_of(worker, sessions[:6]))
        await asyncio.sleep(1.0)
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__qualname__", "") == "Receiver.callback":
                task.cancel()
        found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: len(found)}
    assert len(emulator.ledger) == len(found)


async def all_of(worker: Worker, sessions: list[str]) -> dict[str, SendOutcome]:
    found = await asyncio.gather(*(outcome_of(worker, session, batch=False) for session in sessions))
    return dict(zip(sessions, found, strict=True))


# -- a queue that fails, and feeders -----------------------------------------------------------------------------------


async def test_a_batch_whose_worker_falls_silent_goes_to_another(
    queue: Queue, emulator: Emulator, sessions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_worker(queue, emulator) as first:
        publish, count = MemoryStore.publish, itertools.count()

        async def lose(self: MemoryStore, *args: Any) -> None:
            if next(count) == 0:
                await publish(self, *args)

        monkeypatch.setattr(MemoryStore, "publish", lose)
        asking = asyncio.create_task(outcomes_of(first, sessions[:5]))
        await asyncio.sleep(5.0)
        monkeypatch.undo()
        began = now()
        found = await asking
    assert now() - began < 60.0
    assert known(found.values()).keys() <= {Outcome.ACCEPTED, Outcome.UNKNOWN}
    assert len(emulator.ledger) == 5


async def test_a_batch_whose_worker_is_heard_of_goes_to_no_other(
    queue: Queue, worker: Worker, emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=200))
    (outcome,) = (await outcomes_of(worker, [session], requeue_after=50.0)).values()
    assert outcome.error is None
    assert len(queue.kicked) == 1


async def test_a_batch_of_which_nothing_is_heard_is_handed_over_again(
    queue: Queue, emulator: Emulator, session: str
) -> None:
    worker = Worker(queue, emulator)
    asking = asyncio.create_task(outcomes_of(worker, [session], requeue_after=50.0))
    await asyncio.sleep(120.0)
    assert len(queue.kicked) == 3
    worker.start()
    (outcome,) = (await asking).values()
    await worker.stop()
    assert outcome.error is None
    assert emulator.requests["send"] == 1


async def test_a_row_whose_mark_was_lost_on_its_way_back_is_sent_by_another_worker(
    queue: Queue, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = MemoryStore.begin

    async def lose_the_reply(self: MemoryStore, send_id: str, token: str) -> None:
        await begin(self, send_id, token)
        raise CooldownUnavailableError("away")

    async with running_worker(queue, emulator) as first:
        monkeypatch.setattr(MemoryStore, "begin", lose_the_reply)
        asking = asyncio.create_task(outcomes_of(first, [session]))
        await asyncio.sleep(0.5)
        await first.stop()
        monkeypatch.undo()
        assert emulator.requests["send"] == 0
        began = now()
        async with running_worker(queue, emulator):
            (outcome,) = (await asking).values()
    assert outcome.error is None
    assert now() - began < 5.0


async def test_an_outage_of_the_results_only_delays(
    worker: Worker, emulator: Emulator, sessions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: MemoryStore, *args: Any, **settings: Any) -> Any:
        raise CooldownUnavailableError("away")

    for name in ("begin", "publish", "read"):
        monkeypatch.setattr(MemoryStore, name, fail)
    asking = asyncio.create_task(outcomes_of(worker, sessions))
    await asyncio.sleep(20.0)
    assert emulator.requests["send"] == 0
    monkeypatch.undo()
    found = await asking
    assert known(found.values()) == {Outcome.ACCEPTED: 100}


async def test_outcomes_that_cannot_be_published_for_a_moment_are_published_later(
    worker: Worker, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: MemoryStore, *args: Any, **settings: Any) -> Any:
        raise CooldownUnavailableError("away")

    monkeypatch.setattr(MemoryStore, "publish", fail)
    asking = asyncio.create_task(outcomes_of(worker, [session]))
    await asyncio.sleep(10.0)
    assert len(emulator.ledger) == 1
    monkeypatch.undo()
    began = now()
    (outcome,) = (await asking).values()
    assert now() - began < 1.0
    assert outcome.result is not None
    assert not outcome.result.confirmed


async def test_outcomes_that_cannot_be_published_for_long_are_asked_about(
    worker: Worker, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: MemoryStore, *args: Any, **settings: Any) -> Any:
        raise CooldownUnavailableError("away")

    monkeypatch.setattr(MemoryStore, "publish", fail)
    asking = asyncio.create_task(outcomes_of(worker, [session]))
    await asyncio.sleep(90.0)
    monkeypatch.undo()
    (outcome,) = (await asking).values()
    assert isinstance(outcome.error, OutcomeUnknownError)
    assert len(emulator.delivered(session)) == 1


async def test_a_worker_that_cannot_publish_stops_all_the_same(
    queue: Queue, emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: MemoryStore, *args: Any, **settings: Any) -> Any:
        raise CooldownUnavailableError("away")

    async with running_worker(queue, emulator, stop_timeout=3.0) as first:
        monkeypatch.setattr(MemoryStore, "publish", fail)
        asking = asyncio.create_task(outcomes_of(first, [session]))
        await asyncio.sleep(2.0)
        assert await first.stop() < 4.0
        monkeypatch.undo()
        async with running_worker(queue, emulator):
            (outcome,) = (await asking).values()
    assert outcome.error is None or outcome.error.outcome is Outcome.UNKNOWN
    assert emulator.requests["send"] == 1


async def test_a_batch_for_a_worker_without_the_feeders_results_is_told_to_be_a_mistake(
    emulator: Emulator, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    feeders, workers = Queue(), Queue(ProgressOnly())
    async with running_worker(workers, emulator):
        other = Worker(feeders, emulator)
        outcomes = send_through(other.resend, [(session, "sms")], timeout=5.0)
        asking = asyncio.create_task(anext(outcomes))
        await asyncio.sleep(1.0)
        workers.put(feeders.kicked[0])
        assert isinstance((await asking).error, OutcomeUnknownError)
        await other.client.aclose()
    assert "a worker needs the kind of result backend that the feeder has" in caplog.text


async def test_a_queue_that_fails_for_a_moment_is_given_the_batch_again(
    worker: Worker, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kick, count = worker.broker.kick, itertools.count()

    async def fail_twice(message: BrokerMessage) -> None:
        if next(count) < 2:
            raise OSError("broken")
        await kick(message)

    monkeypatch.setattr(worker.broker, "kick", fail_twice)
    (outcome,) = (await outcomes_of(worker, [session])).values()
    assert outcome.error is None


async def test_a_queue_that_has_the_batch_though_it_failed_is_not_given_it_again(
    queue: Queue, worker: Worker, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kick = worker.broker.kick

    async def kick_and_fail(message: BrokerMessage) -> None:
        await kick(message)
        raise OSError("broken")

    monkeypatch.setattr(worker.broker, "kick", kick_and_fail)

    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield session, "sms"
        await asyncio.sleep(5.0)

    found = [outcome async for outcome in send_through(worker.resend, requests())]
    assert [outcome.error for outcome in found] == [None]
    assert len(queue.kicked) == 1


async def test_a_slow_input_is_not_waited_for(worker: Worker, sessions: list[str]) -> None:
    began = now()

    async def slowly() -> AsyncIterator[tuple[str, str]]:
        for session in sessions[:3]:
            yield session, "sms"
            await asyncio.sleep(10.0)

    came = [now() - began async for _ in send_through(worker.resend, slowly())]
    assert came == pytest.approx([0.0, 10.0, 20.0], abs=1.0)


async def test_a_batch_gathers_while_workers_have_enough_to_do(
    queue: Queue, worker: Worker, emulator: Emulator
) -> None:
    emulator.script(Fault.delay(1.0), times=BatchSize.FIRST)

    async def requests() -> AsyncIterator[tuple[str, str]]:
        for number in range(BatchSize.FIRST + 10):
            if number >= BatchSize.FIRST:
                await asyncio.sleep(0.06)
            yield emulator.add_session(), "sms"

    found = [outcome async for outcome in send_through(worker.resend, requests())]
    assert len(found) == BatchSize.FIRST + 10
    assert len(queue.kicked) == 2


async def test_a_slow_reader_holds_the_input_up(worker: Worker, emulator: Emulator) -> None:
    taken = 0

    async def requests() -> AsyncIterator[tuple[str, str]]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield emulator.add_session(), "sms"

    done = 0
    async for _ in send_through(worker.resend, requests(), outstanding=10):
        done += 1
        await asyncio.sleep(5.0)
        assert taken - done <= 10


async def test_what_the_input_raises_ends_the_loop(worker: Worker, session: str) -> None:
    async def requests() -> AsyncIterator[tuple[str, str]]:
        yield session, "sms"
        raise LookupError

    with pytest.raises(LookupError):
        _ = [outcome async for outcome in send_through(worker.resend, requests())]


async def test_a_loop_that_is_left_leaves_the_rest_in_the_queue(
    queue: Queue, worker: Worker, sessions: list[str]
) -> None:
    outcomes = send_through(worker.resend, [(session, "sms") for session in sessions])
    assert (await anext(outcomes)).error is None
    await outcomes.aclose()


async def test_workers_tell_how_they_get_on(queue: Queue, emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(10)]
    told: list[WorkerProgress] = []
    async with running_worker(queue, emulator) as worker:
        for session in sessions[:4]:
            await worker.client.send(session, "sms")
        await outcomes_of(worker, sessions, on_progress=told.append)
        assert max(each.waiting for each in told) == 4
        assert max(each.done for each in told) == 10
        assert len({each.worker for each in told}) == 1
        assert all(each.is_alive for each in told)


async def test_a_worker_of_which_nothing_is_heard_is_told_to_be_away(queue: Queue, emulator: Emulator) -> None:
    told: list[WorkerProgress] = []
    session = emulator.add_session()
    async with running_worker(queue, emulator) as worker:
        await worker.client.send(session, "sms")
        asking = asyncio.create_task(outcomes_of(worker, [session], on_progress=told.append))
        await asyncio.sleep(5.0)
        await worker.stop()
        await asyncio.sleep(30.0)
        assert [each.is_alive for each in told][-1] is False
        async with running_worker(queue, emulator):
            await asking
    assert len({each.worker for each in told}) == 2


async def test_a_process_that_is_its_own_queue_says_that_nothing_was_sent(emulator: Emulator) -> None:
    broker = InMemoryBroker(max_stored_results=-1)
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    resend = add_resend(broker, lambda: client)
    await broker.startup()
    sessions = [emulator.add_session() for _ in range(2)]
    for session in sessions:
        await client.send(session, "sms")
    asking = asyncio.create_task(anext(send_through(resend, [(sessions[0], "sms")])))
    task = await resend.kiq(sessions[1], "sms")
    await asyncio.sleep(5.0)
    await broker.shutdown()
    outcome = await asking
    assert isinstance(outcome.error, ClientClosedError)
    assert outcome.error.outcome is Outcome.NOT_SENT
    assert (await task.get_result()).return_value["error"] == "ClientClosedError"


# -- sizes -------------------------------------------------------------------------------------------------------------


@given(
    outstanding=st.integers(1, 100_000),
    counts=st.lists(st.tuples(st.integers(0, 5_000), st.floats(0.0, 10.0))),
    workers=st.integers(0, 500),
    left=st.none() | st.integers(1, 1_000_000),
)
def test_a_batch_is_never_empty_and_never_more_than_may_be_out(
    outstanding: int, counts: list[tuple[int, float]], workers: int, left: int | None
) -> None:
    sizes = BatchSize(outstanding)
    time = 0.0
    for outcomes, seconds in counts:
        time += seconds
        sizes.count(outcomes, workers, time)
    assert 1 <= sizes.next(workers, left) <= min(max(1, outstanding), BatchSize.LARGEST)


def counted(rate: float, workers: int) -> BatchSize:
    sizes = BatchSize(100_000)
    for tenth in range(100):
        sizes.count(round(rate / 10), workers, tenth / 10)
    return sizes


@pytest.mark.parametrize(("rate", "workers", "rows"), [(700, 1, 700), (700, 2, 350), (1_000_000, 1, 2_000), (10, 5, 8)])
def test_batches_become_what_a_worker_does_in_a_second(rate: int, workers: int, rows: int) -> None:
    assert counted(rate, workers).next(workers, None) == pytest.approx(rows, rel=0.01)


def test_the_last_rows_are_spread_over_all_workers() -> None:
    sizes = counted(4_000, 4)
    assert sizes.next(4, 400) == 50
    assert sizes.next(4, 10) == BatchSize.SMALLEST
