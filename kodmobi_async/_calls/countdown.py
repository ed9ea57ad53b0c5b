"""``countdown``: the seconds until a channel may be sent to again, as they pass."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

# Seconds: what is left of a window when its timer fires a moment early is no news.
_MOMENT: Final = 0.001


async def countdown(
    remaining: Callable[[], Awaitable[float]], session_left: Callable[[], float | None], every: float
) -> AsyncIterator[float]:
    """Yield the seconds left until they are 0.0; stop without that if the session is over first.

    Each round asks again, so a window that grows meanwhile is followed. Between two rounds lies one timer.

    Args:
        remaining: Says how many seconds are left.
        session_left: Says how many seconds the session has left; ``None`` if that is not known.
        every: Seconds between two numbers.
    """
    while True:
        left, ends = await remaining(), session_left()
        if ends is not None and ends <= 0:
            return
        if not 0 < left <= _MOMENT:
            yield left
        if left <= 0:
            return
        await asyncio.sleep(min(every, left, left if ends is None else ends))
