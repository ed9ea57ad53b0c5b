"""A pool of our own: aiohttp's connector and parser, without the session on top of them.

A session builds a request, an address, a cookie jar's lookup and a response object for each call; all of that is the
same every time here, and costs four times what the exchange itself does. So the pool takes a connection from aiohttp's
connector (TLS, name resolution, proxies, limits and keep-alive are its business), writes the bytes of the request in
one call, and reads the response that aiohttp's parser makes of what comes back. That write is also the exact moment
from which the request counts as written.

A connection goes back to the pool only when its response was read to the end, and is used again only if nothing has
come over it since: what a service sends unasked must not be taken for the response to the next request. Until the
loop's next turn it stays at hand, so that a call which follows at once need not ask the connector.
"""

from __future__ import annotations

import asyncio
import base64
import math
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from kodmobi_async._rules.exchange import MAX_BODY_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from kodmobi_async._rules.exchange import Progress, Request
    from kodmobi_async._values.settings import Limits, Secret

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101
_JSON_OF: Final = "Content-Type: application/json\r\nContent-Length: "
_DNS_SECONDS: Final = 60
"""Seconds for which a name's addresses are kept."""
_NO_TRACES: Final[list[Trace]] = []


class _Exchange:
    """A connection that is waited on, and until when."""

    __slots__ = ("content", "deadline", "is_complete", "protocol")

    def __init__(self, protocol: ResponseHandler, deadline: float) -> None:
        self.protocol = protocol
        self.deadline = deadline
        self.content: aiohttp.StreamReader | None = None
        """The response's body, once its headers have come."""
        self.is_complete = False

    def expire(self) -> None:
        """End whichever wait is going on."""
        self.protocol.set_exception(aiohttp.SocketTimeoutError())
        if self.content is not None:
            self.content.set_exception(aiohttp.SocketTimeoutError())


class _Deadlines:
    """The deadlines of all exchanges, on one timer.

    A timer for each of them would be set and cancelled again, nearly always for nothing. This one fires at the earliest
    deadline it was set for, ends what is due, and is set to the earliest of the others.
    """

    __slots__ = ("_exchanges", "_fires_at", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._exchanges: set[_Exchange] = set()
        self._fires_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, protocol: ResponseHandler, deadline: float) -> _Exchange:
        exchange = _Exchange(protocol, deadline)
        self._exchanges.add(exchange)
        if deadline < self._fires_at:
            self._set(deadline)
        return exchange

    def end(self, exchange: _Exchange) -> None:
        self._exchanges.discard(exchange)

    def stop(self) -> None:
        self._set(math.inf)

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = moment
        self._timer = None if moment == math.inf else self._loop.call_at(moment, self._fire)

    def _fire(self) -> None:
        due = [exchange for exchange in self._exchanges if exchange.deadline <= self._fires_at]
        self._exchanges.difference_update(due)
        for exchange in due:
            exchange.expire()
        self._set(min((exchange.deadline for exchange in self._exchanges), default=math.inf))


