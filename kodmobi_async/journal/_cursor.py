"""Finding the entries of a journal while an input is read along with it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kodmobi_async.journal._entries import Entry
    from kodmobi_async.journal._journal import Journal


class Cursor:
    """Finds the entries of a journal while an input is read along with it.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: deque[Entry] = deque()
        self._known_to = 0
        self._last = journal.last_number  # what is written from now on is this run's own

    async def find(self, number: int) -> Entry | None:
        """Return what is known of a request; numbers have to grow.

        Raises:
            JournalError: The journal cannot be read.
        """
        known = self._known
        while True:
            while known and known[0].number < number:  # it was passed over this time
                known.popleft()
            if known or self._known_to >= self._last:
                break
            known.extend(await self._journal.page(self._known_to))
            self._known_to = known[-1].number
        return known.popleft() if known and known[0].number == number else None
