"""The emulator's faults, down to the byte."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import aiohttp
import pytest
from raw_http import SESSION, clean_emulator, connect, envelope, exchange, get, read_response, request_bytes, send

from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


NO_NAME: Any = "later"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with clean_emulator() as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


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


async def test_faults_can_be_cleared(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(503), times=9)
    emulator.clear_faults()
    assert emulator.pending_faults == 0
    assert (await send(http, emulator, emulator.add_session())).status == 200


async def test_an_invalid_script_is_refused(emulator: Emulator) -> None:
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
        (lambda: Fault.refuse("ERROR_BLOCKED", errors={"phone": {1}}), "errors"),  # type: ignore[dict-item]
        (lambda: Fault.delay(-1), "seconds"),
        (lambda: Fault.drip(float("inf")), "seconds_per_byte"),
        (lambda: Fault.drip(1, NO_NAME), "part"),
        (lambda: Fault.close(NO_NAME), "when"),
        (lambda: Fault.close("before_reading", process=True), "not read"),
    ],
)
def test_an_invalid_fault_is_refused(arguments: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        arguments()


async def test_a_response_is_written_exactly_as_given(emulator: Emulator) -> None:
    headers = {"content-type": "text/html", "Date": "yesterday", "X-Odd": "²", "Location": "http://example.com/"}
    emulator.script(Fault.answer(307, headers, "<p>да</p>"))
    async with connect(emulator) as (reader, writer):
        writer.write(request_bytes(emulator, emulator.add_session()))
        head, body = await read_response(reader)
    request_id = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Request-Id: "))
    assert (
        head.replace(request_id + b"\r\n", b"")
        == (
            "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 11\r\ncontent-type: text/html\r\nDate: yesterday\r\n"
            "X-Odd: ²\r\nLocation: http://example.com/\r\n\r\n"
        ).encode()
    )
    assert body == "<p>да</p>".encode()
    assert emulator.ledger == ()


async def test_a_response_may_be_compressed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(200, {"Content-Encoding": "gzip"}, gzip.compress(b"[1]")))
    assert (await send(http, emulator, SESSION)).json == [1]


async def test_a_response_may_come_in_chunks(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(200, {"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n"))
    response = await send(http, emulator, SESSION)
    assert (response.raw, "Content-Length" in response.headers) == (b"{}", False)


@pytest.mark.parametrize("body", [{"a": [1, None]}, [1, {"b": "я"}]])
async def test_a_body_may_be_given_as_data(emulator: Emulator, http: aiohttp.ClientSession, body: Any) -> None:
    emulator.script(Fault.answer(207, body=body))
    assert (await send(http, emulator, SESSION)).json == body


async def test_a_response_may_close_the_connection(emulator: Emulator) -> None:
    emulator.script(Fault.answer(200, {"connection": "Close"}))
    raw = await exchange(emulator, request_bytes(emulator, SESSION))
    assert raw.endswith(b"\r\nContent-Length: 0\r\nconnection: Close\r\n\r\n")


async def test_a_response_without_content_or_with_an_unknown_status_keeps_the_connection(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.script(Fault.answer(204))
    emulator.script(Fault.answer(599))
    empty = await send(http, emulator, SESSION)
    assert (empty.status, "Content-Length" in empty.headers) == (204, False)
    assert (await send(http, emulator, SESSION)).status == 599
    assert emulator.connections == 1


async def test_a_send_behind_a_false_response_may_have_happened(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.answer(502, process=True), times=2)
    assert [(await send(http, emulator, session_id)).status for _ in range(2)] == [502, 502]
    assert len(emulator.ledger) == 1
    assert (await send(http, emulator, session_id)).status == 429


async def test_a_refusal_has_the_documented_envelope(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session()
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", status=400, retry_after=6.5))
    emulator.script(Fault.refuse("ERROR_NEW", status=409, errors={"phone": ["is not valid"]}))
    blocked = await send(http, emulator, session_id, Accept_Language="ru")
    assert (blocked.status, blocked.json) == (
        403,
        envelope("ERROR_PHONE_BLOCKED", 403, "Телефон заблокирован."),
    )
    attempt = await send(http, emulator, session_id)
    assert (attempt.status, attempt.headers["Retry-After"]) == (400, "7")
    assert attempt.json["error_params"] == {"timeout": 7}
    new = envelope("ERROR_NEW", 409, "ERROR_NEW")
    assert (await send(http, emulator, session_id)).json == {**new, "errors": {"phone": ["is not valid"]}}
    assert emulator.ledger == ()


@pytest.mark.parametrize("before_processing", [False, True])
async def test_the_request_of_a_late_response_is_carried_out_at_once_or_late(
    emulator: Emulator, http: aiohttp.ClientSession, *, before_processing: bool
) -> None:
    emulator.script(Fault.delay(20, before_processing=before_processing))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert loop.time() == pytest.approx(began + 20)
    assert emulator.ledger[0].at == pytest.approx(began + 20 if before_processing else began)


async def test_a_late_request_is_carried_out_after_the_client_has_left(emulator: Emulator) -> None:
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
async def test_the_connection_ends_at_the_scripted_moment(
    emulator: Emulator, when: Ending, read: int, delivered: int, *, reset: bool, reused: bool
) -> None:
    async with connect(emulator) as (reader, writer):
        if reused:
            writer.write(request_bytes(emulator, emulator.add_session()))
            await read_response(reader)
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
async def test_fin_stays_fin_however_much_the_client_still_sends(emulator: Emulator, body_bytes: int) -> None:
    emulator.script(Fault.close("before_reading"))
    async with connect(emulator) as (reader, writer):
        writer.write(b"POST /session/send HTTP/1.1\r\n\r\n")
        writer.write(b" " * body_bytes)
        assert await end_of_connection(reader) == (b"", "FIN")


@pytest.mark.parametrize("when", ["after_reading", "mid_headers", "mid_answer"])
@pytest.mark.parametrize("process", [False, True])
async def test_a_request_that_is_cut_off_is_carried_out_if_scripted(
    emulator: Emulator, when: Ending, *, process: bool
) -> None:
    emulator.script(Fault.close(when, process=process))
    raw = await exchange(emulator, request_bytes(emulator, emulator.add_session()))
    assert len(emulator.ledger) == process
    assert raw[:12] in ({b""} if when == "after_reading" else {b"HTTP/1.1 200"} if process else {b"HTTP/1.1 500"})


@pytest.mark.parametrize("process", [False, True])
async def test_a_malformed_response_is_sent_as_it_is(emulator: Emulator, *, process: bool) -> None:
    emulator.script(Fault.malformed(b"\x00\xff", process=process))
    assert await exchange(emulator, request_bytes(emulator, emulator.add_session())) == b"\x00\xff"
    assert len(emulator.ledger) == process


async def test_the_default_malformed_response_is_not_http(emulator: Emulator, http: aiohttp.ClientSession) -> None:
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
async def test_a_response_can_drip(emulator: Emulator, part: Literal["headers", "body"], *, process: bool) -> None:
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


async def test_a_connection_stays_open_after_a_response_that_dripped(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    emulator.script(Fault.drip(0))
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert emulator.connections == 1


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_may_leave_while_a_response_drips(
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
