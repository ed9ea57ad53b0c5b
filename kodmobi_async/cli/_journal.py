"""The journal of ``kodmobi bulk``: what was begun and what came of it, on disk, so that a killed run can go on.

The invariant: **a row's intent is on the disk before its request leaves**, and its outcome is written after. So a row
without an intent was never tried; one with an intent and no outcome may have been delivered, and is not sent again.

It is a SQLite database (write-ahead log, ``synchronous=FULL``) that one thread writes. All that waits to be written
goes into one transaction, so that many rows share one wait for the disk. The database stays locked for as long as the
run lasts, and is bound to its input and to the settings that decide what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import attrs
import orjson

from kodmobi_async._values.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from pathlib import Path

    from kodmobi_async.cli._rows import Row

__all__ = ("Entry", "Journal", "JournalError", "State")

APPLICATION_ID: Final = 0x6B6F646D
"""Marks our files; "kodm" in ASCII."""
SCHEMA_VERSION: Final = 2
_PAGE: Final = 1_000
"""Rows read from the journal at a time."""

_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
    "CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """
    CREATE TABLE row (
        line INTEGER PRIMARY KEY, session_id TEXT NOT NULL, channel TEXT NOT NULL, tries INTEGER NOT NULL,
        state INTEGER NOT NULL, detail TEXT
    )
    """,
)
# One statement is one transaction, and one stretch without the interpreter's lock. With a statement a row, the thread
# and the event loop take the lock from each other at each of them, which costs more than all the writing.
_WRITE: Final = """
    INSERT INTO row (line, session_id, channel, tries, state, detail)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
    FROM json_each(?) WHERE true
    ON CONFLICT (line) DO UPDATE SET tries = excluded.tries, state = excluded.state, detail = excluded.detail
"""

T = TypeVar("T")
_Written: TypeAlias = "tuple[int, str, str, int, State, str | None]"


class State(IntEnum):
    """How far a row has come; the numbers are in the file."""

    LEFT = 0
    """Taken back: provably no code was sent, for a reason that has nothing to do with the row. It is sent next time."""
    INTENT = 1
    SENT = 2
    REFUSED = 3
    NOT_SENT = 4
    UNKNOWN = 5
    BLOCKED = 6
    """By its channel's cooldown."""

    def __init__(self, _number: int) -> None:
        self.word = self.name.lower()
        """What people and programs read."""


@attrs.frozen
class Entry:
    """What the journal knows of a row; ``detail`` is what the run has written about its outcome."""

    line: int
    session_id: str
    channel: str
    tries: int
    state: State
    detail: str | None


class JournalError(Exception):
    """The journal cannot be written any more; what it holds stays valid."""


