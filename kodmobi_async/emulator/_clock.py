"""The emulator's clock: it follows the event loop's, and can be moved forward and sped up on top of it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from typing import Final

import attrs

from kodmobi_async.emulator._checks import finite
from kodmobi_async.emulator._events import Events

__all__ = ("Clock",)

# POSIX time of the year 3000: far from the last date that datetime can hold.
_END: Final = 32_503_680_000.0
_FASTEST: Final = 1_000.0


@attrs.define(eq=False, repr=False)
class Clock:
    """The time of sessions, windows and deliveries.

    It shows the same as the loop's clock until it is changed. Faults and connections keep the loop's time: a response
    that is 5 seconds late is 5 seconds late for the client, too.
    """

    _events: Events
    _loop: asyncio.AbstractEventLoop | None = attrs.field(init=False, default=None)
    # time() is the loop's time, times the speed, plus the offset.
    _speed: float = attrs.field(init=False, default=1.0)
    _offset: float = attrs.field(init=False, default=0.0)
    _epoch: float | None = attrs.field(init=False, default=None)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the clock of ``loop`` from now on. The first loop sets the date."""
        if self._epoch is None:
            self._epoch = time.time() - loop.time()
        elif loop is not self._loop:
            self._offset = self.time() - loop.time() * self._speed
        self._loop = loop

    def time(self) -> float:
        """Return the time, in seconds.

        Raises:
            RuntimeError: The emulator was not started.
        """
        if self._loop is None:
            raise RuntimeError("the emulator was not started")
        return self._loop.time() * self._speed + self._offset

    def date(self, at: float | None = None) -> datetime:
        """Return the date at the time ``at``; the current one by default.

        Raises:
            RuntimeError: The emulator was not started.
        """
        posix = (self._epoch or 0.0) + (self.time() if at is None else at)
        return datetime.fromtimestamp(posix, timezone.utc)  # noqa: UP017 datetime.UTC hides what it is

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``.

        Raises:
            RuntimeError: The emulator was not started.
            ValueError: ``seconds`` is negative or not finite, or the date would be beyond the year 3000.
        """
        seconds = finite("seconds", seconds)
        if self.date().timestamp() + seconds >= _END:
            raise ValueError("the clock cannot be moved beyond the year 3000")
        self._offset += seconds
        self._events.publish("clock")

    @property
    def speed(self) -> float:
        """How many seconds pass in one of the loop's; from 0, which stops the clock, to 1000."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        speed = finite("speed", speed)
        if speed > _FASTEST:
            raise ValueError(f"speed must be at most {_FASTEST:.0f}")
        if self._loop is not None:
            self._offset = self.time() - self._loop.time() * speed
        self._speed = speed
        self._events.publish("clock")
