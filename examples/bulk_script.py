"""Re-send codes to the sessions of a file, one a line, and tell which got none.

KODMOBI_API_KEY=… python bulk_script.py sessions.txt sms
"""

import asyncio
import sys
from pathlib import Path

from kodmobi_async import BulkStoppedError, KodmobiClient, Outcome


async def main(file: Path, channel: str) -> int:
    failed = 0
    with file.open(encoding="utf-8") as lines:
        requests = ((line.strip(), channel) for line in lines)
        async with KodmobiClient() as client, client.send_many(requests, max_wait=120.0) as outcomes:
            try:
                async for outcome in outcomes:
                    if outcome.error is not None and outcome.error.outcome is not Outcome.ACCEPTED:
                        failed += 1
                        print(outcome.request.session_id, outcome.error)
            except BulkStoppedError as stopped:
                sys.exit(f"stopped after {stopped.done}: {stopped.error}")
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2])) > 0)
