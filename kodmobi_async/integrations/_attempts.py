"""How often something may be tried: the guesses at codes, by login and by client address."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000
"""Keys that are counted at a time: those used last."""


class Attempts:
    """Counts attempts by key, each for some time from the first one; keeps no more than the latest keys.

    Args:
        most: Attempts in that time.
        seconds: How long.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Count an attempt; return 0.0, or the seconds until another one is allowed."""
        now = asyncio.get_running_loop().time()
        count, ends = self._counts.pop(key, (0, now + self._seconds))
        if ends <= now:
            count, ends = 0, now + self._seconds
        self._counts[key] = (min(count, self._most) + 1, ends)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return 0.0 if count < self._most else ends - now
