"""Kill bulk runs at chosen moments and resume them; a program of its own, as its children kill themselves.

It imports the package once and forks for every run, so that a run costs a fraction of a second. Usage::

    python killed_runs.py BASE_URL MOMENT NUMBER STEP INPUT [INPUT ...]

For the first input, a run is killed when the MOMENT comes for the NUMBER-th time, for the next one STEP times later,
and so on; each is resumed. A line of JSON tells how the killed run ended, and what the resumed one counted. The first
run that ends before its moment has come is the last.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faulty_disk import FaultyDisk

from kodmobi_async import KodmobiClient
from kodmobi_async.cli import main
from kodmobi_async.journal import Journal, State, _file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

KILLED = -signal.SIGKILL


class Killer:
    """Counts the moments, and kills the process at one of them."""

    def __init__(self, number: int) -> None:
        self._left = number

    def strike(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, number: int) -> None:
    """Make this process kill itself at a moment."""
    killer = Killer(number)
    commit, send = _file.commit, KodmobiClient.send
    done = {"written": "write", "synced": "sync"}.get(moment)

    def before(call: str) -> int:
        if call == moment:
            killer.strike()
        return 0

    def after(call: str) -> None:
        if call == done:
            killer.strike()

    def fatal_commit(database: sqlite3.Connection, batch: Sequence[Any]) -> None:
        commit(database, batch)
        if moment == "committed":
            killer.strike()

    async def fatal_send(self: KodmobiClient, *args: Any, **settings: Any) -> Any:
        if moment == "before the request":
            killer.strike()
        result = await send(self, *args, **settings)
        if moment == "after the request":
            killer.strike()
        return result

    FaultyDisk(before=before, after=after, half=killer.strike if moment == "half written" else None)
    _file.commit = fatal_commit
    KodmobiClient.send = fatal_send  # type: ignore[method-assign] # the point of this program


async def script(source: Path, base_url: str) -> int:
    """Do what the command does, as a script of a user's own would."""
    lines = source.read_text().splitlines()
    requests = [(session, channel) for session, _, channel in (line.partition(",") for line in lines)]
    concurrency = int(os.environ["CONCURRENCY"])
    counts: dict[str, int] = {"sent": 0, "refused": 0, "unknown": 0, "confirmed": 0}
    unknown = ""
    async with (
        KodmobiClient(base_url=base_url) as client,
        Journal.open(f"{source}.journal") as journal,
        client.send_many(requests, journal=journal, concurrency=concurrency) as outcomes,
    ):
        async for _ in outcomes:
            pass
        async for entry in journal.outcomes():
            counts[entry.state.word] += 1
            counts["confirmed"] += "confirmed" in (entry.detail or "")
            if entry.state is State.UNKNOWN:
                unknown += f"{entry.session_id},{entry.channel}\n"
    Path(f"{source}.unknown").write_text(unknown)
    sys.stdout.write(json.dumps({"rows": len(lines), **counts}))
    sys.stdout.flush()
    return 0 if counts["sent"] == len(lines) else 8


def run(source: Path, base_url: str, kill: tuple[str, int] | None) -> int:
    """Run the command, or a script, in a child; its output goes to a file beside the input."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if kill is not None:
        arm(*kill)
    with source.with_suffix(".json").open("w") as output:
        os.dup2(output.fileno(), 1)
    if os.environ["KIND"] == "script":
        os._exit(asyncio.run(script(source, base_url)))
    args = ["bulk", str(source), "--journal", f"{source}.journal", "--base-url", base_url, "--json"]
    os._exit(main([*args, "--concurrency", os.environ["CONCURRENCY"], "--quiet", "--unknown", f"{source}.unknown"]))


def work(base_url: str, moment: str, numbers: range, sources: Sequence[Path]) -> None:
    for number, source in zip(numbers, sources, strict=True):
        killed = run(source, base_url, (moment, number))
        resumed = run(source, base_url, None)
        counts = json.loads(source.with_suffix(".json").read_text())
        sys.stdout.write(json.dumps({"source": str(source), "killed": killed, "resumed": resumed, **counts}) + "\n")
        sys.stdout.flush()  # what waits to be written would be in the next child, too
        if killed != KILLED:
            break


if __name__ == "__main__":
    begin, step = int(sys.argv[3]), int(sys.argv[4])
    inputs = [Path(name) for name in sys.argv[5:]]
    work(sys.argv[1], sys.argv[2], range(begin, begin + step * len(inputs), step), inputs)
