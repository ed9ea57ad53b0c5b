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
from measured import ByOpenTelemetry, ByPrometheus, Traced

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
    LimitsUnavailableError,
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
        texts += [repr(link.to_dict())] if isinstance(link, KodmobiError) else []
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
        LimitsUnavailableError,
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


# -- the rest of the login ---------------------------------------------------------------------------------------------

PHONE: Final = "+14155557391"
EMAIL: Final = "canary-jane@mail.example"
CODE: Final = "739184"
TOKEN: Final = "canary-token-5a6b7c8d"
CHALLENGE: Final = "canary-challenge-1f2e3d"
SECRET_KEY: Final = "canary-secret-0a1b2c3d"
# what must be found nowhere; a number may come back without its plus sign
PRIVATE: Final = (KEY, SECRET_KEY, PHONE.lstrip("+"), EMAIL, CODE, TOKEN, CHALLENGE)
CALLS: Final[dict[str, Callable[[KodmobiClient], Any]]] = {
    "create": lambda client: client.create(PHONE, challenge=CHALLENGE),
    "create and send": lambda client: client.create(PHONE, channel="sms", send=True, challenge=CHALLENGE),
    "create and send to an address": lambda client: client.create(EMAIL, send=True),
    "send": lambda client: client.send(SESSION, "sms", challenge=CHALLENGE),
    "send first": lambda client: client.send_first(SESSION, ["sms", "email"], challenge=CHALLENGE),
    "check": lambda client: client.check(SESSION, CODE, challenge=CHALLENGE),
    "verify": lambda client: client.verify(TOKEN),
}
ENDPOINTS: Final = {"create and send": "create", "create and send to an address": "create", "send first": "send"}


# what each of them sends
SENT: Final[dict[str, tuple[str, ...]]] = {
    "create": (PHONE, CHALLENGE),
    "create and send": (PHONE, CHALLENGE),
    "create and send to an address": (EMAIL,),
    "send": (CHALLENGE,),
    "send first": (CHALLENGE,),
    "check": (CODE, CHALLENGE),
    "verify": (TOKEN,),
}
REPLIES: Final[dict[str, tuple[int, str | None]]] = {
    "another shape": (200, None),
    "a refusal": (400, "ERROR_BAD_REQUEST"),
    "an unknown refusal": (418, "ERROR_{}"),
    "a wrong code": (400, "ERROR_MESSAGE_WRONG_CODE"),
    "too soon": (429, "ERROR_MESSAGE_ATTEMPT"),
    "a limit": (429, None),
    "trouble": (500, None),
    "later": (503, None),
    "a redirect": (302, None),
}


def reply_to(call: str, reply: str) -> Fault:
    """A response that says again all that the request held, and whom the service knows the session to belong to."""
    if reply not in REPLIES:
        return {
            "nothing": Fault.silence(),
            "a cut connection": Fault.close(),
            "garbage": Fault.malformed(" ".join(PRIVATE).encode() + b"\r\n\r\n"),
        }[reply]
    status, code = REPLIES[reply]
    held = (*SENT[call], KEY)
    said = " ".join((*held, PHONE, f"1 {PHONE[1:]}", EMAIL))
    numbers = [int(each) for each in held if each.isdigit()]
    body = {
        "error": said,
        "sys_message": code and code.format("_".join(held)),
        "error_params": {"phone": PHONE, "held": said, "deep": [{each: [each] for each in held}, numbers]},
        "errors": {"phone": [said], "email": EMAIL},
    }
    return Fault.answer(status, {"X-Request-Id": said, "X-Api-Key": KEY, "Retry-After": held[0]}, body)


async def failed(call: str, client: KodmobiClient, meanwhile: Callable[..., object] | None = None) -> BaseException:
    """Let a call fail, without a variable that holds anything private in this frame."""
    calling: asyncio.Task[object] = asyncio.ensure_future(CALLS[call](client))
    if meanwhile is not None:
        await asyncio.sleep(1.0)
        meanwhile(client, calling)
    try:
        await calling
    except (KodmobiError, asyncio.CancelledError) as error:
        return error
    raise AssertionError("it did not fail")


