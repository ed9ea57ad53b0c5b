"""The service without its wire: a request and the time in, a response out. No socket, no clock."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qs

import attrs
import orjson

from kodmobi_async.emulator import _choices
from kodmobi_async.emulator._choices import ENDPOINTS, PREFIXES
from kodmobi_async.emulator._http import Response
from kodmobi_async.emulator._identifiers import is_recipient
from kodmobi_async.emulator._json import to_json
from kodmobi_async.emulator._refusals import Refusal, RefusedError, preferred_language
from kodmobi_async.emulator._sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async.emulator._http import Request
    from kodmobi_async.emulator._json import Json, JsonObject
    from kodmobi_async.emulator._sessions import Session

__all__ = ("Service", "endpoint_of")

_log: Final = logging.getLogger("kodmobi_async.emulator")

_NAMES: Final = {"whatsapp": "WhatsApp", "sms": "SMS"}


@attrs.define(kw_only=True, eq=False)
class Service:
    """The API's endpoints.

    Args:
        keys: The API keys that it accepts.
        channels: What the project offers, in its order.
        epoch: POSIX time when the loop's clock showed zero, in seconds.
        sessions: The sessions that it serves.
    """

    keys: Collection[str] = attrs.field(repr=False)
    channels: Sequence[str]
    epoch: float
    sessions: Sessions

    def wall_clock(self, at: float) -> datetime:
        """Return the date and time when the loop's clock shows ``at`` seconds."""
        return datetime.fromtimestamp(self.epoch + at, timezone.utc)  # noqa: UP017 datetime.UTC hides what it is

    def respond(self, request: Request, now: float) -> Response:
        """Carry out ``request`` at ``now``. A refusal is a response, too."""
        language = request.headers.get("accept-language", "")
        try:
            return Response(200, to_json(self._handler(request)(request, now)))
        except RefusedError as error:
            return error.refusal.response(language)
        except Exception:  # noqa: BLE001 a client must see a failing service, not a lost connection
            _log.exception("The emulator failed to serve %s %s", request.line.method, request.line.path)
            return Refusal("ERROR_SERVER").response(language)

    def _handler(self, request: Request) -> Callable[[Request, float], Json]:
        endpoint = endpoint_of(request.line.path)
        if endpoint is None or ENDPOINTS[endpoint] != request.line.method:
            raise RefusedError("ERROR_NOT_FOUND")
        key = request.headers.get("x-api-key", "").encode("latin-1")
        # Compare with every key, so that the time taken does not tell which one was nearly right.
        if not sum(hmac.compare_digest(key, known.encode()) for known in self.keys):
            raise RefusedError("ERROR_ACCESS_DENIED")
        return {
            "create": self._create,
            "send": self._send,
            "channels": self._channels,
            "check": self._check,
            "settings": self._settings,
        }[endpoint]

    def _create(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        to, send = body.get("to"), body.get("send", True)
        if not isinstance(to, str) or not is_recipient(to):
            raise RefusedError("ERROR_BAD_REQUEST", field="to")
        if not isinstance(send, bool):
            raise RefusedError("ERROR_BAD_REQUEST", field="send")
        channel = self._offered(body["type"] if "type" in body else self._first_channel())
        session = self.sessions.of_recipient(to, now)
        if send and not session.seconds_left(channel, now):
            self.sessions.deliver(session, channel, now)
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "sent_to": channel if send else None,
            "channels": self._list_channels(session, now),
        }

    def _send(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        session = self.sessions.live(body.get("session_id"), now)
        channel = self._offered(body.get("type"))
        if left := session.seconds_left(channel, now):
            raise RefusedError("ERROR_MESSAGE_ATTEMPT", retry_after=left)
        self.sessions.deliver(session, channel, now)
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "channel": _describe(channel, session, timeout=self.sessions.window),
        }

    def _channels(self, request: Request, now: float) -> Json:
        return self._list_channels(self._session_in_query(request, now), now)

    def _check(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        session = self.sessions.live(body.get("session_id"), now)
        code = body.get("code")
        if not isinstance(code, str):
            raise RefusedError("ERROR_BAD_REQUEST", field="code")
        if not hmac.compare_digest(code.encode("utf-8", "replace"), session.code.encode()):
            raise RefusedError("ERROR_MESSAGE_WRONG_CODE")
        return {"verify_token": secrets.token_urlsafe()}

    def _settings(self, request: Request, now: float) -> Json:
        self._session_in_query(request, now)
        return {
            "language": preferred_language(request.headers.get("accept-language", "")),
            "project": {"name": _choices.PROJECT_NAME},
            "code": {"length": _choices.CODE_LENGTH, "digits": True, "letters": False},
            "challenge": {"enabled": False, "api_key": None},
        }

    def _session_in_query(self, request: Request, now: float) -> Session | None:
        ids = parse_qs(request.line.query, keep_blank_values=True).get("session_id")
        return self.sessions.live(ids[0], now) if ids else None

    def _first_channel(self) -> str:
        if not self.channels:
            raise RefusedError("ERROR_PROJECT_HAS_NO_CHANNELS")
        return self.channels[0]

    def _offered(self, channel: object) -> str:
        if not isinstance(channel, str) or not channel:
            raise RefusedError("ERROR_BAD_REQUEST", field="type")
        if channel not in self.channels:
            raise RefusedError("ERROR_PROJECT_HAS_NO_CHANNEL")
        return channel

    def _list_channels(self, session: Session | None, now: float) -> Json:
        return [
            _describe(channel, session, timeout=session.seconds_left(channel, now) if session else 0)
            for channel in self.channels
        ]

    def _expired_at(self, session: Session) -> str:
        return self.wall_clock(session.expires_at).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def endpoint_of(path: str) -> str | None:
    """Return the name of the endpoint at ``path``; None if there is none."""
    for prefix in PREFIXES:
        name = path.removeprefix(prefix)
        if name != path and name in ENDPOINTS:
            return name
    return None


def _read_object(request: Request) -> dict[str, object]:
    """Parse the body as a JSON object, whatever its content type: the documentation's own examples need that."""
    try:
        value: object = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise RefusedError("ERROR_BAD_REQUEST") from None
    if not isinstance(value, dict):
        raise RefusedError("ERROR_BAD_REQUEST")
    return cast("dict[str, object]", value)


def _describe(channel: str, session: Session | None, *, timeout: float) -> JsonObject:
    return {
        "name": _NAMES.get(channel, channel.capitalize()),
        "type": channel,
        "is_active": session is not None and channel in session.active,
        "timeout": int(timeout) if timeout == int(timeout) else timeout,
        "image_url": _choices.IMAGE_URL.format(type=channel),
        "link": _choices.LINKS.get(channel, ""),
    }
