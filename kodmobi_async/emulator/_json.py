"""JSON values: their types, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import orjson

__all__ = ("Json", "JsonObject", "to_json")

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | bool | None"
JsonObject: TypeAlias = Mapping[str, Json]


def to_json(value: Json) -> bytes:
    """Serialize ``value`` in UTF-8."""
    return orjson.dumps(value)
