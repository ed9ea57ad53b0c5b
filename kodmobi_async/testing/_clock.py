"""A clock that tests move: that of every asyncio event loop of the process, in all threads.

The client, its trackers and the emulator read the time of the loop that they run on, and wait by its timers. So they
have no hook for tests: while a test needs it, `asyncio.BaseEventLoop.time` is the system's time plus what was added,
and loops that wait are woken to look at it. Everything on the loops moves together, in its right order, as if the time
had passed.

The clock of a loop never goes back. What a test adds therefore stays until the process ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager, suppress
from math import isfinite
from threading import Lock
from types import NoneType
from typing import TYPE_CHECKING, Final

from kodmobi_async._rules import clock as loop_clock
from kodmobi_async.testing._loop import VirtualClockLoop
from kodmobi_async.testing._real_service import no_real_service

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

__all__ = ("MovableClock", "movable_clock")

_TIME: Final = "time"
_RUN_FOREVER: Final = asyncio.BaseEventLoop.run_forever.__code__


class MovableClock:
    """Moves the time of the process's event loops forward. Get it from `movable_clock`; use it from any thread."""

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: for the emulator, and for every client and tracker, on whatever loop.

        Who waits for a cooldown, a pause or a timeout that ends meanwhile goes on. The system's own clocks, such as
        ``time.time``, stay as they are, and so do loops that keep a time of their own, such as uvloop's.

        Raises:
            ValueError: ``seconds`` is negative or not finite.
        """
        if not isfinite(seconds) or seconds < 0:
            raise ValueError("seconds takes a finite number, zero or more: the clock of a loop does not go back")
        with _Shift.lock:
            _Shift.seconds += seconds
        for loop in _running_loops():
            if isinstance(loop, VirtualClockLoop):
                loop.jump(seconds)
            _wake(loop)


@contextmanager
def movable_clock() -> Generator[MovableClock]:
    """Yield a clock that moves the time of the process's event loops.

    Requests of the client to the real service are refused meanwhile, as by `no_real_service`.
    """
    with no_real_service():
        _Shift.install()
        _Shift.users += 1
        try:
            yield MovableClock()
        finally:
            _Shift.users -= 1


class _Shift:
    """What was added to the time of the process's event loops."""

    seconds = 0.0
    users = 0
    lock = Lock()
    _is_installed = False

    @classmethod
    def install(cls) -> None:
        with cls.lock:
            if cls._is_installed:
                return
            cls._is_installed = True
            real_time = asyncio.BaseEventLoop.time

            def shifted_time(loop: asyncio.BaseEventLoop) -> float:
                """Return the time according to the event loop's clock, and what tests have added."""
                return real_time(loop) + cls.seconds

            setattr(asyncio.BaseEventLoop, _TIME, shifted_time)
            loop_clock.system_time = cls.system_time

    @classmethod
    def system_time(cls) -> float:
        """Return the system's time as loops see it: for a clock that moves on to the running loop, and for threads."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 public in all but its name; a thread has none
        if cls.users and not isinstance(loop, (asyncio.BaseEventLoop, NoneType)):
            raise RuntimeError(
                f"the test's clock cannot move a loop of {type(loop).__module__}: run the tests on asyncio's own loops"
            )
        return time.monotonic() + cls.seconds


def _running_loops() -> list[asyncio.BaseEventLoop]:
    """Return the event loops that run, in any thread. asyncio has no list of them."""
    loops: list[asyncio.BaseEventLoop] = []
    for innermost in sys._current_frames().values():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] documented
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code is _RUN_FOREVER:
                loops.append(frame.f_locals["self"])
            frame = frame.f_back
    return loops


def _wake(loop: asyncio.BaseEventLoop) -> None:
    with suppress(RuntimeError):  # it was closed a moment ago
        loop.call_soon_threadsafe(_nothing)


def _nothing() -> None:
    """Do nothing."""
