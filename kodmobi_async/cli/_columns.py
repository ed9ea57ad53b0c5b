"""Which column is the session, and which the channel, by their names; in CSV and in JSON Lines alike.

Names count by their letters and digits alone: ``Session ID``, ``sessionId`` and ``SESSION-ID`` are the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ("CHANNEL_OPTION", "SESSION_OPTION", "Columns", "RowError", "agreed", "is_name", "listed")

SESSION_OPTION: Final = "--session-column"
CHANNEL_OPTION: Final = "--channel-column"
_SESSION_NAMES: Final = frozenset({"sessionid"})
_CHANNEL_NAMES: Final = frozenset({"channel", "type"})
"""The API itself says ``type``."""

# Names may be shown. Other text of an input may not: it could be a phone number, an address, a code or a session.
_NAME: Final = re.compile(r"[^\W\d_](?:\w|[ .()/:#-]){0,39}")
_DIGITS_IN_A_NAME: Final = 2
_NAMES_SHOWN: Final = 12


class RowError(Exception):
    """What is wrong with a row."""


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _find(names: Sequence[str], wanted: str | None, known: frozenset[str]) -> list[int]:
    if wanted is not None:
        exact = [place for place, name in enumerate(names) if name == wanted.strip()]
        if exact:
            return exact
        known = frozenset({_bare(wanted)} - {""})
    return [place for place, name in enumerate(names) if _bare(name) in known]


@attrs.frozen
class Columns:
    """The names that the user gives; ``None`` = the known ones.

    Raises:
        ConfigurationError: Both are the same.
    """

    session: str | None = None
    channel: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.session is not None and self.session == self.channel:
            raise ConfigurationError(f"{SESSION_OPTION} and {CHANNEL_OPTION} name the same column")

    @property
    def option(self) -> str | None:
        """The option that was given, the session's first."""
        if self.session is not None:
            return SESSION_OPTION
        return None if self.channel is None else CHANNEL_OPTION

    def as_settings(self) -> dict[str, str]:
        """Return the options for a journal, which is bound to them; empty where none was given."""
        return {SESSION_OPTION: self.session or "", CHANNEL_OPTION: self.channel or ""}

    def find(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the places of the session and of the channel; a column that the user names has no second meaning."""
        sessions = _find(names, self.session, _SESSION_NAMES)
        channels = _find(names, self.channel, _CHANNEL_NAMES)
        if self.session is None:
            return [place for place in sessions if place not in channels], channels
        return sessions, [place for place in channels if place not in sessions]

    def choose(self, header: Sequence[str], *, needs_channel: bool) -> tuple[int, list[int]]:
        """Return the place of the session in a header, and the places of the channel: none, one or two.

        Args:
            header: The names.
            needs_channel: Whether there is no channel for rows without one.

        Raises:
            ConfigurationError: A column is missing, or there are two of one name.
        """
        sessions, channels = self.find(header)
        for wanted, found, option in (
            (self.session, sessions, SESSION_OPTION),
            (self.channel, channels, CHANNEL_OPTION),
        ):
            if wanted is not None and not found:
                raise ConfigurationError(
                    f"{option} names a column that the input does not have; it has {listed(header)}"
                )
            if len({_bare(header[place]) for place in found}) < len(found):
                raise ConfigurationError(
                    f"the input has two columns of the same name, {listed([header[place] for place in found])}: rename"
                    f" one, or name the other with {option}"
                )
        if not sessions:
            raise ConfigurationError(
                "the first line of the input is neither a row nor a header with a session_id; it has"
                f" {listed(header)}: name the column of the sessions with {SESSION_OPTION}"
            )
        if needs_channel and not channels:
            raise ConfigurationError(
                f"no column of the input is the channel; it has {listed(header)}: name one with {CHANNEL_OPTION}, or"
                " give --channel for all rows"
            )
        return sessions[0], channels


def agreed(values: Iterable[tuple[str, object]], option: str) -> object:
    """Return the value that columns of the same meaning share; empty ones do not count.

    Raises:
        RowError: They differ.
    """
    given = [(name, value) for name, value in values if value not in (None, "")]
    if not given:
        return None
    names, (first, *others) = [name for name, _ in given], [value for _, value in given]
    if any(_folded(other) != _folded(first) for other in others):
        raise RowError(f"{listed(names)} differ: choose one with {option}")
    return first


def _folded(value: object) -> object:
    return value.casefold() if isinstance(value, str) else value


def is_name(text: str) -> bool:
    """Whether this looks like a column's name, and not like a column's content."""
    return _NAME.fullmatch(text) is not None and sum(map(str.isdigit, text)) <= _DIGITS_IN_A_NAME


def listed(names: Sequence[str]) -> str:
    """Return names for an error message; what does not look like a name is left out."""
    shown = [name if is_name(name) else "…" for name in names[:_NAMES_SHOWN]]
    return ", ".join(shown + ["…"] * (len(names) > _NAMES_SHOWN))
