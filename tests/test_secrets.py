"""What must not come out: the API key nowhere, the session id in no line of a log that is read by default.

Every error that a send can end in is made to happen, and everything that can be got out of it is searched for the key:
what it says, what it holds, its pickle, all that it came from, and the variables of every frame on its way, as error
reporters collect them. So is what it left in the logs, with asyncio's debug mode on, in which each callback is named
with its arguments.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import pickle
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
import pytest

from kodmobi_async import (
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
    KodmobiClient,
    KodmobiError,
    Limits,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    Record,
    ResponseError,
    RetryPolicy,
    SendInterruptedError,
    ServerError,
    SessionExpiredError,
    Timeout,
    TransportError,
    UnreadableResponseError,
    WrongCodeError,
    WrongLoopError,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.logging import LoggingHook

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY: Final = "canary-9f8e7d6c5b4a"
SESSION: Final = "01K8N1VMPN0EE389K72YW0CBM2"


@attrs.frozen(kw_only=True)
class Way:
    """A way for a send to fail."""

    kind: type[BaseException]
    # (these hold the key, and would show it in the frames of the tests themselves)
    faults: tuple[Fault, ...] = attrs.field(default=(), repr=False)
    channels: tuple[Fault, ...] = attrs.field(default=(), repr=False)
    settings: dict[str, Any] = attrs.Factory(dict[str, Any])
    how: dict[str, Any] = attrs.Factory(dict[str, Any])
    session_id: str = SESSION
    meanwhile: Callable[[KodmobiClient, asyncio.Task[object]], object] | None = None
    """What happens to the client, or to the call, a second after it began."""

    def prepare(self, emulator: Emulator) -> None:
        emulator.add_session(SESSION)
        for fault in self.faults:
            emulator.script(fault)
        for fault in self.channels:
            emulator.script(fault, endpoint="channels")


def cancel(_: KodmobiClient, sending: asyncio.Task[object]) -> None:
    sending.cancel()


def close(client: KodmobiClient, _: asyncio.Task[object]) -> object:
    return asyncio.ensure_future(client.aclose(grace=0.0))


def repeats_the_key(status: int, **more: object) -> Fault:
    """An answer with the key in all of its parts, as a proxy that shows requests would give it."""
    headers = {"Retry-After": KEY, "X-Api-Key": KEY, "Set-Cookie": f"key={KEY}"}
    return Fault.answer(status, headers, {"error": f"bad key {KEY}", "error_params": {"key": KEY}, **more})


def refused(code: str, status: int) -> tuple[Fault, ...]:
    return (repeats_the_key(status, sys_message=code),)


SILENCE: Final = (Fault.silence(),) * 9
WAYS: Final[dict[str, Way]] = {
    "no session": Way(kind=InvalidRequestError, session_id=SESSION[:-1]),
    "no number of seconds": Way(kind=ConfigurationError, how={"max_wait": -1.0}),
    "refused, the key said again": Way(kind=ResponseError, faults=(repeats_the_key(418),)),
    "refused, the key for a code": Way(kind=ResponseError, faults=(repeats_the_key(418, sys_message=KEY),)),
    "bad request": Way(kind=BadRequestError, faults=refused("ERROR_BAD_REQUEST", 400)),
    "wrong code": Way(kind=WrongCodeError, faults=refused("ERROR_MESSAGE_WRONG_CODE", 400)),
    "wrong key": Way(kind=AuthenticationError, faults=refused("ERROR_ACCESS_DENIED", 401)),
    "no such session": Way(kind=NotFoundError, faults=refused("ERROR_MESSAGE_NOT_FOUND", 404)),
    "session expired": Way(kind=SessionExpiredError, faults=refused("ERROR_SESSION_EXPIRED", 404)),
    "no channel": Way(kind=ChannelUnavailableError, faults=refused("ERROR_PROJECT_HAS_NO_CHANNEL", 400)),
    "blocked": Way(kind=RecipientBlockedError, faults=refused("ERROR_BLOCKED", 403)),
    "captcha": Way(kind=ChallengeError, faults=refused("ERROR_CHALLENGE", 403)),
    "no money": Way(kind=BalanceError, faults=refused("ERROR_WRONG_BALANCE", 403)),
    "in trouble": Way(kind=ServerError, faults=(repeats_the_key(503),) * 9),
    "account limited": Way(kind=RateLimitedError, faults=(repeats_the_key(429),) * 9),
    "account limited for long": Way(kind=RateLimitedError, faults=(Fault.answer(429, {"Retry-After": "99"}),)),
    "too soon": Way(kind=CooldownError, faults=refused("ERROR_MESSAGE_ATTEMPT", 429)),
    "too soon, again and again": Way(
        kind=CooldownError, faults=refused("ERROR_MESSAGE_ATTEMPT", 429) * 9, how={"max_wait": 100.0}
    ),
    "too soon after a lost answer": Way(
        kind=CooldownError, faults=(Fault.close(process=True),), channels=(repeats_the_key(500),)
    ),
    "no answer": Way(kind=OutcomeUnknownError, faults=SILENCE, channels=SILENCE),
    "closed": Way(kind=OutcomeUnknownError, faults=(Fault.close(),) * 9),
    "reset": Way(kind=OutcomeUnknownError, faults=(Fault.close(reset=True),) * 9),
    "not HTTP": Way(kind=OutcomeUnknownError, faults=(Fault.malformed(KEY.encode() + b"\r\n\r\n", process=False),) * 9),
    "a header that is none": Way(
        kind=OutcomeUnknownError,
        faults=(Fault.malformed(b"HTTP/1.1 200 OK\r\n" + KEY.encode() + b"\x00\r\n\r\n", process=False),) * 9,
    ),
    "a redirect": Way(kind=OutcomeUnknownError, faults=(Fault.answer(307, {"Location": f"http://127.0.0.1/{KEY}"}),)),
    "unknown, then refused": Way(
        kind=OutcomeUnknownError, faults=(Fault.close(), *refused("ERROR_BLOCKED", 403)), channels=(Fault.close(),)
    ),
    "broken": Way(kind=UnreadableResponseError, faults=(Fault.close("mid_answer"),)),
    "the key for an answer": Way(kind=UnreadableResponseError, faults=(Fault.answer(200, body=KEY),)),
    "another shape": Way(kind=UnreadableResponseError, faults=(repeats_the_key(200),)),
    "nobody there": Way(kind=TransportError, settings={"base_url": "http://127.0.0.1:9/session"}),
    "no TLS": Way(kind=TransportError, settings={"base_url": "https://127.0.0.1:9/session"}),
    "closed meanwhile": Way(kind=ClientClosedError, faults=SILENCE, meanwhile=close),
    "cancelled": Way(kind=asyncio.CancelledError, faults=SILENCE, meanwhile=cancel),
    "cancelled in the body": Way(kind=asyncio.CancelledError, faults=(Fault.drip(1.0, "body"),), meanwhile=cancel),
    "cancelled in a pause": Way(
        kind=asyncio.CancelledError,
        faults=(Fault.answer(503, {"Retry-After": "5"}),),
        meanwhile=cancel,
    ),
}


def graph_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it came from, what is hidden by ``from None`` included."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [link.__cause__, link.__context__]


def shown_by(error: BaseException) -> str:
    """Return all that can be got out of an error."""
    texts: list[str] = []
    for link in graph_of(error):
        texts += [str(link), repr(link), repr(link.args), repr(vars(link)), repr(getattr(link, "__notes__", ()))]
        texts += map(repr, vars(link).values())
        texts += traceback.TracebackException.from_exception(link, capture_locals=True).format()
        texts.append(pickle.dumps(link).decode("latin-1"))
        restored = pickle.loads(pickle.dumps(link))
        texts += [str(restored), repr(vars(restored))]
    return "\n".join(texts)


@pytest.fixture
def all_logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that anybody logs, at every level; asyncio names each callback that it runs."""
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"aiohttp", "asyncio", "kodmobi_async"}:
            caplog.set_level(logging.DEBUG, name)
    return caplog


