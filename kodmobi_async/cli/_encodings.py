"""Unpacks gzip and UTF-16, piece by piece, into a temporary file of UTF-8.

The first bytes of a file tell what it is; its name does not count.
"""

from __future__ import annotations

import codecs
import gzip
import shutil
import tempfile
import zlib
from typing import IO, TYPE_CHECKING, Final

from kodmobi_async import ConfigurationError

if TYPE_CHECKING:
    import contextlib

__all__ = ("copied", "unpacked")

_PIECE: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
# UTF-32 first: its little-endian mark begins with that of UTF-16
_UTF_32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_OF_NO_USE: Final = {
    b"PK\x03\x04": "a zip file or an Excel workbook: save the sheet as CSV, or unzip it first",
    b"PK\x05\x06": "an empty zip file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    **dict.fromkeys(_UTF_32, "text in UTF-32: save it as UTF-8"),
}
_LONGEST_MARK: Final = 4
_NEVER_A_BOMB: Final = 64 << 20
"""Bytes that a gzip file may always unpack to."""
_LARGEST_RATIO: Final = 100
"""Beyond them, so many for each byte of the file. Rows of different sessions come to less than 4."""


def copied(source: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    """Read a stream to its end, and return a temporary file with what it held."""
    copy = _temporary(stack)
    shutil.copyfileobj(source, copy, _PIECE)
    return copy


def unpacked(file: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    """Return a file with the text in UTF-8: the file itself if it is neither compressed nor in UTF-16.

    Raises:
        ConfigurationError: It is damaged, or packed in another way.
        OSError: It cannot be read, or there is no room for a temporary file.
    """
    mark = _mark(file)
    if mark.startswith(_GZIP):
        file = _decompressed(file, stack)
        mark = _mark(file)
        if mark.startswith(_GZIP):
            raise ConfigurationError("the input is compressed twice: decompress it first")
    for beginning, what in _OF_NO_USE.items():
        if mark.startswith(beginning):
            raise ConfigurationError(f"the input is {what}")
    return _decoded(file, stack) if mark.startswith(_UTF_16) else file


def _temporary(stack: contextlib.ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.TemporaryFile())


def _mark(file: IO[bytes]) -> bytes:
    file.seek(0)
    mark = file.read(_LONGEST_MARK)
    file.seek(0)
    return mark


def _decompressed(file: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    target = _temporary(stack)
    members = gzip.GzipFile(fileobj=file, mode="rb")
    size = 0
    while piece := _next_piece(members):
        size += len(piece)
        if size > max(_NEVER_A_BOMB, _LARGEST_RATIO * file.tell()):
            raise ConfigurationError(
                f"the input unpacks to more than {_LARGEST_RATIO} times its size, as no list of sessions does;"
                " decompress it first if it is one"
            )
        target.write(piece)
    return target


def _next_piece(members: gzip.GzipFile) -> bytes:
    try:
        return members.read(_PIECE)
    except EOFError:
        raise ConfigurationError("the input is a gzip file that was cut off: it ends in the middle") from None
    except (gzip.BadGzipFile, zlib.error):
        raise ConfigurationError("the input is a damaged gzip file") from None


def _decoded(file: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    target = _temporary(stack)
    # bytes that are no character become U+FFFD: they spoil the field that they are in, and no other row
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    while piece := file.read(_PIECE):
        target.write(decoder.decode(piece).encode())
    target.write(decoder.decode(b"", final=True).encode())
    return target
