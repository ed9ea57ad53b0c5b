"""SQLite's way to the disk, with a say before and after every write and every sync of this process.

The library has no such thing for Python; but its table of operating-system calls is meant to be extended, and is laid
out for good (https://sqlite.org/c3ref/vfs.html, https://sqlite.org/c3ref/io_methods.html).
"""

from __future__ import annotations

import _sqlite3
import ctypes
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

IOERR_WRITE: Final = 778
IOERR_FSYNC: Final = 1034
FULL: Final = 13
"""What SQLite's own layer returns when the system call fails."""

_pointer = ctypes.c_void_p
_Open = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _pointer, ctypes.c_int, _pointer)  # SQLite keeps the name
_Write = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, ctypes.c_int, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, ctypes.c_int)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("size_of_file", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", _pointer),
        ("name", ctypes.c_char_p),
        ("data", _pointer),
        ("open", _pointer),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _pointer),
        ("read", _pointer),
        ("write", _pointer),
        ("truncate", _pointer),
        ("sync", _pointer),
        ("others", _pointer * 13),
    )


class _File(ctypes.Structure):
    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


_KEPT: Final[list[object]] = []
"""What only SQLite refers to, for as long as any of its files may be open."""


class FaultyDisk:
    """From now on, asks before this process's SQLite writes or syncs.

    Args:
        before: Called with ``"write"`` or ``"sync"``; what it returns, if not 0, is SQLite's error: nothing is done.
        after: Called when that was done.
        half: Called instead when half of a write was done; ``None``: writes are done whole.

    Raises:
        LookupError: This Python's SQLite cannot be reached.
    """

    def __init__(
        self,
        *,
        before: Callable[[str], int] = lambda _: 0,
        after: Callable[[str], None] = lambda _: None,
        half: Callable[[], None] | None = None,
    ) -> None:
        try:
            library = ctypes.CDLL(_sqlite3.__file__)
            find: Any = library.sqlite3_vfs_find
        except (AttributeError, OSError):
            raise LookupError("this Python's SQLite cannot be reached") from None
        find.restype = ctypes.POINTER(_Vfs)
        self._vfs = find(None).contents
        self._before, self._after, self._half = before, after, half
        self._tables: dict[int, _Methods] = {}
        self._original = self._vfs.open
        self._open = _Open(self._original)
        self._vfs.open = self._address(_Open(self._opened))

    def restore(self) -> None:
        """Let files that are opened from now on be as they were."""
        self._vfs.open = self._original

    def _opened(self, vfs: int, name: int, file: int, flags: int, flags_out: int) -> int:
        code: int = self._open(vfs, name, file, flags, flags_out)
        opened = _File.from_address(file)
        if opened.methods:
            address = ctypes.addressof(opened.methods.contents)
            if address not in self._tables:
                self._tables[address] = self._intercepted(opened.methods.contents)
                _KEPT.append(self._tables[address])
            opened.methods = ctypes.pointer(self._tables[address])
        return code

    def _intercepted(self, original: _Methods) -> _Methods:
        table = _Methods.from_buffer_copy(original)
        write, sync = _Write(original.write), _Sync(original.sync)

        def asked_write(file: int, data: int, length: int, offset: int) -> int:
            if (refused := self._before("write")) != 0:
                return refused
            if self._half is not None:
                write(file, data, length // 2, offset)
                self._half()
            code: int = write(file, data, length, offset)
            self._after("write")
            return code

        def asked_sync(file: int, flags: int) -> int:
            if (refused := self._before("sync")) != 0:
                return refused
            code: int = sync(file, flags)
            self._after("sync")
            return code

        table.write, table.sync = self._address(_Write(asked_write)), self._address(_Sync(asked_sync))
        return table

    @staticmethod
    def _address(function: Any) -> int | None:
        _KEPT.append(function)
        return ctypes.cast(function, _pointer).value
