"""The file, for as long as one event loop lives: a thread that uses it, and who waits for slots in it."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from kodmobi_async._shared.loop_bound import LoopBound
from kodmobi_async._shared.operations import Reply, Unavailable
from kodmobi_async.sqlite._database import Database
from kodmobi_async.sqlite._setup import wrong_setup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from kodmobi_async._shared.operations import Operation
    from kodmobi_async.sqlite._database import Step

# Seconds between looks at a slot that another process holds: the first, and the longest.
_FIRST_POLL: Final = 0.02
_LONGEST_POLL: Final = 0.25


class Pipeline:
    """Does operations, those of one turn of the loop, and those that come while it does them, in one transaction.

    Args:
        path: The file.
        timeout: Seconds until every operation has its reply.
    """

    MAX_BATCH_SIZE: Final = 256
    """Operations in a transaction."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._timeout = timeout
        self._database = Database(path, timeout=timeout)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kodmobi_async.sqlite")
        self._queue: list[tuple[Step, asyncio.Future[Reply]]] = []
        self._worker: asyncio.Task[None] | None = None

    def execute(self, operation: Operation, key: str, *arguments: str | int) -> asyncio.Future[Reply]:
        """Do an operation, and return its future reply; a cancellation may come too late to stop it."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._queue.append(((operation, key, arguments), reply))
        loop.call_later(self._timeout, _expire, reply)
        if self._worker is None:
            self._worker = loop.create_task(self._work(loop))
        return reply

    async def aclose(self) -> None:
        """Close the file, once nothing uses it; what has not begun is not done."""
        for _, reply in self._queue:
            _expire(reply)
        self._queue.clear()
        closing = asyncio.wrap_future(self._thread.submit(self._database.close))
        self._thread.shutdown(wait=False)
        await asyncio.wait([closing], timeout=self._timeout)  # a thread that is stuck closes it later

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[: self.MAX_BATCH_SIZE], self._queue[self.MAX_BATCH_SIZE :]
                wanted = [(step, reply) for step, reply in batch if not reply.done()]
                if wanted:
                    replies = await loop.run_in_executor(self._thread, self._do, [step for step, _ in wanted])
                    for (_, reply), came in zip(wanted, replies, strict=True):
                        if not reply.done():
                            reply.set_result(came)
        finally:
            self._worker = None

    def _do(self, steps: list[Step]) -> list[Reply]:
        try:
            return [*self._database.execute(steps)]
        except Exception as error:  # noqa: BLE001 whatever it is, there is no reply
            return [Unavailable(_reason(error), wrong_setup(error))] * len(steps)


class Listener:
    """Looks at a slot from time to time, as nobody tells of what other processes do to it."""

    __slots__ = ("changed", "interval")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.interval = _FIRST_POLL

    async def wait(self, longest: float) -> None:
        """Wait until the slot may have changed, or it is time to look, for up to ``longest`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(longest, self.interval)):
                await self.changed.wait()
        self.changed.clear()
        self.interval = min(_LONGEST_POLL, 1.5 * self.interval)


class Subscription:
    """The listeners of this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    @contextlib.asynccontextmanager
    async def listen(self, key: str) -> AsyncGenerator[Listener]:
        """Listen for changes of the key's slot; a process has one caller at a time that waits for others."""
        self._listeners[key] = Listener()
        try:
            yield self._listeners[key]
        finally:
            del self._listeners[key]

    def notify(self, key: str) -> None:
        """Wake the listener of the key's slot, if there is one."""
        if key in self._listeners:
            self._listeners[key].changed.set()


class Connections(LoopBound):
    """What uses the file, on one event loop.

    Args:
        path: The file.
        timeout: Seconds until every operation has its reply.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        self.pipeline = Pipeline(path, timeout=timeout)
        self.subscription = Subscription()
        super().__init__()

    async def _close(self) -> None:
        await self.pipeline.aclose()


def _reason(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def _expire(reply: asyncio.Future[Reply]) -> None:
    if not reply.done():
        reply.set_result(Unavailable("TimeoutError"))
