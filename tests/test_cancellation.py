"""A send that is cancelled, at each turn of the event loop from its first to its last.

A turn is one round of the loop: what is ready runs, and whatever that wakes waits for the next round. Between any two
of them the caller may change its mind. The loop of these tests counts them, and cancels a send before the one it is
told, on a fresh client and service each time, until a send is over before it can be cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
import attrs
import pytest

from kodmobi_async import (
    AttemptFinished,
    CallFinished,
    Channel,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    Outcome,
    Phase,
    RecipientBlockedError,
    Record,
    RetryPolicy,
    SendResult,
    Session,
    Timeout,
)
from kodmobi_async._calls.create import slot_of
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kodmobi_async import Reservation

WINDOW: Final = 60.0
DUST: Final = 1e-6
CHANNEL: Final = "sms"
RECIPIENT: Final = "+10000000000"


class TurnByTurnLoop(VirtualClockLoop):
    """A loop that does something before a certain turn."""

    def __init__(self) -> None:
        super().__init__()
        self._turns_left = -1
        self._then: Callable[[], object] = list

    def before_turn(self, number: int, then: Callable[[], object]) -> None:
        """Call ``then`` before the turn after ``number`` others."""
        self._turns_left, self._then = number, then

    def _run_once(self) -> None:
        # the loop has no public word for a turn of it
        if self._turns_left == 0:
            self._then()
        self._turns_left -= 1
        super()._run_once()  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue] typeshed leaves it out


class SlowTracker(MemoryCooldownTracker):
    """A tracker whose store is elsewhere: every word to it takes a while, and is heard all the same."""

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        reservation = await super().acquire(session_id, channel, lease=lease, max_wait=max_wait)
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            await super().release(reservation)
            raise
        return reservation

    async def start(self, reservation: Reservation, window: float) -> None:
        await super().start(reservation, window)
        await asyncio.sleep(0.1)

    async def release(self, reservation: Reservation) -> None:
        await super().release(reservation)
        await asyncio.sleep(0.1)


# -- the situations ---------------------------------------------------------------------------------------------------


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
Prelude: TypeAlias = Callable[[Emulator, KodmobiClient, str], Awaitable[list[asyncio.Task[SendResult]]]]


@attrs.frozen(kw_only=True)
class Situation:
    """What a send meets on its way."""

    name: str
    faults: tuple[Fault, ...] = ()
    channels: tuple[Fault, ...] = ()
    """What those meet who ask for the channels."""
    settings: Mapping[str, Any] = NOTHING
    how: Mapping[str, Any] = NOTHING
    warm: bool = False
    """A connection is open already."""
    slow_tracker: bool = False
    before: Prelude | None = None
    """What goes on when the send begins; the tasks are seen to their end."""
    creates: bool = False
    """The call is a ``create`` that sends."""
    stride: int = 1
    """After the first 50 turns, only every so many-th is tried."""


def another(emulator: Emulator) -> str:
    return emulator.add_session(to="+10000000001")


async def somebody_holds_the_only_connection(
    emulator: Emulator, client: KodmobiClient, _: str
) -> list[asyncio.Task[SendResult]]:
    emulator.script(Fault.delay(1.0))
    other = asyncio.create_task(client.send(another(emulator), CHANNEL))
    await asyncio.sleep(0.5)
    return [other]


async def the_account_is_limited(emulator: Emulator, client: KodmobiClient, _: str) -> list[asyncio.Task[SendResult]]:
    emulator.script(Fault.answer(429, {"Retry-After": "5"}))
    other = asyncio.create_task(client.send(another(emulator), CHANNEL))
    await asyncio.sleep(0.5)
    return [other]


async def one_was_sent(_: Emulator, client: KodmobiClient, session: str) -> list[asyncio.Task[SendResult]]:
    await client.send(session, CHANNEL)
    await asyncio.sleep(30.0)
    return []


async def somebody_sends_the_same(
    emulator: Emulator, client: KodmobiClient, session: str
) -> list[asyncio.Task[SendResult]]:
    emulator.script(Fault.delay(1.0))
    first = asyncio.create_task(client.send(session, CHANNEL))
    await asyncio.sleep(0.5)
    return [first]


async def another_process_sent_one(
    emulator: Emulator, _: KodmobiClient, session: str
) -> list[asyncio.Task[SendResult]]:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as other:
        await other.send(session, CHANNEL)
    await asyncio.sleep(30.0)
    return []


SLOW_BACKOFF: Final = {"retry": RetryPolicy(initial_backoff=1.0)}

SITUATIONS: Final = [
    Situation(name="a first connection"),
    Situation(name="an open connection", warm=True),
    Situation(name="a late answer", faults=(Fault.delay(1.0),)),
    Situation(name="a request that is processed late", faults=(Fault.delay(1.0, before_processing=True),)),
    Situation(name="headers in pieces", faults=(Fault.drip(0.0),), stride=7),
    Situation(name="a body in pieces", faults=(Fault.drip(0.0, "body"),), stride=7),
    Situation(
        name="no free connection",
        settings={"limits": Limits(connections=1)},
        before=somebody_holds_the_only_connection,
    ),
    Situation(name="a closed gate", before=the_account_is_limited),
    Situation(name="a rate", settings={"limits": Limits(rate=1.0)}, warm=True),
    Situation(name="backoffs after refusals", faults=(Fault.answer(503),) * 3, settings=SLOW_BACKOFF),
    Situation(name="a limited account", faults=(Fault.answer(429),) * 2),
    Situation(name="a cooldown", how={"max_wait": math.inf}, before=one_was_sent),
    Situation(name="a send under way", how={"max_wait": math.inf}, before=somebody_sends_the_same),
    Situation(
        name="a cooldown that only the service knows of", how={"max_wait": math.inf}, before=another_process_sent_one
    ),
    Situation(
        name="a lost answer, and the question for it",
        faults=(Fault.close(process=True),),
        channels=(Fault.delay(1.0),),
    ),
    Situation(
        name="a lost request, a question and a repeat",
        faults=(Fault.close(), Fault.answer(500), Fault.delay(0.5)),
        channels=(Fault.delay(0.5), Fault.answer(500)),
        settings=SLOW_BACKOFF,
    ),
    Situation(
        name="a lost answer, and a refusal as too soon",
        faults=(Fault.close(process=True),),
        channels=(Fault.answer(500),),
        settings=SLOW_BACKOFF,
    ),
    Situation(
        name="no answer at all",
        faults=(Fault.silence(),) * 4,
        channels=(Fault.silence(),) * 4,
        settings={"timeout": Timeout(total=5.0, attempt=1.0)},
    ),
    Situation(name="an answer of another shape", faults=(Fault.answer(200, body=[], process=True),)),
    Situation(name="a lasting refusal", faults=(Fault.refuse("ERROR_BLOCKED"),)),
    Situation(name="settling a success elsewhere", slow_tracker=True),
    Situation(name="settling a refusal elsewhere", slow_tracker=True, faults=(Fault.answer(404),)),
    Situation(
        name="settling an unknown elsewhere",
        slow_tracker=True,
        faults=(Fault.close(process=True),),
        settings={"retry": RetryPolicy(repeat_unknown=False)},
    ),
]


CREATES: Final = [
    attrs.evolve(situation, name=f"create: {situation.name}", creates=True)
    for situation in SITUATIONS
    if situation.before is None
]


def turns(stride: int) -> Iterator[int]:
    yield from range(50)
    yield from itertools.count(50, stride)


# -- one cancellation -------------------------------------------------------------------------------------------------


class Notes:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __call__(self, record: Record, /) -> None:
        self.records.append(record)

    def judge(self, *, posts: int, codes: int, blocked: float, has_begun: bool, is_alone: bool) -> None:
        """See that what hooks were told is what the service saw."""
        attempts = [record for record in self.records if isinstance(record, AttemptFinished)]
        assert posts <= sum(attempt.phase is not Phase.NOT_WRITTEN for attempt in attempts)
        ends = [record for record in self.records if isinstance(record, CallFinished) and record.cancelled]
        assert len(ends) == has_begun
        if ends and is_alone:
            not_done = ends[0].outcome in (Outcome.NOT_SENT, Outcome.REFUSED)
            assert not (not_done and codes)
            assert blocked == pytest.approx(0.0 if not_done else WINDOW, abs=0.3)

    def judge_other(self, name: str, *, seen: int, has_begun: bool) -> None:
        """See that hooks were told of one end, and that it denies nothing that the service saw."""
        ends = [record for record in self.records if isinstance(record, CallFinished)]
        assert [end.cancelled for end in ends] == [True] * has_begun
        for end in ends:
            if name not in ("check", "verify"):
                assert end.outcome is Outcome.NOT_SENT
            elif seen:
                assert end.outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED)


@attrs.frozen
class Target:
    """What is called and cancelled."""

    client: KodmobiClient
    session: str
    creates: bool

    @property
    def endpoint(self) -> str:
        return "create" if self.creates else "send"

    @property
    def asks(self) -> str:
        """The endpoint that is asked about a lost response."""
        return "create" if self.creates else "channels"

    def call(self, **how: Any) -> Coroutine[Any, Any, SendResult | Session]:
        if self.creates:
            return self.client.create(RECIPIENT, channel=CHANNEL, send=True, **how)
        return self.client.send(self.session, CHANNEL, **how)

    async def remaining(self) -> float:
        slot = slot_of(RECIPIENT) if self.creates else self.session
        return await self.client._cooldowns.remaining(slot, CHANNEL)


async def cancelled_before(turn: int, situation: Situation, notes: Notes, **settings: Any) -> bool:
    """Cancel a send before a turn, and judge what comes of it; ``False`` if it was over by then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnByTurnLoop)
    if situation.slow_tracker:
        settings["cooldowns"] = SlowTracker()
    async with (
        Emulator(session_lifetime=3600.0) as emulator,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, **situation.settings, **settings) as client,
    ):
        session = emulator.add_session(to=RECIPIENT)
        target = Target(client, session, situation.creates)
        if situation.warm:
            await client.send(another(emulator), CHANNEL)
        others = await situation.before(emulator, client, session) if situation.before else []
        for fault in situation.faults:
            emulator.script(fault, endpoint=target.endpoint)
        for fault in situation.channels:
            emulator.script(fault, endpoint=target.asks)
        notes.records.clear()
        began, blocked_before = loop.time(), await target.remaining()
        posts_before, codes_before = emulator.requests[target.endpoint], len(emulator.ledger)
        posts_then: list[int] = []

        sending = asyncio.ensure_future(target.call(**situation.how))

        def cancel() -> None:
            if sending.cancel():
                posts_then.append(emulator.requests[target.endpoint] - posts_before)

        loop.before_turn(turn, cancel)
        await asyncio.wait([sending])
        loop.before_turn(-1, list)
        if not posts_then:
            return False
        assert sending.cancelled()  # and no error, or result, in its place
        ended = loop.time()
        blocked = await target.remaining()

        await asyncio.gather(*others)
        await asyncio.sleep(1.5)  # what is late comes in this time
        posts = emulator.requests[target.endpoint] - posts_before
        codes = [code for code in emulator.ledger[codes_before:] if code.session_id == session]
        # one request may have been under way to the service, and others send, too
        assert posts <= posts_then[0] + 1 + len(others)
        assert blocked >= blocked_before - (ended - began) - DUST
        assert blocked > 0.0 or not codes
        assert all(blocked >= code.at + WINDOW - ended - DUST for code in codes if code.at <= ended)
        if "hooks" in settings:
            alone = situation.before is None
            # (what a create asks about a lost response is a create, too, and no attempt)
            notes.judge(
                posts=0 if situation.creates else posts,
                codes=len(codes),
                blocked=blocked,
                has_begun=turn > 0,
                is_alone=alone,
            )

        # nothing that the cancelled call wanted is in the way of the next one
        emulator.clear_faults()
        await asyncio.sleep(max(0.0, blocked - 1.5))
        assert (await target.call(max_wait=61.0)).attempts
        moments = [code.at for code in emulator.delivered(session, CHANNEL)]
        assert all(later - sooner >= WINDOW - DUST for sooner, later in itertools.pairwise(moments))
    return True


