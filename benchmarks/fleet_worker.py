"""The processes that `benchmarks.fleet` starts: a worker that tells its processor time, and tasks that do nothing.

python -m benchmarks.fleet_worker own|shared REDIS_URL     (a worker; a line of input is answered with its CPU)
python -m benchmarks.fleet_worker nothing REDIS_URL TASKS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from taskiq.api import run_receiver_task
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from kodmobi_async import KodmobiClient
from kodmobi_async.integrations.taskiq import add_resend
from kodmobi_async.redis import RedisCooldownTracker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskiq import AsyncBroker


async def nothing() -> None:
    """Be a task that does nothing."""


def make_broker(url: str) -> AsyncBroker:
    """Return the queue as the example of a worker has it."""
    results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(url, serializer=JSONSerializer())
    queue = RedisStreamBroker(url, consumer_id="0", idle_timeout=300_000, unacknowledged_lock_timeout=10)
    broker = queue.with_result_backend(results)
    broker.register_task(nothing, task_name="nothing")
    return broker


async def work(kind: str, url: str) -> None:
    """Be a worker, with windows of its own or shared ones, until the standard input ends."""

    @asynccontextmanager
    async def open_client() -> AsyncGenerator[KodmobiClient]:
        if kind == "own":
            async with KodmobiClient() as client:
                yield client
            return
        async with RedisCooldownTracker(url) as cooldowns, KodmobiClient(cooldowns=cooldowns) as client:
            yield client

    broker = make_broker(url)
    add_resend(broker, open_client)
    receiving = asyncio.create_task(run_receiver_task(broker, run_startup=True, max_async_tasks=100))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(f"{time.process_time()}\n")
        sys.stdout.flush()
    receiving.cancel()
    await asyncio.wait([receiving])


async def kick_nothing(url: str, tasks: int) -> None:
    """Hand over tasks that do nothing, 256 at a time, wait for their results, and tell how long that took."""
    broker = make_broker(url)
    await broker.startup()
    task = broker.find_task("nothing")
    assert task is not None
    waiting = iter(range(tasks))

    async def feed() -> None:
        for _ in waiting:
            handed_over = await task.kiq()
            await handed_over.wait_result(check_interval=0.05)

    began = time.perf_counter()
    await asyncio.gather(*(feed() for _ in range(256)))
    sys.stdout.write(json.dumps({"wall": time.perf_counter() - began}) + "\n")
    await broker.shutdown()


def main() -> None:
    """Do what the arguments say."""
    kind, url, *rest = sys.argv[1:]
    asyncio.run(kick_nothing(url, int(rest[0])) if kind == "nothing" else work(kind, url))


if __name__ == "__main__":
    main()
