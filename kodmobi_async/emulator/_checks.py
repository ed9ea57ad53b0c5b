"""Validation: a wrong value fails where it was written, with a ``ValueError`` that says what is allowed."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import attrs

__all__ = (
    "boolean",
    "challenge_tokens",
    "channel_names",
    "finite",
    "key",
    "non_empty",
    "one_of",
    "optional_whole_number",
    "seconds",
    "whole",
    "whole_number",
)

_KEY: Final = re.compile(r"[!-~]+")
_CHANNEL: Final = re.compile(r"[a-z0-9_-]+")


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
        bounds = f"from {at_least} to {at_most}" if math.isfinite(at_most) else f"of at least {at_least}"
        raise ValueError(f"{name} must be a whole number {bounds}")
    return value


# The validators and converters of the settings, as attrs calls them.


def key(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Validate an API key."""
    if not (isinstance(value, str) and _KEY.fullmatch(value)):
        # The message does not show the value: it may be a real key in the wrong place.
        raise ValueError(f"{attribute.name} must be printable ASCII without spaces")


def non_empty(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Validate a text that must not be empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{attribute.name} must be a text that is not empty")


def boolean(_: object, attribute: attrs.Attribute[bool], value: object) -> None:
    """Validate a switch."""
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False")  # noqa: TRY004 a ValueError throughout


def seconds(*, above: float = -math.inf) -> Callable[[object, attrs.Attribute[float], object], None]:
    """Return the validator of a number of seconds."""

    def validate(_: object, attribute: attrs.Attribute[float], value: object) -> None:
        finite(attribute.name, value, above=above)

    return validate


def whole_number(at_least: int, at_most: float = math.inf) -> Callable[[object, attrs.Attribute[int], object], None]:
    """Return the validator of a whole number."""

    def validate(_: object, attribute: attrs.Attribute[int], value: object) -> None:
        whole(attribute.name, value, at_least=at_least, at_most=at_most)

    return validate


def optional_whole_number(at_least: int) -> Callable[[object, attrs.Attribute[int | None], object], None]:
    """Return the validator of a whole number that may be None."""

    def validate(_: object, attribute: attrs.Attribute[int | None], value: object) -> None:
        if value is not None:
            whole(attribute.name, value, at_least=at_least)

    return validate


def one_of(*allowed: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Return the validator of a choice."""

    def validate(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in allowed:
            raise ValueError(f"{attribute.name} must be one of {', '.join(allowed)}")

    return validate


def channel_names(value: Iterable[str]) -> tuple[str, ...]:
    """Return the names of channels as a tuple."""
    try:
        names = tuple(value)
    except TypeError:
        names = ("",)
    if isinstance(value, str) or not all(map(_is_channel, names)) or len(set(names)) < len(names):
        raise ValueError("channels must be distinct names in lower case")
    return names


def challenge_tokens(value: bool | Iterable[str]) -> bool | tuple[str, ...]:
    """Return whether a challenge is demanded, or the tokens that pass it."""
    if isinstance(value, bool):
        return value
    try:
        tokens = tuple(value)
    except TypeError:
        tokens = ("",)
    if isinstance(value, str) or not all(map(_is_token, tokens)):
        raise ValueError("challenge must be True, False, or the tokens that pass")
    return tokens


def _is_token(token: object) -> bool:
    return isinstance(token, str) and token != ""


def _is_channel(name: object) -> bool:
    return isinstance(name, str) and _CHANNEL.fullmatch(name) is not None
