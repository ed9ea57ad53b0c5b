"""What happens in the emulator, for those who watch it: numbered logs, and a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ("Event", "Events", "Log", "LostEventsError", "Subscription")

T = TypeVar("T")

# Events that wait for a subscriber who does not keep up.
_BACKLOG: Final = 1_000


class LostEventsError(Exception):
    """The subscriber was too slow, and has missed events."""


@attrs.frozen(eq=False)
class Event:
    """Something that happened: a ``delivery``, a ``request``, a ``session``, ``faults``, ``clock`` or ``reset``."""

    kind: str
    subject: object


@attrs.define(eq=False)
class Subscription:
    """The events since the subscription began."""

    _queue: asyncio.Queue[Event] = attrs.field(init=False)
    _lost: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._queue = asyncio.Queue(_BACKLOG)

    def put(self, event: Event) -> None:
        """Add an event to those that wait. Once one is lost, so are all that follow."""
        self._lost = self._lost or self._queue.full()
        if not self._lost:
            self._queue.put_nowait(event)

    async def next(self) -> Event:
        """Wait for the next event.

        Raises:
            LostEventsError: Events were lost after those that this subscription has returned.
        """
        if self._lost and self._queue.empty():
            raise LostEventsError
        return await self._queue.get()


@attrs.define(eq=False)
class Events:
    """Passes events to every subscriber."""

    _subscriptions: list[Subscription] = attrs.field(init=False, factory=list[Subscription])
    _waiters: set[asyncio.Future[None]] = attrs.field(init=False, factory=set[asyncio.Future[None]])

    async def change(self) -> None:
        """Wait for the next event."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def publish(self, kind: str, subject: object = None) -> None:
        """Pass an event on."""
        for waiter in self._waiters:
            waiter.set_result(None)
        self._waiters.clear()
        if self._subscriptions:
            event = Event(kind, subject)
            for subscription in self._subscriptions:
                subscription.put(event)

    @contextlib.contextmanager
    def subscribe(self) -> Generator[Subscription]:
        """Collect the events while the context lasts."""
        subscription = Subscription()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)


@attrs.define(eq=False)
class Log(Generic[T]):
    """The newest items, up to ``keep``, each with a number of its own that is never used again.

    Attributes:
        total: How many items there have been; the number of the newest.
    """

    _kind: str
    _settings: Settings
    _events: Events
    total: int = attrs.field(init=False, default=0)
    _items: deque[T] = attrs.field(init=False, factory=deque[T])

    def append(self, item: T) -> None:
        """Add an item, and publish it."""
        self._items.append(item)
        self.total += 1
        while len(self._items) > self._settings.keep:
            self._items.popleft()
        self._events.publish(self._kind, (self.total, item))

    def clear(self) -> None:
        """Drop every item."""
        self._items.clear()

    def newest(self, after: int = 0) -> Iterator[tuple[int, T]]:
        """Yield each item whose number is greater than ``after``, with its number, the newest first."""
        return zip(range(self.total, after, -1), reversed(self._items), strict=False)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
