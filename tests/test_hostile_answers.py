"""Answers from someone who means harm: a typed error, in time, in little memory, and the key stays where it belongs.

The service here is a bare socket on the test's own loop. It writes under flow control and keeps no more than a piece
of its answer at a time, so that what is measured is the client's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import pickle
import random
import sys
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp
import attrs
import pytest

from kodmobi_async import (
    BadRequestError,
    KodmobiClient,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    ResponseError,
    RetryPolicy,
    SendResult,
    Timeout,
    TransportError,
    UnreadableResponseError,
)
from kodmobi_async._calls.create import slot_of
from kodmobi_async._rules.call import Repeat

if TYPE_CHECKING:
    from typing import Self

SESSION: Final = "01K8N1VMPN0EE389K72YW0CBM2"
KEY: Final = "canary/8f4e1c"
SECRET_KEY: Final = "canary/2b7d90"
PHONE: Final = "+14155550123"
CODE: Final = "830274"
TOKEN: Final = "canary/51c0e8"
MEBIBYTE: Final = 1 << 20
MOST_MEMORY: Final = 16_000_000
FOREVER: Final = math.inf

CHANNEL: Final = b'{"name":"SMS","type":"sms","is_active":true,"timeout":60,"image_url":"","link":""}'
SENT: Final = b'{"session_id":"%s","session_expired_at":null,"channel":%s}' % (SESSION.encode(), CHANNEL)

# An answer is bytes to write and seconds to pause. After the last piece comes FIN.
Pieces: TypeAlias = Iterable[bytes | float]


# -- the service -------------------------------------------------------------------------------------------------------


class Service:
    """Gives every request the same answer, for as long as the client listens."""

    def __init__(self, answer: Callable[[], Pieces]) -> None:
        self.requests: list[bytes] = []
        self.port = 0
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/session"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for _turn in range(3):  # that is what asyncio takes to accept who is at the door already
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda task: writer.transport.abort() if task.cancelled() else writer.close())
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"POST"):
                request += await reader.readuntil(b"}")
            self.requests.append(request)
            for piece in self._answer():
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                elif piece == FOREVER:
                    await reader.read()
                else:
                    await asyncio.sleep(piece)

    def asked(self, method: str) -> int:
        return sum(request.startswith(method.encode()) for request in self.requests)


def head(*lines: bytes, status: int = 200) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Status" % status, *lines, b"", b""])


def answer(body: bytes, *lines: bytes, status: int = 200) -> list[bytes]:
    return [head(b"Content-Length: %d" % len(body), b"Connection: close", *lines, status=status) + body]


def _without_end(piece: bytes, pause: float) -> Iterator[bytes | float]:
    while True:
        yield piece
        yield pause


def deflated(mebibytes: int, wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    blank = b" " * MEBIBYTE
    return b"".join([*(packer.compress(blank) for _ in range(mebibytes)), packer.flush()])


GZIP, ZLIB, RAW = 31, 15, -15
BOMB: Final = deflated(300, GZIP)
EMPTY_MEMBER: Final = deflated(0, GZIP)
EMPTY_BLOCK: Final = b"\x00\x00\x00\xff\xff"


# The calls beside `send` and `channels`.
CALLS: Final[dict[str, tuple[Callable[[KodmobiClient], Awaitable[object]], Repeat]]] = {
    "settings": (lambda client: client.settings(), Repeat.AT_WILL),
    "create": (lambda client: client.create(PHONE), Repeat.AT_WILL),
    "create, sending": (lambda client: client.create(PHONE, channel="sms", send=True), Repeat.IN_WINDOW),
    "check": (lambda client: client.check(SESSION, CODE), Repeat.NEVER),
    "verify": (lambda client: client.verify(TOKEN), Repeat.NEVER),
}


# -- the rows ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Row:
    """A hostile answer, and what a call makes of it."""

    name: str
    pieces: Callable[[], Pieces]
    send: type[KodmobiError]
    channels: type[KodmobiError]
    outcome: Outcome
    """Of the send. A question for the channels sends nothing, whatever becomes of it."""
    posts: int
    gets: int


def unreadable(name: str, *pieces: bytes | float, then: Callable[[], Pieces] = tuple) -> Row:
    """The status came, and it says yes; what follows it cannot be read."""
    return Row(
        name,
        lambda: itertools.chain(pieces, then()),
        UnreadableResponseError,
        UnreadableResponseError,
        Outcome.ACCEPTED,
        posts=1,
        gets=1,
    )


def not_http(name: str, *pieces: bytes | float, then: Callable[[], Pieces] = tuple) -> Row:
    """Nothing came of which anybody could say that the service said it."""
    return Row(
        name,
        lambda: itertools.chain(pieces, then()),
        OutcomeUnknownError,
        TransportError,
        Outcome.UNKNOWN,
        posts=4,
        gets=4,
    )


def endless(name: str, *pieces: bytes | float, then: Callable[[], Pieces] = tuple) -> Row:
    """As before, but each attempt takes all of its time; a send asks for the channels between its two."""
    return attrs.evolve(not_http(name, *pieces, then=then), posts=2, gets=3)


def refused(name: str, pieces: list[bytes]) -> Row:
    return Row(name, lambda: pieces, BadRequestError, BadRequestError, Outcome.REFUSED, posts=1, gets=1)


def encoded(name: str, encoding: bytes, body: bytes) -> Row:
    return unreadable(name, *answer(body, b"Content-Encoding: " + encoding))


def _in_code_points(text: str) -> bytes:
    return "".join(
        f"\\u{ord(char):04x}" if place % 2 else f"\\u{ord(char):04X}" for place, char in enumerate(text)
    ).encode()


# Long enough for the head to be read on its own: what is wrong after it cannot take it back.
BREATH: Final = 0.1
CHUNKED: Final = head(b"Transfer-Encoding: chunked")

ROWS = [
    # bodies without measure
    encoded("300 MiB in gzip", b"gzip", BOMB),
    encoded("300 MiB in zlib", b"deflate", deflated(300, ZLIB)),
    encoded("300 MiB in raw deflate", b"deflate", deflated(300, RAW)),
    encoded("gzip in gzip by one header", b"gzip, gzip", BOMB),
    encoded("gzip in gzip by two headers", b"gzip\r\nContent-Encoding: gzip", BOMB),
    encoded("an encoding that nobody knows", b"rot13", BOMB),
    encoded("50 000 empty gzip members", b"gzip", EMPTY_MEMBER * 50_000),
    unreadable("bombs without end", head(b"Content-Encoding: gzip"), BREATH, then=lambda: itertools.repeat(BOMB)),
    unreadable(
        "deflate that never yields a byte",
        head(b"Content-Encoding: deflate"),
        b"\x78\x9c",
        then=lambda: _without_end(EMPTY_BLOCK * 13_000, 0.5),
    ),
    encoded("gzip that is none", b"gzip", b"\x1f\x8bnonsense"),
    encoded("gzip cut short", b"gzip", BOMB[: len(BOMB) // 2]),
    unreadable(
        "1 GiB as it is",
        head(b"Content-Length: %d" % (1024 * MEBIBYTE)),
        then=lambda: itertools.repeat(b" " * 65_536, 16_384),
    ),
    unreadable("a body without end", head(), then=lambda: itertools.repeat(b" " * 65_536)),
    unreadable("chunks without end", CHUNKED, then=lambda: itertools.repeat(b"400\r\n" + b" " * 1024 + b"\r\n")),
    unreadable("50 000 chunks of one byte", CHUNKED, b"1\r\n \r\n" * 50_000, b"0\r\n\r\n"),
    unreadable("a chunk extension without end", CHUNKED, b"1;a=", then=lambda: _without_end(b"a" * 65_536, 0.5)),
    unreadable(
        "chunk extensions without end",
        CHUNKED,
        BREATH,
        then=lambda: itertools.repeat(b"1;" + b"a=b;" * 2_000 + b"\r\n \r\n"),
    ),
    unreadable("trailers without end", CHUNKED, BREATH, b"0\r\n", then=lambda: itertools.repeat(b"X: a\r\n" * 1_000)),
    # framing that lies
    unreadable("a chunk of 2**76 bytes", CHUNKED, BREATH, b"fffffffffffffffffff\r\n"),
    unreadable("a chunk of -1 bytes", CHUNKED, BREATH, b"-1\r\n"),
    unreadable("a chunk that is longer than it says", CHUNKED, BREATH, b"1\r\n" + SENT + b"\r\n0\r\n\r\n"),
    unreadable("a Content-Length beyond the body", head(b"Content-Length: 10000"), SENT),
    unreadable("a Content-Length beyond the body, then silence", head(b"Content-Length: 10000"), SENT, FOREVER),
    unreadable("a Content-Length within the body", head(b"Content-Length: 10") + SENT[:10], BREATH, SENT[10:]),
    *(
        not_http(name, head(*lines), BREATH, SENT)
        for name, lines in (
            ("a Content-Length below zero", [b"Content-Length: -5"]),
            ("a Content-Length with a sign", [b"Content-Length: +5"]),
            ("a Content-Length of 5 000 digits", [b"Content-Length: " + b"9" * 5_000]),
            ("a Content-Length beyond 64 bits", [b"Content-Length: 18446744073709551617"]),
            ("two Content-Lengths", [b"Content-Length: 5", b"Content-Length: 6"]),
            ("Content-Length and chunks", [b"Content-Length: 5", b"Transfer-Encoding: chunked"]),
        )
    ),
    not_http("a bad chunk in one breath with the head", CHUNKED + b"-1\r\n"),
    # heads without measure
    endless("headers that drip", then=lambda: _dripping(head(b"X: " + b"a" * 1_000))),
    unreadable("a body that drips", head(b"Content-Length: 1000"), then=lambda: _without_end(b" ", 1.0)),
    not_http("a header of 100 kB", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
    not_http("a header without end", b"HTTP/1.1 200 OK\r\nX: ", then=lambda: itertools.repeat(b"a" * 65_536)),
    not_http("a reason without end", b"HTTP/1.1 200 ", then=lambda: itertools.repeat(b"a" * 65_536)),
    not_http("5 000 headers", head(*(b"X-%d: y" % number for number in range(5_000)))),
    not_http("headers without end", b"HTTP/1.1 200 OK\r\n", then=lambda: itertools.repeat(b"X: y\r\n" * 10_000)),
    endless("empty lines without end", then=lambda: _without_end(b"\r\n" * 30_000, 0.5)),
    endless("100 Continue 10 000 times", head(status=100) * 10_000, FOREVER),
    endless("100 Continue without end", then=lambda: _without_end(head(status=100) * 100, 0.5)),
    endless(
        "early hints without end",
        then=lambda: _without_end(head(b"Link: " + b"a" * 8_000, status=103) * 8, 0.5),
    ),
    # what is made up of it: the HTTP library calls each of these a 400
    not_http("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
    not_http("a body without a head", SENT),
    not_http("a status of four digits", b"HTTP/1.1 4000 Bad\r\n\r\n"),
    not_http("a 400 of another protocol", b"HTCPCP/1.0 400 Bad Request\r\n\r\n"),
    not_http("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    # JSON
    *(
        unreadable(name, *answer(body))
        for name, body in (
            ("lists 100 000 deep", b"[" * 100_000 + b"]" * 100_000),
            ("objects 40 000 deep", b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
            ("a number of 5 000 digits", SENT.replace(b"60", b"9" * 5_000)),
            ("a number of 5 000 digits, elsewhere", SENT[:-1] + b',"more":' + b"9" * 5_000 + b"}"),
            ("a number beyond all floats", SENT.replace(b"60", b"1e999")),
            ("NaN", SENT.replace(b"60", b"NaN")),
            ("invalid UTF-8", SENT.replace(b"SMS", b"\xff\xfe")),
            ("half a surrogate pair", SENT.replace(b"SMS", rb"\ud800")),
            ("UTF-16", SENT.decode().encode("utf-16")),
            ("a key twice, the second time of another kind", SENT[:-1] + b',"session_id":5}'),
            ("20 000 keys", b"{" + b",".join(b'"%x":1' % number for number in range(20_000)) + b"}"),
        )
    ),
    *(
        refused(f"a 400 with {name}", answer(body, status=400))
        for name, body in (
            ("lists 100 000 deep", b"[" * 100_000),
            ("a status of 5 000 digits", b'{"status":' + b"4" * 5_000 + b',"sys_message":"ERROR_BAD_REQUEST"}'),
            ("invalid UTF-8", b'{"message":"\xff"}'),
            ("the same key many times", b"{" + b'"message":"a",' * 10_000 + b'"message":{}}'),
            ("300 kB", b" " * 300_000),
        )
    ),
    refused("a 400 in a bomb", answer(BOMB, b"Content-Encoding: gzip", status=400)),
    # the key, handed back
    *(
        refused(f"a 400 with the key {where}", answer(body, *lines, status=400))
        for where, body, lines in (
            ("in its message", b'{"message":"bad key %s"}' % KEY.encode(), []),
            ("in its message, as PHP writes it", b'{"message":"bad key %s"}' % KEY.encode().replace(b"/", b"\\/"), []),
            ("in its message, in code points", b'{"message":"bad key %s"}' % _in_code_points(KEY), []),
            ("in its code", b'{"sys_message":"%s"}' % KEY.encode(), []),
            ("in its headers", b"{}", [b"Retry-After: " + KEY.encode(), b"X-Api-Key: " + KEY.encode()]),
        )
    ),
    refused("a 400 with the key for a reason", [b"HTTP/1.1 400 %s\r\nContent-Length: 0\r\n\r\n" % KEY.encode()]),
    not_http("the key for a status line", KEY.encode() + b"\r\n\r\n"),
    not_http("the key in a header that is none", b"HTTP/1.1 200 OK\r\n%s\x00\r\n\r\n" % KEY.encode()),
    unreadable("the key for a body", *answer(KEY.encode())),
    unreadable("the key for a chunk's length", CHUNKED, BREATH, KEY.encode() + b"\r\n"),
]


def _dripping(words: bytes) -> Iterator[bytes | float]:
    for position in range(len(words)):
        yield words[position : position + 1]
        yield 1.0


# -- judging -----------------------------------------------------------------------------------------------------------


def chain_of(error: BaseException) -> list[BaseException]:
    chain = [error]
    for link in chain:
        chain += [came for came in (link.__cause__, link.__context__) if came is not None and came not in chain]
    return chain


def assert_holds_no_key(error: BaseException, *secrets: str) -> None:
    """See that neither an error, nor what it came from, nor the variables on its way out show a secret."""
    for link in chain_of(error):
        shown = f"{link} {link!r} {link.args!r} {vars(link)!r}"
        shown += "".join(traceback.TracebackException.from_exception(link, capture_locals=True).format())
        for secret in secrets or (KEY,):
            assert secret not in shown
            assert secret not in pickle.dumps(link).decode("latin-1")


class Measured:
    """What one call took."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.seconds = 0.0
        self.bytes = 0

    def __enter__(self) -> Self:
        tracemalloc.start(1)
        self._before = tracemalloc.get_traced_memory()[0]
        self._began = self._loop.time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._loop.time() - self._began
        self.bytes = tracemalloc.get_traced_memory()[1] - self._before
        tracemalloc.stop()


