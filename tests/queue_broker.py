"""A queue for several workers of one process, each as Taskiq runs it: what the virtual clock needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from taskiq import AckableMessage, AsyncBroker
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.receiver import Receiver

from kodmobi_async import KodmobiClient, Limits, RetryPolicy
from kodmobi_async.integrations.taskiq import add_resend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskiq import AsyncResultBackend
    from taskiq.message import BrokerMessage

    from kodmobi_async.emulator import Emulator
    from kodmobi_async.integrations.taskiq import ResendTask

NEVER_TWICE = RetryPolicy(attempts=1, repeat_unknown=False)


class Queue:
    """What brokers share: messages, and results."""

    def __init__(self, results: AsyncResultBackend[Any] | None = None) -> None:
        self.waiting: deque[bytes] = deque()
        self.kicked: list[bytes] = []
        self.results = InmemoryResultBackend[Any](max_stored_results=-1) if results is None else results
        self._news = asyncio.Event()

    def put(self, message: bytes) -> None:
        self.waiting.append(message)
        self._news.set()

    async def get(self) -> bytes:
        while not self.waiting:
            self._news.clear()
            await self._news.wait()
        return self.waiting.popleft()


class QueueBroker(AsyncBroker):
    """A broker that gives what was not acknowledged back when it is lost."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.with_result_backend(queue.results)
        self._queue = queue

    async def kick(self, message: BrokerMessage) -> None:
        self._queue.kicked.append(message.message)
        self._queue.put(message.message)

    async def listen(self) -> AsyncGenerator[bytes | AckableMessage]:
        while True:
            yield AckableMessage(data=await self._queue.get(), ack=lambda: None)


class Worker:
    """One of the fleet."""

    def __init__(self, queue: Queue, emulator: Emulator, connections: int = 100, **settings: Any) -> None:
        self.broker = QueueBroker(queue)
        self.broker.is_worker_process = True
        limits = Limits(connections=connections)
        self.client = KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=NEVER_TWICE, limits=limits)
        self.resend: ResendTask = add_resend(self.broker, lambda: self.client, **settings)
        self._finish = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(Receiver(self.broker, max_async_tasks=10).listen(self._finish))

    async def stop(self) -> float:
        """Ask it to stop, as SIGTERM does; return how long that took."""
        assert self._task is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._finish.set()
        await self._task
        took = loop.time() - began
        await self.broker.shutdown()
        self._task = None
        return took


@contextlib.asynccontextmanager
async def running_worker(queue: Queue, emulator: Emulator, **settings: Any) -> AsyncGenerator[Worker]:
    worker = Worker(queue, emulator, **settings)
    worker.start()
    try:
        yield worker
    finally:
        if worker._task is not None:
            await worker.stop()
