"""Every fault, in every situation, judged by what the service delivered.

The judge is the emulator's ledger, on the service's side of the wire: what the client says of each call has to agree
with it, and so has what its tracker says of the channel afterwards. Where repeating is turned off, the same is shown
against a service that answers as documented but lets a second code pass at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import pytest
from ports import kept_port

from kodmobi_async import (
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Outcome,
    RetryPolicy,
    SendResult,
    Session,
)
from kodmobi_async._calls.create import slot_of
from kodmobi_async.emulator import Delivery, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

WINDOW: Final = 60.0
DUST: Final = 1e-6
CHANNEL: Final = "sms"
# A round has each fault hit every combination of settings once; more rounds draw other numbers for the rest.
ROUNDS: Final = 20 if os.environ.get("KODMOBI_THOROUGH") == "1" else 2
AT_ONCE: Final = 50

TOO_SOON: Final = {"success": False, "sys_message": "ERROR_MESSAGE_ATTEMPT", "error": "Relax", "status": 429}


FOREIGN: Final = {
    "session_id": "01K8N1VMPN0EE389K72YW0CBM9",
    "session_expired_at": None,
    "channel": {"name": "SMS", "type": CHANNEL, "is_active": True, "timeout": 60, "image_url": "", "link": ""},
}


# -- the faults -------------------------------------------------------------------------------------------------------
# Not among them: a 2xx for what was not done, and a 4xx or 503 for what was. There the service itself tells a lie.

CLOSES: Final[list[tuple[Literal["before_reading", "after_reading", "mid_headers", "mid_answer"], bool]]] = [
    ("before_reading", False),
    ("after_reading", False),
    ("after_reading", True),
    ("mid_headers", False),
    ("mid_headers", True),
    ("mid_answer", True),
]
FAULTS: Final[dict[str, Fault]] = {
    **{
        f"{'reset' if reset else 'closed'} {when}{', processed' if process else ''}": Fault.close(
            when, reset=reset, process=process
        )
        for reset in (False, True)
        for when, process in CLOSES
    },
    # (half of the envelope of a 500)
    "closed mid_answer": Fault.close("mid_answer", process=False),
    **{
        f"{name}{', processed' if process else ''}": Fault.malformed(raw, process=process)
        for name, raw in (
            ("garbage", b"HTTP/9.9 twelve \x00\r\n\r\n"),
            ("half a status line", b"HTTP/1.1 20"),
            ("an oversize header", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
            ("bad framing", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"),
            ("nothing", b""),
        )
        for process in (False, True)
    },
    "silence": Fault.silence(process=False),
    "silence, processed": Fault.silence(),
    "headers in slow bytes": Fault.drip(1.0, process=False),
    "headers in slow bytes, processed": Fault.drip(1.0),
    "headers in fast bytes, processed": Fault.drip(0.001),
    "a body in slow bytes, processed": Fault.drip(1.0, "body"),
    "a body in fast bytes, processed": Fault.drip(0.001, "body"),
    "late": Fault.delay(0.5),
    "too late": Fault.delay(11.0),
    **{
        f"processed {late:g} s late": Fault.delay(late, before_processing=True)
        for late in (0.5, 11.0, 31.0, 40.0, 60.0)
    },
    **{f"HTTP {status}": Fault.answer(status) for status in (301, 302, 303, 304, 307, 308, 500, 501, 502, 504, 599)},
    **{f"HTTP {status}, processed": Fault.answer(status, process=True) for status in (302, 307, 500, 502, 504)},
    **{f"HTTP {status}": Fault.answer(status) for status in (400, 401, 402, 403, 404, 409, 410, 413, 418, 422)},
    **{f"HTTP {status}": Fault.answer(status) for status in (408, 421, 425, 429, 503)},
    **{f"HTTP {status}, later": Fault.answer(status, {"Retry-After": "3"}) for status in (429, 503)},
    **{
        f"{status} {name}": Fault.answer(status, headers, body, process=True)
        for status, name, headers, body in (
            (200, "without a body", None, b""),
            (200, "that is no JSON", None, b"<html>"),
            (200, "of another shape", None, {"ok": True}),
            (200, "with an error in it", None, TOO_SOON),
            (200, "with invalid UTF-8", None, b'{"session_id": "\xff"}'),
            (200, "in broken gzip", {"Content-Encoding": "gzip"}, b"\x1f\x8bnonsense"),
            (200, "that is too long", None, b" " * 300_000),
            (201, "without a body", None, b""),
            (204, "as it should be", None, b""),
        )
    },
    **{
        f"another session's answer{', processed' if process else ''}": Fault.answer(200, body=FOREIGN, process=process)
        for process in (False, True)
    },
    **{
        f"refused: {code}": Fault.refuse(code)
        for code in ("ERROR_BLOCKED", "ERROR_WRONG_BALANCE", "ERROR_CHALLENGE", "ERROR_SESSION_EXPIRED", "ERROR_SERVER")
    },
    "refused: ERROR_BLOCKED under 503": Fault.refuse("ERROR_BLOCKED", status=503),
}
# A refusal as too soon where no code went out before is the service's own word, but of a window that is not in the
# ledger; as an answer to a repeat it would be a lie. So these hit a first attempt only.
TOO_SOON_FAULTS: Final[dict[str, Fault]] = {
    "too soon": Fault.refuse("ERROR_MESSAGE_ATTEMPT"),
    "too soon, with a time": Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=17),
    "too soon under 400": Fault.answer(400, body=TOO_SOON),
}


# -- the judge --------------------------------------------------------------------------------------------------------


@attrs.define
class Judge:
    """Makes the calls of one client, and holds each against the ledger.

    A call is a ``send`` to a session or, with ``creates``, a ``create`` that sends, to a recipient.
    """

    emulator: Emulator
    client: KodmobiClient
    creates: bool = False
    told: Counter[str] = attrs.Factory(Counter[str])
    latest: dict[str, float] = attrs.Factory(dict[str, float])
    """When a session was last delivered to during a call. What is processed later than that, nobody can know of."""

    @property
    def endpoint(self) -> str:
        return "create" if self.creates else "send"

    def add(self) -> str:
        """Return whom to send to: another session, or another recipient."""
        to = f"+1{next(numbers_of_recipients)}"
        return to if self.creates else self.emulator.add_session(to=to)

    def delivered(self, whom: str) -> list[Delivery]:
        to, session = (whom, None) if self.creates else (None, whom)
        return self.emulator.delivered(session, CHANNEL, to=to)

    def posts(self) -> int:
        return self.emulator.requests[self.endpoint]

    async def remaining(self, whom: str) -> float:
        if not self.creates:
            return await self.client.remaining(whom, CHANNEL)
        return await self.client._cooldowns.remaining(slot_of(whom), CHANNEL)

    async def _call(self, whom: str, **how: Any) -> SendResult | Session:
        if self.creates:
            return await self.client.create(whom, channel=CHANNEL, send=True, **how)
        return await self.client.send(whom, CHANNEL, **how)

    async def send(self, session: str, **how: Any) -> SendResult | Session | KodmobiError:
        before = len(self.delivered(session))
        came: SendResult | Session | KodmobiError
        try:
            came = await self._call(session, **how)
        except KodmobiError as error:
            came = error
        outcome = outcome_of(came)
        self.told[outcome] += 1
        deliveries = self.delivered(session)
        codes = len(deliveries) - before
        assert codes <= 1, came
        if outcome in (Outcome.NOT_SENT, Outcome.REFUSED):
            assert codes == 0, came
        elif outcome is Outcome.ACCEPTED:
            assert codes == 1, came
        if codes:
            self.latest[session] = deliveries[-1].at
        # what the tracker says of the channel is at least what the ledger says
        remaining = await self.remaining(session)
        now = asyncio.get_running_loop().time()
        assert remaining >= self.latest.get(session, -WINDOW) + WINDOW - now - DUST, came
        if outcome is Outcome.UNKNOWN:
            assert remaining == pytest.approx(WINDOW)
        elif not isinstance(came, (CooldownError, Session)) and outcome is not Outcome.ACCEPTED:
            assert remaining == 0.0, came
        return came

    def no_two_codes_in_one_window(self) -> None:
        by_pair: dict[tuple[str, str], list[float]] = {}
        for delivery in self.emulator.ledger:
            by_pair.setdefault((delivery.session_id, delivery.channel), []).append(delivery.at)
        for moments in by_pair.values():
            assert all(later - sooner >= WINDOW - DUST for sooner, later in itertools.pairwise(moments))


@attrs.frozen
class Case:
    """One situation in which a fault hits."""

    warm: bool
    """After a first success, over a connection that is open already."""
    attempts: int
    repeat_unknown: bool
    seed: int

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(attempts=self.attempts, repeat_unknown=self.repeat_unknown)


numbers_of_recipients: Final = itertools.count(4155550100)


def outcome_of(came: SendResult | Session | KodmobiError) -> Outcome:
    """Return what a call says of its code."""
    if isinstance(came, KodmobiError):
        return came.outcome
    sent = isinstance(came, SendResult) or came.sent_to is not None
    return Outcome.ACCEPTED if sent else Outcome.REFUSED


def cases(*, repeating: tuple[bool, ...] = (False, True)) -> Iterator[Case]:
    numbers = itertools.count()
    for _, warm, attempts, repeat in itertools.product(range(ROUNDS), (False, True), (1, 2, 3, 4), repeating):
        yield Case(warm, attempts, repeat, next(numbers))


async def each(run: Callable[[Case], Awaitable[Counter[str]]], of: Iterator[Case]) -> Counter[str]:
    """Run the cases, many at once: they share nothing but the clock."""
    told: Counter[str] = Counter()
    for group in iter(lambda: list(itertools.islice(of, AT_ONCE)), []):
        for case, came in zip(group, await asyncio.gather(*map(run, group), return_exceptions=True), strict=True):
            if isinstance(came, BaseException):
                came.add_note(str(case))
                raise came
            told += came
    return told


async def tried(judge: Judge, session: str) -> None:
    """Send, be held back where that is due, and send again when the window has ended."""
    emulator = judge.emulator
    codes = len(judge.delivered(session))
    came = await judge.send(session)
    known_as_not_done = outcome_of(came) in (Outcome.NOT_SENT, Outcome.REFUSED)
    await asyncio.sleep(5.0)
    if await judge.remaining(session) > 0:
        posts = judge.posts()
        held_back = await judge.send(session)
        assert isinstance(held_back, CooldownError)
        assert held_back.outcome is Outcome.NOT_SENT
        assert judge.posts() == posts
    await asyncio.sleep(WINDOW)  # long enough for what is late
    if known_as_not_done:
        assert len(judge.delivered(session)) == codes, came
    emulator.clear_faults()
    again = await judge.send(session)
    if isinstance(again, KodmobiError):  # something was processed so late that its window is still open
        assert isinstance(again, CooldownError)
        await asyncio.sleep(again.retry_after)
        again = await judge.send(session)
    if isinstance(again, Session) and again.sent_to is None:  # likewise, as `create` tells it
        await asyncio.sleep(again.timeout_of(CHANNEL))
        again = await judge.send(session)
    assert outcome_of(again) is Outcome.ACCEPTED
    judge.no_two_codes_in_one_window()


async def warmed_up(judge: Judge, session: str) -> None:
    await judge.send(session)
    await asyncio.sleep(WINDOW)
    await judge.send(judge.add())


async def faulty(fault: Fault, case: Case, *, times: int | None = None, creates: bool = False) -> Counter[str]:
    luck = random.Random(case.seed)
    async with (
        Emulator(session_lifetime=3600.0) as emulator,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=case.policy) as client,
    ):
        judge = Judge(emulator, client, creates)
        session = judge.add()
        if case.warm:
            await warmed_up(judge, session)
        emulator.script(fault, times=times or luck.choice((1, 1, 2, 3, 1000)), endpoint=judge.endpoint)
        if luck.random() < 0.5:
            asked = Fault.answer(500), Fault.silence(), fault
            emulator.script(luck.choice(asked), times=1000, endpoint="create" if creates else "channels")
        await tried(judge, session)
        return judge.told


@pytest.mark.parametrize("name", FAULTS)
async def test_no_fault_makes_the_client_contradict_the_ledger(name: str) -> None:
    told = await each(lambda case: faulty(FAULTS[name], case), cases())
    assert told.total() >= 16 * ROUNDS * 2


# (a create asks about no session, so that another session's response cannot be told; it would be the service's lie)
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "another session's answer"])
async def test_no_fault_makes_a_create_that_sends_contradict_the_ledger(name: str) -> None:
    told = await each(lambda case: faulty(FAULTS[name], case, creates=True), cases())
    assert told.total() >= 16 * ROUNDS * 2


@pytest.mark.parametrize("name", TOO_SOON_FAULTS)
async def test_a_window_that_only_the_service_knows_of_contradicts_no_ledger(name: str) -> None:
    await each(lambda case: faulty(TOO_SOON_FAULTS[name], case, times=1), cases())


async def test_faults_of_all_kinds_in_a_row_do_not_make_it_either() -> None:
    names = sorted(FAULTS)

    async def mixed(case: Case) -> Counter[str]:
        luck = random.Random(case.seed)
        async with (
            Emulator(session_lifetime=3600.0) as emulator,
            KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=case.policy) as client,
        ):
            judge, session = Judge(emulator, client), emulator.add_session()
            if case.warm:
                await warmed_up(judge, session)
            for name in luck.choices(names, k=luck.randint(1, 4)):
                emulator.script(FAULTS[name])
            for name in luck.choices(names, k=luck.randint(0, 3)):
                emulator.script(FAULTS[name], endpoint="channels")
            await tried(judge, session)
            return judge.told

    told = await each(mixed, cases())
    assert set(told) == set(Outcome)


# -- nobody there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comes_back", [None, 0.05, 0.2, 2.0])
async def test_a_service_that_is_not_there_contradicts_no_ledger(comes_back: float | None) -> None:
    async def away(case: Case) -> Counter[str]:
        async with contextlib.AsyncExitStack() as stack:
            port = stack.enter_context(kept_port())
            emulator = await stack.enter_async_context(Emulator(port=port, session_lifetime=3600.0))
            client = await stack.enter_async_context(
                KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=case.policy)
            )
            judge, session = Judge(emulator, client), emulator.add_session()
            if case.warm:
                await warmed_up(judge, session)
            await emulator.aclose()

            async def come_back(seconds: float) -> None:
                await asyncio.sleep(seconds)
                await emulator.start()

            coming = None if comes_back is None else asyncio.create_task(come_back(comes_back))
            came = await judge.send(session)
            if comes_back is None and not case.warm:  # an open connection may be written to before its end is noticed
                assert isinstance(came, KodmobiError)
                assert came.outcome is Outcome.NOT_SENT
            await (coming or emulator.start())
            await asyncio.sleep(WINDOW)
            assert isinstance(await judge.send(session), SendResult)
            judge.no_two_codes_in_one_window()
            return judge.told

    await each(away, cases())


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("leaves", [0.0, 0.5, 9.0])
async def test_a_service_that_goes_away_in_the_middle_contradicts_no_ledger(*, process: bool, leaves: float) -> None:
    async def leaving(case: Case) -> Counter[str]:
        async with contextlib.AsyncExitStack() as stack:
            port = stack.enter_context(kept_port())
            emulator = await stack.enter_async_context(Emulator(port=port, session_lifetime=3600.0))
            client = await stack.enter_async_context(
                KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=case.policy)
            )
            judge, session = Judge(emulator, client), emulator.add_session()
            if case.warm:
                await warmed_up(judge, session)
            emulator.script(Fault.silence(process=process))

            async def leave() -> None:
                await asyncio.sleep(leaves)
                await emulator.aclose()
                await asyncio.sleep(random.Random(case.seed).uniform(0.0, 1.0))
                await emulator.start()

            leaving = asyncio.create_task(leave())
            await judge.send(session)
            await leaving
            await asyncio.sleep(await client.remaining(session, CHANNEL))
            await tried(judge, session)
            return judge.told

    await each(leaving, cases())


# -- a service that does not look after itself ------------------------------------------------------------------------


# What is processed after the client has given up opens its window later than the client can know; and answers of the
# emulator's own would speak of its window.
ON_TIME: Final = [
    name
    for name in FAULTS
    if not name.startswith("processed") and name != "late" and not name.endswith("in fast bytes, processed")
]


@pytest.mark.parametrize("name", ON_TIME)
async def test_without_repeating_no_fault_puts_two_codes_in_a_window_that_the_service_does_not_guard(name: str) -> None:
    """The emulator's window is nothing, but each of its answers speaks of a minute."""
    channel = {"name": "SMS", "type": CHANNEL, "is_active": True, "timeout": 60, "image_url": "", "link": ""}

    async def unguarded(case: Case) -> Counter[str]:
        luck = random.Random(case.seed)
        async with (
            Emulator(session_lifetime=3600.0, window=0.0) as emulator,
            KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=case.policy) as client,
        ):
            judge, session = Judge(emulator, client), emulator.add_session()
            body = {"session_id": session, "session_expired_at": None, "channel": channel}
            accepted = Fault.answer(200, body=body, process=True)
            if case.warm:
                emulator.script(accepted)
                await judge.send(session)
                await asyncio.sleep(WINDOW)
            emulator.script(FAULTS[name], times=luck.choice((1, 1, 2, 3)))
            emulator.script(accepted, times=1000)
            for _ in range(5):
                await judge.send(session)
                await asyncio.sleep(luck.choice((0.0, 1.0, await client.remaining(session, CHANNEL))))
            judge.no_two_codes_in_one_window()
            return judge.told

    await each(unguarded, cases(repeating=(False,)))
