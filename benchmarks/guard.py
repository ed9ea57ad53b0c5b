"""Fail when a send has become dearer: its instructions beside a bare aiohttp call's, against the figure committed here.

``python -m benchmarks.guard`` counts and compares, where valgrind is installed; with ``--write`` it writes the figure.
The figure is a ratio, by the versions of Python and aiohttp: what differs from machine to machine falls out of it. So
is that of a send with a hook beside one without, which is the same everywhere.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.contestants import BASE, HOOKED, OURS
from benchmarks.instructions import count_calls, is_available

FIGURES: Final = Path(__file__).parent / "results" / "instructions.json"
CALLS: Final = 300
ALLOWED: Final = 1.03
"""How much dearer than the figure a send may be."""

ONE_HOOK: Final = 1.10
"""A send with a hook that does nothing, beside one without."""


def main() -> int:
    """Count, and compare or write."""
    python, peer = f"{sys.version_info.major}.{sys.version_info.minor}", metadata.version("aiohttp")
    if not is_available():
        print("skipped: valgrind is not installed, and counts the instructions")
        return 0
    per_call = count_calls(CALLS, (BASE, OURS, HOOKED))
    ratio = round(per_call[OURS] / per_call[BASE], 4)
    print(f"a send on Python {python}: {per_call[OURS]:,} instructions, {ratio:.4f} x a bare call of aiohttp {peer}")
    hooked = per_call[HOOKED] / per_call[OURS]
    print(f"with a hook that does nothing: {hooked:.4f} x one without")
    found = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    figures: dict[str, float] = found.get(peer, {})
    if "--write" in sys.argv:
        found = {peer: dict(sorted({**figures, python: ratio}.items()))}
        FIGURES.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        return 0
    if hooked > ALLOWED * ONE_HOOK:
        print(f"error: a hook costs more than {ALLOWED} x the {ONE_HOOK} x that it may")
        return 1
    if python not in figures:
        print(f"skipped: there is no figure for Python {python} and aiohttp {peer}; --write makes one")
        return 0
    if ratio > ALLOWED * figures[python]:
        print(
            f"error: more than {ALLOWED} x the figure, {figures[python]:.4f}: make it cheaper, or --write, and say why"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
