"""A subscription to what this process waits for or relies on, so that it need not poll the server.

The scripts publish each change of a slot, and each closure of an account, on the channel of its key. One connection
listens for the whole process. A message says only that something changed: whoever receives it looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from kodmobi_async._shared.loop_bound import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kodmobi_async.redis._backend import Backend

# Seconds between looks at a slot: while its changes are received, and while they are not.
_POLL_WHEN_ACTIVE: Final = 5.0
_POLL_OTHERWISE: Final = 1.0


class Listener:
    """Learns of changes of one key's slot, on behalf of everyone here who waits for it.

    Attributes:
        is_active: Whether changes are received. If not, poll instead.
        confirmed: Set when it is known whether changes are received.
        changed: Set when the slot changed, or may have changed.
        on_change: Called then, and when changes begin to be received.
    """

    __slots__ = ("changed", "confirmed", "is_active", "on_change", "users")

    def __init__(self) -> None:
        self.confirmed = asyncio.Event()
        self.changed = asyncio.Event()
        self.is_active = False
        self.on_change: Callable[[], None] | None = None
        self.users = 0

    def notify(self) -> None:
        """Note a change."""
        self.changed.set()
        if self.on_change is not None:
            self.on_change()

    async def wait(self, longest: float) -> None:
        """Wait until the slot may have changed, or it is time to look, for up to ``longest`` seconds."""
        interval = _POLL_WHEN_ACTIVE if self.is_active else _POLL_OTHERWISE
        interval *= random.uniform(0.8, 1.2)  # noqa: S311 no secret
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(longest, interval)):
                await self.changed.wait()
        self.changed.clear()


class Subscription:
    """One connection that is subscribed to the channels of all listeners.

    Args:
        backend: Where the connection comes from.
        timeout: Seconds to wait for the connection, and for the server to confirm a channel.
    """

    def __init__(self, backend: Backend, *, timeout: float) -> None:
        self._backend = backend
        self._timeout = timeout
        self._listeners: dict[str, Listener] = {}
        self._connection: Any = None  # of one of the library's several classes
        self._reader: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listen(self, key: str) -> AsyncGenerator[Listener]:
        """Listen for changes of the key's slot."""
        listener = self._listeners.setdefault(key, Listener())
        listener.users += 1
        try:
            await self._activate(key, listener)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await listener.confirmed.wait()
            yield listener
        finally:
            listener.users -= 1
            if listener.users == 0:
                del self._listeners[key]
                if self._connection is not None:
                    await self._send("UNSUBSCRIBE", key)

    async def watch(self, key: str, on_change: Callable[[], None]) -> Listener:
        """Have a function called whenever the key may have changed, and when changes begin or cease to be received.

        This does not wait until they are. Whoever calls it again, with a listener that is not active, tries again.
        """
        listener = self._listeners.setdefault(key, Listener())
        listener.users = 1  # until the connection is closed
        listener.on_change = on_change
        await self._activate(key, listener)
        return listener

    def notify(self, key: str) -> None:
        """Wake the listener of the key's slot, if there is one."""
        if key in self._listeners:
            self._listeners[key].notify()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            await cancel_and_wait([self._reader])

    async def _activate(self, key: str, listener: Listener) -> None:
        """See that the server is asked for the key's changes."""
        if self._reader is None:
            listener.confirmed.clear()
            self._reader = asyncio.create_task(self._read())
        elif self._connection is not None and not listener.is_active:
            await self._send("SUBSCRIBE", key)

    async def _send(self, command: str, key: str) -> None:
        # The reader notices a connection that fails.
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._connection.send_command(command, key.encode(), check_health=False)

    async def _read(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout):
                    connection = await stack.enter_async_context(self._backend.listening_connection())
                    self._connection = connection  # from now on, each new listener sends its own SUBSCRIBE
                    for key in tuple(self._listeners):
                        await connection.send_command("SUBSCRIBE", key.encode(), check_health=False)
                while True:
                    await self._receive(connection)
        except Exception:  # noqa: BLE001, S110 whatever the library raises: no change is received any more
            pass
        finally:
            self._connection = self._reader = None
            for listener in self._listeners.values():
                listener.is_active = False
                listener.confirmed.set()
                listener.notify()

    async def _receive(self, connection: Any) -> None:
        # However long it takes, and whatever the client's protocol and decoding.
        kind, channel, *_ = await connection.read_response(disable_decoding=True, timeout=math.inf, push_request=True)
        listener = self._listeners.get(channel.decode())
        if listener is None:
            return  # its last user has left
        if kind == b"message":
            listener.notify()
        elif kind == b"subscribe":
            listener.is_active = True
            listener.confirmed.set()
            if listener.on_change is not None:
                listener.on_change()  # before this, changes were not received
