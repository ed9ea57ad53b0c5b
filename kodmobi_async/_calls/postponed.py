"""The requests of a run, and what is postponed: which moment a request waits for, and in which order they come."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kodmobi_async._rules.pacing import Gate, Pauses
from kodmobi_async._values.errors import (
    CooldownError,
    InvalidRequestError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
)
from kodmobi_async._values.models import SendOutcome, SendRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ulid import ULID

    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.models import SendResult

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

    def sent_by(self, send: Callable[[SendRequest], Awaitable[SendResult]]) -> Awaitable[SendResult]:
        """Send it.

        Raises:
            InvalidRequestError: It is no request.
        """
        return send(self.checked())

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


class Later:
    """Says when a refused item may be sent again.

    Args:
        max_wait: Seconds that an item waits for its cooldown.
        worth_waiting: Returns how much of a wait makes sense for a request; ``None`` = all of it.
        pauses: How often in a row all wait for a limit of the account.
    """

    def __init__(
        self, max_wait: float, worth_waiting: Callable[[SendRequest, float], float] | None, pauses: int
    ) -> None:
        self._max_wait = max_wait
        self._worth_waiting = worth_waiting
        self.pauses = Pauses(pauses)
        self.reads_from = 0.0
        """When the account is limited no longer, as far as known: nothing is read before."""

    def moment(self, item: Item, error: KodmobiError, pauses: int, now: float) -> float | None:
        """Return the moment at which an item may be sent again; ``None`` = its error is its outcome.

        Args:
            item: The item.
            error: What came of it.
            pauses: How many pauses there had been when it was begun.
            now: The time.
        """
        item.error = None
        if isinstance(error, RateLimitedError):
            item.error = error
            return self._after_the_limit(error, pauses, now)
        if error.outcome in (Outcome.REFUSED, Outcome.ACCEPTED):
            self.pauses.answered(pauses)
        return self._after_the_cooldown(item, error, now) if isinstance(error, CooldownError) else None

    def _after_the_cooldown(self, item: Item, refusal: CooldownError, now: float) -> float | None:
        if self._max_wait <= 0 or refusal.outcome is Outcome.ACCEPTED:
            return None
        if item.gives_up_at is None:
            item.gives_up_at = now + self._max_wait
        left = item.gives_up_at - now
        if self._worth_waiting is not None:
            left = self._worth_waiting(item.request, left)
        return None if refusal.retry_after > left else now + refusal.retry_after

    def _after_the_limit(self, refusal: RateLimitedError, pauses: int, now: float) -> float | None:
        """Return the moment at which a request may be made again; ``None`` if pauses do not help."""
        if refusal.status is None:  # the client's own rate; the service was not asked
            moment: float | None = now + max(refusal.retry_after or 0.0, Gate.STAGGER)
        else:
            moment = self.pauses.refused(now, refusal.retry_after, pauses)
        if moment is not None:
            self.reads_from = max(self.reads_from, moment)
        return moment


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
