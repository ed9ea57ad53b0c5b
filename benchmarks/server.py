"""A server that costs next to nothing, in a process of its own, and that can prove it.

It answers every request with the documented answer of the service whose path is asked for, on connections that it
keeps. How long it takes stands in the path: ``/10/session/send`` is answered after 10 ms. ``GET /usage`` tells how much
processor time it has used, so that who measures can see that the server was not what the clients waited for.

Run as a module it prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from benchmarks.loops import factory, fastest, raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG: Final = 4_096
SESSION_LIFE: Final = timedelta(minutes=3)
EXAMPLE_ID: Final = "01K8N1VMPN0EE389K72YW0CBM2"

_SESSION_ID: Final = re.compile(rb'"session_id":\s*"([0-9A-Z]{26})"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_ROUTE: Final = re.compile(rb"(POST|GET) /(?:([0-9]+)/)?(\S*) HTTP/1\.1")


def send_answer(now: datetime) -> bytes:
    """Return the documented answer to ``POST /session/send``; the session's id is put in later."""
    expires = (now + SESSION_LIFE).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    channel = {
        "name": "Telegram",
        "type": "telegram",
        "is_active": False,
        "timeout": 60,
        "image_url": "https://storage.kod.mobi/icons/telegram.svg",
        "link": "https://t.me/my-tg-bot",
    }
    answer = {"session_id": EXAMPLE_ID, "session_expired_at": expires, "channel": channel}
    return json.dumps(answer, separators=(",", ":")).encode()


def slack_answer(_: datetime) -> bytes:
    """Return the documented answer to ``chat.postMessage``."""
    message = {"bot_id": "B123ABC456", "type": "message", "text": "Here is your code", "ts": "1503435956.000247"}
    return json.dumps({"ok": True, "channel": "C123ABC456", "ts": "1503435956.000247", "message": message}).encode()


def twilio_answer(now: datetime) -> bytes:
    """Return the documented answer to creating a Verify verification."""
    moment = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    answer = {
        "sid": "VE" + "0" * 32,
        "service_sid": "VA" + "0" * 32,
        "account_sid": "AC" + "0" * 32,
        "to": "+15017122661",
        "channel": "sms",
        "status": "pending",
        "valid": False,
        "date_created": moment,
        "date_updated": moment,
        "lookup": {},
        "send_code_attempts": [{"time": moment, "channel": "SMS", "attempt_sid": "VL" + "0" * 32}],
        "url": "https://verify.twilio.com/v2/Services/VA/Verifications/VE",
    }
    return json.dumps(answer).encode()


def prelude_answer(_: datetime) -> bytes:
    """Return the documented answer to creating a verification."""
    answer = {
        "id": "vrf_01jc0t6fwwfgfsq1md24mhyztj",
        "status": "success",
        "method": "message",
        "channels": ["sms"],
        "request_id": "3d19215e-2991-4a05-a41a-527314e6ff6a",
    }
    return json.dumps(answer).encode()


# By the end of the path: the status, and who writes the body.
ANSWERS: Final[dict[str, tuple[str, Callable[[datetime], bytes]]]] = {
    "session/send": ("200 OK", send_answer),
    "api/chat.postMessage": ("200 OK", slack_answer),
    "Verifications": ("201 Created", twilio_answer),
    "v2/verification": ("200 OK", prelude_answer),
}


class Usage(NamedTuple):
    """What the server has used and done since it began."""

    cpu: float
    """Seconds of processor time."""
    wall: float
    """Seconds on its clock."""
    requests: int
    refused: int
    connections: int


class Route:
    """One kind of request: how it is answered, and after how many seconds."""

    __slots__ = ("_parts", "_status", "_writer", "_written", "delay")

    def __init__(self, status: str, writer: Callable[[datetime], bytes], delay: float) -> None:
        self.delay = delay
        self._status = status
        self._writer = writer
        self._written = -1.0
        self._parts = (b"", b"")

    def answer(self, body: bytes, second: float) -> bytes:
        """Return the whole answer, with the session's id of the request in it."""
        if second != self._written:
            self._write(second)
        before, after = self._parts
        if not after:
            return before
        found = _SESSION_ID.search(body)
        return before + (found[1] if found else EXAMPLE_ID.encode()) + after

    def _write(self, second: float) -> None:
        now = datetime.now(UTC)
        body = self._writer(now)
        head = (
            f"HTTP/1.1 {self._status}\r\nDate: {format_datetime(now, usegmt=True)}\r\n"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        before, _, after = (head + body).partition(EXAMPLE_ID.encode())
        self._parts, self._written = (before, after), second


class Server:
    """What all connections share."""

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.connections = 0
        self.second = 0.0
        self.routes: dict[bytes, Route] = {}

    def route(self, line: bytes) -> Route | None:
        """Return the route for a request line, or ``None`` for one that nobody should send."""
        match = _ROUTE.fullmatch(line)
        if match is None:
            return None
        method, delay, path = match[1], float(match[2] or 0) / 1_000, match[3].decode("latin-1")
        for ending, (status, writer) in ANSWERS.items():
            if method == b"POST" and path.endswith(ending):
                route = self.routes[line] = Route(status, writer, delay)
                return route
        return None

    def usage(self, _: datetime) -> bytes:
        """Return the usage as JSON."""
        usage = Usage(time.process_time(), time.perf_counter(), self.requests, self.refused, self.connections)
        return json.dumps(usage._asdict()).encode()

    async def tick(self) -> None:
        """Note that a second has passed, so that dates in answers go on."""
        while True:
            self.second += 1.0
            await asyncio.sleep(1.0)


class Connection(asyncio.Protocol):
    """One connection: frames requests by their Content-Length, answers each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._server.connections += 1
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete now."""
        data = self._buffer + data if self._buffer else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, end)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(data) < total:
                break
            self._request(data[: data.index(b"\r\n")], data[end + 4 : total])
            data = data[total:]
        self._buffer = data

    def _request(self, line: bytes, body: bytes) -> None:
        server, transport = self._server, self._transport
        if transport is None or transport.is_closing():
            return
        route = server.routes.get(line) or server.route(line)
        if route is not None:
            server.requests += 1
            answer = route.answer(body, server.second)
            if route.delay:
                asyncio.get_running_loop().call_later(route.delay, transport.write, answer)
            else:
                transport.write(answer)
        elif line == b"GET /usage HTTP/1.1":
            transport.write(Route("200 OK", server.usage, 0.0).answer(b"", 0.0))
        else:
            server.refused += 1
            transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            transport.close()


async def serve(stop: asyncio.Event, started: Callable[[int], object]) -> None:
    """Serve on a loopback port until told to stop."""
    shared = Server()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(shared), "127.0.0.1", 0, backlog=BACKLOG)
    ticking = loop.create_task(shared.tick())
    started(server.sockets[0].getsockname()[1])
    await stop.wait()
    ticking.cancel()
    server.close()


def main() -> None:
    """Print the port, and serve until standard input ends."""
    raise_file_limit()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=watch, daemon=True).start()
        await serve(stop, lambda port: print(port, flush=True))

    with asyncio.Runner(loop_factory=factory(fastest())) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
