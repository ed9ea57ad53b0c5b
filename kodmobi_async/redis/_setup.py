"""Errors that are no outage: what does not come back by itself, because the set-up is wrong."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterCrossSlotError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)

from kodmobi_async._shared.operations import WrongSetup

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnknownServiceError(Exception):
    """No Sentinel knows the service."""


_CREDENTIALS: Final = WrongSetup("the server refuses the credentials: check user and password")
_RIGHTS: Final = WrongSetup("the user has no right to a command, key or channel that is needed: extend its ACL")
_REPLICA: Final = WrongSetup("the server is a read-only replica: use its primary")
_CLUSTER: Final = WrongSetup(
    "the server is a node of a cluster: use an address like redis+cluster://host:6379, or pass a RedisCluster",
    always=True,
)
_NO_CLUSTER: Final = WrongSetup(
    "the server is not a node of a cluster: use an address like redis://host:6379, or pass a Redis"
)
_DATABASE: Final = WrongSetup("the server has no such database: check the number in the address")
_CERTIFICATE: Final = WrongSetup("the server's certificate is not trusted: check ssl_ca_certs and the host name")
_PROTOCOL: Final = WrongSetup("the server does not speak the protocol of Redis: check host and port")
_COMMANDS: Final = WrongSetup("the server does not have the command EVALSHA: use Redis 7, Valkey 7.2, or later")
_SERVICE: Final = WrongSetup("no Sentinel knows the service: check its name")
_OPTIONS: Final = WrongSetup("the options of the client do not work together, or the client belongs to a closed loop")

_BY_CLASS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], WrongSetup], ...]] = (
    ((AskError, ClusterCrossSlotError), _CLUSTER),  # MovedError is one of the first
    ((AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError), _CREDENTIALS),
    (NoPermissionError, _RIGHTS),
    (ReadOnlyError, _REPLICA),
    (InvalidResponse, _PROTOCOL),
    (UnknownServiceError, _SERVICE),
    (ssl.SSLCertVerificationError, _CERTIFICATE),
    ((TypeError, ValueError, AttributeError, RuntimeError), _OPTIONS),
)
# How some replies begin that have no class of their own.
_BY_TEXT: Final = (
    ("ACL failure in script", _RIGHTS),
    ("DB index is out of range", _DATABASE),
    ("SELECT is not allowed in cluster mode", _CLUSTER),
    ("This instance has cluster support disabled", _NO_CLUSTER),
    ("unknown command", _COMMANDS),
)


def wrong_setup(error: BaseException) -> WrongSetup | None:
    """Return what is wrong with the set-up, if that is the reason for an error of the library."""
    for reason in _reasons(error):
        for classes, found in _BY_CLASS:
            if isinstance(reason, classes):
                return found
        for text, found in _BY_TEXT:
            if isinstance(reason, ResponseError) and str(reason).startswith(text):
                return found
    return None


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and, for classes that only wrap another one, what it wraps."""
    yield error
    inner = error.__cause__ or error.__context__
    if inner is not None and (
        isinstance(error, RedisClusterException) or isinstance(inner, (ssl.SSLError, RedisClusterException))
    ):
        yield from _reasons(inner)
