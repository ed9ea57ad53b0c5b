"""Scripts in batches: a few connections and a few round trips for any number of callers.

The commands of one turn of the event loop form a batch, which is one round trip. A batch has a timeout, whatever the
network does. When it fails, its connection is closed, and its commands go into another batch, once. A reply is never an
exception: an error of the server or of the network is an `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from redis.exceptions import NoScriptError, RedisError

if TYPE_CHECKING:
    from types import TracebackType

    from redis.asyncio import Redis

    from kodmobi_async.redis._scripts import Script

_log: Final = logging.getLogger("kodmobi_async")
_SAFE_POLICY: Final = "noeviction"
_TIMEOUT_STEPS: Final = 10


@attrs.frozen
class Unavailable:
    """No reply: the server was not reached, did not reply in time, or refused the command.

    Attributes:
        reason: A few words, without anything of the address or of the server's reply.
    """

    reason: str


Reply: TypeAlias = list[int] | Unavailable


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
            self.reply.set_result(Unavailable(type(reply).__name__) if isinstance(reply, RedisError) else reply)


class Pipeline:
    """Runs scripts in batches.

    Args:
        client: Its connections are used. It must not retry by itself.
        timeout: Seconds until every command has its reply, all attempts included.
    """

    MAX_CONCURRENT_BATCHES: Final = 16
    """Batches in flight at a time, a connection each."""

    MAX_BATCH_SIZE: Final = 256
    """Commands in a batch."""

    MAX_ATTEMPTS: Final = 2
    """Batches that a command goes into, at most: a lost reply is requested once more."""

    def __init__(self, client: Redis, *, timeout: float) -> None:
        self._client = client
        self._batch_timeout = 0.9 * timeout / self.MAX_ATTEMPTS
        self._queue: list[_Command] = []
        self._is_scheduled = False
        self._batches: set[asyncio.Task[None]] = set()
        self._policy_is_known = False

    def execute(self, script: Script, key: str, *arguments: str | int) -> asyncio.Future[Reply]:
        """Run ``script``, and return the future of its reply. A cancellation may come too late to stop the script."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._enqueue(_Command(script, key, arguments, reply))
        return reply

    async def aclose(self) -> None:
        """Cancel all batches."""
        for batch in self._batches:
            batch.cancel()
        if self._batches:
            await asyncio.wait(self._batches)

    def _enqueue(self, command: _Command) -> None:
        self._queue.append(command)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._is_scheduled = False
        while self._queue and len(self._batches) < self.MAX_CONCURRENT_BATCHES:
            first, self._queue = self._queue[: self.MAX_BATCH_SIZE], self._queue[self.MAX_BATCH_SIZE :]
            commands = [command for command in first if not command.reply.done()]
            if commands:
                batch = asyncio.create_task(self._run(commands))
                self._batches.add(batch)
                batch.add_done_callback(self._on_batch_done)

    def _on_batch_done(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        self._start_batches()

    async def _run(self, commands: list[_Command]) -> None:
        replies: list[Any] = [Unavailable("closed")] * len(commands)
        failed = False
        try:
            async with _SteppedTimeout(self._batch_timeout):
                replies = await self._send(commands)
        except Exception as error:  # noqa: BLE001 whatever the library raises: there is no reply
            replies = [Unavailable(type(error).__name__)] * len(commands)
            failed = True
        finally:
            for command, reply in zip(commands, replies, strict=True):
                command.attempts += 1
                if failed and command.attempts < self.MAX_ATTEMPTS:
                    self._enqueue(command)
                else:
                    command.finish(reply)

    async def _send(self, commands: list[_Command]) -> list[Any]:
        replies = await self._exchange(commands, by_text=False)
        # A server that was restarted or replaced does not know the scripts.
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            repeated = await self._exchange([commands[number] for number in unknown], by_text=True)
            for number, reply in zip(unknown, repeated, strict=True):
                replies[number] = reply
        return replies

    async def _exchange(self, commands: list[_Command], *, by_text: bool) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            if by_text:
                pipeline.eval(command.script.text, 1, command.key, *command.arguments)
            else:
                pipeline.evalsha(command.script.digest, 1, command.key, *command.arguments)
        if self._policy_is_known:
            return await pipeline.execute(raise_on_error=False)
        pipeline.execute_command("INFO", "memory")  # pyright: ignore[reportUnknownMemberType] half typed
        *replies, memory = await pipeline.execute(raise_on_error=False)
        self._policy_is_known = True
        _warn_of_eviction(memory)
        return replies


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


def _warn_of_eviction(memory: Any) -> None:
    """Warn if the server may evict our keys. It may also refuse to show its settings."""
    policy = _SAFE_POLICY if isinstance(memory, Exception) else str(memory.get("maxmemory_policy", _SAFE_POLICY))
    if policy != _SAFE_POLICY:
        _log.warning(
            "the server of the shared cooldowns has maxmemory-policy %s: it may evict open windows when its memory is"
            " full. Set it to %s",
            policy,
            _SAFE_POLICY,
        )
