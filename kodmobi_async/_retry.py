"""When an attempt is made again, as a tenacity policy. The only module that imports tenacity.

The policy decides over *verdicts*, not over exceptions: an attempt returns what it came to, and only a verdict that
says so is followed by another attempt. Whatever is raised instead, a cancellation first of all, passes straight
through. One engine is built per call, and only once a first attempt has failed: engines keep state, and one pass
through an engine costs more than the rest of a successful send.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from kodmobi_async._errors import (
    CooldownError,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    ResponseError,
    ServerError,
    TransportError,
    UnreadableResponseError,
)
from kodmobi_async._pacing import Gate
from kodmobi_async._wire import (
    WINDOW,
    Answer,
    Fault,
    Progress,
    Redaction,
    outcome_of,
    read_channels,
    read_error,
    read_send,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kodmobi_async._models import SendResult, SessionChannel
    from kodmobi_async._pacing import RetryBudget
    from kodmobi_async._settings import RetryPolicy


T = TypeVar("T")


@attrs.define  # as good as frozen, and twice as fast to build
class Verdict(Generic[T]):
    """What an attempt came to: a result or an error, and whether another attempt makes sense.

    Attributes:
        result: What was asked for.
        error: Why it is not to be had.
        again: Another attempt makes sense.
        retry_after: Seconds that the service wants left in peace before it.
        gated: The gate sees to that wait.
        foreign: What came back answers another request.
    """

    result: T | None = None
    error: KodmobiError | None = None
    again: bool = False
    retry_after: float = 0.0
    gated: bool = False
    foreign: bool = False


# "Try again later": the service answered, did nothing, and may do it another time.
_LATER: Final = frozenset({408, 421, 425, 503})


def judge_send(
    came: Answer | Fault,
    progress: Progress,
    session_id: str,
    channel: str,
    *,
    policy: RetryPolicy,
    redact: Redaction,
) -> Verdict[SendResult]:
    """Return the verdict over one attempt to send."""
    if isinstance(came, Fault):
        if progress.written:
            unknown = OutcomeUnknownError(f"the request went out, but {came.reason}", safe_after=WINDOW)
            return Verdict(error=unknown, again=policy.repeat_unknown)
        return Verdict(error=TransportError(f"nothing was sent: {came.reason}"), again=not came.permanent)
    outcome = outcome_of(came.status)
    if outcome is Outcome.ACCEPTED:
        return _accepted(came, session_id, policy)
    error = read_error(came, redact, session_id=session_id, channel=channel)
    if outcome is Outcome.UNKNOWN:
        # a 3xx comes again, and where it leads to is none of the service's
        again = policy.repeat_unknown and came.status >= 500  # noqa: PLR2004 HTTP's class
        return Verdict(error=error, again=again, retry_after=_asked(error))
    return _refused(error)


def _accepted(answer: Answer, session_id: str, policy: RetryPolicy) -> Verdict[SendResult]:
    try:
        return Verdict(read_send(answer, session_id))
    except UnreadableResponseError as unreadable:
        return Verdict(error=unreadable)
    except OutcomeUnknownError as unknown:
        return Verdict(error=unknown, again=policy.repeat_unknown, foreign=True)


def judge_channels(came: Answer | Fault, redact: Redaction) -> Verdict[tuple[SessionChannel, ...]]:
    """Return the verdict over one attempt to ask for the channels, which may be repeated at will."""
    if isinstance(came, Fault):
        failed = TransportError(f"the channels could not be asked for: {came.reason}")
        return Verdict(error=failed, again=not came.permanent)
    outcome = outcome_of(came.status)
    if outcome is Outcome.ACCEPTED:
        try:
            return Verdict(read_channels(came))
        except UnreadableResponseError as unreadable:
            return Verdict(error=unreadable)
    error = read_error(came, redact)
    if outcome is Outcome.UNKNOWN:
        again = came.status >= 500  # noqa: PLR2004 HTTP's class
        return Verdict(error=error, again=again, retry_after=_asked(error))
    return _refused(error)


def _refused(error: CooldownError | ResponseError) -> Verdict[Any]:
    if isinstance(error, RateLimitedError):
        wait = Gate.DEFAULT_CLOSURE if error.retry_after is None else error.retry_after
        return Verdict(error=error, again=True, retry_after=wait, gated=True)
    # a code that names a lasting reason outweighs a status that says "later"
    lasting = type(error) not in (ResponseError, ServerError)
    again = isinstance(error, ResponseError) and error.status in _LATER and not lasting
    return Verdict(error=error, again=again, retry_after=_asked(error))


def _asked(error: CooldownError | ResponseError) -> float:
    return error.retry_after or 0.0


class Bounds(Protocol):
    """Until when a call may begin another attempt, on the running loop's clock. May move while the call goes on."""

    @property
    def last_start(self) -> float:
        """The latest moment at which another attempt may begin."""
        ...


