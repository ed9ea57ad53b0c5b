"""Requests to the emulator as raw clients send them: with aiohttp, or as bytes on a stream where bytes matter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import orjson

from kodmobi_async.emulator import Emulator
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
UNKNOWN = "01K8N1VMPN0EE389K72YW0CBM3"


@asynccontextmanager
async def clean_emulator(**settings: Any) -> AsyncIterator[Emulator]:
    """Run an emulator that must leave no task and no error behind."""
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    async with Emulator(**settings) as emulator:
        yield emulator
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert errors == []


@attrs.frozen
class Response:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


async def call(
    http: aiohttp.ClientSession, url: str, body: object = None, *, method: str = "POST", **headers: str
) -> Response:
    data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, data=data, headers=named, allow_redirects=False) as response:
        return Response(response.status, response.headers, await response.read())


async def send(
    http: aiohttp.ClientSession, emulator: Emulator, session_id: str, channel: str = "telegram", **headers: str
) -> Response:
    body = {"session_id": session_id, "type": channel}
    return await call(http, f"{emulator.base_url}/send", body, **headers)


async def get(http: aiohttp.ClientSession, url: str) -> Response:
    return await call(http, url, method="GET")


@asynccontextmanager
async def connect(emulator: Emulator) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def request_bytes(emulator: Emulator, session_id: str, channel: str = "telegram", *, more: str = "") -> bytes:
    """Write what curl sends for the call in the documentation."""
    body = f'{{"session_id": "{session_id}","type": "{channel}"}}'
    return (
        f"POST /session/send HTTP/1.1\r\nHost: api.kod.mobi\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
        f"x-api-key: {emulator.api_key}\r\n{more}Content-Length: {len(body)}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
    ).encode()


async def exchange(emulator: Emulator, raw: bytes) -> bytes:
    """Send ``raw`` and read until the emulator ends the connection."""
    async with connect(emulator) as (reader, writer):
        writer.write(raw)
        return await reader.read()


async def read_response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


def jump(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.jump(seconds)


def envelope(
    sys_message: str, status: int, error: str, params: Mapping[str, object] | None = None
) -> dict[str, object]:
    return {
        "success": False,
        "error": error,
        "error_params": dict(params or {}),
        "status": status,
        "sys_message": sys_message,
    }
