"""A process that shares an account's limits with others: it sends as it is told to, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

from kodmobi_async import KodmobiClient, KodmobiError, Limits, RetryPolicy, Timeout
from kodmobi_async.redis import RedisLimits


async def send(client: KodmobiClient, sessions: list[str], *, callers: int, pause: float) -> dict[str, int]:
    """Send to all sessions, so many at a time, each after a pause; count how the calls ended."""
    results: Counter[str] = Counter()

    async def call() -> None:
        while sessions:
            await asyncio.sleep(pause)
            try:
                await client.send(sessions.pop(), "sms")
            except KodmobiError as error:
                results[f"{type(error).__name__}, {error.outcome}"] += 1
            except IndexError:
                return
            else:
                results["sent"] += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return dict(results)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    rate: Any = json.loads(sys.argv[1])
    async with (
        RedisLimits(os.environ["REDIS_URL"]) as shared,
        KodmobiClient(
            limits=Limits(rate=rate, shared=shared), retry=RetryPolicy(attempts=9), timeout=Timeout(total=60.0)
        ) as client,
    ):
        await client.settings()
        say("ready")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            say(json.dumps(await send(client, **json.loads(line))))


asyncio.run(main())