def backoff(policy: RetryPolicy, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Return the pause after attempt number ``attempt``, in seconds: full jitter below a doubling bound."""
    # beyond 2**60 the bound is max_backoff for any setting that is more than a nanosecond
    return uniform(0.0, min(policy.max_backoff, policy.initial_backoff * 2.0 ** min(attempt - 1, 60)))


async def retry(
    attempt: Callable[[], Awaitable[Verdict[T]]],
    first: Verdict[T],
    *,
    policy: RetryPolicy,
    bounds: Bounds,
    budget: RetryBudget,
    on_retry: Callable[[Verdict[T], float], None] | None = None,
) -> Verdict[T]:
    """Go on after a ``first`` verdict that calls for another attempt; return the last verdict.

    - A verdict that says ``again`` is followed by another attempt, up to ``policy.attempts`` with the first.
    - Between two attempts lies the service's ``Retry-After`` plus full jitter.
    - A pause that would end after ``bounds.last_start`` is not begun.
    - Each retry is paid for from the ``budget`` that all calls of a client share.
    - The last verdict's error says why it was the last, where that was not the number of attempts.
    """
    loop = asyncio.get_running_loop()
    pending: list[Verdict[T]] = [first]

    async def attempt_or_first() -> Verdict[T]:
        return pending.pop() if pending else await attempt()

    def verdict_of(state: RetryCallState) -> Verdict[T]:
        assert state.outcome is not None  # noqa: S101 tenacity asks only after an attempt
        verdict: Verdict[T] = state.outcome.result()
        return verdict

    def pause(state: RetryCallState) -> float:
        verdict = verdict_of(state)
        return 0.0 if verdict.gated else verdict.retry_after + backoff(policy, state.attempt_number)

    def out_of_time(state: RetryCallState) -> bool:
        verdict = verdict_of(state)
        begins = loop.time() + (verdict.retry_after if verdict.gated else state.upcoming_sleep)
        return begins > bounds.last_start and stop(verdict, "no time is left for another attempt")

    def out_of_budget(state: RetryCallState) -> bool:
        return not budget.take() and stop(verdict_of(state), "the client's retry budget is empty")

    used_up = stop_after_attempt(policy.attempts)
    engine = AsyncRetrying(
        sleep=asyncio.sleep,
        wait=pause,
        stop=lambda state: used_up(state) or out_of_time(state) or out_of_budget(state),
        retry=retry_if_result(lambda verdict: verdict.again),
        retry_error_callback=verdict_of,
        before_sleep=None if on_retry is None else lambda state: on_retry(verdict_of(state), state.upcoming_sleep),
    )
    return await engine(attempt_or_first)


def stop(verdict: Verdict[T], reason: str) -> bool:
    """Let no attempt follow the verdict, and say why in its error; return ``True``."""
    if verdict.again and verdict.error is not None:
        verdict.error.args = (f"{verdict.error}; {reason}",)
    verdict.again = False
    return True
