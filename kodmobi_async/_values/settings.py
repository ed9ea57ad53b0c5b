"""The settings of a client: small frozen values, checked when they are built."""

from __future__ import annotations

import math
import os
import re
import ssl
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import attrs

from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async._values.shared_limits import SharedLimits

if TYPE_CHECKING:
    from collections.abc import Callable


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return True


def _seconds(*, zero: bool = False) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        check_seconds(f"{type(instance).__name__}.{attribute.name}", value, zero=zero)

    return check


def is_count(value: object) -> bool:
    """Whether this is a whole number, 1 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _positive_count(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not is_count(value):
        raise ConfigurationError(f"{type(instance).__name__}.{attribute.name} takes a whole number, 1 or more")


def _rate(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not _is_number(value) or not math.isfinite(value) or value <= 0):
        raise ConfigurationError(
            f"{type(instance).__name__}.{attribute.name} takes a finite number of sends a second, more than zero"
        )


def _flag(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{type(instance).__name__}.{attribute.name} takes True or False")


def _shared(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    is_one = not isinstance(value, type) and callable(getattr(value, "acquire", None))
    if value is not None and not is_one:
        raise ConfigurationError(
            f"{type(instance).__name__}.{attribute.name} takes a RedisLimits, or another SharedLimits"
        )


def check_count(name: str, value: int) -> int:
    """Return ``value`` if it is a whole number, 1 or more.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
        raise ConfigurationError(f"{name} takes a whole number, 1 or more")
    return value


