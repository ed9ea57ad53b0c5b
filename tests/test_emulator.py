"""The emulator, as raw clients see it: aiohttp where any client will do, plain streams where bytes matter."""

from __future__ import annotations

import asyncio
import gzip
import secrets
import socket
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import aiohttp
import attrs
import orjson
import pytest
from ulid import ULID

from kodmobi_async.emulator import Delivery, Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
UNKNOWN = "01K8N1VMPN0EE389K72YW0CBM3"
NO_NAME: Any = "later"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator that must leave no task and no complaint behind."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with Emulator() as emulator:
        yield emulator
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert complaints == []


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


@attrs.frozen
class Reply:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


async def call(
    http: aiohttp.ClientSession, url: str, body: object = None, *, method: str = "POST", **headers: str
) -> Reply:
    data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, data=data, headers=named, allow_redirects=False) as response:
        return Reply(response.status, response.headers, await response.read())


async def send(
    http: aiohttp.ClientSession, emulator: Emulator, session_id: str, channel: str = "telegram", **headers: str
) -> Reply:
    body = {"session_id": session_id, "type": channel}
    return await call(http, f"{emulator.base_url}/send", body, **headers)


async def get(http: aiohttp.ClientSession, url: str) -> Reply:
    return await call(http, url, method="GET")


@asynccontextmanager
async def connect(emulator: Emulator) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def request_bytes(emulator: Emulator, session_id: str, channel: str = "telegram", *, more: str = "") -> bytes:
    """Write what curl sends for the call in the documentation."""
    body = f'{{"session_id": "{session_id}","type": "{channel}"}}'
    return (
        f"POST /session/send HTTP/1.1\r\nHost: api.kod.mobi\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
        f"x-api-key: {emulator.api_key}\r\n{more}Content-Length: {len(body)}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
    ).encode()


async def exchange(emulator: Emulator, raw: bytes) -> bytes:
    """Send ``raw`` and read until the emulator ends the connection."""
    async with connect(emulator) as (reader, writer):
        writer.write(raw)
        return await reader.read()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.jump(seconds)


def envelope(
    sys_message: str, status: int, error: str, params: Mapping[str, object] | None = None
) -> dict[str, object]:
    return {
        "success": False,
        "error": error,
        "error_params": dict(params or {}),
        "status": status,
        "sys_message": sys_message,
    }


# --- where it lives ---------------------------------------------------------------------------------------------------


async def test_it_listens_on_a_free_loopback_port_and_says_where(emulator: Emulator) -> None:
    assert emulator.port > 0
    assert emulator.base_url == f"http://127.0.0.1:{emulator.port}/session"


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert Emulator(host="::1", port=8080).base_url == "http://[::1]:8080/session"


