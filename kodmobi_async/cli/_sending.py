"""How the rows of a bulk run are sent by this process.

A row goes: its turn by ``--rate`` → its intent on the disk, if there is a journal → the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Protocol, cast

from kodmobi_async import SendInterruptedError, SendMany
from kodmobi_async.journal import Entry, JournaledSends

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from kodmobi_async import KodmobiClient, SendOutcome, SendRequest, SendResult
    from kodmobi_async.cli._bulk_options import Options
    from kodmobi_async.cli._progress import Tally
    from kodmobi_async.cli._rows import Row
    from kodmobi_async.journal import Journal

__all__ = ("Outcomes", "OwnSending", "Turns", "entry_of")


def entry_of(row: Row) -> Entry:
    """Return a row as the journal has it."""
    return Entry(row.line, str(row.session_id), str.__str__(row.channel), row.tries)


class Outcomes(Protocol):
    """The outcomes of many rows, as they finish: what `SendMany` is, and what a fleet has as well."""

    def __aiter__(self) -> AsyncIterator[SendOutcome]:
        """Return what yields them.

        Raises:
            BulkStoppedError: Something is wrong with the account.
        """
        ...

    @property
    def paused_for(self) -> float:
        """Seconds for which the run pauses for a limit of the account."""
        ...

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        """The outcomes that were not yielded."""
        ...

    def stop(self) -> None:
        """Begin nothing more."""
        ...

    async def aclose(self) -> None:
        """Come to an end."""
        ...


class Turns:
    """Gives each row its turn, evenly spaced; it is not part of the time that a send may take.

    Args:
        rate: Rows a second; ``None`` = as they come.
        stopping: Set when nothing more is to begin.
    """

    def __init__(self, rate: float | None, stopping: asyncio.Event) -> None:
        self._spacing = 0.0 if rate is None else 1.0 / rate
        self._stopping = stopping
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for the next turn, or for the end of the run."""
        if self._spacing:
            now = asyncio.get_running_loop().time()
            turn = max(now, self._next)
            self._next = turn + self._spacing
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(turn):
                    await self._stopping.wait()


class OwnSending:
    """Sends rows with a client of this process.

    Args:
        client: The client.
        enrol: Lets a session live in the emulator, if one stands in for the service.
        journal: Of the run, if one is kept.
        tally: Is told what is in flight.
        stopping: Set when nothing more is to begin.
        rate: Rows a second; ``None`` = as they come.
    """

    def __init__(
        self,
        client: KodmobiClient,
        enrol: Callable[[str], None],
        *,
        journal: Journal | None,
        tally: Tally,
        stopping: asyncio.Event,
        rate: float | None,
    ) -> None:
        self._client = client
        self._enrol = enrol
        self._sends = JournaledSends(journal, client.remaining)
        self._tally = tally
        self._stopping = stopping
        self._turns = None if rate is None else Turns(rate, stopping)

    def many(self, rows: AsyncIterable[Row], options: Options) -> SendMany:
        """Return what sends many rows."""
        return SendMany(
            rows,
            self._send,
            remaining=self._remaining,
            worth_waiting=self._worth_waiting,
            concurrency=options.concurrency,
            max_wait=options.max_wait,
            grace=0.0,  # that is the second interrupt; the first one stops it
            on_stop=self._stopping.set,
        )

    async def _send(self, request: SendRequest) -> SendResult:
        """Send a row, unless its channel is blocked."""
        entry = entry_of(cast("Row", request))
        async with self._sends.alone(entry):
            if self._turns is not None:
                await self._turns.wait()
                if self._stopping.is_set():
                    raise SendInterruptedError("the run was stopped before the request was sent")
            self._enrol(entry.session_id)
            self._tally.in_flight += 1
            try:
                send = functools.partial(self._client.send, entry.session_id, request.channel, max_wait=0.0)
                return await self._sends.send(entry, send)
            finally:
                self._tally.in_flight -= 1

    async def _remaining(self, request: SendRequest) -> float:
        """Return what the client knows."""
        return await self._client.remaining(request.session_id, request.channel)

    def _worth_waiting(self, request: SendRequest, longest: float) -> float:
        """Return the wait, or less: none makes sense beyond the end of the session."""
        left = self._client.session_left(request.session_id)
        return longest if left is None else min(longest, left)
