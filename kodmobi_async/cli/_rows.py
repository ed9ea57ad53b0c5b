"""The input of ``kodmobi bulk``: CSV or JSON Lines, read one line at a time, so that its length is no matter.

A row is one line; blank lines are none. What is wrong with a row is told with its line number, and the next one is
read. The first line decides: a ``{`` at its beginning means JSON Lines; a field ``session_id`` means a header.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Final, cast

import attrs
from ulid import ULID

from kodmobi_async._rules.requests import canonical_channel, canonical_session_id
from kodmobi_async._values.errors import ConfigurationError, InvalidRequestError
from kodmobi_async._values.models import Channel, SendRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ("STANDARD_INPUT", "BadRow", "Input", "Row", "example_rows")

STANDARD_INPUT: Final = "-"
_LONGEST_LINE: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"
_DELIMITERS: Final = (",", ";", "\t")
_SESSION, _CHANNEL = "session_id", "channel"
_CHUNK: Final = 1 << 20


@attrs.frozen
class Row(SendRequest):
    """A row that can be sent.

    Attributes:
        line: Where it stands in the input, counted from 1.
        raw: The line as it was read, without its end.
        tries: How often an earlier run has come to an outcome that is not to count.
    """

    line: int
    raw: bytes = attrs.field(repr=False)
    tries: int = 0


@attrs.frozen
class BadRow:
    """A row that cannot be sent, and why."""

    line: int
    reason: str


class InputError(Exception):
    """The input cannot be read any more."""


class _RowError(Exception):
    """What is wrong with a row."""


class Input:
    """An input, open for as long as it is worked.

    Attributes:
        digest: Of the whole content, so that a journal knows it again.
        rows: How many there are, bad ones included.
        header: The line above the rows, if there is one.
    """

    def __init__(self, file: IO[bytes], default_channel: str | None) -> None:
        self._file = file
        self._default = None if default_channel is None else canonical_channel(default_channel)
        digest, self.rows, first = hashlib.sha256(), 0, b""
        for _, _, text in _lines(file, tell=digest.update):
            first = first or text
            self.rows += 1
        self._size = file.tell()
        self.digest = digest.hexdigest()
        self._parse: Callable[[str], tuple[object, object]] = _from_json
        self.header: bytes | None = None
        if not first.startswith(b"{"):
            self._read_first_line(first.decode("utf-8", "replace"))
            if self._columns is not None:
                self.header = first
                self.rows -= 1

    @classmethod
    @contextlib.contextmanager
    def open(cls, name: str, default_channel: str | None) -> Generator[Input]:
        """Open a file; ``-`` and what is no regular file are read to their end first.

        Raises:
            ConfigurationError: It cannot be read.
            InvalidRequestError: The default is no channel.
        """
        with contextlib.ExitStack() as stack:
            try:
                source = _standard_input() if name == STANDARD_INPUT else name
                # what is not ours stays open
                file: IO[bytes] = stack.enter_context(open(source, "rb", closefd=name != STANDARD_INPUT))
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or name == STANDARD_INPUT:
                    copy = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(file, copy, _CHUNK)
                    file = copy
                found = cls(file, default_channel)
            except OSError as error:
                raise ConfigurationError(f"the input cannot be read: {error.strerror}") from None
            except InputError as error:
                raise ConfigurationError(str(error)) from None
            yield found

    def __iter__(self) -> Iterator[Row | BadRow]:
        """Read all rows, from the first one on; what has been added to the file meanwhile is none of it.

        Raises:
            InputError: The file cannot be read any more.
        """
        header = self.header is not None
        for line, raw, text in _lines(self._file, self._size):
            if header:
                header = False
                continue
            try:
                yield self._row(line, raw, text)
            except (_RowError, InvalidRequestError) as error:
                yield BadRow(line, str(error))

    def _row(self, line: int, raw: bytes, text: bytes) -> Row:
        if len(text) >= _LONGEST_LINE:
            raise _RowError(f"longer than {_LONGEST_LINE} bytes")
        try:
            session_id, channel = self._parse(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise _RowError("not UTF-8") from None
        if session_id in (None, ""):
            raise _RowError("no session_id")
        session = canonical_session_id(cast("str", session_id))
        name = self._default if channel in (None, "") else canonical_channel(cast("str", channel))
        if name is None:
            raise _RowError("no channel, and no --channel for rows without one")
        return Row(session, name, line, raw)

    # -- CSV -------------------------------------------------------------------------------------------------------

    def _read_first_line(self, first: str) -> None:
        """Find out how the fields are divided, and which of them is which."""
        self._delimiter = next((each for each in _DELIMITERS if each in first), ",")
        self._columns: tuple[int, int | None] | None = None
        self._parse = self._from_csv
        with contextlib.suppress(_RowError):
            names = [field.lower() for field in self._fields(first)]
            if _SESSION in names:
                self._columns = names.index(_SESSION), names.index(_CHANNEL) if _CHANNEL in names else None

    def _fields(self, text: str) -> list[str]:
        if '"' not in text and "\r" not in text:  # as nearly always; it means the same, and takes a third of the time
            return [field.strip() for field in text.split(self._delimiter)]
        try:
            return [field.strip() for field in next(csv.reader([text], delimiter=self._delimiter, strict=True))]
        except (csv.Error, StopIteration):
            raise _RowError("not a line of CSV; a row is one line") from None

    def _from_csv(self, text: str) -> tuple[object, object]:
        fields = self._fields(text)
        if self._columns is None:
            if len(fields) > len((_SESSION, _CHANNEL)):
                raise _RowError(f"{len(fields)} fields; without a header, there are session_id and channel")
            return fields[0], fields[1] if len(fields) > 1 else None
        session, channel = self._columns
        return (
            fields[session] if session < len(fields) else None,
            fields[channel] if channel is not None and channel < len(fields) else None,
        )


def _from_json(text: str) -> tuple[object, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise _RowError("not JSON") from None
    if not isinstance(value, dict):
        raise _RowError("not a JSON object")
    known = cast("dict[str, object]", value)
    return known.get(_SESSION), known.get(_CHANNEL)


def _standard_input() -> int:
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] so it is where it was closed beforehand
        raise ConfigurationError("the input cannot be read: standard input is closed")
    return sys.stdin.fileno()


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the file in lines, or in pieces of lines that are very long; no more than the first ``size`` bytes.

    Raises:
        InputError: It cannot be read.
    """
    try:
        file.seek(0)
        while size > 0 and (piece := file.readline(min(size, _LONGEST_LINE))):
            size -= len(piece)
            yield piece
    except OSError as error:
        raise InputError(f"the input cannot be read any more: {error.strerror}") from None


def _lines(
    file: IO[bytes], size: int = sys.maxsize, tell: Callable[[bytes], object] = len
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the lines that are not blank: number, the line without its end, and the same without surrounding space.

    No more than ``_LONGEST_LINE`` bytes of a line are kept. ``tell`` is given every byte.

    Raises:
        InputError: The file cannot be read.
    """
    pieces = _pieces(file, size)
    for number, piece in enumerate(pieces, 1):
        line = rest = piece
        tell(line)
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = next(pieces, b"")
            tell(rest)
        if number == 1:
            line = line.removeprefix(_BOM)
        if text := line.strip():
            yield number, line.rstrip(b"\r\n"), text


def example_rows(count: int) -> Iterator[str]:
    """Yield the lines of an example input: a header, and ``count`` made-up sessions over the documented channels."""
    yield f"{_SESSION},{_CHANNEL}"
    channels = tuple(Channel)
    now = int(time.time() * 1_000)
    for number in range(count):
        session = ULID((now.to_bytes(6, "big")) + secrets.token_bytes(10))
        yield f"{session},{channels[number % len(channels)]}"
