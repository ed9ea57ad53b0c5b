"""Writes that the store has not confirmed yet.

A write stays pending until the store has replied to it, or until it has lost its meaning because its window or lease
has ended. What fails is written again when the store is back.
"""

from __future__ import annotations

import math

import attrs

from kodmobi_async._shared.operations import Operation


@attrs.frozen(eq=False)
class PendingWrite:
    """A write that the store has not confirmed.

    Attributes:
        operation: What to do.
        key: Of the slot.
        token: Of the reservation, or another name: a later write of the same name replaces this one.
        ends: When the write loses its meaning.
    """

    operation: Operation
    key: str
    token: str
    ends: float

    def milliseconds_left(self, now: float) -> int:
        """Return how long the window or lease still lasts."""
        return milliseconds(self.ends - now)


class Backlog:
    """The pending writes."""

    def __init__(self) -> None:
        self._writes: dict[str, PendingWrite] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def __contains__(self, write: PendingWrite) -> bool:
        return self._writes.get(write.token) is write

    def add(self, write: PendingWrite) -> None:
        """Keep a write until it is confirmed."""
        self._writes[write.token] = write

    def confirm(self, write: PendingWrite) -> None:
        """Drop a write that the store has confirmed; a later one of the same name stays."""
        if write in self:
            del self._writes[write.token]

    def current(self, now: float) -> tuple[PendingWrite, ...]:
        """Return the writes that still have a meaning, and drop the others."""
        self._writes = {token: write for token, write in self._writes.items() if write.ends > now}
        return tuple(self._writes.values())


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, rounded up but for a rounding error; 0 for a negative number."""
    return math.ceil(round(max(0.0, seconds) * 1_000, 3))
