"""Calls that send hold a slot of the cooldown tracker; however they end, it is settled from what is known then.

Nothing is awaited between the end of the attempts and that decision, a cancellation included. The slot is released if
provably nothing was done, blocked for the service's own number if the service took the request, and blocked for a full
window if its outcome is unknown.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from kodmobi_async._rules.requests import is_channel
from kodmobi_async._values.errors import CooldownError, KodmobiError, Outcome, SessionExpiredError
from kodmobi_async._values.hooks import TrackerDegraded, emit
from kodmobi_async._values.models import SendResult, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kodmobi_async._calls.engine import Engine
    from kodmobi_async._calls.lifecycle import Lifecycle
    from kodmobi_async._rules.call import SendingCall
    from kodmobi_async._rules.clock import LoopClock
    from kodmobi_async._rules.cooldown import Reservation

REMEMBERED_SESSIONS: Final = 10_000
"""Of so many sessions, those used last, a client knows when they end."""


Sent = TypeVar("Sent", SendResult, Session)


class SessionEnds:
    """When sessions end, on the client's clock, as far as responses have said."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._ends: OrderedDict[str, float] = OrderedDict()

    def remember(self, session_id: str, expires_in: float) -> None:
        """Note that a session ends in so many seconds."""
        if expires_in <= 0:
            return
        self._ends[session_id] = self._clock.now() + expires_in
        self._ends.move_to_end(session_id)
        if len(self._ends) > REMEMBERED_SESSIONS:
            self._ends.popitem(last=False)

    def left(self, session_id: str) -> float | None:
        """Return the seconds until a session ends, 0.0 if it has; ``None`` if that is not known."""
        ends = self._ends.get(session_id)
        return None if ends is None else max(0.0, ends - self._clock.now())

    def worth_waiting(self, session_id: str, max_wait: float) -> float:
        """Return ``max_wait``, or less: no wait for a cooldown is worth it that ends after the session does."""
        left = self.left(session_id)
        return max_wait if left is None else min(max_wait, left)

    def instead_of(self, refusal: CooldownError, max_wait: float) -> KodmobiError:
        """Return the error for a wait that was not begun: the session's end, if that is what forbids it."""
        left = None if refusal.session_id is None else self.left(refusal.session_id)
        if left is None or refusal.outcome is not Outcome.NOT_SENT or not left < refusal.retry_after <= max_wait:
            return refusal
        return SessionExpiredError(
            f"the session ends in {left:.1f} s, before its channel is free in {refusal.retry_after:.1f} s: create a"
            " new session",
            status=None,
            outcome=Outcome.NOT_SENT,
        )


class Slots:
    """Holds the slots of calls that send.

    Args:
        engine: Makes the attempts.
        lifecycle: Emits what is waited for.
        clock: The client's.
        ends: When sessions end.
    """

    def __init__(
        self,
        engine: Engine,
        lifecycle: Lifecycle,
        clock: LoopClock,
        ends: SessionEnds,
    ) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._clock = clock
        self._ends = ends
        self._cooldowns = engine.cooldowns
        self._hooks = engine.hooks

    async def send_once(
        self, call: SendingCall[Sent], acquire: Callable[[Any, float], Awaitable[Reservation]], max_wait: float
    ) -> Sent:
        """Acquire a slot, make the call's attempts, and settle the slot.

        Args:
            call: The call.
            acquire: Acquires the slot of the call, waiting up to so many seconds.
            max_wait: Those seconds.

        Raises:
            KodmobiError: The slot is taken, or the attempts came to no result.
        """
        reservation = await acquire(call, max_wait)
        try:
            verdict = await self._engine.run(call)
        except BaseException as error:
            # cancelled, or closed, or worse: what is known now decides
            outcome = call.outcome_now()
            if isinstance(error, KodmobiError):
                error.outcome = outcome
            blocked = outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED)
            await self.settle(call, reservation, call.window if blocked else None)
            raise
        result = verdict.result
        if result is not None:
            if result.expires_in is not None:
                self._ends.remember(call.session_id or str(result.session_id), result.expires_in)
            seconds, also = call.blocks(result)
            await self.settle(call, reservation, seconds, also)
            return result if reservation.window == "local" else attrs.evolve(result, window=reservation.window)
        failure, cause, block = call.conclude(verdict.error)
        await self.settle(call, reservation, block)
        raise failure from cause

    async def send(
        self, call: SendingCall[Sent], acquire: Callable[[Any, float], Awaitable[Reservation]], max_wait: float
    ) -> Sent:
        """Send once the channel is free, and again where the service, not this client, knew that it was not.

        Args:
            call: The call.
            acquire: Acquires the slot of the call, waiting up to so many seconds.
            max_wait: Seconds to wait in all.

        Raises:
            SessionExpiredError: The session ends before the channel is free.
            KodmobiError: What `send_once` raises.
        """
        give_up = self._clock.now() + max_wait
        while True:
            worth = max_wait if call.session_id is None else self._ends.worth_waiting(call.session_id, max_wait)
            try:
                return await self.send_once(call, acquire, worth)
            except CooldownError as error:
                max_wait = give_up - self._clock.now()
                # only where the service says so is there anything to wait for that has not been waited for
                if error.outcome is not Outcome.REFUSED or error.retry_after > max_wait:
                    raise self._ends.instead_of(error, max_wait) from None
                call.in_flight = False
                self._lifecycle.emit_cooldown(call, error)

    async def settle(
        self, call: SendingCall[Any], reservation: Reservation, block: float | None, also: str | None = None
    ) -> None:
        """Block the slot for ``block`` seconds, or release it; block ``also`` another channel of the session."""
        try:
            if block is None:
                await self._cooldowns.release(reservation)
            else:
                await self._cooldowns.start(reservation, block)
        finally:
            if also is not None and block and call.session_id is not None and is_channel(also):
                await self._cooldowns.observe(call.session_id, also, block)
            if reservation.degraded is not None and self._hooks:
                record = TrackerDegraded(
                    call.number, call.session_id, call.channel, reservation.degraded, kind=call.kind, to=call.to
                )
                emit(self._hooks, record)
