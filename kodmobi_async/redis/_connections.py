"""The connections to the server, for as long as one event loop lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kodmobi_async._shared.loop_bound import LoopBound
from kodmobi_async.redis._pipeline import Pipeline
from kodmobi_async.redis._subscription import Subscription

if TYPE_CHECKING:
    from kodmobi_async.redis._backend import Backend


class Connections(LoopBound):
    """The connections of one event loop, and what uses them.

    Args:
        backend: Where they lead.
        timeout: Seconds for a command, all attempts included.
        what: What the server keeps, for the log.
        evictable: What of it gets lost if the server evicts keys.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        timeout: float,
        what: str = "the shared cooldowns",
        evictable: str = "open windows",
    ) -> None:
        self._backend = backend
        self.pipeline = Pipeline(backend, timeout=timeout, what=what, evictable=evictable)
        self.subscription = Subscription(backend, timeout=timeout)
        super().__init__()

    async def _close(self) -> None:
        await self.subscription.aclose()
        await self.pipeline.aclose()
        await self._backend.aclose()
