"""How ``kodmobi bulk --queue`` hands rows over, here to a worker of this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from queue_broker import Queue, running_worker
from test_taskiq import TOO_SOON

from kodmobi_async import BalanceError, BulkStoppedError, Outcome
from kodmobi_async.cli._bulk_options import Options
from kodmobi_async.cli._files import Files
from kodmobi_async.cli._fleet import FleetSending
from kodmobi_async.cli._progress import Tally
from kodmobi_async.cli._rows import Row
from kodmobi_async.cli._sending import entry_of
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.taskiq import send_through
from kodmobi_async.journal import Journal, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
    from pathlib import Path

    from kodmobi_async import SendOutcome


class Here:
    """A run, and what it is made of."""

    def __init__(self, emulator: Emulator, journal: Journal | None, resend: Any, **settings: Any) -> None:
        self.emulator = emulator
        self.tally = Tally(1_000, 0.0)
        self.stopping = asyncio.Event()
        self.rows_read = 0

        def hand_over(rows: AsyncIterable[Row], *, outstanding: int, tally: Tally) -> AsyncGenerator[SendOutcome]:
            def task_id(row: Any) -> str:
                return str(row.line)

            return send_through(resend, rows, outstanding=outstanding, task_id=task_id, on_progress=tally.note_worker)

        self.sending = FleetSending(
            hand_over, journal=journal, tally=self.tally, stopping=self.stopping, **{"rate": None, **settings}
        )

    def many(self, count: int, outstanding: int = 4096) -> FleetSending:
        return self.sending.many(self._rows(count), options(outstanding))

    async def _rows(self, count: int) -> AsyncIterator[Row]:
        for line in range(1, count + 1):
            self.rows_read += 1
            yield Row(self.emulator.add_session(), "sms", line, b"")


async def collect(sending: FleetSending, outcomes: list[SendOutcome]) -> None:
    async for outcome in sending:
        outcomes.append(outcome)  # noqa: PERF401 what came before the error is wanted


def options(outstanding: int) -> Options:
    return Options(
        source="rows.csv",
        channel=None,
        concurrency=outstanding,
        rate=None,
        max_wait=0.0,
        journal=None,
        retry_failed=False,
        files=Files(),
        quiet=True,
    )


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "journal") as journal:
        yield journal


async def states(journal: Journal, lines: int) -> list[State | None]:
    await journal.flush()
    cursor = journal.cursor()
    found = [await cursor.find(line) for line in range(1, lines + 1)]
    return [None if each is None else each.state for each in found]


async def test_rows_are_handed_over_with_their_intents(emulator: Emulator, journal: Journal) -> None:
    async with running_worker(Queue(), emulator) as worker:
        here = Here(emulator, journal, worker.resend)
        outcomes = [outcome async for outcome in here.many(600)]
    assert [outcome.error for outcome in outcomes] == [None] * 600
    assert await states(journal, 600) == [State.INTENT] * 600
    assert (here.tally.in_flight, here.sending.paused_for, here.sending.unread) == (0, 0.0, ())
    assert here.tally.workers


async def test_rows_take_their_turns(emulator: Emulator) -> None:
    async with running_worker(Queue(), emulator) as worker:
        here = Here(emulator, None, worker.resend, rate=2.0)
        began = asyncio.get_running_loop().time()
        outcomes = [outcome async for outcome in here.many(11)]
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=1.0)
    assert len(outcomes) == 11


async def test_a_run_that_is_stopped_waits_for_what_is_out_and_hands_nothing_more_over(
    emulator: Emulator, journal: Journal
) -> None:
    emulator.script(TOO_SOON, times=5)
    async with running_worker(Queue(), emulator) as worker:
        here = Here(emulator, journal, worker.resend)
        outcomes = []
        async for outcome in here.many(1_000, outstanding=10):
            outcomes.append(outcome)
            here.sending.stop()
        taken = here.sending.unread
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    assert 10 <= len(outcomes) < 30
    assert len(outcomes) + len(taken) == here.rows_read
    assert {outcome.error.outcome for outcome in taken if outcome.error is not None} == {Outcome.NOT_SENT}
    found = await states(journal, here.rows_read)
    assert found == [State.INTENT] * len(outcomes) + [State.LEFT] * len(taken)


async def test_a_run_that_is_cut_off_does_not_know_of_what_is_out(emulator: Emulator, journal: Journal) -> None:
    emulator.script(TOO_SOON, times=10)
    async with running_worker(Queue(), emulator) as worker:
        here = Here(emulator, journal, worker.resend)
        outcomes = here.many(20, outstanding=10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await anext(aiter(outcomes))
        await outcomes.aclose()
        unread = outcomes.unread
    found = [outcome.error.outcome for outcome in unread if outcome.error is not None]
    assert found.count(Outcome.UNKNOWN) >= 10
    assert len(found) == 20
    assert found == sorted(found, key=lambda outcome: outcome is Outcome.UNKNOWN)


async def test_an_account_that_cannot_send_stops_the_run(emulator: Emulator) -> None:
    emulator.script(Fault.refuse("ERROR_WRONG_BALANCE", status=402), times=1_000)
    async with running_worker(Queue(), emulator) as worker:
        here = Here(emulator, None, worker.resend)
        outcomes: list[SendOutcome] = []
        with pytest.raises(BulkStoppedError) as caught:
            await collect(here.many(1_000, outstanding=20), outcomes)
    assert isinstance(caught.value.error, BalanceError)
    assert caught.value.done == len(outcomes) < 60
    assert here.stopping.is_set()
    assert here.sending.unread


def test_an_entry_of_the_journal_is_the_row(emulator: Emulator) -> None:
    row = Row(emulator.add_session(), "sms", 7, b"", 2)
    entry = entry_of(row)
    assert (entry.session_id, entry.channel, entry.tries) == (row.session_id, "sms", 2)
