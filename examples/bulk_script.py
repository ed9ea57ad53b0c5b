"""Re-send codes to the sessions of a file, one a line, and tell which got none. Killed, it goes on when it runs again.

KODMOBI_API_KEY=… python bulk_script.py sessions.txt sms
"""

import asyncio
import sys
from pathlib import Path

from kodmobi_async import BulkStoppedError, KodmobiClient
from kodmobi_async.journal import Journal, State


async def main(file: Path, channel: str) -> int:
    failed = 0
    with file.open(encoding="utf-8") as lines:
        requests = ((line.strip(), channel) for line in lines)
        async with (
            KodmobiClient() as client,
            Journal.open(file.with_suffix(".journal")) as journal,
            client.send_many(requests, journal=journal, max_wait=120.0) as outcomes,
        ):
            try:
                async for _ in outcomes:
                    pass
            except BulkStoppedError as stopped:
                sys.exit(f"stopped after {stopped.done}: {stopped.error}")
            async for entry in journal.outcomes():
                if entry.state is not State.SENT:
                    failed += 1
                    print(entry.session_id, entry.state.word)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2])) > 0)
