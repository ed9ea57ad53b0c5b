"""JSON values: their types, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import orjson

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ("Json", "JsonObject", "to_json", "to_timestamp")

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | bool | None"
JsonObject: TypeAlias = Mapping[str, Json]


def to_json(value: Json) -> bytes:
    """Serialize ``value`` in UTF-8."""
    return orjson.dumps(value)


def to_timestamp(date: datetime) -> str:
    """Format a date in UTC as the service does, with milliseconds and ``Z``."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
