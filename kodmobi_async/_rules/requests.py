"""From arguments to requests: what a caller passes is checked, brought into its one form, and becomes a request.

Everything is checked before any I/O. No message repeats a wrong value: it might be a secret put in the wrong place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson
from ulid import ULID

from kodmobi_async._rules.exchange import Request
from kodmobi_async._rules.normalize import read_phone
from kodmobi_async._values.assumptions import CHALLENGE_HEADER, VERIFY_PATH
from kodmobi_async._values.channel import Channel
from kodmobi_async._values.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Crockford's base 32: no I, L, O or U; the first character carries only three bits.
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
# Crockford asks decoders to read I and L as 1, and O as 0.
_LOOK_ALIKES: Final = str.maketrans("ILO", "110")
_TO_PYTHONS_DIGITS: Final = bytes.maketrans(b"ABCDEFGHJKMNPQRSTVWXYZ", b"ABCDEFGHIJKLMNOPQRSTUV")
_CHANNEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KNOWN_CHANNELS: Final[dict[str, Channel]] = {channel.value: channel for channel in Channel}
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s.\x00-\x1f\x7f]+(?:\.[^@\s.\x00-\x1f\x7f]+)+")
_LONGEST_EMAIL: Final = 254
_TOKEN: Final = re.compile(r"[!-~]{1,8192}")


def normalize_session_id(session_id: ULID | str) -> str:
    """Return the one spelling of a session's ULID: upper case, look-alikes resolved.

    Raises:
        InvalidRequestError: It is no ULID.
    """
    if type(session_id) is str and _ULID.fullmatch(session_id):
        return session_id
    if isinstance(session_id, ULID):
        return str(session_id)
    if not isinstance(session_id, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
        raise InvalidRequestError(f"session_id must be a ULID or a str, not {type(session_id).__name__}")
    # length and alphabet first: upper() of a hostile megabyte is work, and makes ASCII of some letters that are not
    if len(session_id) == 26 and session_id.isascii():  # noqa: PLR2004 a ULID's length
        canonical = session_id.upper().translate(_LOOK_ALIKES)
        if _ULID.fullmatch(canonical):
            return canonical
    raise InvalidRequestError(
        "session_id is not a ULID: it takes 26 characters of Crockford's base 32, the first of them at most 7"
        f" (got {len(session_id)} characters)"
    )


def to_ulid(session_id: str) -> ULID:
    """Return the ULID of a canonical session id; ``ULID.from_str`` takes twenty times as long."""
    return ULID(int(session_id.encode("ascii").translate(_TO_PYTHONS_DIGITS), 32).to_bytes(16, "big"))


def normalize_channel(channel: Channel | str) -> Channel | str:
    """Return the channel as it goes on the wire: documented names in the documentation's lower case.

    Raises:
        InvalidRequestError: It is no channel name: 1 to 64 ASCII letters, digits, dots, dashes and underscores.
    """
    if type(channel) is Channel:
        return channel
    if type(channel) is str and channel in KNOWN_CHANNELS:
        return KNOWN_CHANNELS[channel]
    if not isinstance(channel, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
        raise InvalidRequestError(f"channel must be a Channel or a str, not {type(channel).__name__}")
    if not is_channel(channel):
        raise InvalidRequestError(
            "channel is not a channel name: it takes 1 to 64 ASCII letters, digits, dots, dashes and underscores"
            f" (got {len(channel)} characters)"
        )
    # a plain string, whatever enumeration of the user's own it may come from
    return KNOWN_CHANNELS.get(channel.lower(), str.__str__(channel))


def is_channel(name: str) -> bool:
    """Whether a channel of this name could be sent to."""
    return _CHANNEL.fullmatch(name) is not None


def canonical_recipient(to: str) -> str:
    """Return a phone number in E.164, or an email address with its domain in lower case.

    Raises:
        InvalidRequestError: It is neither.
    """
    address = _read_email(to)
    recipient, wrong = read_phone(to) if address is None else (address, None if address else "it is no email address")
    del to  # a traceback that shows variables must not show it
    if wrong is not None:
        raise InvalidRequestError(f"to takes a phone number in E.164 or an email address: {wrong}")
    return recipient


def _read_email(to: object) -> str | None:
    """Return an email address; nothing if it is a wrong one, ``None`` if it is none at all."""
    if not isinstance(to, str) or "@" not in to:
        return None
    name, _, domain = to.strip().rpartition("@")
    address = f"{name}@{domain.lower()}"
    return address if len(address) <= _LONGEST_EMAIL and _EMAIL.fullmatch(address) else ""


def check_token(name: str, token: object) -> str:
    """Return a token as it is.

    Raises:
        InvalidRequestError: It is no token: 1 to 8192 printable ASCII characters without spaces.
    """
    if isinstance(token, str) and _TOKEN.fullmatch(token):
        return token
    del token  # as above
    raise InvalidRequestError(f"{name} takes 1 to 8192 printable ASCII characters without spaces")


# -- requests ---------------------------------------------------------------------------------------------------------


def send_request(session_id: str, channel: str, challenge: str | None = None) -> Request:
    """Build ``POST /send``. Source: the API documentation, "Send code"."""
    # neither holds anything that JSON would escape; joined, since an enumeration's member is slow to format
    body = ('{"session_id":"' + session_id + '","type":"' + channel + '"}').encode("ascii")
    return Request("POST", "/send", body) if challenge is None else Request("POST", "/send", body, _token(challenge))


def channels_request(session_id: str | None) -> Request:
    """Build ``GET /channels``. Source: the API documentation, "Channels"."""
    return Request("GET", _for_session("/channels", session_id))


def create_request(to: str, channel: str | None, *, send: bool, challenge: str | None = None) -> Request:
    """Build ``POST /create``. Source: the API documentation, "Create session"."""
    body: dict[str, object] = {"to": to, "send": send}
    if channel is not None:
        body["type"] = str(channel)
    return _post("/create", body, challenge)


def check_request(session_id: str, code: str, challenge: str | None = None) -> Request:
    """Build ``POST /check``. Source: the service's JavaScript SDK."""
    return _post("/check", {"session_id": session_id, "code": code}, challenge)


def verify_request(verify_token: str) -> Request:
    """Build ``POST /verify``, for the secret key. Source: the API documentation names it."""
    request = _post(VERIFY_PATH, {"verify_token": verify_token})
    request.takes_secret_key = True
    return request


def settings_request(session_id: str | None) -> Request:
    """Build ``GET /settings``. Source: the service's JavaScript SDK."""
    return Request("GET", _for_session("/settings", session_id))


def _post(target: str, body: Mapping[str, object], challenge: str | None = None) -> Request:
    return Request("POST", target, orjson.dumps(body), None if challenge is None else _token(challenge))


def _token(challenge: str) -> dict[str, str]:
    return {CHALLENGE_HEADER: challenge}


def _for_session(target: str, session_id: str | None) -> str:
    return target if session_id is None else f"{target}?session_id={session_id}"
