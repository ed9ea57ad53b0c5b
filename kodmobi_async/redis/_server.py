"""The server of the shared cooldowns, as this process sees it: available, or not.

The invariant: **during an outage no caller waits for the server.** The first command that fails begins the outage; from
then on, commands fail at once, and writes become pending. The flusher tries to reach the server, with growing delays.
When the server accepts a probe, the outage ends, and the flusher writes what is pending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from typing import TYPE_CHECKING, Final

from kodmobi_async._rules.clock import LoopClock
from kodmobi_async.redis._backlog import Backlog, PendingWrite
from kodmobi_async.redis._pipeline import Reply, Unavailable
from kodmobi_async.redis._scripts import RESERVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async.redis._connection import Connections
    from kodmobi_async.redis._scripts import Script
    from kodmobi_async.redis._subscription import Subscription

_log: Final = logging.getLogger("kodmobi_async")

# Seconds between attempts to reach a server that is unavailable; the first and the longest.
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0

# Connections that a fork has copied. Their sockets are the parent's: they are neither closed here nor collected.
_parents_connections: Final[list[Connections]] = []


class Server:
    """Runs scripts on the server, over connections of the running loop.

    Args:
        connect: Makes the connections for a loop.
        probe: The key of a slot that no caller uses.
        outage_consequence: What an outage means for callers, for the log.
        on_move: Called when another loop takes over.
    """

    def __init__(
        self,
        connect: Callable[[], Connections],
        *,
        probe: str,
        outage_consequence: str,
        on_move: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._probe = probe
        self._outage_consequence = outage_consequence
        self._on_move = on_move
        self.clock = LoopClock(on_move=self._move)
        self.outage: str | None = None
        """Why the server is unavailable; ``None`` while it is available."""
        self.backlog = Backlog()
        self.flusher: asyncio.Task[None] | None = None
        self._connections: Connections | None = None
        self._process = 0

    async def request(self, script: Script, key: str, *arguments: str | int) -> Reply:
        """Run a script. Its failure begins an outage."""
        if self.outage is not None:
            return Unavailable(self.outage)
        reply = await self._execute(script, key, *arguments)
        if isinstance(reply, Unavailable) and self.outage is None:
            self.outage = reply.reason
            _log.warning(
                "the server of the shared cooldowns is unavailable (%s): %s", reply.reason, self._outage_consequence
            )
            self.flush_soon()
        return reply

    async def write(self, write: PendingWrite) -> Reply:
        """Run a script that must take effect: later, if not now, and even if the caller is cancelled."""
        self.backlog.add(write)
        try:
            left = write.milliseconds_left(self.clock.now())
            reply = await self.request(write.script, write.key, write.token, left)
            if not isinstance(reply, Unavailable):
                self.backlog.confirm(write)
            return reply
        finally:
            if write in self.backlog:
                self.flush_soon()

    def write_later(self, write: PendingWrite) -> None:
        """Run a script that must take effect without waiting for it."""
        self.backlog.add(write)
        self.flush_soon()

    async def subscription(self) -> Subscription:
        """Return the subscription of the running loop."""
        return (await self._connected()).subscription

    def notify(self, key: str) -> None:
        """Wake this process's listener of the key's slot."""
        if self._connections is not None:
            self._connections.subscription.notify(key)

    def flush_soon(self) -> None:
        """Start the flusher, unless it runs."""
        if self.flusher is None:
            self.flusher = asyncio.create_task(self._flush())

    async def aclose(self) -> None:
        """Write what is pending, once, and close all connections."""
        if self.flusher is not None:
            self.flusher.cancel()
            await asyncio.wait([self.flusher])
            self.flusher = None
        if self.backlog:
            await self._try_to_flush()
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.aclose()

    async def _flush(self) -> None:
        delay = _FIRST_DELAY
        while self.outage is not None or self.backlog:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 no secret
            if not await self._try_to_flush():
                delay = min(2 * delay, _LONGEST_DELAY)
        self.flusher = None

    async def _try_to_flush(self) -> bool:
        """Run all pending writes that still have a meaning; return whether the server has confirmed all of them."""
        # Whether it accepts a reservation: it may be there, and refuse to write.
        if isinstance(await self._execute(RESERVE, self._probe, secrets.token_hex(12), 1), Unavailable):
            return False
        if self.outage is not None:
            self.outage = None
            _log.info("the server of the shared cooldowns is available again")
        return all(await asyncio.gather(*map(self._flush_one, self.backlog.current(self.clock.now()))))

    async def _flush_one(self, write: PendingWrite) -> bool:
        left = write.milliseconds_left(self.clock.now())
        if isinstance(await self._execute(write.script, write.key, write.token, left), Unavailable):
            return False
        self.backlog.confirm(write)
        return True

    async def _execute(self, script: Script, key: str, *arguments: str | int) -> Reply:
        connections = self._connections or await self._connected()
        return await connections.pipeline.execute(script, key, *arguments)

    async def _connected(self) -> Connections:
        if self._connections is None:
            self._connections = self._connect()
            self._process = os.getpid()
            await self._connections.open()
        return self._connections

    def _move(self) -> None:
        """Begin anew on another loop: the tasks and connections of the last one have ended with it."""
        if self._connections is not None and self._process != os.getpid():
            _parents_connections.append(self._connections)  # pragma: no cover a forked child leaves no data
        self._connections = self.flusher = None
        self._on_move()
        if self.outage is not None or self.backlog:
            self.flush_soon()
