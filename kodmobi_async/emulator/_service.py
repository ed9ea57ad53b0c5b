"""The service behind the wire: a request and the time in, an answer out; no socket, no clock of its own."""

from __future__ import annotations

import hmac
import logging
import math
import re
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, TypeAlias, cast
from urllib.parse import parse_qs

import attrs
import orjson
from ulid import ULID

from kodmobi_async.emulator import _choices
from kodmobi_async.emulator._choices import ENDPOINTS, PREFIXES, REFUSALS
from kodmobi_async.emulator._http import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kodmobi_async.emulator._http import Request

    Json: TypeAlias = Mapping[str, "Json"] | Sequence["Json"] | str | float | bool | None
    JsonObject: TypeAlias = Mapping[str, Json]

__all__ = ("Delivery", "Refusal", "Service", "canonical", "endpoint_of", "is_recipient")

_log: Final = logging.getLogger("kodmobi_async.emulator")

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_LOOK_ALIKES: Final = str.maketrans("ILO", "110")
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NAMES: Final = {"whatsapp": "WhatsApp", "sms": "SMS"}


@attrs.frozen
class Delivery:
    """One code that reached its recipient; ``at`` is the loop's clock, in seconds."""

    session_id: str
    channel: str
    code: str
    at: float


@attrs.frozen
class Refusal:
    """Why a request is not done, in the service's words; ``retry_after`` in seconds."""

    sys_message: str
    status: int | None = None
    retry_after: int | None = None
    field: str | None = None

    def answer(self, accept_language: str) -> Answer:
        """Put the refusal into the documented envelope, in the language that the client prefers."""
        text = REFUSALS.get(self.sys_message)
        status = self.status or (text.status if text else 500)
        message = (
            self.sys_message if text is None else text.ru if preferred_language(accept_language) == "ru" else text.en
        )
        params: dict[str, Json] = {}
        headers: dict[str, str] = {}
        if self.field is not None:
            params["field"] = self.field
        if self.retry_after is not None:
            params["timeout"] = self.retry_after
            headers["Retry-After"] = str(self.retry_after)
        envelope: JsonObject = {
            "success": False,
            "error": message,
            "error_params": params,
            "status": status,
            "sys_message": self.sys_message,
        }
        return Answer(status, to_json(envelope), headers)


class RefusedError(Exception):
    """Carries a refusal up to where requests are answered."""

    def __init__(self, sys_message: str, *, retry_after: int | None = None, field: str | None = None) -> None:
        super().__init__(sys_message)
        self.refusal = Refusal(sys_message, retry_after=retry_after, field=field)


@attrs.define
class Session:
    """One recipient's session; times on the loop's clock, in seconds."""

    id: str
    code: str
    expires_at: float
    active: frozenset[str]
    blocked_until: dict[str, float] = attrs.Factory(dict[str, float])


