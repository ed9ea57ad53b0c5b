"""What importing the package costs beside importing what it stands on, each in a fresh interpreter, turn by turn.

Each is compared with the two turns beside it. All of it is compiled beforehand, as what pip installs is.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.figures import Spread
from benchmarks.processes import ROOT, on_one_processor

if TYPE_CHECKING:
    from collections.abc import Generator

BASIS: Final = "aiohttp, attrs, cattrs, tenacity, ulid"
PACKAGE: Final = "kodmobi_async"

_SCRIPT: Final = "import time; began = time.process_time(); import {modules}; print(time.process_time() - began)"


@attrs.frozen
class ImportCost:
    """Milliseconds of processor time for importing.

    Attributes:
        basis: Of what the package stands on.
        ours: Of the package, with all that.
        ratio: Of the two, in turns beside each other.
    """

    basis: Spread
    ours: Spread
    ratio: Spread


def measure_imports(rounds: int) -> ImportCost:
    """Import in turn; the first time only compiles."""
    with compiling_once() as environment, on_one_processor():
        _once(PACKAGE, environment)
        basis, ours = [_once(BASIS, environment)], []
        for _ in range(rounds):
            ours.append(_once(PACKAGE, environment))
            basis.append(_once(BASIS, environment))
    turns = zip(ours, basis, basis[1:], strict=False)
    return ImportCost(
        basis=Spread.of(basis),
        ours=Spread.of(ours),
        ratio=Spread.of(2 * turn / (before + after) for turn, before, after in turns),
    )


@contextlib.contextmanager
def compiling_once() -> Generator[dict[str, str]]:
    """Yield an environment whose programs keep what they compile, whatever this one's settings and files are."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield {**kept, "PYTHONPYCACHEPREFIX": folder}


def _once(modules: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _SCRIPT.format(modules=modules)]
    done = subprocess.run(
        command, check=True, capture_output=True, encoding="utf-8", cwd=ROOT, env=environment, timeout=60
    )
    return float(done.stdout) * 1_000
