"""The costs that are no calls: small operations, the import, and instructions, each beside what it may be at most."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.environment import Environment
from benchmarks.figures import table
from benchmarks.imports import ImportCost, measure_imports
from benchmarks.instructions import Instructions, count_instructions, is_available
from benchmarks.processes import ROOT, on_one_processor

# By the benchmark's name: what it is, and the microseconds that it may take at most.
OPERATIONS: Final[dict[str, tuple[str, float | None]]] = {
    "test_reserve_and_start": ("tracker: reserve and start", 1.5),
    "test_blocked_send": ("a send blocked by the cooldown", 5.0),
    "test_encode": ("codec: a request to bytes", None),
    "test_decode": ("codec: an answer to a result", None),
    "test_retry_after[seconds]": ("Retry-After: seconds", None),
    "test_retry_after[date]": ("Retry-After: a date", None),
}
LONGEST: Final = 300.0
PROCESSES: Final = 3
"""In so many, one after the other, the small operations are measured."""


@attrs.frozen
class Operation:
    """Microseconds of one small operation: the middle and the best of many batches, in several processes."""

    median: float
    low: float


@attrs.frozen
class Costs:
    """The outcome of a run; what could not be measured is ``None``."""

    environment: Environment
    operations: dict[str, Operation] | None
    imports: ImportCost
    instructions: Instructions | None

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps(attrs.asdict(self), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return the tables."""
        parts = [self.environment.to_markdown()]
        rows = [
            [words, f"{taken.median:.2f}", f"{taken.low:.2f}", "" if bound is None else f"{bound:.1f}"]
            for name, (words, bound) in OPERATIONS.items()
            if self.operations is not None and (taken := self.operations.get(name)) is not None
        ]
        if rows:
            parts.append(table(["operation", "µs, median", "µs, best", "aimed at"], rows))
        else:
            parts.append("- left out: small operations: pytest-benchmark is not installed\n")
        cost = self.imports
        parts.append(
            table(
                ["import, CPU", "ms, median", "ratio", "low-high", "aimed at"],
                [
                    ["aiohttp, attrs, cattrs, tenacity, ulid", f"{cost.basis.median:.0f}", "1.00 ×", "", ""],
                    [
                        "kodmobi_async",
                        f"{cost.ours.median:.0f}",
                        f"{cost.ratio.median:.2f} ×",
                        f"{cost.ratio.low:.2f}-{cost.ratio.high:.2f}",
                        "1.15 ×",
                    ],
                ],
            )
        )
        if self.instructions is None:
            parts.append("- left out: instructions: valgrind is not installed\n")
        else:
            counted = self.instructions
            rows = [
                [CONTESTANTS[name].label, f"{count / 1_000:,.0f}".replace(",", " "), f"{counted.ratio[name]:.2f} ×"]
                for name, count in sorted(counted.per_call.items(), key=lambda item: item[1])
            ]
            parts.append(table(["instructions of one call, 64 at a time", "thousands", "ratio"], rows))
            parts.append(f"Instructions of the import: {counted.imports:.2f} × those of what it stands on.\n")
        return "\n".join(parts)


def measure_costs(*, import_rounds: int, calls: int) -> Costs:
    """Run it."""
    return Costs(
        environment=Environment.here([OURS]),
        operations=_operations(),
        imports=measure_imports(import_rounds),
        instructions=count_instructions(calls) if is_available() else None,
    )


def _operations() -> dict[str, Operation] | None:
    """Run the micro-benchmarks in processes of their own; ``None`` if there is nothing to run them with."""
    with on_one_processor():
        runs = [_run_once() for _ in range(PROCESSES)]
    known = [run for run in runs if run is not None]
    if len(known) < len(runs):
        return None
    return {
        name: Operation(
            median=statistics.median(run[name].median for run in known), low=min(run[name].low for run in known)
        )
        for name in known[0]
    }


def _run_once() -> dict[str, Operation] | None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "micro.json"
        file = Path(__file__).with_name("test_micro.py")
        command = [sys.executable, "-m", "pytest", "-q", str(file), f"--benchmark-json={out}"]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=LONGEST)
        if not out.exists():
            print(done.stdout, done.stderr, file=sys.stderr)
            return None
        read: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return {
        each["name"]: Operation(
            median=round(each["stats"]["median"] / each["extra_info"]["operations"] * 1e6, 3),
            low=round(each["stats"]["min"] / each["extra_info"]["operations"] * 1e6, 3),
        )
        for each in read["benchmarks"]
    }
