"""An answer must answer the question: swapped answers, other channels, and what the service says of windows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kodmobi_async import (
    AttemptFinished,
    AuthenticationError,
    Channel,
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    Phase,
    RetryPolicy,
    SendFinished,
    SendResult,
    ServerError,
)
from kodmobi_async._rules.exchange import Progress
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from kodmobi_async import Record

OTHER: Final = "01K8N1VMPN0EE389K72YW0CBM9"


def channel(type_: str = "sms", timeout: float = 60, **more: object) -> dict[str, object]:
    return {"name": "", "type": type_, "is_active": True, "timeout": timeout, "image_url": "", "link": "", **more}


def sent(session: str, over: Mapping[str, object] | None = None) -> dict[str, object]:
    return {"session_id": session, "session_expired_at": None, "channel": over or channel()}


@contextlib.asynccontextmanager
async def client_of(emulator: Emulator, pool: str, **how: Any) -> AsyncIterator[KodmobiClient]:
    async with contextlib.AsyncExitStack() as stack:
        session = None
        if pool == "borrowed":
            session = await stack.enter_async_context(aiohttp.ClientSession())
        yield await stack.enter_async_context(
            KodmobiClient(emulator.api_key, base_url=emulator.base_url, session=session, **how)
        )


# -- another session's answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
@pytest.mark.parametrize("delivered", [False, True])
async def test_another_sessions_answer_is_resolved_like_a_lost_one(
    emulator: Emulator, session: str, pool: str, *, delivered: bool
) -> None:
    emulator.script(Fault.answer(200, body=sent(OTHER), process=delivered))
    async with client_of(emulator, pool) as client:
        result = await client.send(session, "sms")
    assert str(result.session_id) == session
    assert result.confirmed is delivered
    assert len(emulator.delivered(session, "sms")) == 1


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
async def test_the_connection_that_brought_another_sessions_answer_is_closed(
    emulator: Emulator, session: str, pool: str
) -> None:
    async with client_of(emulator, pool, retry=RetryPolicy(repeat_unknown=False)) as client:
        await client.send(session, "telegram")
        emulator.script(Fault.answer(200, body=sent(OTHER)))
        with pytest.raises(OutcomeUnknownError):
            await client.send(session, "sms")
        assert emulator.connections == 1
        await client.channels(session)
        assert emulator.connections == 2


def test_an_answer_is_foreign_even_if_its_connection_is_not_known() -> None:
    progress = Progress()
    progress.disown()
    assert progress.foreign


async def test_another_sessions_answer_is_unknown_where_nothing_is_repeated(emulator: Emulator, session: str) -> None:
    records: list[Record] = []
    emulator.script(Fault.answer(200, body=sent(OTHER)))
    async with client_of(emulator, "owned", retry=RetryPolicy(repeat_unknown=False), hooks=[records.append]) as client:
        with pytest.raises(OutcomeUnknownError, match="the response names another session") as caught:
            await client.send(session, "sms")
        assert caught.value.outcome is Outcome.UNKNOWN
        assert await client.remaining(session, "sms") == pytest.approx(60)
    (attempt,) = (record for record in records if isinstance(record, AttemptFinished))
    assert (attempt.outcome, attempt.phase, attempt.status) == (Outcome.UNKNOWN, Phase.ANSWERED, 200)
    assert isinstance(records[-1], SendFinished)
    assert (records[-1].outcome, records[-1].sent_to) == (Outcome.UNKNOWN, None)


async def test_another_sessions_answer_counts_as_foreign_whatever_else_it_holds(
    emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.answer(200, body={"session_id": OTHER.lower(), "ok": True}))
    async with client_of(emulator, "owned", retry=RetryPolicy(repeat_unknown=False)) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.send(session, "sms")


async def test_our_own_session_in_another_spelling_is_no_other_session(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.answer(200, body=sent(session.lower()), process=True))
    async with client_of(emulator, "owned") as client:
        result = await client.send(session, "sms")
    assert (str(result.session_id), result.confirmed, result.attempts) == (session, False, 1)


# -- another channel's answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooked", [False, True])
async def test_a_code_that_went_over_another_channel_blocks_both(
    emulator: Emulator, session: str, *, hooked: bool
) -> None:
    records: list[Record] = []
    emulator.script(Fault.answer(200, body=sent(session, channel("sms", 30))))
    async with client_of(emulator, "owned", hooks=[records.append] if hooked else []) as client:
        result = await client.send(session, Channel.TELEGRAM)
        assert result.channel.type is Channel.SMS
        for name in ("telegram", "sms"):
            assert await client.remaining(session, name) == pytest.approx(30)
            with pytest.raises(CooldownError):
                await client.send(session, name)
        assert await client.remaining(session, "email") == 0
    assert emulator.requests["send"] == 1
    ends = [record for record in records if isinstance(record, SendFinished)]
    assert [(end.channel, end.sent_to) for end in ends[:1]] == ([("telegram", "sms")] if hooked else [])


async def test_a_channel_named_in_another_case_is_the_same_one(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.answer(200, body=sent(session, channel("SMS"))))
    async with client_of(emulator, "owned") as client:
        assert (await client.send(session, "sms")).channel.type == "SMS"
        assert await client.remaining(session, "sms") == pytest.approx(60)


async def test_a_channel_that_nobody_could_ask_for_is_shown_and_blocks_only_our_own(
    emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.answer(200, body=sent(session, channel("pigeon post!"))))
    async with client_of(emulator, "owned") as client:
        assert (await client.send(session, "sms")).channel.type == "pigeon post!"
        assert await client.remaining(session, "sms") == pytest.approx(60)


async def deliver_elsewhere(emulator: Emulator, session: str, over: str) -> None:
    """Have a code delivered over another channel, as the service may do of its own accord."""
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as other:
        await other.send(session, over)


async def test_a_lost_answer_is_not_repeated_where_another_channel_was_sent_to_meanwhile(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.delay(2.0), times=1)  # the other client's; the lost answer comes later
    sending = asyncio.create_task(deliver_elsewhere(emulator, session, "sms"))
    await asyncio.sleep(0.5)
    emulator.script(Fault.answer(200, body=sent(OTHER)))
    with pytest.raises(OutcomeUnknownError, match="another channel was sent to meanwhile"):
        await client.send(session, "telegram")
    await sending
    assert [delivery.channel for delivery in emulator.ledger] == ["sms"]
    assert await client.remaining(session, "sms") > 58


async def test_a_lost_answer_is_repeated_where_the_other_channel_was_this_client_s_own_doing(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    await client.send(session, "sms")
    emulator.script(Fault.answer(200, body=sent(OTHER)))
    assert (await client.send(session, "telegram")).attempts == 2


async def test_a_lost_answer_is_repeated_where_the_other_channel_was_sent_to_long_before(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    await deliver_elsewhere(emulator, session, "sms")
    await asyncio.sleep(10)
    emulator.script(Fault.answer(200, body=sent(OTHER)))
    assert (await client.send(session, "telegram")).attempts == 2


# -- what the service says of windows ----------------------------------------------------------------------------------


async def create(emulator: Emulator, to: str, over: str) -> str:
    """Send a code as a browser would, without this client."""
    async with aiohttp.ClientSession() as browser:
        url, headers = f"{emulator.base_url}/create", {"x-api-key": emulator.api_key}
        async with browser.post(url, json={"to": to, "type": over}, headers=headers) as response:
            session: str = (await response.json())["session_id"]
            return session


async def test_the_channels_of_a_session_lengthen_the_windows_that_are_known(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session = await create(emulator, "+14155550123", "sms")
    assert await client.remaining(session, "sms") == 0
    await client.channels(session)
    assert await client.remaining(session, "sms") == pytest.approx(60)
    assert await client.remaining(session, "telegram") == 0
    with pytest.raises(CooldownError) as caught:
        await client.send(session, "sms")
    assert caught.value.outcome is Outcome.NOT_SENT
    assert emulator.requests["send"] == 0


async def test_remaining_can_ask_the_service_first(emulator: Emulator, client: KodmobiClient) -> None:
    session = await create(emulator, "+14155550123", "sms")
    assert await client.remaining(session, "sms", refresh=True) == pytest.approx(60)
    emulator.script(Fault.refuse("ERROR_ACCESS_DENIED"), endpoint="channels")
    with pytest.raises(AuthenticationError):
        await client.remaining(session, "sms", refresh=True)


async def test_no_answer_shortens_a_window(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    await client.send(session, "sms")
    emulator.script(Fault.answer(200, body=[channel("sms", 5), channel("telegram", 0)]), endpoint="channels")
    await client.channels(session)
    assert await client.remaining(session, "sms") == pytest.approx(60)


async def test_the_project_s_channels_tell_of_no_session(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.answer(200, body=[channel("sms", 60)]), endpoint="channels")
    await client.channels()
    assert await client.remaining(session, "sms") == 0


async def test_the_question_after_a_lost_answer_tells_of_the_other_channels_too(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session = await create(emulator, "+14155550123", "email")
    await asyncio.sleep(20)
    emulator.script(Fault.close(process=True))
    assert (await client.send(session, "sms")).confirmed
    assert await client.remaining(session, "email") == pytest.approx(40, abs=1)


async def test_channel_names_that_nobody_could_ask_for_are_passed_over(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.answer(200, body=[channel("pigeon post!"), channel("sms")]), endpoint="channels")
    assert len(await client.channels(session)) == 2
    assert await client.remaining(session, "sms") == pytest.approx(60)


# -- a key that is a part of the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "telegram", "60", "is_active", "{", '"', "\\", "t", "01K8"])
async def test_an_answer_is_parsed_as_it_came_whatever_the_key(key: str) -> None:
    async with Emulator(api_key=key) as emulator, KodmobiClient(key, base_url=emulator.base_url) as client:
        result = await client.send(emulator.add_session(), "telegram")
        assert (result.channel.type, result.channel.timeout, result.channel.name) == ("telegram", 60, "Telegram")


KEY: Final = "canary-9f8e7d6c5b4a"


async def test_text_of_the_service_s_that_repeats_the_key_is_handed_out_and_shown_by_no_repr_and_no_record() -> None:
    records: list[Record] = []
    async with (
        Emulator(api_key=KEY) as emulator,
        KodmobiClient(KEY, base_url=emulator.base_url, hooks=[records.append]) as client,
    ):
        session = emulator.add_session()
        words: dict[str, Any] = dict.fromkeys(("name", "type", "image_url", "link", "description"), KEY)
        emulator.script(Fault.answer(200, body=sent(session, channel("sms", **words))))
        result = await client.send(session, "sms")
        assert {getattr(result.channel, name) for name in words} == {KEY}
        emulator.script(Fault.answer(200, body=[channel("sms", **words)]), endpoint="channels")
        channels = await client.channels(session)
    shown = f"{result!r} {result} {channels!r} {records!r}"
    assert KEY not in shown
    assert session not in shown
    (end,) = (record for record in records if isinstance(record, SendFinished))
    assert KEY not in str(end.sent_to)


@pytest.mark.parametrize("spelled", ["key %s!", "%s", "x" * 295 + "%s"], ids=["within", "alone", "at the cut"])
async def test_the_key_is_taken_out_of_the_service_s_words_in_an_error(spelled: str) -> None:
    words = spelled % KEY
    async with Emulator(api_key=KEY) as emulator, KodmobiClient(KEY, base_url=emulator.base_url) as client:
        body = orjson.dumps({"error": words, "sys_message": words}).replace(b"canary", b"\\u0063anary")
        emulator.script(Fault.answer(501, body=body))
        with pytest.raises(KodmobiError) as caught:
            await KodmobiClient(KEY, base_url=emulator.base_url, retry=RetryPolicy(attempts=1)).send(
                emulator.add_session(), "sms"
            )
        await client.aclose()
    cause = caught.value.__cause__
    assert isinstance(cause, ServerError)
    assert cause.message is not None
    assert "•••" in cause.message
    assert not any(KEY[:8] in str(text) for text in (caught.value, cause, cause.message, cause.sys_message))


# -- any answer of the documented shape --------------------------------------------------------------------------------

NAMES: Final = ("telegram", "sms", "viber")


@attrs.frozen
class Whim:
    """How the service treats one request: what it does, and what it answers."""

    delivers: bool
    over: str | None
    """Another channel than the one asked for."""
    timeout: float
    is_swapped: bool
    """The answer is another request's."""


