"""TLS and proxies: each way in which they fail, judged by what the server and the proxy saw.

Every row runs on a pool of the client's own (``ssl=``, ``proxy=``) and on a borrowed session, but for those that only a
session can be told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pickle
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import aiohttp
import attrs
import pytest
import trustme

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    KodmobiClient,
    Outcome,
    OutcomeUnknownError,
    ResponseError,
    ServerError,
    TransportError,
)
from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SESSION: Final = "01K8N1VMPN0EE389K72YW0CBM2"
KEY: Final = "canary-8f4e1c"

# What a server sends that speaks no version of TLS that the client offers: a fatal alert, RFC 8446, 6.
NO_SUCH_VERSION: Final = b"\x15\x03\x01\x00\x02\x02\x46"


# -- a port with manners of its own ------------------------------------------------------------------------------------


@attrs.define
class Visitor:
    """Somebody who came to a door."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: list[bytes]

    async def speaks(self, until: bytes = b"\r\n\r\n") -> bytes:
        said = await self.reader.readuntil(until)
        self.heard.append(said)
        return said

    async def says_hello(self) -> None:
        """Read the first flight of a TLS handshake."""
        self.heard.append(await self.reader.read(65_536))

    async def encrypts(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context)

    async def leaves(self) -> None:
        while await self.reader.read(65_536):
            pass

    def say(self, words: bytes) -> None:
        self.writer.write(words)

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is reset already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


# Receives a visitor; returns the port to lead them to, or None when there is nothing more for them.
Greeting: TypeAlias = Callable[[Visitor], Awaitable[int | None]]


class Door:
    """A port that counts who comes, greets them in its own way, and leads whom it lets in to another port."""

    def __init__(self, greet: Greeting) -> None:
        self.connections = 0
        self.heard: list[bytes] = []
        self.port = 0
        self._greet = greet
        self._tasks: set[asyncio.Task[None]] = set()

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
        self.connections += 1
        task = asyncio.create_task(self._receive(Visitor(reader, writer, self.heard)))
        self._tasks.add(task)
        task.add_done_callback(lambda task: writer.transport.abort() if task.cancelled() else writer.close())
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, visitor: Visitor) -> None:
        with contextlib.suppress(OSError, EOFError):  # of all who come, some leave in the middle of a word
            port = await self._greet(visitor)
            if port is not None:
                await self._lead(visitor, port)

    async def _lead(self, visitor: Visitor, port: int) -> None:
        inside = Visitor(*await asyncio.open_connection("127.0.0.1", port), [])
        ways = [asyncio.create_task(self._carry(*pair)) for pair in ((visitor, inside), (inside, visitor))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inside.writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, source: Visitor, target: Visitor) -> None:
        try:
            while piece := await source.reader.read(65_536):
                target.writer.write(piece)
                await target.writer.drain()
        except OSError:
            target.reset()


async def turns_away(visitor: Visitor) -> None:
    """Hear what they want, and hang up."""
    await visitor.says_hello()


async def resets(visitor: Visitor) -> None:
    await visitor.says_hello()
    visitor.reset()


async def hangs_up_unheard(visitor: Visitor) -> None:
    pass


async def is_silent(visitor: Visitor) -> None:
    await visitor.says_hello()
    await visitor.leaves()


def answers(words: bytes) -> Greeting:
    async def greet(visitor: Visitor) -> None:
        await visitor.says_hello()
        visitor.say(words)
        await visitor.leaves()

    return greet


def encrypted(context: ssl.SSLContext, then: int | None = None) -> Greeting:
    """Shake hands; then lead to a port, or listen until they leave."""

    async def greet(visitor: Visitor) -> int | None:
        await visitor.encrypts(context)
        if then is None:
            # whatever is said now has reached the service
            visitor.heard.append(await visitor.reader.read(65_536))
        return then

    return greet


