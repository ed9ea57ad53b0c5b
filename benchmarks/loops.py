"""The event loops to measure on, and what their processes need of the system."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS: Final = ("asyncio", "uvloop")


def available() -> tuple[str, ...]:
    """Return the loops that are installed here."""
    return tuple(name for name in LOOPS if importlib.util.find_spec(name) is not None)


def fastest() -> str:
    """Return the loop that costs least."""
    return available()[-1]


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a new loop of that name.

    Raises:
        ImportError: It is not installed.
    """
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    uvloop: Any = importlib.import_module("uvloop")
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it; return how many that is."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # not on Windows
        return 512
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1_000_000 if hard == resource.RLIM_INFINITY else int(hard)
