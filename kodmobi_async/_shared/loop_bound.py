"""What is closed with the event loop that uses it, if nobody closes it before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import AsyncGeneratorType


class LoopBound(ABC):
    """Connections of one event loop: a loop finishes its asynchronous generators before it closes."""

    def __init__(self) -> None:
        self._guard = cast("AsyncGeneratorType[None, None]", self._closing())

    async def open(self) -> None:
        """See that they are closed with the loop."""
        await anext(self._guard)

    async def aclose(self) -> None:
        """Close them, unless the loop, as it ends, is about to."""
        if not self._guard.ag_running:
            await self._guard.aclose()

    @abstractmethod
    async def _close(self) -> None:
        """Close what there is."""

    async def _closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close()
