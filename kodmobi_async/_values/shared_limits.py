"""What a client asks of limits that it shares with other processes."""

from __future__ import annotations

from typing import Protocol


class SharedLimits(Protocol):
    """Keeps the rate, and the closure, of an account for all processes that send for it.

    ``Limits(shared=…)`` takes one; `kodmobi_async.redis.RedisLimits` is one. Each request of a client goes through
    `acquire`, unless the client has no rate and `is_open` says that there is nothing to ask. A `KodmobiError` that it
    raises is the error of the attempt.
    """

    @property
    def is_open(self) -> bool:
        """Whether the account is certainly open, so that a request without a rate need not ask."""
        ...

    async def acquire(self, *, rate: float | None, max_wait: float) -> str | None:
        """Wait for the turn of one request; return why it is only this process's, or ``None`` if all agree on it.

        Args:
            rate: Requests a second of all processes together; ``None`` = as they come, while the account is open.
            max_wait: Seconds. Where the wait would be as long or longer, no turn is taken.

        Raises:
            RateLimitedError: The turn would come too late; ``retry_after`` says when one would.
            LimitsUnavailableError: It is unknown when the turn would come, and nothing is to be sent then.
        """
        ...

    async def close(self, seconds: float) -> None:
        """Hold the requests of all processes back for ``seconds``, or for as long as before if that is longer."""
        ...
