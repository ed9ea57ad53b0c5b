"""The time of a machine, which all its processes read alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from kodmobi_async._rules import clock as loop_clock

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class HostClock:
    """The machine's monotonic clock, where it is known which boot it counts from; else the wall clock.

    Args:
        boot_id: The file that names the boot.
    """

    def __init__(self, boot_id: Path = _BOOT_ID) -> None:
        try:
            self.boot = boot_id.read_text("ascii").strip()
        except (OSError, ValueError):
            self.boot = ""
        """Names what `now` counts from: a boot, or nothing, for the wall clock's epoch."""

    def now(self) -> float:
        """Return the time, in seconds."""
        return loop_clock.system_time() if self.boot else time.time()

    def lead_of_wall_clock(self) -> float:
        """Return by how many seconds the wall clock is ahead."""
        return time.time() - self.now() if self.boot else 0.0
