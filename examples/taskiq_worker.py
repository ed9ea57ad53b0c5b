"""A fleet that re-sends codes; start as many of these as you like, on as many machines.

KODMOBI_API_KEY=… REDIS_URL=redis://localhost taskiq worker taskiq_worker:broker
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from kodmobi_async import KodmobiClient
from kodmobi_async.integrations.taskiq import add_resend
from kodmobi_async.redis import RedisCooldownTracker

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost")


@asynccontextmanager
async def open_client() -> AsyncGenerator[KodmobiClient]:
    async with (
        RedisCooldownTracker(REDIS_URL) as cooldowns,
        KodmobiClient(cooldowns=cooldowns) as client,
    ):
        yield client


# from the stream's beginning; a dead worker's messages go to another after five minutes
queue = RedisStreamBroker(REDIS_URL, consumer_id="0", idle_timeout=300_000, unacknowledged_lock_timeout=10)
results: RedisAsyncResultBackend[object] = RedisAsyncResultBackend(
    REDIS_URL, result_ex_time=86_400, serializer=JSONSerializer()
)
broker = queue.with_result_backend(results)
resend = add_resend(broker, open_client)
