"""The emulator's settings. They may be changed while it runs: the next request finds the new ones."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import attrs

from kodmobi_async.emulator import _checks

__all__ = ("Settings",)

InWindow: TypeAlias = Literal["quiet", "refuse"]
Existing: TypeAlias = Literal["send", "quiet"]

_LAST_PORT: Final = 65_535
# The documentation's bounds.
_SHORTEST_CODE: Final = 4
_LONGEST_CODE: Final = 6


def _other_key(settings: Settings, attribute: attrs.Attribute[str], value: str) -> None:
    if value == settings.api_key:
        raise ValueError(f"{attribute.name} must differ from api_key")


@attrs.define(kw_only=True, eq=False, repr=False)
class Settings:
    """What can be set; ``Emulator`` documents each."""

    api_key: str = attrs.field(default="emulator-key", validator=_checks.key)
    secret_key: str = attrs.field(default="emulator-secret-key", validator=[_checks.key, _other_key])
    host: str = attrs.field(default="127.0.0.1", validator=_checks.non_empty)
    port: int = attrs.field(default=0, validator=_checks.whole_number(0, _LAST_PORT))
    channels: tuple[str, ...] = attrs.field(
        default=("telegram", "whatsapp", "sms", "email"), converter=_checks.channel_names
    )
    window: float = attrs.field(default=60.0, validator=_checks.seconds())
    session_lifetime: float = attrs.field(default=180.0, validator=_checks.seconds(above=0.0))
    code_length: int = attrs.field(default=6, validator=_checks.whole_number(_SHORTEST_CODE, _LONGEST_CODE))
    code_letters: bool = attrs.field(default=False, validator=_checks.boolean)
    max_checks: int = attrs.field(default=5, validator=_checks.whole_number(1))
    block_after: int | None = attrs.field(default=None, validator=_checks.optional_whole_number(1))
    require_active: bool = attrs.field(default=False, validator=_checks.boolean)
    challenge: bool | tuple[str, ...] = attrs.field(default=False, converter=_checks.challenge_tokens)
    create_in_window: InWindow = attrs.field(default="quiet", validator=_checks.one_of(*get_args(InWindow)))
    keep: int = attrs.field(default=10_000, validator=_checks.whole_number(1))
    control: bool = attrs.field(default=True, validator=_checks.boolean)
    create_existing: Existing = attrs.field(default="send", validator=_checks.one_of(*get_args(Existing)))
