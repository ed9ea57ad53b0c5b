"""Who may send on a channel of a session, and when.

The invariant: **for every (session, channel) at most one send is under way, and none begins before the window of the
last one has ended.** Checking and reserving are one step, with nothing awaited in between, so that two callers cannot
both pass, however close they are.

A pair's *slot* is free, reserved, or blocked. ``acquire`` reserves a free slot and hands out a `Reservation`, the only
thing that can change the slot from then on: ``start`` blocks it for a window, ``release`` frees it. What does not hold
the slot any more changes nothing. A reservation carries a *lease*: a holder that dies without a word blocks its pair
for no longer than that.

Callers that are willing to wait queue up per pair. The slot is handed to the first of them, in order, one at a time;
the others sleep on. A caller whose bound cannot be met is told so at once instead of sleeping towards it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import os
import time
from asyncio import get_running_loop
from collections import OrderedDict
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol

from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import CooldownError, WrongLoopError
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._values.models import WindowScope


class LoopClock:
    """The time of the running loop, carried on when that loop has been closed and another one goes on.

    It belongs to one loop of one process at a time, and never goes back.

    Args:
        on_move: Called when it begins to live on a loop.
    """

    __slots__ = ("_lead", "_on_move", "_process", "latest", "loop", "offset")

    def __init__(self, on_move: Callable[[], None] | None = None) -> None:
        self._on_move = on_move
        self.loop: asyncio.AbstractEventLoop | None = None
        self.offset = 0.0
        """Seconds that this clock is ahead of the loop's."""
        self._process = 0
        self.latest = 0.0
        """The latest time that it has told."""
        self._lead = 0.0  # of the loop's clock over the system's

    def now(self) -> float:
        """Return the time, in seconds.

        Raises:
            WrongLoopError: The loop that it belongs to is still open, and not the one that runs.
        """
        loop = get_running_loop()
        if loop is not self.loop:
            self._move_to(loop)
        self.latest = now = loop.time() + self.offset
        return now

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy that a fork has made; the loop is the parent's then, and not in use here."""
        return self._process != os.getpid()

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is not None and not self.loop.is_closed() and not self.is_forked:
            raise WrongLoopError("this belongs to another event loop, which is still open")
        # A closed loop need not know the time any more, so both are compared with the system's clock.
        lead = loop.time() - time.monotonic()
        if self.loop is not None:
            self.offset = max(self.offset + self._lead - lead, self.latest - loop.time())
        self.loop, self._process, self._lead = loop, os.getpid(), lead
        if self._on_move is not None:
            self._on_move()


class Reservation:
    """Proof of holding a slot. Opaque: hand it back to the tracker that gave it.

    Attributes:
        window: Who knows of the slot, as the tracker sees it by now.
        degraded: Why a tracker that is shared had to do without the others, if it had to; a few words.
    """

    __slots__ = ("key", "until")

    window: WindowScope = "local"
    degraded: str | None = None

    def __init__(self, key: str, until: float) -> None:
        self.key = key
        self.until = until


