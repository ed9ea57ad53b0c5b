"""All that reaches out to the server in the life of one event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.redis._bell import Bell
from kodmobi_async.redis._courier import Courier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Connections for the courier's trips, the bell's one, and as many again that a broken trip has not given back yet.
_CONNECTIONS: Final = 2 * (Courier.TRIPS + 1)


def connect(url: str) -> Redis:
    """Return a client for the server; nothing is connected yet.

    It never repeats a command by itself: a repeated reservation would find itself in its own way.

    Raises:
        ConfigurationError: This is no address of a server. The message never repeats it: it may hold a password.
    """
    try:
        options: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "driver_info": None}
        options["max_connections"] = _CONNECTIONS
        return Redis.from_url(url, **options)  # pyright: ignore[reportUnknownMemberType] its options are untyped
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            "url takes an address like redis://localhost:6379/0: redis, rediss or unix, and only options that redis-py"
            " knows"
        ) from None


class Link:
    """The connections, and what travels over them.

    Args:
        url: Of the server.
        timeout: Seconds for a question and its repetition.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._client = connect(url)
        self.courier = Courier(self._client, timeout=timeout)
        self.bell = Bell(self._client.connection_pool, patience=timeout)
        self._guard = self._closing()

    async def open(self) -> None:
        """See that nothing stays open if nobody closes this: a loop finishes its generators before it closes."""
        await anext(self._guard)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._guard.aclose()

    async def _closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.bell.aclose()
            await self.courier.aclose()
            await self._client.aclose()
