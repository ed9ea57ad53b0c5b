"""One send, as a service uses it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import pickle
import threading
from datetime import UTC
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from background import emulator_in_background
from ulid import ULID

from kodmobi_async import (
    AuthenticationError,
    Channel,
    ChannelUnavailableError,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    InvalidRequestError,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
    RetryPolicy,
    SendResult,
    ServerError,
    SessionExpiredError,
    Timeout,
    TransportError,
    UnreadableResponseError,
    WrongLoopError,
)
from kodmobi_async._calls import slots
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-9f8e7d6c5b4a"


def make_client(emulator: Emulator, **settings: Any) -> KodmobiClient:
    return KodmobiClient(emulator.api_key, base_url=emulator.base_url, **settings)


# -- the main job -----------------------------------------------------------------------------------------------------


async def test_a_send_gives_a_typed_result(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    result = await client.send(session, Channel.TELEGRAM)
    assert isinstance(result, SendResult)
    assert result.session_id == ULID.from_str(session)
    assert result.session_expired_at is not None
    assert result.session_expired_at.tzinfo is UTC
    assert result.channel.type is Channel.TELEGRAM
    assert result.channel.timeout == 60
    assert result.attempts == 1
    assert result.confirmed is False
    assert [(item.session_id, item.channel) for item in emulator.ledger] == [(session, "telegram")]


async def test_the_same_again_at_once_is_blocked_without_a_request(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    await client.send(session, "telegram")
    with pytest.raises(CooldownError) as caught:
        await client.send(session, "telegram")
    assert caught.value.retry_after == pytest.approx(60, abs=0.1)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert emulator.requests == {"send": 1}


async def test_after_the_window_the_channel_is_sent_to_again(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    await client.send(session, "telegram")
    await asyncio.sleep(60)
    await client.send(session, "telegram")
    assert len(emulator.delivered(session, "telegram")) == 2


async def test_a_thousand_concurrent_sends_of_one_key_are_one_request(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    outcomes = await asyncio.gather(*(client.send(session, "sms") for _ in range(1000)), return_exceptions=True)
    assert sum(isinstance(outcome, SendResult) for outcome in outcomes) == 1
    blocked = [outcome for outcome in outcomes if isinstance(outcome, CooldownError)]
    assert len(blocked) == 999
    assert all(0 < error.retry_after <= 60 for error in blocked)
    assert emulator.requests == {"send": 1}


async def test_every_spelling_of_a_session_and_channel_is_the_same_key(
    emulator: Emulator, client: KodmobiClient
) -> None:
    session = emulator.add_session("01K8N1VMPN0EE389K72YW0CBM2")
    await client.send(session, "telegram")
    for spelling in (session.lower(), session.replace("1", "I"), session.replace("0", "o"), ULID.from_str(session)):
        for channel in (Channel.TELEGRAM, "Telegram"):
            with pytest.raises(CooldownError):
                await client.send(spelling, channel)
    assert emulator.requests == {"send": 1}


async def test_each_channel_of_a_session_has_its_own_window(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    for channel in Channel:
        await client.send(session, channel)
    assert emulator.requests == {"send": 4}


async def test_a_channel_that_is_not_documented_passes_both_ways() -> None:
    async with Emulator(channels=("viber",)) as emulator, make_client(emulator) as client:
        result = await client.send(emulator.add_session(), "viber")
        assert result.channel.type == "viber"
        assert not isinstance(result.channel.type, Channel)


async def test_the_services_own_number_seeds_the_window() -> None:
    async with Emulator(window=7) as emulator, make_client(emulator) as client:
        session = emulator.add_session()
        await client.send(session, "sms")
        assert await client.remaining(session, "sms") == 7
        await asyncio.sleep(7)
        await client.send(session, "sms")


async def test_two_clients_may_share_their_windows(emulator: Emulator, session: str) -> None:
    shared = MemoryCooldownTracker()
    async with make_client(emulator, cooldowns=shared) as one, make_client(emulator, cooldowns=shared) as other:
        await one.send(session, "sms")
        with pytest.raises(CooldownError):
            await other.send(session, "sms")


async def test_the_channels_tell_what_is_blocked(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    await client.send(session, "sms")
    assert {channel.type: channel.timeout for channel in await client.channels(session)} == {
        Channel.TELEGRAM: 0,
        Channel.WHATSAPP: 0,
        Channel.SMS: 60,
        Channel.EMAIL: 0,
    }
    assert [channel.timeout for channel in await client.channels()] == [0, 0, 0, 0]
    assert emulator.requests == {"send": 1, "channels": 2}


async def test_the_request_is_what_the_documentation_says(session: str) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def read_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.strip().split("\r\n")
        headers = dict(item.split(": ", 1) for item in lines)
        seen.append(({"line": line, **headers}, await reader.readexactly(int(headers["Content-Length"]))))
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(read_one, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v2/"
        async with KodmobiClient("my-key", base_url=base_url, language="ru") as client:
            with pytest.raises(AuthenticationError):
                await client.send(session.lower(), "SMS")
    ((headers, body),) = seen
    assert headers["line"] == "POST /v2/send HTTP/1.1"
    assert headers["x-api-key"] == "my-key"
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept-Language"] == "ru"
    assert headers["User-Agent"].startswith("kodmobi_async/")
    assert orjson.loads(body) == {"session_id": session, "type": "sms"}


async def test_the_key_may_come_from_the_environment(
    emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    async with KodmobiClient(base_url=emulator.base_url) as client:
        await client.send(session, "sms")


async def test_messages_come_in_the_language_that_was_asked_for(emulator: Emulator) -> None:
    messages: dict[str | None, str | None] = {}
    for language in (None, "en", "ru"):
        async with make_client(emulator, language=language) as client:
            with pytest.raises(KodmobiError) as caught:
                await client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms")
            messages[language] = getattr(caught.value, "message", None)
    assert messages[None] == messages["en"] != messages["ru"]


# -- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_send_waits_for_its_turn_within_max_wait(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    loop = asyncio.get_running_loop()
    await client.send(session, "sms")
    began = loop.time()
    await client.send(session, "sms", max_wait=60.5)
    assert loop.time() - began == pytest.approx(60, abs=0.1)
    assert emulator.requests == {"send": 2}


async def test_the_clients_own_max_wait_counts_where_the_call_has_none(emulator: Emulator, session: str) -> None:
    async with make_client(emulator, max_wait=math.inf) as client:
        await client.send(session, "sms")
        with pytest.raises(CooldownError):
            await client.send(session, "sms", max_wait=0)
        await client.send(session, "sms")
    assert emulator.requests == {"send": 2}


async def test_waiting_callers_send_one_a_window_in_order() -> None:
    async with Emulator(session_lifetime=3600) as emulator, make_client(emulator, max_wait=math.inf) as client:
        session = emulator.add_session()
        order: list[int] = []

        async def resend(number: int) -> None:
            await client.send(session, "sms")
            order.append(number)

        await asyncio.gather(*(resend(number) for number in range(10)))
        assert order == list(range(10))
        moments = [item.at for item in emulator.delivered(session)]
        assert all(later - sooner >= 60 - 1e-6 for sooner, later in itertools.pairwise(moments))


async def test_a_window_that_only_the_service_knows_of_is_waited_for_too(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    loop = asyncio.get_running_loop()
    async with make_client(emulator) as another_process:
        await another_process.send(session, "sms")
    began = loop.time()
    result = await client.send(session, "sms", max_wait=61)
    assert loop.time() - began == pytest.approx(60, abs=0.1)
    assert result.attempts == 2
    assert len(emulator.delivered(session)) == 2
    assert emulator.requests == {"send": 3}


async def test_a_window_that_only_the_service_knows_of_is_not_waited_for_past_max_wait(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=40), times=2)
    began = loop.time()
    with pytest.raises(CooldownError) as caught:
        await client.send(session, "sms", max_wait=79)
    assert caught.value.outcome is Outcome.REFUSED
    assert loop.time() - began == pytest.approx(40, abs=0.1)
    assert await client.remaining(session, "sms") == pytest.approx(40, abs=0.1)
    assert emulator.requests == {"send": 2}


async def test_too_soon_again_in_0_seconds_is_not_answered_by_a_storm(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=0), times=10_000)
    with pytest.raises(CooldownError) as caught:
        await client.send(session, "sms", max_wait=10)
    assert caught.value.retry_after == 1.0
    assert emulator.requests["send"] <= 11


async def test_a_confirmed_refusal_of_a_repeat_is_not_waited_for(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.close("after_reading", process=True))
    emulator.script(Fault.answer(500), endpoint="channels")
    with pytest.raises(CooldownError) as caught:
        await client.send(session, "sms", max_wait=math.inf)
    assert caught.value.outcome is Outcome.ACCEPTED
    assert len(emulator.delivered(session)) == 1


async def test_closing_ends_the_wait_for_a_window_that_the_service_knows_of(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=40))
    loop = asyncio.get_running_loop()
    client = make_client(emulator, max_wait=math.inf)
    sending = asyncio.ensure_future(client.send(session, "sms"))
    await asyncio.sleep(20)
    began = loop.time()
    await client.aclose()
    with pytest.raises(ClientClosedError) as caught:
        await sending
    assert loop.time() == began
    assert caught.value.outcome is Outcome.REFUSED
    assert emulator.requests == {"send": 1}


async def test_the_ends_of_sessions_that_were_sent_to_last_are_known(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "REMEMBERED_SESSIONS", 3)
    first, *others = (emulator.add_session() for _ in range(4))
    async with make_client(emulator, max_wait=math.inf) as client:
        for session in (first, *others[:2]):
            await client.send(session, "sms")
        await client.send(first, "telegram")
        await client.send(others[2], "sms")
        assert list(client._ends._ends) == [others[1], first, others[2]]


async def test_a_wait_that_ends_after_the_session_is_not_begun(emulator: Emulator, session: str) -> None:
    loop = asyncio.get_running_loop()
    async with make_client(emulator, max_wait=math.inf) as client:
        await client.send(session, "sms")
        await asyncio.sleep(150)
        await client.send(session, "sms")  # 30 s before the session ends
        began = loop.time()
        with pytest.raises(
            SessionExpiredError, match=r"ends in 3[01]\.. s, before its channel is free in 60\.0 s"
        ) as caught:
            await client.send(session, "sms")
        assert (caught.value.outcome, caught.value.status) == (Outcome.NOT_SENT, None)
        with pytest.raises(CooldownError):  # it would not have been waited for anyway
            await client.send(session, "sms", max_wait=10)
        assert loop.time() == began


async def test_a_session_that_has_ended_is_not_waited_for(emulator: Emulator, session: str) -> None:
    async with make_client(emulator, max_wait=math.inf) as client:
        await client.send(session, "sms")
        await asyncio.sleep(175)
        await client.send(session, "sms")
        await asyncio.sleep(10)
        with pytest.raises(SessionExpiredError):
            await client.send(session, "sms")


@pytest.mark.parametrize("wait", [-1, math.nan, "soon", None.__class__, True])
async def test_a_wait_that_is_no_number_of_seconds_is_refused(
    emulator: Emulator, client: KodmobiClient, session: str, wait: Any
) -> None:
    with pytest.raises(ConfigurationError):
        await client.send(session, "sms", max_wait=wait)
    assert not emulator.requests


# -- time and retries -------------------------------------------------------------------------------------------------


async def test_total_bounds_the_sending_and_is_never_slept_past(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.answer(503), times=100)
    loop = asyncio.get_running_loop()
    policy = RetryPolicy(attempts=50, initial_backoff=1.0)
    async with make_client(emulator, retry=policy, timeout=Timeout(total=5.0)) as client:
        began = loop.time()
        with pytest.raises(ServerError, match="no time is left"):
            await client.send(session, "sms")
        assert loop.time() - began <= 5.0


@pytest.mark.parametrize("bounds", [Timeout(total=3.0), 3.0, 3])
async def test_a_call_may_bring_its_own_timeout(
    emulator: Emulator, client: KodmobiClient, session: str, bounds: Timeout | float
) -> None:
    emulator.script(Fault.silence(process=False), times=10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(OutcomeUnknownError):
        await client.send(session, "sms", timeout=bounds)
    assert loop.time() - began == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("bounds", [0, -1, math.inf, math.nan, "3", True])
async def test_a_timeout_that_is_no_number_of_seconds_is_refused(
    emulator: Emulator, client: KodmobiClient, session: str, bounds: Any
) -> None:
    with pytest.raises(ConfigurationError):
        await client.send(session, "sms", timeout=bounds)
    assert not emulator.requests


async def test_a_retry_after_is_kept_to(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    emulator.script(Fault.answer(503, {"Retry-After": "7"}))
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await client.send(session, "sms")
    assert result.attempts == 2
    assert 7.0 <= loop.time() - began <= 7.2


async def test_a_retry_after_that_does_not_fit_is_told_at_once(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.answer(503, {"Retry-After": "31"}))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ServerError) as caught:
        await client.send(session, "sms")
    assert caught.value.retry_after == 31
    assert loop.time() == began


async def test_one_attempt_means_one(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.answer(503), times=10)
    async with make_client(emulator, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ServerError):
            await client.send(session, "sms")
    assert emulator.requests == {"send": 1}


async def test_a_limit_of_the_account_holds_the_whole_client_back(emulator: Emulator, client: KodmobiClient) -> None:
    sessions = [emulator.add_session(to=f"+1000000{number:04}") for number in range(20)]
    emulator.script(Fault.answer(429, {"Retry-After": "5"}))
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = await client.send(sessions[0], "sms", timeout=Timeout(total=20))
    assert first.attempts == 2
    assert loop.time() - began == pytest.approx(5.0, abs=0.1)

    emulator.script(Fault.answer(429, {"Retry-After": "5"}))
    pushed = asyncio.create_task(client.send(sessions[1], "sms"))
    await asyncio.sleep(0.1)
    began = loop.time()
    finished = asyncio.gather(*(client.send(session, "sms") for session in sessions[2:]))
    await asyncio.sleep(0)
    with pytest.raises(RateLimitedError) as caught:
        await client.send(sessions[0], "email", timeout=2.0)
    assert loop.time() == began
    assert caught.value.retry_after == pytest.approx(4.9 + 0.01 * 19, abs=0.1)
    assert caught.value.status is None
    assert caught.value.outcome is Outcome.NOT_SENT
    await finished
    assert (await pushed).attempts == 2
    moments = [item.at for item in emulator.ledger[1:]]
    assert moments[0] - began >= 4.9 - 1e-6
    assert moments[-1] - moments[0] >= 0.01 * 18 - 1e-6  # staggered, not all at once


async def test_a_gate_that_closes_again_sends_those_in_line_back(emulator: Emulator, client: KodmobiClient) -> None:
    sessions = [emulator.add_session(to=f"+1000000{number:04}") for number in range(3)]
    emulator.script(Fault.answer(429, {"Retry-After": "1"}), times=2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = asyncio.create_task(client.send(sessions[0], "sms"))
    await asyncio.sleep(0.1)
    await asyncio.gather(first, *(client.send(session, "sms") for session in sessions[1:]))
    assert [item.session_id for item in emulator.ledger] == [sessions[0], *sessions[1:]]
    assert all(item.at - began >= 2.0 for item in emulator.ledger)


async def test_a_rate_spaces_sends_evenly(emulator: Emulator) -> None:
    sessions = [emulator.add_session(to=f"+1000000{number:04}") for number in range(11)]
    async with make_client(emulator, limits=Limits(rate=2.0)) as client:
        await asyncio.gather(*(client.send(session, "sms") for session in sessions))
    moments = [item.at for item in emulator.ledger]
    assert moments[-1] - moments[0] == pytest.approx(5.0, abs=0.1)


async def test_an_account_limit_under_a_lasting_unknown_stays_unknown(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.close(process=False))
    emulator.script(Fault.answer(429, {"Retry-After": "100"}))
    async with make_client(emulator) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.send(session, "sms")
    assert isinstance(caught.value.__cause__, RateLimitedError)


async def test_asking_for_the_channels_is_retried_and_its_errors_say_that_no_code_was_sent(
    emulator: Emulator, client: KodmobiClient, session: str
) -> None:
    emulator.script(Fault.answer(500), endpoint="channels")
    emulator.script(Fault.close(), endpoint="channels")
    emulator.script(Fault.answer(429), endpoint="channels")
    assert len(await client.channels(session)) == 4
    assert emulator.requests == {"channels": 4}
    table: list[tuple[Fault, type[KodmobiError]]] = [
        (Fault.refuse("ERROR_SESSION_EXPIRED"), SessionExpiredError),
        (Fault.answer(200, body={}), UnreadableResponseError),
        (Fault.answer(429, {"Retry-After": "1000"}), RateLimitedError),
    ]
    for fault, kind in table:
        emulator.script(fault, endpoint="channels")
        with pytest.raises(kind) as caught:
            await client.channels(session)
        assert caught.value.outcome is Outcome.NOT_SENT
    with pytest.raises(RateLimitedError):
        await client.channels(session)


async def test_a_redirect_of_the_channels_is_not_followed(emulator: Emulator, client: KodmobiClient) -> None:
    emulator.script(Fault.answer(307, {"Location": emulator.base_url + "/channels"}), endpoint="channels")
    with pytest.raises(KodmobiError):
        await client.channels()
    assert emulator.requests == {"channels": 1}


async def test_who_cannot_be_asked_within_the_rate_is_not_asked(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.close(process=True))
    async with make_client(emulator, limits=Limits(rate=0.01)) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.send(session, "sms")
    assert emulator.requests == {"send": 1}


# -- wrong input ------------------------------------------------------------------------------------------------------

WRONG_REQUESTS: list[tuple[Any, Any]] = [
    ("", "sms"),
    ("01K8N1VMPN0EE389K72YW0CBM", "sms"),
    ("81K8N1VMPN0EE389K72YW0CBM2", "sms"),
    ("01K8N1VMPN0EE389K72YW0CBMU", "sms"),
    (b"01K8N1VMPN0EE389K72YW0CBM2", "sms"),
    (None, "sms"),
    ("x" * 1_000_000, "sms"),
    ("01K8N1VMPN0EE389K72YW0CBM2", ""),
    ("01K8N1VMPN0EE389K72YW0CBM2", "sms\r\nx-evil: 1"),
    ("01K8N1VMPN0EE389K72YW0CBM2", "a" * 10_000),
    ("01K8N1VMPN0EE389K72YW0CBM2", "\x00"),
    ("01K8N1VMPN0EE389K72YW0CBM2", None),
]


@pytest.mark.parametrize(("session", "channel"), WRONG_REQUESTS)
async def test_what_is_no_session_or_channel_is_refused_before_any_io(
    emulator: Emulator, client: KodmobiClient, session: Any, channel: Any
) -> None:
    for call in (client.send, client.remaining):
        with pytest.raises(InvalidRequestError) as caught:
            await call(session, channel)
        assert isinstance(caught.value, ValueError)
        assert len(str(caught.value)) < 200
    assert emulator.connections == 0


async def test_a_wrong_key_is_said_to_be_wrong(emulator: Emulator, session: str) -> None:
    async with KodmobiClient("not-the-key", base_url=emulator.base_url) as client:
        with pytest.raises(AuthenticationError, match="check the API key"):
            await client.send(session, "sms")
        assert await client.remaining(session, "sms") == 0


async def test_a_hint_tells_what_to_do(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    emulator.script(Fault.refuse("ERROR_USER_NOT_AUTHORIZE_ON_CHANNEL"))
    with pytest.raises(ChannelUnavailableError, match="show them the channel's link"):
        await client.send(session, "telegram")


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://api.example"},
        {"base_url": "https://user:" + CANARY + "@api.example"},
        {"base_url": "http://api.example"},
        {"base_url": ""},
        {"api_key": ""},
        {"api_key": CANARY + "\n"},
        {"max_wait": -1},
        {"language": "en\r\nx: y"},
        {"timeout": 3},
        {"limits": 3},
        {"retry": 3},
    ],
)
def test_a_client_that_could_not_work_cannot_be_built(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KodmobiClient(**{"api_key": CANARY, **settings})
    assert CANARY not in str(caught.value)


def test_clear_text_to_another_machine_has_to_be_asked_for() -> None:
    KodmobiClient("key", base_url="http://api.example", allow_http=True)


# -- loops, processes, closing ----------------------------------------------------------------------------------------


def test_a_client_is_built_without_a_loop_and_serves_one_after_another() -> None:
    with emulator_in_background() as background:
        session = background.add_session()
        client = make_client(background.emulator)
        # Nothing is closed in between: each loop closes what it opened when it ends.
        asyncio.run(client.send(session, "telegram"))
        asyncio.run(client.send(session, "sms"))
        with pytest.raises(CooldownError):
            asyncio.run(client.send(session, "sms"))
        asyncio.run(client.aclose())
        with pytest.raises(ClientClosedError):
            asyncio.run(client.send(session, "email"))
        assert background.emulator.requests == {"send": 2}
    gc.collect()


def test_a_loop_that_is_closed_by_hand_is_no_obstacle_for_the_next() -> None:
    client = KodmobiClient("key", base_url="http://127.0.0.1:9", retry=RetryPolicy(attempts=1))

    async def fail() -> None:
        with pytest.raises(TransportError):
            await client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms")

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(fail())
        loop.close()
    asyncio.run(client.aclose())
    gc.collect()


def test_a_second_loop_is_refused_before_any_byte() -> None:
    async def main() -> None:
        async with Emulator() as emulator, make_client(emulator) as client:
            session = emulator.add_session()
            await client.send(session, "sms")
            errors: list[BaseException] = []

            def elsewhere() -> None:
                for call in (client.send(session, "email"), client.channels(), client.aclose()):
                    try:
                        asyncio.run(call)
                    except WrongLoopError as error:
                        errors.append(error)

            await asyncio.to_thread(elsewhere)
            assert len(errors) == 3
            assert emulator.requests == {"send": 1}

    asyncio.run(main())


def test_a_borrowed_session_of_another_loop_is_refused_before_any_byte() -> None:
    async def borrow() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    with asyncio.Runner() as runner:
        borrowed = runner.run(borrow())

        async def use() -> None:
            client = KodmobiClient("key", base_url="http://127.0.0.1:9", session=borrowed)
            with pytest.raises(WrongLoopError):
                await client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms")

        thread = threading.Thread(target=lambda: asyncio.run(use()))
        thread.start()
        thread.join()
        runner.run(borrowed.close())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_gets_a_pool_of_its_own() -> None:
    with emulator_in_background() as background, asyncio.Runner() as parent:
        session = background.add_session()
        client = make_client(background.emulator)
        parent.run(client.send(session, "telegram"))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.run(client.send(session, "sms"))
                try:
                    asyncio.run(client.send(session, "telegram"))
                except CooldownError:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        parent.run(client.send(session, "email"))  # over the connection that the parent had before
        parent.run(client.aclose())
        assert background.emulator.requests == {"send": 3}
        assert background.emulator.connections == 2


async def test_a_closed_client_says_so(client: KodmobiClient, session: str) -> None:
    await client.aclose()
    await client.aclose()
    for call in (client.send(session, "sms"), client.channels()):
        with pytest.raises(ClientClosedError) as caught:
            await call
        assert caught.value.outcome is Outcome.NOT_SENT
    assert "closed" in repr(client)


async def test_closing_waits_for_what_is_under_way(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.delay(2.0))
    client = make_client(emulator)
    sending = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(0.1)
    await client.aclose()
    assert sending.done()
    assert (await sending).attempts == 1


async def test_closing_ends_waits_for_a_cooldown_at_once(emulator: Emulator, session: str) -> None:
    loop = asyncio.get_running_loop()
    client = make_client(emulator, max_wait=math.inf)
    await client.send(session, "sms")
    waiting = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(0.1)
    began = loop.time()
    await client.aclose()
    assert loop.time() == began
    with pytest.raises(ClientClosedError) as caught:
        await waiting
    assert caught.value.outcome is Outcome.NOT_SENT


async def test_closing_with_a_thousand_sends_in_flight_says_what_became_of_each(emulator: Emulator) -> None:
    """Some have arrived and get no answer, some never get a connection."""
    loop = asyncio.get_running_loop()
    emulator.script(Fault.silence(), times=100)
    sessions = [emulator.add_session(ULID.from_int(number + 1)) for number in range(1000)]
    tracker = MemoryCooldownTracker()
    client = make_client(emulator, cooldowns=tracker, timeout=Timeout(connect=20, attempt=20))
    sending = [asyncio.create_task(client.send(session, "sms")) for session in sessions]
    await asyncio.sleep(1.0)
    began = loop.time()
    await client.aclose(grace=3.0)
    assert loop.time() - began == pytest.approx(3.0, abs=0.1)
    errors = await asyncio.gather(*sending, return_exceptions=True)
    for session, error in zip(sessions, errors, strict=True):
        assert isinstance(error, ClientClosedError)
        delivered = bool(emulator.delivered(session))
        assert error.outcome is (Outcome.UNKNOWN if delivered else Outcome.NOT_SENT)
        assert (await tracker.remaining(session, "sms") > 0) is delivered
    assert len(emulator.ledger) == 100


async def test_a_close_that_is_cancelled_still_ends_everything(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.silence())
    client = make_client(emulator)
    sending = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(client.aclose(grace=100))
    await asyncio.sleep(0.1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(ClientClosedError):
        await sending


async def test_closing_ends_a_question_for_the_channels_too(emulator: Emulator, session: str) -> None:
    emulator.script(Fault.silence(), endpoint="channels")
    client = make_client(emulator)
    asking = asyncio.create_task(client.channels(session))
    await asyncio.sleep(0.1)
    await client.aclose(grace=0.5)
    with pytest.raises(ClientClosedError) as caught:
        await asking
    assert caught.value.outcome is Outcome.NOT_SENT


async def test_of_two_closes_at_once_the_more_patient_one_does_not_wait_for_nothing(
    emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.silence())
    loop = asyncio.get_running_loop()
    client = make_client(emulator)
    sending = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(0.1)
    began = loop.time()
    await asyncio.gather(client.aclose(grace=100), client.aclose(grace=1), client.aclose(grace=1))
    assert loop.time() - began == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ClientClosedError):
        await sending


async def test_a_borrowed_session_is_left_open(emulator: Emulator, session: str) -> None:
    async with aiohttp.ClientSession() as borrowed:
        async with make_client(emulator, session=borrowed) as client:
            await client.send(session, "sms")
        assert not borrowed.closed


class _BrokenTracker(MemoryCooldownTracker):
    """A user's own tracker whose store is out of reach."""

    async def acquire(self, *_: Any, **__: Any) -> Any:
        raise TimeoutError("the store did not answer")


