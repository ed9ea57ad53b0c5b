"""Hearing from other processes that a slot has changed, without asking again and again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redis.asyncio import ConnectionPool


class Ear:
    """Hears of changes of one key's slot, for all who wait for it here; one of them acts on what it hears."""

    __slots__ = ("confirmed", "deaf", "listeners", "rung")

    def __init__(self) -> None:
        self.confirmed = asyncio.Event()
        """Set when it is known whether anything will be heard from now on."""
        self.rung = asyncio.Event()
        """Set when something happened."""
        self.deaf = True
        """Nothing will be heard; ask instead, now and then."""
        self.listeners = 0


class Bell:
    """One connection that listens on behalf of all who wait in this process.

    Args:
        pool: Where the connection comes from.
        patience: Seconds to wait for the server to confirm that it will tell.
    """

    def __init__(self, pool: ConnectionPool, *, patience: float) -> None:
        self._pool = pool
        self._patience = patience
        self._ears: dict[str, Ear] = {}
        self._connection: Any = None  # of one of the library's several classes
        self._listener: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listen(self, key: str) -> AsyncGenerator[Ear]:
        """Listen for changes of the key's slot."""
        ear = self._ears.setdefault(key, Ear())
        ear.listeners += 1
        try:
            if self._listener is None:
                ear.confirmed.clear()
                self._listener = asyncio.create_task(self._serve())
            elif self._connection is not None and ear.deaf:
                await self._say("SUBSCRIBE", key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await ear.confirmed.wait()
            yield ear
        finally:
            ear.listeners -= 1
            if ear.listeners == 0:
                del self._ears[key]
                if self._connection is not None:
                    await self._say("UNSUBSCRIBE", key)

    def ring(self, key: str) -> None:
        """Wake who waits for changes of the key's slot."""
        if key in self._ears:
            self._ears[key].rung.set()

    async def aclose(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    async def _say(self, *words: str) -> None:
        # a connection that fails is noticed by the one who reads from it
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._connection.send_command(*words, check_health=False)

    async def _serve(self) -> None:
        connection: Any = None
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # its decorator
                self._connection = connection  # who comes from now on says so itself
                for key in tuple(self._ears):
                    await connection.send_command("SUBSCRIBE", key, check_health=False)
            while True:
                kind, channel, _ = await connection.read_response()
                ear = self._ears.get(channel.decode())
                if ear is None:
                    continue  # a change that nobody waits for any more
                if kind == b"message":
                    ear.rung.set()
                elif kind == b"subscribe":
                    ear.deaf = False
                    ear.confirmed.set()
        except Exception:  # noqa: BLE001, S110 whatever the library raises, the outcome is the same: nothing is heard
            pass
        finally:
            self._connection = self._listener = None
            for ear in self._ears.values():
                ear.deaf = True
                ear.confirmed.set()
                ear.rung.set()
            if connection is not None:
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
