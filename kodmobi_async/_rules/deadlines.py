"""Keys with a deadline each, which are forgotten once it has passed, without a task that sweeps.

Keys are kept in buckets, one for each second in which a deadline falls. Every `Deadlines.extend` also drops a few keys
that have expired, at least as fast as new ones come, so that the size follows what is alive. The time is passed in.
"""

from __future__ import annotations

import heapq
from math import ceil
from typing import Final


class Deadlines:
    """Keys, and when each of them ends."""

    __slots__ = ("_buckets", "_ends", "_seconds", "end")

    # Expired keys that one new deadline drops, at most.
    _EVICTIONS: Final = 8

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self.end = self._ends.get
        """Return when a key ends or has ended; ``None`` if it is unknown, or forgotten."""
        self._buckets: dict[int, list[str]] = {}
        self._seconds: list[int] = []  # a heap of the buckets' seconds

    def __len__(self) -> int:
        return len(self._ends)

    def extend(self, key: str, end: float, now: float) -> None:
        """Let ``key`` end at ``end``, unless that is over, or the key ends later anyway."""
        ends = self._ends
        if end <= ends.get(key, now):
            return
        ends[key] = end
        second = ceil(end)
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [key]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(key)
        if self._seconds[0] <= now:
            self._evict(now)

    def left(self, key: str, now: float) -> float:
        """Return the seconds until ``key`` ends; 0.0 if it has ended or is unknown."""
        end = self._ends.get(key)
        return 0.0 if end is None or end <= now else end - now

    def _evict(self, now: float) -> None:
        ends, bucket = self._ends, self._buckets[self._seconds[0]]
        for _ in range(self._EVICTIONS):
            key = bucket.pop()
            end = ends.pop(key, now)
            if end > now:
                ends[key] = end  # its deadline was extended since: it is in another bucket, too
            if not bucket:
                del self._buckets[heapq.heappop(self._seconds)]
                if not self._seconds or self._seconds[0] > now:
                    return
                bucket = self._buckets[self._seconds[0]]
