"""Who may send on a channel of a session, and when.

The invariant: **for every (session, channel) at most one send is in flight, and none begins before the window of the
last one has ended.** Checking and reserving are one step, with nothing awaited in between, so that two callers cannot
both pass, however close they are.

A pair's *slot* is free, reserved, or blocked. ``acquire`` reserves a free slot and returns a `Reservation`, the only
thing that can change the slot from then on: ``start`` blocks it for a window, ``release`` frees it. A reservation that
no longer holds the slot changes nothing. It has a *lease*: a holder that dies without settling it blocks its pair for
no longer than that. ``observe`` notes a window that the service reports: it never shortens another window, and leaves a
reservation as it is.

Callers that are willing to wait form a queue per pair. The slot is granted to the first of them, in order, one at a
time. A caller whose deadline is before the end of the window is refused at once.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Protocol

from kodmobi_async._rules.clock import LoopClock
from kodmobi_async._rules.deadlines import Deadlines
from kodmobi_async._rules.waiters import Waiter, WaiterQueue
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import CooldownError
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from kodmobi_async._values.models import WindowScope


class Reservation:
    """Proof of holding a slot. Opaque: hand it back to the tracker that returned it.

    Attributes:
        window: Who knows of the slot, as far as the tracker can tell by now.
        degraded: Why a shared tracker decided without its server, if it did; a few words.
    """

    __slots__ = ("key", "until")

    window: WindowScope = "local"
    degraded: str | None = None

    def __init__(self, key: str, until: float) -> None:
        self.key: str = key
        self.until: float = until


class CooldownTracker(Protocol):
    """What the client needs of a tracker; pass one of your own as ``cooldowns=``.

    Session ids come in canonical spelling. All times are in seconds.
    """

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` for its turn.

        Args:
            session_id: The session.
            channel: The channel.
            lease: How long the reservation lasts if nobody settles it.
            max_wait: 0.0 = do not wait, ``math.inf`` = as long as it takes.

        Raises:
            CooldownError: The slot is not free within ``max_wait``. Raised as soon as that is certain.
        """
        ...

    async def start(self, reservation: Reservation, window: float) -> None:
        """Block the slot for ``window`` from now. Takes effect even if the caller is cancelled meanwhile."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Free the slot: nothing was sent. Takes effect even if the caller is cancelled meanwhile."""
        ...

    async def observe(self, session_id: str, channel: str, seconds: float) -> None:
        """Note that the service reports the channel as blocked for another ``seconds``.

        This only ever lengthens a window. A send in flight keeps its reservation; a window that is observed meanwhile
        holds when the reservation ends, however it ends.
        """
        ...

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now."""
        ...


class MemoryCooldownTracker:
    """Slots of this process, on the running loop's clock.

    It belongs to the loop that uses it; when that loop has been closed, the next one takes over with all windows
    intact. Share one among several clients of a loop, and they share their windows.

    Args:
        window: The ``retry_after`` of a caller that is refused while another send is in flight, in seconds. The block
            itself is as long as ``start`` says.
    """

    def __init__(self, *, window: float = WINDOW) -> None:
        self._window = window
        self._reserved: dict[str, Reservation] = {}
        self._blocked = Deadlines()
        self._queues: dict[str, WaiterQueue] = {}
        self._clock = LoopClock(on_move=self._queues.clear)  # the waiters are gone with their loop

    def __len__(self) -> int:
        """Return how many slots are kept: those reserved, those blocked, and a few about to be forgotten."""
        return len(self._reserved) + len(self._blocked)

    def __repr__(self) -> str:
        return f"<MemoryCooldownTracker slots={len(self)}>"

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` seconds for its turn.

        Raises:
            CooldownError: The slot is not free within ``max_wait``.
            WrongLoopError: The tracker is in use on another loop.
        """
        clock, loop = self._clock, get_running_loop()  # `LoopClock.now` without the call: this is the hot path
        now = clock.latest = loop.time() + clock.offset if loop is clock.loop else clock.now()
        key = _key(session_id, channel)
        if key not in self._reserved and key not in self._queues:  # as nearly always
            end = self._blocked.end(key)
            if end is None or end <= now:
                reservation = self._reserved[key] = Reservation(key, now + lease)
                return reservation
            if max_wait <= 0:
                raise _refusal(session_id, channel, end - now)
        if key in self._queues and self._left(key, now) <= 0:
            self._advance(key, now)  # a window that ends this instant: those who came before go first
        left = self._left(key, now)
        if left <= 0:
            return self._reserve(key, now + lease)
        # A send in flight may be released at any moment, so it is worth waiting for; a window lasts to its end.
        if max_wait <= 0 or max_wait < self._blocked.left(key, now):
            raise _refusal(session_id, channel, self._estimate(key, now))
        return await self._wait(key, session_id, channel, now=now, lease=lease, max_wait=max_wait)

    async def start(self, reservation: Reservation, window: float) -> None:
        """Block the slot for ``window`` seconds from now."""
        clock, loop = self._clock, get_running_loop()  # as in `acquire`
        now = clock.latest = loop.time() + clock.offset if loop is clock.loop else clock.now()
        key = reservation.key
        holder = self._reserved.pop(key, None)
        if holder is not None and holder is not reservation and holder.until > now:
            self._reserved[key] = holder  # the lease ran out, and another caller holds the slot by now
            return
        ends = now + window
        self._blocked.extend(key, ends, now)
        if key in self._queues:
            self._queues[key].refuse_before(ends)
            self._advance(key, now)

    async def release(self, reservation: Reservation) -> None:
        """Free the slot."""
        key = reservation.key
        if self._reserved.get(key) is reservation:
            del self._reserved[key]
            self._advance(key, self._clock.now())

    async def observe(self, session_id: str, channel: str, seconds: float) -> None:
        """Lengthen the window to ``seconds`` from now, as the service reports it; never shorten it."""
        now, key = self._clock.now(), _key(session_id, channel)
        if seconds <= self._blocked.left(key, now):
            return
        self._blocked.extend(key, now + seconds, now)
        if key in self._queues:
            self._queues[key].refuse_before(now + seconds)
            self._advance(key, now)

    def blocked_for(self, session_id: str, channel: str) -> float:
        """Return the seconds until the window ends, whether or not a send is in flight; 0.0 = no window."""
        return self._blocked.left(_key(session_id, channel), self._clock.now())

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now. A send in flight counts as a full window."""
        return self._estimate(_key(session_id, channel), self._clock.now())

    def _left(self, key: str, now: float) -> float:
        """Return the seconds for which the slot is certainly taken."""
        holder = self._reserved.get(key)
        if holder is not None:
            if holder.until > now:
                return holder.until - now
            del self._reserved[key]
        return self._blocked.left(key, now)

    def _estimate(self, key: str, now: float) -> float:
        """Return what a refused caller should wait: a send in flight most likely ends in a full window."""
        left = self._left(key, now)
        return max(self._window, self._blocked.left(key, now)) if key in self._reserved else left

    def _reserve(self, key: str, until: float) -> Reservation:
        reservation = self._reserved[key] = Reservation(key, until)
        return reservation

    async def _wait(
        self, key: str, session_id: str, channel: str, *, now: float, lease: float, max_wait: float
    ) -> Reservation:
        queue = self._queues.setdefault(key, WaiterQueue(key, self._on_timer))
        waiter = Waiter(lease, now + max_wait)
        queue.append(waiter)
        if not queue.has_timer:
            queue.set_timer(self._clock.loop_time(now + self._left(key, now)))
        expiry: asyncio.TimerHandle | None = None
        if max_wait != math.inf:
            when = self._clock.loop_time(waiter.deadline)
            expiry = get_running_loop().call_at(when, self._on_deadline, queue, waiter)
        try:
            reservation = await waiter.granted
        except asyncio.CancelledError:
            if not waiter.granted.cancelled() and (reservation := waiter.granted.result()):
                await self.release(reservation)  # granted in the very turn in which the caller was cancelled
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
            queue.discard(waiter)
            if not queue:
                self._drop(queue)
        if reservation is None:
            raise _refusal(session_id, channel, self._estimate(key, self._clock.now()))
        return reservation

    def _advance(self, key: str, now: float) -> None:
        """Grant a free slot to the first waiter, and set the timer for the next one."""
        queue = self._queues.get(key)
        if queue is None:
            return
        while queue and self._left(key, now) <= 0:
            waiter = queue.pop()
            if not waiter.granted.done():  # done: refused, or cancelled a moment ago
                waiter.granted.set_result(self._reserve(key, now + waiter.lease))
        if queue:
            queue.set_timer(self._clock.loop_time(now + self._left(key, now)))
        else:
            self._drop(queue)

    def _on_timer(self, queue: WaiterQueue) -> None:
        self._advance(queue.key, self._clock.now())

    def _on_deadline(self, queue: WaiterQueue, waiter: Waiter) -> None:
        """Refuse a waiter, unless the slot becomes free in this very moment."""
        now = self._clock.now()
        if self._left(queue.key, now) <= 0:
            self._advance(queue.key, now)
        waiter.refuse()

    def _drop(self, queue: WaiterQueue) -> None:
        queue.cancel_timer()
        if self._queues.get(queue.key) is queue:
            del self._queues[queue.key]


def _key(session_id: str, channel: str) -> str:
    # A canonical session id has no colon, so no two pairs share a key. Channels that differ only in case share one: a
    # service that reads them alike must not be sent to twice.
    return f"{session_id}:{channel.lower()}"


def _refusal(session_id: str, channel: str, retry_after: float) -> CooldownError:
    return CooldownError(
        # joined to it, since an enumeration's member is slow to format: this is most of what a blocked send costs
        channel + f" was sent to too recently for session {shorten(session_id)};"
        f" the next send may go in {retry_after:.1f} s",
        retry_after=retry_after,
        session_id=session_id,
        channel=channel,
    )
