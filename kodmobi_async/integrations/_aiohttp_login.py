"""The four endpoints of a login as aiohttp routes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from kodmobi_async import InvalidRequestError
from kodmobi_async.integrations._login import LoginFlow, read_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kodmobi_async import KodmobiClient, VerifiedUser
    from kodmobi_async.integrations._login import Cookie, LoginState

_LARGEST_BODY: Final = 65_536


def make_routes(
    on_verified: Callable[[web.Request, VerifiedUser], Any | Awaitable[Any]],
    get_client: Callable[[web.Request], KodmobiClient],
    flow: LoginFlow,
    *,
    prefix: str = "",
    client_address: Callable[[web.Request], str] | None = None,
) -> web.RouteTableDef:
    """Return the routes; `kodmobi_async.integrations.aiohttp.login_routes` describes them."""
    routes = web.RouteTableDef()

    def cookie_of(request: web.Request) -> str | None:
        return request.cookies.get(flow.cookie_name)

    @routes.post(f"{prefix}/start")
    async def start(request: web.Request) -> web.Response:
        asked = read_fields(await _body(request), ("to",), ("channel", "challenge"))
        state, cookie = await flow.start(get_client(request), asked["to"], asked["channel"], asked["challenge"])
        response = web.json_response(state.to_dict())
        _set(response, cookie)
        return response

    @routes.post(f"{prefix}/resend")
    async def resend(request: web.Request) -> web.Response:
        asked = read_fields(await _body(request), ("channel",), ("challenge",))
        state = await flow.resend(get_client(request), cookie_of(request), asked["channel"], asked["challenge"])
        return web.json_response(state.to_dict())

    @routes.get(f"{prefix}/state")
    async def state(request: web.Request) -> web.Response:
        return web.json_response((await flow.state(get_client(request), cookie_of(request))).to_dict())

    @routes.get(f"{prefix}/events")
    async def events(request: web.Request) -> web.StreamResponse:
        states = flow.states(get_client(request), cookie_of(request))
        first = await anext(states)  # what is wrong is an error, and no stream
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await response.write(_event(first))
        async for each in states:
            await response.write(_event(each))
        return response

    @routes.post(f"{prefix}/check")
    async def check(request: web.Request) -> web.StreamResponse:
        asked = read_fields(await _body(request), ("code",), ("challenge",))
        address = (request.remote or "") if client_address is None else client_address(request)
        user = await flow.check(get_client(request), cookie_of(request), asked["code"], address, asked["challenge"])
        made = on_verified(request, user)
        if inspect.isawaitable(made):
            made = await made
        if not isinstance(made, web.StreamResponse):
            made = web.json_response({"verified": True} if made is None else made)
        _set(made, flow.no_cookie)
        return made

    return routes


async def _body(request: web.Request) -> object:
    """Return the JSON of a request; a form of another site cannot send that.

    Raises:
        InvalidRequestError: It is none.
    """
    if request.content_type != "application/json" or (request.content_length or 0) > _LARGEST_BODY:
        raise InvalidRequestError("the request takes a small body of the type application/json")
    try:
        body: object = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        body = None
    return body


def _event(state: LoginState) -> bytes:
    return b"event: state\ndata: " + orjson.dumps(state.to_dict()) + b"\n\n"


def _set(response: web.StreamResponse, cookie: Cookie) -> None:
    response.set_cookie(
        cookie.name,
        cookie.value,
        max_age=cookie.max_age,
        httponly=True,
        samesite="Strict",
        secure=cookie.secure,
    )