async def test_its_repr_counts_and_never_shows_a_key(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    await send(http, emulator, emulator.add_session())
    emulator.script(Fault.silence(), times=3)
    assert repr(emulator) == (f"<Emulator on 127.0.0.1:{emulator.port}, 1 sessions, 1 delivered, 3 faults pending>")
    idle = Emulator(api_key="sk-secret", public_key="pk-secret")
    assert repr(idle) == "<Emulator not listening, 0 sessions, 0 delivered, 0 faults pending>"


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": None},
        {"public_key": "ключ"},
        {"public_key": 5},
        {"host": ""},
        {"host": None},
        {"port": -1},
        {"port": 65536},
        {"port": "80"},
        {"port": True},
        {"window": -0.5},
        {"window": float("inf")},
        {"window": "60"},
        {"window": True},
        {"session_lifetime": 0},
        {"session_lifetime": float("nan")},
        {"channels": "sms"},
        {"channels": ("sms", "sms")},
        {"channels": ("",)},
        {"channels": ("SMS",)},
        {"channels": (5,)},
        {"channels": None},
    ],
)
def test_a_wrong_setting_fails_where_it_was_written(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Emulator(**settings)


def test_a_refused_key_stays_out_of_the_error() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Emulator(api_key="sk secret")
    assert "secret" not in str(caught.value)


async def test_it_starts_once_at_a_time(emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match="already"):
        await emulator.start()


async def test_it_closes_as_often_as_you_like_and_comes_back_with_its_memory(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    await send(http, emulator, session_id)
    base_url = emulator.base_url
    await emulator.aclose()
    await emulator.aclose()
    with pytest.raises(aiohttp.ClientConnectionError):
        await send(http, emulator, session_id)
    await emulator.start()
    assert emulator.base_url == base_url
    assert (await send(http, emulator, session_id)).status == 429


async def test_a_taken_port_is_an_error_that_leaves_nothing_behind(emulator: Emulator) -> None:
    other = Emulator(port=emulator.port)
    with pytest.raises(OSError, match="in use"):
        await other.start()
    await other.aclose()


def test_it_has_no_ledger_before_it_starts() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Emulator().ledger


async def test_closing_cuts_off_those_who_still_wait(emulator: Emulator) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.silence())
    emulator.script(Fault.delay(3600))
    async with (
        connect(emulator) as (silent, writer),
        connect(emulator) as (late, other),
        connect(emulator) as (idle, _),
    ):
        writer.write(request_bytes(emulator, session_id))
        other.write(request_bytes(emulator, session_id, "sms"))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await emulator.aclose()
        assert asyncio.get_running_loop().time() == began
        assert [await stream.read() for stream in (silent, late, idle)] == [b"", b"", b""]


@pytest.mark.parametrize("turns", range(6))
async def test_closing_leaves_no_connection_behind_that_is_just_being_accepted(emulator: Emulator, turns: int) -> None:
    with socket.create_connection((emulator.host, emulator.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await emulator.aclose()
        for _ in range(3):
            await asyncio.sleep(0)
        client.settimeout(5)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


# --- how it reads HTTP ------------------------------------------------------------------------------------------------


async def test_it_understands_the_documentation_s_own_curl_call(emulator: Emulator) -> None:
    emulator.add_session(SESSION)
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, SESSION))
        head, body = await read_answer(reader)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert orjson.loads(body)["session_id"] == SESSION
    assert [delivery.channel for delivery in emulator.ledger] == ["telegram"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/octet-stream"],
)
async def test_it_reads_json_whatever_the_content_type_says(
    emulator: Emulator, http: aiohttp.ClientSession, content_type: str
) -> None:
    reply = await send(http, emulator, emulator.add_session(), Content_Type=content_type)
    assert reply.status == 200


async def test_it_reads_json_without_any_content_type(emulator: Emulator) -> None:
    raw = request_bytes(emulator, emulator.add_session(), more="Connection: close\r\n")
    raw = raw.replace(b"Content-Type: application/x-www-form-urlencoded\r\n", b"")
    assert (await exchange(emulator, raw)).startswith(b"HTTP/1.1 200 ")


async def test_one_connection_serves_many_requests(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    for _ in range(3):
        assert (await send(http, emulator, emulator.add_session())).status == 200
    assert (await send(http, emulator, UNKNOWN)).status == 404
    assert emulator.connections == 1
    assert emulator.requests == {"send": 4}


async def test_requests_in_one_go_are_answered_in_order(emulator: Emulator) -> None:
    emulator.add_session(SESSION)
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, SESSION) + b"\r\n" + request_bytes(emulator, SESSION))
        first, _ = await read_answer(reader)
        second, _ = await read_answer(reader)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize(
    ("old", "new"), [(b"Accept: */*", b"Connection: close"), (b"HTTP/1.1", b"HTTP/1.0")], ids=["asked", "HTTP/1.0"]
)
async def test_it_closes_when_the_client_wants_no_more(emulator: Emulator, old: bytes, new: bytes) -> None:
    answer = await exchange(emulator, request_bytes(emulator, emulator.add_session()).replace(old, new))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer


async def test_a_proxy_may_name_the_whole_address(emulator: Emulator) -> None:
    raw = request_bytes(emulator, emulator.add_session(), more="Connection: close\r\n")
    raw = raw.replace(b"POST /session", b"POST http://api.kod.mobi/session")
    assert (await exchange(emulator, raw)).startswith(b"HTTP/1.1 200 ")


