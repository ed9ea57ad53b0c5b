"""Private data in text: what is shortened, what is masked, and what is taken out.

Keys, codes, tokens, phone numbers and email addresses never stand in a log, a repr or an error's text. A session id is
shortened; a recipient is masked where a person has to recognise it.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

PLACEHOLDER: Final = "•••"
"""Stands where a secret stood. Keys and codes are printable ASCII, so none of them occurs in it."""

_SHORTEST_SHORTENED: Final = 12
_VISIBLE_DIGITS: Final = 4
_FEWEST_DIGITS: Final = 7
_DEEPEST: Final = 4
_MOST_ITEMS: Final = 20
_LONGEST_TEXT: Final = 300


# An email address; an international phone number; digits alone that could be one.
_RECIPIENT: Final = re.compile(
    r"[^\s@<>()\"',;:]{1,64}@[^\s@<>()\"',;:]{1,255}"
    r"|\+[0-9](?:[ ().-]{0,2}[0-9]){6,14}(?![0-9])"
    r"|(?<![0-9A-Za-z])[0-9]{10,15}(?![0-9A-Za-z])"
)


def _masked(found: re.Match[str]) -> str:
    return mask(found[0])


def shorten(session_id: object) -> str:
    """Return enough of a session id to recognise it by, and too little to use it."""
    text = str(session_id)
    return f"{text[:4]}…{text[-4:]}" if len(text) >= _SHORTEST_SHORTENED else "…"


def mask(recipient: object) -> str:
    """Return a phone number as ``+1•••••0123``, an email address as ``j•••@example.com``, anything else as ``•••``."""
    text = str(recipient)
    name, at, domain = text.rpartition("@")
    if at and name:
        return f"{name[0]}•••@{domain}"
    digits = "".join(char for char in text if char.isdigit())
    if text.startswith("+") and len(digits) >= _FEWEST_DIGITS:
        return f"+{digits[0]}•••••{digits[-_VISIBLE_DIGITS:]}"
    return PLACEHOLDER


class Redaction:
    """Takes secrets out of text that the service has written, before it gets into an error, a record or a log."""

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str) -> None:
        self._secrets = secrets

    def __call__(self, text: str) -> str:
        """Return ``text`` with the placeholder where a secret stood, and with phone numbers and addresses masked."""
        for secret in self._secrets:
            text = text.replace(secret, PLACEHOLDER)
        return _RECIPIENT.sub(_masked, text)

    def also(self, *secrets: str) -> Redaction:
        """Return a redaction of further secrets, those of one call."""
        return Redaction(*self._secrets, *secrets) if secrets else self

    def line(self, value: object, longest: int = _LONGEST_TEXT) -> str | None:
        """Return text of the service fit for one line of a terminal or a log; ``None`` if there is none."""
        if not isinstance(value, str):
            return None
        # redacted first: half a secret is not found any more
        text = self(value)[:longest]
        return "".join(char if char.isprintable() else " " for char in text).strip() or None

    def tree(self, value: object, depth: int = _DEEPEST) -> Any:
        """Return a JSON value of the service with its texts redacted, its depth and its size bounded."""
        if isinstance(value, str):
            return self.line(value) or ""
        if isinstance(value, dict):
            items = list(cast("dict[str, object]", value).items())[:_MOST_ITEMS] if depth else []
            return {self.line(name) or "": self.tree(item, depth - 1) for name, item in items}
        if isinstance(value, list):
            elements = cast("list[object]", value)[:_MOST_ITEMS] if depth else []
            return [self.tree(item, depth - 1) for item in elements]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            text = str(value)  # a code or a number may come back as a number
            return value if self(text) == text else PLACEHOLDER
        return value


NOTHING_SECRET: Final = Redaction()