WHIMS: Final = st.builds(
    Whim,
    delivers=st.booleans(),
    over=st.none() | st.sampled_from(NAMES),
    timeout=st.sampled_from((0, 0.5, 5, 59.9, 60, 61, 300)),
    is_swapped=st.booleans(),
)


@attrs.define
class WhimsicalService:
    """Answers any send with any documented shape, and keeps a ledger of what it has delivered.

    What it says of a session that it names is true. It delivers nothing without saying so, unless its answer is
    swapped for another's.
    """

    whims: Iterator[Whim]
    guards: bool
    """It refuses a second code within a window."""
    delivered: list[tuple[str, str, float, float]] = attrs.Factory(list[tuple[str, str, float, float]])
    """Session, channel, when, and for how many seconds the channel is blocked from then."""

    def left(self, session: str, name: str) -> float:
        now = asyncio.get_running_loop().time()
        return max(
            [0.0, *(at + window - now for who, over, at, window in self.delivered if (who, over) == (session, name))]
        )

    def answer(self, method: str, body: bytes, session: str) -> tuple[int, dict[str, str], object]:
        if method == "GET":
            return 200, {}, [channel(name, min(60.0, self.left(session, name))) for name in NAMES]
        asked = orjson.loads(body)
        session, name, whim = asked["session_id"], asked["type"], next(self.whims)
        if self.guards and (left := self.left(session, name)) > 0:
            refusal = {"success": False, "error": "Relax", "sys_message": "ERROR_MESSAGE_ATTEMPT"}
            return 429, {"Retry-After": str(int(left) + 1)}, refusal
        # it takes another channel only where that one is free, and says so: a code that goes over another channel with
        # an answer that is lost is the next test's
        over = name if whim.over is None or whim.is_swapped or self.left(session, whim.over) > 0 else whim.over
        # what makes it safe to repeat a request is that the service refuses a second send for a minute
        window = max(60.0, whim.timeout) if whim.is_swapped else whim.timeout
        if whim.delivers or not whim.is_swapped:
            self.delivered.append((session, over, asyncio.get_running_loop().time(), window))
        return 200, {}, sent(OTHER if whim.is_swapped else session, channel(over, window))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((line for line in head.splitlines() if line.startswith("Content-Length:")), "x: 0")
                body = await reader.readexactly(int(length.partition(":")[2]))
                line = head.partition("\r\n")[0]
                status, headers, value = self.answer(line.partition(" ")[0], body, line[-35:-9])
                payload = orjson.dumps(value)
                lines = [f"HTTP/1.1 {status} S", f"Content-Length: {len(payload)}"]
                lines += [f"{name}: {text}" for name, text in headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        writer.close()


async def judged(service: WhimsicalService, calls: Iterable[tuple[str, float]], policy: RetryPolicy) -> None:
    """Make the calls, and hold what is said of each against the ledger."""
    session = "01K8N1VMPN0EE389K72YW0CBM2"
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, KodmobiClient("key", base_url=f"http://127.0.0.1:{port}", retry=policy) as client:
        for name, pause in calls:
            before = len(service.delivered)
            came: SendResult | KodmobiError
            try:
                came = await client.send(session, name)
            except KodmobiError as error:
                came = error
            codes = service.delivered[before:]
            assert len(codes) <= 1, came
            if isinstance(came, SendResult):
                assert str(came.session_id) == session
                assert [over for _, over, _, _ in codes] == [came.channel.type]
                for blocked in (name, came.channel.type):
                    assert await client.remaining(session, blocked) >= came.channel.timeout - 1e-6
            elif came.outcome in (Outcome.NOT_SENT, Outcome.REFUSED):
                assert not codes, came
            elif came.outcome is Outcome.ACCEPTED:
                assert len(codes) == 1, came
            assert {who for who, *_ in codes} <= {session}
            await asyncio.sleep(pause)
        await client.aclose()
    by_channel: dict[str, list[tuple[float, float]]] = {}
    for _, over, at, window in service.delivered:
        by_channel.setdefault(over, []).append((at, window))
    for deliveries in by_channel.values():
        assert all(at + window <= later + 1e-6 for (at, window), (later, _) in itertools.pairwise(deliveries))


CALLS: Final = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from((0.0, 1.0, 30.0, 60.0, 300.0))), min_size=1, max_size=6
)


@settings(max_examples=150)
@given(st.lists(WHIMS, min_size=30, max_size=30), CALLS)
def test_whatever_session_channel_and_timeout_answers_name_the_ledger_agrees(
    whims: list[Whim], calls: list[tuple[str, float]]
) -> None:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(judged(WhimsicalService(iter(whims), guards=True), calls, RetryPolicy()))


@settings(max_examples=150)
@given(st.lists(WHIMS.filter(lambda whim: whim.over is None), min_size=10, max_size=10), CALLS)
def test_without_repeating_it_agrees_with_a_service_that_guards_no_window(
    whims: list[Whim], calls: list[tuple[str, float]]
) -> None:
    whims = [attrs.evolve(whim, timeout=min(whim.timeout, 60.0)) for whim in whims]
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        service = WhimsicalService(iter(whims), guards=False)
        runner.run(judged(service, calls, RetryPolicy(repeat_unknown=False)))
