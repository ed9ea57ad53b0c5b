"""A client in an aiohttp service.

app = web.Application(middlewares=[kodmobi_errors])
app.cleanup_ctx.append(kodmobi_context())

async def resend(request: web.Request) -> web.Response:
    result = await request.app[KODMOBI].send(request.match_info["session_id"], "sms")
    return web.json_response({"again_in": result.channel.timeout})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async.integrations._http import answer_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.typedefs import Handler

__all__ = ("KODMOBI", "kodmobi_context", "kodmobi_errors")

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


@web.middleware
async def kodmobi_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error of the client by the table of `kodmobi_async.integrations._http`."""
    try:
        return await handler(request)
    except KodmobiError as error:
        answer = answer_to(error)
        return web.json_response(answer.body, status=answer.status, headers=answer.headers)