@contextlib.asynccontextmanager
async def client_of(service: Service, pool: str) -> AsyncIterator[KodmobiClient]:
    if pool == "owned":
        async with KodmobiClient(KEY, secret_key=SECRET_KEY, base_url=service.base_url) as client:
            yield client
    else:
        async with aiohttp.ClientSession() as session:
            yield KodmobiClient(KEY, secret_key=SECRET_KEY, base_url=service.base_url, session=session)


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
class TestEveryHostileAnswer:
    async def test_to_a_send(self, row: Row, pool: str) -> None:
        async with Service(row.pieces) as service, client_of(service, pool) as client:
            with Measured() as took, pytest.raises(row.send) as caught:
                await client.send(SESSION, "sms")
            assert caught.value.outcome is row.outcome
            assert took.seconds <= 30
            assert took.bytes < MOST_MEMORY
            assert service.asked("POST") == row.posts
            blocked = 0 if row.outcome is Outcome.REFUSED else 60
            assert await client.remaining(SESSION, "sms") == pytest.approx(blocked, abs=0.001)
            assert_holds_no_key(caught.value)

    async def test_to_a_question_for_the_channels(self, row: Row, pool: str) -> None:
        async with Service(row.pieces) as service, client_of(service, pool) as client:
            with Measured() as took, pytest.raises(row.channels) as caught:
                await client.channels(SESSION)
            assert caught.value.outcome is Outcome.NOT_SENT
            assert took.seconds <= 30
            assert took.bytes < MOST_MEMORY
            assert service.asked("GET") == row.gets
            assert_holds_no_key(caught.value)

    @pytest.mark.parametrize("name", CALLS)
    async def test_to_every_other_call(self, row: Row, pool: str, name: str) -> None:
        call, repeat = CALLS[name]
        async with Service(row.pieces) as service, client_of(service, pool) as client:
            with Measured() as took, pytest.raises(KodmobiError) as caught:
                await call(client)
            reads = repeat is Repeat.AT_WILL
            assert type(caught.value) is (row.channels if reads else row.send)
            assert caught.value.outcome is (Outcome.NOT_SENT if reads else row.outcome)
            assert took.seconds <= 30
            assert took.bytes < MOST_MEMORY
            if repeat is Repeat.NEVER:
                assert len(service.requests) == 1
            elif reads:
                assert len(service.requests) == row.gets
            else:
                assert 1 <= len(service.requests) <= 2 * row.posts
                blocked = 0 if row.outcome is Outcome.REFUSED else 60
                left = await client._cooldowns.remaining(slot_of(PHONE), "sms")
                assert left == pytest.approx(blocked, abs=0.001)
            assert_holds_no_key(caught.value, KEY, SECRET_KEY, PHONE, CODE, TOKEN)


