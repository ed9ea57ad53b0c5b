"""The server and the contestants as child processes that end when they are let go of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from benchmarks.worker import Sample, Terms

if TYPE_CHECKING:
    from types import TracebackType

ROOT: Final = Path(__file__).parents[1]


class ContestantError(Exception):
    """A contestant that is not installed, or that failed; the words say which."""


class Child:
    """A module of this package in a process of its own; it ends when its standard input does."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def read(self) -> str:
        """Return its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def write(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


class ServerProcess(Child):
    """The server; ``port`` says where."""

    def __init__(self) -> None:
        super().__init__("server")
        self.port = int(self.read())


class Worker(Child):
    """A contestant that plays rounds when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__("worker", name)
        self.name = name

    def play(self, terms: Terms) -> Sample:
        """Play a round.

        Raises:
            ContestantError: There is no sample, for the reason that it says.
        """
        self.write(json.dumps(attrs.asdict(terms)))
        line = self.read()
        if not line:
            raise ContestantError("its process ended")
        reply: dict[str, Any] = json.loads(line)
        if "missing" in reply:
            raise ContestantError(f"not installed: {reply['missing']}")
        if "failed" in reply:
            raise ContestantError(reply["failed"])
        return Sample(**reply)
