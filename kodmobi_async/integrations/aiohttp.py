"""A client in an aiohttp service.

app = web.Application(middlewares=[kodmobi_errors])
app.cleanup_ctx.append(kodmobi_context())

async def resend(request: web.Request) -> web.Response:
    result = await request.app[KODMOBI].send(request.match_info["session_id"], "sms")
    return web.json_response({"again_in": result.channel.timeout})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async.integrations._aiohttp_login import make_routes
from kodmobi_async.integrations._http import answer_to
from kodmobi_async.integrations._login import LoginFlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.typedefs import Handler

    from kodmobi_async import VerifiedUser

__all__ = ("KODMOBI", "kodmobi_context", "kodmobi_errors", "login_routes")

KODMOBI: Final = web.AppKey("KODMOBI", KodmobiClient)
"""Where the service keeps its client: ``request.app[KODMOBI]``, or ``request.config_dict[KODMOBI]`` in a part of it."""


def kodmobi_context(
    open_client: Callable[[], AbstractAsyncContextManager[KodmobiClient]] = KodmobiClient,
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what ``cleanup_ctx`` takes: it opens a client when the service starts and closes it when it stops.

    Args:
        open_client: `KodmobiClient` itself, or whatever returns an ``async with`` that brings a client, with a shared
            tracker, say.
    """

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with open_client() as client:
            app[KODMOBI] = client
            yield

    return context


def login_routes(
    on_verified: Callable[[web.Request, VerifiedUser], Any],
    *,
    secret: str | bytes,
    prefix: str = "",
    cookie: str = "kodmobi_login",
    secure: bool = True,
    max_checks: int = 5,
    max_checks_per_address: int = 30,
    client_address: Callable[[web.Request], str] | None = None,
) -> web.RouteTableDef:
    """Return routes with what a login page needs: ``start``, ``resend``, ``state``, ``events`` and ``check``.

    ``app.add_routes(login_routes(on_verified, secret=SECRET, prefix="/login"))``; the service needs a client with both
    keys (`kodmobi_context`) and the middleware `kodmobi_errors`. Everything else is as in
    `kodmobi_async.integrations.fastapi.login_router`.

    Args:
        on_verified: Called with the request and the verified user; may be asynchronous. Returns a response, or what
            JSON takes.
        secret: Signs the cookie; at least 16 bytes, the same in every process of the service.
        prefix: What the paths begin with.
        cookie: The cookie's name.
        secure: Whether the cookie goes over HTTPS alone; ``False`` is for a service on this machine.
        max_checks: Codes that may be tried for one login.
        max_checks_per_address: Codes that may be tried from one client address in an hour, in this process.
        client_address: Returns the client's address where a proxy stands before the service.

    Raises:
        ConfigurationError: The secret is too short, or a number is not positive.
    """
    flow = LoginFlow(
        secret,
        cookie=cookie,
        secure=secure,
        max_checks=max_checks,
        max_checks_per_address=max_checks_per_address,
    )
    return make_routes(
        on_verified, lambda request: request.config_dict[KODMOBI], flow, prefix=prefix, client_address=client_address
    )


@web.middleware
async def kodmobi_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error of the client with the status that suits it, ``Retry-After`` and its outcome."""
    try:
        return await handler(request)
    except KodmobiError as error:
        answer = answer_to(error)
        return web.json_response(answer.body, status=answer.status, headers=answer.headers)
