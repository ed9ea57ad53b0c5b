"""`SqliteCooldownTracker`: slots that the processes of one machine share, in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kodmobi_async._shared.keys import Keys
from kodmobi_async._shared.store import Store
from kodmobi_async._shared.tracker import SharedCooldownTracker
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async._values.settings import check_on_outage, check_seconds
from kodmobi_async.sqlite._connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable


class SqliteCooldownTracker(SharedCooldownTracker):
    """Slots that are shared by all processes of one machine with the same file and ``secret``.

    It is for a few processes: the workers of a web server, a script beside a service. Windows outlive the processes. A
    process that is killed in the middle of a send blocks its slot until its lease ends. All file I/O happens on a
    thread of the tracker's own.

    Time is the machine's monotonic clock, which all processes share and nobody can set; after a reboot, windows go on
    by the wall clock. Where a machine does not say when it was booted (outside Linux), it is the wall clock always.

    The tracker may be built anywhere, and belongs to the loop that uses it; when that loop has been closed, the next
    one takes over. Close it with ``async with`` or `aclose`; a client that uses it does not.

    Args:
        path: The file. It is made if it is not there, in a folder that is. SQLite keeps two more files beside it while
            it is in use (``-wal``, ``-shm``). It has to be on a disk of this machine: a network file system, as far as
            it can be recognised (on Linux), is refused.
        timeout: Seconds until a decision is made without the file, because other processes or the disk keep it busy.
        on_outage: How to decide without the file (busy, a full disk): ``"local"`` = by this process's own windows,
            which a `TrackerDegraded`, the log and ``SendResult.window`` report; ``"refuse"`` =
            `CooldownUnavailableError`.
        secret: A key for the hash that stands for a pair, so that nobody who reads the file can guess session ids; the
            same in every process.
        window: The ``retry_after`` of a caller that is refused while another send is in flight, in seconds.

    Raises:
        ConfigurationError: A setting cannot be used. At the first use: the file cannot be made or written, is another
            one's, or is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 1.0,
        on_outage: Literal["local", "refuse"] = "local",
        secret: str | bytes = b"",
        window: float = WINDOW,
    ) -> None:
        timeout = check_seconds("timeout", timeout)
        refuses = check_on_outage(on_outage)
        keys = Keys("", secret)
        file = _check_path(path)

        def make_store(on_move: Callable[[], None]) -> Store:
            return Store(
                lambda: Connections(file, timeout=timeout),
                survives_fork=True,
                name="the file of the shared cooldowns",
                probe="probe",
                outage_consequence="nothing is sent meanwhile" if refuses else "this process uses its own windows",
                on_move=on_move,
            )

        super().__init__(make_store, keys, label=file.name, refuses=refuses, window=check_seconds("window", window))


def _check_path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(f"path takes the path of a file, not {type(path).__name__}")
    name = os.fspath(path)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] of whatever kind
    if not isinstance(name, str) or not name or name.startswith((":memory:", "file:")) or "\0" in name:
        raise ConfigurationError("path takes the path of a file that processes can share")
    return Path(name).absolute()
