"""The log of requests: what came in and what went out, without keys and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl

import attrs
import orjson

from kodmobi_async.emulator._choices import CHALLENGE_HEADER
from kodmobi_async.emulator._http import Request, RequestLine, Response
from kodmobi_async.emulator._masks import mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kodmobi_async.emulator._json import Json, JsonObject
    from kodmobi_async.emulator._settings import Settings

__all__ = ("Exchanged", "describe")

# Larger bodies are not kept: the log is long.
_MAX_BODY_BYTES: Final = 4_096
_MAX_CHARACTERS: Final = 256
# What a client may have sent under other names is masked: it can be a code, or a key, in the wrong place.
_SHOWN_HEADERS: Final = ("accept-language", "content-type", "origin", "user-agent")
_SHOWN_FIELDS: Final = frozenset({"session_id", "type", "to", "send"})
_HIDDEN_RESULTS: Final = frozenset({"verify_token"})


def _bounded_request(request: Request | None) -> Request | None:
    return attrs.evolve(request, body=b"") if request and len(request.body) > _MAX_BODY_BYTES else request


def _bounded_response(response: Response | None) -> Response | None:
    return attrs.evolve(response, body=b"") if response and len(response.body) > _MAX_BODY_BYTES else response


@attrs.frozen(eq=False, repr=False)
class Exchanged:
    """A request, and its response as far as there was one.

    Attributes:
        request_id: The response's ``X-Request-Id``.
        at: When the response was made, on the emulator's clock, in seconds.
        endpoint: None if the path is unknown.
        fault: The kind of the fault.
        request: None if the request was not read.
        response: None if nothing of it was written.
    """

    request_id: str
    at: float
    line: RequestLine
    endpoint: str | None
    fault: str | None
    request: Request | None = attrs.field(default=None, converter=_bounded_request)
    response: Response | None = attrs.field(default=None, converter=_bounded_response)

    def __str__(self) -> str:
        """Return a line for a log; it has neither the query nor a body."""
        status = self.response.status if self.response else "no response"
        fault = f" (fault: {self.fault})" if self.fault else ""
        return f"{self.line.method} {self.line.path[:_MAX_CHARACTERS]} {status}{fault}"


def describe(number: int, exchanged: Exchanged, at: str, settings: Settings) -> JsonObject:
    """Return what the log shows of a request."""
    request, response = exchanged.request, exchanged.response
    headers: Mapping[str, str] = request.headers if request else {}
    return {
        "id": number,
        "request_id": exchanged.request_id,
        "at": at,
        "method": exchanged.line.method[:_MAX_CHARACTERS],
        "path": exchanged.line.path[:_MAX_CHARACTERS],
        "endpoint": exchanged.endpoint,
        "query": _masked(parse_qsl(exchanged.line.query, keep_blank_values=True)),
        "headers": {name: headers[name][:_MAX_CHARACTERS] for name in _SHOWN_HEADERS if name in headers},
        "key": _kind_of_key(headers, settings),
        "challenge": CHALLENGE_HEADER in headers,
        "body": _masked(_parse(request.body).items()) if request else None,
        "fault": exchanged.fault,
        "status": response.status if response else None,
        "response": _shown(response.body) if response else None,
    }


def _kind_of_key(headers: Mapping[str, str], settings: Settings) -> str | None:
    key = headers.get("x-api-key")
    return None if key is None else {settings.api_key: "public", settings.secret_key: "secret"}.get(key, "unknown")


def _parse(body: bytes) -> dict[str, Json]:
    """Return the fields of a JSON object; none of anything else."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


def _masked(fields: Iterable[tuple[str, Json]]) -> JsonObject:
    return {
        name[:_MAX_CHARACTERS]: _shortened(value) if name in _SHOWN_FIELDS else mask(value) for name, value in fields
    }


def _shortened(value: Json) -> Json:
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else value if isinstance(value, bool) else mask(value)


def _shown(body: bytes) -> Json:
    """Return a response's body without what must stay secret; a text, if it is not JSON."""
    try:
        value: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")[:_MAX_CHARACTERS]
    if isinstance(value, dict):
        return {name: mask(each) if name in _HIDDEN_RESULTS else each for name, each in value.items()}
    return value
