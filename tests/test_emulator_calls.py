"""The emulator's calls, as raw clients see them."""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest
from raw_http import SESSION, UNKNOWN, call, clean_emulator, envelope, get, jump, send
from ulid import ULID

from kodmobi_async.emulator import Delivery, Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with clean_emulator() as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


# --- send -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["session", "v2"])
async def test_a_send_has_the_documented_response(emulator: Emulator, http: aiohttp.ClientSession, prefix: str) -> None:
    emulator.add_session(SESSION)
    url = f"http://127.0.0.1:{emulator.port}/{prefix}/send"
    response = await call(http, url, {"session_id": SESSION, "type": "telegram"})
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    payload = response.json
    assert payload.pop("session_expired_at")
    assert payload == {
        "session_id": SESSION,
        "channel": {
            "name": "Telegram",
            "type": "telegram",
            "is_active": False,
            "timeout": 60,
            "image_url": "https://storage.kod.mobi/icons/telegram.svg",
            "link": "https://t.me/my-tg-bot",
        },
    }


async def test_the_ledger_records_what_arrived_where_and_when(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    one, other = emulator.add_session(), emulator.add_session()
    began = asyncio.get_running_loop().time()
    await send(http, emulator, one, "sms")
    jump(5)
    await send(http, emulator, one, "email")
    await send(http, emulator, other, "sms")
    first, second, third = emulator.ledger
    assert first == Delivery(one, "+10000000000", "sms", first.code, began)
    assert second == Delivery(one, "+10000000000", "email", first.code, began + 5)
    assert emulator.delivered(one.lower()) == emulator.delivered(ULID.from_str(one)) == [first, second]
    assert emulator.delivered(channel="sms") == [first, third]
    assert emulator.delivered(other, "sms") == emulator.delivered(to="+10000000001") == [third]
    assert emulator.delivered() == [first, second, third]
    assert len(first.code) == 6
    assert first.code.isdecimal()


async def test_a_channel_is_blocked_until_its_window_has_passed(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    early, sharp = emulator.add_session(), emulator.add_session()
    for session_id in (early, sharp):
        assert (await send(http, emulator, session_id)).status == 200
    jump(59.999)
    refused = await send(http, emulator, early)
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json == envelope("ERROR_MESSAGE_ATTEMPT", 429, "Too many attempts, take your time.", {"timeout": 1})
    jump(0.001)
    assert (await send(http, emulator, sharp)).status == 200
    assert len(emulator.delivered(early)) == 1
    assert len(emulator.delivered(sharp)) == 2


async def test_a_refused_send_does_not_lengthen_the_window(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    await send(http, emulator, session_id)
    assert (await send(http, emulator, session_id)).headers["Retry-After"] == "60"
    jump(30.5)
    assert (await send(http, emulator, session_id)).headers["Retry-After"] == "30"
    jump(29.5)
    assert (await send(http, emulator, session_id)).status == 200


async def test_each_channel_of_each_session_has_its_own_window(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    sessions = [emulator.add_session() for _ in range(3)]
    responses = [
        await send(http, emulator, session_id, channel) for session_id in sessions for channel in ("sms", "email")
    ]
    assert {response.status for response in responses} == {200}


async def test_one_of_many_concurrent_sends_is_delivered(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    responses = await asyncio.gather(*(send(http, emulator, session_id) for _ in range(20)))
    assert sorted(response.status for response in responses) == [200] + [429] * 19
    assert len(emulator.ledger) == 1


@pytest.mark.parametrize(
    ("window", "shown"),
    [(60, b'"timeout":60,'), (60.0, b'"timeout":60,'), (2.5, b'"timeout":2.5,'), (0, b'"timeout":0,')],
)
async def test_the_timeout_is_the_window(window: float, shown: bytes) -> None:
    async with Emulator(window=window) as emulator, aiohttp.ClientSession() as http:
        response = await send(http, emulator, emulator.add_session(), x_api_key=emulator.api_key)
    assert shown in response.raw


@pytest.mark.parametrize(
    "spelling", [SESSION.lower(), SESSION.replace("1", "I"), SESSION.replace("1", "l").replace("0", "o")]
)
async def test_every_spelling_of_an_id_names_the_same_session(
    emulator: Emulator, http: aiohttp.ClientSession, spelling: str
) -> None:
    assert emulator.add_session(spelling) == SESSION
    assert (await send(http, emulator, spelling)).json["session_id"] == SESSION


async def test_a_session_lives_three_minutes(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    jump(179.999)
    assert (await send(http, emulator, session_id)).status == 200
    jump(0.002)
    gone = await send(http, emulator, session_id, "sms")
    assert gone.json == envelope("ERROR_SESSION_EXPIRED", 404, "Session expired.")


async def test_a_session_can_be_ended_by_hand(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    emulator.expire_session(session_id.lower())
    assert (await send(http, emulator, session_id)).json["sys_message"] == "ERROR_SESSION_EXPIRED"
    with pytest.raises(KeyError):
        emulator.expire_session(UNKNOWN)


@pytest.mark.parametrize(
    "name", ["", "hello", SESSION[:-1], SESSION + "0", "8" + SESSION[1:], SESSION[:-1] + "U", SESSION[:-1] + "\u0131"]
)
async def test_an_id_must_be_a_ulid(emulator: Emulator, http: aiohttp.ClientSession, name: str) -> None:
    with pytest.raises(ValueError, match="ULID"):
        emulator.add_session(name)
    refused = await send(http, emulator, name)
    assert refused.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": "session_id"})


async def test_a_session_belongs_to_a_phone_or_an_email(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        emulator.add_session(to="10000000000")


async def test_the_end_of_a_session_and_the_date_header_use_the_same_clock(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    jump(100)
    response = await send(http, emulator, session_id)
    expired_at = response.json["session_expired_at"]
    assert len(expired_at) == len("2025-10-28T10:31:00.000Z")
    assert expired_at.endswith("Z")
    left = datetime.fromisoformat(expired_at) - parsedate_to_datetime(response.headers["Date"])
    assert timedelta(seconds=80) <= left <= timedelta(seconds=81)


async def test_the_wall_clock_follows_the_loop_s_clock(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    url = f"{emulator.base_url}/channels"
    before = parsedate_to_datetime((await get(http, url)).headers["Date"])
    jump(86_400)
    after = parsedate_to_datetime((await get(http, url)).headers["Date"])
    assert after - before == timedelta(days=1)


# --- the other calls --------------------------------------------------------------------------------------------------


async def test_channels_shows_what_is_left_of_each_window(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    url = f"{emulator.base_url}/channels"
    await send(http, emulator, session_id, "sms")
    jump(10.25)
    of_session = (await get(http, f"{url}?session_id={session_id.lower()}")).json
    assert {channel["type"]: channel["timeout"] for channel in of_session} == {
        "telegram": 0,
        "whatsapp": 0,
        "sms": 50,
        "email": 0,
    }
    assert [channel["name"] for channel in of_session] == ["Telegram", "WhatsApp", "SMS", "Email"]
    assert {channel["timeout"] for channel in (await get(http, url)).json} == {0}
    jump(49.75)
    assert {channel["timeout"] for channel in (await get(http, f"{url}?session_id={session_id}")).json} == {0}


@pytest.mark.parametrize("endpoint", ["channels", "settings"])
async def test_a_session_in_the_query_must_be_a_live_one(
    emulator: Emulator, http: aiohttp.ClientSession, endpoint: str
) -> None:
    url = f"{emulator.base_url}/{endpoint}?session_id="
    session_id = emulator.add_session()
    assert (await get(http, url + session_id)).status == 200
    emulator.expire_session(session_id)
    assert (await get(http, url + session_id)).json["sys_message"] == "ERROR_SESSION_EXPIRED"
    assert (await get(http, url + UNKNOWN)).json == envelope("ERROR_MESSAGE_NOT_FOUND", 404, "Message not found.")
    assert (await get(http, url)).json["sys_message"] == "ERROR_BAD_REQUEST"


async def test_create_delivers_and_gives_the_same_session_again(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    url = f"{emulator.base_url}/create"
    first = (await call(http, url, {"to": "+79990000000"})).json
    assert first["sent_to"] == "telegram"
    assert [channel["timeout"] for channel in first["channels"]] == [60, 0, 0, 0]
    again = (await call(http, url, {"to": "+79990000000"})).json
    assert again == first
    over_sms = (await call(http, url, {"to": "+79990000000", "type": "sms"})).json
    assert over_sms["session_id"] == first["session_id"]
    assert over_sms["sent_to"] == "sms"
    assert [delivery.channel for delivery in emulator.delivered(first["session_id"])] == ["telegram", "sms"]
    jump(180)
    assert (await call(http, url, {"to": "+79990000000"})).json["session_id"] != first["session_id"]


async def test_create_can_skip_the_send(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    payload = (await call(http, f"{emulator.base_url}/create", {"to": "me@example.com", "send": False})).json
    assert payload["sent_to"] is None
    assert emulator.ledger == ()
    assert (await send(http, emulator, payload["session_id"])).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "to"),
        ({"to": 5}, "to"),
        ({"to": "0123"}, "to"),
        ({"to": "me@home"}, "to"),
        ({"to": "+79990000000", "send": 1}, "send"),
        ({"to": "+79990000000", "type": None}, "type"),
    ],
)
async def test_create_refuses_what_is_not_documented(
    emulator: Emulator, http: aiohttp.ClientSession, body: object, field: str
) -> None:
    refused = await call(http, f"{emulator.base_url}/create", body)
    assert refused.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": field})


async def test_a_project_without_channels_creates_nothing() -> None:
    async with Emulator(channels=()) as emulator, aiohttp.ClientSession(headers={"x-api-key": "emulator-key"}) as http:
        refused = await call(http, f"{emulator.base_url}/create", {"to": "+79990000000"})
    assert refused.json["sys_message"] == "ERROR_PROJECT_HAS_NO_CHANNELS"


async def test_requests_are_counted_by_endpoint(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    for endpoint in ("create", "send", "check", "verify"):
        await call(http, f"{emulator.base_url}/{endpoint}", {})
    for endpoint in ("channels", "settings", "channels", "elsewhere"):
        await get(http, f"{emulator.base_url}/{endpoint}")
    assert emulator.requests == {"create": 1, "send": 1, "check": 1, "verify": 1, "channels": 2, "settings": 1}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff", b"[" * 5000, b'{"session_id": "\xed\xa0\x80"}'],
)
async def test_a_body_that_is_not_a_json_object_is_refused(
    emulator: Emulator, http: aiohttp.ClientSession, body: bytes
) -> None:
    for endpoint in ("send", "create", "check"):
        refused = await call(http, f"{emulator.base_url}/{endpoint}", body)
        assert (refused.status, refused.json) == (400, envelope("ERROR_BAD_REQUEST", 400, "Bad request."))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "session_id"),
        ({"session_id": 5, "type": "sms"}, "session_id"),
        ({"session_id": SESSION}, "type"),
        ({"session_id": SESSION, "type": ""}, "type"),
        ({"session_id": SESSION, "type": ["sms"]}, "type"),
    ],
)
async def test_send_names_the_invalid_field(
    emulator: Emulator, http: aiohttp.ClientSession, body: object, field: str
) -> None:
    emulator.add_session(SESSION)
    refused = await call(http, f"{emulator.base_url}/send", body)
    assert refused.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": field})


async def test_an_unknown_channel_is_refused(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    refused = await send(http, emulator, emulator.add_session(), "pigeon")
    assert refused.json == envelope("ERROR_PROJECT_HAS_NO_CHANNEL", 400, "Project has no such channel.")


async def test_an_unknown_session_is_refused_in_the_documentation_s_words(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    refused = await send(http, emulator, UNKNOWN)
    assert refused.status == 404
    assert refused.json == envelope("ERROR_MESSAGE_NOT_FOUND", 404, "Message not found.")


@pytest.mark.parametrize("key", ["", "emulator-ke", "emulator-key2", "ключ"])
async def test_a_wrong_key_is_refused(emulator: Emulator, key: str) -> None:
    async with aiohttp.ClientSession(headers={"x-api-key": key}) as http:
        refused = await send(http, emulator, emulator.add_session())
    assert (refused.status, refused.json) == (401, envelope("ERROR_ACCESS_DENIED", 401, "Access denied."))
    assert emulator.ledger == ()


async def test_a_missing_key_is_refused(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as http:
        assert (await get(http, f"{emulator.base_url}/channels")).status == 401


async def test_either_key_of_the_pair_is_accepted() -> None:
    async with Emulator(api_key="public", secret_key="secret") as emulator, aiohttp.ClientSession() as http:
        for key in ("secret", "public"):
            assert (await send(http, emulator, emulator.add_session(), x_api_key=key)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/session/"),
        ("POST", "/session"),
        ("POST", "/send"),
        ("POST", "/session/send/"),
        ("POST", "/session/resend"),
        ("GET", "/session/send"),
        ("POST", "/session/channels"),
        ("DELETE", "/v2/settings"),
    ],
)
async def test_an_unknown_path_or_method_is_not_found(
    emulator: Emulator, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    refused = await call(http, f"http://127.0.0.1:{emulator.port}{path}", method=method)
    assert (refused.status, refused.json) == (404, envelope("ERROR_NOT_FOUND", 404, "Not found."))


@pytest.mark.parametrize(
    ("accepted", "error"),
    [
        ("ru", "Сообщение не найдено."),
        ("ru-RU,ru;q=0.9,en;q=0.8", "Сообщение не найдено."),
        ("RU", "Сообщение не найдено."),
        ("en", "Message not found."),
        ("en-US, ru; q=0.5", "Message not found."),
        ("ru;q=0", "Message not found."),
        ("ru;q=often", "Message not found."),
        ("de", "Message not found."),
        ("", "Message not found."),
    ],
)
async def test_messages_are_in_the_client_s_language(
    emulator: Emulator, http: aiohttp.ClientSession, accepted: str, error: str
) -> None:
    assert (await send(http, emulator, UNKNOWN, Accept_Language=accepted)).json["error"] == error


async def test_its_own_failure_is_a_500_in_the_envelope_and_a_line_in_the_log(
    emulator: Emulator,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_entropy(_: int) -> int:
        raise OSError("no entropy")

    monkeypatch.setattr(secrets, "randbelow", no_entropy)
    broken = await call(http, f"{emulator.base_url}/create", {"to": "+79990000000"})
    assert broken.json == envelope("ERROR_SERVER", 500, "Problem with our server. Try again later.")
    assert [record.name for record in caplog.records] == ["kodmobi_async.emulator"]
    assert emulator.api_key not in caplog.text
