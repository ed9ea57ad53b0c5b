"""The connections to the server, for as long as one event loop lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.redis._pipeline import Pipeline
from kodmobi_async.redis._subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# One for each batch and one for the subscription, and as many again that a failed batch has not yet returned.
_MAX_CONNECTIONS: Final = 2 * (Pipeline.MAX_CONCURRENT_BATCHES + 1)


def connect(url: str) -> Redis:
    """Return a client for the server; it connects when it is used.

    It does not retry by itself: a batch has one timeout, and `Pipeline` counts the attempts.

    Raises:
        ConfigurationError: This is not the address of a server. The message does not repeat it: it may hold a password.
    """
    try:
        options: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "driver_info": None}
        options["max_connections"] = _MAX_CONNECTIONS
        return Redis.from_url(url, **options)  # pyright: ignore[reportUnknownMemberType] its options are untyped
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            "url takes an address like redis://localhost:6379/0: redis, rediss or unix, and only options that redis-py"
            " knows"
        ) from None


class Connections:
    """The connections of one event loop, and what uses them.

    Args:
        url: Of the server.
        timeout: Seconds for a command, retries included.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._client = connect(url)
        self.pipeline = Pipeline(self._client, timeout=timeout)
        self.subscription = Subscription(self._client.connection_pool, timeout=timeout)
        self._guard = self._closing()

    async def open(self) -> None:
        """Close the connections with the event loop if nobody does before: a loop finishes its generators first."""
        await anext(self._guard)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._guard.aclose()

    async def _closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.subscription.aclose()
            await self.pipeline.aclose()
            await self._client.aclose()
