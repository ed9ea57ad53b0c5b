"""How private data looks in a repr or a log."""

from __future__ import annotations

from typing import Final

__all__ = ("mask", "mask_recipient", "shorten")

_HIDDEN: Final = "•" * 6
# As much of a phone number as a person needs to recognise it.
_FIRST_DIGITS: Final = 2
_LAST_DIGITS: Final = 4
_SHORT_ID: Final = 10


def mask(_: object) -> str:
    """Return the same text for every value."""
    return _HIDDEN


def mask_recipient(to: str) -> str:
    """Mask a recipient: ``+1••••••0123`` or ``j••••••@example.com``."""
    name, at, host = to.partition("@")
    if at:
        return f"{name[:1]}{_HIDDEN}@{host}"
    return f"{to[:_FIRST_DIGITS]}{_HIDDEN}{to[-_LAST_DIGITS:]}" if len(to) > _FIRST_DIGITS + _LAST_DIGITS else _HIDDEN


def shorten(session_id: str) -> str:
    """Shorten a session's id to its time: ``01K8N1VMPN…``."""
    return f"{session_id[:_SHORT_ID]}…"
