"""How many rows make a batch. Plain arithmetic: nothing here waits."""

from __future__ import annotations

import math
from typing import Final


class BatchSize:
    """Rows for the next batch: what a worker sends in about a second, and no more than its share of what may be out.

    Small enough that every worker has two batches, that few rows wait for a worker that was killed, and that the last
    rows are spread over all; large enough that handing over costs little.

    Args:
        outstanding: Rows at most that are in the queue, or with a worker.
    """

    FIRST: Final = 128
    """Rows, as long as nothing is known."""
    LARGEST: Final = 2_000
    SMALLEST: Final = 8
    SECONDS: Final = 1.0
    """That a batch is to take."""
    INTERVAL: Final = 0.25
    """Seconds over which outcomes are counted, at least."""

    def __init__(self, outstanding: int) -> None:
        self._outstanding = outstanding
        self._by_time = float(self.FIRST)
        self._since: float | None = None
        self._outcomes = 0

    def count(self, outcomes: int, workers: int, now: float) -> None:
        """Note outcomes that have come; grow and shrink by a factor of two at most."""
        if self._since is None:
            self._since = now
            return
        self._outcomes += outcomes
        elapsed = now - self._since
        if elapsed >= self.INTERVAL:
            rows_in_time = self.SECONDS * self._outcomes / elapsed / max(1, workers)
            self._by_time = min(max(rows_in_time, self._by_time / 2, self.SMALLEST), self._by_time * 2, self.LARGEST)
            self._since, self._outcomes = now, 0

    def next(self, workers: int, left: int | None) -> int:
        """Return how many rows to hand over.

        Args:
            workers: How many are known to be at work.
            left: How many rows are left; ``None`` = unknown.
        """
        shares = 2 * max(1, workers)
        size = min(self._by_time, self._outstanding / (shares + 2))
        if left is not None:
            size = min(size, max(left / shares, self.SMALLEST))
        return max(1, math.ceil(size) if size < 1 else int(size))
