"""The clock that cooldowns live by: the running loop's, carried on from one loop to the next.

The invariant: **it belongs to one loop of one process at a time, and never goes back.** When that loop has been closed,
the next one takes over: what a loop's own clock shows differs from loop to loop, so the difference is measured against
the system's clock.
"""

from __future__ import annotations

import math
import os
import time
from asyncio import get_running_loop
from typing import TYPE_CHECKING

from kodmobi_async._values.errors import WrongLoopError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

system_time: Callable[[], float] = time.monotonic
"""What the clocks of different loops are compared with; `kodmobi_async.testing` moves it together with them."""


class LoopClock:
    """The time of the running loop, without a gap where a closed loop is followed by another one.

    Args:
        on_move: Called when the clock moves to a loop, the first one included.
    """

    __slots__ = ("_lead", "_on_move", "_process", "latest", "loop", "offset")

    def __init__(self, on_move: Callable[[], None] | None = None) -> None:
        self._on_move = on_move
        self.loop: asyncio.AbstractEventLoop | None = None
        self.offset = 0.0
        """Seconds that this clock is ahead of the loop's."""
        self._process = 0
        self.latest = 0.0
        """The latest time that `now` has returned."""
        self._lead = 0.0  # of the loop's clock over the system's

    def now(self) -> float:
        """Return the time, in seconds.

        Raises:
            WrongLoopError: Another loop is running than the one that the clock belongs to, which is still open.
        """
        loop = get_running_loop()
        if loop is not self.loop:
            self._move_to(loop)
        self.latest = now = loop.time() + self.offset
        return now

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy that a fork has made; the loop is the parent's then, and not in use here."""
        return self._process != os.getpid()

    def loop_time(self, moment: float) -> float:
        """Return a moment as the loop's own time, rounded so that a timer never fires before the moment."""
        when = moment - self.offset
        return when if when + self.offset >= moment else math.nextafter(when, math.inf)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is not None and not self.loop.is_closed() and not self.is_forked:
            raise WrongLoopError("this belongs to another event loop, which is still open")
        # A closed loop need not know the time any more, so both are compared with the system's clock.
        lead = loop.time() - system_time()
        if self.loop is not None:
            self.offset = max(self.offset + self._lead - lead, self.latest - loop.time())
        self.loop, self._process, self._lead = loop, os.getpid(), lead
        if self._on_move is not None:
            self._on_move()
