"""Which operation of the control interface a request asks for, and with which arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, unquote

import attrs
import orjson

from kodmobi_async.emulator._control._schema import InvalidInputError, document, read_text, validate

if TYPE_CHECKING:
    from kodmobi_async.emulator._http import Request, RequestLine

__all__ = ("Operation", "UnknownMethodError", "UnknownPathError", "read_arguments", "route")

# An operation object of the OpenAPI document.
Operation: TypeAlias = Mapping[str, Any]


class UnknownPathError(Exception):
    """There is nothing at the path."""


class UnknownMethodError(Exception):
    """The path does not take the method.

    Attributes:
        allowed: The methods that it takes.
    """

    def __init__(self, allowed: list[str]) -> None:
        super().__init__()
        self.allowed = allowed


@attrs.frozen
class _Route:
    path: re.Pattern[str]
    operations: Mapping[str, Operation]


@cache
def _routes() -> list[_Route]:
    return [
        _Route(
            re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]*)", path)),
            {method.upper(): operation for method, operation in operations.items()},
        )
        for path, operations in document()["paths"].items()
    ]


def route(line: RequestLine) -> tuple[Operation, dict[str, str]]:
    """Return the operation that a request asks for, and the values in its path.

    Raises:
        UnknownPathError: There is none.
        UnknownMethodError: There are only others.
    """
    method = "GET" if line.method == "HEAD" else line.method
    for each in _routes():
        if (match := each.path.fullmatch(line.path)) is not None:
            if method not in each.operations:
                raise UnknownMethodError([*each.operations, *(["HEAD"] if "GET" in each.operations else [])])
            return each.operations[method], match.groupdict()
    raise UnknownPathError


def read_arguments(operation: Operation, in_path: Mapping[str, str], request: Request) -> dict[str, object]:
    """Return the arguments of an operation.

    Raises:
        InvalidInputError: The document does not allow one, or does not know it.
    """
    values = {name: [unquote(value)] for name, value in in_path.items()}
    values |= parse_qs(request.line.query, keep_blank_values=True)
    arguments: dict[str, object] = {}
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        given = values.pop(name, [])
        if len(given) > 1:
            raise InvalidInputError(f"{name} must be given once")
        if given:
            arguments[name] = read_text(name, given[0], schema)
        elif "default" in schema:
            arguments[name] = schema["default"]
    if values:
        allowed = ", ".join(parameter["name"] for parameter in operation.get("parameters", ())) or "none"
        raise InvalidInputError(f"{next(iter(values))[:40]!r} is not known in the query; allowed are: {allowed}")
    if "requestBody" in operation:
        arguments["body"] = _read_body(operation["requestBody"], request.body)
    return arguments


def _read_body(described: Mapping[str, Any], body: bytes) -> object:
    try:
        value: object = orjson.loads(body) if body or described["required"] else {}
    except orjson.JSONDecodeError:
        raise InvalidInputError("the body must be JSON") from None
    return validate("the body", value, described["content"]["application/json"]["schema"])
