"""What names a session and a recipient on the wire."""

from __future__ import annotations

import re
from typing import Final

__all__ = ("canonical", "is_recipient")

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