def assert_nothing_private(text: str) -> None:
    found = [number for number, secret in enumerate(PRIVATE) if secret in text]
    assert not found  # without the text itself, which would be the leak


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
@pytest.mark.parametrize("reply", [*REPLIES, "nothing", "a cut connection", "garbage"])
@pytest.mark.parametrize("call", CALLS)
async def test_nothing_private_comes_out_of_a_failed_call(
    call: str, reply: str, pool: str, all_logs: pytest.LogCaptureFixture
) -> None:
    tell_everything(asyncio.get_running_loop())
    records: list[Record] = []
    observers = (Traced(), ByOpenTelemetry(), ByPrometheus())
    async with Emulator(api_key=KEY, secret_key=SECRET_KEY) as emulator:
        emulator.add_session(SESSION)
        for endpoint in (ENDPOINTS.get(call, call), "channels"):
            emulator.script(reply_to(call, reply), times=20, endpoint=endpoint)
        borrowed = aiohttp.ClientSession() if pool == "borrowed" else None
        async with KodmobiClient(
            KEY,
            secret_key=SECRET_KEY,
            base_url=emulator.base_url,
            session=borrowed,
            hooks=[LoggingHook(), records.append, *(observer.hook for observer in observers)],
        ) as client:
            error = await failed(call, client)
            assert_nothing_private(repr(client))
        if borrowed is not None:
            await borrowed.close()
    assert isinstance(error, KodmobiError)
    assert_nothing_private(shown_by(error))
    assert_nothing_private(repr(records) + repr([attrs.asdict(record) for record in records]))
    for observer in observers:
        shown = observer.shown()
        assert "kodmobi" in shown
        assert_nothing_private(shown)
        assert SESSION[:8] not in shown
        assert SESSION[-4:] not in shown
    lines = lines_of(all_logs)
    assert_nothing_private(repr(lines))
    assert not [level for level, line in lines if SESSION[:8].lower() in line.lower()]


@pytest.mark.parametrize("meanwhile", [cancel, close])
@pytest.mark.parametrize("call", CALLS)
async def test_nothing_private_comes_out_of_a_call_that_was_ended(
    call: str, meanwhile: Callable[..., object], all_logs: pytest.LogCaptureFixture
) -> None:
    tell_everything(asyncio.get_running_loop())
    observers = (Traced(), ByOpenTelemetry(), ByPrometheus())
    hooks = [LoggingHook(), *(observer.hook for observer in observers)]
    async with Emulator(api_key=KEY, secret_key=SECRET_KEY) as emulator:
        emulator.add_session(SESSION)
        emulator.script(Fault.silence(), endpoint=ENDPOINTS.get(call, call))
        async with KodmobiClient(KEY, secret_key=SECRET_KEY, base_url=emulator.base_url, hooks=hooks) as client:
            error = await failed(call, client, meanwhile)
    assert_nothing_private(shown_by(error))
    for observer in observers:
        assert "kodmobi" in observer.shown()
        assert_nothing_private(observer.shown())
    assert_nothing_private(repr(lines_of(all_logs)))


INVALID: Final[dict[str, Callable[[KodmobiClient], Any]]] = {
    "a number without its country": lambda client: client.create("415 555 7391 739184"),
    "a wrong address": lambda client: client.create("canary-jane@mail.example@"),
    "a wrong code": lambda client: client.check(SESSION, "739184 canary-token-5a6b7c8d"),
    "a wrong token": lambda client: client.verify("canary-token-5a6b7c8d\n"),
    "a wrong challenge": lambda client: client.send(SESSION, "sms", challenge="canary-challenge-1f2e3d\n"),
    "a wrong challenge of a check": lambda client: client.check(SESSION, CODE, challenge="canary-challenge-1f2e3d\n"),
    "a wrong challenge of a create": lambda client: client.create(PHONE, challenge="canary-challenge-1f2e3d\n"),
    "no such channel": lambda client: client.create(PHONE, channel="?"),
    "no boolean": lambda client: client.create(PHONE, send="yes"),  # type: ignore[arg-type]
    "no bounds": lambda client: client.verify(TOKEN, timeout=-1),
    "no session": lambda client: client.check("x", CODE),
}


@pytest.mark.parametrize("name", INVALID)
async def test_nothing_private_comes_out_of_an_input_that_is_refused(name: str) -> None:
    async with KodmobiClient(KEY, secret_key=SECRET_KEY, base_url="http://127.0.0.1:9") as client:
        with pytest.raises((InvalidRequestError, ConfigurationError)) as caught:
            await INVALID[name](client)
    shown = shown_by(caught.value)
    assert_nothing_private(shown)
    assert "4155557391" not in shown
    assert "canary" not in shown


@pytest.mark.parametrize("settings", [{"secret_key": f"{SECRET_KEY}\n"}, {"proxy": f"socks://{KEY}:{CODE}@x"}])
def test_a_client_that_cannot_be_built_gives_no_other_secret_away(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KodmobiClient(**{"api_key": KEY, **settings})
    assert_nothing_private(shown_behind_this_frame(caught.value))


async def test_the_reprs_of_results_hold_nothing_private() -> None:
    async with Emulator(api_key=KEY, secret_key=SECRET_KEY) as emulator:
        async with KodmobiClient(KEY, secret_key=SECRET_KEY, base_url=emulator.base_url) as client:
            session = await client.create(PHONE, channel="sms", send=True)
            checked = await client.check(session.session_id, emulator.last_code(PHONE))
            user = await client.verify(checked.verify_token)
            settings = await client.settings()
        code = emulator.last_code(PHONE)
    shown = f"{session!r} {checked!r} {user!r} {settings!r} {emulator!r}"
    assert_nothing_private(shown)
    assert not any(secret in shown for secret in (code, checked.verify_token, str(session.session_id)))
    assert "+1•••••7391" in repr(user)
