"""A process that shares an account's limits with others: it sends as it is told to, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

from kodmobi_async import KodmobiClient, KodmobiError, Limits, MemoryCooldownTracker, RetryPolicy, Timeout
from kodmobi_async.redis import RedisLimits


async def send(client: KodmobiClient, seconds: float, callers: int, timeout: float) -> dict[str, int]:
    """Send over one channel after the other, so many at a time, for so many seconds; count how the calls ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    results: Counter[str] = Counter()

    async def call() -> None:
        while loop.time() < until:
            try:
                await client.settings(timeout=Timeout(total=timeout))
            except KodmobiError as error:
                results[f"{type(error).__name__}, {error.outcome}"] += 1
                await asyncio.sleep(0.05)
            else:
                results["done"] += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return dict(results)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = json.loads(sys.argv[1])
    async with RedisLimits(os.environ["REDIS_URL"], on_outage=settings.get("on_outage", "local")) as shared:
        limits = Limits(rate=settings.get("rate"), shared=shared)
        async with KodmobiClient(
            limits=limits, cooldowns=MemoryCooldownTracker(), retry=RetryPolicy(attempts=settings.get("attempts", 1))
        ) as client:
            await shared.ping()
            say("ready")
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                say(json.dumps(await send(client, **json.loads(line))))


asyncio.run(main())
