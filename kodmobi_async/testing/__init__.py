"""Tools for the tests of programs that use the client. None of them needs pytest, and no test has to sleep.

In synchronous code, such as a `unittest.TestCase` or a test with FastAPI's ``TestClient``:

    with running_emulator() as emulator, movable_clock() as clock:
        ...  # the program sends a code to emulator.base_url
        emulator.last_code("+14155550123")
        clock.advance(60)  # the window has ended, for the emulator and for the program

While an emulator runs or a clock is movable, no request of the client reaches the real service: `RealServiceError`.

`VirtualClockLoop` is for asynchronous tests whose emulator runs on the same loop. ``kodmobi_async.pytest_plugin`` has
these tools as fixtures.
"""

from __future__ import annotations

from kodmobi_async.testing._clock import MovableClock, movable_clock
from kodmobi_async.testing._emulator import RunningEmulator, running_emulator
from kodmobi_async.testing._loop import VirtualClockLoop
from kodmobi_async.testing._real_service import RealServiceError, no_real_service

__all__ = (
    "MovableClock",
    "RealServiceError",
    "RunningEmulator",
    "VirtualClockLoop",
    "movable_clock",
    "no_real_service",
    "running_emulator",
)
