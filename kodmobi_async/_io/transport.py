"""One HTTP exchange on a pool of our own, or on a borrowed session. No module but this and `_pool` imports aiohttp.

The invariant: **whether the request was written is known, not concluded.** The same exceptions come before a byte has
left and after the service has read everything, so `Progress` notes the moment in which a request is handed to a
connected socket, and the status, when it has come. Who is cancelled in the middle of an exchange reads there how far it
went.

aiohttp's exceptions hold the request's headers, the API key among them. None leaves this module, not even as the
context of another: each is translated into a `Failure` by one table, and a cancellation is passed on without the frames
of aiohttp, whose variables hold the headers too.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http import HttpProcessingError
from aiohttp.payload import BytesPayload

from kodmobi_async._io.pool import Pool, read_body
from kodmobi_async._rules.exchange import MAX_BODY_BYTES, Failure, Progress, Request, Response
from kodmobi_async._values.errors import ClientClosedError, ConfigurationError, WrongLoopError
from kodmobi_async._version import __version__

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from aiohttp.abc import AbstractStreamWriter

    from kodmobi_async._values.settings import Limits, Secret


# The first match counts: ClientConnectorError is a ClientOSError, ConnectionTimeoutError a TimeoutError, and so on.
_FAILURES: Final[tuple[tuple[type[Exception], str, bool], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "the TLS certificate is not trusted", True),
    (aiohttp.ClientConnectorSSLError, "the TLS handshake failed", True),
    (aiohttp.ServerFingerprintMismatch, "the TLS certificate is not the expected one", True),
    (aiohttp.ClientConnectorDNSError, "the host name cannot be resolved", False),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be connected to", False),
    (aiohttp.ClientHttpProxyError, "the proxy refuses", False),
    (aiohttp.ClientConnectorError, "the service cannot be connected to", False),
    (aiohttp.ConnectionTimeoutError, "no connection was free in time", False),
    (aiohttp.ServerTimeoutError, "no response came in time", False),
    (TimeoutError, "time ran out", False),
    (aiohttp.ServerDisconnectedError, "the connection was closed without a response", False),
    (aiohttp.ClientResponseError, "the response is not HTTP", False),
    (HttpProcessingError, "the response is not HTTP", False),
    (aiohttp.ClientPayloadError, "the response's body is broken", False),
    (aiohttp.InvalidURL, "the address cannot be used", True),
    (aiohttp.ClientConnectionError, "the connection broke", False),
    (aiohttp.ClientError, "HTTP went wrong", False),
    (OSError, "the network failed", False),
)
_PROXY_WANTS_CREDENTIALS: Final = 407
_NO_TIME: Final = Failure("no time is left", permanent=True)

# How many idle connections that turn out to be closed are replaced in a row.
_STALE_CONNECTIONS: Final = 3


def translate(exception: Exception) -> Failure:
    """Return what an exception of an exchange means, keeping nothing of it but its kind and the system's error."""
    reason, permanent = _kind_of(exception)
    detail = type(exception).__name__
    if isinstance(exception, aiohttp.ClientHttpProxyError):
        detail += f": HTTP {exception.status}"
        permanent = exception.status == _PROXY_WANTS_CREDENTIALS
    elif isinstance(exception, OSError) and exception.errno is not None and exception.errno > 0:
        # (the resolver's own numbers are below zero)
        detail += f": {os.strerror(exception.errno)}"
    return Failure(f"{reason} ({detail})", permanent)


def _kind_of(exception: Exception) -> tuple[str, bool]:
    for kind, reason, permanent in _FAILURES:
        if isinstance(exception, kind):
            return reason, permanent
    return "the HTTP client failed", True  # not of the network: a middleware's own, say


class _NotedBody(BytesPayload):
    """A request's body that notes when it is written. aiohttp writes the headers in the same stroke, or before."""

    def __init__(self, body: bytes, progress: Progress) -> None:
        super().__init__(body, content_type="application/json")
        self._progress = progress

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._progress.written = True
        self._progress.connection = getattr(writer, "protocol", None)  # the abstract writer does not know it
        try:
            await super().write_with_length(writer, content_length)
        except aiohttp.ClientConnectionResetError:
            # raised before anything is handed to the socket: the pool's connection was closed already
            self._progress.written = False
            self._progress.unusable = True
            raise


