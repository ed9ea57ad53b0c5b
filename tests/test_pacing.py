"""The retry budget and the gate: arithmetic, with the time passed in."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodmobi_async._rules.pacing import Gate, OwnShare, Pauses, RetryBudget

# -- the budget -------------------------------------------------------------------------------------------------------


def test_ten_thousand_failures_are_retried_a_hundred_times() -> None:
    budget = RetryBudget()
    taken = [budget.take() for _ in range(10_000)]
    assert taken == [True] * 100 + [False] * 9_900


def test_five_first_time_successes_pay_for_one_retry() -> None:
    budget = emptied()
    for _ in range(4):
        budget.give_back(retried=False)
    assert not budget.take()
    budget.give_back(retried=False)
    assert budget.take()
    assert not budget.take()


def test_a_success_after_retries_gives_its_last_retry_back() -> None:
    budget = emptied()
    budget.give_back(retried=True)
    assert budget.take()
    assert not budget.take()


@pytest.mark.parametrize("retried", [True, False])
def test_a_full_budget_takes_no_more(retried: bool) -> None:
    budget = RetryBudget()
    for _ in range(1_000):
        budget.give_back(retried=retried)
    assert count(budget) == 100


def test_what_is_left_over_a_full_budget_is_lost() -> None:
    budget = RetryBudget()
    assert budget.take()
    for _ in range(4):
        budget.give_back(retried=False)
    # 499 and 5 are 500, so that the next retry leaves 495
    budget.give_back(retried=True)
    assert budget.take()
    budget.give_back(retried=False)
    assert count(budget) == 99


@given(st.lists(st.sampled_from(("take", "at once", "after retries"))))
def test_a_budget_never_gives_more_than_it_holds_and_was_given(steps: list[str]) -> None:
    budget, taken, given_back = RetryBudget(), 0, 0
    for step in steps:
        if step == "take":
            taken += budget.take()
        else:
            budget.give_back(retried=step == "after retries")
            given_back += 5 if step == "after retries" else 1
    left = count(budget)
    assert left <= 100
    assert (taken + left) * 5 <= 500 + given_back


def emptied() -> RetryBudget:
    budget = RetryBudget()
    while budget.take():
        pass
    return budget


def count(budget: RetryBudget) -> int:
    """Return how many retries the budget pays for, spending it."""
    retries = 0
    while budget.take():
        retries += 1
    return retries


# -- the gate ---------------------------------------------------------------------------------------------------------


def passed(gate: Gate, now: float) -> float:
    moment = gate.opens_at(now)
    gate.pass_at(moment, now)
    return moment


def test_an_open_gate_without_a_rate_lets_everything_through_at_once() -> None:
    gate = Gate()
    assert [passed(gate, 1_000.0) for _ in range(100)] == [1_000.0] * 100
    assert passed(gate, 1_000.5) == 1_000.5
    assert gate.closures == 0


def test_a_rate_spaces_requests_evenly() -> None:
    gate = Gate(rate=4)
    assert [passed(gate, 1_000.0) for _ in range(5)] == [1_000.0, 1_000.25, 1_000.5, 1_000.75, 1_001.0]
    assert passed(gate, 1_000.1) == 1_001.25


def test_idle_time_is_not_saved_up_for_a_burst() -> None:
    gate = Gate(rate=4)
    passed(gate, 1_000.0)
    assert [passed(gate, 2_000.0) for _ in range(3)] == [2_000.0, 2_000.25, 2_000.5]


def test_asking_takes_no_place() -> None:
    gate = Gate(rate=4)
    assert [gate.opens_at(1_000.0) for _ in range(3)] == [1_000.0] * 3


@pytest.mark.parametrize(("seconds", "opens"), [(30.0, 1_030.0), (0.5, 1_000.5), (None, 1_001.0)])
def test_a_closed_gate_holds_everything_back_for_as_long_as_the_service_said(
    seconds: float | None, opens: float
) -> None:
    gate = Gate()
    gate.close(1_000.0, seconds)
    assert gate.opens_at(1_000.0) == opens
    assert gate.opens_at(opens) == opens
    assert gate.opens_at(opens + 1) == opens + 1


def test_those_held_back_come_out_in_order_and_staggered() -> None:
    gate = Gate()
    gate.close(1_000.0, 10.0)
    moments = [passed(gate, 1_000.0 + step) for step in range(5)]
    assert moments == pytest.approx([1_010.0, 1_010.01, 1_010.02, 1_010.03, 1_010.04])
    # who comes while they are coming out stands behind them
    assert passed(gate, 1_010.005) == pytest.approx(1_010.05)
    # and when all are out, nobody waits
    assert passed(gate, 1_010.2) == 1_010.2
    assert passed(gate, 1_010.2) == 1_010.2


def test_those_held_back_come_out_at_the_rate_where_there_is_one() -> None:
    gate = Gate(rate=2)
    gate.close(1_000.0, 10.0)
    assert [passed(gate, 1_000.0) for _ in range(3)] == [1_010.0, 1_010.5, 1_011.0]


@pytest.mark.parametrize(("first", "second"), [(30.0, 5.0), (5.0, 30.0)])
def test_the_longer_of_two_closures_wins(first: float, second: float) -> None:
    gate = Gate()
    gate.close(1_000.0, first)
    gate.close(1_000.0, second)
    assert gate.opens_at(1_000.0) == 1_030.0


def test_only_a_closure_that_lasts_longer_counts_as_one() -> None:
    gate = Gate()
    counts: list[int] = []
    for now, seconds in ((1_000.0, 10.0), (1_000.0, 10.0), (1_001.0, 5.0), (1_001.0, None), (1_001.0, 9.5)):
        gate.close(now, seconds)
        counts.append(gate.closures)
    assert counts == [1, 1, 1, 1, 2]


def test_a_closure_of_nothing_holds_nobody_back() -> None:
    gate = Gate()
    gate.close(1_000.0, 0.0)
    assert gate.opens_at(1_000.0) == 1_000.0


def test_who_asks_again_after_another_closure_comes_out_after_it() -> None:
    gate = Gate()
    gate.close(1_000.0, 10.0)
    first, second = passed(gate, 1_000.0), passed(gate, 1_000.0)
    gate.close(1_005.0, 20.0)
    again = [passed(gate, first), passed(gate, second)]
    assert again == pytest.approx([1_025.0, 1_025.01])


RATES = st.none() | st.floats(0.01, 10_000.0)
# how much later the next step comes, and what it is: a request, or a closure of so many seconds
STEPS = st.lists(
    st.tuples(
        st.just(0.0) | st.floats(0.0, 30.0), st.just("request") | st.none() | st.just(0.0) | st.floats(0.0, 100.0)
    ),
    max_size=60,
)


@given(RATES, STEPS)
def test_moments_are_handed_out_in_order_and_never_before_the_gate_opens(
    rate: float | None, steps: list[tuple[float, str | float | None]]
) -> None:
    gate, now, opens, last, closures = Gate(rate), 1_000.0, 0.0, 0.0, 0
    for later, what in steps:
        now += later
        if isinstance(what, str):
            moment = passed(gate, now)
            assert moment >= max(now, opens, last)
            # as they come is only for those whom nothing holds back
            assert moment > last or (rate is None and moment == now)
            last = moment
        else:
            closes_until = now + (Gate.DEFAULT_CLOSURE if what is None else what)
            closures += closes_until > opens
            opens = max(opens, closes_until)
            gate.close(now, what)
        assert gate.closures == closures


@given(st.floats(0.01, 10_000.0), STEPS)
def test_the_average_rate_never_exceeds_the_rate(rate: float, steps: list[tuple[float, str | float | None]]) -> None:
    gate, now = Gate(rate), 1_000.0
    moments: list[float] = []
    for later, what in steps:
        now += later
        if isinstance(what, str):
            moments.append(passed(gate, now))
        else:
            gate.close(now, what)
    tolerance = 1e-9 * (1 + len(moments))
    for apart in range(1, len(moments)):
        window: deque[float] = deque(maxlen=apart + 1)
        for moment in moments:
            window.append(moment)
            if len(window) > apart:
                assert window[-1] - window[0] >= apart / rate - tolerance


@given(RATES, st.floats(0.0, 100.0), st.integers(2, 50))
def test_no_two_of_those_held_back_come_out_together(rate: float | None, seconds: float, callers: int) -> None:
    gate = Gate(rate)
    gate.close(1_000.0, seconds + 0.001)
    moments = [passed(gate, 1_000.0) for _ in range(callers)]
    spacing = 0.01 if rate is None else 1 / rate
    assert moments[0] == pytest.approx(1_000.001 + seconds)
    for earlier, later in pairwise(moments):
        assert later - earlier == pytest.approx(spacing)


# -- a share of a rate -------------------------------------------------------------------------------------------------


def kept(share: OwnShare, rate: float | None, now: float) -> float:
    gate = share.gate(rate, now)
    moment = gate.opens_at(now)
    gate.pass_at(moment, now)
    if rate is not None:
        share.note_turn(moment)
    return moment


def test_a_process_keeps_the_rate_divided_by_the_number_of_processes() -> None:
    share = OwnShare()
    share.processes = 4
    assert [kept(share, 8.0, 1_000.0) for _ in range(3)] == [1_000.0, 1_000.5, 1_001.0]


def test_a_share_begins_behind_the_turns_that_were_given_before() -> None:
    share = OwnShare()
    share.note_turn(1_003.0)
    assert [kept(share, 2.0, 1_000.0) for _ in range(2)] == [1_003.5, 1_004.0]
    assert kept(share, None, 1_000.0) == 1_000.0


def test_requests_of_several_rates_stand_in_one_queue() -> None:
    share = OwnShare()
    assert [kept(share, rate, 1_000.0) for rate in (2.0, 4.0, 2.0)] == [1_000.0, 1_000.25, 1_000.75]


@pytest.mark.parametrize("in_use", [False, True])
def test_a_share_holds_to_the_longest_closure_that_is_known(in_use: bool) -> None:
    share = OwnShare()
    if in_use:
        assert kept(share, None, 1_000.0) == 1_000.0
    share.close(1_000.0, 10.0)
    share.close(1_001.0, 2.0)
    assert share.closed_until == 1_010.0
    assert [kept(share, None, 1_001.0) for _ in range(2)] == pytest.approx([1_010.0, 1_010.01])
    assert kept(share, 2.0, 1_001.0) == 1_010.0
    share.end()
    assert kept(share, None, 1_011.0) == 1_011.0


# -- pauses of a run ---------------------------------------------------------------------------------------------------


def test_a_pause_is_for_as_long_as_the_service_asks_and_ends_for_one_after_the_other() -> None:
    pauses = Pauses(3)
    assert pauses.left(100.0) == 0.0
    assert pauses.refused(100.0, 40.0, 0) == pytest.approx(140.0 + Gate.STAGGER)
    assert pauses.refused(100.0, 40.0, 0) == pytest.approx(140.0 + 2 * Gate.STAGGER)
    assert pauses.left(110.0) == 30.0


@pytest.mark.parametrize("wait", [None, 0.0, 0.2])
def test_a_pause_lasts_for_a_second_at_least(wait: float | None) -> None:
    turn = Pauses(3).refused(100.0, wait, 0)
    assert turn is not None
    assert turn > 101.0


def test_only_so_many_pauses_in_a_row_are_made() -> None:
    pauses = Pauses(2)
    assert pauses.refused(0.0, 10.0, pauses.begun) is not None
    assert pauses.refused(11.0, 10.0, pauses.begun) is not None
    assert pauses.refused(22.0, 10.0, pauses.begun) is None
    assert Pauses(0).refused(0.0, 10.0, 0) is None


def test_those_who_were_under_way_when_a_pause_began_count_for_nothing() -> None:
    pauses = Pauses(1)
    assert pauses.refused(0.0, 10.0, 0) is not None
    assert pauses.refused(11.0, 10.0, 0) is not None  # begun before it, and refused after its end
    assert pauses.begun == 1
    pauses.answered(0)
    assert pauses.refused(25.0, 10.0, 1) is None


def test_an_answer_shows_that_the_pause_before_its_request_has_helped() -> None:
    pauses = Pauses(1)
    for number in range(5):
        assert pauses.refused(100.0 * number, 10.0, pauses.begun) is not None
        pauses.answered(pauses.begun)
