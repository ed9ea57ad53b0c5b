"""The pool of our own: which connection is used again, and when each exchange ends."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
from typing import Any, Final

import aiohttp
import orjson
import pytest
from ports import kept_port

from kodmobi_async import (
    ClientClosedError,
    ConfigurationError,
    KodmobiClient,
    KodmobiError,
    Limits,
    Outcome,
    OutcomeUnknownError,
    RetryPolicy,
    Timeout,
    TransportError,
)
from kodmobi_async.emulator import Emulator, Fault

ONCE: Final = RetryPolicy(attempts=1, repeat_unknown=False)
SESSIONS: Final = ("01K8N1VMPN0EE389K72YW0CBM2", "01K8N1VMPN0EE389K72YW0CBM3")


def answer(session_id: str) -> bytes:
    channel = {"name": "", "type": "sms", "is_active": False, "timeout": 60, "image_url": "", "link": ""}
    body = orjson.dumps({"session_id": session_id, "session_expired_at": None, "channel": channel})
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_connections_are_used_again(emulator: Emulator, client: KodmobiClient) -> None:
    for _ in range(10):
        await client.send(emulator.add_session(), "sms")
    assert emulator.connections == 1


async def test_no_more_connections_are_open_than_the_limit_says(emulator: Emulator) -> None:
    sessions = [emulator.add_session() for _ in range(50)]
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, limits=Limits(connections=3), timeout=Timeout(connect=10.0)
    ) as client:
        await asyncio.gather(*(client.send(session, "sms") for session in sessions))
    assert emulator.connections == 3
    assert len(emulator.ledger) == 50


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(emulator: Emulator) -> None:
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, limits=Limits(keepalive=0.0), timeout=Timeout(total=5.0)
    ) as client:
        await client.send(emulator.add_session(), "sms")
        await client.send(emulator.add_session(), "sms")
    assert emulator.connections == 2


@pytest.mark.parametrize("lie", [answer(SESSIONS[0]), b"\x00"])
async def test_what_a_service_says_unasked_is_not_taken_for_the_next_answer(lie: bytes) -> None:
    asked: list[str] = []
    connections: list[asyncio.StreamWriter] = []
    lied = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while head := await reader.readline():
            while (line := await reader.readline()) != b"\r\n":
                head = line if line.lower().startswith(b"content-length") else head
            body = orjson.loads(await reader.readexactly(int(head.split()[1])))
            asked.append(body["session_id"])
            writer.write(answer(body["session_id"]))
            await writer.drain()
            if not lied.is_set():
                await asyncio.sleep(1)
                writer.write(lie)
                lied.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with KodmobiClient("key", base_url=f"http://127.0.0.1:{port}/session", retry=ONCE) as client:
            results = []
            for session in SESSIONS:
                results.append(await client.send(session, "sms"))
                await asyncio.sleep(2)
    assert [str(result.session_id) for result in results] == asked == list(SESSIONS)
    assert len(connections) == 2


@pytest.mark.parametrize("fault", [Fault.silence(), Fault.drip(1.0, "body")], ids=["no answer", "no end of it"])
async def test_each_exchange_ends_at_its_own_deadline(emulator: Emulator, fault: Fault) -> None:
    patience = [3.0, 1.0, 2.0, 1.0, 10.0]
    emulator.script(fault, times=len(patience))
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=ONCE) as client:

        async def send(seconds: float) -> None:
            began = loop.time()
            with pytest.raises(KodmobiError, match="in time"):
                await client.send(emulator.add_session(), "sms", timeout=Timeout(attempt=seconds))
            took.append(loop.time() - began)

        await asyncio.gather(*map(send, patience))
    assert took == pytest.approx(sorted(patience), abs=0.05)


async def test_a_wait_for_a_connection_ends_with_the_call(emulator: Emulator) -> None:
    emulator.script(Fault.delay(8.0))
    loop = asyncio.get_running_loop()
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=Limits(connections=1)) as client:
        holds_it = asyncio.create_task(client.send(emulator.add_session(), "sms"))
        await asyncio.sleep(1.0)
        began = loop.time()
        with pytest.raises(TransportError, match="no connection was free"):
            await client.send(emulator.add_session(), "sms", timeout=Timeout(total=2.0, connect=5.0, attempt=4.0))
        assert loop.time() - began == pytest.approx(2.0, abs=0.05)
        await holds_it
    assert len(emulator.ledger) == 1


async def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(emulator: Emulator) -> None:
    late, next_one = emulator.add_session(), emulator.add_session()
    emulator.script(Fault.delay(5.0))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, retry=ONCE) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.send(late, "sms", timeout=Timeout(attempt=1.0))
        await asyncio.sleep(3.9)
        assert str((await client.send(next_one, "sms")).session_id) == next_one
    assert emulator.connections == 2


async def test_the_path_of_the_address_is_kept(emulator: Emulator) -> None:
    address = emulator.base_url.replace("/session", "/v2/")
    async with KodmobiClient(emulator.api_key, base_url=address) as client:
        assert (await client.send(emulator.add_session(), "sms")).attempts == 1
        assert len(await client.channels()) == 4


# -- connections opened beforehand -------------------------------------------------------------------------------------


async def test_connections_are_opened_before_the_first_send_and_used_by_it(emulator: Emulator) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        await client.connect(3)
        await client.connect(2)  # they are open
        assert emulator.connections == 3
        assert not emulator.requests
        await asyncio.gather(*(client.send(emulator.add_session(), "sms") for _ in range(3)))
        await client.connect()
        assert emulator.connections == 3


async def test_an_idle_connection_is_kept_for_the_next_person(emulator: Emulator) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        await client.connect()
        for _ in range(3):
            await asyncio.sleep(60)
            await client.send(emulator.add_session(), "sms")
        assert emulator.connections == 1


async def test_a_service_that_cannot_be_reached_is_said_to_be_and_calls_may_follow(emulator: Emulator) -> None:
    with kept_port() as port:
        client = KodmobiClient(emulator.api_key, base_url=f"http://127.0.0.1:{port}/session")
        async with client:
            with pytest.raises(TransportError, match="cannot be connected to") as caught:
                await client.connect(2)
            assert caught.value.outcome is Outcome.NOT_SENT
            with pytest.raises(TransportError):
                await client.settings()


@pytest.mark.parametrize("connections", [0, -1, 6, True, 2.0, 2.5, math.nan, "3", None])
async def test_no_more_connections_are_opened_than_the_limit_says(emulator: Emulator, connections: Any) -> None:
    limits = Limits(connections=5)
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, limits=limits) as client:
        with pytest.raises(ConfigurationError, match="connections takes 1 to 5"):
            await client.connect(connections)
    assert emulator.connections == 0


async def test_a_borrowed_session_opens_its_own_connections(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as session:
        client = KodmobiClient(emulator.api_key, base_url=emulator.base_url, session=session)
        with pytest.raises(ConfigurationError, match="borrowed session"):
            await client.connect()


async def test_a_closed_client_connects_no_more(emulator: Emulator) -> None:
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    await client.connect()
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await client.connect()


async def test_a_client_that_is_closed_while_it_connects_says_so(emulator: Emulator) -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = [socket.socket() for _ in range(2)]  # so that the next one waits
    for each in full:
        each.setblocking(False)
        each.connect_ex(server.getsockname())
    try:
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}/session"
        client = KodmobiClient(emulator.api_key, base_url=base_url, limits=Limits(connections=1))
        connecting = [asyncio.create_task(client.connect()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await client.aclose()
        came = await asyncio.gather(*connecting, return_exceptions=True)
        assert [type(error) for error in came] == [ClientClosedError] * 2
    finally:
        for opened in (*full, server):
            opened.close()


async def test_who_is_cancelled_while_connecting_is_cancelled(emulator: Emulator) -> None:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        connecting = asyncio.create_task(client.connect(2))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await client.send(emulator.add_session(), "sms")


async def test_who_is_cancelled_while_connecting_leaves_no_connection_to_be_logged_with_the_proxys_password(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    accepted: list[asyncio.StreamWriter] = []
    proxy = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    address = f"http://person:password@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    limits = Limits(connections=2)
    client = KodmobiClient("key", base_url="http://api.example/session", allow_http=True, proxy=address, limits=limits)
    async with client:
        sending = asyncio.create_task(client.settings())  # holds the one connection
        await asyncio.sleep(0.1)
        connecting = asyncio.create_task(client.connect(2))  # opens the other, and waits for the first
        await asyncio.sleep(0.1)
        assert len(accepted) == 2
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        del connecting
        gc.collect()
        await client.connect()  # the other one is still open
        assert len(accepted) == 2
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    proxy.close()
    for writer in accepted:
        writer.close()
    assert not caplog.records
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]
