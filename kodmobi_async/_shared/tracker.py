"""Slots that processes share: what a tracker does with its store.

The store decides who holds a slot, by its own clock. Each process also keeps the windows that it began or learned of,
in a local tracker, which has three uses:

- **One caller of a process at a time** requests a slot from the store. The others share its reply, or wait in the
  local queue.
- What is certainly still blocked is refused without the store.
- During an outage it decides alone, and keeps this process from sending again what it sent before or meanwhile.

A window of the store is never counted as longer here than there. A window that the service reports (``observe``) is
kept here in any case, and in the store unless a reservation holds the key; if that reservation is this process's own,
the window goes to the store when it is released.

An operation without a reply is done once more, with the same token: a reservation whose reply was lost finds its own
token in the store. A write that fails stays pending, and is repeated when the store is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from typing import TYPE_CHECKING, Final, Self

from kodmobi_async._rules.cooldown import MemoryCooldownTracker, Reservation
from kodmobi_async._shared.backlog import PendingWrite, milliseconds
from kodmobi_async._shared.operations import BLOCKED, FREE, Operation, Reply, Unavailable
from kodmobi_async._shared.reservation import SharedReservation, refusal, shared, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kodmobi_async._shared.keys import Keys
    from kodmobi_async._shared.store import Listener, Store

# Seconds over which the processes that wait for the end of one window spread their requests.
_JITTER: Final = 0.01
# Seconds that a waiting caller holds the slot in this process, at most, beyond its lease.
_LONGEST_WAIT: Final = 3_600.0


class SharedCooldownTracker:
    """Slots in a store that processes share.

    Args:
        make_store: Makes what keeps the slots; its argument is to be called when another loop takes over.
        keys: What the slots are called there.
        label: What the tracker is called in its repr.
        refuses: Whether nothing may be reserved without the store.
        window: The ``retry_after`` of a caller that is refused while another send is in flight, in seconds.
    """

    def __init__(
        self, make_store: Callable[[Callable[[], None]], Store], keys: Keys, *, label: str, refuses: bool, window: float
    ) -> None:
        self._keys = keys
        self._label = label
        self._window = window
        self._refuses = refuses
        self._local = MemoryCooldownTracker(window=window)
        self._requests: dict[str, asyncio.Future[Reply | None]] = {}
        self._store = make_store(self._requests.clear)
        self._clock = self._store.clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._label!r}{' degraded' if self._store.outage else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Do pending writes, once, and close all connections.

        Windows are kept; a later use opens new connections.
        """
        self._clock.now()
        await self._store.aclose()

    async def ping(self) -> None:
        """Check that the store can be reached, and that this tracker may do there what it has to.

        Raises:
            ConfigurationError: The set-up is wrong.
            CooldownUnavailableError: The store is unavailable.
            WrongLoopError: The tracker is in use on another loop.
        """
        self._clock.now()
        token = secrets.token_hex(12)
        failure = await self._store.ping(
            token,
            (Operation.RESERVE, token, 1_000),
            (Operation.RELEASE, token),
            (Operation.RESERVE, token, 1_000),
            (Operation.START, token, 50),
            (Operation.OBSERVE, token, 100),
            (Operation.START, token, 150),
            (Operation.READ,),
        )
        if failure is not None:
            raise unavailable(failure.reason)

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` seconds for its turn.

        Raises:
            CooldownError: The slot is not free within ``max_wait``.
            CooldownUnavailableError: The store is unavailable, and ``on_outage`` is ``"refuse"``.
            ConfigurationError: The set-up is wrong.
            WrongLoopError: The tracker is in use on another loop.
        """
        deadline = self._clock.now() + max_wait
        key = self._keys.of(session_id, channel)
        if max_wait <= 0 and (request := self._requests.get(key)) is not None:
            # Another caller of this process is waiting for the store's reply: it answers this caller, too.
            self._refuse_alike(session_id, channel, await asyncio.shield(request))
        local = await self._local.acquire(session_id, channel, lease=_local_lease(lease, max_wait), max_wait=max_wait)
        reservation = SharedReservation(local, (session_id, channel), key, secrets.token_hex(12))
        try:
            obstacle = await self._reserve(reservation, lease)
            if obstacle is not None:
                await self._wait(reservation, obstacle, lease=lease, deadline=deadline)
        except BaseException:
            await self._local.release(reservation.local)
            if reservation.is_stored:
                self._store.write_later(self._freeing(reservation, lease))
            raise
        return reservation

    async def start(self, reservation: Reservation, window: float) -> None:
        """Block the slot for ``window`` seconds from now."""
        now = self._clock.now()
        held = shared(reservation)
        await self._local.start(held.local, window)
        longest = max(window, self._local.blocked_for(*held.pair))
        reply = await self._settle(held, PendingWrite(Operation.START, held.key, held.token, now + longest))
        if isinstance(reply, tuple) and reply[1] and now < held.until and held.degraded is None:
            held.degrade("reservation lost")  # by a failover, or by eviction: another process may have sent, too

    async def release(self, reservation: Reservation) -> None:
        """Free the slot."""
        self._clock.now()
        held = shared(reservation)
        await self._local.release(held.local)
        if held.is_stored:
            await self._settle(held, self._freeing(held, self._window))

    async def observe(self, session_id: str, channel: str, seconds: float) -> None:
        """Lengthen the window to ``seconds`` from now, as the service reports it; never shorten it.

        This asks the store only if this process does not know of a window as long as that.
        """
        now = self._clock.now()
        if seconds <= self._local.blocked_for(session_id, channel):
            return
        await self._local.observe(session_id, channel, seconds)
        key = self._keys.of(session_id, channel)
        self._store.notify(key)  # a wait for another process's send may be hopeless now
        reply = await self._store.write(PendingWrite(Operation.OBSERVE, key, f"observed {key}", now + seconds))
        if isinstance(reply, tuple) and reply[0] == BLOCKED:
            await self._local.observe(session_id, channel, self._left(reply[1], now))

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now. A send in flight counts as a full window.

        Raises:
            CooldownUnavailableError: The store is unavailable, and ``on_outage`` is ``"refuse"``.
        """
        self._clock.now()
        left = await self._local.remaining(session_id, channel)
        if left > 0:
            return left
        reply = await self._store.request(Operation.READ, self._keys.of(session_id, channel))
        if isinstance(reply, Unavailable):
            if self._refuses:
                raise unavailable(reply.reason)
            return await self._local.remaining(session_id, channel)
        state, left_there = reply
        return 0.0 if state == FREE else left_there / 1_000 if state == BLOCKED else self._window

    async def _reserve(self, reservation: SharedReservation, lease: float) -> tuple[int, float] | None:
        """Reserve the slot in the store; return the state that prevents it, and for how many seconds, if one does."""
        now = self._clock.now()
        reservation.is_stored = self._store.outage is None
        request = self._requests[reservation.key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._store.request(
                Operation.RESERVE, reservation.key, reservation.token, milliseconds(lease)
            )
            request.set_result(reply)
        finally:
            self._requests.pop(reservation.key, None)
            if not request.done():
                request.set_result(None)  # cancelled: those who share the request make their own
        if isinstance(reply, Unavailable):
            if self._refuses:
                raise unavailable(reply.reason)
            reservation.degrade(reply.reason)
            return None
        state, left = reply
        if state == FREE:
            reservation.until = now + lease
            return None
        reservation.is_stored = False
        return state, max(0.001, self._left(left, now))

    async def _wait(
        self, reservation: SharedReservation, obstacle: tuple[int, float] | None, *, lease: float, deadline: float
    ) -> None:
        """Wait until the slot is free everywhere, and reserve it."""
        session_id, channel = reservation.pair
        listener: Listener | None = None
        async with contextlib.AsyncExitStack() as listening:
            while obstacle is not None:
                state, left = obstacle
                longest = max(0.0, deadline - self._clock.now())
                if state == BLOCKED:
                    # The local queue learns of the window, too; then back into it, or out.
                    await self._local.start(reservation.local, left)
                    reservation.local = await self._local.acquire(
                        session_id, channel, lease=_local_lease(lease, longest), max_wait=longest
                    )
                    await asyncio.sleep(random.uniform(0, min(_JITTER, max(0.0, longest - left))))  # noqa: S311 no secret
                elif longest <= 0:
                    raise refusal(session_id, channel, self._window)
                elif listener is None:
                    # Then request the slot once more: it may have changed before the subscription began.
                    subscription = await self._store.subscription()
                    listener = await listening.enter_async_context(subscription.listen(reservation.key))
                else:
                    await listener.wait(min(left, longest))
                obstacle = self._observed(reservation) or await self._reserve(reservation, lease)

    def _observed(self, reservation: SharedReservation) -> tuple[int, float] | None:
        """Return the window that was observed since this process reserved the slot for itself, if any."""
        left = self._local.blocked_for(*reservation.pair)
        return (BLOCKED, left) if left > 0 else None

    def _freeing(self, reservation: SharedReservation, seconds: float) -> PendingWrite:
        """Return the write that frees the slot in the store, and has a meaning for so many seconds.

        The store ignores what is observed while a reservation holds the key: such a window begins there now.
        """
        now, observed = self._clock.now(), self._local.blocked_for(*reservation.pair)
        operation, ends = (Operation.START, now + observed) if observed > 0 else (Operation.RELEASE, now + seconds)
        return PendingWrite(operation, reservation.key, reservation.token, ends)

    async def _settle(self, reservation: SharedReservation, write: PendingWrite) -> Reply | None:
        if reservation.is_settled:
            return None
        reservation.is_settled = True
        reply = await self._store.write(write)
        if isinstance(reply, Unavailable):
            reservation.degrade(reply.reason)
        return reply

    def _refuse_alike(self, session_id: str, channel: str, reply: Reply | None) -> None:
        """Refuse a caller that does not wait, if the store's reply to another caller refuses that one."""
        if isinstance(reply, tuple) and reply[0] != FREE:
            raise refusal(session_id, channel, reply[1] / 1_000 if reply[0] == BLOCKED else self._window)

    def _left(self, left_there: int, requested_at: float) -> float:
        """Return the seconds that the store says are left, counted from the request: never more than there."""
        return left_there / 1_000 - (self._clock.now() - requested_at)


def _local_lease(lease: float, max_wait: float) -> float:
    """Return how long a slot is held within this process, at most; no other process waits for that."""
    return lease + min(max_wait, _LONGEST_WAIT)
