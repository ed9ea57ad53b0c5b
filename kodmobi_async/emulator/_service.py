"""The service without its wire: a request and the time in, a response out. No socket, no clock."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qs

import attrs
import orjson

from kodmobi_async.emulator._choices import CHALLENGE_HEADER, ENDPOINTS, PREFIXES
from kodmobi_async.emulator._http import Response
from kodmobi_async.emulator._identifiers import is_recipient
from kodmobi_async.emulator._json import to_json, to_timestamp
from kodmobi_async.emulator._project import Project
from kodmobi_async.emulator._refusals import Refusal, RefusedError, preferred_language
from kodmobi_async.emulator._sessions import Sessions
from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from kodmobi_async.emulator._http import Request
    from kodmobi_async.emulator._json import Json
    from kodmobi_async.emulator._sessions import Session, User

__all__ = ("Service", "endpoint_of")

_log: Final = logging.getLogger("kodmobi_async.emulator")


@attrs.define(eq=False, repr=False)
class Service:
    """The API's endpoints.

    Args:
        settings: The emulator's.
        sessions: The sessions that it serves.
        date: Returns the date at a time on the emulator's clock.
    """

    _settings: Settings
    _sessions: Sessions
    _date: Callable[[float], datetime]
    project: Project = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.project = Project(self._settings)

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
        self._authorize(endpoint, request.headers.get("x-api-key", ""))
        return {
            "create": self._create,
            "send": self._send,
            "channels": self._channels,
            "check": self._check,
            "verify": self._verify,
            "settings": self._describe_settings,
        }[endpoint]

    def _authorize(self, endpoint: str, key: str) -> None:
        public, secret = self._settings.api_key, self._settings.secret_key
        keys = [secret] if endpoint == "verify" else [public, secret]
        # Compare with every key, so that the time taken does not tell which one was nearly right.
        if not sum(hmac.compare_digest(key.encode("latin-1"), known.encode()) for known in keys):
            raise RefusedError("ERROR_ACCESS_DENIED")

    def _create(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        to, send = body.get("to"), body.get("send", True)
        if not isinstance(to, str) or not is_recipient(to):
            raise RefusedError("ERROR_BAD_REQUEST", field="to")
        if not isinstance(send, bool):
            raise RefusedError("ERROR_BAD_REQUEST", field="send")
        user = self._sessions.user(to)
        channel = self.project.offered(body["type"]) if "type" in body else self.project.default_channel(user)
        if send:
            self._demand_challenge(request)
        _refuse_blocked(user)
        if send:
            self.project.require_use(user, channel)
        session, existed = self._sessions.of(user, now)
        sent_to = self._send_created(session, channel, now, existed=existed) if send else None
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "sent_to": sent_to,
            "channels": self.project.list_channels(session, now),
        }

    def _send_created(self, session: Session, channel: str, now: float, *, existed: bool) -> str | None:
        """Send what ``create`` asks for, and return the channel that the code is on, if any."""
        left = session.seconds_left(channel, now)
        if existed and self._settings.create_existing == "quiet":
            return channel if left else None
        if left and self._settings.create_in_window == "refuse":
            raise RefusedError("ERROR_MESSAGE_ATTEMPT", retry_after=left)
        if not left:
            self._sessions.deliver(session, channel, now)
        return channel

    def _send(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        self._demand_challenge(request)
        session = self._sessions.live(body.get("session_id"), now)
        channel = self.project.offered(body.get("type"))
        _refuse_blocked(session.user)
        self.project.require_use(session.user, channel)
        if left := session.seconds_left(channel, now):
            raise RefusedError("ERROR_MESSAGE_ATTEMPT", retry_after=left)
        self._sessions.deliver(session, channel, now)
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "channel": self.project.describe(channel, session, timeout=self._settings.window),
        }

    def _channels(self, request: Request, now: float) -> Json:
        return self.project.list_channels(self._session_in_query(request, now), now)

    def _check(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        code = body.get("code")
        self._demand_challenge(request)
        session = self._sessions.live(body.get("session_id"), now)
        if not isinstance(code, str):
            raise RefusedError("ERROR_BAD_REQUEST", field="code")
        _refuse_blocked(session.user)
        if not session.has_code(code):
            self._sessions.count_wrong_code(session, now)
            raise RefusedError("ERROR_MESSAGE_WRONG_CODE")
        return {"verify_token": self._sessions.confirm(session, now), "is_test": False}

    def _verify(self, request: Request, _now: float) -> Json:
        token = _read_object(request).get("verify_token")
        if not isinstance(token, str):
            raise RefusedError("ERROR_BAD_REQUEST", field="verify_token")
        to = self._sessions.redeem(token).to
        return {"email" if "@" in to else "phone": to}

    def _describe_settings(self, request: Request, now: float) -> Json:
        self._session_in_query(request, now)
        return self.project.describe_settings(preferred_language(request.headers.get("accept-language", "")))

    def _demand_challenge(self, request: Request) -> None:
        """Use up the request's CAPTCHA token, where one is demanded."""
        accepted = self._settings.challenge
        if accepted is False:
            return
        token = request.headers.get(CHALLENGE_HEADER, "")
        passes = token != "" and (accepted is True or token in accepted)
        if not (passes and self._sessions.use_challenge(token)):
            raise RefusedError("ERROR_CHALLENGE")

    def _session_in_query(self, request: Request, now: float) -> Session | None:
        ids = parse_qs(request.line.query, keep_blank_values=True).get("session_id")
        return self._sessions.live(ids[0], now) if ids else None

    def _expired_at(self, session: Session) -> str:
        return to_timestamp(self._date(session.expires_at))


def endpoint_of(path: str) -> str | None:
    """Return the name of the endpoint at ``path``; None if there is none."""
    for prefix in PREFIXES:
        name = path.removeprefix(prefix)
        if name != path and name in ENDPOINTS:
            return name
    return None


def _refuse_blocked(user: User) -> None:
    if user.blocked:
        raise RefusedError("ERROR_PHONE_BLOCKED")


def _read_object(request: Request) -> dict[str, object]:
    """Parse the body as a JSON object, whatever its content type: the documentation's own examples need that."""
    try:
        value: object = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise RefusedError("ERROR_BAD_REQUEST") from None
    if not isinstance(value, dict):
        raise RefusedError("ERROR_BAD_REQUEST")
    return cast("dict[str, object]", value)
