"""When an attempt is made again, as a tenacity policy. The only module that imports tenacity.

The policy decides over *verdicts*, not over exceptions: an attempt returns what it came to, and only a verdict that
says so is followed by another attempt. Whatever is raised instead, a cancellation first of all, passes straight
through. One engine is built per call, and only once a first attempt has failed: engines keep state, and one pass
through an engine costs more than the rest of a successful send.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kodmobi_async._rules.pacing import RetryBudget
    from kodmobi_async._rules.verdicts import Verdict
    from kodmobi_async._values.settings import RetryPolicy


T = TypeVar("T")


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
        if begins <= bounds.last_start:
            return False
        verdict.stop("no time is left for another attempt")
        return True

    def out_of_budget(state: RetryCallState) -> bool:
        if budget.take():
            return False
        verdict_of(state).stop("the client's retry budget is empty")
        return True

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
