"""The control interface keeps what its OpenAPI document promises, whatever it is sent."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from background import emulator_in_background

from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from pathlib import Path

# What is generated for each operation and each kind of test; the seed makes a run repeatable.
MAX_EXAMPLES = 20
SEED = 1


def test_fuzzing_finds_no_failure_no_hang_and_nothing_undocumented(tmp_path: Path) -> None:
    # On a virtual clock, a wait for a delivery is over at once. The stream of events has no end, so it is left out.
    with emulator_in_background(loop_factory=VirtualClockLoop) as background:
        root = background.emulator.base_url.removesuffix("/session")
        program = "from schemathesis.cli import schemathesis; schemathesis()"
        command = [sys.executable, "-c", program, "run", f"{root}/_emulator/openapi.json"]
        limits = ["--exclude-operation-id", "watch", "--request-timeout", "20", "--max-failures", "3"]
        amount = ["--max-examples", str(MAX_EXAMPLES), "--phases", "coverage,fuzzing,stateful", "--seed", str(SEED)]
        done = subprocess.run(
            [*command, *limits, *amount, "--no-color", "--generation-database", "none"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
            timeout=300,
            cwd=tmp_path,
        )
        assert done.returncode == 0, "\n".join(line[:300] for line in done.stdout.splitlines())
        assert "12 selected" in done.stdout