class Pool:
    """Connections to one service. Build it on the loop that uses it.

    Args:
        base_url: The checked address.
        headers: What goes with every request, but for the key.
        keys: The public key, and the secret one if there is one.
        limits: Connections and keep-alive.
        ssl: Whom to trust; ``None`` = the system's authorities.
        proxy: The checked address of a proxy, with its credentials; ``None`` = connect directly.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        keys: tuple[Secret[str], Secret[str | None]],
        limits: Limits,
        *,
        ssl: ssl.SSLContext | None = None,
        proxy: Secret[str] | None = None,
    ) -> None:
        url = URL(base_url)
        proxy_url = None if proxy is None else URL(proxy.value)
        self._loop = asyncio.get_running_loop()
        self._deadlines = _Deadlines(self._loop)
        # Names the origin to connect to; it is never sent itself.
        self._origin = aiohttp.ClientRequest(
            "GET", url, loop=self._loop, ssl=True if ssl is None else ssl, proxy=proxy_url
        )
        self._connector = aiohttp.TCPConnector(
            limit=limits.connections, keepalive_timeout=limits.keepalive, ttl_dns_cache=_DNS_SECONDS
        )
        self._keeps_none = limits.keepalive == 0
        self._connecting = 0  # calls that wait for the connector
        self._at_hand: list[Connection] = []
        self._timeout = aiohttp.ClientTimeout()
        self._path = url.raw_path.rstrip("/")
        lines = {"Host": self._origin.headers["Host"], **headers}
        if proxy_url is not None and url.scheme == "http":
            # without a tunnel, the proxy is told the whole address, and reads the request's own headers
            self._path = f"{url.origin()}{self._path}"
            if proxy_url.user is not None:
                credentials = f"{proxy_url.user}:{proxy_url.password or ''}".encode()
                lines["Proxy-Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
        common = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        public, secret = keys
        self._headers = f"{common}x-api-key: {public.value}\r\n"
        self._secret_headers = self._headers if secret.value is None else f"{common}x-api-key: {secret.value}\r\n"

    async def exchange(self, request: Request, progress: Progress, *, deadline: float, connect: float) -> bytes | None:
        """Make one exchange and return the response's body; ``None`` if it is longer than ``MAX_BODY_BYTES``.

        Args:
            request: What to send.
            progress: Where to note how far it came; the response's status and headers come to stand there.
            deadline: When all of it has to be over, on the loop's clock.
            connect: Seconds for getting a connection.

        Raises:
            Exception: One of aiohttp's, or ``TimeoutError``.
        """
        self._set_connect_timeout(connect)
        connection = self._at_hand.pop() if self._at_hand else await self._connect()
        exchange = None
        try:
            protocol = connection.protocol
            if protocol is None or protocol.transport is None or protocol.should_close:
                progress.unusable = True
                raise aiohttp.ClientConnectionResetError
            exchange = self._deadlines.begin(protocol, deadline)
            protocol.set_response_params(read_until_eof=True)
            progress.written, progress.connection = True, protocol
            protocol.transport.write(self._serialize(request))
            message, content = await protocol.read()
            while message.code in _INTERIM and message.code != _SWITCHING:
                message, content = await protocol.read()
            exchange.content = content
            progress.status, progress.headers = message.code, message.headers
            body = await read_body(content)
            exchange.is_complete = body is not None
            return body
        finally:
            if exchange is not None:
                self._deadlines.end(exchange)
            if exchange is None or not exchange.is_complete:
                connection.close()
            elif self._connecting or self._keeps_none or exchange.protocol.should_close:
                connection.release()
            else:
                if not self._at_hand:
                    self._loop.call_soon(self._give_back)
                self._at_hand.append(connection)

    async def open(self, connections: int, connect: float) -> None:
        """See that so many connections are open and idle.

        Args:
            connections: How many.
            connect: Seconds for opening each of them; all are opened at a time.

        Raises:
            Exception: One of aiohttp's. Those that could be opened stay open.
        """
        self._set_connect_timeout(connect)
        self._give_back()
        opened: list[Connection] = []

        async def open_one() -> None:
            opened.append(await self._connect())

        try:
            results = await asyncio.gather(*(open_one() for _ in range(connections)), return_exceptions=True)
        finally:
            # also when cancelled: aiohttp logs a connection that is dropped, with the proxy's credentials
            for connection in opened:
                connection.release()
        for failure in results:
            if failure is not None:
                raise failure

    def _set_connect_timeout(self, seconds: float) -> None:
        if self._timeout.connect != seconds:
            # never rounded up to whole seconds, as aiohttp does with long ones
            self._timeout = aiohttp.ClientTimeout(connect=seconds, ceil_threshold=float("inf"))

    async def _connect(self) -> Connection:
        self._connecting += 1
        try:
            return await self._connector.connect(self._origin, _NO_TRACES, self._timeout)
        except TimeoutError as late:
            raise aiohttp.ConnectionTimeoutError from late
        finally:
            self._connecting -= 1

    def _give_back(self) -> None:
        """Give the connections that no call has taken to the connector."""
        while self._at_hand:
            self._at_hand.pop().release()

    async def aclose(self) -> None:
        """Close all connections, those in use included."""
        self._deadlines.stop()
        self._give_back()
        await self._connector.close()

    def _serialize(self, request: Request) -> bytes:
        headers = self._secret_headers if request.takes_secret_key else self._headers
        if request.headers is not None:
            headers += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        start = f"{request.method} {self._path}{request.target}"
        if request.body is None:
            return f"{start} HTTP/1.1\r\n{headers}\r\n".encode("ascii")
        size = len(request.body)
        return f"{start} HTTP/1.1\r\n{headers}{_JSON_OF}{size}\r\n\r\n".encode("ascii") + request.body


async def read_body(content: aiohttp.StreamReader) -> bytes | None:
    """Read a response's body to its end; return ``None`` if that lies beyond ``MAX_BODY_BYTES``.

    Raises:
        Exception: One of aiohttp's: the body is cut short, or cannot be decoded.
    """
    # nearly always, all of it came in one piece, and has come by now
    chunk = body = content.read_nowait() if content.is_eof() else await content.readany()
    while chunk and not content.is_eof():
        if len(body) > MAX_BODY_BYTES:
            return None
        chunk = await content.readany()
        body += chunk
    return body if len(body) <= MAX_BODY_BYTES else None
