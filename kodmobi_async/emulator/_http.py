"""As much of HTTP/1.1 as a service needs that must also be able to break it.

A fault is a matter of single bytes and of the moment a connection ends. A server framework hides exactly these, so the
emulator reads requests and writes answers on the stream itself.
"""

from __future__ import annotations

import asyncio
import http
import os
import socket
import struct
from collections.abc import Mapping
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from kodmobi_async.emulator._choices import MAX_BODY_BYTES

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ("Answer", "Connection", "Request", "RequestLine", "UnreadableRequestError")

_MAX_HEADERS: Final = 100
_READ_BYTES: Final = 64 * 1024
# struct linger: switched on, zero seconds. Closing such a socket sends RST instead of FIN.
_RESET_ON_CLOSE: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class UnreadableRequestError(Exception):
    """The bytes are not a request, or more of one than is read here."""


@attrs.frozen
class RequestLine:
    """The first line of a request."""

    method: str
    path: str
    query: str
    version: str


@attrs.frozen
class Request:
    """A request that was read to its end; header names are in lower case."""

    line: RequestLine
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def keep_alive(self) -> bool:
        """Whether the client may want to use the connection again."""
        return self.line.version == "HTTP/1.1" and "close" not in self.headers.get("connection", "").lower()


@attrs.frozen
class Answer:
    """A status, a body, and headers that go before the default ones."""

    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.Factory(dict[str, str])

    @property
    def keep_alive(self) -> bool:
        """Whether the answer leaves the connection open."""
        return not any(
            name.lower() == "connection" and "close" in value.lower() for name, value in self.headers.items()
        )

    def render(self, date: datetime, *, keep_alive: bool, headless: bool = False) -> tuple[bytes, bytes]:
        """Return the bytes of the head, up to the blank line, and those of the body.

        Args:
            date: What the ``Date`` header says.
            keep_alive: Whether the connection stays open.
            headless: The request was a HEAD: its answer has no body.
        """
        headers = {"Date": format_datetime(date, usegmt=True), "Content-Type": "application/json; charset=utf-8"}
        given = {name.lower() for name in self.headers}
        if "transfer-encoding" not in given and self.status not in {
            http.HTTPStatus.NO_CONTENT,
            http.HTTPStatus.NOT_MODIFIED,
        }:
            headers["Content-Length"] = str(len(self.body))
        if not keep_alive:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        return head, b"" if headless else self.body


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


@attrs.frozen
class Connection:
    """One accepted connection.

    Every method may raise ``OSError`` or ``EOFError``: the client is gone.
    """

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def read_line(self) -> RequestLine | None:
        """Wait for the first line of the next request; None when the client has no more.

        Raises:
            UnreadableRequestError: This is no request line.
        """
        try:
            line = await self._read_text_line()
            while not line:  # RFC 9112, 2.2: empty lines before a request are passed over
                line = await self._read_text_line()
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        return _parse_line(line)

    async def read_rest(self, line: RequestLine) -> Request:
        """Read the headers and the body that follow ``line``.

        Raises:
            UnreadableRequestError: They are no HTTP, or too large.
        """
        headers = await self._read_headers()
        if headers.get("expect", "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Request(line, headers, await self._read_chunks())
        length = _bounded(headers.get("content-length", "0"), base=10)
        return Request(line, headers, await self._reader.readexactly(length))

    async def write(self, data: bytes) -> None:
        """Send ``data``."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, *, reset: bool = False) -> None:
        """End the connection: with FIN, or with RST when ``reset``.

        After FIN, what still comes in is read and dropped: to close a socket with unread bytes would send RST instead.
        """
        if reset:
            sock: socket.socket = self._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._writer.transport.abort()
        else:
            self._writer.write_eof()
            await self.client_leaves()

    async def client_leaves(self) -> None:
        """Wait until the client ends its side; drop what it sends until then."""
        while await self._reader.read(_READ_BYTES):
            pass

    async def close(self) -> None:
        """Flush what was written and close."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection, and what was not sent yet, now."""
        self._writer.transport.abort()

    async def _read_text_line(self) -> str:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise UnreadableRequestError from None
        return line.decode("latin-1").rstrip("\r\n")

    async def _read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS):
            line = await self._read_text_line()
            if not line:
                return headers
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise UnreadableRequestError
            headers[name.lower()] = value.strip()
        raise UnreadableRequestError

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := _bounded((await self._read_text_line()).partition(";")[0], base=16):
            if len(body) + size > MAX_BODY_BYTES:
                raise UnreadableRequestError
            body += await self._reader.readexactly(size)
            if await self._read_text_line():
                raise UnreadableRequestError
        await self._read_headers()  # trailers
        return bytes(body)


def _parse_line(line: str) -> RequestLine:
    try:
        method, target, version = line.split(" ")
        url = urlsplit(target)
    except ValueError:
        raise UnreadableRequestError from None
    if version not in {"HTTP/1.0", "HTTP/1.1"}:
        raise UnreadableRequestError
    return RequestLine(method, url.path, url.query, version)


def _bounded(text: str, *, base: int) -> int:
    """Read a length on the wire, from 0 to the largest body that is read."""
    text = text.strip()
    try:
        length = int(text, base) if text.isascii() and text.isalnum() else -1
    except ValueError:
        length = -1
    if not 0 <= length <= MAX_BODY_BYTES:
        raise UnreadableRequestError
    return length