# -- what nobody has thought of ----------------------------------------------------------------------------------------

THOROUGH: Final = os.environ.get("KODMOBI_THOROUGH") == "1"
GOOD_ANSWERS: Final = (
    answer(SENT)[0],
    answer(zlib.compress(SENT, wbits=GZIP), b"Content-Encoding: gzip")[0],
    head(b"Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(SENT), SENT),
    answer(b'{"sys_message":"ERROR_BLOCKED","error":"No.","error_params":{}}', status=403)[0],
    head(status=100) + head(b"Retry-After: 1", status=503),
)
SPLINTERS: Final = (
    b"\r\n",
    b"\r\n\r\n",
    b"\x00",
    b"\xff",
    b" ",
    b":",
    b"0",
    b"9" * 40,
    b'"',
    b"{",
    b"]",
    b"HTTP/1.1 200 OK\r\n",
)


def _spoiled(luck: random.Random) -> bytes:
    """Return a good answer with a few things cut out, put in or changed."""
    text = bytearray(luck.choice(GOOD_ANSWERS))
    for _ in range(luck.randint(1, 4)):
        start = luck.randrange(len(text) + 1)
        end = min(len(text), start + luck.choice((0, 0, 1, 1, 5, 50)))
        text[start:end] = luck.choice((b"", luck.randbytes(1), luck.choice(SPLINTERS), text[start:end] * 2))
    return bytes(text)


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
async def test_an_answer_spoiled_in_any_way_ends_in_a_result_or_in_an_error_that_does_not_deny_the_sending(
    pool: str,
) -> None:
    luck = random.Random(20_252)
    loop = asyncio.get_running_loop()
    ends: set[Outcome] = set()
    for _ in range(3_000 if THOROUGH else 150):
        spoiled = _spoiled(luck)
        async with Service(lambda spoiled=spoiled: [spoiled]) as service, client_of(service, pool) as client:  # type: ignore[misc]
            began = loop.time()
            try:
                result = await client.send(SESSION, "sms")
            except KodmobiError as error:
                outcome, blocked = error.outcome, 0.0 if error.outcome is Outcome.REFUSED else 60.0
                assert_holds_no_key(error)
            else:
                outcome, blocked = Outcome.ACCEPTED, result.channel.timeout
            assert outcome is not Outcome.NOT_SENT, spoiled
            assert loop.time() - began <= 30, spoiled
            assert await client.remaining(SESSION, "sms") == pytest.approx(blocked, abs=0.001), spoiled
            assert 1 <= service.asked("POST") <= 4, spoiled
            ends.add(outcome)
    assert ends == {Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN}


# -- what is hostile only at first sight -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(answer(SENT), id="as it should be"),
        pytest.param([head(status=100) * 1_000, *answer(SENT)], id="after 1 000 times 100 Continue"),
        pytest.param([head(b"Link: a", status=103), *answer(SENT)], id="after early hints"),
        pytest.param(answer(SENT[:-1] + b',"session_id":"%s"}' % SESSION.encode()), id="with a key twice"),
        pytest.param(
            [CHUNKED, *(b"1;%s\r\n%c\r\n" % (b"x" * 100, byte) for byte in SENT), b"0\r\n\r\n"], id="in bytes"
        ),
        pytest.param([head(), b" " * 200_000, SENT], id="after many blanks"),
        pytest.param(
            answer(
                zlib.compress(SENT[:20], wbits=GZIP) + zlib.compress(SENT[20:], wbits=GZIP), b"Content-Encoding: gzip"
            ),
            id="in two gzip members",
        ),
        pytest.param(answer(zlib.compress(SENT, wbits=RAW), b"Content-Encoding: deflate"), id="in raw deflate"),
    ],
)
async def test_an_odd_answer_that_can_be_read_is_read(pieces: list[bytes]) -> None:
    async with Service(lambda: pieces) as service, client_of(service, "owned") as client:
        result = await client.send(SESSION, "sms")
        assert isinstance(result, SendResult)
        assert result.channel.timeout == 60
        assert service.asked("POST") == 1