async def test_an_error_of_a_users_own_tracker_comes_out_as_it_is(emulator: Emulator, session: str) -> None:
    async with make_client(emulator, cooldowns=_BrokenTracker()) as client:
        with pytest.raises(TimeoutError, match="the store did not answer"):
            await client.send(session, "sms")
    assert not emulator.requests


@pytest.mark.real_clock
async def test_it_works_in_real_time(emulator: Emulator, client: KodmobiClient, session: str) -> None:
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.send(session, channel) for channel in Channel))
    assert len(emulator.ledger) == 4


# -- secrets ----------------------------------------------------------------------------------------------------------

ERRORS: list[tuple[str, Callable[[Emulator], object], type[KodmobiError]]] = [
    ("refused", lambda emulator: emulator.script(Fault.answer(400, body={"error": f"key {CANARY}"})), KodmobiError),
    ("server", lambda emulator: emulator.script(Fault.answer(503), times=9), ServerError),
    ("unknown", lambda emulator: emulator.script(Fault.close(), times=9), OutcomeUnknownError),
    ("malformed", lambda emulator: emulator.script(Fault.malformed(process=False), times=9), OutcomeUnknownError),
    ("redirect", lambda emulator: emulator.script(Fault.answer(302, {"Location": "/"})), OutcomeUnknownError),
    ("unreadable", lambda emulator: emulator.script(Fault.answer(200, body=CANARY)), UnreadableResponseError),
    ("cooldown", lambda emulator: emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT")), CooldownError),
    ("transport", lambda _: None, TransportError),
]


@pytest.mark.parametrize(("name", "prepare", "kind"), ERRORS, ids=[item[0] for item in ERRORS])
async def test_no_error_holds_the_key(
    name: str, prepare: Callable[[Emulator], object], kind: type[KodmobiError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with Emulator(api_key=CANARY) as emulator:
        session = emulator.add_session()
        prepare(emulator)
        base_url = "http://127.0.0.1:9" if name == "transport" else emulator.base_url
        async with KodmobiClient(CANARY, base_url=base_url) as client:
            with pytest.raises(kind) as caught:
                await client.send(session, "sms")
            assert CANARY not in repr(client)
    seen: set[int] = set()
    pending: list[BaseException | None] = [caught.value]
    while pending:
        error = pending.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        assert isinstance(error, KodmobiError)
        for text in (str(error), repr(error), repr(vars(error)), repr(error.args), repr(pickle.dumps(error))):
            assert CANARY not in text
        pending += [error.__cause__, error.__context__]
    assert CANARY not in caplog.text


def test_a_clock_of_its_own_is_no_obstacle() -> None:
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(start=0.0)) as runner:

        async def main() -> None:
            async with Emulator() as emulator, make_client(emulator) as client:
                await client.send(emulator.add_session(), "sms")

        runner.run(main())