@pytest.mark.parametrize("kind", ["plain", "observed", "borrowed"])
@pytest.mark.parametrize("situation", [*SITUATIONS, *CREATES], ids=lambda situation: situation.name)
def test_a_call_cancelled_at_any_turn_is_cancelled_and_its_slot_is_right(situation: Situation, kind: str) -> None:
    async def tried(turn: int) -> bool:
        notes = Notes()
        if kind == "observed":
            return await cancelled_before(turn, situation, notes, hooks=[notes])
        if kind == "plain" or "limits" in situation.settings:
            return await cancelled_before(turn, situation, notes)
        async with aiohttp.ClientSession() as borrowed:
            return await cancelled_before(turn, situation, notes, session=borrowed)

    async def main() -> None:
        for times, turn in enumerate(turns(situation.stride)):
            try:
                if not await tried(turn):
                    assert times >= 5
                    return
            except BaseException as failure:
                failure.add_note(f"cancelled before turn {turn}")
                raise

    with asyncio.Runner(loop_factory=TurnByTurnLoop) as runner:
        runner.run(main())


# -- the calls that send no code --------------------------------------------------------------------------------------

OTHER_CALLS: Final[dict[str, Callable[[KodmobiClient, str, str, str], Coroutine[Any, Any, object]]]] = {
    "channels": lambda client, session, _code, _token: client.channels(session),
    "settings": lambda client, session, _code, _token: client.settings(session),
    "create": lambda client, _session, _code, _token: client.create(RECIPIENT),
    "check": lambda client, session, code, _token: client.check(session, code),
    "verify": lambda client, _session, _code, token: client.verify(token),
}