class Transport:
    """The connections, and how to make an exchange over them.

    Args:
        base_url: The checked address.
        keys: The public key, and the secret one if there is one. They go into the headers of requests and nowhere else.
        limits: Connections and keep-alive of a pool of our own.
        language: For ``Accept-Language``.
        session: A session to borrow instead of a pool of our own; never closed here.
        ssl: Whom a pool of our own trusts.
        proxy: What a pool of our own connects through.
    """

    def __init__(
        self,
        *,
        base_url: str,
        keys: tuple[Secret[str], Secret[str | None]],
        limits: Limits,
        language: str | None,
        session: aiohttp.ClientSession | None,
        ssl: ssl.SSLContext | None = None,
        proxy: Secret[str] | None = None,
    ) -> None:
        self.base_url = base_url
        self._keys = keys
        self._limits = limits
        self._borrowed = session
        self._ssl = ssl
        self._proxy = proxy
        self._pool: Pool | None = None
        self._guard: AsyncGenerator[None] | None = None
        self._headers = {
            "Accept": "application/json",
            # responses are small; not asking for compression spares both sides the work
            "Accept-Encoding": "identity",
            "User-Agent": f"kodmobi_async/{__version__}",
        }
        if language is not None:
            self._headers["Accept-Language"] = language

    async def exchange(
        self, request: Request, progress: Progress, *, deadline: float, connect: float
    ) -> Response | Failure:
        """Send one request and read its response.

        A connection that the service has closed while it was idle is replaced silently: no byte has left.

        Args:
            request: What to send.
            progress: Where to note how far it came.
            deadline: When all of it has to be over, on the loop's clock.
            connect: Seconds for getting a connection.

        Raises:
            ClientClosedError: The borrowed session is closed.
            WrongLoopError: The borrowed session belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self._borrowed is None:
            exchange = (self._pool or await self._open()).exchange
        else:
            self._check(self._borrowed)
            exchange = self._exchange_borrowed
        failure = _NO_TIME
        replaced = 0
        while (within := deadline - loop.time()) > 0:
            progress.unusable = False
            try:
                body = await exchange(request, progress, deadline=deadline, connect=min(connect, within))
                if body is None:
                    failure = Failure(f"it is longer than {MAX_BODY_BYTES} bytes")
                    break
                return Response(progress.status or 0, progress.headers, body)
            except asyncio.CancelledError as cancelled:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise cancelled.with_traceback(None) from None
                failure = Failure("the pool was closed meanwhile")
            except Exception as exception:  # noqa: BLE001 whatever it is, it holds the headers and must not get out
                failure = translate(exception)
            replaced += 1
            if not progress.unusable or replaced > _STALE_CONNECTIONS:
                break
        if progress.status is None:
            return failure
        # the status counts even if the body cannot be read
        return Response(progress.status, progress.headers, flaw=failure.reason)

    async def connect(self, connections: int, connect: float) -> Failure | None:
        """See that so many connections of a pool of our own are open; return why they are not.

        Args:
            connections: How many.
            connect: Seconds for opening each of them.

        Raises:
            ConfigurationError: The pool is a borrowed session's.
        """
        if self._borrowed is not None:
            raise ConfigurationError(
                "connect opens connections of the client's own pool: a borrowed session has its own"
            )
        try:
            await (self._pool or await self._open()).open(connections, connect)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise cancelled.with_traceback(None) from None
            return Failure("the pool was closed meanwhile")
        except Exception as exception:  # noqa: BLE001 whatever it is, it holds the headers and must not get out
            return translate(exception)
        return None

    async def _exchange_borrowed(
        self, request: Request, progress: Progress, *, deadline: float, connect: float
    ) -> bytes | None:
        """Do what `Pool.exchange` does, with a session's public means."""
        assert self._borrowed is not None  # noqa: S101 chosen only then
        # asyncio's own timer, not aiohttp's total: that one swallows a cancellation that comes in the turn in which it
        # runs out
        async with asyncio.timeout_at(deadline):
            response = await self._borrowed.request(
                request.method,
                self.base_url + request.target,
                data=None if request.body is None else _NotedBody(request.body, progress),
                headers=self._headers_of(request),
                # never rounded up to whole seconds, as aiohttp does with long ones
                timeout=aiohttp.ClientTimeout(total=None, connect=connect, ceil_threshold=float("inf")),
                # a redirect would carry the key elsewhere
                allow_redirects=False,
                raise_for_status=False,
            )
            progress.status, progress.headers = response.status, response.headers
            try:
                return await read_body(response.content)
            finally:
                response.close()  # a connection whose response was read to its end is back in the pool already

    def _headers_of(self, request: Request) -> dict[str, str]:
        public, secret = self._keys
        key = secret.value if request.takes_secret_key and secret.value is not None else public.value
        return {**self._headers, "x-api-key": key, **(request.headers or {})}

    async def aclose(self) -> None:
        """Close the pool, if it is our own."""
        guard, self._guard, self._pool = self._guard, None, None
        if guard is not None:
            await guard.aclose()

    async def leave(self, *, forked: bool) -> None:
        """Let go of a pool whose loop is closed, or that a fork has copied from the parent process."""
        pool, guard = self._pool, self._guard
        self._pool = self._guard = None
        if forked:
            _left_to_the_parent.append((pool, guard))
        elif pool is not None:
            await pool.aclose()

    async def _open(self) -> Pool:
        pool = self._pool = Pool(
            self.base_url, self._headers, self._keys, self._limits, ssl=self._ssl, proxy=self._proxy
        )
        # A loop finishes its asynchronous generators before it closes: a client that nobody closed leaves no open
        # connection behind.
        self._guard = _closing(pool)
        await anext(self._guard)
        return pool

    def _check(self, session: aiohttp.ClientSession) -> None:
        if session.closed:
            raise ClientClosedError("the borrowed aiohttp session is closed")
        # aiohttp has no public word for it, and would notice only after connecting
        if getattr(session, "_loop", None) not in (None, asyncio.get_running_loop()):
            raise WrongLoopError("the borrowed aiohttp session belongs to another event loop")


async def _closing(pool: Pool) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await pool.aclose()


# Pools that a fork has copied. Closing them in the child would end the parent's connections; so would forgetting them,
# as their sockets close when they go.
_left_to_the_parent: Final[list[object]] = []