class CooldownTracker(Protocol):
    """What the client asks of a tracker; give it another as ``cooldowns=``.

    Session ids come in canonical spelling. All times are in seconds.
    """

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` for its turn.

        Args:
            session_id: The session.
            channel: The channel.
            lease: How long the reservation lasts if nothing more is heard of it.
            max_wait: 0.0 = do not wait, ``math.inf`` = as long as it takes.

        Raises:
            CooldownError: The slot is not to be had within ``max_wait``. Raised at once when that is certain.
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
        takes effect when the reservation ends, however it ends.
        """
        ...

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now."""
        ...


class Deadlines:
    """Keys, and the moment when each ends; what has ended is forgotten without a task that sweeps.

    Keys are filed under the second in which they end. Every ``extend`` also drops a few that are due, at least as fast
    as new ones come, so that the size follows what is alive. The time is passed in.
    """

    __slots__ = ("_ends", "_files", "_seconds", "end")

    # How many due keys one new end pays for.
    _TOLL: Final = 8

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self.end = self._ends.get
        """Return when a key ends or has ended; ``None`` if it was never heard of, or is forgotten."""
        self._files: dict[int, list[str]] = {}
        self._seconds: list[int] = []  # a heap of the files' names

    def __len__(self) -> int:
        return len(self._ends)

    def extend(self, key: str, end: float, now: float) -> None:
        """Let ``key`` end at ``end``, unless that is over, or it ends later anyway."""
        ends = self._ends
        if end <= ends.get(key, now):
            return
        ends[key] = end
        second = ceil(end)
        file = self._files.get(second)
        if file is None:
            self._files[second] = [key]
            heapq.heappush(self._seconds, second)
        else:
            file.append(key)
        if self._seconds[0] <= now:
            self._forget(now)

    def left(self, key: str, now: float) -> float:
        """Return the seconds until ``key`` ends; 0.0 if it has ended or was never heard of."""
        end = self._ends.get(key)
        return 0.0 if end is None or end <= now else end - now

    def _forget(self, now: float) -> None:
        ends, file = self._ends, self._files[self._seconds[0]]
        for _ in range(self._TOLL):
            key = file.pop()
            end = ends.pop(key, now)
            if end > now:
                ends[key] = end  # it was given another one since it was filed here
            if not file:
                del self._files[heapq.heappop(self._seconds)]
                if not self._seconds or self._seconds[0] > now:
                    return
                file = self._files[self._seconds[0]]


class _Waiter:
    """A caller in line; what it waits for is the slot, or ``None`` when its bound cannot be met any more."""

    __slots__ = ("deadline", "granted", "lease")

    def __init__(self, lease: float, deadline: float, granted: asyncio.Future[Reservation | None]) -> None:
        self.lease = lease
        self.deadline = deadline
        self.granted = granted


class _Line:
    """The callers that wait for one slot, first come first, and the timer that looks after them."""

    __slots__ = ("key", "timer", "waiters")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self.timer: asyncio.TimerHandle | None = None


class MemoryCooldownTracker:
    """Slots of this process, on the running loop's clock.

    It belongs to the loop that uses it; when that loop has been closed, the next one takes over with all windows
    intact. Share one among several clients of a loop, and they share their windows.

    Args:
        window: What a caller is told to wait for while another's send is under way, in seconds. The block itself is as
            long as ``start`` is told.
    """

    def __init__(self, *, window: float = WINDOW) -> None:
        self._window = window
        self._reserved: dict[str, Reservation] = {}
        self._blocked = Deadlines()
        self._lines: dict[str, _Line] = {}
        self._clock = LoopClock(on_move=self._lines.clear)  # those who waited there are gone with their loop

    def __len__(self) -> int:
        """Return how many slots are kept: those reserved, those blocked, and a few about to be forgotten."""
        return len(self._reserved) + len(self._blocked)

    def __repr__(self) -> str:
        return f"<MemoryCooldownTracker slots={len(self)}>"

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` seconds for its turn.

        Raises:
            CooldownError: The slot is not to be had within ``max_wait``.
            WrongLoopError: The tracker is in use on another loop.
        """
        clock, loop = self._clock, get_running_loop()  # `LoopClock.now` without the call: this is the hot path
        now = clock.latest = loop.time() + clock.offset if loop is clock.loop else clock.now()
        key = _key(session_id, channel)
        if key not in self._reserved and key not in self._lines:  # as nearly always
            end = self._blocked.end(key)
            if end is None or end <= now:
                reservation = self._reserved[key] = Reservation(key, now + lease)
                return reservation
            if max_wait <= 0:
                raise _too_soon(session_id, channel, end - now)
        if key in self._lines and self._left(key, now) <= 0:
            self._advance(key, now)  # a block that ends this instant belongs to those who came before
        left = self._left(key, now)
        if left <= 0:
            return self._reserve(key, now + lease)
        # A send under way may come to nothing any moment, so it is worth waiting for; a block lasts to its end.
        if max_wait <= 0 or max_wait < self._blocked.left(key, now):
            raise _too_soon(session_id, channel, self._estimate(key, now))
        return await self._wait_in_line(key, session_id, channel, now=now, lease=lease, max_wait=max_wait)

    async def start(self, reservation: Reservation, window: float) -> None:
        """Block the slot for ``window`` seconds from now."""
        clock, loop = self._clock, get_running_loop()  # as in `acquire`
        now = clock.latest = loop.time() + clock.offset if loop is clock.loop else clock.now()
        key = reservation.key
        holder = self._reserved.pop(key, None)
        if holder is not None and holder is not reservation and holder.until > now:
            self._reserved[key] = holder  # the lease ran out, and another holds the slot: its own settling counts
            return
        ends = now + window
        self._blocked.extend(key, ends, now)
        if key in self._lines:
            self._turn_away(self._lines[key], ends)
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
        if key in self._lines:
            self._turn_away(self._lines[key], now + seconds)
            self._advance(key, now)

    def blocked_for(self, session_id: str, channel: str) -> float:
        """Return the seconds until the window ends, whether or not a send is in flight; 0.0 = no window."""
        return self._blocked.left(_key(session_id, channel), self._clock.now())

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now. A send in flight counts as a full window."""
        return self._estimate(_key(session_id, channel), self._clock.now())

    def _left(self, key: str, now: float) -> float:
        """Return the seconds for which the slot is surely taken."""
        holder = self._reserved.get(key)
        if holder is not None:
            if holder.until > now:
                return holder.until - now
            del self._reserved[key]
        return self._blocked.left(key, now)

    def _estimate(self, key: str, now: float) -> float:
        """Return what a caller can be told: a send under way most likely ends in a full window."""
        left = self._left(key, now)
        return max(self._window, self._blocked.left(key, now)) if key in self._reserved else left

    def _reserve(self, key: str, until: float) -> Reservation:
        reservation = self._reserved[key] = Reservation(key, until)
        return reservation

    async def _wait_in_line(
        self, key: str, session_id: str, channel: str, *, now: float, lease: float, max_wait: float
    ) -> Reservation:
        loop = get_running_loop()
        line = self._lines.setdefault(key, _Line(key))
        waiter = _Waiter(lease, now + max_wait, loop.create_future())
        line.waiters[waiter] = None
        if line.timer is None:
            self._set_timer(line, now + self._left(key, now))
        alarm = None if max_wait == math.inf else loop.call_at(self._when(waiter.deadline), self._ring, line, waiter)
        try:
            reservation = await waiter.granted
        except asyncio.CancelledError:
            if not waiter.granted.cancelled() and (reservation := waiter.granted.result()):
                await self.release(reservation)  # granted in the very turn in which the caller went away
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            line.waiters.pop(waiter, None)
            if not line.waiters:
                self._dissolve(line)
        if reservation is None:
            raise _too_soon(session_id, channel, self._estimate(key, self._clock.now()))
        return reservation

    def _advance(self, key: str, now: float) -> None:
        """Hand a free slot to the first in line, and see to it that the next one is thought of in time."""
        line = self._lines.get(key)
        if line is None:
            return
        while line.waiters and self._left(key, now) <= 0:
            waiter, _ = line.waiters.popitem(last=False)
            if not waiter.granted.done():  # done: cancelled a moment ago
                waiter.granted.set_result(self._reserve(key, now + waiter.lease))
        if line.waiters:
            self._set_timer(line, now + self._left(key, now))
        else:
            self._dissolve(line)

    def _turn_away(self, line: _Line, block_ends: float) -> None:
        """End the waits that a new block has made hopeless."""
        for waiter in line.waiters:
            if waiter.deadline < block_ends and not waiter.granted.done():
                waiter.granted.set_result(None)

    def _set_timer(self, line: _Line, moment: float) -> None:
        if line.timer is not None:
            line.timer.cancel()
        # the line, not the key: in its debug mode, asyncio logs what it calls, and the key names a session
        line.timer = get_running_loop().call_at(self._when(moment), self._tick, line)

    def _tick(self, line: _Line) -> None:
        line.timer = None
        self._advance(line.key, self._clock.now())

    def _ring(self, line: _Line, waiter: _Waiter) -> None:
        """End a wait at its bound, unless the slot came free in this very moment."""
        now = self._clock.now()
        if self._left(line.key, now) <= 0:
            self._advance(line.key, now)
        if not waiter.granted.done():
            waiter.granted.set_result(None)

    def _dissolve(self, line: _Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
        if self._lines.get(line.key) is line:
            del self._lines[line.key]

    def _when(self, moment: float) -> float:
        """Return the tracker's time as the running loop's, rounded so that a timer never rings before its moment."""
        when = moment - self._clock.offset
        return when if when + self._clock.offset >= moment else math.nextafter(when, math.inf)


def _key(session_id: str, channel: str) -> str:
    # A canonical session id has no colon, so no two pairs share a key. Channels that differ only in case share one: a
    # service that reads them alike must not be sent to twice.
    return f"{session_id}:{channel.lower()}"


def _too_soon(session_id: str, channel: str, retry_after: float) -> CooldownError:
    return CooldownError(
        # joined to it, since an enumeration's member is slow to format: this is most of what a blocked send costs
        channel + f" was sent to too recently for session {shorten(session_id)};"
        f" the next send may go in {retry_after:.1f} s",
        retry_after=retry_after,
        session_id=session_id,
        channel=channel,
    )
