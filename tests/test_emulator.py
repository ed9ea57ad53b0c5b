"""The emulator's life, and how it reads HTTP."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from raw_http import (
    SESSION,
    UNKNOWN,
    call,
    clean_emulator,
    connect,
    envelope,
    exchange,
    get,
    read_response,
    request_bytes,
    send,
)

from kodmobi_async.emulator import Emulator, Fault

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


# --- where it lives ---------------------------------------------------------------------------------------------------


async def test_it_listens_on_a_free_loopback_port_and_says_where(emulator: Emulator) -> None:
    assert emulator.port > 0
    assert emulator.base_url == f"http://127.0.0.1:{emulator.port}/session"


def test_an_ipv6_address_is_put_in_brackets() -> None:
    assert Emulator(host="::1", port=8080).base_url == "http://[::1]:8080/session"


async def test_its_repr_counts_and_never_shows_a_key(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    await send(http, emulator, emulator.add_session())
    emulator.script(Fault.silence(), times=3)
    assert repr(emulator) == (f"<Emulator on 127.0.0.1:{emulator.port}, 1 sessions, 1 delivered, 3 faults pending>")
    idle = Emulator(api_key="pk-private", secret_key="sk-private")
    assert repr(idle) == "<Emulator not listening, 0 sessions, 0 delivered, 0 faults pending>"


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": None},
        {"secret_key": "ключ"},
        {"secret_key": None},
        {"secret_key": "emulator-key"},
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
        {"code_length": 3},
        {"code_length": 7},
        {"code_letters": 1},
        {"max_checks": 0},
        {"max_checks": 2.5},
        {"block_after": 0},
        {"block_after": "5"},
        {"require_active": None},
        {"challenge": "token"},
        {"challenge": ["token", ""]},
        {"challenge": [5]},
        {"challenge": 5},
        {"create_in_window": "send"},
        {"create_existing": None},
        {"keep": 0},
        {"control": "off"},
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Emulator(**settings)


def test_the_error_does_not_show_an_invalid_key() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Emulator(api_key="sk secret")
    assert "secret" not in str(caught.value)


async def test_it_cannot_start_twice(emulator: Emulator) -> None:
    with pytest.raises(RuntimeError, match="already"):
        await emulator.start()


async def test_it_can_be_closed_twice_and_started_again_with_its_state(
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


async def test_a_port_in_use_is_an_error_that_leaves_nothing_behind(emulator: Emulator) -> None:
    other = Emulator(port=emulator.port)
    with pytest.raises(OSError, match="in use"):
        await other.start()
    await other.aclose()


def test_it_has_no_time_and_no_sessions_before_it_starts() -> None:
    emulator = Emulator()
    assert emulator.ledger == ()
    for early in (emulator.add_session, emulator.clock.time, emulator.clock.date):
        with pytest.raises(RuntimeError, match="not started"):
            early()


async def test_closing_ends_every_connection(emulator: Emulator) -> None:
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
        head, body = await read_response(reader)
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
    response = await send(http, emulator, emulator.add_session(), Content_Type=content_type)
    assert response.status == 200


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


async def test_pipelined_requests_are_served_in_order(emulator: Emulator) -> None:
    emulator.add_session(SESSION)
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, SESSION) + b"\r\n" + request_bytes(emulator, SESSION))
        first, _ = await read_response(reader)
        second, _ = await read_response(reader)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize(
    ("old", "new"), [(b"Accept: */*", b"Connection: close"), (b"HTTP/1.1", b"HTTP/1.0")], ids=["asked", "HTTP/1.0"]
)
async def test_it_closes_the_connection_when_the_client_asks(emulator: Emulator, old: bytes, new: bytes) -> None:
    raw = await exchange(emulator, request_bytes(emulator, emulator.add_session()).replace(old, new))
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in raw


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


async def test_it_sends_100_continue(emulator: Emulator) -> None:
    raw = request_bytes(emulator, emulator.add_session(), more="Expect: 100-continue\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    async with connect(emulator) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        response, _ = await read_response(reader)
    assert response.startswith(b"HTTP/1.1 200 ")


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
async def test_an_unreadable_request_is_a_bad_request_and_closes_the_connection(emulator: Emulator, raw: bytes) -> None:
    response = await exchange(emulator, raw)
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close" in head
    assert orjson.loads(body) == envelope("ERROR_BAD_REQUEST", 400, "Bad request.")
    assert not emulator.requests


@pytest.mark.parametrize("sent", [0, 10, 60, -1], ids=["nothing", "half a line", "half the headers", "half the body"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_may_leave_in_the_middle(
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


async def test_the_response_to_head_has_no_body(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    response = await call(http, f"{emulator.base_url}/channels", method="HEAD")
    assert (response.status, response.raw) == (404, b"")
    assert (await get(http, f"{emulator.base_url}/channels")).status == 200
    assert emulator.connections == 1
