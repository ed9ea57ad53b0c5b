"""Sends that are cancelled after any turn of the loop, for those who watch what is left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kodmobi_async import Hook, KodmobiClient, RetryPolicy
from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def cancelled_sends(emulator: Emulator, hook: Hook) -> AsyncIterator[int]:
    """Cancel a send after one turn of the loop, one after two, and so on until one is through; yield their number."""
    turns = 0
    through = False
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, retry=RetryPolicy(initial_backoff=0), hooks=[hook]
    ) as client:
        while not through:
            turns += 1
            emulator.clear_faults()
            emulator.script(Fault.answer(503))
            task = asyncio.create_task(client.send(emulator.add_session(), "sms"))
            for _ in range(turns):
                await asyncio.sleep(0)
            through = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            yield turns
