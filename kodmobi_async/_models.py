"""What travels: channels, requests and results, in the API's own words."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
from ulid import ULID

if TYPE_CHECKING:
    from kodmobi_async._errors import KodmobiError  # noqa: TC004 only checkers read it; nothing structures SendOutcome


_SHORT_ENOUGH: Final = 12

WindowScope: TypeAlias = Literal["local", "shared"]
"""Who knows of a window: this process, or all that share a tracker."""


def shorten(session_id: object) -> str:
    """Return enough of a session id to recognise it by, and too little to use it."""
    text = str(session_id)
    return f"{text[:4]}…{text[-4:]}" if len(text) >= _SHORT_ENOUGH else "…"


def _documented(channel: str) -> str:
    """Return the name of a documented channel; another is text of the service's, which might repeat the key."""
    return repr(channel.value) if isinstance(channel, Channel) else "…"


class Channel(StrEnum):
    """The channels that the documentation names; any other name may be passed as a plain string."""

    TELEGRAM = "telegram"
    WHATSAPP = "whatsapp"
    SMS = "sms"
    EMAIL = "email"


@attrs.frozen
class SendRequest:
    """One code to re-send.

    Args:
        session_id: The session's ULID.
        channel: Over which channel.
    """

    session_id: ULID | str = attrs.field(repr=shorten)
    channel: Channel | str


@attrs.frozen(slots=False)  # with slots, a frozen object takes a third longer to build
class SessionChannel:
    """A channel as the service describes it for a session.

    Source: the API documentation, "SessionChannel".

    Attributes:
        name: For people, such as ``"Telegram"``.
        type: The channel.
        is_active: The user's status on the channel, such as whether the bot was started.
        timeout: Seconds until the channel may be sent to again; 0 = now. The documentation says 0 to 60.
        image_url: An icon.
        link: Where the user activates the channel, such as the bot's address.
        description: More words for people; only some answers have it.
    """

    # text of the service's may hold anything, also what was sent to it: no repr shows it
    name: str = attrs.field(repr=False)
    type: Channel | str = attrs.field(repr=_documented)
    is_active: bool
    timeout: float
    image_url: str = attrs.field(repr=False)
    link: str = attrs.field(repr=False)
    description: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(slots=False)  # as above
class SendResult:
    """A code that is on its way.

    Attributes:
        session_id: The session that was sent to.
        session_expired_at: When the session ends, on the *service's* wall clock, always aware. ``None`` where the
            answer held no readable date, and when the send was confirmed without an answer of its own.
        channel: The channel that the service sent over, which may be another than the one asked for; its ``timeout``
            says for how many seconds it is blocked now.
        attempts: How many requests it took.
        confirmed: The answer was lost, and asking the service showed that the send had arrived.
        window: Who knows of the channel's window now: ``"shared"`` = every process that shares the tracker, ``"local"``
            = this process alone, because its tracker is its own, or the shared one was not to be had.
    """

    session_id: ULID = attrs.field(repr=shorten)
    session_expired_at: datetime | None
    channel: SessionChannel
    attempts: int = 1
    confirmed: bool = False
    window: WindowScope = "local"


@attrs.frozen
class SendOutcome:
    """How one request of many ended: with a result or with an error, never with both.

    Attributes:
        request: The request, as it was given.
        result: Set when the code is on its way.
        error: Set when it is not, or nobody knows; ``error.outcome`` says which.
    """

    request: SendRequest
    result: SendResult | None = None
    error: KodmobiError | None = None
