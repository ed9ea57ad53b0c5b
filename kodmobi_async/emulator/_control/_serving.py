"""Requests to the control interface, and their responses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async.emulator._control._guard import reason_to_refuse
from kodmobi_async.emulator._control._operations import NotFoundError, Operations
from kodmobi_async.emulator._control._page import inbox
from kodmobi_async.emulator._control._routes import UnknownMethodError, UnknownPathError, read_arguments, route
from kodmobi_async.emulator._control._schema import InvalidInputError
from kodmobi_async.emulator._control._views import Views
from kodmobi_async.emulator._events import LostEventsError
from kodmobi_async.emulator._http import Response, UnreadableRequestError
from kodmobi_async.emulator._json import to_json
from kodmobi_async.emulator._service import Service
from kodmobi_async.emulator._state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kodmobi_async.emulator._events import Subscription
    from kodmobi_async.emulator._http import Connection, Request, RequestLine

__all__ = ("Control", "serves")

_log: Final = logging.getLogger("kodmobi_async.emulator")

_ROOT: Final = "/_emulator"
_PAGE_PATHS: Final = frozenset({_ROOT, f"{_ROOT}/"})
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_STREAM: Final = Response(
    200, b"", {**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "Connection": "close"}, endless=True
)


class _RefusedError(Exception):
    """Carries a response to a request that is not carried out."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = Response(status, to_json({"error": message}), {**_HEADERS, **(headers or {})})


_UNREADABLE: Final = _RefusedError(400, "the request is not HTTP, or larger than 64 KiB").response


def serves(path: str) -> bool:
    """Return whether ``path`` belongs to the control interface."""
    return path == _ROOT or path.startswith(f"{_ROOT}/")


@attrs.define(eq=False, repr=False)
class Control:
    """Serve the control interface, as its OpenAPI document describes it."""

    _state: State
    _service: Service
    _views: Views = attrs.field(init=False)
    _operations: Operations = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._views = Views(self._state, self._service.project)
        self._operations = Operations(self._state, self._views)

    async def serve(self, line: RequestLine, connection: Connection, defaults: Mapping[str, str]) -> bool:
        """Read and carry out a request, and write the response; return False if the connection is over."""
        headless = line.method == "HEAD"
        keep = False
        try:
            request = await connection.read_rest(line)
            keep = request.keep_alive
            self._guard(request, connection)
            response = await self._respond(request)
        except UnreadableRequestError:
            response = _UNREADABLE
        except _RefusedError as error:
            response = error.response
        keep = keep and response.keep_alive
        head, body = response.render(defaults, keep_alive=keep, headless=headless)
        await connection.write(head + body)
        if response.endless and not headless:
            await self._stream(connection)
        if not keep:
            await connection.end()
        return keep

    def _guard(self, request: Request, connection: Connection) -> None:
        reason = reason_to_refuse(request, {self._state.settings.host.lower(), connection.local_host})
        if reason is not None:
            raise _RefusedError(403, reason)

    async def _respond(self, request: Request) -> Response:
        try:
            if request.line.path in _PAGE_PATHS and request.line.method in {"GET", "HEAD"}:
                return inbox()
            operation, in_path = route(request.line)
            arguments = read_arguments(operation, in_path, request)
            name: str = operation["operationId"]
            if name == "watch":
                return _STREAM
            result = await getattr(self._operations, name)(**arguments)
        except UnknownPathError:
            raise _RefusedError(404, f"there is nothing here; {_ROOT}/openapi.json says what there is") from None
        except UnknownMethodError as error:
            allowed = ", ".join(error.allowed)
            raise _RefusedError(405, f"the method must be one of {allowed}", {"Allow": allowed}) from None
        except InvalidInputError as error:
            raise _RefusedError(400, str(error)) from None
        except NotFoundError as error:
            raise _RefusedError(404, str(error)) from None
        except Exception:  # noqa: BLE001 a client must see a failing emulator, not a lost connection
            _log.exception("The emulator's control interface failed")
            raise _RefusedError(500, "the emulator failed; its log says how") from None
        return Response(int(next(iter(operation["responses"]))), to_json(result), _HEADERS)

    async def _stream(self, connection: Connection) -> None:
        """Write events until the client leaves, or cannot keep up: it reconnects, and asks for what it missed."""
        with self._state.events.subscribe() as subscription:
            tasks = [
                asyncio.ensure_future(self._write_events(connection, subscription)),
                asyncio.ensure_future(connection.client_leaves()),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _write_events(self, connection: Connection, subscription: Subscription) -> None:
        await connection.write(b": connected\nretry: 1000\n\n")
        with contextlib.suppress(LostEventsError):
            while True:
                event = await subscription.next()
                data = to_json(self._views.event(event))
                await connection.write(b"event: %b\ndata: %b\n\n" % (event.kind.encode(), data))
