"""The connections to the server, for as long as one event loop lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kodmobi_async.redis._pipeline import Pipeline
from kodmobi_async.redis._subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kodmobi_async.redis._backend import Backend


class Connections:
    """The connections of one event loop, and what uses them.

    Args:
        backend: Where they lead.
        timeout: Seconds for a command, all attempts included.
    """

    def __init__(self, backend: Backend, *, timeout: float) -> None:
        self._backend = backend
        self.pipeline = Pipeline(backend, timeout=timeout)
        self.subscription = Subscription(backend, timeout=timeout)
        self._guard = self._closing()

    async def open(self) -> None:
        """Close the connections with the event loop if nobody does before: a loop finishes its generators first."""
        await anext(self._guard)

    async def aclose(self) -> None:
        """Close all connections that are ours."""
        await self._guard.aclose()

    async def _closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.subscription.aclose()
            await self.pipeline.aclose()
            await self._backend.aclose()
