"""Results and errors as pydantic sees them. Imported only when pydantic asks.

A result or an error is taken as it is, or built from what its ``to_dict()`` returns: a result by its fields, an error
by the arguments of the class that ``error`` names. It is written as ``to_dict()`` returns it, less what a model or an
endpoint leaves out.
"""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, Union, get_args, get_origin, get_type_hints

import attrs
from pydantic import (
    AfterValidator,
    AwareDatetime,
    FiniteFloat,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    WrapValidator,
)
from pydantic_core import PydanticSerializationUnexpectedValue, core_schema
from ulid import ULID

from kodmobi_async._values.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Convertible(Protocol):
    """A result or an error."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        ...


# -- types of fields ---------------------------------------------------------------------------------------------------


def _channel(name: str) -> Channel | str:
    return Channel(name) if name in Channel.__members__.values() else name


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range in UTC") from None


_TYPES: Final[dict[Any, Any]] = {
    ULID: Annotated[
        str,
        StringConstraints(pattern="^[0-7][0-9A-HJKMNP-TV-Z]{25}$"),
        AfterValidator(ULID.from_str),
        WrapValidator(lambda value, build: value if isinstance(value, ULID) else build(value)),
    ],
    Channel: Annotated[str, AfterValidator(_channel)],
    # to_dict() has made text of it; a function that says so by its annotation would take the format out of the schema
    datetime: Annotated[AwareDatetime, AfterValidator(_utc), PlainSerializer(lambda text: text)],
    float: FiniteFloat,
}


def _read_as(hint: Any) -> Any:
    """Return what pydantic reads a field of this type as."""
    if get_origin(hint) not in (Union, UnionType):
        return _TYPES.get(hint, hint)
    return Union[tuple(map(_read_as, get_args(hint)))]  # noqa: UP007 made of what is in it


# -- validation and serialization --------------------------------------------------------------------------------------


def result_schema(cls: type[Convertible], handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a result: that of its fields."""
    hints = get_type_hints(cls)
    fields: dict[str, core_schema.TypedDictField] = {}
    for field in _fields(cls):
        schema = handler.generate_schema(_read_as(hints[field.name]))
        required = field.default is attrs.NOTHING
        if not required:
            schema = core_schema.with_default_schema(schema, default=field.default)
        fields[field.name] = core_schema.typed_dict_field(schema, required=required)
    shape = core_schema.typed_dict_schema(fields)

    def written(result: Convertible) -> dict[str, object]:
        # a nested result is left to its own schema, which knows what a model's include and exclude say of it
        return {
            name: getattr(result, name) if isinstance(value, (dict, list)) else value
            for name, value in result.to_dict().items()
        }

    build = core_schema.no_info_after_validator_function(lambda read: cls(**read), shape)
    return _schema(cls, build, written, shape)


def error_schema(
    cls: type[Convertible], root: type[Convertible], keys: Mapping[str, str], handler: GetCoreSchemaHandler
) -> CoreSchema:
    """Return the schema of an error: of its class, or of any that derives from it, as ``error`` says.

    Args:
        cls: The class.
        root: The class that all errors derive from.
        keys: Arguments that ``to_dict()`` has under another name.
        handler: pydantic's.
    """
    any_error = core_schema.definition_reference_schema(_ref(root)) if cls is root else handler.generate_schema(root)

    def schema_of(kind: type[Any]) -> CoreSchema:
        fields = {"text": core_schema.typed_dict_field(core_schema.str_schema())}
        names: dict[str, str] = {}
        for name, parameter, hint in _arguments(kind):
            key = keys.get(name, name)
            names[key] = name
            schema = any_error if hint is root else handler.generate_schema(_read_as(hint))
            fields[key] = core_schema.typed_dict_field(schema, required=parameter.default is parameter.empty)

        def build(read: dict[str, Any]) -> Convertible:
            error: Convertible = kind(read.pop("text"), **{names[key]: value for key, value in read.items()})
            return error

        return core_schema.no_info_after_validator_function(build, core_schema.typed_dict_schema(fields))

    choices: dict[Any, CoreSchema] = {kind.__name__: schema_of(kind) for kind in _family(cls, root.__module__)}
    build = core_schema.tagged_union_schema(choices, discriminator="error")
    return _schema(cls, build, lambda error: error.to_dict(), core_schema.dict_schema())


