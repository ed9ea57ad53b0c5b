"""A pool of our own: aiohttp's connector and parser, without the session on top of them.

A session builds a request, an address, a cookie jar's answer and a response object for each call; all of that is the
same every time here, and costs four times what the exchange itself does. So the pool takes a connection from aiohttp's
connector (TLS, name resolution, limits and keep-alive are its business), writes the bytes of the request in one stroke,
and reads the answer that aiohttp's parser makes of what comes back. That stroke is also the exact moment in which the
request counts as written.

A connection goes back to the pool only when its answer was read to the end, and is used again only if nothing has
come over it since: what a service says unasked must not be taken for the answer to the next request.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from kodmobi_async._wire import MAX_BODY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from kodmobi_async._settings import Limits
    from kodmobi_async._wire import Progress, Request

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101
_JSON_OF: Final = "Content-Type: application/json\r\nContent-Length: "
_NO_TRACES: Final[list[Trace]] = []


class _Exchange:
    """A connection that is waited on, and until when."""

    __slots__ = ("content", "deadline", "is_complete", "protocol")

    def __init__(self, protocol: ResponseHandler, deadline: float) -> None:
        self.protocol = protocol
        self.deadline = deadline
        self.content: aiohttp.StreamReader | None = None
        """The answer's body, once its headers have come."""
        self.is_complete = False

    def expire(self) -> None:
        """End whichever wait is going on."""
        self.protocol.set_exception(aiohttp.SocketTimeoutError())
        if self.content is not None:
            self.content.set_exception(aiohttp.SocketTimeoutError())


class _Watch:
    """The deadlines of all exchanges, on one timer.

    A timer for each of them would be set and cancelled again, nearly always for nothing. This one rings at the earliest
    deadline it was set for, ends what is due, and is set to the earliest of the others.
    """

    __slots__ = ("_exchanges", "_loop", "_rings_at", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._exchanges: set[_Exchange] = set()
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, protocol: ResponseHandler, deadline: float) -> _Exchange:
        exchange = _Exchange(protocol, deadline)
        self._exchanges.add(exchange)
        if deadline < self._rings_at:
            self._set(deadline)
        return exchange

    def end(self, exchange: _Exchange) -> None:
        self._exchanges.discard(exchange)

    def stop(self) -> None:
        self._set(math.inf)

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = None if moment == math.inf else self._loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        due = [exchange for exchange in self._exchanges if exchange.deadline <= self._rings_at]
        self._exchanges.difference_update(due)
        for exchange in due:
            exchange.expire()
        self._set(min((exchange.deadline for exchange in self._exchanges), default=math.inf))


class Pool:
    """Connections to one service. Build it on the loop that uses it.

    Args:
        base_url: The checked address.
        headers: What goes with every request, the key included.
        limits: Connections and keep-alive.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], limits: Limits) -> None:
        url = URL(base_url)
        # Names the place to connect to; it is never sent itself.
        self._loop = asyncio.get_running_loop()
        self._watch = _Watch(self._loop)
        self._place = aiohttp.ClientRequest("GET", url, loop=self._loop)
        self._connector = aiohttp.TCPConnector(limit=limits.connections, keepalive_timeout=limits.keepalive)
        self._patience = aiohttp.ClientTimeout()
        self._path = url.raw_path.rstrip("/")
        lines = {"Host": self._place.headers["Host"], **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    async def ask(self, request: Request, progress: Progress, *, deadline: float, connect: float) -> bytes | None:
        """Make one exchange and return the answer's body; ``None`` if it is longer than ``MAX_BODY_BYTES``.

        Args:
            request: What to ask.
            progress: Where to note how far it came; the answer's status and headers come to stand there.
            deadline: When all of it has to be over, on the loop's clock.
            connect: Seconds for getting a connection.

        Raises:
            Exception: One of aiohttp's, or ``TimeoutError``.
        """
        if self._patience.connect != connect:
            # never rounded up to whole seconds, as aiohttp does with long ones
            self._patience = aiohttp.ClientTimeout(connect=connect, ceil_threshold=float("inf"))
        try:
            connection = await self._connector.connect(self._place, _NO_TRACES, self._patience)
        except TimeoutError as late:
            raise aiohttp.ConnectionTimeoutError from late
        exchange = None
        try:
            protocol = connection.protocol
            if protocol is None or protocol.transport is None or protocol.should_close:
                progress.unusable = True
                raise aiohttp.ClientConnectionResetError
            exchange = self._watch.begin(protocol, deadline)
            protocol.set_response_params(read_until_eof=True)
            progress.written, progress.connection = True, protocol
            protocol.transport.write(self._spell(request))
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
                self._watch.end(exchange)
            if exchange is not None and exchange.is_complete:
                connection.release()
            else:
                connection.close()

    async def aclose(self) -> None:
        """Close all connections, those in use included."""
        self._watch.stop()
        await self._connector.close()

    def _spell(self, request: Request) -> bytes:
        start = f"{request.method} {self._path}{request.target}"
        if request.body is None:
            return f"{start} HTTP/1.1\r\n{self._headers}\r\n".encode("ascii")
        size = len(request.body)
        return f"{start} HTTP/1.1\r\n{self._headers}{_JSON_OF}{size}\r\n\r\n".encode("ascii") + request.body


async def read_body(content: aiohttp.StreamReader) -> bytes | None:
    """Read an answer's body to its end; return ``None`` if that lies beyond ``MAX_BODY_BYTES``.

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
