"""Going on where an earlier run has ended: what it left open is asked about, what it did is not done again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import (
    AuthenticationError,
    BalanceError,
    BulkStoppedError,
    ClientClosedError,
    CooldownError,
    KodmobiError,
    NotFoundError,
    SessionExpiredError,
)
from kodmobi_async.cli._journal import Entry, Journal, State
from kodmobi_async.cli._rows import BadRow, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async.cli._rows import Input

__all__ = ("OF_THE_ACCOUNT", "Reader", "resolve")

OF_THE_ACCOUNT: Final = (AuthenticationError, BalanceError, ClientClosedError)
"""What has nothing to do with the row."""

_ROWS_A_TURN: Final = 500
"""Rows that are read in a row, before the event loop gets its turn."""


class Reader:
    """Reads the input, and the journal along with it.

    Args:
        source: The input.
        journal: Of this run and the earlier ones.
        retry_failed: Whether rows that got no code in an earlier run are to be sent again.
        retry_open: Whether rows with an intent and no outcome are: handed over again, they are not sent twice.
        tell_bad: Called with each bad row.
        tell_done: Called with each row that an earlier run is done with, and what the journal knows of it.
    """

    def __init__(
        self,
        source: Input,
        journal: Journal | None,
        *,
        retry_failed: bool,
        retry_open: bool,
        tell_bad: Callable[[BadRow], None],
        tell_done: Callable[[Row, Entry], None],
    ) -> None:
        self._rows = iter(source)
        self._journal = journal
        self._retried = (
            State.LEFT,
            *((State.REFUSED, State.NOT_SENT, State.BLOCKED) if retry_failed else ()),
            *((State.INTENT,) if retry_open else ()),
        )
        self._tell_bad = tell_bad
        self._tell_done = tell_done
        self._taken: Row | BadRow | None = None
        self._known: deque[Entry] = deque()
        self._known_to = 0

    async def rows(self) -> AsyncGenerator[Row]:
        """Yield the rows that are to be sent; called again, go on with what was not yielded yet."""
        read = 0
        while True:
            # kept until it is accounted for: a reading that is cut off begins again with it
            row = self._taken = self._taken or next(self._rows, None)
            if row is None:
                return
            read += 1
            if read % _ROWS_A_TURN == 0:
                await asyncio.sleep(0)
            if isinstance(row, BadRow):
                self._taken = None
                self._tell_bad(row)
                continue
            known = None if self._journal is None else await self._look_up(self._journal, row.line)
            self._taken = None
            if known is None:
                yield row
            elif known.state in self._retried:
                yield attrs.evolve(row, tries=known.tries + (known.state is not State.INTENT))
            else:
                self._tell_done(row, known)

    async def _look_up(self, journal: Journal, line: int) -> Entry | None:
        known = self._known
        while True:
            while known and known[0].line < line:  # it is found bad by now, perhaps, and so was not looked up
                known.popleft()
            if known or self._known_to >= journal.last_line:
                break
            known.extend(await journal.page(self._known_to))
            self._known_to = known[-1].line
        return known.popleft() if known and known[0].line == line else None


async def resolve(
    client: KodmobiClient,
    journal: Journal,
    cooldowns: CooldownTracker,
    *,
    concurrency: int,
    stopping: Callable[[], bool],
) -> None:
    """Ask about every intent without an outcome, before anything is sent, and write what is known then.

    Their channels are blocked in ``cooldowns``: a request of the run that was killed may still be under way.

    Raises:
        BulkStoppedError: The account is at fault.
        JournalError: The journal cannot be read or written.
    """
    intents = deque(await journal.intents())
    faults: list[KodmobiError] = []

    async def work() -> None:
        while intents and not faults and not stopping():
            try:
                await _ask(client, journal, cooldowns, intents.popleft())
            except OF_THE_ACCOUNT as error:
                faults.append(error)

    await asyncio.gather(*(work() for _ in range(min(len(intents), concurrency))))
    if faults:
        raise BulkStoppedError("stopped before anything was sent", done=0, error=faults[0])


async def _ask(client: KodmobiClient, journal: Journal, cooldowns: CooldownTracker, intent: Entry) -> None:
    blocked_for, is_answered = 0.0, True
    try:
        channels = await client.channels(intent.session_id)
        same = (each for each in channels if each.type.lower() == intent.channel.lower())
        blocked_for = max((each.timeout for each in same), default=0.0)
    except (NotFoundError, SessionExpiredError):
        pass  # it cannot be asked about any more
    except OF_THE_ACCOUNT:
        raise
    except KodmobiError:
        is_answered = False  # the next run may ask again
    with contextlib.suppress(CooldownError):  # blocked already, by another row of the same channel
        slot = await cooldowns.acquire(intent.session_id, intent.channel, lease=WINDOW)
        await cooldowns.start(slot, blocked_for or WINDOW)
    if blocked_for > 0:
        await journal.conclude(intent, State.SENT, json.dumps({"confirmed": True}))
    elif is_answered:
        message = "an earlier run ended before it knew what became of the row; asking did not tell"
        await journal.conclude(intent, State.UNKNOWN, json.dumps({"error": {"message": message}}))
