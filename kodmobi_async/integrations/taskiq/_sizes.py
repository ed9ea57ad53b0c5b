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

    FIRST: Final = 32
    """Rows, as long as nothing is known."""
    LARGEST: Final = 2_000
    SMALLEST: Final = 8
    SECONDS: Final = 1.0
    """That a batch is to take."""

    def __init__(self, outstanding: int) -> None:
        self._outstanding = outstanding
        self._by_time = float(self.FIRST)

    def took(self, rows: int, seconds: float) -> None:
        """Note that so many rows of a batch took so long; grow by a factor of two at most."""
        rows_in_time = self.SECONDS * rows / max(seconds, 1e-3)
        self._by_time = min(max(rows_in_time, self._by_time / 2), self._by_time * 2, self.LARGEST)

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
