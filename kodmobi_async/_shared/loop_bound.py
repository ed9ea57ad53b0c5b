"""What is closed with the event loop that uses it, if nobody closes it before; and how background tasks end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from types import AsyncGeneratorType

_AGAIN: Final = 0.1
"""Seconds after which a task is cancelled once more."""


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: before Python 3.11.3, redis-py swallows a cancellation now and then."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN)


class LoopBound(ABC):
    """Connections of one event loop: a loop finishes its asynchronous generators before it closes."""

    def __init__(self) -> None:
        self._guard = cast("AsyncGeneratorType[None, None]", self._closing())
        self._closed: asyncio.Event | None = None

    async def open(self) -> None:
        """See that they are closed with the loop."""
        await anext(self._guard)

    async def aclose(self) -> None:
        """Close them; a loop that ends may be doing that at the same time."""
        await self._close_once()
        if not self._guard.ag_running:
            await self._guard.aclose()

    @abstractmethod
    async def _close(self) -> None:
        """Close what there is."""

    async def _closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close_once()

    async def _close_once(self) -> None:
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = asyncio.Event()
        try:
            await self._close()
        finally:
            self._closed.set()
