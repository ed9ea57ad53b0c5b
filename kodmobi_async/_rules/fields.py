"""The fields of a response's JSON: each becomes a value of a result, or is of the wrong shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import cattrs

from kodmobi_async._rules.requests import KNOWN_CHANNELS, normalize_session_id
from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS
from kodmobi_async._values.errors import InvalidRequestError
from kodmobi_async._values.models import ChallengeSettings, CodeFormat, SessionChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._values.channel import Channel


class _WrongShapeError(Exception):
    """The body is JSON, but not what is documented."""


def read_text(value: Any, _: Any = str) -> str:
    if not isinstance(value, str):
        raise _WrongShapeError
    return value


def _boolean(value: Any, _: Any = bool) -> bool:
    if not isinstance(value, bool):
        raise _WrongShapeError
    return value


def _whole(value: Any, _: Any = int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _WrongShapeError
    return value


def _seconds(value: Any) -> float:
    # The documentation says 0 to 60. A longer block is believed (up to a day), so that a service which lengthens its
    # window is obeyed rather than misread; a negative one says nothing.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_WAIT_SECONDS:
        raise _WrongShapeError
    return float(value)


def read_channel_name(value: Any) -> Channel | str:
    if not isinstance(value, str):
        raise _WrongShapeError
    return KNOWN_CHANNELS.get(value, value)


def read_moment(value: Any) -> datetime | None:
    # "string or datetime": ISO 8601 is the only form seen. Without an offset it is read as UTC; a string that is no
    # date, and null, say nothing about the session's end.
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(read_text(value))
    except ValueError:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 with an offset that leads out of the calendar
        return None


def read_session_id(named: Any) -> str:
    try:
        return normalize_session_id(named)
    except InvalidRequestError:
        raise _WrongShapeError from None


def read_channel(value: Any, _: Any = SessionChannel) -> SessionChannel:
    # written out: cattrs takes three times as long, and every send pays for it
    name, kind, is_active, timeout = value["name"], value["type"], value["is_active"], value["timeout"]
    image_url, link, description = value["image_url"], value["link"], value.get("description")
    if (
        type(name) is not str
        or type(kind) is not str
        or type(is_active) is not bool
        or type(image_url) is not str
        or type(link) is not str
        or not (description is None or type(description) is str)
    ):
        raise _WrongShapeError
    return SessionChannel(
        name, KNOWN_CHANNELS.get(kind, kind), is_active, _seconds(timeout), image_url, link, description
    )


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        str: read_text,
        bool: _boolean,
        int: _whole,
        SessionChannel: read_channel,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    return converter


_converter: Final = _make_converter()
_structure_list: Final = _converter.get_structure_hook(list[SessionChannel])
read_code_format: Final = _converter.get_structure_hook(CodeFormat)
read_challenge: Final = _converter.get_structure_hook(ChallengeSettings)


def read_channel_list(value: Any) -> tuple[SessionChannel, ...]:
    if not isinstance(value, list):
        raise _WrongShapeError
    return tuple(_structure_list(value, list[SessionChannel]))