async def test_it_reads_a_body_in_chunks(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.add_session(SESSION)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"session_id": "'
        yield SESSION.encode() + b'", "type": "sms"}'

    async with http.post(f"{emulator.base_url}/send", data=pieces()) as response:
        assert response.status == 200
    assert emulator.connections == 1


async def test_it_tells_a_careful_client_to_continue(emulator: Emulator) -> None:
    raw = request_bytes(emulator, emulator.add_session(), more="Expect: 100-continue\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    async with connect(emulator) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer, _ = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 200 ")


CHUNKED = b"POST /session/send HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"GET /session/channels HTTP/2.0\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: line\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n",
        b"POST /session/send HTTP/1.1\r\nContent-Length: 65537\r\n\r\n" + b" " * 65537,
        CHUNKED + b"zz\r\n\r\n",
        CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
        CHUNKED + b"10000\r\n" + b" " * 65536 + b"\r\n1\r\n \r\n0\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_is_a_bad_request_and_the_end(emulator: Emulator, raw: bytes) -> None:
    answer = await exchange(emulator, raw)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close" in head
    assert orjson.loads(body) == envelope("ERROR_BAD_REQUEST", 400, "Bad request.")
    assert not emulator.requests


@pytest.mark.parametrize("sent", [0, 10, 60, -1], ids=["nothing", "half a line", "half the headers", "half the body"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_leaves_in_the_middle_is_no_event(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, sent: int, *, reset: bool
) -> None:
    async with connect(emulator) as (_, writer):
        writer.write(request_bytes(emulator, emulator.add_session())[:sent])
        await writer.drain()
        await asyncio.sleep(1)
        if reset:
            writer.transport.abort()
    await asyncio.sleep(1)
    assert emulator.connections == 1
    assert not emulator.requests
    assert caplog.records == []


async def test_the_answer_to_head_has_no_body(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    reply = await call(http, f"{emulator.base_url}/channels", method="HEAD")
    assert (reply.status, reply.raw) == (404, b"")
    assert (await get(http, f"{emulator.base_url}/channels")).status == 200
    assert emulator.connections == 1


# --- send -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["session", "v2"])
async def test_a_send_is_answered_as_documented(emulator: Emulator, http: aiohttp.ClientSession, prefix: str) -> None:
    emulator.add_session(SESSION)
    url = f"http://127.0.0.1:{emulator.port}/{prefix}/send"
    reply = await call(http, url, {"session_id": SESSION, "type": "telegram"})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    answer = reply.json
    assert answer.pop("session_expired_at")
    assert answer == {
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


async def test_the_ledger_says_what_arrived_where_and_when(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    one, other = emulator.add_session(), emulator.add_session()
    began = asyncio.get_running_loop().time()
    await send(http, emulator, one, "sms")
    jump(5)
    await send(http, emulator, one, "email")
    await send(http, emulator, other, "sms")
    first, second, third = emulator.ledger
    assert first == Delivery(one, "sms", first.code, began)
    assert second == Delivery(one, "email", first.code, began + 5)
    assert emulator.delivered(one.lower()) == emulator.delivered(ULID.from_str(one)) == [first, second]
    assert emulator.delivered(channel="sms") == [first, third]
    assert emulator.delivered(other, "sms") == [third]
    assert emulator.delivered() == [first, second, third]
    assert len(first.code) == 6
    assert first.code.isdecimal()


async def test_a_channel_is_shut_until_its_window_has_passed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
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
    replies = [
        await send(http, emulator, session_id, channel) for session_id in sessions for channel in ("sms", "email")
    ]
    assert {reply.status for reply in replies} == {200}


async def test_of_many_at_once_one_is_delivered(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    replies = await asyncio.gather(*(send(http, emulator, session_id) for _ in range(20)))
    assert sorted(reply.status for reply in replies) == [200] + [429] * 19
    assert len(emulator.ledger) == 1


@pytest.mark.parametrize(
    ("window", "shown"),
    [(60, b'"timeout":60,'), (60.0, b'"timeout":60,'), (2.5, b'"timeout":2.5,'), (0, b'"timeout":0,')],
)
async def test_the_timeout_is_the_window(window: float, shown: bytes) -> None:
    async with Emulator(window=window) as emulator, aiohttp.ClientSession() as http:
        reply = await send(http, emulator, emulator.add_session(), x_api_key=emulator.api_key)
    assert shown in reply.raw


@pytest.mark.parametrize(
    "spelling", [SESSION.lower(), SESSION.replace("1", "I"), SESSION.replace("1", "l").replace("0", "o")]
)
async def test_every_spelling_names_the_same_session(
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
async def test_what_is_no_ulid_names_no_session(emulator: Emulator, http: aiohttp.ClientSession, name: str) -> None:
    with pytest.raises(ValueError, match="ULID"):
        emulator.add_session(name)
    refused = await send(http, emulator, name)
    assert refused.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": "session_id"})


async def test_a_session_belongs_to_a_phone_or_an_email(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        emulator.add_session(to="10000000000")


async def test_a_known_user_is_active_on_the_channel(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session(active=["telegram"])
    assert (await send(http, emulator, session_id)).json["channel"]["is_active"] is True
    assert (await send(http, emulator, session_id, "sms")).json["channel"]["is_active"] is False


async def test_the_end_of_the_session_is_told_on_the_clock_of_the_date_header(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    jump(100)
    reply = await send(http, emulator, session_id)
    expired_at = reply.json["session_expired_at"]
    assert len(expired_at) == len("2025-10-28T10:31:00.000Z")
    assert expired_at.endswith("Z")
    left = datetime.fromisoformat(expired_at) - parsedate_to_datetime(reply.headers["Date"])
    assert timedelta(seconds=80) <= left <= timedelta(seconds=81)


async def test_the_wall_clock_runs_with_the_loop_s(emulator: Emulator, http: aiohttp.ClientSession) -> None:
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


async def test_create_can_keep_quiet(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    answer = (await call(http, f"{emulator.base_url}/create", {"to": "me@example.com", "send": False})).json
    assert answer["sent_to"] is None
    assert emulator.ledger == ()
    assert (await send(http, emulator, answer["session_id"])).status == 200


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


async def test_check_gives_a_token_for_the_right_code(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    await send(http, emulator, session_id)
    (delivery,) = emulator.ledger
    url = f"{emulator.base_url}/check"
    assert set((await call(http, url, {"session_id": session_id, "code": delivery.code})).json) == {"verify_token"}
    wrong = await call(http, url, {"session_id": session_id, "code": "12345"})
    assert wrong.json == envelope("ERROR_MESSAGE_WRONG_CODE", 400, "Wrong code.")
    number = await call(http, url, {"session_id": session_id, "code": 123456})
    assert number.json == envelope("ERROR_BAD_REQUEST", 400, "Bad request.", {"field": "code"})


async def test_settings_describes_the_project(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    assert (await get(http, f"{emulator.base_url}/settings")).json == {
        "language": "en",
        "project": {"name": "Emulator"},
        "code": {"length": 6, "digits": True, "letters": False},
        "challenge": {"enabled": False, "api_key": None},
    }


async def test_requests_are_counted_by_endpoint(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    for endpoint in ("create", "send", "check"):
        await call(http, f"{emulator.base_url}/{endpoint}", {})
    for endpoint in ("channels", "settings", "channels", "elsewhere"):
        await get(http, f"{emulator.base_url}/{endpoint}")
    assert emulator.requests == {"create": 1, "send": 1, "check": 1, "channels": 2, "settings": 1}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff", b"[" * 5000, b'{"session_id": "\xed\xa0\x80"}'],
)
async def test_a_body_that_is_no_json_object_is_refused(
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
async def test_send_names_the_field_that_is_wrong(
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
async def test_a_wrong_key_opens_nothing(emulator: Emulator, key: str) -> None:
    async with aiohttp.ClientSession(headers={"x-api-key": key}) as http:
        refused = await send(http, emulator, emulator.add_session())
    assert (refused.status, refused.json) == (401, envelope("ERROR_ACCESS_DENIED", 401, "Access denied."))
    assert emulator.ledger == ()


async def test_a_missing_key_opens_nothing(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as http:
        assert (await get(http, f"{emulator.base_url}/channels")).status == 401


async def test_either_key_of_the_pair_opens() -> None:
    async with Emulator(api_key="secret", public_key="public") as emulator, aiohttp.ClientSession() as http:
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
async def test_what_is_not_there_is_not_found(
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
async def test_messages_speak_the_client_s_language(
    emulator: Emulator, http: aiohttp.ClientSession, accepted: str, error: str
) -> None:
    assert (await send(http, emulator, UNKNOWN, Accept_Language=accepted)).json["error"] == error


async def test_its_own_breakdown_is_a_500_in_the_envelope_and_a_line_in_the_log(
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


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_faults_are_used_up_in_order(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(503), times=2)
    emulator.script(Fault.answer(418))
    emulator.script(Fault.answer(502), endpoint="channels")
    assert emulator.pending_faults == 4
    statuses = [(await send(http, emulator, emulator.add_session())).status for _ in range(4)]
    assert statuses == [503, 503, 418, 200]
    assert emulator.pending_faults == 1
    assert (await get(http, f"{emulator.base_url}/channels")).status == 502


async def test_a_fault_may_be_meant_for_any_request(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(503), endpoint=None, times=2)
    assert (await get(http, f"{emulator.base_url}/settings")).status == 503
    assert (await get(http, f"{emulator.base_url}/elsewhere")).status == 503


async def test_faults_can_be_called_off(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(503), times=9)
    emulator.clear_faults()
    assert emulator.pending_faults == 0
    assert (await send(http, emulator, emulator.add_session())).status == 200


async def test_a_wrong_script_is_refused(emulator: Emulator) -> None:
    wrong: Any = "silence"
    with pytest.raises(ValueError, match="must be a Fault"):
        emulator.script(wrong)
    for times in (0, True, 1.5):
        with pytest.raises(ValueError, match="times"):
            emulator.script(Fault.silence(), times=times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="endpoint"):
        emulator.script(Fault.silence(), endpoint="resend")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (lambda: Fault.answer(199), "status"),
        (lambda: Fault.answer(600), "status"),
        (lambda: Fault.answer(200, {"a": "b\r\nc: d"}), "line break"),
        (lambda: Fault.answer(200, {"a\n": "b"}), "line break"),
        (lambda: Fault.answer(200, body={"a": object()}), "JSON"),
        (lambda: Fault.refuse("ERROR_NEW"), "ERROR_NEW"),
        (lambda: Fault.refuse("ERROR_BLOCKED", status=0), "status"),
        (lambda: Fault.refuse("ERROR_BLOCKED", retry_after=-1), "retry_after"),
        (lambda: Fault.delay(-1), "seconds"),
        (lambda: Fault.drip(float("inf")), "seconds_per_byte"),
        (lambda: Fault.drip(1, NO_NAME), "part"),
        (lambda: Fault.close(NO_NAME), "when"),
        (lambda: Fault.close("before_reading", process=True), "not read"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        arguments()


async def test_an_answer_goes_out_exactly_as_given(emulator: Emulator) -> None:
    headers = {"content-type": "text/html", "Date": "yesterday", "X-Odd": "²", "Location": "http://example.com/"}
    emulator.script(Fault.answer(307, headers, "<p>да</p>"))
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, emulator.add_session()))
        head, body = await read_answer(reader)
    assert (
        head
        == (
            "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 11\r\ncontent-type: text/html\r\nDate: yesterday\r\n"
            "X-Odd: ²\r\nLocation: http://example.com/\r\n\r\n"
        ).encode()
    )
    assert body == "<p>да</p>".encode()
    assert emulator.ledger == ()


async def test_an_answer_may_be_compressed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(200, {"Content-Encoding": "gzip"}, gzip.compress(b"[1]")))
    assert (await send(http, emulator, SESSION)).json == [1]


async def test_an_answer_may_come_in_chunks(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(200, {"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n"))
    reply = await send(http, emulator, SESSION)
    assert (reply.raw, "Content-Length" in reply.headers) == (b"{}", False)


@pytest.mark.parametrize("body", [{"a": [1, None]}, [1, {"b": "я"}]])
async def test_an_answer_may_be_given_as_data(emulator: Emulator, http: aiohttp.ClientSession, body: Any) -> None:
    emulator.script(Fault.answer(207, body=body))
    assert (await send(http, emulator, SESSION)).json == body


async def test_an_answer_may_close_the_connection(emulator: Emulator) -> None:
    emulator.script(Fault.answer(200, {"connection": "Close"}))
    answer = await exchange(emulator, request_bytes(emulator, SESSION))
    assert answer.endswith(b"\r\nContent-Length: 0\r\nconnection: Close\r\n\r\n")


async def test_an_answer_without_content_and_one_without_a_name_keep_the_connection(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.script(Fault.answer(204))
    emulator.script(Fault.answer(599))
    empty = await send(http, emulator, SESSION)
    assert (empty.status, "Content-Length" in empty.headers) == (204, False)
    assert (await send(http, emulator, SESSION)).status == 599
    assert emulator.connections == 1


async def test_the_send_behind_a_false_answer_may_have_happened(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.answer(502, process=True), times=2)
    assert [(await send(http, emulator, session_id)).status for _ in range(2)] == [502, 502]
    assert len(emulator.ledger) == 1
    assert (await send(http, emulator, session_id)).status == 429


async def test_a_refusal_wears_the_documented_envelope(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", status=400, retry_after=6.5))
    emulator.script(Fault.refuse("ERROR_NEW", status=409))
    blocked = await send(http, emulator, session_id, Accept_Language="ru")
    assert (blocked.status, blocked.json) == (
        403,
        envelope("ERROR_PHONE_BLOCKED", 403, "Телефон заблокирован."),
    )
    attempt = await send(http, emulator, session_id)
    assert (attempt.status, attempt.headers["Retry-After"]) == (400, "7")
    assert attempt.json["error_params"] == {"timeout": 7}
    assert (await send(http, emulator, session_id)).json == envelope("ERROR_NEW", 409, "ERROR_NEW")
    assert emulator.ledger == ()


@pytest.mark.parametrize("before_processing", [False, True])
async def test_a_late_answer_was_carried_out_at_once_or_late(
    emulator: Emulator, http: aiohttp.ClientSession, *, before_processing: bool
) -> None:
    emulator.script(Fault.delay(20, before_processing=before_processing))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert loop.time() == pytest.approx(began + 20)
    assert emulator.ledger[0].at == pytest.approx(began + 20 if before_processing else began)


async def test_what_is_late_happens_though_the_client_has_left(emulator: Emulator) -> None:
    emulator.script(Fault.delay(20, before_processing=True))
    async with connect(emulator) as (_, writer):
        writer.write(request_bytes(emulator, emulator.add_session()))
        await asyncio.sleep(1)
    assert emulator.ledger == ()
    await asyncio.sleep(20)
    assert len(emulator.ledger) == 1


Ending: TypeAlias = Literal["before_reading", "after_reading", "mid_headers", "mid_answer"]


async def end_of_connection(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """Read to the end, and tell which end it was."""
    seen = b""
    try:
        while data := await reader.read(4096):
            seen += data
    except ConnectionResetError:
        return seen, "RST"
    return seen, "FIN"


@pytest.mark.parametrize("reused", [False, True], ids=["first request", "kept alive"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    ("when", "read", "delivered"),
    [("before_reading", 0, 0), ("after_reading", 1, 0), ("mid_headers", 1, 1), ("mid_answer", 1, 1)],
)
async def test_the_connection_ends_at_the_moment_asked_for(
    emulator: Emulator, when: Ending, read: int, delivered: int, *, reset: bool, reused: bool
) -> None:
    async with connect(emulator) as (reader, writer):
        if reused:
            writer.write(request_bytes(emulator, emulator.add_session()))
            await read_answer(reader)
        emulator.script(Fault.close(when, reset=reset))
        emulator.requests.clear()
        session_id = emulator.add_session()
        writer.write(request_bytes(emulator, session_id))
        seen, end = await end_of_connection(reader)
    assert end == ("RST" if reset else "FIN")
    assert emulator.requests["send"] == read
    assert len(emulator.delivered(session_id)) == delivered
    assert emulator.connections == 1
    head, gap, body = seen.partition(b"\r\n\r\n")
    if when in {"before_reading", "after_reading"}:
        assert seen == b""
    elif when == "mid_headers":
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not gap
    else:
        assert b"Content-Length: 260" in head
        assert len(body) == 130


async def test_the_connection_ends_before_the_headers_have_arrived(emulator: Emulator) -> None:
    emulator.script(Fault.close("before_reading"))
    assert await exchange(emulator, b"POST /session/send HTTP/1.1\r\n") == b""
    assert emulator.pending_faults == 0


@pytest.mark.parametrize("body_bytes", [0, 1_000_000])
async def test_fin_is_fin_however_much_the_client_still_sends(emulator: Emulator, body_bytes: int) -> None:
    emulator.script(Fault.close("before_reading"))
    async with connect(emulator) as (reader, writer):
        writer.write(b"POST /session/send HTTP/1.1\r\n\r\n")
        writer.write(b" " * body_bytes)
        assert await end_of_connection(reader) == (b"", "FIN")


@pytest.mark.parametrize("when", ["after_reading", "mid_headers", "mid_answer"])
@pytest.mark.parametrize("process", [False, True])
async def test_whether_a_cut_off_request_was_carried_out_can_be_told(
    emulator: Emulator, when: Ending, *, process: bool
) -> None:
    emulator.script(Fault.close(when, process=process))
    answer = await exchange(emulator, request_bytes(emulator, emulator.add_session()))
    assert len(emulator.ledger) == process
    assert answer[:12] in ({b""} if when == "after_reading" else {b"HTTP/1.1 200"} if process else {b"HTTP/1.1 500"})


@pytest.mark.parametrize("process", [False, True])
async def test_a_malformed_answer_is_sent_as_it_is(emulator: Emulator, *, process: bool) -> None:
    emulator.script(Fault.malformed(b"\x00\xff", process=process))
    assert await exchange(emulator, request_bytes(emulator, emulator.add_session())) == b"\x00\xff"
    assert len(emulator.ledger) == process


async def test_the_ordinary_malformed_answer_is_no_http(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.malformed())
    with pytest.raises(aiohttp.ClientResponseError):
        await send(http, emulator, emulator.add_session())


@pytest.mark.parametrize("process", [False, True])
async def test_silence_lasts_until_the_client_leaves(emulator: Emulator, *, process: bool) -> None:
    emulator.script(Fault.silence(process=process))
    tasks = len(asyncio.all_tasks())
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, emulator.add_session()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await reader.read()
        assert len(emulator.ledger) == process
        assert len(asyncio.all_tasks()) == tasks + 1
    await asyncio.sleep(1)
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("part", ["headers", "body"])
async def test_an_answer_can_drip(emulator: Emulator, part: Literal["headers", "body"], *, process: bool) -> None:
    emulator.script(Fault.drip(0.5, part, process=process))
    loop = asyncio.get_running_loop()
    async with connect(emulator) as (reader, writer):
        began = loop.time()
        writer.write(request_bytes(emulator, emulator.add_session()))
        head = await reader.readuntil(b"\r\n\r\n")
        after_head = loop.time()
        body = await reader.readuntil(b"}" if part == "headers" else b"}}" if process else b'"}')
        after_body = loop.time()
    assert head.startswith(b"HTTP/1.1 200 " if process else b"HTTP/1.1 500 ")
    assert after_head - began == pytest.approx(len(head) / 2 if part == "headers" else 0, abs=0.01)
    assert after_body - after_head == pytest.approx(len(body) / 2 if part == "body" else 0, abs=0.01)
    assert len(emulator.ledger) == process


async def test_a_connection_lives_on_after_an_answer_that_dripped(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.script(Fault.drip(0))
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert emulator.connections == 1


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_nobody_complains_when_the_client_leaves_a_dripping_answer(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, *, reset: bool
) -> None:
    emulator.script(Fault.drip(1))
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, emulator.add_session()))
        await reader.readexactly(3)
        if reset:
            writer.transport.abort()
    await asyncio.sleep(3600)
    assert caplog.records == []


async def test_an_early_send_under_a_fault_delivers_nothing_twice(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    assert (await send(http, emulator, session_id)).status == 200
    for fault in (
        Fault.malformed(),
        Fault.close("mid_answer"),
        Fault.delay(1),
        Fault.close("after_reading", process=True),
    ):
        emulator.script(fault)
        async with connect(emulator) as (reader, writer):
            writer.write(request_bytes(emulator, session_id, more="Connection: close\r\n"))
            await reader.read()
    assert len(emulator.ledger) == 1
