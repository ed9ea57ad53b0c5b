"""From an address, or a client, to a backend."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.redis._backend import CONNECTIONS, Backend, ClusterBackend, SentinelBackend, ServerBackend

_WRONG_ADDRESS: Final = (
    "server takes an address like redis://localhost:6379/0, redis+cluster://host:6379 or"
    " redis+sentinel://host:26379/service (rediss for TLS; unix://), only with options that redis-py knows; or a"
    " redis.asyncio.Redis or RedisCluster"
)
_SENTINEL_PORT: Final = 26379


def open_backend(server: str | Redis | RedisCluster, *, timeout: float) -> Backend:
    """Return a backend; it connects when it is used.

    A client of ours does not retry by itself: a batch has one timeout, and `Pipeline` counts the attempts.

    Args:
        server: An address, or a client that stays the caller's to close.
        timeout: Seconds for a command, all attempts included.

    Raises:
        ConfigurationError: This is neither. The message does not repeat the address: it may hold a password.
    """
    if isinstance(server, Redis):
        return _of_client(server)
    if isinstance(server, RedisCluster):
        return ClusterBackend(server)
    try:
        scheme = server.partition("://")[0].lower()
        if scheme in ("redis+cluster", "rediss+cluster"):
            return _cluster(server, timeout)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinel(server, timeout)
        client = Redis.from_url(server, **_options())  # pyright: ignore[reportUnknownMemberType] its options are untyped
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # fails now, and not later, for options that it does not know
    except (ValueError, TypeError, AttributeError, LookupError, RedisClusterException):
        raise ConfigurationError(_WRONG_ADDRESS) from None
    return _of_client(client, client)


def _of_client(client: Redis, *owned: Any) -> Backend:
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return SentinelBackend(client, pool, *owned)
    return ServerBackend(client, *owned)


def _options() -> dict[str, Any]:
    return {"protocol": 2, "retry": Retry(NoBackoff(), 0), "driver_info": None, "max_connections": CONNECTIONS}


def _cluster(address: str, timeout: float) -> Backend:
    hosts, path, options = _parse(address, default_port=6379)
    if path not in ("", "0"):
        raise ValueError(path)  # a cluster has one database
    ours: dict[str, Any] = {**_options(), "socket_connect_timeout": timeout / 4, "require_full_coverage": False}
    client = RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **{**ours, **options})
    return ClusterBackend(client, client)


def _sentinel(address: str, timeout: float) -> Backend:
    hosts, path, options = _parse(address, default_port=_SENTINEL_PORT)
    service, _, database = path.partition("/")
    if not service:
        raise ValueError(path)
    # The next Sentinel is tried when one does not reply, within the timeout of a batch.
    of_sentinel: dict[str, Any] = {"socket_timeout": timeout / 8, "socket_connect_timeout": timeout / 8, **_options()}
    for name in ("username", "password"):
        if (value := options.pop(f"sentinel_{name}", None)) is not None:
            of_sentinel[name] = value
    of_sentinel |= {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinel = Sentinel(hosts, sentinel_kwargs=of_sentinel)  # type: ignore[no-untyped-call]
    of_server: dict[str, Any] = {**_options(), "db": int(database or 0), **options}
    client = sentinel.master_for(service, **of_server)  # pyright: ignore[reportUnknownMemberType] its options are untyped
    client.connection_pool.make_connection()
    return _of_client(client, client, sentinel)


def _parse(address: str, *, default_port: int) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """Return the hosts and ports of an address with several of them, its path, and its options."""
    # `urlsplit` takes one host, and looks closely at brackets
    scheme, _, rest = address.partition("://")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    userinfo, at, hosts = netloc.rpartition("@")
    kind = scheme.lower().partition("+")[0]
    parsed = [dict(parse_url(f"{kind}://{userinfo}{at}{host}?{query}")) for host in hosts.split(",")]
    options = parsed[0]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    found = [(str(each["host"]), int(str(each.get("port", default_port)))) for each in parsed]
    for name in ("host", "port"):
        options.pop(name, None)
    return found, unquote(path.strip("/")), options
