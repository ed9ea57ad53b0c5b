"""What is wrong with the file, and does not come back by itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from kodmobi_async._shared.operations import WrongSetup

ANOTHER: Final = WrongSetup("the file is another program's database: choose another path", always=True)
NO_WAL: Final = WrongSetup("the file system of the path does not let processes share memory: choose another path")
NETWORK: Final = WrongSetup(
    "the path is on a network file system, where locks cannot be trusted: choose one on a disk of this machine",
    always=True,
)
_DAMAGED: Final = WrongSetup("the file is no database, or is damaged: choose another path, or delete it", always=True)
_NO_RIGHTS: Final = WrongSetup("the file cannot be made or written: check that its folder is there, and the rights")

_BY_CODE: Final = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_READONLY: _NO_RIGHTS,
    sqlite3.SQLITE_PERM: _NO_RIGHTS,
    sqlite3.SQLITE_AUTH: _NO_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _NO_RIGHTS,
}
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "ocfs2", "gfs2"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "rclone", "gcsfuse", "davfs")}
)
_MOUNTS: Final = Path("/proc/self/mountinfo")


class WrongSetupError(Exception):
    """The file cannot be used."""

    def __init__(self, setup: WrongSetup) -> None:
        super().__init__(setup.message)
        self.setup = setup


def wrong_setup(error: BaseException) -> WrongSetup | None:
    """Return what is wrong, if that is the reason for an error."""
    if isinstance(error, WrongSetupError):
        return error.setup
    if isinstance(error, sqlite3.Error):
        return _BY_CODE.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF)
    return _NO_RIGHTS if isinstance(error, OSError) else None


def is_on_network(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a file would be on a network file system, as far as this system tells."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    folder = path.parent.resolve()
    found = (0, "")
    for line in lines:
        # 36 35 98:0 /root /mount/point options - type source options
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if folder.is_relative_to(point):
            found = max(found, (len(point.parts), after.split(" ")[0]), key=lambda each: each[0])
    return found[1] in _NETWORK_FILE_SYSTEMS
