"""The requests of a run: those that may go now, and those that wait for a moment."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kodmobi_async._values.errors import InvalidRequestError, KodmobiError, Outcome, SendInterruptedError
from kodmobi_async._values.models import SendOutcome, SendRequest

if TYPE_CHECKING:
    from ulid import ULID

    from kodmobi_async._values.channel import Channel

    Pair: TypeAlias = tuple[ULID | str, Channel | str]

_PAIR: Final = 2


class Item:
    """A request of the input.

    Args:
        given: What the input gave. An outcome names it as it is, but for a pair, which becomes a request.
    """

    __slots__ = ("error", "gives_up_at", "request")

    def __init__(self, given: object) -> None:
        if isinstance(given, (tuple, list)) and len(cast("tuple[Any, ...]", given)) == _PAIR:
            given = SendRequest(*cast("Pair", given))
        self.request = cast("SendRequest", given)
        self.gives_up_at: float | None = None
        """When it waits for its cooldown no longer; ``None`` = it has not waited yet."""
        self.error: KodmobiError | None = None
        """Why it waits, where that is more than its cooldown."""

    def checked(self) -> SendRequest:
        """Return the request.

        Raises:
            InvalidRequestError: The input gave something else.
        """
        given: Any = self.request
        if isinstance(given, SendRequest):
            return given
        raise InvalidRequestError(f"expected a SendRequest or a pair, got {type(given).__name__}")

    def not_sent(self) -> SendOutcome:
        """Return its outcome if it is not sent any more."""
        return SendOutcome(self.request, error=self.error or interrupted(0.0))


class Postponed:
    """Items that wait for a moment, in the order of their moments."""

    __slots__ = ("_heap", "_numbers")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float:
        """The first moment; ``inf`` = nothing waits."""
        return self._heap[0][0] if self._heap else math.inf

    def push(self, moment: float, item: Item) -> None:
        """Let an item wait for a moment."""
        heapq.heappush(self._heap, (moment, next(self._numbers), item))

    def pop(self) -> Item:
        """Return the item whose moment is the first."""
        return heapq.heappop(self._heap)[2]

    def not_sent(self) -> tuple[SendOutcome, ...]:
        """Return the outcomes of all if they are not sent any more."""
        return tuple(item.not_sent() for _, _, item in sorted(self._heap))


def interrupted(blocked_for: float) -> SendInterruptedError:
    """Return the error of a request that the end of its run has interrupted.

    Args:
        blocked_for: Seconds for which its channel is blocked; 0.0 = it was not sent.
    """
    if blocked_for > 0:
        return SendInterruptedError(
            "the run was ended while the request was in flight: it may have been sent", outcome=Outcome.UNKNOWN
        )
    return SendInterruptedError("the run was ended before the request was sent")