class Journal:
    """A journal, open and locked; use `open`."""

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self.last_line = 0
        """The last of the rows that an earlier run has written about."""
        self._waiting: list[_Written] = []
        self._waiters: list[asyncio.Future[None]] = []
        """For those who want to know when it is written."""
        self._writing: asyncio.Task[None] | None = None
        self._failure: JournalError | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path, settings: Mapping[str, str]) -> AsyncGenerator[Journal]:
        """Open the journal of a run, or begin one.

        Args:
            path: The file.
            settings: What the run is bound to, the input's digest among it; by the words that a refusal says.

        Raises:
            ConfigurationError: The file is in use, is of another run, or is no journal. It is left as it was.
            JournalError: A new one cannot be written.
        """
        with ThreadPoolExecutor(1, "journal") as thread:
            loop = asyncio.get_running_loop()
            database = await loop.run_in_executor(thread, _open, path, settings)
            journal = cls(database, thread)
            try:
                journal.last_line = await journal._ask(journal._find_last_line)
                yield journal
            finally:
                await journal._close()

    async def intend(self, row: Row) -> None:
        """Write that a row is about to be sent; when this returns, it is on the disk.

        Raises:
            JournalError: It is not, and the row must not be sent.
        """
        await self._durable(_as_written(row, State.INTENT))

    def settle(self, row: Row, state: State, detail: str | None = None) -> None:
        """Write what came of a row, soon; a failure shows at the next intent, and when the journal is closed."""
        if self._failure is None:
            self._soon(_as_written(row, state, detail))

    async def intents(self) -> Sequence[Entry]:
        """Return the rows that were begun and have no outcome."""
        return await self._ask(lambda: self._select("WHERE state = 1 ORDER BY line", ()))

    async def page(self, after: int) -> Sequence[Entry]:
        """Return the next rows after a line, in the order of the input."""
        return await self._ask(lambda: self._select("WHERE line > ? ORDER BY line LIMIT ?", (after, _PAGE)))

    async def conclude(self, entry: Entry, state: State, detail: str | None) -> None:
        """Write what came of an intent of an earlier run, and wait until that is on the disk.

        Raises:
            JournalError: It is not.
        """
        await self._durable(_as_written(entry, state, detail))

    async def flush(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            JournalError: Something is not.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)
        if self._failure is not None:
            raise self._failure

    async def _durable(self, written: _Written) -> None:
        if self._failure is not None:
            raise self._failure
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._soon(written)
        await waiter

    def _soon(self, written: _Written) -> None:
        """Write soon; all that waits goes into one transaction."""
        self._waiting.append(written)
        if self._writing is None:
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._write_waiting(loop))

    async def _write_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            batch, waiters = self._take_waiting()
            try:
                await loop.run_in_executor(self._thread, _commit, self._database, batch)
            except Exception as error:  # noqa: BLE001 whatever it is, nothing more is written, and all who wait learn of it
                self._failure = JournalError(f"the journal cannot be written: {str(error) or type(error).__name__}")
                waiters += self._take_waiting()[1]  # those who have come meanwhile
            for waiter in waiters:
                if waiter.done():  # it was cancelled
                    continue
                if self._failure is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(self._failure)
        self._writing = None

    def _take_waiting(self) -> tuple[Sequence[_Written], list[asyncio.Future[None]]]:
        taken = self._waiting, self._waiters
        self._waiting, self._waiters = [], []
        return taken

    async def _close(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        while self._writing is not None and not self._writing.done():
            try:
                await asyncio.shield(self._writing)
            except asyncio.CancelledError as error:  # what waits is written all the same
                cancelled = error
        await asyncio.get_running_loop().run_in_executor(self._thread, _close, self._database)
        if cancelled is not None:
            raise cancelled

    def _find_last_line(self) -> int:
        line: int = self._database.execute("SELECT coalesce(max(line), 0) FROM row").fetchone()[0]
        return line

    def _select(self, condition: str, values: tuple[int, ...]) -> Sequence[Entry]:
        rows = self._database.execute(
            f"SELECT line, session_id, channel, tries, state, detail FROM row {condition}",  # noqa: S608 our own words
            values,
        )
        return [
            Entry(line, session_id, channel, tries, State(state), detail)
            for line, session_id, channel, tries, state, detail in rows
        ]

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"the journal cannot be read: {error}") from None


def _as_written(row: Row | Entry, state: State, detail: str | None = None) -> _Written:
    return row.line, str(row.session_id), row.channel, row.tries, state, detail


def _open(path: Path, settings: Mapping[str, str]) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the file of --journal cannot be opened: {error}") from None
    try:
        _begin(database, settings)
    except BaseException as error:
        _close(database)
        if not isinstance(error, sqlite3.Error):
            raise
        raise _refusal(error) from None
    return database


def _refusal(error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ConfigurationError("the file of --journal is in use by another process")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
        return ConfigurationError(f"the file of --journal is no journal, or is damaged: {error}")
    return JournalError(f"the journal cannot be written: {error}")


def _begin(database: sqlite3.Connection, settings: Mapping[str, str]) -> None:
    """Make sure, before anything is written, that the file is a journal of this run, or none yet; and lock it."""
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    is_new = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    marks = [database.execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("application_id", "user_version")]
    if not is_new:
        _check_marks(*marks)
    elif marks != [0, 0]:
        raise ConfigurationError("the file of --journal is the database of another program")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN EXCLUSIVE")  # the lock is kept from here on
    if is_new:
        for statement in _SCHEMA:
            database.execute(statement)
        database.executemany("INSERT INTO run VALUES (?, ?)", settings.items())
    database.execute("COMMIT")
    if not is_new:
        _check_settings(dict(database.execute("SELECT name, value FROM run").fetchall()), settings)
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise ConfigurationError(f"the file of --journal is damaged: {problem}")


def _check_marks(application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise ConfigurationError("the file of --journal is the database of another program")
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the file of --journal is of version {version}; this program takes version {SCHEMA_VERSION}"
        )


def _check_settings(found: Mapping[str, str], settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        if found.get(name, "") != value:  # earlier versions wrote less
            raise ConfigurationError(
                f"the journal is of another run: {name} has changed; take the same again, or a new journal"
            )


def _commit(database: sqlite3.Connection, batch: Sequence[_Written]) -> None:
    database.execute(_WRITE, (orjson.dumps(batch).decode(),))


def _close(database: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # everything that counts is committed
        database.close()
