"""From responses to results: the body of a 2xx becomes what the call returns, or is found unreadable.

No reader raises from where the body was parsed: the variables there hold the body, which may repeat a key or a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import orjson

from kodmobi_async._rules.fields import (
    _WrongShapeError,  # pyright: ignore[reportPrivateUsage] internal to this package of rules
    read_challenge,
    read_channel,
    read_channel_list,
    read_channel_name,
    read_code_format,
    read_moment,
    read_session_id,
    read_text,
)
from kodmobi_async._rules.http_dates import date_of
from kodmobi_async._rules.requests import canonical_recipient, to_ulid
from kodmobi_async._values.assumptions import REQUEST_ID_HEADER, WINDOW
from kodmobi_async._values.errors import InvalidRequestError, OutcomeUnknownError, UnreadableResponseError
from kodmobi_async._values.models import (
    ChallengeSettings,
    CheckResult,
    CodeFormat,
    ProjectSettings,
    SendResult,
    Session,
    SessionChannel,
    VerifiedUser,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ulid import ULID

    from kodmobi_async._rules.exchange import Response

T = TypeVar("T")

_LONGEST_REQUEST_ID: Final = 200


class _Flaw(str):
    """Why a body cannot be read."""

    __slots__ = ()


_FOREIGN: Final = _Flaw("the response names another session")


def _read(response: Response, structure: Callable[[Any, Response, Any], T | _Flaw], about: Any = None) -> T:
    """Return the body of a 2xx as ``structure`` makes it of the JSON, the response and what it is about.

    Raises:
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
        OutcomeUnknownError: It names another session, and so says nothing about this one.
    """
    read = _parse(response, structure, about)
    if isinstance(read, _Flaw):
        raise _error_of(response, read)
    return read


def _error_of(response: Response, flaw: _Flaw) -> OutcomeUnknownError | UnreadableResponseError:
    if flaw is _FOREIGN:
        return OutcomeUnknownError(flaw, safe_after=WINDOW)
    return UnreadableResponseError(f"the service said HTTP {response.status}, but its response cannot be read: {flaw}")


def _parse(response: Response, structure: Callable[[Any, Response, Any], T | _Flaw], about: Any) -> T | _Flaw:
    if response.flaw is not None:
        return _Flaw(response.flaw)
    try:
        return structure(orjson.loads(response.body), response, about)
    except orjson.JSONDecodeError:
        return _Flaw("it is not JSON")
    except (_WrongShapeError, KeyError, TypeError, AttributeError):
        return _Flaw("it is not the documented shape")


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the response's ``X-Request-Id``, bounded; ``None`` if it has none."""
    found = headers.get(REQUEST_ID_HEADER)
    return found[:_LONGEST_REQUEST_ID] if found else None


def _expires_in(response: Response, ends: datetime | None) -> float | None:
    """Return the seconds that the session had left when the service responded; ``None`` if it does not tell.

    Both moments are the service's. The wall clock of this machine may be anywhere.
    """
    if ends is None:
        return None
    now = date_of(response.headers)
    return None if now is None else (ends - now).total_seconds()


def read_send(response: Response, session_id: str, attempts: int = 1) -> SendResult:
    """Return what a 2xx to ``POST /send`` says.

    Args:
        response: The response.
        session_id: The session that was asked about, in canonical form.
        attempts: How many requests it took.

    Raises:
        OutcomeUnknownError: The response names another session, and so says nothing about this one.
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
    """
    result = _parse(response, _send_result, (session_id, attempts))  # `_read` without the call: this is the hot path
    if isinstance(result, _Flaw):
        raise _error_of(response, result)
    return result


def _send_result(body: Any, response: Response, about: tuple[str, int]) -> SendResult | _Flaw:
    session_id, attempts = about
    named = body["session_id"]
    if named != session_id and read_session_id(named) != session_id:
        return _FOREIGN
    ends = read_moment(body["session_expired_at"])
    return SendResult(
        to_ulid(session_id),
        ends,
        read_channel(body["channel"]),
        attempts,
        expires_in=_expires_in(response, ends),
        request_id=request_id_of(response.headers),
    )


def read_channels(response: Response) -> tuple[SessionChannel, ...]:
    """Return what a 2xx to ``GET /channels`` says.

    Raises:
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
    """
    channels: tuple[SessionChannel, ...] = _read(response, lambda body, _, __: read_channel_list(body))
    return channels


def read_session(response: Response) -> Session:
    """Return what a 2xx to ``POST /create`` says; whether a code was sent with it is for the caller to conclude.

    Raises:
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
    """
    session: Session = _read(response, _session)
    return session


def _session(body: Any, response: Response, _: None) -> Session:
    ends = read_moment(body["session_expired_at"])
    sent_to = body.get("sent_to")
    if isinstance(sent_to, dict):  # "channel" may stand for its name or for all of it
        sent_to = cast("dict[str, object]", sent_to)["type"]
    session_id: ULID = to_ulid(read_session_id(body["session_id"]))
    return Session(
        session_id,
        ends,
        None if sent_to is None else read_channel_name(sent_to),
        read_channel_list(body["channels"]),
        expires_in=_expires_in(response, ends),
        request_id=request_id_of(response.headers),
    )


def read_check(response: Response) -> CheckResult:
    """Return what a 2xx to ``POST /check`` says.

    Raises:
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
    """
    result: CheckResult = _read(response, _check_result)
    return result


def _check_result(body: Any, response: Response, _: None) -> CheckResult:
    data = _unwrapped(body)
    token = read_text(data["verify_token"])
    if not token:
        raise _WrongShapeError
    return CheckResult(token, data.get("is_test") is True, request_id_of(response.headers))


def read_verified(response: Response) -> VerifiedUser:
    """Return what a 2xx to ``POST /verify`` says.

    Raises:
        UnreadableResponseError: It names nobody, or could not be read to its end.
    """
    user: VerifiedUser = _read(response, _verified_user)
    return user


def _verified_user(body: Any, response: Response, _: None) -> VerifiedUser:
    data = _unwrapped(body)
    for name in ("phone", "email", "to"):
        value = data.get(name)
        if isinstance(value, str) and value:
            to = f"+{value}" if value.isascii() and value.isdigit() else value
            try:
                return VerifiedUser(canonical_recipient(to), request_id_of(response.headers))
            except InvalidRequestError:
                break
    raise _WrongShapeError


def read_settings(response: Response) -> ProjectSettings:
    """Return what a 2xx to ``GET /settings`` says.

    Raises:
        UnreadableResponseError: It is not the documented shape, or could not be read to its end.
    """
    settings: ProjectSettings = _read(response, _project_settings)
    return settings


def _project_settings(body: Any, response: Response, _: None) -> ProjectSettings:
    return ProjectSettings(
        read_text(body["language"]),
        read_text(body["project"]["name"]),
        read_code_format(body["code"], CodeFormat),
        read_challenge(body["challenge"], ChallengeSettings),
        request_id_of(response.headers),
    )


def _unwrapped(body: Any) -> dict[str, Any]:
    """Return the object itself, or what an older version of the API wraps in ``data``."""
    data = body.get("data", body)
    if not isinstance(data, dict):
        raise _WrongShapeError
    return cast("dict[str, Any]", data)
