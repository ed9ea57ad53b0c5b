"""The part of HTTP/1.1 that the emulator needs, and needs to be able to break.

A fault concerns single bytes, and the moment at which a connection ends. A server framework hides both, so the
emulator reads requests from the stream and writes responses to it by itself.
"""

from __future__ import annotations

import asyncio
import http
import os
import socket
import struct
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from kodmobi_async.emulator._choices import MAX_BODY_BYTES

__all__ = ("Connection", "Request", "RequestLine", "Response", "UnreadableRequestError")

_MAX_HEADERS: Final = 100
_WITHOUT_BODY: Final = frozenset({http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED})
_READ_BYTES: Final = 64 * 1024
# struct linger: switched on, zero seconds. Closing such a socket sends RST instead of FIN.
_RESET_ON_CLOSE: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class UnreadableRequestError(Exception):
    """The bytes are not a request, or the request is too large."""


@attrs.frozen
class RequestLine:
    """The first line of a request."""

    method: str
    path: str
    query: str
    version: str


@attrs.frozen
class Request:
    """A complete request; header names are in lower case."""

    line: RequestLine
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def keep_alive(self) -> bool:
        """Whether the client may use the connection again."""
        return self.line.version == "HTTP/1.1" and "close" not in self.headers.get("connection", "").lower()


@attrs.frozen
class Response:
    """A status, a body, and headers that replace the default ones of the same name.

    More follows the body of an ``endless`` response, until the connection ends.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.Factory(dict[str, str])
    endless: bool = False

    @property
    def keep_alive(self) -> bool:
        """Whether the response leaves the connection open."""
        return not any(
            name.lower() == "connection" and "close" in value.lower() for name, value in self.headers.items()
        )

    def render(self, defaults: Mapping[str, str], *, keep_alive: bool, headless: bool = False) -> tuple[bytes, bytes]:
        """Return the bytes of the head, blank line included, and of the body.

        Args:
            defaults: Headers for what the response itself does not say.
            keep_alive: Whether the connection stays open.
            headless: The response has no body, because the request was a HEAD.
        """
        headers = dict(defaults)
        given = {name.lower() for name in self.headers}
        if not self.endless and "transfer-encoding" not in given and self.status not in _WITHOUT_BODY:
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
    """An accepted connection.

    Every method may raise ``OSError`` or ``EOFError``: the client has gone.
    """

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def read_line(self) -> RequestLine | None:
        """Wait for the first line of the next request; return None if the client sends no more.

        Raises:
            UnreadableRequestError: It is not a request line.
        """
        try:
            line = await self._read_text_line()
            while not line:  # RFC 9112, 2.2: a server ignores empty lines before a request
                line = await self._read_text_line()
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        return _parse_line(line)

    async def read_rest(self, line: RequestLine) -> Request:
        """Read the headers and the body that follow ``line``.

        Raises:
            UnreadableRequestError: They are not HTTP, or too large.
        """
        headers = await self._read_headers()
        if headers.get("expect", "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Request(line, headers, await self._read_chunks())
        length = _bounded(headers.get("content-length", "0"), base=10)
        return Request(line, headers, await self._reader.readexactly(length))

    @property
    def local_host(self) -> str:
        """The address at which the client reached this machine."""
        name: tuple[str, int] = self._writer.get_extra_info("sockname")
        return name[0]

    async def write(self, data: bytes) -> None:
        """Send ``data``."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, *, reset: bool = False) -> None:
        """End the connection: with FIN, or with RST when ``reset``.

        After FIN, it reads and drops what still arrives: closing a socket with unread bytes would send RST.
        """
        if reset:
            sock: socket.socket = self._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._writer.transport.abort()
        else:
            self._writer.write_eof()
            await self.client_leaves()

    async def client_leaves(self) -> None:
        """Wait until the client closes its side; drop what it sends until then."""
        while await self._reader.read(_READ_BYTES):
            pass

    async def close(self) -> None:
        """Flush the written bytes, then close."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection now, with all bytes not sent yet."""
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
    """Parse a length, from 0 to the size of the largest body that is accepted."""
    text = text.strip()
    try:
        length = int(text, base) if text.isascii() and text.isalnum() else -1
    except ValueError:
        length = -1
    if not 0 <= length <= MAX_BODY_BYTES:
        raise UnreadableRequestError
    return length
