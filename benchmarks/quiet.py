"""The first code of a quiet service: how long a send takes after a pause, beside the next one.

``python -m benchmarks.quiet`` runs a TLS server 30 ms away, and has each contestant send: at once after its start,
again, after a minute, and again. The distance is that of a relay, which holds every piece back for 15 ms, and the first
one of a connection for another 30, as its handshake would have taken them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import httpx
import trustme

from benchmarks.contestants import HEADERS, payload
from benchmarks.worker import session_ids
from kodmobi_async import KodmobiClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ONE_WAY: Final = 0.015
"""Seconds."""
PAUSE: Final = 60.0
"""Seconds between the codes of a quiet service."""

CHANNEL: Final = {"name": "Telegram", "type": "telegram", "is_active": True, "timeout": 60, "image_url": "", "link": ""}


class Relay:
    """Passes on what comes, later.

    Args:
        port: Where to.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._passing: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a connection with one of its own."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink, extra in ((reader, back, 2 * ONE_WAY), (there, writer, 0.0)):
            task = asyncio.create_task(self._pass_on(source, sink, extra))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    @staticmethod
    async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, extra: float) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                loop.call_later(ONE_WAY + extra, sink.write, piece)
                extra = 0.0
        loop.call_later(ONE_WAY, sink.close)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, EOFError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split()[0])
            session = json.loads(await reader.readexactly(length))["session_id"]
            body = json.dumps({"session_id": session, "session_expired_at": None, "channel": CHANNEL}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _ours(base: str, tls: ssl.SSLContext) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    async with KodmobiClient("benchmark", base_url=base, ssl=tls) as client:
        yield lambda session: client.send(session, "telegram")


@contextlib.asynccontextmanager
async def _ours_connected(base: str, tls: ssl.SSLContext) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    async with KodmobiClient("benchmark", base_url=base, ssl=tls) as client:
        await client.connect()
        yield lambda session: client.send(session, "telegram")


@contextlib.asynccontextmanager
async def _aiohttp(base: str, tls: ssl.SSLContext) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:

        async def call(session_id: str) -> Any:
            async with session.post(f"{base}/send", json=payload(session_id), headers=HEADERS) as response:
                return await response.json()

        yield call


@contextlib.asynccontextmanager
async def _httpx(base: str, tls: ssl.SSLContext) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    async with httpx.AsyncClient(verify=tls) as client:

        async def call(session_id: str) -> Any:
            return (await client.post(f"{base}/send", json=payload(session_id), headers=HEADERS)).json()

        yield call


CONTESTANTS: Final = {
    "kodmobi_async": _ours,
    "kodmobi_async, connect()": _ours_connected,
    "aiohttp, default session": _aiohttp,
    "httpx, default client": _httpx,
}


async def measure() -> dict[str, list[float]]:
    """Return the milliseconds of the four sends of each contestant."""
    authority = trustme.CA()
    trusting, serving = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=serving)
    relay = await asyncio.start_server(Relay(server.sockets[0].getsockname()[1]).accept, "127.0.0.1", 0)
    base = f"https://127.0.0.1:{relay.sockets[0].getsockname()[1]}/session"
    turn = asyncio.Lock()  # one sends at a time; all of them pause together

    async def of(opener: Any) -> list[float]:
        taken: list[float] = []
        async with opener(base, trusting) as call:
            for number, session in enumerate(session_ids(4)):
                if number == 2:
                    await asyncio.sleep(PAUSE)
                async with turn:
                    began = time.perf_counter()
                    await call(session)
                    taken.append((time.perf_counter() - began) * 1_000)
        return taken

    found = await asyncio.gather(*map(of, CONTESTANTS.values()))
    relay.close()
    server.close()
    return dict(zip(CONTESTANTS, found, strict=True))


def to_markdown(found: dict[str, list[float]]) -> str:
    """Return the table: the second of two sends in a row is 1."""
    lines = [
        "| wall time of a send, 30 ms away over TLS | the first | the next | after a minute | the next, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for label, (first, second, paused, last) in found.items():
        basis = min(second, last)
        ratios = " | ".join(f"{taken / basis:.2f} ×" for taken in (first, second, paused))
        lines.append(f"| {label} | {ratios} | {basis:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(to_markdown(asyncio.run(measure())))
