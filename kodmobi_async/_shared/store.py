"""Where what processes share is kept, as this process sees it: available, or not.

The invariant: **during an outage no caller waits for the store.** The first command that fails begins the outage; from
then on, commands fail at once, and writes become pending. The flusher tries to reach the store, with growing delays.
When it accepts a probe, the outage ends, and the flusher writes what is pending.

A wrong set-up is not an outage: it does not come back by itself. Until the store has worked once, a caller gets
an error that says what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from typing import TYPE_CHECKING, Final, Protocol, TypeGuard

from kodmobi_async._rules.clock import LoopClock
from kodmobi_async._shared.backlog import Backlog, PendingWrite
from kodmobi_async._shared.operations import FREE, Operation, Reply, Unavailable
from kodmobi_async._values.errors import WrongLoopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from kodmobi_async._shared.operations import WrongSetup

_log: Final = logging.getLogger("kodmobi_async")

# Seconds between attempts to reach a store that is unavailable; the first and the longest.
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0

# Connections that a fork has copied. Their sockets are the parent's: they are neither closed here nor collected.
_parents_connections: Final[list[Connections]] = []


class Listener(Protocol):
    """Learns of changes of one slot."""

    async def wait(self, longest: float) -> None:
        """Wait until the slot may have changed, or it is time to look, for up to ``longest`` seconds."""
        ...


class Subscription(Protocol):
    """Tells of changes of slots that other processes make."""

    def listen(self, key: str) -> AbstractAsyncContextManager[Listener]:
        """Listen for changes of the key's slot."""
        ...

    def notify(self, key: str) -> None:
        """Wake the listener of the key's slot, if there is one."""
        ...


class Pipeline(Protocol):
    """Does operations."""

    def execute(self, operation: Operation, key: str, *arguments: str | int) -> Awaitable[Reply]:
        """Do an operation, whether anybody awaits its reply or not; the reply is never an exception."""
        ...


class Connections(Protocol):
    """What leads to the slots, for as long as one event loop lives."""

    @property
    def pipeline(self) -> Pipeline:
        """Does operations."""
        ...

    @property
    def subscription(self) -> Subscription:
        """Tells of changes."""
        ...

    async def open(self) -> None:
        """Make them ready, and see that they are closed with the loop."""
        ...

    async def aclose(self) -> None:
        """Close them."""
        ...