@pytest.mark.parametrize("status", [101, 99, 304])
async def test_a_status_that_answers_nothing_is_unknown(status: int) -> None:
    pieces: list[bytes | float] = [b"HTTP/1.1 %03d What\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" % status, FOREVER]
    async with Service(lambda: pieces) as service, client_of(service, "owned") as client:
        with Measured() as took, pytest.raises(OutcomeUnknownError) as caught:
            await client.send(SESSION, "sms")
        assert took.seconds <= 30
        assert service.asked("POST") == 1
        assert await client.remaining(SESSION, "sms") == pytest.approx(60, abs=0.001)
        assert_holds_no_key(caught.value)


# -- redirects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://localhost:{foreign}/session/send", "//127.0.0.1:{foreign}/", "/session/elsewhere", "send"]
)
@pytest.mark.parametrize("pool", ["owned", "borrowed"])
async def test_a_redirect_is_never_followed_and_the_key_stays(status: int, location: str, pool: str) -> None:
    async with Service(lambda: answer(SENT)) as foreign:
        target = location.format(foreign=foreign.port).encode()
        pieces = answer(b"", b"Location: " + target, b"Refresh: 0; url=" + target, status=status)
        async with Service(lambda: pieces) as service, client_of(service, pool) as client:
            with pytest.raises(OutcomeUnknownError) as sent:
                await client.send(SESSION, "sms")
            with pytest.raises(ResponseError) as asked:
                await client.channels(SESSION)
            assert sent.value.outcome is Outcome.UNKNOWN
            assert asked.value.status == status
            assert asked.value.outcome is Outcome.NOT_SENT
            assert await client.remaining(SESSION, "sms") == pytest.approx(60, abs=0.001)
            assert_holds_no_key(sent.value)
            assert_holds_no_key(asked.value)
    assert [request.split(b" ", 2)[1] for request in service.requests] == [
        b"/session/send",
        b"/session/channels?session_id=" + SESSION.encode(),
    ]
    assert foreign.requests == []


