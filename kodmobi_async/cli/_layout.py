"""How an input is laid out, by its first line, and how its rows are read then.

- ``{`` at the beginning: JSON Lines. Each row has its own keys.
- A ULID in the first field: CSV without a header, a session and perhaps a channel in each row.
- A name of the session among the fields: CSV with a header.
- Names, but not the session's: a header that only the user can explain. The input is refused.
- Anything else: CSV without a header, whose first row is bad.

JSON Lines and CSV without a header have to hold at least one row. A file without any is of another kind: it is refused
as a whole, instead of reporting each of its lines as a bad row.
"""

from __future__ import annotations

import csv
import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import attrs

from kodmobi_async import ConfigurationError, InvalidRequestError, normalize_session_id
from kodmobi_async.cli._columns import CHANNEL_OPTION, SESSION_OPTION, RowError, agreed, is_name, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kodmobi_async.cli._columns import Columns

__all__ = ("Layout", "layout_of")

Parse: TypeAlias = Callable[[str], tuple[object, object]]
"""From the text of a row to its session and its channel; raises `RowError`."""

_DELIMITERS: Final = (",", ";", "\t")
_FIELDS_WITHOUT_HEADER: Final = 2
_KINDS_OF_OBJECTS: Final = 64
"""So many different sets of keys are remembered, with which of them is which."""


@attrs.frozen
class Requirement:
    """What at least one row of an input has to meet.

    Attributes:
        is_met: Whether the text of a row meets it.
        refusal: The error message if none does.
    """

    is_met: Callable[[str], bool]
    refusal: str


@attrs.frozen(kw_only=True)
class Layout:
    """How the rows of an input are read.

    Attributes:
        parse: Reads a row.
        has_header: Whether the first line is no row.
        requirements: The input is refused if no row meets one of them.
    """

    parse: Parse
    has_header: bool = False
    requirements: tuple[Requirement, ...] = ()


def layout_of(first: str, columns: Columns, *, needs_channel: bool) -> Layout:
    """Find out from the first line of an input how it is laid out.

    Args:
        first: The line, without its end.
        columns: What the user calls the columns.
        needs_channel: Whether there is no channel for rows that name none.

    Raises:
        ConfigurationError: It is a header that does not say which column is which.
    """
    if first.lstrip().startswith("{"):
        return _json_lines(first, columns)
    delimiter, fields = _divided(first, columns)
    is_row = _is_session(fields[0])
    is_header = not is_row and (_are_names(fields) or bool(columns.find(fields)[0]))
    if columns.option is not None and not is_header:
        raise ConfigurationError(f"{columns.option} needs a header, and the first line of the input is not one")
    if not is_header:
        return _without_header(first, delimiter)
    session, channels = columns.choose(fields, needs_channel=needs_channel)
    parse = _with_header(delimiter, session, [(place, fields[place]) for place in channels])
    return Layout(parse=parse, has_header=True)


def _are_names(fields: Sequence[str]) -> bool:
    """Whether these can be a header; one of several columns may be without a name, as in an exported data frame."""
    given = [field for field in fields if field]
    return (len(fields) > _FIELDS_WITHOUT_HEADER or given == fields) and bool(given) and all(map(is_name, given))


def _is_session(text: object) -> bool:
    try:
        normalize_session_id(cast("str", text))
    except InvalidRequestError:
        return False
    return True


# -- CSV --------------------------------------------------------------------------------------------------------------