def refuses(context: ssl.SSLContext) -> Greeting:
    """Fail to shake hands, and say why; asyncio's own servers hang up without a word."""

    async def greet(visitor: Visitor) -> None:
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(heard, said, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                visitor.say(said.read())
                heard.write(await visitor.reader.read(65_536))
            except ssl.SSLError:
                visitor.say(said.read())
                return

    return greet


# -- certificates ------------------------------------------------------------------------------------------------------


class Certificates:
    """An authority that no system trusts, and what it signs."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    def server(
        self, host: str = "127.0.0.1", not_before: datetime | None = None, not_after: datetime | None = None
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host, not_before=not_before, not_after=not_after).configure_cert(context)
        return context

    def expired(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return self.server(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))

    def particular(self, **settings: Any) -> ssl.SSLContext:
        """Return a good server's context but for these settings."""
        return _set(self.server(), settings)

    def wants_to_know_the_client(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = self.particular(verify_mode=ssl.CERT_REQUIRED, minimum_version=version, maximum_version=version)
        self.authority.configure_trust(context)
        return context

    def client(self, **settings: Any) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return _set(context, settings)


def _set(context: ssl.SSLContext, settings: dict[str, Any]) -> ssl.SSLContext:
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


# -- judging -----------------------------------------------------------------------------------------------------------


def holds_no_key(error: BaseException | None) -> bool:
    """Whether neither an error nor any that it came from shows the key."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        shown = f"{error} {error!r} {error.args} {vars(error)}".encode()
        if KEY.encode() in shown + pickle.dumps(error):
            return False
        if error.__context__ is not None and not holds_no_key(error.__context__):
            return False
        error = error.__cause__
    return True


async def assert_nothing_is_sent(client: KodmobiClient, door: Door, *, permanent: bool) -> TransportError:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TransportError) as caught:
        await client.send(SESSION, "telegram")
    assert caught.value.outcome is Outcome.NOT_SENT
    assert loop.time() - began <= 30
    assert await client.remaining(SESSION, "telegram") == 0
    assert door.connections == (1 if permanent else 4)
    assert not any(KEY.encode() in words or b"POST" in words for words in door.heard)
    assert holds_no_key(caught.value)
    return caught.value


async def assert_unknown(client: KodmobiClient, session: str) -> OutcomeUnknownError:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(OutcomeUnknownError) as caught:
        await client.send(session, "telegram")
    assert caught.value.outcome is Outcome.UNKNOWN
    assert loop.time() - began <= 30
    assert await client.remaining(session, "telegram") == pytest.approx(60, abs=0.001)
    assert holds_no_key(caught.value)
    with pytest.raises(CooldownError):
        await client.send(session, "telegram")
    return caught.value


@contextlib.asynccontextmanager
async def borrowing(base_url: str, tls: Any = True, proxy: str | None = None) -> AsyncIterator[KodmobiClient]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), proxy=proxy) as session:
        yield KodmobiClient(KEY, base_url=base_url, session=session)


@contextlib.asynccontextmanager
async def owning(base_url: str, tls: Any = True, proxy: str | None = None) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(KEY, base_url=base_url, ssl=None if tls is True else tls, proxy=proxy) as client:
        yield client


Connecting: TypeAlias = Callable[..., contextlib.AbstractAsyncContextManager[KodmobiClient]]


@pytest.fixture(params=[owning, borrowing], ids=["owned", "borrowed"])
def connecting(request: pytest.FixtureRequest) -> Connecting:
    """Return what opens a client: with a pool of its own, or with a borrowed session."""
    made: Connecting = request.param
    return made


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> str:
    return emulator.add_session(SESSION)


# -- TLS: nothing is sent ----------------------------------------------------------------------------------------------


def _as_ever(_: Certificates) -> Any:
    return True


def _trusting(certificates: Certificates) -> Any:
    return certificates.client()


@attrs.frozen
class Row:
    """A way for TLS to fail before the request."""

    name: str
    greet: Callable[[Certificates], Greeting]
    permanent: bool
    reason: str
    tls: Callable[[Certificates], Any] = _as_ever
    """What the client is told of TLS."""
    is_only_borrowed: bool = False
    """It is told in a way that only a borrowed session takes."""

    @property
    def pools(self) -> tuple[str, ...]:
        return ("borrowed",) if self.is_only_borrowed else ("owned", "borrowed")


ROWS = [
    Row(
        "an authority that is not trusted",
        lambda certificates: encrypted(certificates.server()),
        permanent=True,
        reason="not trusted",
    ),
    Row(
        "another host's certificate",
        lambda certificates: encrypted(certificates.server("elsewhere.example")),
        permanent=True,
        reason="not trusted",
        tls=_trusting,
    ),
    Row(
        "an expired certificate",
        lambda certificates: encrypted(certificates.expired()),
        permanent=True,
        reason="not trusted",
        tls=_trusting,
    ),
    Row(
        "a fingerprint that is not the one asked for",
        lambda certificates: encrypted(certificates.server()),
        permanent=True,
        reason="not the expected one",
        tls=lambda _: aiohttp.Fingerprint(bytes(32)),
        is_only_borrowed=True,
    ),
    Row(
        "no common version, says the server",
        lambda _: answers(NO_SUCH_VERSION),
        permanent=True,
        reason="the TLS handshake failed",
    ),
    Row(
        "no common version, says the client",
        lambda certificates: refuses(certificates.particular(maximum_version=ssl.TLSVersion.TLSv1_2)),
        permanent=True,
        reason="the TLS handshake failed",
        tls=lambda certificates: certificates.client(minimum_version=ssl.TLSVersion.TLSv1_3),
    ),
    Row(
        "a client certificate is wanted",
        lambda certificates: refuses(certificates.wants_to_know_the_client(ssl.TLSVersion.TLSv1_2)),
        permanent=True,
        reason="the TLS handshake failed",
        tls=_trusting,
    ),
    Row(
        "a port that speaks plain HTTP",
        lambda _: answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        permanent=True,
        reason="the TLS handshake failed",
    ),
    Row("closed at the ClientHello", lambda _: turns_away, permanent=False, reason="cannot be connected to"),
    Row("reset at the ClientHello", lambda _: resets, permanent=False, reason="cannot be connected to"),
    Row("closed before the ClientHello", lambda _: hangs_up_unheard, permanent=False, reason="cannot be connected to"),
    Row("silence at the ClientHello", lambda _: is_silent, permanent=False, reason="in time"),
]


@pytest.mark.parametrize(
    ("row", "pool"), [pytest.param(row, pool, id=f"{row.name}-{pool}") for row in ROWS for pool in row.pools]
)
async def test_a_handshake_that_fails_sends_nothing(row: Row, pool: str, certificates: Certificates) -> None:
    async with Door(row.greet(certificates)) as door:
        base_url = f"https://127.0.0.1:{door.port}/session"
        connecting = owning if pool == "owned" else borrowing
        async with connecting(base_url, row.tls(certificates)) as client:
            error = await assert_nothing_is_sent(client, door, permanent=row.permanent)
        assert row.reason in str(error)


async def test_https_to_the_emulators_own_plain_port_sends_nothing(emulator: Emulator, session: str) -> None:
    base_url = emulator.base_url.replace("http:", "https:")
    async with KodmobiClient(KEY, base_url=base_url) as client:
        with pytest.raises(TransportError) as caught:
            await client.send(session, "telegram")
        assert caught.value.outcome is Outcome.NOT_SENT
        assert await client.remaining(session, "telegram") == 0
    assert emulator.connections == 1
    assert not emulator.requests


# -- TLS: what comes after ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_trusted_service_is_sent_to(
    version: ssl.TLSVersion, certificates: Certificates, emulator: Emulator, session: str, connecting: Connecting
) -> None:
    context = certificates.particular(minimum_version=version, maximum_version=version)
    async with (
        Door(encrypted(context, emulator.port)) as door,
        connecting(f"https://127.0.0.1:{door.port}/session", certificates.client()) as client,
    ):
        result = await client.send(session, "telegram")
        await client.send(session, "sms")
        assert result.attempts == 1
        assert door.connections == 1
        assert len(emulator.delivered(session)) == 2
        assert {channel.type for channel in await client.channels(session)} >= {"telegram", "sms"}


LOST_ANSWERS = [
    pytest.param(Fault.close(process=False), id="closed"),
    pytest.param(Fault.close(reset=True, process=False), id="reset"),
    pytest.param(Fault.close("mid_headers", process=False), id="closed in the headers"),
    pytest.param(Fault.malformed(process=False), id="garbage"),
    pytest.param(Fault.silence(process=False), id="silence"),
]


@pytest.mark.parametrize("fault", LOST_ANSWERS)
async def test_a_lost_answer_under_tls_is_unknown(
    fault: Fault, certificates: Certificates, emulator: Emulator, session: str, connecting: Connecting
) -> None:
    emulator.script(fault, times=100, endpoint=None)
    async with (
        Door(encrypted(certificates.server(), emulator.port)) as door,
        connecting(f"https://127.0.0.1:{door.port}/session", certificates.client()) as client,
    ):
        await assert_unknown(client, session)
    assert emulator.requests["send"] >= 1


@pytest.mark.parametrize("fault", LOST_ANSWERS)
async def test_a_lost_answer_under_tls_is_asked_for_and_the_request_repeated(
    fault: Fault, certificates: Certificates, emulator: Emulator, session: str, connecting: Connecting
) -> None:
    emulator.script(fault)
    async with (
        Door(encrypted(certificates.server(), emulator.port)) as door,
        connecting(f"https://127.0.0.1:{door.port}/session", certificates.client()) as client,
    ):
        result = await client.send(session, "telegram")
    assert result.attempts == 2
    assert emulator.requests == {"send": 2, "channels": 1}
    assert len(emulator.delivered(session)) == 1


async def test_a_client_certificate_that_is_wanted_under_tls_1_3_is_unknown(
    certificates: Certificates, connecting: Connecting
) -> None:
    """Under TLS 1.3 the client learns of it only after its request went out; the server has seen none of it."""
    context = certificates.wants_to_know_the_client(ssl.TLSVersion.TLSv1_3)
    async with (
        Door(encrypted(context)) as door,
        connecting(f"https://127.0.0.1:{door.port}/session", certificates.client()) as client,
    ):
        await assert_unknown(client, SESSION)
    assert door.heard == []


# A pool of the client's own reads the system's authorities once, when aiohttp is imported: so in a process of its own.
SENDS_TO_EACH: Final = """
import asyncio, sys
from kodmobi_async import KodmobiClient, KodmobiError

async def main(session, *base_urls):
    for base_url in base_urls:
        async with KodmobiClient(base_url=base_url) as client:
            try:
                result = await client.send(session, "telegram")
            except KodmobiError as error:
                print(type(error).__name__, error.outcome, await client.remaining(session, "telegram"))
            else:
                print("sent", result.attempts, await client.remaining(session, "telegram") > 59)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.real_clock
async def test_a_pool_of_its_own_trusts_the_systems_authorities(
    certificates: Certificates, emulator: Emulator, session: str, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    certificates.authority.cert_pem.write_to_path(str(authority))
    async with (
        asyncio.timeout(30),
        Door(encrypted(certificates.server("elsewhere.example"), emulator.port)) as wrong,
        Door(encrypted(certificates.expired(), emulator.port)) as expired,
        Door(encrypted(certificates.server(), emulator.port)) as good,
    ):
        doors = (wrong, expired, good)
        emulator.script(Fault.close())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SENDS_TO_EACH,
            session,
            *(f"https://127.0.0.1:{door.port}/session" for door in doors),
            env={**os.environ, "SSL_CERT_FILE": str(authority), "KODMOBI_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            told, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert told.decode().splitlines() == [
        "TransportError not_sent 0.0",
        "TransportError not_sent 0.0",
        "sent 2 True",
    ]
    assert [door.connections for door in doors[:2]] == [1, 1]
    assert emulator.requests == {"send": 2, "channels": 1}
    assert len(emulator.delivered(session)) == 1


# -- a tunnel that is not opened ---------------------------------------------------------------------------------------


def replies(words: bytes) -> Greeting:
    """Answer a CONNECT, then hang up."""

    async def greet(visitor: Visitor) -> None:
        await visitor.speaks()
        visitor.say(words)

    return greet


def tunnels(port: int) -> Greeting:
    async def greet(visitor: Visitor) -> int:
        assert (await visitor.speaks()).startswith(b"CONNECT ")
        visitor.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return port

    return greet


def tunnels_to(then: Greeting) -> Greeting:
    async def greet(visitor: Visitor) -> int | None:
        await visitor.speaks()
        visitor.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return await then(visitor)

    return greet


def _says_no(status: int, _: Certificates) -> Greeting:
    return replies(f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno".encode())


PROXY_ROWS = [
    Row("FIN", lambda _: replies(b""), permanent=False, reason="closed without a response"),
    Row("RST", lambda _: resets, permanent=False, reason="broke"),
    Row("garbage", lambda _: replies(b"\x00\xff what?\r\n\r\n"), permanent=False, reason="not HTTP"),
    Row("half a status line", lambda _: replies(b"HTTP/1.1 20"), permanent=False, reason="closed without a response"),
    Row(
        "headers without an end",
        lambda _: replies(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
        permanent=False,
        reason="not HTTP",
    ),
    *(
        Row(
            f"HTTP {status}",
            functools.partial(_says_no, status),
            permanent=status == 407,
            reason=f"the proxy refuses (ClientHttpProxyError: HTTP {status})",
        )
        for status in (407, 500, 502, 503, 504)
    ),
    Row("silence", lambda _: is_silent, permanent=False, reason="in time"),
    Row("a tunnel, then FIN", lambda _: tunnels_to(turns_away), permanent=False, reason="cannot be connected to"),
    Row("a tunnel, then RST", lambda _: tunnels_to(resets), permanent=False, reason="cannot be connected to"),
    Row("a tunnel, then silence", lambda _: tunnels_to(is_silent), permanent=False, reason="in time"),
    Row(
        "a tunnel, then plain HTTP",
        lambda _: tunnels_to(answers(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        permanent=True,
        reason="the TLS handshake failed",
    ),
    Row(
        "a tunnel to somebody else",
        lambda certificates: tunnels_to(encrypted(certificates.server("elsewhere.example"))),
        permanent=True,
        reason="not trusted",
    ),
]


@pytest.mark.parametrize("row", PROXY_ROWS, ids=lambda row: row.name)
async def test_a_tunnel_that_is_not_opened_sends_nothing(
    row: Row, certificates: Certificates, connecting: Connecting
) -> None:
    async with (
        Door(row.greet(certificates)) as proxy,
        connecting("https://127.0.0.1:9/session", certificates.client(), f"http://127.0.0.1:{proxy.port}") as client,
    ):
        error = await assert_nothing_is_sent(client, proxy, permanent=row.permanent)
    assert row.reason in str(error)
    assert proxy.heard[0].startswith(b"CONNECT 127.0.0.1:9 ")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_connections_sends_nothing(scheme: str, connecting: Connecting) -> None:
    async with Door(turns_away) as gone:
        pass
    async with connecting(f"{scheme}://127.0.0.1:9/session", proxy=f"http://127.0.0.1:{gone.port}") as client:
        with pytest.raises(TransportError, match="the proxy cannot be connected to") as caught:
            await client.send(SESSION, "telegram")
        assert caught.value.outcome is Outcome.NOT_SENT
        assert holds_no_key(caught.value)
        assert "no time is left" not in str(caught.value)
        assert await client.remaining(SESSION, "telegram") == 0


async def test_a_tunnel_that_is_opened_the_second_time_is_sent_through(
    certificates: Certificates, emulator: Emulator, session: str, connecting: Connecting
) -> None:
    async with Door(encrypted(certificates.server(), emulator.port)) as service:
        closed_or_open = iter([replies(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), tunnels(service.port)])

        async def greet(visitor: Visitor) -> int | None:
            return await next(closed_or_open)(visitor)

        async with (
            Door(greet) as proxy,
            connecting(
                "https://127.0.0.1:9/session", certificates.client(), f"http://127.0.0.1:{proxy.port}"
            ) as client,
        ):
            result = await client.send(session, "telegram")
    assert result.attempts == 2
    assert len(emulator.delivered(session)) == emulator.requests["send"] == 1


# -- through a tunnel --------------------------------------------------------------------------------------------------


@attrs.frozen
class Tunnel:
    proxy: Door
    service: Door
    client: KodmobiClient


@pytest.fixture
async def tunnel(certificates: Certificates, emulator: Emulator, connecting: Connecting) -> AsyncIterator[Tunnel]:
    async with (
        Door(encrypted(certificates.server(), emulator.port)) as service,
        Door(tunnels(service.port)) as proxy,
        connecting("https://127.0.0.1:9/session", certificates.client(), f"http://127.0.0.1:{proxy.port}") as client,
    ):
        yield Tunnel(proxy, service, client)


async def test_through_a_tunnel_a_send_succeeds_and_the_proxy_sees_no_key(
    tunnel: Tunnel, emulator: Emulator, session: str
) -> None:
    result = await tunnel.client.send(session, "telegram")
    assert result.attempts == 1
    await tunnel.client.send(session, "sms")
    assert tunnel.proxy.connections == tunnel.service.connections == 1
    assert len(emulator.delivered(session)) == 2
    assert KEY.encode() not in b"".join(tunnel.proxy.heard)


@pytest.mark.parametrize("fault", LOST_ANSWERS)
async def test_an_answer_lost_in_a_tunnel_is_unknown(
    fault: Fault, tunnel: Tunnel, emulator: Emulator, session: str
) -> None:
    emulator.script(fault, times=100, endpoint=None)
    await assert_unknown(tunnel.client, session)
    assert emulator.requests["send"] >= 1


async def test_an_answer_lost_in_a_tunnel_is_asked_for_and_not_sent_again(
    tunnel: Tunnel, emulator: Emulator, session: str
) -> None:
    emulator.script(Fault.close(process=True))
    result = await tunnel.client.send(session, "telegram")
    assert result.confirmed
    assert len(emulator.delivered(session)) == emulator.requests["send"] == 1


# -- a proxy for plain HTTP --------------------------------------------------------------------------------------------


def _posts(proxy: Door) -> int:
    return sum(words.startswith(b"POST http://127.0.0.1:9/session/send ") for words in proxy.heard)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(replies(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), id="HTTP 502"),
        pytest.param(replies(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n"), id="HTTP 504"),
        pytest.param(replies(b""), id="FIN"),
        pytest.param(replies(b"garbage\r\n\r\n"), id="garbage"),
    ],
)
async def test_a_plain_proxy_that_fails_after_the_request_is_unknown(reply: Greeting, connecting: Connecting) -> None:
    """Nobody knows whether it had passed the request on."""
    async with (
        Door(reply) as proxy,
        connecting("http://127.0.0.1:9/session", proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        await assert_unknown(client, SESSION)
    assert _posts(proxy) == 4


async def test_a_plain_proxys_502_is_told_as_the_cause(connecting: Connecting) -> None:
    async with (
        Door(replies(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")) as proxy,
        connecting("http://127.0.0.1:9/session", proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        error = await assert_unknown(client, SESSION)
    assert isinstance(error.__cause__, ServerError)
    assert error.__cause__.status == 502


async def test_a_plain_proxy_that_wants_credentials_refuses(connecting: Connecting) -> None:
    async with (
        Door(replies(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")) as proxy,
        connecting("http://127.0.0.1:9/session", proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        with pytest.raises(ResponseError) as caught:
            await client.send(SESSION, "telegram")
        assert caught.value.status == 407
        assert caught.value.outcome is Outcome.REFUSED
        assert holds_no_key(caught.value)
        assert await client.remaining(SESSION, "telegram") == 0
    assert _posts(proxy) == 1


async def test_through_a_plain_proxy_a_send_succeeds(emulator: Emulator, session: str, connecting: Connecting) -> None:
    async def passes_on(visitor: Visitor) -> None:
        request = await visitor.speaks(b"}")
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
        try:
            request = request.replace(b"http://127.0.0.1:9/", b"/")
            writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            visitor.say(await reader.read())
        finally:
            writer.close()

    async with (
        Door(passes_on) as proxy,
        connecting("http://127.0.0.1:9/session", proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        result = await client.send(session, "telegram")
    assert result.attempts == _posts(proxy) == len(emulator.delivered(session)) == 1


# -- a proxy with credentials, a proxy behind TLS ----------------------------------------------------------------------

CREDENTIALS: Final = "canary-user:canary%40password"
# their Base64
AUTHORIZATION: Final = b"Basic Y2FuYXJ5LXVzZXI6Y2FuYXJ5QHBhc3N3b3Jk"


@pytest.mark.parametrize("proxied_by", ["http", "https"])
async def test_credentials_open_a_proxy_and_show_up_nowhere(
    proxied_by: str, certificates: Certificates, emulator: Emulator, session: str, connecting: Connecting
) -> None:
    async with Door(encrypted(certificates.server(), emulator.port)) as service, contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Door(tunnels(service.port)))
        port = proxy.port
        if proxied_by == "https":
            port = (await stack.enter_async_context(Door(encrypted(certificates.server(), proxy.port)))).port
        url = f"{proxied_by}://{CREDENTIALS}@127.0.0.1:{port}"
        client = await stack.enter_async_context(connecting("https://127.0.0.1:9/session", certificates.client(), url))
        result = await client.send(session, "telegram")
        assert "canary" not in repr(client)
    assert result.attempts == 1
    assert len(emulator.delivered(session)) == 1
    assert b"Proxy-Authorization: " + AUTHORIZATION in proxy.heard[0]


async def test_credentials_open_a_plain_proxy_with_each_request(connecting: Connecting) -> None:
    async with Door(replies(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) as proxy:
        url = f"http://{CREDENTIALS}@127.0.0.1:{proxy.port}"
        async with connecting("http://127.0.0.1:9/session", proxy=url) as client:
            for channel in ("telegram", "sms"):
                with pytest.raises(ResponseError) as caught:
                    await client.send(SESSION, channel)
                assert "canary-user" not in f"{caught.value!r} {vars(caught.value)!r}"
    assert _posts(proxy) == 2
    assert all(b"Proxy-Authorization: " + AUTHORIZATION in words for words in proxy.heard)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1080",
        "127.0.0.1:3128",
        "http://",
        "http://proxy.example:port",
        "http://proxy.example/path?query",
        "http://us er@proxy.example",
        "",
        7,
    ],
)
def test_what_is_no_address_of_a_proxy_is_refused(proxy: Any) -> None:
    with pytest.raises(ConfigurationError, match="proxy takes an address like"):
        KodmobiClient(KEY, proxy=proxy)


@pytest.mark.parametrize("setting", [{"ssl": ssl.create_default_context()}, {"proxy": "http://127.0.0.1:1"}])
async def test_a_borrowed_session_brings_settings_of_its_own(setting: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="brings"):
            KodmobiClient(KEY, session=session, **setting)


@pytest.mark.parametrize("context", [True, False, "authority.pem", aiohttp.Fingerprint(bytes(32))])
def test_what_is_no_context_is_refused(context: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"ssl takes an ssl\.SSLContext"):
        KodmobiClient(KEY, ssl=context)
