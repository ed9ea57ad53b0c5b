"""The gates that every request of a client passes: its own, or that of all processes which share an account's limits.

While ``is_open`` is true, nothing holds requests back: so a send need not ask.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kodmobi_async._rules.pacing import Gate, held_back
from kodmobi_async._values.errors import KodmobiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._rules.call import Call
    from kodmobi_async._rules.clock import LoopClock
    from kodmobi_async._values.shared_limits import SharedLimits


class OwnGate(Gate):
    """The gate of one client.

    Args:
        rate: Requests a second; ``None`` = as they come.
        clock: The client's.
    """

    __slots__ = ("_clock",)

    def __init__(self, rate: float | None, clock: LoopClock) -> None:
        super().__init__(rate)
        self._clock = clock

    async def admit(self, call: Call[Any]) -> KodmobiError | None:
        """Wait until a request may go; return the error if that is too late for this call."""
        while (wait := self.opens_at(now := self._clock.now()) - now) > 0:
            if asyncio.get_running_loop().time() + wait >= call.last_start:
                return held_back(wait)
            self.pass_at(now + wait, now)
            closures = self.closures
            await asyncio.sleep(wait)
            if self.closures == closures:
                return None
        self.pass_at(now, now)
        return None

    async def close_for(self, seconds: float) -> None:
        """Hold every request of the client back."""
        self.close(self._clock.now(), seconds)


class SharedGate:
    """The gate of all processes that share an account's limits.

    Args:
        rate: Requests a second, of all of them; ``None`` = as they come.
        limits: What they share.
        on_degraded: Called with a call whose request this process alone has admitted, and the reason.
    """

    def __init__(
        self, rate: float | None, limits: SharedLimits, on_degraded: Callable[[Call[Any], str], None] | None
    ) -> None:
        self._rate = rate
        self._limits = limits
        self._on_degraded = on_degraded

    @property
    def is_open(self) -> bool:
        """Whether a request need not ask."""
        return self._rate is None and self._limits.is_open

    async def admit(self, call: Call[Any]) -> KodmobiError | None:
        """Wait until a request may go; return the error if that is too late for this call, or cannot be known."""
        max_wait = call.last_start - asyncio.get_running_loop().time()
        try:
            reason = await self._limits.acquire(rate=self._rate, max_wait=max_wait)
        except KodmobiError as error:
            return error
        if reason is not None and self._on_degraded is not None:
            self._on_degraded(call, reason)
        return None

    async def close_for(self, seconds: float) -> None:
        """Hold every request of all processes back."""
        await self._limits.close(seconds)
