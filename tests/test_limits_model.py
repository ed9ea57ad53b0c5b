"""The scripts of an account's limits against a reference in Python, on a real Valkey with a clock of the test's own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodmobi_async._shared.operations import Operation
from kodmobi_async.redis._scripts import SCRIPTS

if TYPE_CHECKING:
    from valkey_server import Valkey

START = 1_700_000_000_000_000
_keys = itertools.count()


class Server:
    """Runs the scripts at the moments that it is told."""

    def __init__(self, valkey: Valkey) -> None:
        self._client = valkey.client()
        self.now = START
        self.key = f"model:{next(_keys)}"

    def run(self, operation: Operation, *arguments: int | str) -> list[int]:
        """Return what the script replies; two zeros as three."""
        text = SCRIPTS[operation].text.decode()
        assert text.count("redis.call('TIME')") == 1
        clock = f"{{{self.now // 1_000_000}, {self.now % 1_000_000}}}"
        reply: Any = self._client.eval(text.replace("redis.call('TIME')", clock), 1, self.key, *arguments)
        return reply if isinstance(reply, list) else [reply, 0, 0]


class Model:
    """What the scripts are to do."""

    def __init__(self) -> None:
        self.at = self.next = self.opens = 0
        self.free: set[int] = set()

    def _shifted(self, now: int) -> tuple[int, int]:
        back = max(0, self.at - now)
        if back:
            self.free.clear()
        return self.next - back, self.opens - back

    def turn(self, now: int, spacing: int, longest: int, held: int, closed: int) -> list[int]:
        following, opens = self._shifted(now)
        learned = closed > 0 and now + closed > opens + 250_000
        if learned:
            opens = now + closed
        left = max(0, opens - now)
        moment, wait, took = held, 0, False
        if held == 0 or held < opens:
            queued = spacing >= 0 or left > 0
            moment = max(now, opens, following) if queued else now
            usable = [each for each in self.free if max(now, opens) <= each < moment]
            if usable:
                moment = min(usable)
            wait = moment - now
            if wait > 0 and wait >= longest:
                moment = 0
            elif usable:
                self.free.remove(moment)
                took = True
            elif queued:
                following, took = moment + abs(spacing), True
        if learned or took:
            self.at, self.next, self.opens = now, following, opens
        return [moment, wait, left] if moment == 0 or wait or left else [0, 0, 0]

    def give_back(self, now: int, moment: int, spacing: int) -> None:
        following, opens = self._shifted(now)
        self.free = {each for each in self.free if each > now}
        if now < moment < following:
            if moment + spacing == following:
                following = moment
            else:
                self.free.add(moment)
            self.at, self.next, self.opens = now, following, opens

    def close(self, now: int, milliseconds: int) -> None:
        following, opens = self._shifted(now)
        if now + 1_000 * milliseconds > opens:
            self.at, self.next, self.opens = now, following, now + 1_000 * milliseconds


SPACINGS = st.sampled_from([-10_000, 1, 20_000, 1_000_000])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("later"), st.integers(0, 3_000_000)),
        st.tuples(st.just("turn"), SPACINGS, st.sampled_from([0, 50_000, 10**9]), st.sampled_from([0, 0, 5_000_000])),
        st.tuples(st.just("again"), SPACINGS),
        st.tuples(st.just("give back"), st.integers(0, 9)),
        st.tuples(st.just("close"), st.integers(0, 4_000)),
        st.tuples(st.just("set back"), st.integers(1, 10**10)),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(STEPS)
def test_the_scripts_do_what_the_reference_does(valkey: Valkey, steps: list[tuple[Any, ...]]) -> None:
    server, model = Server(valkey), Model()
    held: list[tuple[int, int]] = []  # turns that somebody waits for, and their spacing
    for name, *rest in steps:
        now = server.now
        if name == "later":
            server.now += rest[0]
        elif name == "set back":
            server.now -= rest[0]
        elif name == "turn":
            spacing, longest, closed = rest
            reply = server.run(Operation.TURN, spacing, longest, 0, closed)
            assert reply == model.turn(now, spacing, longest, 0, closed)
            if reply[0] and reply[1]:
                held.append((reply[0], abs(spacing)))
        elif name == "again" and held:
            turn, spacing = held.pop(0)
            assert server.run(Operation.TURN, spacing, 10**9, turn) == model.turn(now, spacing, 10**9, turn, 0)
        elif name == "give back" and held:
            turn, spacing = held.pop(rest[0] % len(held))
            server.run(Operation.GIVE_BACK, turn, spacing)
            model.give_back(now, turn, spacing)
        elif name == "close":
            server.run(Operation.CLOSE, "any", rest[0])
            model.close(now, rest[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    st.sampled_from([-10_000, 20_000, 333_334]),
    st.lists(
        st.one_of(
            st.tuples(st.just("turn"), st.integers(0, 50_000)),
            st.tuples(st.just("give back"), st.integers(0, 9)),
            st.tuples(st.just("close"), st.integers(0, 2_000)),
        ),
        max_size=40,
    ),
)
def test_turns_are_apart_by_the_spacing_never_early_and_never_while_the_account_is_closed(
    valkey: Valkey, spacing: int, steps: list[tuple[str, int]]
) -> None:
    server = Server(valkey)
    opens, turns = 0, set[int]()
    for name, number in steps:
        server.now += 1 + number
        if name == "turn":
            turn, wait, left = server.run(Operation.TURN, spacing, 10**11)
            turn = turn or server.now
            assert left == max(0, opens - server.now)
            assert turn == server.now + wait >= max(server.now, opens)
            if spacing > 0 or wait:
                assert all(abs(turn - each) >= abs(spacing) for each in turns if each >= opens)
                turns.add(turn)
        elif name == "give back" and turns:
            turn = sorted(turns)[number % len(turns)]
            if turn > server.now:
                turns.remove(turn)
            server.run(Operation.GIVE_BACK, turn, abs(spacing))
        elif name == "close":
            server.run(Operation.CLOSE, "any", number)
            opens = max(opens, server.now + 1_000 * number)


def test_processes_are_active_for_as_long_as_they_say(valkey: Valkey) -> None:
    server = Server(valkey)
    server.now = START
    assert server.run(Operation.PRESENT, "a", 10_000)[0] >> 2 == 1
    assert server.run(Operation.PRESENT, "b", 10_000, "channel")[0] >> 2 == 2
    server.now += 9_000_000
    assert server.run(Operation.PRESENT, "b", 10_000)[0] >> 2 == 2
    server.now += 2_000_000
    assert server.run(Operation.PRESENT, "b", 10_000)[0] >> 2 == 1