class Store:
    """Does operations where it is kept, over connections of the running loop.

    Args:
        connect: Makes the connections for a loop.
        survives_fork: Whether that makes connections for another process, too.
        name: Of the store, for the log.
        what: What it keeps, for errors.
        proofs: What has to work once, so that no later failure is a wrong set-up. The first of them shows that the
            store takes writes; its arguments are a name and milliseconds.
        probe: A key that no caller uses. With a caller's key in braces after it, it is on the same node.
        outage_consequence: What an outage means for callers, for the log.
        on_move: Called when another loop takes over.
    """

    def __init__(
        self,
        connect: Callable[[], Connections],
        *,
        survives_fork: bool,
        name: str,
        what: str = "the shared cooldowns",
        proofs: tuple[Operation, ...] = (Operation.RESERVE,),
        probe: str,
        outage_consequence: str,
        on_move: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._survives_fork = survives_fork
        self._name = name
        self._what = what
        self._probes_with = proofs[0]
        self._probe = probe
        self._outage_consequence = outage_consequence
        self._on_move = on_move
        self.clock = LoopClock(on_move=self._move)
        self.outage: str | None = None
        """Why the store is unavailable; ``None`` while it is available."""
        self.backlog = Backlog()
        self.flusher: asyncio.Task[None] | None = None
        self._connections: Connections | None = None
        self._process = 0
        self._unproven = set(proofs)
        self._failed_key: str | None = None

    async def request(self, operation: Operation, key: str, *arguments: str | int) -> Reply:
        """Do an operation. Its failure begins an outage.

        Raises:
            ConfigurationError: The set-up is wrong.
        """
        if self.outage is not None:
            self.flush_soon()  # which closing has stopped
            return Unavailable(self.outage)
        reply = await self._execute(operation, key, *arguments)
        if isinstance(reply, Unavailable):
            if self._is_wrong(reply.setup):
                raise reply.setup.error(self._what)
            self._begin_outage(key, reply)
        return reply

    async def write(self, write: PendingWrite) -> Reply:
        """Do an operation that must take effect: later, if not now, and even if the caller is cancelled."""
        self.backlog.add(write)
        try:
            if self.outage is not None:
                return Unavailable(self.outage)
            left = write.milliseconds_left(self.clock.now())
            reply = await self._execute(write.operation, write.key, write.token, left)
            if isinstance(reply, Unavailable):
                self._begin_outage(write.key, reply)
            else:
                self.backlog.confirm(write)
            return reply
        finally:
            if write in self.backlog:
                self.flush_soon()

    def write_later(self, write: PendingWrite) -> None:
        """Do an operation that must take effect without waiting for it."""
        self.backlog.add(write)
        self.flush_soon()

    def post(self, operation: Operation, key: str, *arguments: str | int) -> None:
        """Do an operation if that is possible now; do not wait for it."""
        if self.outage is None and self._connections is not None:
            self._connections.pipeline.execute(operation, key, *arguments)

    async def ping(self, name: str, *steps: tuple[Operation, *tuple[str | int, ...]]) -> Unavailable | None:
        """Do operations, with their arguments, on the key ``name`` that no caller uses; return the first failure.

        Raises:
            ConfigurationError: The set-up is wrong.
        """
        key = f"{self._probe}:{name}"
        replies = await asyncio.gather(*(self._execute(operation, key, *rest) for operation, *rest in steps))
        for reply in replies:
            if isinstance(reply, Unavailable):
                if reply.setup is not None:
                    raise reply.setup.error(self._what)
                return reply
        return None

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
        """Do all pending writes that still have a meaning; return whether the store has confirmed all of them."""
        # Whether it accepts a write: it may be there, and refuse that.
        probe = self._probe if self._failed_key is None else f"{self._probe}{{{self._failed_key}}}"
        reply = await self._execute(self._probes_with, probe, secrets.token_hex(12), 1)
        if isinstance(reply, Unavailable):
            if self._is_wrong(reply.setup):
                self.outage = None  # the next request raises it
            return False
        if self.outage is not None:
            self.outage = None
            _log.info("%s is available again", self._name)
        return all(await asyncio.gather(*map(self._flush_one, self.backlog.current(self.clock.now()))))

    async def _flush_one(self, write: PendingWrite) -> bool:
        left = write.milliseconds_left(self.clock.now())
        if isinstance(await self._execute(write.operation, write.key, write.token, left), Unavailable):
            return False
        self.backlog.confirm(write)
        return True

    def _is_wrong(self, setup: WrongSetup | None) -> TypeGuard[WrongSetup]:
        return setup is not None and (setup.always or bool(self._unproven))

    def _begin_outage(self, key: str, reply: Unavailable) -> None:
        if self.outage is None:
            self.outage, self._failed_key = reply.reason, key
            _log.warning("%s is unavailable (%s): %s", self._name, reply.reason, self._outage_consequence)
            self.flush_soon()

    async def _execute(self, operation: Operation, key: str, *arguments: str | int) -> Reply:
        connections = self._connections or await self._connected()
        reply = await connections.pipeline.execute(operation, key, *arguments)
        if self._unproven and _is_proof(operation, reply):
            self._unproven.discard(operation)
        return reply

    async def _connected(self) -> Connections:
        if self._connections is None:
            if self._process not in (0, os.getpid()) and not self._survives_fork:
                raise WrongLoopError(f"the client of {self._what} is the parent process's: make both in the child")
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


def _is_proof(operation: Operation, reply: Reply) -> bool:
    """Whether an operation has done all that it may have to do: a slot that is taken is only read."""
    return not isinstance(reply, Unavailable) and (operation is not Operation.RESERVE or reply[0] == FREE)
