"""The input of ``kodmobi bulk``: CSV or JSON Lines, read one line at a time, so that its length is no matter.

A row is one line; blank lines are none. What is wrong with a row is told with its line number, and the next one is
read. What is wrong with the whole input is told once, before anything is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
import time
from typing import IO, TYPE_CHECKING, Final, cast

import attrs
from ulid import ULID

from kodmobi_async import (
    Channel,
    ConfigurationError,
    InvalidRequestError,
    SendRequest,
    normalize_channel,
    normalize_session_id,
)
from kodmobi_async.cli._columns import Columns, RowError
from kodmobi_async.cli._encodings import copied, unpacked
from kodmobi_async.cli._layout import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ("STANDARD_INPUT", "BadRow", "Input", "Row", "example_rows")

STANDARD_INPUT: Final = "-"
_LONGEST_LINE: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"


@attrs.frozen
class Row(SendRequest):
    """A row that can be sent.

    Attributes:
        line: Where it stands in the input, counted from 1.
        raw: The line as it stands in the input, in UTF-8, without its end.
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


class Input:
    """An input, open for as long as it is worked.

    Attributes:
        digest: Of the whole content, unpacked, so that a journal knows it again.
        rows: How many there are, bad ones included.
        header: The line above the rows, if there is one.
        columns: What the user calls the columns.

    Raises:
        ConfigurationError: It does not hold sessions, or does not say in which column.
        InputError: It cannot be read.
        InvalidRequestError: The default is no channel.
    """

    def __init__(self, file: IO[bytes], default_channel: str | None, columns: Columns = Columns()) -> None:  # noqa: B008 frozen
        self._file = file
        self._default = None if default_channel is None else normalize_channel(default_channel)
        self.columns = columns
        digest, self.rows, first = hashlib.sha256(), 0, b""
        for _, raw in _lines(file, tell=digest.update):
            first = first or raw
            self.rows += 1
        self._size = file.tell()
        self.digest = digest.hexdigest()
        self.header: bytes | None = None
        if len(first) >= _LONGEST_LINE:
            raise ConfigurationError(
                f"the input is neither CSV nor JSON Lines: its first line is longer than {_LONGEST_LINE} bytes"
            )
        text = first.decode("utf-8", "replace")
        layout = layout_of(text, columns if self.rows else Columns(), needs_channel=self._default is None)
        self._parse = layout.parse
        if layout.has_header:
            self.header = first
            self.rows -= 1
        for requirement in layout.requirements:
            if self.rows and not (requirement.is_met(text) or any(map(requirement.is_met, self._texts()))):
                raise ConfigurationError(requirement.refusal)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        name: str,
        default_channel: str | None,
        columns: Columns = Columns(),  # noqa: B008 frozen
    ) -> Generator[Input]:
        """Open a file; ``-`` and what is no regular file are read to their end first.

        Raises:
            ConfigurationError: It cannot be read, does not hold sessions, or does not say in which column.
            InvalidRequestError: The default is no channel.
        """
        with contextlib.ExitStack() as stack:
            try:
                source = _standard_input() if name == STANDARD_INPUT else name
                # what is not ours stays open
                file: IO[bytes] = stack.enter_context(open(source, "rb", closefd=name != STANDARD_INPUT))
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or name == STANDARD_INPUT:
                    file = copied(file, stack)
                found = cls(unpacked(file, stack), default_channel, columns)
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
        for line, raw in _lines(self._file, self._size):
            if header:
                header = False
                continue
            try:
                yield self._row(line, raw)
            except (RowError, InvalidRequestError) as error:
                yield BadRow(line, str(error))

    def _texts(self) -> Iterator[str]:
        return (raw.decode("utf-8", "replace") for _, raw in _lines(self._file, self._size))

    def _row(self, line: int, raw: bytes) -> Row:
        if len(raw) >= _LONGEST_LINE:
            raise RowError(f"longer than {_LONGEST_LINE} bytes")
        try:
            session_id, channel = self._parse(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise RowError("not UTF-8") from None
        if session_id in (None, ""):
            raise RowError("no session_id")
        session = normalize_session_id(cast("str", session_id))
        name = self._default if channel in (None, "") else normalize_channel(cast("str", channel))
        if name is None:
            raise RowError("no channel, and no --channel for rows without one")
        return Row(session, name, line, raw)


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
) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank: number, and the line without its end.

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
        if line and not line.isspace():
            yield number, line.rstrip(b"\r\n")


def example_rows(count: int) -> Iterator[str]:
    """Yield the lines of an example input: a header, and ``count`` made-up sessions over the documented channels."""
    yield "session_id,channel"
    channels = tuple(Channel)
    now = int(time.time() * 1_000)
    for number in range(count):
        session = ULID((now.to_bytes(6, "big")) + secrets.token_bytes(10))
        yield f"{session},{channels[number % len(channels)]}"
