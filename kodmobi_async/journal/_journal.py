"""`Journal`: what was begun and what came of it, on disk, so that a run that was killed can go on.

The invariant: **the intent to send is on the disk before the request leaves**, and the outcome is written after. So a
request without an intent was never tried; one with an intent and no outcome may have been delivered, and is not sent
again. One thread writes; what waits to be written goes into one transaction, so that many requests share one wait for
the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.journal import _file
from kodmobi_async.journal._cursor import Cursor
from kodmobi_async.journal._entries import Entry, JournalError, State
from kodmobi_async.journal._resume import resolve
from kodmobi_async.journal._run import items

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._calls.postponed import Item
    from kodmobi_async._calls.run import Requests
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async.journal._file import Written

_PAGE: Final = 1_000
"""Entries read at a time."""

T = TypeVar("T")


class Journal:
    """A journal, open and locked; use `open`.

    ::

        async with Journal.open("run.journal") as journal, client.send_many(requests, journal=journal) as outcomes:
            async for outcome in outcomes: ...

    A run that was killed goes on when the same program runs again with the same requests in the same order. What was
    never tried is sent; what may have been sent is not: the service is asked about a request with an intent and no
    outcome. The iteration yields what this run has done; `outcomes` has everything.

    Requests are known again by their number in the input, so that some that are alike are told apart. The journal is
    bound to them, as far as it knows them, and to the service's address: where a request is another one than before,
    the run ends before it is sent. More requests may follow at the end.

    A run that begins with the journal ends the sends of an earlier one with it.
    """

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self.last_number: int = 0
        """The last of the requests that anything was written about."""
        self.is_open: bool = True
        self.run: object = None
        """The latest run; an earlier one sends nothing more."""
        self._waiting: list[Written] = []
        self._waiters: list[asyncio.Future[None]] = []
        """For those who want to know when it is written."""
        self._writing: asyncio.Task[None] | None = None
        self._failure: JournalError | None = None
        self._failure_was_raised = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, path: str | os.PathLike[str], *, binding: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Journal]:
        """Open the journal of a run, or begin one. It is written to its end when the context is left.

        Args:
            path: The file.
            binding: What else the run is bound to, such as the digest of an input; by the words that a refusal says.

        Raises:
            ConfigurationError: The file is in use, is of another run, or is no journal. It is left as it was.
            JournalError: A new one cannot be written; or, at the end, not everything could be.
        """
        with ThreadPoolExecutor(1, "journal") as thread:
            loop = asyncio.get_running_loop()
            database = await loop.run_in_executor(thread, _file.open_file, Path(path), binding or {})
            journal = cls(database, thread)
            try:
                journal.last_number = await journal._query(journal._find_last_number)
                yield journal
            finally:
                await journal._close()
            if journal._failure is not None and not journal._failure_was_raised:
                raise journal._failure

    async def outcomes(self) -> AsyncGenerator[Entry]:
        """Yield what is known of every request that was begun, in the order of the input.

        Raises:
            JournalError: The journal cannot be read.
        """
        await self.flush()
        after = 0
        while page := await self.page(after):
            for entry in page:
                yield entry
            after = page[-1].number

    def cursor(self) -> Cursor:
        """Return what finds entries, in the order of the input."""
        return Cursor(self)

    async def intend(self, entry: Entry) -> None:
        """Write that a request is about to be sent; when this returns, it is on the disk.

        Raises:
            JournalError: It is not, and the request must not be sent.
        """
        await self._durable(attrs.evolve(entry, state=State.INTENT, detail=None))

    def settle(self, entry: Entry, state: State, detail: str | None = None) -> None:
        """Write what came of a request, soon; a failure shows at the next intent, and at the end."""
        if self._failure is None:
            self._soon(attrs.evolve(entry, state=state, detail=detail))

    async def resolve(
        self,
        client: KodmobiClient,
        *,
        cooldowns: CooldownTracker,
        concurrency: int = 64,
        stopping: Callable[[], bool] = bool,
    ) -> None:
        """Ask about every intent without an outcome, and write what is known then.

        ``send_many`` does this by itself, before anything is sent.

        Args:
            client: Asks.
            cooldowns: The client's tracker. The channels of the intents are blocked in it: a request of the run that
                was killed may still be in flight.
            concurrency: How many questions are in flight at most.
            stopping: Whether to ask no more.

        Raises:
            BulkStoppedError: The account is at fault.
            JournalError: The journal cannot be read or written.
        """
        await resolve(client, self, cooldowns, concurrency=concurrency, stopping=stopping)

    async def bind(self, name: str, value: str) -> None:
        """Bind the journal to a setting, or check that it is bound to this one.

        Raises:
            ConfigurationError: It is bound to another.
        """
        await self._query(lambda: _file.bind(self._database, name, value))

    def items(
        self,
        requests: Requests,
        *,
        client: KodmobiClient,
        cooldowns: CooldownTracker,
        concurrency: int,
        retry_failed: bool,
    ) -> AsyncIterator[Item]:
        """Return what ``send_many`` reads instead of the requests."""
        return items(
            self, requests, client=client, cooldowns=cooldowns, concurrency=concurrency, retry_failed=retry_failed
        )

    async def intents(self) -> Sequence[Entry]:
        """Return what was begun and has no outcome."""
        return await self._query(lambda: self._select("WHERE state = 1 ORDER BY line", ()))

    async def page(self, after: int) -> Sequence[Entry]:
        """Return the next entries after a number, in the order of the input."""
        return await self._query(lambda: self._select("WHERE line > ? ORDER BY line LIMIT ?", (after, _PAGE)))

    async def conclude(self, entry: Entry, state: State, detail: str | None) -> None:
        """Write what came of an intent of an earlier run, and wait until that is on the disk.

        Raises:
            JournalError: It is not.
        """
        await self._durable(attrs.evolve(entry, state=state, detail=detail))

    async def flush(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            JournalError: Something is not.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._failure_was_raised = True
            raise self._failure

    async def _durable(self, entry: Entry) -> None:
        self._raise_failure()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._soon(entry)
        await waiter

    def _soon(self, entry: Entry) -> None:
        """Write soon; all that waits goes into one transaction."""
        self.last_number = max(self.last_number, entry.number)
        self._waiting.append(
            (entry.number, str(entry.session_id), entry.channel, entry.tries, entry.state, entry.detail)
        )
        if self._writing is None:
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._write_waiting(loop))

    async def _write_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            batch, waiters = self._take_waiting()
            try:
                await loop.run_in_executor(self._thread, _file.commit, self._database, batch)
            except Exception as error:  # noqa: BLE001 whatever it is, nothing more is written, and all who wait learn of it
                self._failure = JournalError(f"the journal cannot be written: {str(error) or type(error).__name__}")
                waiters += self._take_waiting()[1]  # those who have come meanwhile
            for waiter in waiters:
                if waiter.done():  # it was cancelled
                    continue
                if self._failure is None:
                    waiter.set_result(None)
                else:
                    self._failure_was_raised = True
                    waiter.set_exception(self._failure)
        self._writing = None

    def _take_waiting(self) -> tuple[Sequence[Written], list[asyncio.Future[None]]]:
        taken = self._waiting, self._waiters
        self._waiting, self._waiters = [], []
        return taken

    async def _close(self) -> None:
        self.is_open = False
        cancelled: asyncio.CancelledError | None = None
        while self._writing is not None and not self._writing.done():
            try:
                await asyncio.shield(self._writing)
            except asyncio.CancelledError as error:  # what waits is written all the same
                cancelled = error
        await asyncio.get_running_loop().run_in_executor(self._thread, _file.close_file, self._database)
        if cancelled is not None:
            raise cancelled

    def _find_last_number(self) -> int:
        number: int = self._database.execute("SELECT coalesce(max(line), 0) FROM row").fetchone()[0]
        return number

    def _select(self, condition: str, values: tuple[int, ...]) -> Sequence[Entry]:
        rows = self._database.execute(
            f"SELECT line, session_id, channel, tries, state, detail FROM row {condition}",  # noqa: S608 our own words
            values,
        )
        return [
            Entry(number, session_id, channel, tries, State(state), detail)
            for number, session_id, channel, tries, state, detail in rows
        ]

    async def _query(self, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except ConfigurationError:
            raise  # a ValueError, too
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from None