@attrs.define(kw_only=True, eq=False)
class Service:
    """Sessions, their windows, and what was delivered.

    Args:
        keys: The API keys that open the service.
        window: How long a channel stays shut after a send, in seconds.
        session_lifetime: In seconds.
        channels: What the project offers, in its order.
        epoch: POSIX time when the loop's clock showed zero, in seconds.
    """

    keys: Collection[str] = attrs.field(repr=False)
    window: float
    session_lifetime: float
    channels: Sequence[str]
    epoch: float
    ledger: list[Delivery] = attrs.field(init=False, factory=list[Delivery])
    sessions: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])
    _by_recipient: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])

    def wall_clock(self, at: float) -> datetime:
        """Return the date and time when the loop's clock shows ``at`` seconds."""
        return datetime.fromtimestamp(self.epoch + at, timezone.utc)  # noqa: UP017 datetime.UTC hides what it is

    def add_session(self, session_id: str, to: str, active: Collection[str], now: float) -> Session:
        """Open a session for ``to``, in place of any other of that name."""
        code = f"{secrets.randbelow(10**_choices.CODE_LENGTH):0{_choices.CODE_LENGTH}d}"
        session = Session(session_id, code, now + self.session_lifetime, frozenset(active))
        self.sessions[session_id] = session
        self._by_recipient[to] = session
        return session

    def answer(self, request: Request, now: float) -> Answer:
        """Carry out ``request`` at ``now``; every refusal is an answer, too."""
        language = request.headers.get("accept-language", "")
        try:
            return Answer(200, to_json(self._handler(request)(request, now)))
        except RefusedError as error:
            return error.refusal.answer(language)
        except Exception:  # noqa: BLE001 a client must see a service in trouble, not one that vanished
            _log.exception("The emulator failed to answer %s %s", request.line.method, request.line.path)
            return Refusal("ERROR_SERVER").answer(language)

    def _handler(self, request: Request) -> Callable[[Request, float], Json]:
        endpoint = endpoint_of(request.line.path)
        if endpoint is None or ENDPOINTS[endpoint] != request.line.method:
            raise RefusedError("ERROR_NOT_FOUND")
        key = request.headers.get("x-api-key", "").encode("latin-1")
        # Compare with every key: the time taken tells nothing about which one was nearly right.
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
        session = self._by_recipient.get(to)
        if session is None or now >= session.expires_at:
            session = self.add_session(str(ULID()), to, (), now)
        if send and _seconds_left(session, channel, now) == 0:
            self._deliver(session, channel, now)
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "sent_to": channel if send else None,
            "channels": self._list_channels(session, now),
        }

    def _send(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        session = self._live_session(body.get("session_id"), now)
        channel = self._offered(body.get("type"))
        if left := _seconds_left(session, channel, now):
            raise RefusedError("ERROR_MESSAGE_ATTEMPT", retry_after=left)
        self._deliver(session, channel, now)
        return {
            "session_id": session.id,
            "session_expired_at": self._expired_at(session),
            "channel": _describe(channel, session, timeout=self.window),
        }

    def _channels(self, request: Request, now: float) -> Json:
        return self._list_channels(self._session_in_query(request, now), now)

    def _check(self, request: Request, now: float) -> Json:
        body = _read_object(request)
        session = self._live_session(body.get("session_id"), now)
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

    def _deliver(self, session: Session, channel: str, now: float) -> None:
        session.blocked_until[channel] = now + self.window
        self.ledger.append(Delivery(session.id, channel, session.code, now))

    def _live_session(self, name: object, now: float) -> Session:
        session_id = canonical(name) if isinstance(name, str) else None
        if session_id is None:
            raise RefusedError("ERROR_BAD_REQUEST", field="session_id")
        session = self.sessions.get(session_id)
        if session is None:
            raise RefusedError("ERROR_MESSAGE_NOT_FOUND")
        if now >= session.expires_at:
            raise RefusedError("ERROR_SESSION_EXPIRED")
        return session

    def _session_in_query(self, request: Request, now: float) -> Session | None:
        names = parse_qs(request.line.query, keep_blank_values=True).get("session_id")
        return self._live_session(names[0], now) if names else None

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
        return [_describe(channel, session, timeout=_seconds_left(session, channel, now)) for channel in self.channels]

    def _expired_at(self, session: Session) -> str:
        return self.wall_clock(session.expires_at).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def endpoint_of(path: str) -> str | None:
    """Name the endpoint at ``path``; None when there is none."""
    for prefix in PREFIXES:
        name = path.removeprefix(prefix)
        if name != path and name in ENDPOINTS:
            return name
    return None


def canonical(session_id: str) -> str | None:
    """Spell a ULID the one way it is stored; None when it is no ULID."""
    if not session_id.isascii():  # upper() makes ASCII letters of a few others
        return None
    spelled = session_id.upper().translate(_LOOK_ALIKES)
    return spelled if _ULID.fullmatch(spelled) else None


def is_recipient(to: str) -> bool:
    """Tell whether ``to`` is an E.164 phone number or an email address."""
    return bool(_E164.fullmatch(to) or _EMAIL.fullmatch(to))


def preferred_language(accept_language: str) -> str:
    """Choose between the service's two languages, English when the client does not care."""
    weights = {"en": 0.0, "ru": 0.0}
    for item in accept_language.lower().split(","):
        tag, _, weight = item.partition(";")
        language = tag.strip().partition("-")[0]
        if language in weights:
            weights[language] = max(weights[language], _weight(weight))
    return "ru" if weights["ru"] > weights["en"] else "en"


def _weight(text: str) -> float:
    try:
        return float(text.replace(" ", "").removeprefix("q=") or 1)
    except ValueError:
        return 0.0


def to_json(value: Json) -> bytes:
    """Write ``value`` as JSON, in UTF-8."""
    return orjson.dumps(value)


def _read_object(request: Request) -> dict[str, object]:
    """Read the body as a JSON object, whatever its content type says, as the documentation's own examples need."""
    try:
        value: object = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise RefusedError("ERROR_BAD_REQUEST") from None
    if not isinstance(value, dict):
        raise RefusedError("ERROR_BAD_REQUEST")
    return cast("dict[str, object]", value)


def _seconds_left(session: Session | None, channel: str, now: float) -> int:
    """Count the whole seconds, rounded up, until ``channel`` is free; 0 means that it is."""
    left = session.blocked_until.get(channel, now) - now if session else 0.0
    # Adding and subtracting the same time leaves a dust of 1e-13 seconds that must not count as a whole one.
    return max(1, math.ceil(round(left, 6))) if left > 0 else 0


def _describe(channel: str, session: Session | None, *, timeout: float) -> JsonObject:
    return {
        "name": _NAMES.get(channel, channel.capitalize()),
        "type": channel,
        "is_active": session is not None and channel in session.active,
        "timeout": int(timeout) if timeout == int(timeout) else timeout,
        "image_url": _choices.IMAGE_URL.format(type=channel),
        "link": _choices.LINKS.get(channel, ""),
    }
