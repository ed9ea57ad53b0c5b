"""A process that sends the same code as others do, at the same time; it takes orders, and tells what came of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

from kodmobi_async import KodmobiClient, KodmobiError
from kodmobi_async.redis import RedisCooldownTracker


async def hammer(client: KodmobiClient, session_id: str, sends: int) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    results: Counter[str] = Counter()
    longest = 0.0

    async def send() -> None:
        nonlocal longest
        began = loop.time()
        try:
            result = await client.send(session_id, "sms")
        except KodmobiError as error:
            results[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 that there is none is what the test is about
            results[f"foreign {error!r}"] += 1
        else:
            results[f"sent, {result.window}"] += 1
        longest = max(longest, loop.time() - began)

    await asyncio.gather(*(send() for _ in range(sends)))
    return {"results": dict(results), "longest": longest}


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    async with (
        RedisCooldownTracker(os.environ["REDIS_URL"]) as cooldowns,
        KodmobiClient(cooldowns=cooldowns) as client,
    ):
        await cooldowns.remaining("01K8N1VMPN0EE389K72YW0CBM2", "warm")
        say("ready")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            say(json.dumps(await hammer(client, **json.loads(line))))


asyncio.run(main())
