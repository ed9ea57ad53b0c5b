"""What people type into a login page, read as they mean it: phone numbers and codes."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from kodmobi_async._values.assumptions import LONGEST_CODE, SHORTEST_CODE
from kodmobi_async._values.errors import InvalidRequestError

# Longer text is no phone number and no code; normalizing a hostile megabyte would be work.
_LONGEST_TEXT: Final = 100
_CODE: Final = re.compile(rf"[0-9A-Za-z]{{{SHORTEST_CODE},{LONGEST_CODE}}}")
# E.164: a country code that does not begin with 0, 15 digits at most. Nobody has fewer than 7.
_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_TRUNK_ZERO: Final = re.compile(r"(?<=[0-9])[^0-9+]*\(0\)")
# Besides spaces (Z*), dashes (Pd), brackets (Ps, Pe) and invisible marks (Cf).
_SEPARATORS: Final = frozenset("./·_")
_DROPPED: Final = ("Z", "Pd", "Ps", "Pe", "Cf")


def normalize_code(text: str) -> str:
    """Return a one-time code as the service takes it, from what a person typed or pasted.

    Spaces, dashes, brackets and dots are dropped; digits of any script become ASCII digits. Letters stay as they are.

    Args:
        text: What was typed, such as ``"123-456"`` or ``"١٢٣٤٥٦"``.

    Raises:
        InvalidRequestError: This can be no code. The message never repeats it.
    """
    code, wrong = read_code(text)
    del text  # a traceback that shows variables must not show it
    if wrong is not None:
        raise InvalidRequestError(wrong)
    return code


def normalize_phone(text: str) -> str:
    """Return a phone number in E.164, such as ``+14155550123``, from what a person typed or pasted.

    Spaces, dashes, brackets, dots and slashes are dropped; digits of any script become ASCII digits; a leading ``00``
    becomes ``+``, and a ``(0)`` behind the country code is dropped.

    Args:
        text: What was typed, with the country code.

    Raises:
        InvalidRequestError: This can be no phone number, or has no country code. The message never repeats it.
    """
    phone, wrong = read_phone(text)
    del text  # as above
    if wrong is not None:
        raise InvalidRequestError(wrong)
    return phone


def read_code(text: object) -> tuple[str, str | None]:
    """Return the code, or nothing and what is wrong."""
    code = _in_ascii(text)
    if code is None or not _CODE.fullmatch(code):
        return "", f"a code has {SHORTEST_CODE} to {LONGEST_CODE} letters and digits"
    return code, None


def read_phone(text: object) -> tuple[str, str | None]:
    """Return the phone number, or nothing and what is wrong."""
    phone = _in_ascii(text, trunk_zero=True)
    if phone is None:
        return "", "a phone number is a str, with + and 7 to 15 digits"
    if phone.startswith("00"):
        phone = "+" + phone[2:]
    if not phone.startswith("+"):
        return "", "a phone number starts with + and its country code"
    if not _PHONE.fullmatch(phone):
        return "", "a phone number has + and 7 to 15 digits, the first of them not 0"
    return phone, None


def _in_ascii(text: object, *, trunk_zero: bool = False) -> str | None:
    """Return text without separators, with its digits, letters and plus signs in ASCII; ``None`` if it cannot be."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return None
    # NFKC makes ASCII of full-width letters, signs and brackets
    digits = "".join(map(_digit_in_ascii, unicodedata.normalize("NFKC", text)))
    if trunk_zero:
        digits = _TRUNK_ZERO.sub("", digits)
    return "".join(char for char in digits if not _is_separator(char))


def _digit_in_ascii(char: str) -> str:
    value = unicodedata.decimal(char, None)
    return char if value is None else str(value)


def _is_separator(char: str) -> bool:
    return char in _SEPARATORS or char.isspace() or unicodedata.category(char).startswith(_DROPPED)
