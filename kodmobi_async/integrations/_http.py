"""What a web service answers when a call of the client fails: one table, for every framework.

| error | status | because |
|---|---|---|
| `CooldownError`, `RateLimitedError` | 429 | too soon; ``Retry-After`` says when again |
| `SessionExpiredError` | 410 | the session has ended, and will not come back |
| `NotFoundError` | 404 | there is no such session |
| `InvalidRequestError`, `BadRequestError`, `WrongCodeError` | 400 | what was asked for cannot be right |
| `RecipientBlockedError`, `ChallengeError` | 403 | this recipient may not have a code, or not yet |
| `ChannelUnavailableError` | 409 | not over this channel; another one may do |
| `UnreadableResponseError` | 202 | the code is on its way, and that is all that is known |
| `OutcomeUnknownError` | 504 | the outcome is unknown; ``Retry-After`` says when a new send is safe |
| `TransportError`, `CooldownUnavailableError`, `LimitsUnavailableError` | 503 | not now, whoever asks |
| `ClientClosedError`, `BalanceError` | 503 | likewise |
| `SendInterruptedError`, `BulkStoppedError` | 503 | a run of many sends was ended |
| `ServerError`, other `ResponseError` | 502 | the service behind this one is in trouble |
| `AuthenticationError`, `ConfigurationError`, `WrongLoopError` | 500 | this service is set up wrong |

The body is JSON: ``error``, the class; ``outcome``, what became of the code; ``retry_after``, in seconds, where that is
known. No word of the service's, no session id and no key gets into it.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from kodmobi_async._values.errors import (
    AuthenticationError,
    BadRequestError,
    BalanceError,
    BulkStoppedError,
    ChallengeError,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    InvalidRequestError,
    KodmobiError,
    LimitsUnavailableError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    ResponseError,
    SendInterruptedError,
    ServerError,
    SessionExpiredError,
    TransportError,
    UnreadableResponseError,
    WrongCodeError,
    WrongLoopError,
)

STATUSES: Final[dict[type[KodmobiError], int]] = {
    CooldownError: 429,
    RateLimitedError: 429,
    SessionExpiredError: 410,
    NotFoundError: 404,
    InvalidRequestError: 400,
    BadRequestError: 400,
    WrongCodeError: 400,
    RecipientBlockedError: 403,
    ChallengeError: 403,
    ChannelUnavailableError: 409,
    UnreadableResponseError: 202,
    OutcomeUnknownError: 504,
    TransportError: 503,
    CooldownUnavailableError: 503,
    LimitsUnavailableError: 503,
    ClientClosedError: 503,
    BalanceError: 503,
    SendInterruptedError: 503,
    BulkStoppedError: 503,
    ServerError: 502,
    ResponseError: 502,
    AuthenticationError: 500,
    ConfigurationError: 500,
    WrongLoopError: 500,
    KodmobiError: 500,
}

# A browser may keep a 404 or a 410 and show it again, where nobody says otherwise.
NOT_STORED: Final = {"Cache-Control": "no-store"}

# Seconds that a limited account is given where the service names none; as the client itself does.
_DEFAULT_RETRY_AFTER: Final = 1.0


@attrs.frozen
class ErrorAnswer:
    """What to answer with.

    Attributes:
        status: The HTTP status.
        headers: ``Retry-After`` in whole seconds, rounded up, where it is known; ``Cache-Control``.
        body: To be sent as JSON.
    """

    status: int
    headers: dict[str, str]
    body: dict[str, str | float]


def answer_to(error: KodmobiError) -> ErrorAnswer:
    """Return what to answer with; a user's own kind of error is answered like the kind that it derives from."""
    kind = next(kind for kind in type(error).__mro__ if kind in STATUSES)
    body: dict[str, str | float] = {"error": kind.__name__, "outcome": error.outcome.value}
    headers = dict(NOT_STORED)
    seconds = _retry_after(error)
    if seconds is not None:
        body["retry_after"] = seconds
        headers["Retry-After"] = str(math.ceil(seconds))
    return ErrorAnswer(STATUSES[kind], headers, body)


def _retry_after(error: KodmobiError) -> float | None:
    if isinstance(error, OutcomeUnknownError):
        return error.safe_after
    if isinstance(error, RateLimitedError) and error.retry_after is None:
        return _DEFAULT_RETRY_AFTER
    return error.retry_after if isinstance(error, (CooldownError, ResponseError)) else None
