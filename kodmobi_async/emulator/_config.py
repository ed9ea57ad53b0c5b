"""A configuration, as from a TOML file: settings, and the sessions and faults to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from kodmobi_async.emulator._control._faults import read_fault
from kodmobi_async.emulator._control._schema import InvalidInputError, validate
from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from kodmobi_async.emulator._emulator import Emulator

__all__ = ("Config",)

_SETTINGS: Final = tuple(attribute.name for attribute in attrs.fields(Settings))
_TO_BEGIN_WITH: Final = {
    "sessions": {"$ref": "#/components/schemas/NewSession"},
    "faults": {"$ref": "#/components/schemas/Fault"},
}


@attrs.frozen
class Config:
    """What a configuration says."""

    settings: Mapping[str, Any]
    _sessions: list[Mapping[str, Any]]
    _faults: list[Mapping[str, Any]]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """Check a configuration.

        Raises:
            ValueError: Something in it is not known, or not allowed.
        """
        settings = {name: value for name, value in config.items() if name not in _TO_BEGIN_WITH}
        unknown = next((name for name in settings if name not in _SETTINGS), None)
        if unknown is not None:
            known = ", ".join((*_SETTINGS, *_TO_BEGIN_WITH))
            raise ValueError(f"{unknown} is not known in a configuration; allowed are: {known}")
        try:
            parts = [
                validate(name, config.get(name, []), {"type": "array", "items": schema})
                for name, schema in _TO_BEGIN_WITH.items()
            ]
            return cls(settings, *parts)
        except InvalidInputError as error:
            raise ValueError(str(error)) from None

    def set_up(self, emulator: Emulator) -> None:
        """Open the sessions, and script the faults."""
        for session in self._sessions:
            emulator.add_session(session.get("session_id"), to=session.get("to"), active=session["active"])
        for fault in self._faults:
            emulator.script(read_fault(fault), fault["times"], fault["endpoint"])