async def other_call_cancelled_before(turn: int, name: str, *, warm: bool, lost: bool) -> bool:
    """Cancel a call before a turn, and judge what is said of it; ``False`` if it was over by then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnByTurnLoop)
    notes = Notes()
    async with Emulator(session_lifetime=3600.0) as emulator:
        key, secret_key, address = emulator.api_key, emulator.secret_key, emulator.base_url
        async with (
            KodmobiClient(key, secret_key=secret_key, base_url=address) as other,
            KodmobiClient(key, secret_key=secret_key, base_url=address, hooks=[notes]) as client,
        ):
            session = str((await other.create(RECIPIENT, channel=CHANNEL, send=True)).session_id)
            code, token = emulator.last_code(RECIPIENT), ""
            if name == "verify":
                token = (await other.check(session, code)).verify_token
            if warm:
                await client.settings()
            if lost:
                emulator.script(Fault.close(), endpoint=name)
            notes.records.clear()
            before, was_cancelled = emulator.requests[name], False
            calling = asyncio.ensure_future(OTHER_CALLS[name](client, session, code, token))

            def cancel() -> None:
                nonlocal was_cancelled
                was_cancelled = calling.cancel()

            loop.before_turn(turn, cancel)
            await asyncio.wait([calling])
            loop.before_turn(-1, list)
            if not was_cancelled:
                if not lost:
                    calling.result()
                elif calling.exception() is None:
                    assert name not in ("check", "verify")
                return False
            assert calling.cancelled()
            await asyncio.sleep(1.5)  # what is late comes in this time
            notes.judge_other(name, seen=emulator.requests[name] - before, has_begun=turn > 0)
            emulator.clear_faults()
            await client.settings()
    return True


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", OTHER_CALLS)
def test_every_other_call_cancelled_at_any_turn_says_what_is_known(name: str, *, warm: bool, lost: bool) -> None:
    async def main() -> None:
        for times, turn in enumerate(turns(1)):
            try:
                if not await other_call_cancelled_before(turn, name, warm=warm, lost=lost):
                    assert times >= 5
                    return
            except BaseException as failure:
                failure.add_note(f"cancelled before turn {turn}")
                raise

    with asyncio.Runner(loop_factory=TurnByTurnLoop) as runner:
        runner.run(main())


# -- as users do it ---------------------------------------------------------------------------------------------------


async def test_a_timeout_around_a_send_ends_it_at_its_moment(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.silence())
    began = loop.time()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(3.0):
            await client.send(session, CHANNEL)
    assert not isinstance(caught.value, KodmobiError)
    assert loop.time() - began == pytest.approx(3.0, abs=0.01)
    assert await client.remaining(session, CHANNEL) == pytest.approx(WINDOW, abs=0.01)
    await asyncio.sleep(30.0)
    assert emulator.requests == {"send": 1}


async def test_a_timeout_that_does_not_run_out_is_not_felt(client: KodmobiClient, session: str) -> None:
    async with asyncio.timeout(3.0) as bound:
        await client.send(session, CHANNEL)
    assert not bound.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_wait_for_ends_a_send_and_only_that_one(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.delay(5.0), times=2)
    other = asyncio.create_task(client.send(another(emulator), CHANNEL))
    began = loop.time()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.send(session, CHANNEL), 3.0)
    assert loop.time() - began == pytest.approx(3.0, abs=0.01)
    assert (await other).attempts == 1
    assert emulator.requests == {"send": 2}


async def test_wait_for_a_cooldown_leaves_the_line_to_the_others(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    await client.send(session, CHANNEL)
    impatient = asyncio.create_task(asyncio.wait_for(client.send(session, CHANNEL, max_wait=math.inf), 10.0))
    await asyncio.sleep(1.0)
    patient = asyncio.create_task(client.send(session, CHANNEL, max_wait=math.inf))
    with pytest.raises(TimeoutError):
        await impatient
    assert isinstance(await patient, SendResult)
    first, second = emulator.delivered(session)
    assert second.at - first.at == pytest.approx(WINDOW, abs=0.1)


async def test_a_failure_in_a_task_group_cancels_its_sends(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    async def fail() -> None:
        await asyncio.sleep(1.0)
        raise ValueError("something else went wrong")

    emulator.script(Fault.silence(), times=10)
    sends: list[asyncio.Task[SendResult]] = []

    async def send_to_all() -> None:
        async with asyncio.TaskGroup() as group:
            sends.extend(group.create_task(client.send(session, channel)) for channel in Channel)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await send_to_all()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert all(send.cancelled() for send in sends)
    assert all([await client.remaining(session, channel) > 59 for channel in Channel])
    await asyncio.sleep(30.0)
    assert emulator.requests == {"send": 4}


async def test_an_error_of_a_send_cancels_its_siblings_in_a_task_group(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.refuse("ERROR_BLOCKED"))
    emulator.script(Fault.silence())
    sends: list[asyncio.Task[SendResult]] = []

    async def send_two() -> None:
        async with asyncio.TaskGroup() as group:
            sends.extend(group.create_task(client.send(session, channel)) for channel in ("sms", "email"))

    with pytest.raises(ExceptionGroup) as caught:
        await send_two()
    assert [type(error) for error in caught.value.exceptions] == [RecipientBlockedError]
    assert [send.cancelled() for send in sends] == [False, True]


async def test_a_shielded_send_goes_on_when_its_caller_has_gone(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.delay(5.0))
    sending = asyncio.create_task(client.send(session, CHANNEL))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.shield(sending)
    assert not sending.done()
    assert (await sending).attempts == 1
    assert len(emulator.delivered(session)) == 1


async def test_a_cancellation_and_a_close_in_one_turn_are_a_cancellation(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.silence())
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    sending = asyncio.create_task(client.send(session, CHANNEL))
    await asyncio.sleep(1.0)
    closing = asyncio.create_task(client.aclose(grace=1.0))
    await asyncio.sleep(1.0)
    sending.cancel()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_a_second_cancellation_while_the_first_is_settled_changes_nothing(emulator: Emulator) -> None:
    tracker = SlowTracker()
    emulator.script(Fault.silence())
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, cooldowns=tracker) as client:
        session = emulator.add_session()
        sending = asyncio.create_task(client.send(session, CHANNEL))
        await asyncio.sleep(1.0)
        sending.cancel()
        await asyncio.sleep(0.05)
        assert not sending.done()  # its tracker has not answered yet
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await client.remaining(session, CHANNEL) == pytest.approx(WINDOW, abs=0.1)