def check_on_outage(on_outage: str) -> bool:
    """Return whether nothing may be sent while the shared windows are unavailable.

    Raises:
        ConfigurationError: It is neither ``"local"`` nor ``"refuse"``.
    """
    if on_outage not in ("local", "refuse"):
        raise ConfigurationError('on_outage takes "local" or "refuse"')
    return on_outage == "refuse"


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` if it is a finite number of seconds, more than zero or, with ``zero``, zero too.

    Raises:
        ConfigurationError: It is not.
    """
    if not _is_number(value) or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        kind = "zero or more" if zero else "more than zero"
        raise ConfigurationError(f"{name} takes a finite number of seconds, {kind}")
    return value


def check_max_wait(value: float) -> float:
    """Return ``value`` if it can be waited for: 0 or more seconds, ``math.inf`` included.

    Raises:
        ConfigurationError: It is no number, NaN, or negative.
    """
    if not _is_number(value) or not value >= 0:
        raise ConfigurationError("max_wait takes a number of seconds, zero or more (math.inf: as long as it takes)")
    return value


def check_concurrency(value: int) -> int:
    """Return ``value`` if it is a number of sends.

    Raises:
        ConfigurationError: It is not.
    """
    if not is_count(value):
        raise ConfigurationError("concurrency takes a whole number, 1 or more")
    return value


@attrs.frozen
class Timeout:
    """How long a send may take; all in seconds on the event loop's clock.

    Args:
        total: For the whole sending: attempts, pauses between them, and the wait for the account's rate limit.
            The wait for a cooldown is bounded by ``max_wait`` instead, and what is sent after it has all of this again.
        connect: For getting a connection, from the pool or anew.
        attempt: For one attempt, its connection included.

    Raises:
        ConfigurationError: A number is not finite, or not more than zero.
    """

    total: float = attrs.field(default=30.0, validator=_seconds())
    connect: float = attrs.field(default=5.0, validator=_seconds())
    attempt: float = attrs.field(default=10.0, validator=_seconds())


@attrs.frozen
class Limits:
    """How much of the service a client uses at a time.

    Args:
        connections: At most so many at once. A borrowed session brings its own limit.
        keepalive: Seconds for which an idle connection is kept; one that the service closes before is replaced. Longer
            than the minutes between the codes of a quiet service, and shorter than routers remember a connection. A
            borrowed session brings its own.
        rate: Requests a second, spaced evenly; ``None`` = as fast as they come.
        shared: With whom the account's limits are shared: a `kodmobi_async.redis.RedisLimits`, for all processes with
            one server. The rate is then that of all together, and the service's word that the account is limited holds
            all of them back. ``None`` = this client alone.
        window: Seconds for which the service blocks a channel after a send: 60, by its documentation. Tell the client
            where an emulator has been given another number.

    Raises:
        ConfigurationError: A number is out of its range.
    """

    connections: int = attrs.field(default=100, validator=_positive_count)
    keepalive: float = attrs.field(default=120.0, validator=_seconds(zero=True))
    rate: float | None = attrs.field(default=None, validator=_rate)
    shared: SharedLimits | None = attrs.field(default=None, validator=_shared, kw_only=True)
    window: float = attrs.field(default=WINDOW, validator=_seconds())


@attrs.frozen
class RetryPolicy:
    """When a failed attempt is made again.

    Args:
        attempts: At most so many, the first included.
        initial_backoff: Seconds. The pause after attempt n is drawn evenly from 0 to ``initial_backoff * 2**(n-1)``.
        max_backoff: Seconds; no drawn pause is longer. A ``Retry-After`` of the service may be.
        repeat_unknown: Resolve an unknown outcome by asking the service, then by repeating the request inside the
            channel's window. ``False`` ends the call at once in ``OutcomeUnknownError``.

    Raises:
        ConfigurationError: A number is out of its range.
    """

    attempts: int = attrs.field(default=4, validator=_positive_count)
    initial_backoff: float = attrs.field(default=0.1, validator=_seconds(zero=True))
    max_backoff: float = attrs.field(default=5.0, validator=_seconds(zero=True))
    repeat_unknown: bool = attrs.field(default=True, validator=_flag)


CLOSE_GRACE: Final = 5.0
"""Seconds that ``aclose`` gives to sends in flight before it interrupts them."""

API_KEY_VARIABLE: Final = "KODMOBI_API_KEY"
SECRET_KEY_VARIABLE: Final = "KODMOBI_SECRET_KEY"  # noqa: S105 its name

_API_KEY: Final = re.compile(r"[!-~]{1,1024}")
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9*;=,. -]{0,99}")
_PROXY: Final = re.compile(
    r"https?://(?:[!-.0-~]*@)?(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?"
)


H = TypeVar("H")


class Secret(Generic[H]):
    """A value that shows up in no report of variables."""

    __slots__ = ("value",)

    def __init__(self, value: H) -> None:
        self.value = value


def resolve_api_key(api_key: object) -> str:
    """Return the key, from the environment variable ``KODMOBI_API_KEY`` where none is given.

    Raises:
        ConfigurationError: There is none, or it could not stand in a header. The message never shows it.
    """
    if api_key is None:
        api_key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not api_key:
            raise ConfigurationError(f"no API key: pass api_key=, or set {API_KEY_VARIABLE}")
    if isinstance(api_key, str) and _API_KEY.fullmatch(api_key):
        return api_key
    del api_key  # a traceback that shows variables must not show it
    raise ConfigurationError("the API key takes 1 to 1024 printable ASCII characters without spaces")


def resolve_secret_key(secret_key: object) -> str | None:
    """Return the secret key, from the environment variable ``KODMOBI_SECRET_KEY`` where none is given, if there is one.

    Raises:
        ConfigurationError: It could not stand in a header. The message never shows it.
    """
    if secret_key is None:
        secret_key = os.environ.get(SECRET_KEY_VARIABLE, "").strip() or None
    if secret_key is None or (isinstance(secret_key, str) and _API_KEY.fullmatch(secret_key)):
        return secret_key
    del secret_key  # as above
    raise ConfigurationError("the secret key takes 1 to 1024 printable ASCII characters without spaces")


def check_ssl(context: object, *, borrows: bool) -> ssl.SSLContext | None:
    """Return the TLS settings of a pool of our own.

    Raises:
        ConfigurationError: They are none, or there is no such pool.
    """
    if context is None or (isinstance(context, ssl.SSLContext) and not borrows):
        return context
    if borrows:
        raise ConfigurationError("session= brings TLS settings of its own: set ssl there")
    raise ConfigurationError(f"ssl takes an ssl.SSLContext, not {type(context).__name__}")


def check_proxy(proxy: object, *, borrows: bool) -> Secret[str] | None:
    """Return the address of a proxy, out of sight: it may hold credentials.

    Raises:
        ConfigurationError: It is no address of one, or there is no pool of our own. The message never shows it.
    """
    if proxy is None:
        return None
    is_address = isinstance(proxy, str) and _PROXY.fullmatch(proxy) is not None
    found = Secret(proxy) if isinstance(proxy, str) and is_address else None
    del proxy  # a traceback that shows variables must not show it
    if borrows:
        raise ConfigurationError("session= brings proxy settings of its own: set proxy there")
    if found is None:
        raise ConfigurationError("proxy takes an address like http://user:password@proxy.example:3128: http or https")
    return found


def check_language(language: object) -> str | None:
    """Return what goes into ``Accept-Language``.

    Raises:
        ConfigurationError: It could not stand in that header.
    """
    if language is None or (isinstance(language, str) and _LANGUAGE.fullmatch(language)):
        return language
    raise ConfigurationError('language takes a tag such as "en" or "ru"')
