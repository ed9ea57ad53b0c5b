"""The script: which request has which fault."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from kodmobi_async.emulator._checks import whole
from kodmobi_async.emulator._choices import ENDPOINTS
from kodmobi_async.emulator._events import Events
from kodmobi_async.emulator._fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Entry", "Script")


@attrs.define(eq=False)
class Entry:
    """A fault for the next ``times`` requests of ``endpoint``, or of any."""

    fault: Fault
    times: int
    endpoint: str | None


@attrs.define
class Script:
    """The faults that wait for a request, in order."""

    _events: Events
    _entries: deque[Entry] = attrs.field(init=False, factory=deque[Entry])

    def add(self, fault: Fault, times: int, endpoint: str | None) -> None:
        """Append ``fault`` for the next ``times`` requests of ``endpoint``, or of any."""
        if not isinstance(fault, Fault):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not check types
            raise ValueError("fault must be a Fault")  # noqa: TRY004 a wrong setting is a ValueError throughout
        if endpoint is not None and endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be None or one of {', '.join(ENDPOINTS)}")
        self._entries.append(Entry(fault, whole("times", times, at_least=1), endpoint))
        self._events.publish("faults")

    def take(self, endpoint: str | None) -> Fault | None:
        """Use up the first fault for ``endpoint``; None if there is none."""
        for entry in self._entries:
            if entry.endpoint in {None, endpoint}:
                entry.times -= 1
                if not entry.times:
                    self._entries.remove(entry)
                self._events.publish("faults")
                return entry.fault
        return None

    def clear(self) -> None:
        """Remove every fault."""
        self._entries.clear()
        self._events.publish("faults")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return sum(entry.times for entry in self._entries)
