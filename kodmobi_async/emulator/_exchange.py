"""Requests and responses on one connection, with the faults scripted for them."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async.emulator._fault import Fault
from kodmobi_async.emulator._http import UnreadableRequestError
from kodmobi_async.emulator._refusals import Refusal
from kodmobi_async.emulator._script import Script
from kodmobi_async.emulator._service import Service, endpoint_of

if TYPE_CHECKING:
    from kodmobi_async.emulator._http import Connection, Request, Response

__all__ = ("Exchange",)

_HEALTHY: Final = Fault(kind="none", process=True)
_UNREADABLE: Final = Refusal("ERROR_BAD_REQUEST").response("")


@attrs.frozen
class Exchange:
    """Serve connections: read requests, have the service carry them out, and write the responses.

    Args:
        service: Carries requests out.
        script: The faults.
        requests: Counts the requests that were read, by endpoint.
    """

    _service: Service
    _script: Script
    _requests: Counter[str]

    async def serve(self, connection: Connection) -> None:
        """Serve requests until the connection ends."""
        keep = True
        while keep:
            try:
                keep = await self._serve_one(connection)
            except UnreadableRequestError:
                head, body = self._render(_UNREADABLE, keep_alive=False)
                await connection.write(head + body)
                keep = False
                await connection.end()

    async def _serve_one(self, connection: Connection) -> bool:
        """Serve one request; return False if the connection is over."""
        line = await connection.read_line()
        if line is None:
            return False
        endpoint = endpoint_of(line.path)
        fault = self._script.take(endpoint)
        if fault is not None and not fault.reads:
            await connection.end(reset=fault.end == "rst")
            return False
        request = await connection.read_rest(line)
        if endpoint is not None:
            self._requests[endpoint] += 1
        return await self._respond(request, fault or _HEALTHY, connection)

    async def _respond(self, request: Request, fault: Fault, connection: Connection) -> bool:
        await _pause(fault.delay_before)
        response = self._response(request, fault)
        await _pause(fault.delay_after)
        keep = fault.end == "keep" and request.keep_alive and response.keep_alive
        head, body = self._render(response, keep_alive=request.keep_alive, headless=request.line.method == "HEAD")
        at_once, dripped, rest = fault.pieces(head, body)
        await connection.write(at_once)
        for position in range(len(dripped)):
            await asyncio.sleep(fault.seconds_per_byte)
            await connection.write(dripped[position : position + 1])
        await connection.write(rest)
        if fault.end == "hang":
            await connection.client_leaves()
        elif not keep:
            await connection.end(reset=fault.end == "rst")
        return keep

    def _response(self, request: Request, fault: Fault) -> Response:
        language = request.headers.get("accept-language", "")
        if fault.process:
            response = self._service.respond(request, asyncio.get_running_loop().time())
        else:
            response = Refusal("ERROR_SERVER").response(language)
        replacement = fault.replacement
        if replacement is None:
            return response
        return replacement.response(language) if isinstance(replacement, Refusal) else replacement

    def _render(self, response: Response, *, keep_alive: bool, headless: bool = False) -> tuple[bytes, bytes]:
        date = self._service.wall_clock(asyncio.get_running_loop().time())
        return response.render(date, secrets.token_hex(16), keep_alive=keep_alive, headless=headless)


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
