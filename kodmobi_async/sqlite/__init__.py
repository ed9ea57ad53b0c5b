"""One window for the processes of one machine, kept in a file; no server, and nothing to install.

async with SqliteCooldownTracker("windows.db") as cooldowns, KodmobiClient(cooldowns=cooldowns) as client:
    await client.send(session_id, "sms")
"""

from __future__ import annotations

from kodmobi_async.sqlite._tracker import SqliteCooldownTracker

__all__ = ("SqliteCooldownTracker",)
