"""The files that ``kodmobi bulk`` writes: the report of all rows, and those to try again or to look after."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from kodmobi_async import ConfigurationError
from kodmobi_async.cli._rows import STANDARD_INPUT
from kodmobi_async.journal import State

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kodmobi_async.cli._rows import BadRow, Input, Row

__all__ = ("Files", "Report", "check_apart")


@attrs.frozen(kw_only=True)
class Files:
    """Where to write what; ``None`` = nowhere.

    Attributes:
        output: A line of JSON for each row.
        failed: The rows that may be sent again.
        unknown: The rows whose outcome is unknown.
    """

    output: Path | None = None
    failed: Path | None = None
    unknown: Path | None = None


def check_apart(source: str, journal: Path | None, files: Files) -> None:
    """Make sure that no file is written over another.

    Raises:
        ConfigurationError: Two options name the same file.
    """
    named: list[tuple[str, Path]] = [] if source == STANDARD_INPUT else [("the input", Path(source))]
    options = {"--journal": journal, "--output": files.output, "--failed": files.failed, "--unknown": files.unknown}
    for option, path in options.items():
        if path is None:
            continue
        for other, taken in named:
            if _same(path, taken):
                raise ConfigurationError(f"{option} and {other} are the same file")
        named.append((option, path))


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        if one.exists() and other.exists():
            return one.samefile(other)
    return one.absolute() == other.absolute()


class Report:
    """The files, open. The first failure to write ends the writing, and is reported; the files are incomplete then.

    Args:
        header: The line above the rows in the input.
        fail: Called with what went wrong, once.
    """

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._output: IO[bytes] | None = None
        self._failed: IO[bytes] | None = None
        self._unknown: IO[bytes] | None = None
        self.is_broken = False

    @classmethod
    @contextlib.contextmanager
    def open(cls, files: Files, source: Input, fail: Callable[[str], None]) -> Generator[Report]:
        """Open the files; what they held is gone.

        Raises:
            ConfigurationError: One of them cannot be opened.
        """
        report = cls(fail)
        try:
            report._output = _opened("--output", files.output)
            report._failed = _opened("--failed", files.failed)
            report._unknown = _opened("--unknown", files.unknown)
            for file in (report._failed, report._unknown):
                if source.header is not None:
                    report._write(file, source.header)
            yield report
        finally:
            report.close()

    def row(self, row: Row, state: State, detail: str | None) -> None:
        """Write about a row; ``detail`` is a JSON object with more on it."""
        if self._output is not None:
            known: dict[str, Any] = {
                "line": row.line,
                "session_id": row.session_id,
                "channel": row.channel,
                "outcome": state.word,
            }
            self._write(self._output, json.dumps(known | json.loads(detail or "{}")).encode())
        if state is State.UNKNOWN:
            self._write(self._unknown, row.raw)
        elif state is not State.SENT:
            self._write(self._failed, row.raw)

    def bad_row(self, row: BadRow) -> None:
        """Write about a row that cannot be sent."""
        known = {"line": row.line, "outcome": "bad", "error": {"message": row.reason}}
        self._write(self._output, json.dumps(known).encode())

    def close(self) -> None:
        """Write what still waits, and close the files; a second time does no harm."""
        for file in (self._output, self._failed, self._unknown):
            if file is not None:
                try:
                    file.close()
                except OSError as error:
                    self._break(error)

    def _write(self, file: IO[bytes] | None, line: bytes) -> None:
        if file is None or self.is_broken:
            return
        try:
            file.write(line + b"\n")
        except OSError as error:
            self._break(error)

    def _break(self, error: OSError) -> None:
        if not self.is_broken:
            self.is_broken = True
            self._fail(f"a file of the run cannot be written: {error.strerror}")


def _opened(option: str, path: Path | None) -> IO[bytes] | None:
    if path is None:
        return None
    try:
        return path.open("wb")
    except OSError as error:
        raise ConfigurationError(f"the file of {option} cannot be written: {error.strerror}") from None
