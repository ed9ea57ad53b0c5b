"""A FastAPI service with a button that re-sends a code; any number of workers, one window.

KODMOBI_API_KEY=… REDIS_URL=redis://localhost uvicorn fastapi_service:app --workers 2
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from kodmobi_async import KodmobiClient
from kodmobi_async.integrations.fastapi import Kodmobi, add_kodmobi_errors, kodmobi_lifespan
from kodmobi_async.redis import RedisCooldownTracker

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost")


@asynccontextmanager
async def open_client() -> AsyncGenerator[KodmobiClient]:
    async with (
        RedisCooldownTracker(REDIS_URL) as cooldowns,
        KodmobiClient(cooldowns=cooldowns) as client,
    ):
        yield client


app = FastAPI(lifespan=kodmobi_lifespan(open_client))
add_kodmobi_errors(app)


@app.post("/resend/{session_id}/{channel}")
async def resend(session_id: str, channel: str, kodmobi: Kodmobi) -> dict[str, float]:
    result = await kodmobi.send(session_id, channel)
    return {"again_in": result.channel.timeout}
