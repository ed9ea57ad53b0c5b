"""When an attempt is made again: the verdicts, the pauses between attempts, and what ends them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodmobi_async import (
    CooldownError,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    RetryPolicy,
    ServerError,
    Timeout,
    TransportError,
    UnreadableResponseError,
)
from kodmobi_async._calls.login import channels_call
from kodmobi_async._calls.send import Send
from kodmobi_async._rules.exchange import Failure, Progress, Response
from kodmobi_async._rules.pacing import RetryBudget
from kodmobi_async._rules.refusals import outcome_of
from kodmobi_async._rules.retry import backoff, retry
from kodmobi_async._rules.verdicts import Verdict, judge
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.redaction import NOTHING_SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
CHANNEL = {"name": "SMS", "type": "sms", "is_active": True, "timeout": 60, "image_url": "", "link": ""}
SENT = orjson.dumps({"session_id": SESSION, "session_expired_at": None, "channel": CHANNEL})
CHANNELS = orjson.dumps([CHANNEL])
TOO_SOON = b'{"sys_message": "ERROR_MESSAGE_ATTEMPT"}'
BLOCKED = b'{"sys_message": "ERROR_BLOCKED"}'

REPEATING = RetryPolicy()
NOT_REPEATING = RetryPolicy(repeat_unknown=False)

# Answered, not done, and perhaps another time; 429 is the gate's.
LATER = {408, 421, 425, 503}


# -- backoff ----------------------------------------------------------------------------------------------------------


def highest(_low: float, high: float) -> float:
    return high


def lowest(low: float, _high: float) -> float:
    return low


@pytest.mark.parametrize(
    ("attempt", "bound"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (6, 3.2), (7, 5.0), (61, 5.0), (62, 5.0)]
)
def test_the_bound_of_the_pause_doubles_up_to_its_maximum(attempt: int, bound: float) -> None:
    assert backoff(REPEATING, attempt, highest) == pytest.approx(bound)
    assert backoff(REPEATING, attempt, lowest) == 0.0


@pytest.mark.parametrize("attempt", [10**3, 10**6, 10**400])
def test_huge_numbers_of_attempts_pause_no_longer_than_the_maximum(attempt: int) -> None:
    assert backoff(REPEATING, attempt, highest) == 5.0
    assert backoff(RetryPolicy(initial_backoff=1e308, max_backoff=1e308), attempt, highest) == 1e308
    assert backoff(RetryPolicy(initial_backoff=1e-9), attempt, highest) == 5.0


@pytest.mark.parametrize("policy", [RetryPolicy(initial_backoff=0), RetryPolicy(max_backoff=0)])
def test_a_backoff_of_zero_never_pauses(policy: RetryPolicy) -> None:
    assert [backoff(policy, attempt) for attempt in (1, 2, 100, 10**6)] == [0.0] * 4


def test_the_jitter_is_full() -> None:
    drawn = [backoff(RetryPolicy(initial_backoff=1), 1) for _ in range(2_000)]
    assert min(drawn) < 0.05
    assert max(drawn) > 0.95
    assert 0.4 < sum(drawn) / len(drawn) < 0.6


@given(st.integers(1, 10**6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_pause_is_negative_or_longer_than_the_maximum(attempt: int, initial: float, maximum: float) -> None:
    policy = RetryPolicy(initial_backoff=initial, max_backoff=maximum)
    assert 0.0 <= backoff(policy, attempt) <= maximum
    assert backoff(policy, 1, highest) <= initial


# -- verdicts ---------------------------------------------------------------------------------------------------------


def judged(came: Response | Failure, *, written: bool = True, policy: RetryPolicy = REPEATING) -> Verdict[Any]:
    call = Send.of(SESSION, "sms", None, Timeout())
    call.progress = Progress()
    call.progress.written = written
    return judge(call, came, NOTHING_SECRET, repeat_unknown=policy.repeat_unknown)


def judge_channels(came: Response | Failure) -> Verdict[Any]:
    return judge(channels_call(SESSION, Timeout()), came, NOTHING_SECRET, repeat_unknown=True)


def error_of(verdict: Verdict[Any]) -> KodmobiError:
    assert verdict.result is None
    assert verdict.error is not None
    assert verdict.error.__context__ is None
    assert verdict.error.__cause__ is None
    return verdict.error


@pytest.mark.parametrize("status", range(100, 600))
def test_a_send_is_made_again_only_after_what_may_change(status: int) -> None:
    for policy in (REPEATING, NOT_REPEATING):
        verdict = judged(Response(status, {}), policy=policy)
        error = error_of(verdict)
        assert error.outcome is outcome_of(status)
        if status == 429:
            assert (verdict.again, verdict.retry_after, verdict.gated) == (True, 1.0, True)
            continue
        assert (verdict.retry_after, verdict.gated) == (0.0, False)
        unknown = error.outcome is Outcome.UNKNOWN
        # a 3xx would only come again, and 1xx is no answer at all
        assert verdict.again is (status in LATER or (unknown and status >= 500 and policy.repeat_unknown))


@pytest.mark.parametrize("status", range(100, 600))
def test_channels_are_asked_for_again_after_what_may_change(status: int) -> None:
    verdict = judge_channels(Response(status, {}))
    assert error_of(verdict).outcome is not Outcome.UNKNOWN  # it sends nothing
    assert verdict.again is (status in LATER or status == 429 or status >= 500)
    assert (verdict.retry_after, verdict.gated) == ((1.0, True) if status == 429 else (0.0, False))


@pytest.mark.parametrize("status", [302, 400, 408, 421, 425, 500, 502, 503, 504])
def test_what_the_service_asks_for_is_kept_with_the_verdict(status: int) -> None:
    for verdict in (
        judged(Response(status, {"Retry-After": "7"})),
        judge_channels(Response(status, {"Retry-After": "7"})),
    ):
        assert (verdict.retry_after, verdict.gated) == (7.0, False)


@pytest.mark.parametrize(("asks", "waits"), [("7", 7.0), ("0", 0.0), ("-7", 1.0), ("soon", 1.0)])
def test_the_wait_of_a_429_is_the_gates(asks: str, waits: float) -> None:
    for verdict in (
        judged(Response(429, {"Retry-After": asks})),
        judge_channels(Response(429, {"Retry-After": asks})),
    ):
        assert isinstance(verdict.error, RateLimitedError)
        assert (verdict.again, verdict.retry_after, verdict.gated) == (True, waits, True)


@pytest.mark.parametrize("status", [400, 403, 404, 408, 409, 421, 425, 429])
def test_too_soon_is_final_under_every_4xx(status: int) -> None:
    verdict = judged(Response(status, {}, TOO_SOON))
    error = error_of(verdict)
    assert isinstance(error, CooldownError)
    assert (error.session_id, error.channel, error.retry_after) == (SESSION, "sms", WINDOW)
    assert (verdict.again, verdict.retry_after, verdict.gated) == (False, WINDOW, False)
    assert judge_channels(Response(status, {}, TOO_SOON)).again is False


@pytest.mark.parametrize("status", [408, 421, 425, 429, 503])
def test_a_lasting_reason_outweighs_a_status_that_says_later(status: int) -> None:
    for verdict in (judged(Response(status, {}, BLOCKED)), judge_channels(Response(status, {}, BLOCKED))):
        assert error_of(verdict).outcome is Outcome.REFUSED
        assert (verdict.again, verdict.gated) == (False, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"sys_message": "ERROR_BRAND_NEW"}', b'{"error": "busy"}'])
@pytest.mark.parametrize("status", sorted(LATER))
def test_a_code_that_nobody_knows_leaves_a_later_a_later(status: int, body: bytes) -> None:
    assert judged(Response(status, {}, body), policy=NOT_REPEATING).again is True
    assert judge_channels(Response(status, {}, body)).again is True


@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_2xx_is_final_whatever_its_body_holds(status: int) -> None:
    verdict = judged(Response(status, {}, SENT))
    assert verdict.error is None
    assert verdict.result is not None
    assert (str(verdict.result.session_id), verdict.again) == (SESSION, False)
    for answer in (Response(status, {}, b"<html>"), Response(status, {}, SENT, "the answer's body is broken")):
        verdict = judged(answer)
        error = verdict.error
        assert isinstance(error, UnreadableResponseError)
        assert (verdict.result, error.outcome, verdict.again) == (None, Outcome.ACCEPTED, False)
        assert error.__context__ is None


def test_channels_that_came_are_final_readable_or_not() -> None:
    verdict = judge_channels(Response(200, {}, CHANNELS))
    assert verdict.result is not None
    assert [channel.type for channel in verdict.result] == ["sms"]
    assert verdict.again is False
    verdict = judge_channels(Response(200, {}, SENT))
    assert isinstance(verdict.error, UnreadableResponseError)
    assert (verdict.result, verdict.again) == (None, False)


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("policy", [REPEATING, NOT_REPEATING])
def test_a_fault_before_the_request_was_written_is_known_not_to_have_sent(policy: RetryPolicy, permanent: bool) -> None:
    verdict = judged(Failure("no route", permanent), written=False, policy=policy)
    error = error_of(verdict)
    assert isinstance(error, TransportError)
    assert str(error) == "nothing was sent: no route"
    assert error.outcome is Outcome.NOT_SENT
    assert (verdict.again, verdict.retry_after, verdict.gated) == (not permanent, 0.0, False)


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("policy", [REPEATING, NOT_REPEATING])
def test_a_fault_after_the_request_was_written_is_unknown(policy: RetryPolicy, permanent: bool) -> None:
    verdict = judged(Failure("the connection broke", permanent), policy=policy)
    error = error_of(verdict)
    assert isinstance(error, OutcomeUnknownError)
    assert str(error) == "the request was sent, but the connection broke"
    assert (error.outcome, error.safe_after) == (Outcome.UNKNOWN, WINDOW)
    assert (verdict.again, verdict.retry_after, verdict.gated) == (policy.repeat_unknown, 0.0, False)


@pytest.mark.parametrize("permanent", [False, True])
def test_asking_for_channels_sends_nothing_however_it_fails(permanent: bool) -> None:
    verdict = judge_channels(Failure("no route", permanent))
    error = error_of(verdict)
    assert isinstance(error, TransportError)
    assert str(error) == "nothing was sent: no route"
    assert (error.outcome, verdict.again) == (Outcome.NOT_SENT, not permanent)


@given(st.integers(100, 599), st.binary(max_size=60), st.booleans(), st.sampled_from((REPEATING, NOT_REPEATING)))
def test_every_verdict_is_a_result_or_an_error_and_no_acceptance_is_repeated(
    status: int, body: bytes, written: bool, policy: RetryPolicy
) -> None:
    for verdict in (
        judged(Response(status, {}, body), written=written, policy=policy),
        judge_channels(Response(status, {}, body)),
    ):
        assert (verdict.result is None) is not (verdict.error is None)
        assert verdict.again is False or (verdict.error is not None and verdict.error.outcome is not Outcome.ACCEPTED)
        assert verdict.again or not verdict.gated


# -- retry ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Until:
    """A bound that stays where it is."""

    last_start: float = float("inf")


def failed(again: bool = True, retry_after: float = 0.0, gated: bool = False, text: str = "no") -> Verdict[str]:
    error = ServerError(text, status=503, retry_after=retry_after)
    return Verdict(error=error, again=again, retry_after=retry_after, gated=gated)


class Attempts:
    """A script of what the attempts after the first come to, and when each began."""

    def __init__(self, *script: Verdict[str] | BaseException) -> None:
        self.script = list(script)
        self.began: list[float] = []

    async def __call__(self) -> Verdict[str]:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        came = self.script.pop(0)
        if isinstance(came, BaseException):
            raise came
        return came


AT_ONCE = RetryPolicy(initial_backoff=0)


async def going_on(
    attempts: Callable[[], Awaitable[Verdict[str]]],
    first: Verdict[str],
    *,
    policy: RetryPolicy = AT_ONCE,
    bounds: Until | None = None,
    budget: RetryBudget | None = None,
    on_retry: Callable[[Verdict[str], float], None] | None = None,
) -> Verdict[str]:
    return await retry(
        attempts,
        first,
        policy=policy,
        bounds=bounds or Until(),
        budget=budget or RetryBudget(),
        on_retry=on_retry,
    )


@pytest.mark.parametrize("first", [failed(again=False), Verdict(result="done")])
async def test_a_verdict_that_asks_for_nothing_is_the_last(first: Verdict[str]) -> None:
    attempts = Attempts()
    assert await going_on(attempts, first) is first
    assert attempts.began == []


async def test_the_first_success_is_the_last_attempt() -> None:
    attempts = Attempts(failed(), Verdict(result="done"))
    assert (await going_on(attempts, failed())).result == "done"
    assert len(attempts.began) == 2


async def test_a_lasting_failure_ends_it_whatever_came_before() -> None:
    lasting = failed(again=False, text="blocked")
    attempts = Attempts(failed(), lasting)
    assert await going_on(attempts, failed()) is lasting
    assert str(lasting.error) == "blocked"


@pytest.mark.parametrize("allowed", [1, 2, 4, 7])
async def test_attempts_are_counted_with_the_first(allowed: int) -> None:
    verdicts = [failed(text=str(number)) for number in range(2, 20)]
    attempts = Attempts(*verdicts)
    last = await going_on(attempts, failed(text="1"), policy=RetryPolicy(attempts=allowed, initial_backoff=0))
    # used up attempts need no explanation
    assert str(last.error) == str(allowed)
    assert len(attempts.began) == allowed - 1


async def test_the_service_is_left_in_peace_for_as_long_as_it_asks() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    attempts = Attempts(failed(retry_after=3.0), failed(retry_after=0.5), Verdict(result="done"))
    await going_on(attempts, failed(retry_after=20.0))
    assert [moment - began for moment in attempts.began] == [20.0, 23.0, 23.5]


async def test_jitter_comes_on_top_of_what_the_service_asks_for() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    policy = RetryPolicy(attempts=6, initial_backoff=1.0, max_backoff=3.0)
    attempts = Attempts(*(failed(retry_after=10.0) for _ in range(5)))
    await going_on(attempts, failed(retry_after=10.0), policy=policy)
    pauses = [later - earlier for earlier, later in zip([began, *attempts.began], attempts.began, strict=False)]
    for pause, bound in zip(pauses, (1.0, 2.0, 3.0, 3.0, 3.0), strict=True):
        assert 10.0 <= pause <= 10.0 + bound
    assert len(set(pauses)) == 5


async def test_a_gated_wait_is_left_to_the_gate() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    attempts = Attempts(Verdict(result="done"))
    await going_on(attempts, failed(retry_after=30.0, gated=True), policy=RetryPolicy(initial_backoff=5))
    assert attempts.began == [began]


@pytest.mark.parametrize("gated", [False, True])
async def test_a_wait_that_would_end_too_late_is_not_begun(gated: bool) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    attempts, budget = Attempts(), RetryBudget()
    first = failed(retry_after=30.0, gated=gated)
    last = await going_on(attempts, first, bounds=Until(began + 29.999), budget=budget)
    assert last is first
    assert isinstance(last.error, ServerError)
    assert str(last.error) == "no; no time is left for another attempt"
    assert last.error.retry_after == 30.0
    assert loop.time() == began
    assert attempts.began == []
    # nor is it paid for
    assert [budget.take() for _ in range(101)].count(True) == 100


@pytest.mark.parametrize("gated", [False, True])
async def test_a_wait_that_ends_just_in_time_is_begun(gated: bool) -> None:
    attempts = Attempts(Verdict(result="done"))
    bounds = Until(asyncio.get_running_loop().time() + 30.0)
    assert (await going_on(attempts, failed(retry_after=30.0, gated=gated), bounds=bounds)).result == "done"


async def test_the_jitter_counts_against_the_time_that_is_left() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(50):
        last_start = loop.time() + 0.5
        attempts = Attempts(*(failed() for _ in range(30)))
        policy = RetryPolicy(attempts=30, initial_backoff=0.3)
        last = await going_on(attempts, failed(), policy=policy, bounds=Until(last_start))
        assert all(moment <= last_start for moment in attempts.began)
        assert loop.time() <= last_start
        assert str(last.error) == "no; no time is left for another attempt"


async def test_a_bound_that_moves_while_the_call_goes_on_counts_where_it_is() -> None:
    class Moving:
        last_start = float("inf")

    bounds = Moving()
    loop = asyncio.get_running_loop()

    async def attempt() -> Verdict[str]:
        bounds.last_start = loop.time() + 1.0
        return failed(retry_after=2.0, text="moved")

    last = await retry(attempt, failed(retry_after=50.0), policy=AT_ONCE, bounds=bounds, budget=RetryBudget())
    assert str(last.error) == "moved; no time is left for another attempt"


async def test_an_empty_budget_ends_it_and_says_so() -> None:
    budget = RetryBudget()
    for _ in range(99):
        assert budget.take()
    attempts = Attempts(failed(text="second"))
    last = await going_on(attempts, failed(), budget=budget)
    assert str(last.error) == "second; the client's retry budget is empty"
    assert len(attempts.began) == 1


async def test_an_explained_error_keeps_its_numbers() -> None:
    first = Verdict[str](error=OutcomeUnknownError("lost", safe_after=60.0), again=True)
    last = await going_on(Attempts(), first, bounds=Until(0.0))
    assert isinstance(last.error, OutcomeUnknownError)
    assert last.error.safe_after == 60.0
    assert last.error.args == ("lost; no time is left for another attempt",)


async def test_a_verdict_without_an_error_has_nothing_to_explain() -> None:
    unsure: Verdict[str] = Verdict(again=True)
    assert await going_on(Attempts(), unsure, bounds=Until(0.0)) is unsure


async def test_each_retry_is_told_of_before_its_pause() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    told: list[tuple[str, float, float]] = []

    def note(verdict: Verdict[str], pause: float) -> None:
        told.append((str(verdict.error), pause, loop.time() - began))

    attempts = Attempts(failed(retry_after=9.0, gated=True, text="second"), failed(again=False))
    await going_on(attempts, failed(retry_after=3.0, text="first"), on_retry=note)
    assert told == [("first", 3.0, 0.0), ("second", 0.0, 3.0)]


async def test_what_ends_it_is_no_retry_to_be_told_of() -> None:
    told: list[float] = []

    def note(_: Verdict[str], pause: float) -> None:
        told.append(pause)

    await going_on(Attempts(), failed(), bounds=Until(0.0), on_retry=note)
    await going_on(Attempts(), failed(), policy=RetryPolicy(attempts=1), on_retry=note)
    await going_on(Attempts(), failed(again=False), on_retry=note)
    assert told == []


@pytest.mark.parametrize(
    "raised",
    [
        ServerError("raised, not returned", status=503),
        OutcomeUnknownError("raised", safe_after=60.0),
        TimeoutError("x"),
        ConnectionResetError("x"),
        ValueError("x"),
        asyncio.CancelledError("x"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_whatever_an_attempt_raises_passes_straight_through_and_ends_it(raised: BaseException) -> None:
    attempts = Attempts(failed(), raised, Verdict(result="never"))
    with pytest.raises(type(raised)) as caught:
        await going_on(attempts, failed())
    assert caught.value is raised
    assert len(attempts.began) == 2
    assert len(attempts.script) == 1


@pytest.mark.parametrize("passed", [1.0, 30.0], ids=["in the pause", "in the attempt"])
async def test_a_cancellation_ends_it_wherever_it_is(passed: float) -> None:
    began: list[float] = []

    async def endless() -> Verdict[str]:
        began.append(1)
        await asyncio.sleep(3_600)
        raise AssertionError

    task = asyncio.create_task(going_on(endless, failed(retry_after=20.0)))
    await asyncio.sleep(passed)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert len(began) == (passed > 20)


async def test_ten_thousand_calls_at_once_keep_their_states_apart() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def call(number: int) -> tuple[int, int, str, float]:
        made, allowed, succeeds = 1, 1 + number % 4, number % 7
        pause = float(number % 3)

        async def attempt() -> Verdict[int]:
            nonlocal made
            made += 1
            await asyncio.sleep(0)
            if made == succeeds:
                return Verdict(result=number)
            return Verdict(error=TransportError(f"{number}/{made}"), again=True, retry_after=pause)

        verdict = await retry(
            attempt,
            Verdict(error=TransportError(f"{number}/1"), again=True, retry_after=pause),
            policy=RetryPolicy(attempts=allowed, initial_backoff=0),
            bounds=Until(),
            budget=RetryBudget(),
        )
        return made, verdict.result or 0, str(verdict.error), loop.time() - began

    ends = await asyncio.gather(*(call(number) for number in range(10_000)))
    for number, (made, result, error, took) in enumerate(ends):
        allowed, succeeds, pause = 1 + number % 4, number % 7, number % 3
        success = 2 <= succeeds <= allowed
        assert made == (succeeds if success else allowed)
        assert (result, error) == ((number, "None") if success else (0, f"{number}/{made}"))
        assert took == pause * (made - 1)


async def test_ten_thousand_failing_calls_of_one_client_make_a_hundred_retries() -> None:
    budget, retries = RetryBudget(), 0

    async def attempt() -> Verdict[str]:
        nonlocal retries
        retries += 1
        await asyncio.sleep(0)
        return failed()

    ends = await asyncio.gather(*(going_on(attempt, failed(), budget=budget) for _ in range(10_000)))
    assert retries == 100
    explained = sum(str(end.error) == "no; the client's retry budget is empty" for end in ends)
    assert explained >= 10_000 - 100
