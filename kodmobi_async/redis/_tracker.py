"""`RedisCooldownTracker`: slots that all processes with one server share.

A command without a reply is sent once more within ``timeout``. What the tracker does with the server's replies is that
of every store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kodmobi_async._shared.keys import Keys
from kodmobi_async._shared.store import Store
from kodmobi_async._shared.tracker import SharedCooldownTracker
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.settings import check_on_outage, check_seconds
from kodmobi_async.redis._address import open_backend
from kodmobi_async.redis._connections import Connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis, RedisCluster


class RedisCooldownTracker(SharedCooldownTracker):
    """Slots that are shared by all processes with the same server, ``prefix`` and ``secret``.

    It may be built anywhere, and belongs to the loop that uses it; when that loop has been closed, the next one takes
    over. Close it with ``async with`` or `aclose`; a client that uses it does not.

    Args:
        server: The address of a server, ``redis://host:6379/0``; of a cluster, ``redis+cluster://host:6379,host:6379``;
            or of Sentinels, ``redis+sentinel://host:26379,host:26379/service/0``. ``rediss`` for TLS; ``unix://``;
            options as redis-py takes them. Or a client of yours, ``redis.asyncio.Redis`` or ``RedisCluster``, which
            the tracker does not close.
        timeout: Seconds until a decision is made without the server.
        on_outage: How to decide without the server: ``"local"`` = by this process's own windows, which a
            `TrackerDegraded`, the log and ``SendResult.window`` report; ``"refuse"`` = `CooldownUnavailableError`.
        prefix: What all keys on the server begin with.
        secret: A key for the hash that stands for a pair, so that nobody who reads the server's keys can guess session
            ids; the same in every process.
        window: The ``retry_after`` of a caller that is refused while another send is in flight, in seconds.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        *,
        timeout: float = 0.25,
        on_outage: Literal["local", "refuse"] = "local",
        prefix: str = "kodmobi:",
        secret: str | bytes = b"",
        window: float = WINDOW,
    ) -> None:
        timeout = check_seconds("timeout", timeout)
        open_backend(server, timeout=timeout)
        refuses = check_on_outage(on_outage)
        keys = Keys(prefix, secret)

        def make_store(on_move: Callable[[], None]) -> Store:
            return Store(
                lambda: Connections(open_backend(server, timeout=timeout), timeout=timeout),
                survives_fork=isinstance(server, str),
                name="the server of the shared cooldowns",
                probe=keys.probe,
                outage_consequence="nothing is sent meanwhile" if refuses else "this process uses its own windows",
                on_move=on_move,
            )

        super().__init__(make_store, keys, label=prefix, refuses=refuses, window=check_seconds("window", window))
