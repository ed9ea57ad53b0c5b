"""Results as plain values: what JSON takes, and what pydantic and FastAPI ask for.

pydantic is imported only when it asks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


def plain(value: object) -> Any:
    """Return a value as JSON takes it: times in ISO 8601, ULIDs and members of enumerations as strings.

    What JSON has no form for, such as an object of a user's in a user's own error, becomes its ``str``.
    """
    kind: Any = type(value)
    return _writer_of(kind)(value)


def _iso(moment: datetime) -> str:
    """Return a time in UTC; without an offset it is in UTC already, as the service's are."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).isoformat()
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError:  # year 1 or 9999 with an offset that leads out of the calendar
        return moment.isoformat()


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


_WRITERS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (Enum, lambda member: plain(member.value)),
    ((str, int, NoneType), lambda value: value),
    (float, _finite),
    (datetime, _iso),
    (Mapping, lambda mapping: {str(plain(name)): plain(value) for name, value in mapping.items()}),
    ((list, tuple, set, frozenset), lambda values: [plain(value) for value in values]),
)


@functools.lru_cache(maxsize=256)
def _writer_of(kind: type) -> Callable[[Any], Any]:
    for kinds, write in _WRITERS:
        if issubclass(kind, kinds):
            return write
    return getattr(kind, "to_dict", str)


class Plain:
    """A result that can be turned into plain values, and made of them by pydantic."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as dictionaries, lists, strings and numbers, by the names of the API.

        Times are in ISO 8601 and in UTC: ``"2025-10-28T10:31:00+00:00"``. Private data is as it is in the result: this
        is for storing and sending, not for logs. ``orjson.dumps(result, default=lambda value: value.to_dict())``
        writes a result, or anything that holds results, as JSON.
        """
        return {name: plain(getattr(self, name)) for name in _names_of(self)}

    def keys(self) -> Collection[str]:
        """Return the names, so that ``dict(result)`` and what relies on it, such as FastAPI, takes the result."""
        return _names_of(self)

    # a result is no collection: handed over for one, it is refused at once
    __iter__ = None

    def __getitem__(self, name: str) -> Any:
        """Return the plain value of a field."""
        if name not in _names_of(self):
            raise KeyError(name)
        return plain(getattr(self, name))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic take the result itself, or the plain values of one."""
        from kodmobi_async._values import pydantic_schema  # noqa: PLC0415 only pydantic calls this

        return pydantic_schema.result_schema(cls, handler)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the fields of the result."""
        from kodmobi_async._values import pydantic_schema  # noqa: PLC0415 as above

        return pydantic_schema.result_json_schema(cls, schema, handler)


def _names_of(result: Plain) -> tuple[str, ...]:
    kind: Any = type(result)
    return _field_names(kind)


@functools.cache
def _field_names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls))
