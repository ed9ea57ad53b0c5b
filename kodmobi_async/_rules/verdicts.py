"""From an attempt to its verdict: a result, or an error and whether another attempt makes sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from kodmobi_async._rules.call import Repeat
from kodmobi_async._rules.exchange import Failure
from kodmobi_async._rules.pacing import Gate
from kodmobi_async._rules.refusals import outcome_of, read_error
from kodmobi_async._values.errors import (
    LATER,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    ResponseError,
    ServerError,
    TransportError,
    UnreadableResponseError,
)

if TYPE_CHECKING:
    from kodmobi_async._rules.call import Call
    from kodmobi_async._rules.exchange import Response
    from kodmobi_async._values.errors import CooldownError
    from kodmobi_async._values.redaction import Redaction

T = TypeVar("T")


@attrs.define  # as good as frozen, and twice as fast to build
class Verdict(Generic[T]):
    """What an attempt came to: a result or an error, and whether another attempt makes sense.

    Attributes:
        result: What was asked for.
        error: Why there is no result.
        again: Another attempt makes sense.
        retry_after: Seconds that the service wants left in peace before it.
        gated: The gate enforces that wait.
        foreign: The response belongs to another request.
    """

    result: T | None = None
    error: KodmobiError | None = None
    again: bool = False
    retry_after: float = 0.0
    gated: bool = False
    foreign: bool = False

    def stop(self, reason: str) -> None:
        """Let no attempt follow, and say why in the error."""
        if self.again and self.error is not None:
            self.error.args = (f"{self.error}; {reason}",)
        self.again = False


def judge(call: Call[T], came: Response | Failure, redact: Redaction, *, repeat_unknown: bool) -> Verdict[T]:
    """Return the verdict over one attempt of a call.

    Args:
        call: The call, whose progress is that of the attempt.
        came: What came of it.
        redact: Takes secrets out of what the service says.
        repeat_unknown: Whether a send may be repeated after a lost response.
    """
    if isinstance(came, Failure):
        return _failed(call, came, repeats=repeat_unknown)
    outcome = outcome_of(came.status)
    if outcome is Outcome.ACCEPTED:
        try:
            return Verdict(call.read(came))
        except UnreadableResponseError as unreadable:
            return Verdict(error=unreadable)
        except OutcomeUnknownError as unknown:
            return Verdict(error=unknown, again=_repeats(call, repeat_unknown), foreign=True)
    error = read_error(came, redact.also(*call.secrets), session_id=call.session_id, channel=call.channel)
    if outcome is Outcome.REFUSED:
        return _refused(error)
    if call.repeat is Repeat.AT_WILL:
        error.outcome = Outcome.NOT_SENT
    # a 3xx comes again, and where it leads to is none of the service's
    again = came.status >= 500 and _repeats(call, repeat_unknown)  # noqa: PLR2004 HTTP's class
    return Verdict(error=error, again=again, retry_after=error.retry_after or 0.0)


def _repeats(call: Call[Any], repeat_unknown: bool) -> bool:
    """Whether the call may be repeated after a lost response."""
    return call.repeat is Repeat.AT_WILL or (call.repeat is Repeat.IN_WINDOW and repeat_unknown)


def _failed(call: Call[T], failure: Failure, *, repeats: bool) -> Verdict[T]:
    if not call.progress.written:
        return Verdict(error=TransportError(f"nothing was sent: {failure.reason}"), again=not failure.permanent)
    if call.repeat is Repeat.AT_WILL:
        return Verdict(error=TransportError(f"no response: {failure.reason}"), again=not failure.permanent)
    unknown = OutcomeUnknownError(f"the request was sent, but {failure.reason}", safe_after=call.safe_after)
    return Verdict(error=unknown, again=_repeats(call, repeats))


def _refused(error: CooldownError | ResponseError) -> Verdict[Any]:
    if isinstance(error, RateLimitedError):
        wait = Gate.DEFAULT_CLOSURE if error.retry_after is None else error.retry_after
        return Verdict(error=error, again=True, retry_after=wait, gated=True)
    # a code that names a lasting reason outweighs a status that says "later"
    lasting = type(error) not in (ResponseError, ServerError)
    again = isinstance(error, ResponseError) and error.status in LATER and not lasting
    return Verdict(error=error, again=again, retry_after=error.retry_after or 0.0)
