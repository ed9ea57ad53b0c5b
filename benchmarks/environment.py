"""Where and with what a run was made: versions and the date, and nothing that names the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.contestants import CONTESTANTS
from kodmobi_async import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

ALWAYS: Final = ("aiohttp", "attrs", "cattrs", "orjson", "python-ulid", "tenacity", "uvloop")


@attrs.frozen
class Environment:
    """Versions and the date."""

    date: str
    python: str
    system: str
    processors: int
    versions: dict[str, str]

    @classmethod
    def here(cls, contestants: Iterable[str] = ()) -> Environment:
        """Look around."""
        wanted = {*ALWAYS, *(package for name in contestants for package in CONTESTANTS[name].packages)}
        return cls(
            date=datetime.now(UTC).date().isoformat(),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            system=f"{platform.system()} {platform.machine()}",
            processors=os.cpu_count() or 0,
            versions={name: version for name in sorted(wanted, key=str.lower) if (version := _version(name))},
        )

    def to_markdown(self) -> str:
        """Return it in a sentence."""
        versions = " · ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.date} · {self.python} · {self.system}, {self.processors} processors · {versions}\n"


def _version(package: str) -> str | None:
    if package == "kodmobi_async":
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
