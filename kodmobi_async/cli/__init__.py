"""The command line, ``kodmobi``; it needs the extra: ``pip install 'kodmobi_async[cli]'``.

This module itself imports nothing of the extra, so that its absence is one clear line.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("main",)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; ``kodmobi --help`` lists them.

    Args:
        args: What follows the program's name; by default the process's own.
    """
    try:
        return _load()(sys.argv[1:] if args is None else args)
    except KeyboardInterrupt:
        return 130


def _load() -> Callable[[Sequence[str]], int]:
    try:
        from kodmobi_async.cli._app import run  # noqa: PLC0415 guarded: the extra may be missing
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        return _ask_for_extra
    return run


def _ask_for_extra(_: Sequence[str]) -> int:
    sys.stderr.write("error: the command line needs its extra: pip install 'kodmobi_async[cli]'\n")
    return 2
