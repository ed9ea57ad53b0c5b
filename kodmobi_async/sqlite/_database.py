"""The file: a row for each slot, and one transaction for any number of operations.

It is used by one thread. A row's slot is reserved while ``token`` is set and ``leased_until`` is to come, else blocked
while ``blocked_until`` is to come, else free. Rows of free slots are deleted a few at a time, by whoever writes next.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Final, TypeAlias

from kodmobi_async._shared.operations import BLOCKED, FREE, RESERVED, Operation
from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS
from kodmobi_async.sqlite._clock import HostClock
from kodmobi_async.sqlite._setup import ANOTHER, NETWORK, NO_WAL, WrongSetupError, is_on_network

if TYPE_CHECKING:
    from pathlib import Path

Step: TypeAlias = tuple[Operation, str, tuple[str | int, ...]]

_APPLICATION_ID: Final = 0x6B6D_6F62
_FORMAT: Final = 1
_EVICTIONS: Final = 8
"""Rows of free slots that a step deletes, at most."""

_SCHEMA: Final = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_FORMAT}",
    """CREATE TABLE slots (
        key TEXT PRIMARY KEY, token TEXT, leased_until REAL NOT NULL, blocked_until REAL NOT NULL, ends REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX ends ON slots (ends)",
    # what the times are counted from, and by how much the wall clock was ahead when a window last began
    "CREATE TABLE clock (boot TEXT NOT NULL, lead REAL NOT NULL)",
)


class _Slot:
    """A row."""

    __slots__ = ("blocked_until", "leased_until", "token")

    def __init__(self, token: str | None, leased_until: float, blocked_until: float) -> None:
        self.token = token
        self.leased_until = leased_until
        self.blocked_until = blocked_until

    def state(self, now: float) -> tuple[int, int]:
        """Return the state, and what is left of it in ms."""
        if self.token is not None and self.leased_until > now:
            return RESERVED, int((self.leased_until - now) * 1_000)
        if self.blocked_until > now:
            return BLOCKED, int((self.blocked_until - now) * 1_000)
        return FREE, 0


class Database:
    """The file, opened when it is used.

    Args:
        path: Where it is.
        timeout: Seconds to wait for other processes.
        clock: The machine's.
    """

    def __init__(self, path: Path, *, timeout: float, clock: HostClock | None = None) -> None:
        self._path = path
        self._timeout = timeout
        self._clock = HostClock() if clock is None else clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def execute(self, steps: list[Step]) -> list[tuple[int, int]]:
        """Do all steps, or none, and return their replies.

        Raises:
            sqlite3.Error: The file could not be used, or was busy for too long.
            WrongSetupError: It is no file of ours.
            OSError: It cannot be looked at.
        """
        try:
            connection = self._opened()
            now = self._clock.now()
            writes = any(operation is not Operation.READ for operation, _, _ in steps)
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            replies = [self._do(connection, now, *step) for step in steps]
            if writes:
                self._evict(connection, now, _EVICTIONS * len(steps))
                connection.execute("UPDATE clock SET lead = ?", (self._clock.lead_of_wall_clock(),))
            connection.execute("COMMIT")
        except BaseException:
            self.close()  # which rolls back
            raise
        return replies

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._file == _identity(self._path):
                return self._connection
            self.close()  # the file was deleted, or replaced: others use the new one
        if is_on_network(self._path):
            raise WrongSetupError(NETWORK)
        connection = sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, _identity(self._path)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise WrongSetupError(NO_WAL)
        # a crash of a process loses nothing; one of the machine, perhaps the last windows, which the service enforces
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        ((found,),) = connection.execute("PRAGMA application_id")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
        if tables == 0 and found == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO clock VALUES (?, ?)", (self._clock.boot, self._clock.lead_of_wall_clock()))
        elif found != _APPLICATION_ID or connection.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
            raise WrongSetupError(ANOTHER)
        self._follow_boot(connection)
        connection.execute("COMMIT")

    def _follow_boot(self, connection: sqlite3.Connection) -> None:
        """Let windows of an earlier boot go on by the wall clock; what was in flight then is not any more."""
        ((boot, lead),) = connection.execute("SELECT boot, lead FROM clock")
        if boot == self._clock.boot:
            return
        moved, longest = lead - self._clock.lead_of_wall_clock(), self._clock.now() + MAX_WAIT_SECONDS
        connection.execute(
            "UPDATE slots SET token = NULL, leased_until = 0,"
            " blocked_until = min(max(blocked_until, leased_until) + :moved, :longest),"
            " ends = min(ends + :moved, :longest)",
            {"moved": moved, "longest": longest},
        )
        connection.execute("UPDATE clock SET boot = ?", (self._clock.boot,))

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _do(
        self,
        connection: sqlite3.Connection,
        now: float,
        operation: Operation,
        key: str,
        arguments: tuple[str | int, ...],
    ) -> tuple[int, int]:
        row = connection.execute(
            "SELECT token, leased_until, blocked_until FROM slots WHERE key = ?", (key,)
        ).fetchone()
        slot = _Slot(None, 0.0, 0.0) if row is None else _Slot(*row)
        if operation is Operation.READ:
            return slot.state(now)
        token = str(arguments[0])
        until = now + int(arguments[1]) / 1_000 if len(arguments) > 1 else now
        reply = _STEPS[operation](slot, now, token, until)
        connection.execute(
            "INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?)",
            (key, slot.token, slot.leased_until, slot.blocked_until, max(slot.leased_until, slot.blocked_until)),
        )
        return reply

    def _evict(self, connection: sqlite3.Connection, now: float, most: int) -> None:
        connection.execute(
            "DELETE FROM slots WHERE key IN (SELECT key FROM slots WHERE ends <= ? ORDER BY ends LIMIT ?)", (now, most)
        )


def _reserve(slot: _Slot, now: float, token: str, until: float) -> tuple[int, int]:
    state = slot.state(now)
    if state[0] != FREE and slot.token != token:  # our own token: the reply to an earlier attempt was lost
        return state
    slot.token, slot.leased_until = token, until
    return FREE, 0


def _start(slot: _Slot, now: float, token: str, until: float) -> tuple[int, int]:
    state, _ = slot.state(now)
    if state == RESERVED and slot.token != token:
        return FREE, 1
    is_lost = slot.token != token and state == FREE
    slot.token, slot.leased_until, slot.blocked_until = None, 0.0, max(slot.blocked_until, until)
    return BLOCKED, int(is_lost)


def _release(slot: _Slot, now: float, token: str, until: float) -> tuple[int, int]:
    del now, until
    if slot.token != token:
        return FREE, 0
    slot.token, slot.leased_until = None, 0.0
    return BLOCKED, 0


def _observe(slot: _Slot, now: float, token: str, until: float) -> tuple[int, int]:
    del token
    slot.blocked_until = max(slot.blocked_until, until)
    return slot.state(now)


_STEPS: Final = {
    Operation.RESERVE: _reserve,
    Operation.START: _start,
    Operation.RELEASE: _release,
    Operation.OBSERVE: _observe,
}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 a path's own method takes twice as long
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
