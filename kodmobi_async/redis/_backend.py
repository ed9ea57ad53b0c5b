"""Where commands run: on one server, or on a cluster.

Arguments are bytes and numbers, and replies are not decoded, so that the client's encoding does not matter. Names of
commands are strings, which the library always encodes as ASCII.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ClusterDownError, ConnectionError, MaxConnectionsError, TimeoutError  # noqa: A004 its names

from kodmobi_async.redis._setup import UnknownServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline
    from redis.asyncio.sentinel import SentinelConnectionPool

Command: TypeAlias = tuple[bytes | str | int, ...]

MAX_BATCHES: Final = 16
"""Batches in flight at a time, a connection each."""

CONNECTIONS: Final = 2 * (MAX_BATCHES + 1)
"""One for each batch and one for the subscription, and as many again that a failed batch has not yet returned."""

UNREACHABLE: Final = (ConnectionError, TimeoutError, ClusterDownError)
"""Replies of the library's instead of the server's: the command may succeed when it is repeated."""


class Backend(Protocol):
    """Runs commands over the connections of a client."""

    max_batches: int
    """Batches that it has connections for."""

    is_one_server: bool
    """Whether a script may use any keys together."""

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip, and return their replies; errors of the server's are replies."""
        ...

    async def execute_and_inspect(self, commands: Sequence[Command]) -> tuple[list[Any], set[str]]:
        """Do so, and return what the servers do when their memory is full, as far as they say."""
        ...

    def listening_connection(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """Return a connection of which nothing else makes use."""
        ...

    async def aclose(self) -> None:
        """Close the client, if it is ours."""
        ...


class ServerBackend:
    """One server.

    Args:
        client: Its connections are used.
        owned: What to close.
    """

    is_one_server = True

    def __init__(self, client: Redis, *owned: Any) -> None:
        self._client = client
        self._owned = owned
        connections: int = client.connection_pool.max_connections
        self._may_listen = connections > 1
        self.max_batches = _batches(connections)

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip, and return their replies."""
        return await self._pipeline(commands).execute(raise_on_error=False)

    async def execute_and_inspect(self, commands: Sequence[Command]) -> tuple[list[Any], set[str]]:
        """Do so, and return what the server does when its memory is full."""
        pipeline = self._pipeline(commands)
        pipeline.execute_command("INFO", b"memory", NEVER_DECODE=True)  # pyright: ignore[reportUnknownMemberType]
        *replies, memory = await pipeline.execute(raise_on_error=False)
        return replies, _policies(memory)

    def _pipeline(self, commands: Sequence[Command]) -> Pipeline:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command, NEVER_DECODE=True)  # pyright: ignore[reportUnknownMemberType] half typed
        return pipeline

    @contextlib.asynccontextmanager
    async def listening_connection(self) -> AsyncGenerator[Any]:
        """Return a connection of which nothing else makes use."""
        if not self._may_listen:
            raise MaxConnectionsError
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # its decorator
        try:
            yield connection
        finally:
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def aclose(self) -> None:
        """Close the client, if it is ours."""
        for each in self._owned:
            await each.aclose()


class SentinelBackend(ServerBackend):
    """The server that Sentinels name.

    Args:
        client: Its connections are used.
        pool: Those connections.
        owned: What to close.
    """

    def __init__(self, client: Redis, pool: SentinelConnectionPool, *owned: Any) -> None:
        super().__init__(client, *owned)
        self._pool = pool
        self._sentinels: list[Any] = pool.sentinel_manager.sentinels  # pyright: ignore[reportUnknownMemberType]

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip, and return their replies."""
        async with self._service():
            return await super().execute(commands)

    async def execute_and_inspect(self, commands: Sequence[Command]) -> tuple[list[Any], set[str]]:
        """Do so, and return what the server does when its memory is full."""
        async with self._service():
            return await super().execute_and_inspect(commands)

    @contextlib.asynccontextmanager
    async def _service(self) -> AsyncGenerator[None]:
        try:
            yield
        except MasterNotFoundError:
            # Sentinels do not name a primary that is down, either: there is one soon. Do they know the service at all?
            services = [await each.sentinel_masters() for each in self._sentinels]
            if not any(self._pool.service_name in known for known in services):
                raise UnknownServiceError from None
            raise


class ClusterBackend:
    """A cluster. The library finds the node of each key, and follows redirections.

    Args:
        client: Its connections are used.
        owned: What to close.
    """

    is_one_server = False

    def __init__(self, client: RedisCluster, *owned: Any) -> None:
        self._client = client
        self._owned = owned
        self.max_batches = _batches(client.connection_kwargs["max_connections"])
        self._is_stale = False

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip to each node, and return their replies."""
        if self._is_stale:
            await self._client.initialize()  # which closes what it opened, if it fails
            await self._client.nodes_manager.initialize()
            self._is_stale = False
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except BaseException:
            self._is_stale = True
            raise
        # The library refreshes its map of the cluster for single commands only.
        self._is_stale = any(isinstance(reply, UNREACHABLE) for reply in replies)
        return replies

    async def execute_and_inspect(self, commands: Sequence[Command]) -> tuple[list[Any], set[str]]:
        """Do so, and return what the primaries do when their memory is full."""
        replies = await self.execute(commands)
        try:
            memories = await self._client.execute_command(
                "INFO", b"memory", target_nodes=RedisCluster.PRIMARIES, NEVER_DECODE=True
            )
        except Exception:  # noqa: BLE001 whatever the library raises: the policy is not worth the replies
            return replies, set()
        return replies, _policies(*memories.values())

    @contextlib.asynccontextmanager
    async def listening_connection(self) -> AsyncGenerator[Any]:
        """Return a connection of which nothing else makes use; messages of one node reach all of them."""
        await self._client.initialize()
        node = random.choice(self._client.get_primaries())  # noqa: S311 no secret
        connection = node.acquire_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        finally:
            await connection.disconnect(nowait=True)
            node.release(connection)

    async def aclose(self) -> None:
        """Close the client, if it is ours."""
        for each in self._owned:
            await each.aclose()


def _batches(connections: int) -> int:
    """Return how many batches may use as many connections: a client has other work to do as well."""
    return min(MAX_BATCHES, max(1, connections // 2))


def _policies(*memories: dict[str, Any] | Exception) -> set[str]:
    """Return what servers say about their memory; some refuse."""
    return {str(memory["maxmemory_policy"]) for memory in memories if not isinstance(memory, Exception)}