def _schema(
    cls: type[Convertible], build: CoreSchema, written: Callable[[Any], dict[str, object]], shape: CoreSchema
) -> CoreSchema:
    """Return a schema that takes an instance as it is, and leaves it to ``build`` to make one of anything else."""

    def validate(value: object, otherwise: core_schema.ValidatorFunctionWrapHandler) -> object:
        return value if isinstance(value, cls) else otherwise(value)

    def serialize(value: object, filtered: core_schema.SerializerFunctionWrapHandler) -> object:
        if not isinstance(value, cls):  # a union goes on to its next choice
            raise PydanticSerializationUnexpectedValue(f"expected {cls.__name__}, got {type(value).__name__}")
        return filtered(written(value))

    return core_schema.no_info_wrap_validator_function(
        validate,
        build,
        ref=_ref(cls),
        serialization=core_schema.wrap_serializer_function_ser_schema(serialize, schema=shape),
    )


def _ref(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}:{id(cls)}"


def _fields(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    return fields


def _arguments(kind: Any) -> Iterator[tuple[str, inspect.Parameter, Any]]:
    """Yield the keyword arguments of an error, and their types."""
    hints = get_type_hints(kind.__init__)
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield name, parameter, hints[name]


def _family(cls: type[Any], module: str) -> Iterator[type[Any]]:
    """Yield the class, and the package's own that derive from it: no other is ever built from what comes in."""
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == module:
            yield from _family(child, module)


# -- JSON schema -------------------------------------------------------------------------------------------------------

# Source: the documentation's example.
_EXAMPLES: Final[dict[str, object]] = {
    "session_id": "01K8N1VMPN0EE389K72YW0CBM2",
    "session_expired_at": "2025-10-28T10:31:00+00:00",
    "sent_to": "telegram",
    "name": "Telegram",
    "type": "telegram",
    "timeout": 60.0,
    "image_url": "https://storage.kod.mobi/icons/telegram.svg",
    "link": "https://t.me/my-tg-bot",
}


def result_json_schema(cls: type, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    """Return the JSON schema of a result: its fields, as its docstring describes them."""
    found = handler(schema)
    described = handler.resolve_ref_schema(found)
    described.update(_heading(cls))
    texts = _attributes(cls)
    for name, field in described["properties"].items():
        field.update(_description(texts, name))
        if name in _EXAMPLES:
            field["examples"] = [_EXAMPLES[name]]
    if handler.mode == "serialization":
        described["required"] = list(described["properties"])
    return found


def error_json_schema(cls: type, root: type, keys: Mapping[str, str]) -> JsonSchemaValue:
    """Return the JSON schema of an error: what all have, and the numbers of its class."""
    texts = _attributes(cls)
    fields: dict[str, Any] = {
        "error": {"type": "string", "description": "The class of the error.", "examples": [cls.__name__]},
        "outcome": {"type": "string", "description": "What became of the code.", "examples": ["not_sent"]},
        "retryable": {"type": "boolean", "description": "The same call may succeed later, and sends no second code."},
        "text": {"type": "string", "description": "What happened, and what to do."},
    }
    for name, _, hint in _arguments(cls):
        if name not in fields or name == "error":
            field = {"type": "object"} if hint is root else TypeAdapter(_read_as(hint)).json_schema()
            fields[keys.get(name, name)] = field | _description(texts, name)
    return {**_heading(cls), "type": "object", "properties": fields, "required": list(fields)}


def _heading(cls: type) -> dict[str, str]:
    return {"title": cls.__name__, "description": _words((inspect.getdoc(cls) or "").partition("\n\n")[0])}


# An entry of a docstring's section "Attributes" or "Args", up to the next one or the end.
_ENTRY: Final = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def _attributes(cls: type) -> dict[str, str]:
    return {name: _words(text) for name, text in _ENTRY.findall(inspect.getdoc(cls) or "")}


def _description(texts: Mapping[str, str], name: str) -> dict[str, str]:
    return {"description": texts[name]} if name in texts else {}  # Python may run without docstrings


def _words(text: str) -> str:
    """Return text of a docstring as Markdown in one line."""
    return " ".join(text.split()).replace("``", "`")