def tell_everything(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0


def lines_of(logs: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    formatter = logging.Formatter("%(name)s %(message)s")
    return [(record.levelno, f"{formatter.format(record)} {record.args!r}") for record in logs.records]


def assert_discreet(logs: pytest.LogCaptureFixture) -> None:
    """See that no line of a log holds the key, and none the session's name."""
    lines = lines_of(logs)
    assert lines
    for level, line in lines:
        assert KEY not in line
        assert SESSION[:8].lower() not in line.lower(), level


async def fail(way: Way, client: KodmobiClient) -> BaseException:
    """Let a send fail, without a variable that holds the key in this frame."""
    sending: asyncio.Task[object] = asyncio.ensure_future(client.send(way.session_id, "sms", **way.how))
    if way.meanwhile is not None:
        await asyncio.sleep(1.0)
        way.meanwhile(client, sending)
    try:
        await sending
    except way.kind as error:
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
@pytest.mark.parametrize("name", WAYS)
async def test_nothing_that_comes_out_of_a_failed_send_holds_the_key(
    name: str, pool: str, all_logs: pytest.LogCaptureFixture
) -> None:
    way = WAYS[name]
    tell_everything(asyncio.get_running_loop())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with Emulator(api_key=KEY) as emulator:
            way.prepare(emulator)
            settings = {"base_url": emulator.base_url, "hooks": [LoggingHook()], **way.settings}
            borrowed = aiohttp.ClientSession() if pool == "borrowed" else None
            async with KodmobiClient(KEY, session=borrowed, **settings) as client:
                error = await fail(way, client)
                assert KEY not in repr(client) + str(client)
            if borrowed is not None:
                await borrowed.close()
        gc.collect()
    # a second glance at the type: the class itself, not one that is derived from it
    assert type(error) is way.kind
    shown = shown_by(error)
    assert KEY not in shown
    assert not [str(warning.message) for warning in warned]
    assert_discreet(all_logs)


def shown_behind_this_frame(error: BaseException) -> str:
    """Return what an error shows, without the frame of the test, whose variables hold the key."""
    trace = error.__traceback__
    assert trace is not None
    return shown_by(error.with_traceback(trace.tb_next))


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": f"{KEY}\n"},
        {"api_key": KEY.encode()},
        {"base_url": "ftp://api.example"},
        {"base_url": f"https://user:{KEY}@api.example"},
        {"timeout": 3},
        {"limits": 3},
        {"retry": 3},
        {"max_wait": -1},
        {"language": "\n"},
        {"hooks": [3]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_client_that_cannot_be_built_does_not_give_its_key_away(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KodmobiClient(**{"api_key": KEY, **settings})
    assert KEY not in shown_behind_this_frame(caught.value)


async def test_the_search_finds_what_aiohttps_own_errors_hold() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post("http://127.0.0.1:9/session", headers={"x-api-key": KEY})
    trace = caught.value.__traceback__
    assert trace is not None
    report = traceback.TracebackException(type(caught.value), caught.value, trace.tb_next, capture_locals=True)
    assert KEY in "".join(report.format())


def test_every_class_of_error_is_among_the_ways_to_fail() -> None:
    def classes(kind: type[KodmobiError]) -> set[type[KodmobiError]]:
        return {kind}.union(*map(classes, kind.__subclasses__()))

    # the first has a test of its own, the others are made of words of ours and of an error that is among the ways
    tried = {way.kind for way in WAYS.values()} | {
        WrongLoopError,
        SendInterruptedError,
        BulkStoppedError,
        CooldownUnavailableError,
    }
    ours = {kind for kind in classes(KodmobiError) if kind.__module__.startswith("kodmobi_async.")}
    assert ours - {KodmobiError} <= tried


def test_a_client_of_another_loop_does_not_show_the_key(all_logs: pytest.LogCaptureFixture) -> None:
    client = KodmobiClient(KEY, base_url="http://127.0.0.1:9", retry=RetryPolicy(attempts=1))
    errors: list[BaseException] = []

    def send() -> None:
        try:
            asyncio.run(client.send(SESSION, "sms"), debug=True)
        except KodmobiError as error:
            errors.append(error)

    async def main() -> None:
        await client.remaining(SESSION, "sms")
        await fail(WAYS["nobody there"], client)
        await asyncio.to_thread(send)
        await client.aclose()

    asyncio.run(main(), debug=True)
    (error,) = errors
    assert type(error) is WrongLoopError
    assert KEY not in shown_by(error)
    assert_discreet(all_logs)


def test_a_client_that_nobody_closed_does_not_shout_the_key(all_logs: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Emulator(api_key=KEY) as emulator:
            emulator.add_session(SESSION)
            await KodmobiClient(KEY, base_url=emulator.base_url).send(SESSION, "sms")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        loop = asyncio.new_event_loop()
        tell_everything(loop)
        loop.run_until_complete(main())
        loop.close()  # by hand: nothing that was opened has been told
        gc.collect()
    assert not [warning for warning in warned if KEY in str(warning.message) + repr(warning.source)]
    assert_discreet(all_logs)


@pytest.mark.parametrize("settings", [{}, {"limits": Limits(connections=1, rate=10.0)}], ids=["plain", "bounded"])
async def test_a_session_is_named_in_no_log_while_its_calls_wait_and_are_retried(
    settings: dict[str, Any], all_logs: pytest.LogCaptureFixture
) -> None:
    def failing(record: Record) -> None:
        raise LookupError(f"{record}")

    tell_everything(asyncio.get_running_loop())
    async with Emulator(api_key=KEY, session_lifetime=3600.0) as emulator:
        emulator.add_session(SESSION)
        emulator.script(Fault.answer(503))
        emulator.script(Fault.answer(429))
        emulator.script(Fault.close())
        async with KodmobiClient(
            KEY, base_url=emulator.base_url, hooks=[LoggingHook(), failing], max_wait=math.inf, **settings
        ) as client:
            await asyncio.gather(*(client.send(SESSION, "sms") for _ in range(3)))
            waiting = [asyncio.create_task(client.send(SESSION, "sms", max_wait=61.0)) for _ in range(2)]
            await asyncio.sleep(1.0)
            waiting[0].cancel()
            await asyncio.wait(waiting)
            await client.channels(SESSION)
            await asyncio.sleep(61.0)
            emulator.script(Fault.silence(process=False), times=9)
            with pytest.raises(OutcomeUnknownError):
                await client.send(SESSION, "sms", timeout=Timeout(total=2.0, attempt=1.0))
    assert_discreet(all_logs)
    ours = [line for level, line in lines_of(all_logs) if "01K8…CBM2" in line and level == logging.DEBUG]
    assert len(ours) > 10
