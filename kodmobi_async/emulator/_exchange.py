"""Requests and responses on one connection, with the faults scripted for them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async.emulator._control import Control, serves
from kodmobi_async.emulator._cors import cors_headers, is_preflight, preflight
from kodmobi_async.emulator._fault import Fault
from kodmobi_async.emulator._http import UnreadableRequestError
from kodmobi_async.emulator._refusals import Refusal
from kodmobi_async.emulator._requests import Exchanged
from kodmobi_async.emulator._service import Service, endpoint_of
from kodmobi_async.emulator._state import State

if TYPE_CHECKING:
    from kodmobi_async.emulator._http import Connection, Request, RequestLine, Response

__all__ = ("Exchange",)

_log: Final = logging.getLogger("kodmobi_async.emulator")

_HEALTHY: Final = Fault(kind="none", process=True)
_UNREADABLE: Final = Refusal("ERROR_BAD_REQUEST").response("")


@attrs.frozen
class Exchange:
    """Serve connections: read requests, have them carried out, and write the responses.

    Args:
        state: The emulator's.
        service: Carries out the API's requests.
        control: Carries out the requests of the control interface.
    """

    _state: State
    _service: Service
    _control: Control

    async def serve(self, connection: Connection) -> None:
        """Serve requests until the connection ends."""
        keep = True
        while keep:
            try:
                keep = await self._serve_one(connection)
            except UnreadableRequestError:
                head, body = _UNREADABLE.render(self._defaults(_new_id()), keep_alive=False)
                await connection.write(head + body)
                keep = False
                await connection.end()

    async def _serve_one(self, connection: Connection) -> bool:
        """Serve one request; return False if the connection is over."""
        line = await connection.read_line()
        if line is None:
            return False
        if self._state.settings.control and serves(line.path):
            return await self._control.serve(line, connection, self._defaults(_new_id()))
        endpoint = endpoint_of(line.path)
        # Faults and counts are about the API's requests, not about what a browser asks before them.
        counts = line.method != "OPTIONS"
        fault = (self._state.script.take(endpoint) if counts else None) or _HEALTHY
        if not fault.reads:
            self._record(_new_id(), line, fault)
            await connection.end(reset=fault.end == "rst")
            return False
        request = await connection.read_rest(line)
        if counts and endpoint is not None:
            self._state.counts[endpoint] += 1
        return await self._respond(request, fault, connection)

    async def _respond(self, request: Request, fault: Fault, connection: Connection) -> bool:
        request_id = _new_id()
        await _pause(fault.delay_before)
        response = self._response(request, fault)
        self._record(request_id, request.line, fault, request, response)
        await _pause(fault.delay_after)
        keep = fault.end == "keep" and request.keep_alive and response.keep_alive
        defaults = self._defaults(request_id) | cors_headers(request.headers)
        headless = request.line.method == "HEAD"
        head, body = response.render(defaults, keep_alive=request.keep_alive, headless=headless)
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
        if is_preflight(request.line.method, request.headers):
            return preflight(endpoint_of(request.line.path))
        language = request.headers.get("accept-language", "")
        if fault.process:
            response = self._service.respond(request, self._state.clock.time())
        else:
            response = Refusal("ERROR_SERVER").response(language)
        replacement = fault.replacement
        if replacement is None:
            return response
        return replacement.response(language) if isinstance(replacement, Refusal) else replacement

    def _record(
        self,
        request_id: str,
        line: RequestLine,
        fault: Fault,
        request: Request | None = None,
        response: Response | None = None,
    ) -> None:
        exchanged = Exchanged(
            request_id=request_id,
            at=self._state.clock.time(),
            line=line,
            endpoint=endpoint_of(line.path),
            fault=None if fault is _HEALTHY else fault.kind,
            request=request,
            response=response if fault.responds else None,
        )
        self._state.requests.append(exchanged)
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", exchanged)

    def _defaults(self, request_id: str) -> dict[str, str]:
        return {
            "Date": format_datetime(self._state.clock.date(), usegmt=True),
            "X-Request-Id": request_id,
            "Content-Type": "application/json; charset=utf-8",
        }


def _new_id() -> str:
    return secrets.token_hex(16)


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
