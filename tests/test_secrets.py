"""The API key stays where it belongs, whatever goes wrong; a session id is never loud.

Every kind of error is raised for real, with a key that nothing else contains, and all that an error carries with it is
searched for that key: what a crash report, a log or a queue of failed jobs would show of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import pickle
import traceback
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
import pytest

from kodmobi_async import (
    AuthenticationError,
    BadRequestError,
    BalanceError,
    ChallengeError,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiClient,
    KodmobiError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RecipientBlockedError,
    ResponseError,
    RetryPolicy,
    ServerError,
    SessionExpiredError,
    Timeout,
    TransportError,
    UnreadableResponseError,
    WrongLoopError,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.logging import LoggingHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

CANARY: Final = "canary-6b1f0e9d7c25"
# Nobody listens there, and an unprivileged program cannot.
CLOSED: Final = "http://127.0.0.1:9/session"


# -- the search --------------------------------------------------------------------------------------------------------


def family(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it hangs together with, those included that a traceback would not print."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        member = pending.pop()
        if member is not None and id(member) not in seen:
            seen.add(id(member))
            pending += [member.__cause__, member.__context__]
            yield member


def carried(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield all texts that can be had of an error, each with its name."""
    for member in family(error):
        kind = type(member).__name__
        yield f"str of {kind}", str(member)
        yield f"repr of {kind}", repr(member)
        yield f"args of {kind}", repr(member.args)
        yield f"vars of {kind}", repr(vars(member))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with contextlib.suppress(TypeError):  # of others' errors, some cannot be pickled
                yield f"pickle of {kind}", pickle.dumps(member, protocol).decode("latin-1")
        frames = without_ours(member.__traceback__)
        report = traceback.TracebackException(type(member), member, frames, capture_locals=True)
        report.__cause__ = report.__context__ = None  # each has its turn
        yield f"traceback of {kind}", "".join(report.format())


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this module, whose variables hold the key."""
    if trace is None:
        return None
    rest = without_ours(trace.tb_next)
    if trace.tb_frame.f_code.co_filename == __file__:
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


def leaks(error: BaseException) -> list[str]:
    return [f"{name}: {text}" for name, text in carried(error) if CANARY in text]


# -- every kind of error -----------------------------------------------------------------------------------------------


@attrs.define
class Scene:
    emulator: Emulator
    session: str
    borrowed: aiohttp.ClientSession | None
    hooks: list[LoggingHook]

    def client(self, **settings: Any) -> KodmobiClient:
        settings = {"base_url": self.emulator.base_url, "session": self.borrowed, "hooks": self.hooks, **settings}
        return KodmobiClient(CANARY, **settings)

    async def send(self, **settings: Any) -> None:
        async with self.client(**settings) as client:
            await client.send(self.session, "sms")


def answered(fault: Fault, **settings: Any) -> Callable[[Scene], Awaitable[None]]:
    async def play(scene: Scene) -> None:
        scene.emulator.script(fault, times=9)
        await scene.send(**settings)

    return play


def refused(sys_message: str) -> Callable[[Scene], Awaitable[None]]:
    return answered(Fault.refuse(sys_message))


def asked(fault: Fault) -> Callable[[Scene], Awaitable[None]]:
    async def play(scene: Scene) -> None:
        scene.emulator.script(fault, times=9, endpoint="channels")
        async with scene.client() as client:
            await client.channels(scene.session)

    return play


async def nobody_listens(scene: Scene) -> None:
    await scene.send(base_url=CLOSED)


async def no_tls_there(scene: Scene) -> None:
    await scene.send(base_url=scene.emulator.base_url.replace("http:", "https:"))


async def no_channels_there(scene: Scene) -> None:
    async with scene.client(base_url=CLOSED) as client:
        await client.channels()


async def twice(scene: Scene) -> None:
    async with scene.client() as client:
        await client.send(scene.session, "sms")
        await client.send(scene.session, "sms")


async def arrived_after_all(scene: Scene) -> None:
    scene.emulator.script(Fault.close("after_reading", process=True))
    scene.emulator.script(Fault.answer(500), endpoint="channels")
    await scene.send()


async def closed_before(scene: Scene) -> None:
    client = scene.client()
    await client.aclose()
    await client.send(scene.session, "sms")


async def closed_meanwhile(scene: Scene) -> None:
    scene.emulator.script(Fault.silence())
    client = scene.client()
    sending = asyncio.create_task(client.send(scene.session, "sms"))
    await asyncio.sleep(1)
    await client.aclose(grace=1)
    await sending


async def closed_while_connecting(scene: Scene) -> None:
    async with no_answer_to_a_handshake() as address:
        client = scene.client(base_url=address)
        sending = asyncio.create_task(client.send(scene.session, "sms"))
        await asyncio.sleep(1)
        await client.aclose(grace=1)
        await sending


async def borrowed_and_closed(scene: Scene) -> None:
    session = aiohttp.ClientSession()
    await session.close()
    await scene.send(session=session)


async def on_another_loop(scene: Scene) -> None:
    async with scene.client() as client:
        await client.channels()
        await asyncio.to_thread(asyncio.run, client.send(scene.session, "sms"))


async def borrowed_from_another_loop(scene: Scene) -> None:
    async with aiohttp.ClientSession() as session:
        elsewhere = KodmobiClient(CANARY, base_url=CLOSED, session=session)
        await asyncio.to_thread(asyncio.run, elsewhere.send(scene.session, "sms"))


async def no_session(scene: Scene) -> None:
    async with scene.client() as client:
        await client.send("no-session", "sms")


async def no_channel(scene: Scene) -> None:
    async with scene.client() as client:
        await client.send(scene.session, "no channel")


async def no_time(scene: Scene) -> None:
    async with scene.client() as client:
        await client.send(scene.session, "sms", timeout=-1)


@contextlib.asynccontextmanager
async def no_answer_to_a_handshake() -> AsyncIterator[str]:
    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/session"


ECHO: Final = {"Location": f"/{CANARY}", "Retry-After": CANARY, "X-Key": CANARY}
SAID: Final = {"error": {"message": f"your key {CANARY}", "sys_message": CANARY}, "key": CANARY, CANARY: [CANARY]}
SPELLED: Final = '{"message": "' + "".join(f"\\u00{ord(char):02x}" for char in CANARY) + '"}'
ONCE: Final = RetryPolicy(attempts=1, repeat_unknown=False)

SCENES: Final[list[tuple[type[KodmobiError], str, Callable[[Scene], Awaitable[None]]]]] = [
    (ConfigurationError, "a timeout that is none", no_time),
    (InvalidRequestError, "a session that is none", no_session),
    (InvalidRequestError, "a channel that is none", no_channel),
    (ClientClosedError, "before", closed_before),
    (ClientClosedError, "meanwhile", closed_meanwhile),
    (ClientClosedError, "while connecting", closed_while_connecting),
    (ClientClosedError, "the borrowed session", borrowed_and_closed),
    (WrongLoopError, "the client's", on_another_loop),
    (WrongLoopError, "the borrowed session's", borrowed_from_another_loop),
    (CooldownError, "the client's own", twice),
    (CooldownError, "the service's", refused("ERROR_MESSAGE_ATTEMPT")),
    (CooldownError, "after an unknown attempt", arrived_after_all),
    (TransportError, "nobody listens", nobody_listens),
    (TransportError, "no TLS there", no_tls_there),
    (TransportError, "channels", no_channels_there),
    (OutcomeUnknownError, "closed", answered(Fault.close())),
    (OutcomeUnknownError, "reset", answered(Fault.close(reset=True), retry=ONCE)),
    (OutcomeUnknownError, "no HTTP", answered(Fault.malformed(f"x {CANARY}\r\n\r\n".encode(), process=False))),
    (OutcomeUnknownError, "no answer", answered(Fault.silence(), retry=ONCE)),
    (OutcomeUnknownError, "a slow answer", answered(Fault.drip(1.0), retry=ONCE)),
    (OutcomeUnknownError, "redirected", answered(Fault.answer(302, ECHO, SAID))),
    (OutcomeUnknownError, "in trouble", answered(Fault.answer(500, ECHO, SAID))),
    (UnreadableResponseError, "no JSON", answered(Fault.answer(200, ECHO, CANARY))),
    (UnreadableResponseError, "another shape", answered(Fault.answer(200, ECHO, SAID))),
    (UnreadableResponseError, "cut short", answered(Fault.close("mid_answer"), timeout=Timeout(total=3))),
    (UnreadableResponseError, "channels", asked(Fault.answer(200, ECHO, SAID))),
    (ResponseError, "a status of its own", answered(Fault.answer(418, ECHO, SAID))),
    (BadRequestError, "it says", answered(Fault.answer(400, ECHO, SAID))),
    (BadRequestError, "it spells", answered(Fault.answer(400, ECHO, SPELLED))),
    (AuthenticationError, "it says", refused("ERROR_ACCESS_DENIED")),
    (AuthenticationError, "channels", asked(Fault.answer(401, ECHO, SAID))),
    (NotFoundError, "it says", refused("ERROR_MESSAGE_NOT_FOUND")),
    (SessionExpiredError, "it says", refused("ERROR_SESSION_EXPIRED")),
    (ChannelUnavailableError, "it says", refused("ERROR_PROJECT_HAS_NO_CHANNEL")),
    (RecipientBlockedError, "it says", refused("ERROR_PHONE_BLOCKED")),
    (ChallengeError, "it says", refused("ERROR_CHALLENGE")),
    (BalanceError, "it says", refused("ERROR_WRONG_BALANCE")),
    (RateLimitedError, "until time runs out", answered(Fault.answer(429, ECHO, SAID), timeout=Timeout(total=3))),
    (RateLimitedError, "the gate", answered(Fault.answer(429, {"Retry-After": "600"}))),
    (ServerError, "in trouble", answered(Fault.answer(503, ECHO, SAID))),
]


def test_every_kind_of_error_is_played() -> None:
    def kinds(kind: type[KodmobiError]) -> Iterator[type[KodmobiError]]:
        for child in kind.__subclasses__():
            if child.__module__.startswith("kodmobi_async."):
                yield child
                yield from kinds(child)

    assert {kind for kind, _, _ in SCENES} == {
        kind for kind in kinds(KodmobiError) if "emulator" not in kind.__module__
    }


@pytest.fixture(params=["own pool", "borrowed session"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(api_key=CANARY))
        borrowed = None
        if request.param == "borrowed session":
            borrowed = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(emulator, emulator.add_session(), borrowed, [LoggingHook()])


@pytest.mark.parametrize(("kind", "name", "play"), SCENES, ids=[f"{kind.__name__}, {name}" for kind, name, _ in SCENES])
async def test_no_error_log_or_warning_holds_the_key(
    kind: type[KodmobiError],
    name: str,
    play: Callable[[Scene], Awaitable[None]],
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asyncio.get_running_loop().set_debug(True)
    for logger in ("kodmobi_async", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(kind) as caught:
            await play(scene)
        gc.collect()
    assert type(caught.value) is kind
    assert all(isinstance(member, KodmobiError | asyncio.CancelledError) for member in family(caught.value))
    assert leaks(caught.value) == []
    assert CANARY not in caplog.text
    assert CANARY not in "".join(str(warning.message) for warning in warned)
    loud = "\n".join(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG)
    assert scene.session[-4:] not in loud
    assert scene.session not in caplog.text


@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_a_cancelled_send_does_not_hold_the_key(scene: Scene, seconds: float) -> None:
    scene.emulator.script(Fault.silence())
    async with scene.client() as client:
        sending = asyncio.create_task(client.send(scene.session, "sms"))
        await asyncio.sleep(seconds)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await sending
    assert leaks(caught.value) == []


async def test_a_send_that_is_timed_out_from_outside_does_not_hold_the_key(scene: Scene) -> None:
    scene.emulator.script(Fault.silence())
    async with scene.client() as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await client.send(scene.session, "sms")
    assert leaks(caught.value) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": f"{CANARY}\n"},
        {"api_key": CANARY.encode()},
        {"base_url": "ftp://api.example"},
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
        KodmobiClient(**{"api_key": CANARY, **settings})
    assert leaks(caught.value) == []


async def test_the_search_finds_what_aiohttps_own_errors_hold() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.post(CLOSED, headers={"x-api-key": CANARY})
    assert [leak for leak in leaks(caught.value) if leak.startswith("traceback")]


async def test_the_search_finds_a_key_in_the_error_behind_an_error() -> None:
    try:
        try:
            int(CANARY)
        except ValueError:
            raise TransportError("nothing was sent") from None
    except TransportError as error:
        found = leaks(error)
    assert {leak.partition(" of ")[0] for leak in found} >= {"str", "repr", "args", "pickle", "traceback"}
