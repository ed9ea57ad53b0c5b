"""A listening port, and a task for each connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from kodmobi_async.emulator._http import Connection

__all__ = ("Listener",)

# Connections that wait to be accepted. With the default of 100, the kernel drops what a larger burst brings.
_BACKLOG: Final = 4096
# asyncio needs this many turns of the loop to make a transport of a connection; closing the server earlier leaks it.
_TURNS_TO_ACCEPT: Final = 3


@attrs.define(eq=False)
class Listener:
    """Accept connections, and serve each in its own task.

    Attributes:
        connections: How many connections were accepted.
    """

    _serve: Callable[[Connection], Awaitable[None]]
    connections: int = attrs.field(init=False, default=0)
    _server: asyncio.Server | None = attrs.field(init=False, default=None)
    _tasks: set[asyncio.Task[None]] = attrs.field(init=False, factory=set[asyncio.Task[None]])

    @property
    def listening(self) -> bool:
        """Whether the port is open."""
        return self._server is not None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port: the one given, or a free one for 0.

        Raises:
            OSError: The port is in use.
        """
        self._server = await asyncio.start_server(self._accept, host, port, backlog=_BACKLOG)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is doing."""
        server, self._server = self._server, None
        if server is None:
            return
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        if self._server is None:  # about to close
            connection.abort()
            return
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve_until_gone(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in a finally of the task: a task that is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: connection.abort())

    async def _serve_until_gone(self, connection: Connection) -> None:
        # A client may go at any moment and in any way; that is not an error.
        with contextlib.suppress(OSError, EOFError):
            await self._serve(connection)
            await connection.close()
