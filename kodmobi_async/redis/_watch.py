"""What a process knows of an account without asking: that it is open, and that it would hear of a change.

The invariant: **an account is taken for open only while its messages are received, and for `FRESH` seconds at most**
after the server has said so. A message, or the end of the subscription, ends that at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kodmobi_async.redis._connections import Connections
    from kodmobi_async.redis._subscription import Listener

FRESH: Final = 5.0
"""Seconds for which an account is taken for open, should its messages get lost without a sign."""

# Seconds between attempts to subscribe.
_INTERVAL: Final = 1.0


class Watch:
    """Listens for changes of an account, which are closures and new processes, on one event loop.

    Args:
        key: Of the account.
        connections: Where to listen.
    """

    def __init__(self, key: str, connections: Connections) -> None:
        self._key = key
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._tries_at = 0.0
        self._open_until = 0.0
        self.changes = 0
        """How often the server had to be asked again."""

    @property
    def is_open(self) -> bool:
        """Whether the account is certainly open."""
        if self._open_until == 0.0:
            return False
        loop = asyncio.get_running_loop()
        return loop is self._loop and loop.time() < self._open_until

    @property
    def mark(self) -> int | None:
        """The number of changes so far; ``None`` while they are not heard of."""
        return self.changes if self._listener is not None and self._listener.is_active else None

    def is_unchanged_since(self, mark: int | None) -> bool:
        """Whether what the server says to a question from then still holds."""
        return mark is not None and mark == self.mark

    async def listen(self) -> None:
        """Subscribe, unless that is done or was tried just now; this does not wait until messages are received."""
        now = self._loop.time()
        if self.mark is None and now >= self._tries_at:
            self._tries_at = now + _INTERVAL
            self._listener = await self._connections.subscription.watch(self._key, self.note_change)

    def note_change(self) -> None:
        """Have the server asked again, before anything more goes."""
        self.changes += 1
        self._open_until = 0.0

    def note_open(self, mark: int | None) -> None:
        """Note that the server has called the account open, to a question from then."""
        if self.is_unchanged_since(mark):
            self._open_until = self._loop.time() + FRESH
