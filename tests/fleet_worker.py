"""A worker of a fleet whose dead are replaced within seconds."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from taskiq.api import run_receiver_task
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from kodmobi_async import KodmobiClient, Timeout
from kodmobi_async.integrations.taskiq import add_resend
from kodmobi_async.redis import RedisCooldownTracker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskiq import AsyncBroker

    from kodmobi_async.integrations.taskiq import ResendTask


@asynccontextmanager
async def open_client() -> AsyncGenerator[KodmobiClient]:
    async with (
        RedisCooldownTracker(os.environ["REDIS_URL"]) as cooldowns,
        KodmobiClient(cooldowns=cooldowns, timeout=Timeout(total=20.0)) as client,
    ):
        yield client


def make_fleet(redis_url: str) -> tuple[AsyncBroker, ResendTask]:
    results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis_url, serializer=JSONSerializer())
    queue = RedisStreamBroker(redis_url, consumer_id="0", idle_timeout=1_000, unacknowledged_lock_timeout=5)
    broker = queue.with_result_backend(results)
    return broker, add_resend(broker, open_client, grace=1.0)


async def main() -> None:
    broker, _ = make_fleet(os.environ["REDIS_URL"])
    await run_receiver_task(broker, run_startup=True, max_async_tasks=50)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
