"""The project: the channels it offers, who may use them, and how ``settings`` describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async.emulator import _choices
from kodmobi_async.emulator._refusals import RefusedError
from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from kodmobi_async.emulator._json import JsonObject
    from kodmobi_async.emulator._sessions import Session, User

__all__ = ("Project",)

_NAMES: Final = {"whatsapp": "WhatsApp", "sms": "SMS"}


@attrs.frozen
class Project:
    """What the admin panel of the real service would hold."""

    _settings: Settings

    def offered(self, channel: object) -> str:
        """Return the channel that a request names.

        Raises:
            RefusedError: It is not a name, or the project does not offer it.
        """
        if not isinstance(channel, str) or not channel:
            raise RefusedError("ERROR_BAD_REQUEST", field="type")
        if channel not in self._settings.channels:
            raise RefusedError("ERROR_PROJECT_HAS_NO_CHANNEL")
        return channel

    def default_channel(self, user: User) -> str:
        """Return the channel over which ``user`` gets a code without asking for one.

        Raises:
            RefusedError: The project has no channels.
        """
        channels = self._settings.channels
        if not channels:
            raise RefusedError("ERROR_PROJECT_HAS_NO_CHANNELS")
        used = [user.last_channel] if user.last_channel in channels else []
        return next((channel for channel in (*used, *channels) if self._may_use(user, channel)), channels[0])

    def require_use(self, user: User, channel: str) -> None:
        """Raise an error if ``user`` may not get a code over ``channel``.

        Raises:
            RefusedError: The user has not started the channel's bot.
        """
        if not self._may_use(user, channel):
            raise RefusedError("ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL")

    def list_channels(self, session: Session | None, now: float) -> list[JsonObject]:
        """Describe every channel, for a session or for nobody in particular."""
        return [
            self.describe(channel, session, timeout=session.seconds_left(channel, now) if session else 0)
            for channel in self._settings.channels
        ]

    def describe(self, channel: str, session: Session | None, *, timeout: float) -> JsonObject:
        """Return a documented ``SessionChannel``."""
        return {
            "name": _NAMES.get(channel, channel.capitalize()),
            "type": channel,
            "is_active": _is_active(session.user if session else None, channel),
            "timeout": int(timeout) if timeout == int(timeout) else timeout,
            "image_url": _choices.IMAGE_URL.format(type=channel),
            "link": _choices.LINKS.get(channel, ""),
        }

    def describe_settings(self, language: str) -> JsonObject:
        """Return what ``settings`` responds with."""
        settings = self._settings
        demanded = settings.challenge is not False
        return {
            "language": language,
            "project": {"name": _choices.PROJECT_NAME},
            "code": {"length": settings.code_length, "digits": True, "letters": settings.code_letters},
            "challenge": {"enabled": demanded, "api_key": _choices.CHALLENGE_API_KEY if demanded else None},
        }

    def _may_use(self, user: User, channel: str) -> bool:
        return not self._settings.require_active or _is_active(user, channel)


def _is_active(user: User | None, channel: str) -> bool:
    return channel not in _choices.LINKS or (user is not None and channel in user.active)
