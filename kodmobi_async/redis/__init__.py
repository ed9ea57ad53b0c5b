"""One window, and one rate, for every process and machine, kept by Redis 7 or Valkey 7.2, or later (extra ``redis``).

async with RedisCooldownTracker("redis://localhost") as cooldowns, KodmobiClient(cooldowns=cooldowns) as client:
    await client.send(session_id, "sms")
"""

from __future__ import annotations

from kodmobi_async.redis._limits import RedisLimits
from kodmobi_async.redis._tracker import RedisCooldownTracker

__all__ = ("RedisCooldownTracker", "RedisLimits")
