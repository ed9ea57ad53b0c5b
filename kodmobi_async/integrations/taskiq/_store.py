"""What is known of sends that were handed to the fleet: who began them, and what came of them.

The invariant: **of all runs that are given the same send, one begins it.** To ask whether a send was begun, and to
begin it, is one step. A send that has begun stays so until it is finished, or until its run, which knows that nothing
was sent, releases it.

The store is where the broker keeps its results. Redis and memory also carry the results of batches, as a stream that
one feeder reads; other backends keep single tasks only, and have no such step: two runs at the same moment may both
begin.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import attrs
from orjson import loads
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.depends.progress_tracker import TaskProgress  # pyright: ignore[reportMissingTypeStubs] a part without types

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from taskiq import AsyncBroker, AsyncResultBackend

KEEP: Final = 86_400.0
"""Seconds for which a send is remembered."""


@attrs.frozen
class Elsewhere:
    """Another run has begun the send ``age`` seconds ago."""

    age: float


@attrs.frozen
class Finished:
    """The send has this outcome; ``None`` = its feeder was told, and nobody else asks."""

    outcome: Any


class SendStore(ABC):
    """Keeps the sends of single tasks."""

    @abstractmethod
    def begin(self, send_id: str, token: str) -> Awaitable[Elsewhere | Finished | None]:
        """Begin a send for the run with this token; return what keeps it from that, or ``None``.

        Raises:
            CooldownUnavailableError: The server is unavailable. The send may have begun: begin it again.
        """

    @abstractmethod
    def release(self, send_id: str, token: str) -> Awaitable[None]:
        """Let other runs begin a send that has begun with this token; nothing was sent."""

    @abstractmethod
    def finish(self, send_id: str, outcome: dict[str, Any]) -> Awaitable[None]:
        """Keep the outcome of a send, unless it has one."""

    async def aclose(self) -> None:  # noqa: B027 most have nothing to close
        """Close what was opened for the store."""


class BatchStore(SendStore):
    """Carries the results of batches, too. To release a send begins at once, whether or not it is awaited."""

    @abstractmethod
    def publish(self, results: str, report: bytes, finished: Sequence[tuple[str, bytes]]) -> Awaitable[None]:
        """Append a report to a stream of results, and keep the outcomes in it, in one step.

        Args:
            results: The stream.
            report: What its feeder reads.
            finished: The ids of sends, and their outcomes in JSON; ``b""`` = the report alone has it.

        Raises:
            CooldownUnavailableError: The server is unavailable.
        """

    @abstractmethod
    async def read(self, results: str, after: str, *, timeout: float) -> tuple[str, list[bytes]]:  # noqa: ASYNC109 of the server
        """Return the reports after a position in a stream, and the position of the last; wait for one.

        Raises:
            CooldownUnavailableError: The server is unavailable.
        """

    @abstractmethod
    async def forget(self, results: str, position: str | None = None) -> None:
        """Delete the reports up to a position; by default, the stream."""


class MemoryStore(BatchStore):
    """Sends of one process."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[str, float]] = {}
        self._finished: dict[str, Any] = {}
        self._reports: dict[str, list[bytes]] = {}
        self._news = asyncio.Event()

    async def begin(self, send_id: str, token: str) -> Elsewhere | Finished | None:
        """Begin a send."""
        if send_id in self._finished:
            return Finished(self._finished[send_id])
        now = asyncio.get_running_loop().time()
        holder, since = self._begun.setdefault(send_id, (token, now))
        return None if holder == token else Elsewhere(now - since)

    def release(self, send_id: str, token: str) -> Awaitable[None]:
        """Let other runs begin a send."""
        if self._begun.get(send_id, ("",))[0] == token:
            del self._begun[send_id]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def finish(self, send_id: str, outcome: dict[str, Any]) -> None:
        """Keep the outcome of a send."""
        self._finished.setdefault(send_id, outcome)

    async def publish(self, results: str, report: bytes, finished: Sequence[tuple[str, bytes]]) -> None:
        """Append a report."""
        for send_id, outcome in finished:
            self._finished.setdefault(send_id, loads(outcome) if outcome else None)
        self._reports.setdefault(results, []).append(report)
        self._news.set()

    async def read(self, results: str, after: str, *, timeout: float) -> tuple[str, list[bytes]]:  # noqa: ASYNC109 as above
        """Return the reports after a position."""
        position = int(after)
        try:
            async with asyncio.timeout(timeout):
                while len(self._reports.get(results, ())) <= position:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return after, []
        found = self._reports[results][position:]
        return str(position + len(found)), found

    async def forget(self, results: str, position: str | None = None) -> None:
        """Delete the stream."""
        if position is None:
            self._reports.pop(results, None)


class ProgressStore(SendStore):
    """Sends of single tasks, noted as their progress: what any backend can do, in more than one step."""

    SENDING: Final = "kodmobi: sending"
    WAITING: Final = "kodmobi: waiting"

    def __init__(self, backend: AsyncResultBackend[Any]) -> None:
        self._backend = backend

    async def begin(self, send_id: str, token: str) -> Elsewhere | None:
        """Begin a send, unless a run has."""
        note = await self._backend.get_progress(send_id)
        if note is not None and note.state == self.SENDING and note.meta != token:
            return Elsewhere(0.0)
        await self._backend.set_progress(send_id, TaskProgress(state=self.SENDING, meta=token))
        return None

    async def release(self, send_id: str, token: str) -> None:
        """Let other runs begin a send."""
        await self._backend.set_progress(send_id, TaskProgress(state=self.WAITING, meta=token))

    async def finish(self, send_id: str, outcome: dict[str, Any]) -> None:
        """Leave the outcome to the result of the task."""


_MEMORY: Final[WeakKeyDictionary[AsyncResultBackend[Any], dict[str, MemoryStore]]] = WeakKeyDictionary()


def open_store(broker: AsyncBroker, task_name: str, keep: float = KEEP) -> SendStore:
    """Return the store of a task's sends.

    Args:
        broker: Its broker.
        task_name: The name of the single task.
        keep: Seconds for which Redis remembers a send.
    """
    backend: AsyncResultBackend[Any] = broker.result_backend
    if isinstance(backend, InmemoryResultBackend):
        return _MEMORY.setdefault(backend, {}).setdefault(task_name, MemoryStore())
    try:
        from kodmobi_async.integrations.taskiq._redis_store import open_redis_store  # noqa: PLC0415 needs an extra
    except ModuleNotFoundError:
        return ProgressStore(backend)
    return open_redis_store(backend, task_name, keep) or ProgressStore(backend)
