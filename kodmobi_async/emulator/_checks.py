"""Validation of settings and arguments: a wrong value fails where it was written, with a ``ValueError``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import attrs

__all__ = ("channel_names", "finite", "host", "key", "lifetime", "optional_key", "port", "whole", "window")

_KEY: Final = re.compile(r"[!-~]+")
_CHANNEL: Final = re.compile(r"[a-z0-9_-]+")
_LAST_PORT: Final = 65_535


def finite(name: str, value: object, *, above: float = -math.inf) -> float:
    """Return ``value`` as a float if it is a finite number, at least zero and more than ``above``.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number")  # noqa: TRY004 a wrong setting is a ValueError throughout
    if not (math.isfinite(value) and value >= 0 and value > above):
        raise ValueError(f"{name} must be finite and {'above' if above >= 0 else 'at least'} zero")
    return float(value)


def whole(name: str, value: object, *, at_least: int, at_most: float = math.inf) -> int:
    """Return ``value`` if it is a whole number within its bounds.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        raise ValueError(f"{name} must be a whole number from {at_least} to {at_most}")
    return value


# The validators and the converter of the emulator's settings, as attrs calls them.


def key(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Validate an API key."""
    if not (isinstance(value, str) and _KEY.fullmatch(value)):
        # The message does not show the value: it may be a real key in the wrong place.
        raise ValueError(f"{attribute.name} must be printable ASCII without spaces")


def optional_key(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Validate an API key that may be absent."""
    if value is not None:
        key(instance, attribute, value)


def host(_: object, _attribute: attrs.Attribute[str], value: object) -> None:
    """Validate the address to listen on."""
    if not isinstance(value, str) or not value:
        raise ValueError("host must be the address to listen on")


def port(_: object, _attribute: attrs.Attribute[int], value: object) -> None:
    """Validate a port number; 0 is allowed."""
    whole("port", value, at_least=0, at_most=_LAST_PORT)


def window(_: object, _attribute: attrs.Attribute[float], value: object) -> None:
    """Validate the length of a window."""
    finite("window", value)


def lifetime(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    """Validate a time that must not be zero."""
    finite(attribute.name, value, above=0.0)


def channel_names(value: Iterable[str]) -> tuple[str, ...]:
    """Return the names of channels as a tuple."""
    try:
        names = tuple(value)
    except TypeError:
        names = ("",)
    if isinstance(value, str) or not all(map(_is_channel, names)) or len(set(names)) < len(names):
        raise ValueError("channels must be distinct names in lower case")
    return names


def _is_channel(name: object) -> bool:
    return isinstance(name, str) and _CHANNEL.fullmatch(name) is not None
