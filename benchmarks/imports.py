"""What importing the package costs beside importing what it stands on, each in a fresh interpreter, turn by turn."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import attrs

from benchmarks.figures import Spread
from benchmarks.processes import ROOT

BASIS: Final = "aiohttp, attrs, cattrs, tenacity, ulid"
PACKAGE: Final = "kodmobi_async"

_SCRIPT: Final = "import time; began = time.process_time(); import {modules}; print(time.process_time() - began)"


@attrs.frozen
class ImportCost:
    """Milliseconds of processor time for importing.

    Attributes:
        basis: Of what the package stands on.
        ours: Of the package, with all that.
        ratio: Of the two, turn by turn.
    """

    basis: Spread
    ours: Spread
    ratio: Spread


def measure_imports(rounds: int) -> ImportCost:
    """Import in turn; the first round only fills the caches."""
    pairs = [(_once(BASIS), _once(PACKAGE)) for _ in range(rounds + 1)][1:]
    return ImportCost(
        basis=Spread.of(basis for basis, _ in pairs),
        ours=Spread.of(ours for _, ours in pairs),
        ratio=Spread.of(ours / basis for basis, ours in pairs),
    )


def _once(modules: str) -> float:
    command = [sys.executable, "-c", _SCRIPT.format(modules=modules)]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=60)
    return float(done.stdout) * 1_000
