"""Instructions of one call, counted by valgrind's callgrind: the figure that does not wobble.

A process makes N calls, another 2 N; what the second needs more, by N, is one call. Start-up, imports and the opening
of connections fall out. Run as a module it makes those calls: ``python -m benchmarks.instructions NAME PORT CALLS``.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.contestants import BASE, OURS, UNDER_CALLGRIND
from benchmarks.imports import BASIS, PACKAGE, compiling_once
from benchmarks.processes import ROOT, ServerProcess
from benchmarks.worker import Terms, drive, session_ids, stay_on_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

CONCURRENCY: Final = 64
LONGEST: Final = 600.0
"""Seconds after which a count is given up; a program under callgrind takes about 50 times as long."""

_TOTAL: Final = re.compile(r"^(?:summary|totals): ([0-9]+)", re.MULTILINE)


@attrs.frozen
class Instructions:
    """What callgrind counted.

    Attributes:
        per_call: Of one call, by contestant.
        ratio: The same, as a multiple of the bare call's.
        calls: The N.
        imports: Of importing the package, as a multiple of importing what it stands on.
    """

    per_call: dict[str, int]
    ratio: dict[str, float]
    calls: int
    imports: float


def is_available() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def count_instructions(calls: int, names: tuple[str, ...] = (BASE, OURS, "tuned", "raw")) -> Instructions:
    """Count those of one call, for each contestant, and those of the import."""
    per_call = count_calls(calls, names)
    with compiling_once() as environment:
        programs = ("pass", f"import {BASIS}", f"import {PACKAGE}")
        for code in programs:
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, timeout=60)
        nothing, basis, ours = (_count("-c", code, environment=environment) for code in programs)
    return Instructions(
        per_call,
        {name: round(count / per_call[BASE], 3) for name, count in per_call.items()},
        calls,
        round((ours - nothing) / (basis - nothing), 3),
    )


def count_calls(calls: int, names: tuple[str, ...]) -> dict[str, int]:
    """Return the instructions of one call, for each contestant."""

    def of_calls(name: str, port: int, calls: int) -> int:
        return _count("-m", "benchmarks.instructions", name, str(port), str(calls))

    with ServerProcess() as server:
        return {
            name: round((of_calls(name, server.port, 2 * calls) - of_calls(name, server.port, calls)) / calls)
            for name in names
        }


def _count(*arguments: str, environment: Mapping[str, str] = os.environ) -> int:
    """Return the instructions of a Python program, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, *arguments]
        # a fixed seed: dictionaries and sets are laid out alike in every process
        settled = {**environment, "PYTHONHASHSEED": "0"}
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=settled, timeout=LONGEST)
        found = _TOTAL.search(out.read_text("utf-8", "replace"))
    if found is None:
        raise RuntimeError("callgrind wrote no total")
    return int(found[1])


def main() -> None:
    """Make the calls."""
    name, port, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stay_on_loopback()

    async def run() -> None:
        async with UNDER_CALLGRIND[name](Terms(port, "asyncio", CONCURRENCY).base, CONCURRENCY) as call:
            await drive(call, session_ids(CONCURRENCY), CONCURRENCY)
            await drive(call, session_ids(calls), CONCURRENCY)

    asyncio.run(run())


if __name__ == "__main__":
    main()
