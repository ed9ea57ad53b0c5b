"""What travels: channels, requests and results, in the API's own words."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import attrs
from ulid import ULID

from kodmobi_async._values.channel import Channel
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async._values.plain import Plain
from kodmobi_async._values.redaction import mask, shorten

WindowScope: TypeAlias = Literal["local", "shared"]
"""Who knows of a window: this process, or all that share a tracker."""


def _documented(channel: str | None) -> str:
    """Return the name of a documented channel; another is text of the service's, which might repeat the key."""
    return repr(channel.value) if isinstance(channel, Channel) else "…" if channel else repr(channel)


@attrs.frozen
class SendRequest(Plain):
    """One code to re-send.

    Args:
        session_id: The session's ULID.
        channel: Over which channel.
    """

    session_id: ULID | str = attrs.field(repr=shorten)
    channel: Channel | str


@attrs.frozen(slots=False)  # with slots, a frozen object takes a third longer to build
class SessionChannel(Plain):
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
class SendResult(Plain):
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
            = this process alone, because its tracker is its own, or the shared one was unavailable.
        expires_in: Seconds that the session had left when the service responded, by the service's own ``Date``;
            ``None`` where the response does not tell.
        request_id: The response's ``X-Request-Id``, where it has one.
    """

    session_id: ULID = attrs.field(repr=shorten)
    session_expired_at: datetime | None
    channel: SessionChannel
    attempts: int = 1
    confirmed: bool = False
    window: WindowScope = "local"
    expires_in: float | None = None
    request_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(slots=False)  # as above
class Session(Plain):
    """A recipient's session, created or found.

    Source: the API documentation, "Create session".

    Attributes:
        session_id: What the other calls take.
        session_expired_at: When the session ends, on the *service's* wall clock, always aware; ``None`` where the
            response held no readable date.
        sent_to: The channel that a code was sent over by this call. ``None`` where nothing was sent: it was not asked
            for, or a code sent earlier still blocks the channel.
        channels: The project's channels, each with the seconds for which it is blocked.
        attempts: How many requests it took.
        confirmed: The response to the request that sent was lost, and asking the service showed that it had arrived.
        window: Who knows of the windows now; see `SendResult`.
        expires_in: Seconds that the session had left when the service responded; ``None`` where it does not tell.
        request_id: The response's ``X-Request-Id``, where it has one.
    """

    session_id: ULID = attrs.field(repr=shorten)
    session_expired_at: datetime | None
    sent_to: Channel | str | None = attrs.field(repr=_documented)
    channels: tuple[SessionChannel, ...]
    attempts: int = 1
    confirmed: bool = False
    window: WindowScope = "local"
    expires_in: float | None = None
    request_id: str | None = attrs.field(default=None, repr=False)

    def timeout_of(self, channel: Channel | str) -> float:
        """Return the seconds for which a channel is blocked; 0.0 if it is free, or none of the project's."""
        return next((each.timeout for each in self.channels if each.type.lower() == channel.lower()), 0.0)


@attrs.frozen
class CheckResult(Plain):
    """The code was right.

    Source: the service's JavaScript SDK.

    Attributes:
        verify_token: What the server side redeems with `KodmobiClient.verify`, once.
        is_test: The service says that no real code was involved.
        request_id: The response's ``X-Request-Id``, where it has one.
    """

    verify_token: str = attrs.field(repr=False)
    is_test: bool = False
    request_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class VerifiedUser(Plain):
    """Who has proved to hold a phone number or an email address.

    Attributes:
        to: The phone number in E.164, or the email address.
        request_id: The response's ``X-Request-Id``, where it has one.
    """

    to: str = attrs.field(repr=mask)
    request_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class CodeFormat(Plain):
    """What codes look like.

    Attributes:
        length: How many characters.
        digits: Whether digits occur.
        letters: Whether letters occur.
    """

    length: int
    digits: bool
    letters: bool


@attrs.frozen
class ChallengeSettings(Plain):
    """Whether requests need the token of a CAPTCHA.

    Attributes:
        enabled: They do.
        api_key: The public key that starts the widget in the page.
    """

    enabled: bool
    api_key: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class ProjectSettings(Plain):
    """What a login page has to know of the project.

    Source: the service's JavaScript SDK.

    Attributes:
        language: Of the service's messages.
        project_name: For people.
        code: What codes look like.
        challenge: Whether requests need the token of a CAPTCHA.
        request_id: The response's ``X-Request-Id``, where it has one.
    """

    language: str = attrs.field(repr=False)
    project_name: str = attrs.field(repr=False)
    code: CodeFormat
    challenge: ChallengeSettings
    request_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class SendOutcome(Plain):
    """How one request of many ended: with a result or with an error, never with both.

    Attributes:
        request: The request, as it was given.
        result: Set when the code is on its way.
        error: Set when it is not, or it is unknown whether it is; ``error.outcome`` says which.
    """

    request: SendRequest
    result: SendResult | None = None
    error: KodmobiError | None = None
