"""How the rows of a bulk run are sent: by this process, or by a fleet of workers.

A row goes: its turn by ``--rate`` → its intent on the disk, if there is a journal → the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

from kodmobi_async import Limits, SendInterruptedError, SendMany
from kodmobi_async.journal import Entry, JournaledSends

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from kodmobi_async import KodmobiClient, SendRequest, SendResult
    from kodmobi_async.cli._bulk_options import Options
    from kodmobi_async.cli._progress import Tally
    from kodmobi_async.cli._rows import Row
    from kodmobi_async.journal import Journal

__all__ = ("FleetSending", "OwnSending", "Sending", "entry_of")


def entry_of(row: Row) -> Entry:
    """Return a row as the journal has it."""
    return Entry(row.line, str(row.session_id), str.__str__(row.channel), row.tries)


class Sending(ABC):
    """Sends rows.

    Args:
        journal: Of the run, if one is kept.
        tally: Is told what is in flight.
        stopping: Set when nothing more is to begin.
        rate: Rows a second; ``None`` = as they come.
    """

    def __init__(self, journal: Journal | None, tally: Tally, stopping: asyncio.Event, rate: float | None) -> None:
        self._journal = journal
        self._tally = tally
        self._stopping = stopping
        self._spacing = 0.0 if rate is None else 1.0 / rate
        self._next_turn = 0.0

    def many(self, rows: AsyncIterable[Row], options: Options) -> SendMany:
        """Return what sends many rows."""
        return SendMany(
            rows,
            self.send,
            remaining=self.remaining,
            concurrency=options.concurrency,
            max_wait=options.max_wait,
            grace=0.0,  # that is the second interrupt; the first one stops it
            on_stop=self._stopping.set,
            **self._settings,
        )

    @abstractmethod
    async def send(self, request: SendRequest) -> SendResult:
        """Send a row."""

    @abstractmethod
    async def remaining(self, request: SendRequest) -> float:
        """Return the seconds for which the channel of a row is blocked."""

    @property
    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What else the run takes."""

    def forget(self, row: Row) -> None:
        """Note that the outcome of a row is accounted for."""
        del row

    async def _await_turn(self) -> None:
        """Wait for the turn that ``--rate`` gives; it is not part of the time that a send may take.

        Raises:
            SendInterruptedError: The run is stopped.
        """
        if self._spacing:
            now = asyncio.get_running_loop().time()
            turn = max(now, self._next_turn)
            self._next_turn = turn + self._spacing
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(turn):
                    await self._stopping.wait()
            if self._stopping.is_set():
                raise SendInterruptedError("the run was stopped before the request was sent")


class OwnSending(Sending):
    """Sends rows with a client of this process.

    Args:
        client: The client.
        enrol: Lets a session live in the emulator, if one stands in for the service.
        others: See `Sending`.
    """

    def __init__(self, client: KodmobiClient, enrol: Callable[[str], None], *others: Any) -> None:
        super().__init__(*others)
        self._client = client
        self._enrol = enrol
        self._sends = JournaledSends(self._journal, client.remaining)

    async def send(self, request: SendRequest) -> SendResult:
        """Send a row, unless its channel is blocked."""
        entry = entry_of(cast("Row", request))
        async with self._sends.alone(entry):
            await self._await_turn()
            self._enrol(entry.session_id)
            self._tally.in_flight += 1
            try:
                send = functools.partial(self._client.send, entry.session_id, request.channel, max_wait=0.0)
                return await self._sends.send(entry, send)
            finally:
                self._tally.in_flight -= 1

    async def remaining(self, request: SendRequest) -> float:
        """Return what the client knows."""
        return await self._client.remaining(request.session_id, request.channel)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"worth_waiting": self._worth_waiting}

    def _worth_waiting(self, request: SendRequest, longest: float) -> float:
        """Return the wait, or less: none makes sense beyond the end of the session."""
        left = self._client.session_left(request.session_id)
        return longest if left is None else min(longest, left)


class FleetSending(Sending):
    """Has workers send rows; they are the ones to wait for cooldowns, and for limits of the account.

    Args:
        hand_over: Hands a row over, and returns its result.
        others: See `Sending`.
    """

    def __init__(self, hand_over: Callable[[Row], Awaitable[SendResult]], *others: Any) -> None:
        super().__init__(*others)
        self._hand_over = hand_over
        self._handed_over: set[int] = set()
        self._window = Limits().window

    async def send(self, request: SendRequest) -> SendResult:
        """Hand a row over, and wait for its result."""
        row = cast("Row", request)
        await self._await_turn()
        self._tally.in_flight += 1
        try:
            if self._journal is not None:
                await self._journal.intend(entry_of(row))
            self._handed_over.add(row.line)
            return await self._hand_over(row)
        finally:
            self._tally.in_flight -= 1

    async def remaining(self, request: SendRequest) -> float:
        """Return a window for a row that was handed over: a worker may have sent it."""
        return self._window if cast("Row", request).line in self._handed_over else 0.0

    @property
    def _settings(self) -> dict[str, Any]:
        return {"pauses": 0}

    def forget(self, row: Row) -> None:
        """Note that the outcome of a row is accounted for."""
        self._handed_over.discard(row.line)
