"""What names a session and a recipient on the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ulid import ULID

__all__ = ("canonical", "is_recipient", "require_recipient", "require_ulid")

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_LOOK_ALIKES: Final = str.maketrans("ILO", "110")
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def canonical(session_id: str) -> str | None:
    """Return a ULID in its canonical spelling; None if it is not a ULID."""
    if not session_id.isascii():  # upper() turns a few other letters into ASCII
        return None
    spelled = session_id.upper().translate(_LOOK_ALIKES)
    return spelled if _ULID.fullmatch(spelled) else None


def is_recipient(to: str) -> bool:
    """Return whether ``to`` is an E.164 phone number or an email address."""
    return bool(_E164.fullmatch(to) or _EMAIL.fullmatch(to))


def require_ulid(session_id: str | ULID) -> str:
    """Return a ULID in its canonical spelling.

    Raises:
        ValueError: It is not a ULID.
    """
    spelled = canonical(str(session_id))
    if spelled is None:
        raise ValueError("session_id must be a ULID")
    return spelled


def require_recipient(to: str) -> str:
    """Return ``to``.

    Raises:
        ValueError: It is neither an E.164 phone number nor an email address.
    """
    if not is_recipient(to):
        raise ValueError("to must be an E.164 phone number or an email address")
    return to
