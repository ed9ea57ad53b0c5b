"""Hooks that add headers to requests: to every request of a call, and none that could do harm."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest

from kodmobi_async import (
    CallFinished,
    CallStarted,
    ConfigurationError,
    KodmobiClient,
    KodmobiError,
    Record,
    RetryPolicy,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
CHALLENGE = "x-cf-turnstile-token"


@attrs.define
class Heard:
    """A service that notes the requests it gets and answers each with the next of its answers."""

    base_url: str = ""
    answers: list[bytes] = attrs.Factory(list)
    requests: list[tuple[str, dict[str, str]]] = attrs.Factory(list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")[:-2]
        pairs = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        assert len(headers) == len(pairs)  # none came twice
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((" ".join(start.split()[:2]), headers))
        writer.write(self.answers.pop(0) if self.answers else answer(404))
        writer.close()


def answer(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    service = Heard()
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        service.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield service


@pytest.fixture(params=["owned", "borrowed"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    if request.param == "owned":
        yield {}
    else:
        async with aiohttp.ClientSession() as session:
            yield {"session": session}


class Adds:
    """A hook that adds the same headers to every call."""

    def __init__(self, headers: Any) -> None:
        self.headers = headers
        self.asked: list[CallStarted] = []
        self.records: list[Record] = []

    def __call__(self, record: Record, /) -> None:
        self.records.append(record)

    def request_headers(self, record: CallStarted, /) -> Mapping[str, str]:
        assert self.records[-1] is record  # it has been told of the call before
        self.asked.append(record)
        if isinstance(self.headers, BaseException):
            raise self.headers
        found: Mapping[str, str] = self.headers
        return found


async def test_every_kind_of_call_carries_them(heard: Heard, pool: dict[str, Any]) -> None:
    hook = Adds({"X-Trace": "one two"})
    async with KodmobiClient("key", secret_key="secret", base_url=heard.base_url, hooks=[hook], **pool) as client:
        for call in (
            client.create("+14155550123", challenge="token"),
            client.create("+14155550123", send=True),
            client.send(SESSION, "sms", challenge="token"),
            client.channels(SESSION),
            client.settings(),
            client.check(SESSION, "1234"),
            client.verify("token"),
        ):
            with pytest.raises(KodmobiError):
                await call
    assert len(heard.requests) == len(hook.asked) == 7
    for start, headers in heard.requests:
        assert headers["x-trace"] == "one two"
        assert headers["x-api-key"] == ("secret" if start == "POST /verify" else "key")
    assert [headers.get(CHALLENGE) for _, headers in heard.requests] == ["token", None, "token", *[None] * 4]


async def test_so_do_its_repeats_and_its_questions_after_a_lost_answer(heard: Heard, pool: dict[str, Any]) -> None:
    hook = Adds({"X-Trace": "1"})
    async with KodmobiClient(
        "key", base_url=heard.base_url, hooks=[hook], retry=RetryPolicy(initial_backoff=0), **pool
    ) as client:
        heard.answers = [answer(503), answer(500), answer(404), answer(404)]
        with pytest.raises(KodmobiError):
            await client.send(SESSION, "sms")
        heard.answers = [answer(500), answer(404), answer(404)]
        with pytest.raises(KodmobiError):
            await client.create("+14155550123", send=True, challenge="token")
    assert [start for start, _ in heard.requests] == [
        "POST /send",
        "POST /send",
        f"GET /channels?session_id={SESSION}",
        "POST /send",
        *["POST /create"] * 3,
    ]
    assert all(headers["x-trace"] == "1" for _, headers in heard.requests)
    assert all(headers[CHALLENGE] == "token" for _, headers in heard.requests[-3:])
    assert len(hook.asked) == 2  # once a call


async def test_those_of_several_hooks_come_together_and_a_name_comes_once(heard: Heard) -> None:
    hooks = [Adds({"X-One": "1", "x-both": "1"}), Adds({"X-Both": "2"}), Adds({})]
    async with KodmobiClient("key", base_url=heard.base_url, hooks=hooks) as client:
        with pytest.raises(KodmobiError):
            await client.send(SESSION, "sms")
    ((_, headers),) = heard.requests
    assert (headers["x-one"], headers["x-both"]) == ("1", "2")


async def test_a_hook_may_have_nothing_to_add(heard: Heard) -> None:
    async with KodmobiClient("key", base_url=heard.base_url, hooks=[Adds({})]) as client:
        with pytest.raises(KodmobiError):
            await client.send(SESSION, "sms")
    assert heard.requests[0][1].keys() == {
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "x-api-key",
        "content-type",
        "content-length",
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "mine"},
        {"X-API-Key": "mine"},
        {"X-CF-Turnstile-Token": "mine"},
        {"Host": "elsewhere"},
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Proxy-Authorization": "Basic"},
        {"Authorization": "Bearer"},
        {"X-One": "1\r\nX-Two: 2"},
        {"X-One\r\nX-Two": "2"},
        {"X-One:": "2"},
        {"": "2"},
        {"X-One": ""},
        {"X-One": " padded"},
        {"X-One": "é"},
        {"X-One": "1" * 8193},
        {"X-One": 1},
        {1: "X-One"},
        None,
        3,
        LookupError("broken"),
        asyncio.CancelledError(),
    ],
    ids=str,
)
async def test_what_is_no_header_and_what_is_not_the_hooks_to_set_is_left_out_and_logged(
    heard: Heard, caplog: pytest.LogCaptureFixture, headers: object
) -> None:
    wrong, right = Adds(headers), Adds({"X-Right": "1"})
    async with KodmobiClient("key", base_url=heard.base_url, hooks=[wrong, right]) as client:
        with pytest.raises(KodmobiError):
            await client.send(SESSION, "sms")
    ((_, got),) = heard.requests
    assert (got["x-right"], got["x-api-key"], got["content-type"]) == ("1", "key", "application/json")
    assert {"x-one", "x-two", "authorization", "proxy-authorization", CHALLENGE}.isdisjoint(got)
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert line.getMessage().startswith("a hook failed on SendStarted\n")
    assert SESSION not in line.getMessage()


@pytest.mark.parametrize("last", [KeyboardInterrupt(), SystemExit()], ids=repr)
def test_a_hook_that_asks_the_process_to_end_is_heard(last: BaseException) -> None:
    async def main() -> None:
        async with KodmobiClient("key", base_url="http://127.0.0.1:9", hooks=[Adds(last)]) as client:
            await client.send(SESSION, "sms")

    with pytest.raises(type(last)):
        asyncio.run(main())


class Asynchronous:
    def __call__(self, record: Record, /) -> None: ...

    async def request_headers(self, record: CallStarted, /) -> Mapping[str, str]:
        return {}


class NoMethod(Adds):
    request_headers: Any = "X-Trace"


@pytest.mark.parametrize(
    ("hook", "words"),
    [(Asynchronous(), "a hook is an ordinary function"), (NoMethod({}), "request_headers of a hook is a method")],
)
def test_what_cannot_be_asked_is_refused(hook: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        KodmobiClient("key", hooks=[hook])


async def test_the_record_that_it_is_asked_with_is_the_one_that_began_the_call(heard: Heard) -> None:
    hook = Adds({"X-Trace": "1"})
    async with KodmobiClient("key", base_url=heard.base_url, hooks=[hook]) as client:
        with pytest.raises(KodmobiError):
            await client.check(SESSION, "1234")
    (record,) = hook.asked
    assert (record.kind, record.session_id) == ("check", SESSION)
    assert isinstance(hook.records[-1], CallFinished)
