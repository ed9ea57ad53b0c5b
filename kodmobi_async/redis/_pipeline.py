"""Scripts in batches: a few connections and a few round trips for any number of callers.

The commands of one turn of the event loop form a batch, which is one round trip; while one is under way, the next ones
gather for some milliseconds. On one server, a batch is one script that runs all of theirs. A batch has a timeout,
whatever the network does. When it fails, its connection is closed, and its commands go into another batch, once. A
reply is never an exception: an error of the server or of the network is an `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from kodmobi_async._shared.loop_bound import cancel_and_wait
from kodmobi_async._shared.operations import Operation, Reply, Unavailable
from kodmobi_async.redis._backend import MAX_BATCHES, UNREACHABLE
from kodmobi_async.redis._scripts import SCRIPTS, Call, unpacked, unpacked_many
from kodmobi_async.redis._setup import wrong_setup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kodmobi_async.redis._backend import Backend
    from kodmobi_async.redis._scripts import Script

_log: Final = logging.getLogger("kodmobi_async")
_SAFE_POLICY: Final = "noeviction"
_TIMEOUT_STEPS: Final = 10


class ClosedError(Exception):
    """The connections were closed before the server replied."""


def unavailable_because_of(error: BaseException) -> Unavailable:
    """Return what an error of the library means."""
    return Unavailable(type(error).__name__, wrong_setup(error))


class _Command:
    """A script to run, and the future of its reply."""

    __slots__ = ("arguments", "attempts", "key", "reply", "script")

    def __init__(
        self, script: Script, key: str, arguments: tuple[str | int, ...], reply: asyncio.Future[Reply]
    ) -> None:
        self.script = script
        self.key = key
        self.arguments = arguments
        self.reply = reply
        self.attempts = 0

    def finish(self, reply: Any) -> None:
        """Set the reply, unless the caller was cancelled."""
        if not self.reply.done():
            self.reply.set_result(unavailable_because_of(reply) if isinstance(reply, Exception) else unpacked(reply))


class Pipeline:
    """Runs scripts in batches.

    Args:
        backend: Where they run.
        timeout: Seconds until every command has its reply, all attempts included.
        what: What the server keeps, for the log.
        evictable: What of it gets lost if the server evicts keys.
    """

    MAX_CONCURRENT_BATCHES: Final = MAX_BATCHES
    """Batches in flight at a time, a connection each; fewer if the client has few connections."""

    MAX_BATCH_SIZE: Final = 256
    """Commands in a batch."""

    SOME: Final = 4
    """Commands in a batch after which the next one waits for a moment: a busy client gathers, an idle one does not."""

    MANY: Final = 64
    """Commands that do not wait."""

    GATHERING: Final = 0.0015
    """Seconds of that moment."""

    LONGEST_GATHERING: Final = 0.003
    """Seconds for which commands wait for a batch that is under way: a reply that is lost holds nobody up."""

    MAX_ATTEMPTS: Final = 2
    """Batches that a command goes into, at most: a lost reply is requested once more."""

    def __init__(
        self,
        backend: Backend,
        *,
        timeout: float,
        what: str = "the shared cooldowns",
        evictable: str = "open windows",
    ) -> None:
        self._backend = backend
        self._batch_timeout = 0.9 * timeout / self.MAX_ATTEMPTS
        self._queue: list[_Command] = []
        self._is_scheduled = False
        self._batches: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False
        self._is_busy = False
        self._policy_is_known = False
        self._what = what
        self._evictable = evictable

    def execute(self, operation: Operation, key: str, *arguments: str | int) -> asyncio.Future[Reply]:
        """Run an operation's script, and return its future reply; a cancellation may come too late to stop it."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._enqueue(_Command(SCRIPTS[operation], key, arguments, reply))
        return reply

    async def aclose(self) -> None:
        """Cancel all batches, and what waits for one."""
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._queue = self._queue, []
        for command in waiting:
            command.finish(ClosedError())
        await cancel_and_wait(tuple(self._batches))

    def _enqueue(self, command: _Command) -> None:
        self._queue.append(command)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._is_scheduled = False
        while self._queue and len(self._batches) < self._backend.max_batches:
            if (self._batches or self._timer is not None) and not self._is_late and len(self._queue) < self.MANY:
                self._gather(self.LONGEST_GATHERING)
                return
            self._is_late = False
            first, self._queue = self._queue[: self.MAX_BATCH_SIZE], self._queue[self.MAX_BATCH_SIZE :]
            commands = [command for command in first if not command.reply.done()]
            if commands:
                batch = asyncio.create_task(self._run(commands))
                self._batches.add(batch)
                batch.add_done_callback(self._on_batch_done)
                self._is_busy = len(commands) >= self.SOME

    def _gather(self, longest: float) -> None:
        """Let commands wait, so that more of them go together; but not for long."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(longest, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._is_late = True
        self._start_batches()
        self._is_late = False

    def _on_batch_done(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if self._is_busy:
            self._gather(self.GATHERING)
        else:
            self._start_batches()

    async def _run(self, commands: list[_Command]) -> None:
        replies: list[Any] = [ClosedError()] * len(commands)
        failed = False
        try:
            async with _SteppedTimeout(self._batch_timeout):
                replies = await self._send(commands)
        except Exception as error:  # noqa: BLE001 whatever the library raises: there is no reply
            replies = [error] * len(commands)
            failed = True
        finally:
            for command, reply in zip(commands, replies, strict=True):
                command.attempts += 1
                if (failed or isinstance(reply, UNREACHABLE)) and command.attempts < self.MAX_ATTEMPTS:
                    self._enqueue(command)
                else:
                    command.finish(reply)

    async def _send(self, commands: list[_Command]) -> list[Any]:
        steps = [(command.script, command.key, command.arguments) for command in commands]
        together = Call.of_many(steps) if self._backend.is_one_server and len(steps) > 1 else None
        if together is None:
            return await self._call([Call.of_one(*step) for step in steps])
        (reply,) = await self._call([together])
        return unpacked_many(reply, len(steps))

    async def _call(self, calls: Sequence[Call]) -> list[Any]:
        batch = [call.by_digest() for call in calls]
        if self._policy_is_known:
            replies = await self._backend.execute(batch)
        else:
            replies, policies = await self._backend.execute_and_inspect(batch)
            self._policy_is_known = True
            self._warn_of_eviction(policies)
        # A server that was restarted or replaced does not know the scripts.
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            repeated = await self._backend.execute([calls[number].by_text() for number in unknown])
            for number, reply in zip(unknown, repeated, strict=True):
                replies[number] = reply
        return replies

    def _warn_of_eviction(self, policies: set[str]) -> None:
        for policy in sorted(policies - {_SAFE_POLICY}):
            _log.warning(
                "the server of %s has maxmemory-policy %s: it may evict %s when its memory is full. Set it to %s",
                self._what,
                policy,
                self._evictable,
                _SAFE_POLICY,
            )


class _SteppedTimeout:
    """A timeout that passes in steps, a turn of the event loop each at least.

    A loop that is busy is late for everything, replies among it. That is not the server's fault.

    Raises:
        TimeoutError: The body did not finish in time.
    """

    __slots__ = ("_loop", "_scope", "_step", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._step = seconds / _TIMEOUT_STEPS
        self._scope = asyncio.timeout(None)
        self._timer = self._loop.call_later(self._step, self._on_step, _TIMEOUT_STEPS - 1)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _on_step(self, left: int) -> None:
        if left > 0:
            self._timer = self._loop.call_later(self._step, self._on_step, left - 1)
        else:
            self._scope.reschedule(self._loop.time())
