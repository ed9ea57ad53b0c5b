"""The four endpoints of a login as a FastAPI router.

FastAPI reads the annotations while the program runs, so this module's are not postponed.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from kodmobi_async import KodmobiClient, VerifiedUser
from kodmobi_async.integrations._http import NOT_STORED, STATUSES
from kodmobi_async.integrations._login import Cookie, LoginFlow, LoginState

_CHALLENGE = Field(default=None, repr=False, description="The token of a CAPTCHA, where the project asks for one.")


class StartLogin(BaseModel):
    """Whom to send a code to."""

    to: str = Field(
        repr=False, description="Phone number with its country code, or email address.", examples=["+14155550123"]
    )
    channel: str | None = Field(default=None, description="By default the service's choice.", examples=["telegram"])
    challenge: str | None = _CHALLENGE


class Resend(BaseModel):
    """Over which channel to send the code again."""

    channel: str = Field(examples=["sms"])
    challenge: str | None = _CHALLENGE


class CheckCode(BaseModel):
    """What was typed."""

    code: str = Field(repr=False, examples=["123-456"])
    challenge: str | None = _CHALLENGE


class LoginChannel(BaseModel):
    """A channel that a code may go over."""

    type: str = Field(examples=["sms"])
    name: str = Field(examples=["SMS"])
    seconds_left: float = Field(description="Until the channel may be sent to; 0 = now.", examples=[60.0])


class LoginPage(BaseModel):
    """What a login page shows."""

    to: str = Field(description="The recipient, masked.", examples=["+1•••••0123"])
    sent_to: str | None = Field(description="The channel that a code has just been sent over.", examples=["sms"])
    expires_in: float = Field(description="Seconds until the login has to be started again.", examples=[180.0])
    channels: list[LoginChannel]


class LoginError(BaseModel):
    """Why a step was not done."""

    error: str = Field(examples=["CooldownError"])
    outcome: str = Field(examples=["not_sent"])
    retry_after: float | None = Field(default=None, description="Seconds.", examples=[42.0])


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": LoginError}
    for status in sorted(set(STATUSES.values()))
    if status >= 400  # noqa: PLR2004 HTTP's class
}


def _client_address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def make_router(
    on_verified: Callable[[Request, VerifiedUser], Any | Awaitable[Any]],
    get_client: Callable[[Request], Awaitable[KodmobiClient]],
    flow: LoginFlow,
    client_address: Callable[[Request], str] | None = None,
) -> APIRouter:
    """Return the router; `kodmobi_async.integrations.fastapi.login_router` describes it."""
    router = APIRouter(tags=["login"], responses=_RESPONSES)
    address_of = client_address or _client_address

    async def cookie_of(request: Request) -> str | None:  # an ordinary function would run in a thread
        return request.cookies.get(flow.cookie_name)

    a_client, a_cookie = Depends(get_client), Depends(cookie_of)

    async def start(asked: StartLogin, response: Response, client: Annotated[KodmobiClient, a_client]) -> LoginPage:
        state, cookie = await flow.start(client, asked.to, asked.channel, asked.challenge)
        response.headers.update(NOT_STORED)
        _set(response, cookie)
        return _page(state)

    async def resend(
        asked: Resend,
        response: Response,
        client: Annotated[KodmobiClient, a_client],
        cookie: Annotated[str | None, a_cookie],
    ) -> LoginPage:
        response.headers.update(NOT_STORED)
        return _page(await flow.resend(client, cookie, asked.channel, asked.challenge))

    async def state(
        response: Response, client: Annotated[KodmobiClient, a_client], cookie: Annotated[str | None, a_cookie]
    ) -> LoginPage:
        response.headers.update(NOT_STORED)
        return _page(await flow.state(client, cookie))

    async def events(
        client: Annotated[KodmobiClient, a_client], cookie: Annotated[str | None, a_cookie]
    ) -> StreamingResponse:
        states = flow.states(client, cookie)
        first = await anext(states)  # what is wrong is an error, and no stream
        return StreamingResponse(_stream(first, states), media_type="text/event-stream", headers=NOT_STORED)

    async def check(
        asked: CheckCode,
        request: Request,
        client: Annotated[KodmobiClient, a_client],
        cookie: Annotated[str | None, a_cookie],
    ) -> Response:
        user = await flow.check(client, cookie, asked.code, address_of(request), asked.challenge)
        response = await _response_of(on_verified(request, user))
        _set(response, flow.no_cookie)
        return response

    router.post("/start", summary="Send a code, and begin a login")(start)
    router.post("/resend", summary="Send the code again")(resend)
    router.get("/state", summary="What the login page shows")(state)
    router.get("/events", summary="The same as server-sent events, every second", response_model=None)(events)
    router.post("/check", summary="Check the code", response_model=None)(check)
    return router


async def _response_of(made: Any) -> Response:
    """Return what an application returns for a verified user, as a response."""
    if inspect.isawaitable(made):
        made = await made
    return made if isinstance(made, Response) else JSONResponse({"verified": True} if made is None else made)


async def _stream(first: LoginState, others: AsyncIterator[LoginState]) -> AsyncIterator[bytes]:
    yield _event(first)
    async for state in others:
        yield _event(state)


def _page(state: LoginState) -> LoginPage:
    return LoginPage.model_validate(state.to_dict())


def _event(state: LoginState) -> bytes:
    return b"event: state\ndata: " + orjson.dumps(state.to_dict()) + b"\n\n"


def _set(response: Response, cookie: Cookie) -> None:
    response.set_cookie(
        cookie.name,
        cookie.value,
        max_age=cookie.max_age,
        httponly=True,
        samesite="strict",
        secure=cookie.secure,
    )
