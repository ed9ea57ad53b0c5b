"""The rows of an input, read along with what the journal knows of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async.cli._rows import BadRow, Row
from kodmobi_async.journal import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kodmobi_async.cli._rows import Input
    from kodmobi_async.journal import Entry, Journal

__all__ = ("Reader",)

_ROWS_A_TURN: Final = 500
"""Rows that are read in a row, before the event loop gets its turn."""


class Reader:
    """Reads the input, and the journal along with it.

    Args:
        source: The input.
        journal: Of this run and the earlier ones.
        retry_failed: Whether rows that got no code in an earlier run are to be sent again.
        retry_open: Whether rows with an intent and no outcome are: handed over again, they are not sent twice.
        on_bad: Called with each bad row.
        on_done: Called with each row that an earlier run is done with, and what the journal knows of it.
    """

    def __init__(
        self,
        source: Input,
        journal: Journal | None,
        *,
        retry_failed: bool,
        retry_open: bool,
        on_bad: Callable[[BadRow], None],
        on_done: Callable[[Row, Entry], None],
    ) -> None:
        self._rows = iter(source)
        self._retried = (
            State.LEFT,
            *((State.REFUSED, State.NOT_SENT, State.BLOCKED) if retry_failed else ()),
            *((State.INTENT,) if retry_open else ()),
        )
        self._on_bad = on_bad
        self._on_done = on_done
        self._taken: Row | BadRow | None = None
        self._cursor = None if journal is None else journal.cursor()

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
                self._on_bad(row)
                continue
            known = None if self._cursor is None else await self._cursor.find(row.line)
            self._taken = None
            if known is None:
                yield row
            elif known.state in self._retried:
                yield attrs.evolve(row, tries=known.tries + (known.state is not State.INTENT))
            else:
                self._on_done(row, known)
