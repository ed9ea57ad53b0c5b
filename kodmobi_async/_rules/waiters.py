"""The queue of callers that wait for one slot.

First come, first served. The queue has one timer, for the moment at which its slot changes next; each waiter with a
deadline has a timer of its own. Who gets the slot, and when, the tracker decides.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._rules.cooldown import Reservation


class Waiter:
    """A caller in the queue.

    Attributes:
        lease: Of the reservation that it asks for, in seconds.
        deadline: When it gives up.
        granted: The reservation, or ``None`` if the slot is not free before the deadline.
    """

    __slots__ = ("deadline", "granted", "lease")

    def __init__(self, lease: float, deadline: float) -> None:
        self.lease = lease
        self.deadline = deadline
        self.granted: asyncio.Future[Reservation | None] = asyncio.get_running_loop().create_future()

    def refuse(self) -> None:
        """End the wait without a reservation, unless it has ended."""
        if not self.granted.done():
            self.granted.set_result(None)


class WaiterQueue:
    """The waiters of one slot, in order.

    Args:
        key: Of the slot.
        on_timer: Called with the queue when its timer fires.
    """

    __slots__ = ("_on_timer", "_timer", "_waiters", "key")

    def __init__(self, key: str, on_timer: Callable[[WaiterQueue], None]) -> None:
        self.key = key
        self._on_timer = on_timer
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def has_timer(self) -> bool:
        """Whether the timer is set."""
        return self._timer is not None

    def append(self, waiter: Waiter) -> None:
        """Add a waiter."""
        self._waiters[waiter] = None

    def pop(self) -> Waiter:
        """Remove the first waiter, and return it."""
        return self._waiters.popitem(last=False)[0]

    def discard(self, waiter: Waiter) -> None:
        """Remove a waiter, if it still is in the queue."""
        self._waiters.pop(waiter, None)

    def refuse_before(self, moment: float) -> None:
        """Refuse the waiters whose deadline is before ``moment``."""
        for waiter in self._waiters:
            if waiter.deadline < moment:
                waiter.refuse()

    def set_timer(self, when: float) -> None:
        """Let the timer fire at ``when``, by the loop's own time, instead of when it would have fired."""
        self.cancel_timer()
        # In its debug mode, asyncio logs what it calls with its arguments: the key, which names a session, is none.
        self._timer = asyncio.get_running_loop().call_at(when, self._fire)

    def cancel_timer(self) -> None:
        """Let the timer not fire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._on_timer(self)
