"""The server and the contestants as child processes that end when they are let go of."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from benchmarks.worker import Sample, Terms

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

ROOT: Final = Path(__file__).parents[1]


@contextlib.contextmanager
def on_one_processor() -> Generator[None]:
    """Keep this process, and those that it starts meanwhile, to the last processor. Only Linux can."""
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class ContestantError(Exception):
    """A contestant that is not installed, or that failed; the words say which.

    Attributes:
        worker: Whose.
    """

    def __init__(self, words: str, worker: Worker) -> None:
        super().__init__(words)
        self.worker = worker


class Child:
    """A module of this package in a process of its own; it ends when its standard input does.

    Args:
        module: Its name.
        arguments: What it is given.
        processor: Where to keep it, of the processors that there are: 0 = the first, -1 = the last. Only Linux can.
    """

    def __init__(self, module: str, *arguments: str, processor: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
        )
        if processor is not None and sys.platform == "linux":
            os.sched_setaffinity(self._process.pid, {sorted(os.sched_getaffinity(0))[processor]})

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
    """The server; ``port`` says where. It keeps to the first processor."""

    def __init__(self) -> None:
        super().__init__("server", processor=0)
        self.port = int(self.read())


class Worker(Child):
    """A contestant that opens its client for a match, and takes turns in it when it is told to.

    All contestants keep to the last processor, which so is never idle for long, while they take turns.
    """

    def __init__(self, name: str) -> None:
        super().__init__("worker", name, processor=-1)
        self.name = name

    @contextlib.contextmanager
    def match(self, terms: Terms) -> Generator[int]:
        """Open its client and warm up; yield the calls of a turn.

        Raises:
            ContestantError: That failed, for the reason that it says.
        """
        calls: int = self._ask(json.dumps(attrs.asdict(terms)))["calls"]
        try:
            yield calls
        finally:
            with contextlib.suppress(BrokenPipeError):  # where its process has ended, the match has, too
                self.write("")

    def turn(self) -> Sample:
        """Take a turn.

        Raises:
            ContestantError: There is no sample, for the reason that it says.
        """
        return Sample(**self._ask("again"))

    def _ask(self, line: str) -> dict[str, Any]:
        self.write(line)
        answer = self.read()
        if not answer:
            raise ContestantError("its process ended", self)
        reply: dict[str, Any] = json.loads(answer)
        if "missing" in reply:
            raise ContestantError(f"not installed: {reply['missing']}", self)
        if "failed" in reply:
            raise ContestantError(reply["failed"], self)
        return reply
