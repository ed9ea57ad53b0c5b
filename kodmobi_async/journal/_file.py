"""The file of a journal: opened, checked, locked and written.

It is a SQLite database (write-ahead log, ``synchronous=FULL``). All that waits to be written goes into one transaction.
The database stays locked for as long as it is open.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.journal._entries import JournalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kodmobi_async.journal._entries import State

Written: TypeAlias = "tuple[int, str, str, int, State, str | None]"
"""A row of the database."""

APPLICATION_ID: Final = 0x6B6F646D
"""Marks our files; "kodm" in ASCII."""
SCHEMA_VERSION: Final = 2

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


def open_file(path: Path, settings: Mapping[str, str]) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the file of the journal cannot be opened: {error}") from None
    try:
        _begin(database, settings)
    except BaseException as error:
        close_file(database)
        if not isinstance(error, sqlite3.Error):
            raise
        raise _refusal(error) from None
    return database


def _refusal(error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ConfigurationError("the file of the journal is in use by another process")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
        return ConfigurationError(f"the file of the journal is no journal, or is damaged: {error}")
    return JournalError(f"the journal cannot be written: {error}")


def _begin(database: sqlite3.Connection, settings: Mapping[str, str]) -> None:
    """Make sure, before anything is written, that the file is a journal of this run, or none yet; and lock it."""
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    is_new = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    marks = [database.execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("application_id", "user_version")]
    if not is_new:
        _check_marks(*marks)
    elif marks != [0, 0]:
        raise ConfigurationError("the file of the journal is the database of another program")
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
            raise ConfigurationError(f"the file of the journal is damaged: {problem}")


def _check_marks(application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise ConfigurationError("the file of the journal is the database of another program")
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the file of the journal is of version {version}; this program takes version {SCHEMA_VERSION}"
        )


def _check_settings(found: Mapping[str, str], settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        if found.get(name, "") != value:  # earlier versions wrote less
            raise ConfigurationError(
                f"the journal is of another run: {name} has changed; take the same again, or a new journal"
            )


def commit(database: sqlite3.Connection, batch: Sequence[Written]) -> None:
    database.execute(_WRITE, (orjson.dumps(batch).decode(),))


def close_file(database: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # everything that counts is committed
        database.close()


def bind(database: sqlite3.Connection, name: str, value: str) -> None:
    """Bind the journal to a setting, or check that it is bound to this one.

    Raises:
        ConfigurationError: It is bound to another.
    """
    found = database.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
    if found is None:
        database.execute("INSERT INTO run VALUES (?, ?)", (name, value))
    else:
        _check_settings({name: found[0]}, {name: value})
