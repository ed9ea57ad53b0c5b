"""What importing the package costs beside importing what it stands on, each in a fresh interpreter, turn by turn.

All of it is compiled beforehand, as what pip installs is.
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
from benchmarks.processes import ROOT

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
        ratio: Of the two, turn by turn.
    """

    basis: Spread
    ours: Spread
    ratio: Spread


def measure_imports(rounds: int) -> ImportCost:
    """Import in turn; the first round only compiles."""
    with compiling_once() as environment:
        pairs = [(_once(BASIS, environment), _once(PACKAGE, environment)) for _ in range(rounds + 1)][1:]
    return ImportCost(
        basis=Spread.of(basis for basis, _ in pairs),
        ours=Spread.of(ours for _, ours in pairs),
        ratio=Spread.of(ours / basis for basis, ours in pairs),
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
