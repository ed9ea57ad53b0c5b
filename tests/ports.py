"""Ports at which nobody listens."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """Keep a port that no other program gets meanwhile. A server may take it, give it up, and take it again."""
    with socket.socket() as keeper:
        # bound is not listening: who connects is refused, and who wants to listen here by name may
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
