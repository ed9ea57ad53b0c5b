"""Validation against the OpenAPI document: what it says is allowed is what is accepted.

It knows the keywords that the document uses, and no others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("InvalidInputError", "document", "read_text", "validate")

# A JSON schema; only the document's own are used, so its parts need no further checks.
Schema: TypeAlias = Mapping[str, Any]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_OF_OBJECTS: Final = frozenset({"properties", "additionalProperties", "required"})
_MAX_SHOWN: Final = 40


class InvalidInputError(Exception):
    """A value is not allowed; the text says which, and what is."""


@cache
def document() -> Mapping[str, Any]:
    """Return the OpenAPI document of the control interface."""
    text = resources.files("kodmobi_async.emulator._control").joinpath("openapi.json").read_text("utf-8")
    parsed: Mapping[str, Any] = json.loads(text)
    return parsed


def read_text(name: str, text: str, schema: Schema) -> Any:
    """Return the value that ``text`` stands for in a query.

    Raises:
        InvalidInputError: The schema does not allow it.
    """
    return validate(name, _number(text) if schema["type"] in {"number", "integer"} else text, schema)


def validate(name: str, value: Any, schema: Schema) -> Any:
    """Return ``value``, with the schema's defaults for what is missing in it.

    Raises:
        InvalidInputError: The schema does not allow it.
    """
    schema = _resolved(schema)
    if "oneOf" in schema:
        return validate(name, value, _alternative(value, schema))
    value = _of_type(name, value, schema)
    _check_value(name, value, schema)
    if "items" in schema:
        return [validate(f"{name}[{index}]", item, schema["items"]) for index, item in enumerate(value)]
    if not _OF_OBJECTS.isdisjoint(schema):
        fields = _object(name, value, schema)
        _check_combination(name, fields, schema)
        return fields
    return value


def _check_value(name: str, value: object, schema: Schema) -> None:
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and value not in allowed:
        raise InvalidInputError(f"{name} must be one of {', '.join(map(_written, allowed))}")
    for keyword, check in _CHECKS.items():
        if keyword in schema and value is not None:
            check(name, value, schema[keyword])


def _check_combination(name: str, value: Any, schema: Schema) -> None:
    """Check which fields may, or must, go together."""
    if "not" in schema and _allows(value, schema["not"]):
        raise InvalidInputError(schema["not"]["description"])
    alternatives: Sequence[Schema] = schema.get("anyOf", ())
    if alternatives and not any(_allows(value, each) for each in alternatives):
        described = " or ".join(each["description"] for each in alternatives)
        raise InvalidInputError(f"{name} must have {described}")


def _allows(value: Any, schema: Schema) -> bool:
    try:
        validate("", value, schema)
    except InvalidInputError:
        return False
    return True


def _resolved(schema: Schema) -> Schema:
    reference: str | None = schema.get("$ref")
    if reference is None:
        return schema
    resolved: Any = document()
    for key in reference.removeprefix("#/").split("/"):
        resolved = resolved[key]
    return _resolved(resolved)


def _alternative(value: Any, schema: Schema) -> Schema:
    """Choose one of several schemas by the property that distinguishes them."""
    name = schema["discriminator"]["propertyName"]
    if not isinstance(value, dict) or name not in value:
        raise InvalidInputError(f"the body must be an object with {name!r}")
    mapping: Mapping[str, str] = schema["discriminator"]["mapping"]
    chosen = cast("dict[str, Any]", value)[name]
    if not isinstance(chosen, str) or chosen not in mapping:
        raise InvalidInputError(f"{name} must be one of {', '.join(map(_written, mapping))}")
    return {"$ref": mapping[chosen]}


def _of_type(name: str, value: Any, schema: Schema) -> Any:
    allowed: str | Sequence[str] | None = schema.get("type")
    if allowed is None:
        return value
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if isinstance(value, float) and value.is_integer() and "number" not in allowed:
        value = int(value)  # JSON has one kind of number: 5.0 is an integer
    if not any(_is(value, each) for each in allowed):
        raise InvalidInputError(f"{name} must be of type {' or '.join(allowed)}")
    return value


def _is(value: object, type_name: str) -> bool:
    # Python's booleans are integers; JSON's are not.
    return isinstance(value, _TYPES[type_name]) and (type_name == "boolean" or not isinstance(value, bool))


def _object(name: str, value: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    others: Any = schema.get("additionalProperties", True)
    missing = next((each for each in schema.get("required", ()) if each not in value), None)
    if missing is not None:
        raise InvalidInputError(f"{missing} is missing in {name}")
    found = {each: part["default"] for each, part in properties.items() if "default" in part}
    for each, part in value.items():
        if each in properties:
            found[each] = validate(each, part, properties[each])
        elif others is False:
            allowed = ", ".join(properties)
            raise InvalidInputError(f"{_written(each)} is not known in {name}; allowed are: {allowed}")
        elif isinstance(others, Mapping):
            validate(f"a name in {name}", each, schema.get("propertyNames", {}))
            found[each] = validate(f"{name}[{_written(each)}]", part, cast("Schema", others))
        else:
            found[each] = part
    return found


def _number(text: str) -> object:
    """Return a number as JSON writes it; the text itself, if it is none."""
    try:
        value = json.loads(text) if text.strip() == text else text
    except ValueError:
        return text
    return text if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) else value


def _written(value: object) -> str:
    """Write a value for a message, short enough for one."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _check(message: str, passes: Callable[[Any, Any], bool]) -> Callable[[str, object, object], None]:
    def check(name: str, value: object, bound: object) -> None:
        if not passes(value, bound):
            raise InvalidInputError(f"{name} must {message.format(bound)}")

    return check


_CHECKS: Final[Mapping[str, Callable[[str, object, object], None]]] = {
    "minimum": _check("be at least {}", lambda value, bound: value >= bound),
    "maximum": _check("be at most {}", lambda value, bound: value <= bound),
    "minLength": _check("have at least {} characters", lambda value, bound: len(value) >= bound),
    "maxLength": _check("have at most {} characters", lambda value, bound: len(value) <= bound),
    "pattern": _check("match {}", lambda value, bound: re.fullmatch(bound, value) is not None),
    "maxItems": _check("have at most {} items", lambda value, bound: len(value) <= bound),
    "minProperties": _check("have at least {} fields", lambda value, bound: len(value) >= bound),
    "maxProperties": _check("have at most {} fields", lambda value, bound: len(value) <= bound),
}
