"""HTTP by hand, as little of it as gets an answer: what a call would cost if nothing could go wrong."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Self, cast

if TYPE_CHECKING:
    from types import TracebackType

_LENGTH: Final = re.compile(rb"\r\nContent-Length: ([0-9]+)")


class Exchange(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand over the body when it is complete."""
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self._buffer = data
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(data[end + 4 :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait for ever."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    async def ask(self, request: bytes) -> bytes:
        """Write a request, return the body of its answer."""
        if self._transport is None:
            raise ConnectionError("not connected")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class Pool:
    """Connections to one address, opened as they are needed; who uses it makes no more calls at a time than fit."""

    def __init__(self, host: str, port: int, size: int) -> None:
        self._host, self._port, self._size = host, port, size
        self._idle: list[Exchange] = []
        self._all: list[Exchange] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for exchange in self._all:
            exchange.close()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def ask(self, request: bytes) -> bytes:
        """Make one exchange on an idle connection, or on a new one."""
        exchange = self._idle.pop() if self._idle else await self._connect()
        answer = await exchange.ask(request)
        self._idle.append(exchange)
        return answer

    async def _connect(self) -> Exchange:
        if len(self._all) >= self._size:
            raise RuntimeError("more calls at a time than the pool was made for")
        loop = asyncio.get_running_loop()
        exchange = Exchange()
        self._all.append(exchange)
        await loop.create_connection(lambda: exchange, self._host, self._port)
        return exchange
