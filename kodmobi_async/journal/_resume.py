"""What an earlier run left open: the service is asked about it, before anything is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING

from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import (
    BulkStoppedError,
    CooldownError,
    KodmobiError,
    NotFoundError,
    SessionExpiredError,
)
from kodmobi_async.journal._entries import ACCOUNT_ERRORS, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async.journal._entries import Entry
    from kodmobi_async.journal._journal import Journal


async def resolve(
    client: KodmobiClient,
    journal: Journal,
    cooldowns: CooldownTracker,
    *,
    concurrency: int,
    stopping: Callable[[], bool],
) -> None:
    """Do what `Journal.resolve` says."""
    intents = deque(await journal.intents())
    faults: list[KodmobiError] = []

    async def work() -> None:
        while intents and not faults and not stopping():
            try:
                await _resolve_one(client, journal, cooldowns, intents.popleft())
            except ACCOUNT_ERRORS as error:
                faults.append(error)

    await asyncio.gather(*(work() for _ in range(min(len(intents), concurrency))))
    if faults:
        raise BulkStoppedError("stopped before anything was sent", done=0, error=faults[0])


async def _resolve_one(client: KodmobiClient, journal: Journal, cooldowns: CooldownTracker, intent: Entry) -> None:
    blocked_for, is_answered = 0.0, True
    try:
        channels = await client.channels(intent.session_id)
        same = (each for each in channels if each.type.lower() == intent.channel.lower())
        blocked_for = max((each.timeout for each in same), default=0.0)
    except (NotFoundError, SessionExpiredError):
        pass  # it cannot be asked about any more
    except ACCOUNT_ERRORS:
        raise
    except KodmobiError:
        is_answered = False  # the next run may ask again
    with contextlib.suppress(CooldownError):  # blocked already, by another row of the same channel
        slot = await cooldowns.acquire(intent.session_id, intent.channel, lease=WINDOW)
        await cooldowns.start(slot, blocked_for or WINDOW)
    if blocked_for > 0:
        await journal.conclude(intent, State.SENT, json.dumps({"confirmed": True}))
    elif is_answered:
        message = "an earlier run ended before it knew the outcome, and the service does not tell"
        await journal.conclude(intent, State.UNKNOWN, json.dumps({"error": {"message": message}}))