def _split(text: str, delimiter: str) -> list[str]:
    if '"' not in text and "\r" not in text:  # as nearly always; it means the same, and takes a third of the time
        return [field.strip() for field in text.split(delimiter)]
    try:
        (fields,) = csv.reader([text.strip(" ")], delimiter=delimiter, skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise RowError("not a line of CSV; a row is one line") from None
    return [field.strip() for field in fields]


def _divided(first: str, columns: Columns) -> tuple[str, list[str]]:
    """Return the delimiter, and the fields of the first line; an empty one if it is no line of CSV."""
    found: list[tuple[str, list[str]]] = []
    for delimiter in [each for each in _DELIMITERS if each in first] or _DELIMITERS[:1]:
        try:
            # no text holds a NUL, but UTF-16 that was not recognised does, between its letters
            fields = [""] if "\0" in first else _split(first, delimiter)
        except RowError:
            fields = [""]
        if columns.find(fields)[0] or _is_session(fields[0]):
            return delimiter, fields
        found.append((delimiter, fields))
    return found[0]


def _with_header(delimiter: str, session: int, channels: Sequence[tuple[int, str]]) -> Parse:
    channel = channels[0][0] if channels else sys.maxsize

    def parse(text: str) -> tuple[object, object]:
        fields = _split(text, delimiter)
        return (
            fields[session] if session < len(fields) else None,
            fields[channel] if channel < len(fields) else None,
        )

    def parse_with_two(text: str) -> tuple[object, object]:
        fields = _split(text, delimiter)
        named = [(name, fields[place]) for place, name in channels if place < len(fields)]
        return fields[session] if session < len(fields) else None, agreed(named, CHANNEL_OPTION)

    return parse if len(channels) <= 1 else parse_with_two


def _without_header(first: str, delimiter: str) -> Layout:
    def parse(text: str) -> tuple[object, object]:
        fields = _split(text, delimiter)
        if len(fields) > _FIELDS_WITHOUT_HEADER and any(fields[_FIELDS_WITHOUT_HEADER:]):
            raise RowError(
                f"{len(fields)} fields; without a header, a row is session_id,channel: add a header for more columns"
            )
        return fields[0], fields[1] if len(fields) > 1 else None

    def fault(text: str) -> str | None:
        try:
            normalize_session_id(cast("str", parse(text)[0]))
        except (RowError, InvalidRequestError) as error:
            return str(error)
        return None

    why = _hint(first.lstrip()) or f"the first line: {fault(first)}"
    refusal = f"the input is neither CSV nor JSON Lines with sessions; {why}"
    return Layout(parse=parse, requirements=(Requirement(lambda text: fault(text) is None, refusal),))


def _hint(first: str) -> str | None:
    """Return what the first line tells of an input in which no line is a row."""
    if "\0" in first:
        return "it is binary, or UTF-16 without a byte order mark: save it as UTF-8"
    if "\N{REPLACEMENT CHARACTER}" in first:
        return "it is binary, or text in another encoding than UTF-8"
    if first.startswith("<"):
        return "it looks like HTML or XML"
    if first.startswith("["):
        return "it begins like a JSON array: JSON Lines has one object a line"
    if "\r" in first:
        return "its lines end in carriage returns alone: save it with line feeds"
    return None


# -- JSON Lines -------------------------------------------------------------------------------------------------------


def _json_lines(first: str, columns: Columns) -> Layout:
    @functools.lru_cache(_KINDS_OF_OBJECTS)
    def keys_of(keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
        sessions, channels = columns.find(keys)
        return [keys[place] for place in sessions], [keys[place] for place in channels]

    def parse(text: str) -> tuple[object, object]:
        value = _object(text)
        sessions, channels = keys_of(tuple(value))
        return _value(value, sessions, SESSION_OPTION), _value(value, channels, CHANNEL_OPTION)

    def keys_in(text: str) -> tuple[list[str], list[str]]:
        try:
            return keys_of(tuple(_object(text)))
        except RowError:
            return [], []

    try:
        has = f"the first one has {listed(tuple(_object(first)))}"
        advice = f"; name another key with {SESSION_OPTION}"
    except RowError as error:
        has, advice = f"the first line is {error}, and JSON Lines has one object a line", ""
    if columns.session is None:
        refusal = f"no row of the input has a session_id: {has}{advice}"
    else:
        refusal = f"no row of the input has the key that {SESSION_OPTION} names: {has}"
    requirements = [Requirement(lambda text: bool(keys_in(text)[0]), refusal)]
    if columns.channel is not None:
        refusal = f"no row of the input has the key that {CHANNEL_OPTION} names: {has}"
        requirements.append(Requirement(lambda text: bool(keys_in(text)[1]), refusal))
    return Layout(parse=parse, requirements=tuple(requirements))


def _object(text: str) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("not JSON") from None
    if not isinstance(value, dict):
        raise RowError("not a JSON object")
    return cast("dict[str, object]", value)


def _value(known: dict[str, object], keys: Sequence[str], option: str) -> object:
    if len(keys) == 1:
        return known[keys[0]]
    return agreed([(key, known[key]) for key in keys], option)