# -- in real time, and in real memory ----------------------------------------------------------------------------------


@pytest.mark.real_clock
@pytest.mark.parametrize("flood", [head(status=100) * 500, b"\r\n" * 10_000], ids=["100 Continue", "empty lines"])
async def test_a_flood_without_a_pause_does_not_outlast_the_total(flood: bytes) -> None:
    async with (
        asyncio.timeout(10),
        Service(lambda: itertools.repeat(flood)) as service,
        KodmobiClient(
            KEY, base_url=service.base_url, timeout=Timeout(total=0.5, attempt=0.2), retry=RetryPolicy(attempts=2)
        ) as client,
    ):
        with Measured() as took, pytest.raises(OutcomeUnknownError):
            await client.send(SESSION, "sms")
    assert took.seconds < 2  # the total, and what a busy machine adds to it
    assert took.bytes < MOST_MEMORY


# The highest that the process's memory has been, before and after: the kernel's word, libraries in C included.
SENDS_AND_TELLS_ITS_MEMORY: Final = """
import asyncio, sys
from kodmobi_async import KodmobiClient, KodmobiError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

async def main(session, small, *hostile):
    async def ask(base_url):
        async with KodmobiClient(base_url=base_url) as client:
            for call in (client.send(session, "sms"), client.channels(session)):
                try:
                    await call
                except KodmobiError as error:
                    yield type(error).__name__

    assert [name async for name in ask(small)] == ["UnreadableResponseError"]
    for base_url in hostile:
        before = peak()
        names = [name async for name in ask(base_url)]
        print(peak() - before, *names)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.real_clock
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process's memory is read from /proc")
async def test_a_process_grows_by_little() -> None:
    named = {row.name: row for row in ROWS}
    rows = [named[name] for name in ("300 MiB in gzip", "1 GiB as it is", "bombs without end", "chunks without end")]
    async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
        answers: list[Callable[[], Pieces]] = [lambda: answer(SENT), *(row.pieces for row in rows)]
        services = [await stack.enter_async_context(Service(pieces)) for pieces in answers]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SENDS_AND_TELLS_ITS_MEMORY,
            SESSION,
            *(service.base_url for service in services),
            env={**os.environ, "KODMOBI_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            told, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    lines = [line.split() for line in told.decode().splitlines()]
    assert [names for _, *names in lines] == [["UnreadableResponseError"] * 2] * len(rows)
    assert max(int(kibibytes) for kibibytes, *_ in lines) * 1024 < MOST_MEMORY
