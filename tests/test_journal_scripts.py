"""A script of a user's own with a journal: what was sent is not sent again, what was not is."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from ulid import ULID

from kodmobi_async import (
    AuthenticationError,
    BulkStoppedError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiClient,
    Outcome,
    RetryPolicy,
    SendOutcome,
    SendRequest,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.journal import Entry, Journal, JournalError, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


@pytest.fixture
def sessions(emulator: Emulator) -> list[str]:
    return [emulator.add_session() for _ in range(6)]


async def run(client: KodmobiClient, path: Path, requests: Iterable[Any], **settings: Any) -> list[SendOutcome]:
    async with (
        Journal.open(path) as journal,
        client.send_many(requests, **{"concurrency": 2, **settings}, journal=journal) as outcomes,
    ):
        return [outcome async for outcome in outcomes]


async def known(path: Path) -> list[Entry]:
    async with Journal.open(path) as journal:
        return [entry async for entry in journal.outcomes()]


async def states(path: Path) -> list[State]:
    return [entry.state for entry in await known(path)]


def leave_intent(path: Path, number: int) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE row SET state = ?, detail = NULL WHERE line = ?", (State.INTENT, number))
    database.close()


async def test_a_run_that_was_done_is_not_done_again(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    outcomes = await run(client, path, [(session, "sms") for session in sessions])
    assert {outcome.request for outcome in outcomes} == {SendRequest(session, "sms") for session in sessions}
    assert all(outcome.error is None for outcome in outcomes)
    assert await run(client, path, [(session, "sms") for session in sessions]) == []
    assert emulator.requests["send"] == 6
    assert [(entry.number, entry.session_id, entry.channel, entry.state) for entry in await known(path)] == [
        (number, session, "sms", State.SENT) for number, session in enumerate(sessions, 1)
    ]


async def test_a_run_goes_on_with_what_was_never_tried(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    async def some() -> AsyncIterator[SendRequest]:
        for session in sessions:
            yield SendRequest(session.lower(), "SMS")

    async with Journal.open(path) as journal, client.send_many(some(), concurrency=1, journal=journal) as outcomes:
        await anext(outcomes)
    sent = len(emulator.ledger)
    assert 1 <= sent < 6
    rest = await run(client, path, some())  # type: ignore[arg-type] # asynchronous, for once
    assert len(rest) == 6 - sent
    assert sorted(delivery.session_id for delivery in emulator.ledger) == sorted(sessions)


async def test_an_intent_without_an_outcome_is_asked_about_and_not_sent_again(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    requests = [(session, "sms") for session in sessions]
    await run(client, path, requests)
    for number in (1, 2, 3):
        leave_intent(path, number)
    emulator.add_session(sessions[1])  # as if its window had passed
    emulator.expire_session(sessions[2])
    assert await run(client, path, requests) == []
    first, second, third, *_ = await known(path)
    assert (first.state, json.loads(first.detail or "")) == (State.SENT, {"confirmed": True})
    assert second.state is third.state is State.UNKNOWN
    assert emulator.requests["send"] == 6


async def test_a_service_that_does_not_answer_is_asked_by_the_next_run(
    emulator: Emulator, sessions: list[str], path: Path
) -> None:
    retry = RetryPolicy(attempts=1)
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=retry) as client:
        await run(client, path, [(sessions[0], "sms")])
        leave_intent(path, 1)
        emulator.script(Fault.answer(500), endpoint="channels")
        assert await run(client, path, [(sessions[0], "sms")]) == []
        assert await states(path) == [State.INTENT]
        await run(client, path, [(sessions[0], "sms")])
        assert await states(path) == [State.SENT]


async def test_requests_that_are_alike_are_told_apart_by_their_order(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    alike = [(sessions[0], "sms")] * 3
    outcomes = await run(client, path, alike)
    assert [type(outcome.error) for outcome in outcomes].count(CooldownError) == 2
    assert await states(path) == [State.SENT]
    await asyncio.sleep(60)
    emulator.add_session(sessions[0])
    assert len(await run(client, path, alike)) == 2
    assert await states(path) == [State.SENT, State.SENT]
    assert len(emulator.delivered(sessions[0])) == 2


async def test_what_is_blocked_is_waited_for_without_an_intent(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    outcomes = await run(client, path, [(sessions[0], "sms")] * 2, max_wait=100.0)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert await states(path) == [State.SENT, State.SENT]
    assert len(emulator.ledger) == 2


async def test_what_the_service_finds_too_soon_is_taken_back_and_tried_again(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=10))
    (outcome,) = await run(client, path, [(sessions[0], "sms")])
    assert isinstance(outcome.error, CooldownError)
    assert await states(path) == [State.LEFT]
    await asyncio.sleep(10)
    (outcome,) = await run(client, path, [(sessions[0], "sms")])
    assert outcome.error is None


async def test_a_repeat_that_proves_the_arrival_counts_as_sent(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    emulator.script(Fault.close(process=True))
    emulator.script(Fault.answer(500), endpoint="channels", times=9)
    (outcome,) = await run(client, path, [(sessions[0], "sms")])
    assert outcome.error is not None
    assert outcome.error.outcome is Outcome.ACCEPTED
    assert await states(path) == [State.SENT]


async def test_what_was_refused_is_final_unless_it_is_asked_for(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    requests = [(session, "sms") for session in sessions[:3]]
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    emulator.script(Fault.answer(302))
    await run(client, path, requests, concurrency=1)
    assert await states(path) == [State.REFUSED, State.UNKNOWN, State.SENT]
    assert json.loads((await known(path))[0].detail or "")["error"]["sys_message"] == "ERROR_PHONE_BLOCKED"
    assert await run(client, path, requests) == []
    (outcome,) = await run(client, path, requests, retry_failed=True)
    assert outcome.request == SendRequest(sessions[0], "sms")
    assert [entry.tries for entry in await known(path)] == [1, 0, 0]


async def test_a_code_that_went_over_another_channel_says_so(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    channel = {"name": "SMS", "type": "sms", "is_active": True, "timeout": 60, "image_url": "", "link": ""}
    body = {"session_id": sessions[0], "session_expired_at": None, "channel": channel}
    emulator.script(Fault.answer(200, body=body))
    await run(client, path, [(sessions[0], "telegram")])
    (entry,) = await known(path)
    assert json.loads(entry.detail or "") == {"sent_to": "sms"}


async def test_a_second_run_of_the_same_journal_knows_what_the_first_has_done(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    requests = [(session, "sms") for session in sessions]
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    async with Journal.open(path) as journal:
        async with client.send_many(requests, journal=journal) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 6
        await asyncio.sleep(60)
        async with client.send_many(requests, journal=journal, retry_failed=True) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 1
    assert len(emulator.ledger) == 6


async def test_a_run_ends_the_sends_of_an_earlier_one_with_the_same_journal(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    requests = [(session, "sms") for session in sessions]
    async with Journal.open(path) as journal:
        async with client.send_many(requests, journal=journal, concurrency=1) as earlier:
            await anext(earlier)
            async with client.send_many(requests, journal=journal) as outcomes:
                done = [outcome async for outcome in outcomes]
            rest = [outcome async for outcome in earlier]
        assert all(outcome.error is None for outcome in done)
        assert {type(outcome.error) for outcome in rest} <= {ConfigurationError, type(None)}
        assert sum(isinstance(outcome.error, ConfigurationError) for outcome in rest) >= 3
    assert sorted(delivery.session_id for delivery in emulator.ledger) == sorted(sessions)
    async with client.send_many(requests, journal=journal) as outcomes:
        with pytest.raises(ConfigurationError, match="the journal is closed"):
            await anext(outcomes)


# -- another run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["session", "channel"])
async def test_another_input_is_refused_before_anything_is_sent(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path, name: str
) -> None:
    await run(client, path, [(sessions[0], "sms"), (sessions[1], "sms")])
    other = [(sessions[2], "sms"), (sessions[3], "sms")] if name == "session" else [(sessions[0], "email")]
    with pytest.raises(ConfigurationError, match=f"request 1 has another {name}"):
        await run(client, path, other)
    assert emulator.requests["send"] == 2


async def test_more_requests_may_follow(client: KodmobiClient, sessions: list[str], path: Path) -> None:
    await run(client, path, [(sessions[0], "sms")])
    assert len(await run(client, path, [(sessions[0], "sms"), (sessions[1], "sms")])) == 1


async def test_another_service_is_refused_before_anything_is_sent(
    client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    await run(client, path, [(sessions[0], "sms")])
    async with Emulator() as elsewhere, KodmobiClient(elsewhere.api_key, base_url=elsewhere.base_url) as other:
        with pytest.raises(ConfigurationError, match="the service has changed"):
            await run(other, path, [(sessions[0], "sms")])
        assert not elsewhere.requests


@pytest.mark.parametrize("journal", ["run.journal", 7])
def test_what_is_no_journal_is_refused(client: KodmobiClient, journal: Any) -> None:
    with pytest.raises(ConfigurationError, match="journal takes"):
        client.send_many([], journal=journal)


async def test_what_is_no_input_is_refused(client: KodmobiClient, path: Path) -> None:
    async with Journal.open(path) as journal:
        with pytest.raises(ConfigurationError, match="requests takes"):
            client.send_many(7, journal=journal)  # type: ignore[arg-type] # the point of this test


async def test_what_is_no_request_is_its_outcome_and_nothing_for_the_journal(
    client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    wrong: list[Any] = [7, ("no session", "sms"), (sessions[0], 7), (sessions[0], "sms"), (ULID(), "a b")]
    outcomes = await run(client, path, wrong, concurrency=1)
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors == [InvalidRequestError, InvalidRequestError, InvalidRequestError, type(None), InvalidRequestError]
    assert [entry.number for entry in await known(path) if entry.state is State.SENT] == [4]


# -- ended early -------------------------------------------------------------------------------------------------------


async def test_what_was_cut_off_stays_an_intent(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    emulator.script(Fault.silence(process=True), times=2)
    async with (
        Journal.open(path) as journal,
        client.send_many(
            [(session, "sms") for session in sessions], journal=journal, concurrency=2, grace=0.0
        ) as sends,
    ):
        waiting = asyncio.ensure_future(anext(sends))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert await states(path) == [State.INTENT, State.INTENT]
    await run(client, path, [(session, "sms") for session in sessions])
    assert await states(path) == [State.SENT] * 6
    assert len(emulator.ledger) == 6


async def test_a_client_that_is_closed_leaves_intents_and_what_is_left(
    emulator: Emulator, sessions: list[str], path: Path
) -> None:
    emulator.script(Fault.silence(process=True))
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    running = asyncio.create_task(run(client, path, [(session, "sms") for session in sessions], concurrency=1))
    await asyncio.sleep(1)
    await client.aclose(grace=0.0)
    with pytest.raises(BulkStoppedError) as stopped:
        await running
    assert isinstance(stopped.value.error, ClientClosedError)
    assert await states(path) == [State.INTENT]


async def test_an_account_at_fault_ends_the_asking_and_the_run(
    emulator: Emulator, client: KodmobiClient, sessions: list[str], path: Path
) -> None:
    requests = [(session, "sms") for session in sessions]
    await run(client, path, requests[:1])
    leave_intent(path, 1)
    async with KodmobiClient("another-key", base_url=emulator.base_url) as other:
        with pytest.raises(BulkStoppedError) as stopped:
            await run(other, path, requests)
        assert isinstance(stopped.value.error, AuthenticationError)
    assert await states(path) == [State.INTENT]
    assert emulator.requests["send"] == 1


async def test_a_full_disk_ends_the_run_before_the_next_request_and_it_goes_on_later(
    emulator: Emulator, client: KodmobiClient, path: Path
) -> None:
    requests = [(emulator.add_session(), "sms") for _ in range(200)]
    async with Journal.open(path) as journal:
        journal._database.execute("PRAGMA max_page_count = 5")
        async with client.send_many(requests, journal=journal, concurrency=4) as outcomes:
            with pytest.raises(JournalError, match="full"):
                [outcome async for outcome in outcomes]
    sent = len(emulator.ledger)
    assert 0 < sent < 200
    async with Journal.open(path) as journal:
        journal._database.execute("PRAGMA max_page_count = 1000000")
        async with client.send_many(requests, journal=journal) as outcomes:
            assert all([outcome.error is None async for outcome in outcomes])
    assert len(emulator.ledger) == 200
    assert len({delivery.session_id for delivery in emulator.ledger}) == 200


async def test_an_outcome_that_cannot_be_written_is_told_at_the_end(path: Path) -> None:
    async def write() -> None:
        async with Journal.open(path) as journal:
            journal._database.execute("PRAGMA max_page_count = 1")
            journal.settle(Entry(1, "x" * 9_000, "sms"), State.SENT)

    with pytest.raises(JournalError, match="cannot be written"):
        await write()


async def test_a_long_input_is_read_in_pages_and_in_turns(
    emulator: Emulator, client: KodmobiClient, path: Path
) -> None:
    requests = [(str(ULID()), "sms") for _ in range(2_500)]
    async with Journal.open(path) as journal:
        for number, (session, channel) in enumerate(requests, 1):
            if number % 2:
                journal.settle(Entry(number, session, channel), State.SENT)
    outcomes = await run(client, path, requests, concurrency=64)
    assert len(outcomes) == 1_250
    assert emulator.requests["send"] == 1_250
    assert len(await known(path)) == 2_500


async def test_a_script_may_bind_its_journal_to_more(path: Path) -> None:
    async with Journal.open(str(path), binding={"the file": "a.csv"}):
        pass
    with pytest.raises(ConfigurationError, match="the file has changed"):
        async with Journal.open(path, binding={"the file": "b.csv"}):
            pass


def test_a_repr_shows_no_whole_session() -> None:
    entry = Entry(1, "01K8N1VMPN0EE389K72YW0CBM2", "sms", detail="{}")
    assert "01K8…CBM2" in repr(entry)
    assert "01K8N1VMPN" not in repr(entry)
