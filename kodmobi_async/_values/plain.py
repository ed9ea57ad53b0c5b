"""Results as plain values: what JSON takes, and what pydantic and FastAPI ask for.

pydantic is imported only when it asks. It then sees a model of the same fields, so that OpenAPI shows the documented
shape; what it validates becomes the result itself again.
"""

from __future__ import annotations

import inspect
import re
from datetime import datetime
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import attrs
from ulid import ULID

from kodmobi_async._values.channel import Channel

if TYPE_CHECKING:
    from collections.abc import KeysView

    from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_ULID: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
# An entry of a docstring's section "Attributes" or "Args", up to the next one or the end.
_ENTRY: Final = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def plain(value: object) -> Any:
    """Return a value as JSON takes it: times in ISO 8601, ULIDs and members of enumerations as strings."""
    convert = getattr(value, "to_dict", None)
    if convert is not None:
        return convert()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, ULID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType] of anything
    return value


class Plain:
    """A result that can be turned into plain values, and made of them by pydantic."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as dictionaries, lists, strings and numbers, by the names of the API.

        Times are in ISO 8601 with their offset. ``orjson.dumps(result, default=lambda value: value.to_dict())`` writes
        a result, or anything that holds results, as JSON.
        """
        return {name: plain(getattr(self, name)) for name in self.keys()}

    def keys(self) -> KeysView[str]:
        """Return the names, so that ``dict(result)`` and what relies on it, such as FastAPI, takes the result."""
        return _names(type(self))

    def __getitem__(self, name: str) -> Any:
        """Return the plain value of a field."""
        if name not in self.keys():
            raise KeyError(name)
        return plain(getattr(self, name))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic take the result itself, or the plain values of one."""
        from pydantic_core import core_schema  # noqa: PLC0415 only pydantic calls this

        model = _model_of(cls)

        def restore(read: BaseModel) -> Plain:
            return cls(**{name: _restored(hint, getattr(read, name)) for name, hint in _hints(cls).items()})

        restored = core_schema.no_info_after_validator_function(restore, handler.generate_schema(model))
        return core_schema.json_or_python_schema(
            json_schema=restored,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), restored]),
            serialization=core_schema.plain_serializer_function_ser_schema(plain),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the result as the model of its fields."""
        return handler(_model_of(cls).__pydantic_core_schema__)


def _fields(cls: type[Plain]) -> dict[str, attrs.Attribute[Any]]:
    return {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] results are attrs classes


def _names(cls: type[Plain]) -> KeysView[str]:
    return _fields(cls).keys()


def _hints(cls: type[Plain]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in _names(cls)}


_models: Final[dict[type[Plain], type[BaseModel]]] = {}


def _model_of(cls: type[Plain]) -> type[BaseModel]:
    """Return a model of the same name and fields, each described as in the docstring."""
    from pydantic import Field, create_model  # noqa: PLC0415 as above

    if cls in _models:
        return _models[cls]
    described = {name: " ".join(text.split()) for name, text in _ENTRY.findall(inspect.getdoc(cls) or "")}
    fields: dict[str, Any] = {}
    for name, field in _fields(cls).items():
        default = ... if field.default is attrs.NOTHING else field.default
        fields[name] = (_as_read(_hints(cls)[name]), Field(default, description=described.get(name)))
    model: type[BaseModel] = create_model(
        cls.__name__, __doc__=(inspect.getdoc(cls) or "").partition("\n")[0], **fields
    )
    _models[cls] = model
    return model


def _as_read(hint: Any) -> Any:
    """Return what pydantic reads a field as: a session id is its characters, a channel is its name."""
    from pydantic import AwareDatetime, StringConstraints  # noqa: PLC0415 as above

    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_as_read, get_args(hint)))]  # noqa: UP007 made of what is in it
    kinds = {ULID: Annotated[str, StringConstraints(pattern=_ULID)], datetime: AwareDatetime, Channel: str}
    return kinds.get(hint, hint)


def _restored(hint: Any, value: Any) -> Any:
    """Return what pydantic has read as the field has it."""
    kinds = get_args(hint) or (hint,)
    if isinstance(value, str) and Channel in kinds and value in Channel.__members__.values():
        return Channel(value)
    return ULID.from_str(value) if hint is ULID else value
