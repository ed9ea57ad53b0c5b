"""From refusals to errors: the service's code decides first, the status second; unknown codes survive in the error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from kodmobi_async._rules.http_dates import date_of, parse_retry_after
from kodmobi_async._rules.responses import request_id_of
from kodmobi_async._values import errors
from kodmobi_async._values.assumptions import SHORTEST_BLOCK, WINDOW
from kodmobi_async._values.errors import CooldownError, Outcome, ResponseError
from kodmobi_async._values.redaction import NOTHING_SECRET, Redaction

if TYPE_CHECKING:
    from kodmobi_async._rules.exchange import Response

TOO_SOON: Final = "ERROR_MESSAGE_ATTEMPT"

# Source: the codes that the service's own JavaScript SDK knows, and the documentation's ERROR_MESSAGE_NOT_FOUND.
_BY_CODE: Final[dict[str, tuple[type[ResponseError], str]]] = {
    "ERROR_PROJECT_HAS_NO_CHANNELS": (errors.ChannelUnavailableError, "enable a channel for the project"),
    "ERROR_PROJECT_HAS_NO_CHANNEL": (errors.ChannelUnavailableError, "enable the channel for the project"),
    "ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL": (
        errors.ChannelUnavailableError,
        "the user has not started the bot: show them the channel's link, which channels() gives",
    ),
    "ERROR_CHANNEL_NOT_ALLOWED_COUNTRY": (errors.ChannelUnavailableError, "try another channel for this country"),
    "ERROR_SESSION_EXPIRED": (errors.SessionExpiredError, "create a new session"),
    "ERROR_MESSAGE_WRONG_CODE": (errors.WrongCodeError, "let the user try again"),
    "ERROR_PHONE_BLOCKED": (errors.RecipientBlockedError, "the recipient is blocked"),
    "ERROR_BLOCKED": (errors.RecipientBlockedError, "the user is blocked"),
    "ERROR_CHALLENGE": (errors.ChallengeError, "pass the token of a CAPTCHA as challenge="),
    "ERROR_BAD_REQUEST": (errors.BadRequestError, "the service finds the request invalid"),
    "ERROR_WRONG_BALANCE": (errors.BalanceError, "the account is out of money"),
    "ERROR_ACCESS_DENIED": (errors.AuthenticationError, "check the API key"),
    "ERROR_MESSAGE_NOT_FOUND": (errors.NotFoundError, "no such session or message"),
}

# Source: the documentation's list of statuses, and HTTP's own meaning for those that it leaves out.
_BY_STATUS: Final[dict[int, type[ResponseError]]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.BalanceError,
    403: errors.AuthenticationError,
    404: errors.NotFoundError,
    410: errors.SessionExpiredError,
    413: errors.BadRequestError,
    422: errors.BadRequestError,
    429: errors.RateLimitedError,
}


def outcome_of(status: int) -> Outcome:
    """Return what a status says of the request, whatever the body holds."""
    if 200 <= status < 300:
        return Outcome.ACCEPTED
    if 400 <= status < 500 or status == 503:
        return Outcome.REFUSED
    return Outcome.UNKNOWN


def _envelope(response: Response) -> dict[str, Any]:
    try:
        read = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


def read_error(
    response: Response,
    redact: Redaction = NOTHING_SECRET,
    *,
    session_id: str | None = None,
    channel: str | None = None,
) -> CooldownError | ResponseError:
    """Return the error that a response other than 2xx stands for.

    Args:
        response: The response.
        redact: Takes secrets out of what the service says.
        session_id: The session asked about, for an error that names it.
        channel: The channel asked about.
    """
    envelope = _envelope(response)
    code = envelope.get("sys_message")
    code = code if isinstance(code, str) else ""
    retry_after = parse_retry_after(response.headers.get("Retry-After"), date_of(response.headers) or datetime.now(UTC))
    outcome = outcome_of(response.status)
    # "too soon, again in 0 s" means a moment, or callers that wait for their turn would ask without end
    if code == TOO_SOON and outcome is Outcome.REFUSED and response.status != 503:
        retry_after = WINDOW if retry_after is None else max(retry_after, SHORTEST_BLOCK)
        return CooldownError(
            f"the service says: too soon{f' for {channel}' if channel else ''}; try again in {retry_after:.1f} s",
            retry_after=retry_after,
            session_id=session_id,
            channel=channel,
            outcome=outcome,
        )
    message = redact.line(envelope.get("message")) or redact.line(envelope.get("error"))
    kind = _BY_STATUS.get(response.status, errors.ServerError if response.status >= 500 else ResponseError)
    kind, hint = _BY_CODE.get(code, (kind, None))
    shown = redact.line(code)
    text = f"HTTP {response.status}" + (f" {shown}" if shown else "") + (f": {message}" if message else "")
    return kind(
        text + (f" ({hint})" if hint else ""),
        status=response.status,
        sys_message=shown,
        message=message,
        retry_after=retry_after,
        outcome=outcome,
        error_params=redact.tree(envelope.get("error_params")) or None,
        errors=redact.tree(envelope.get("errors")) or None,
        request_id=redact.line(request_id_of(response.headers)),
    )
