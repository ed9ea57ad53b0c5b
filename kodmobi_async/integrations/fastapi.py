"""A client in a FastAPI service (extra ``fastapi``).

app = FastAPI(lifespan=kodmobi_lifespan())
add_kodmobi_errors(app)

@app.post("/resend/{session_id}/{channel}")
async def resend(session_id: str, channel: str, kodmobi: Kodmobi) -> dict[str, float]:
    return {"again_in": (await kodmobi.send(session_id, channel)).channel.timeout}
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import ConfigurationError, KodmobiError
from kodmobi_async.integrations._fastapi_login import make_router
from kodmobi_async.integrations._http import answer_to
from kodmobi_async.integrations._login import LoginFlow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kodmobi_async import VerifiedUser

__all__ = ("Kodmobi", "add_kodmobi_errors", "kodmobi_lifespan", "login_router")


def kodmobi_lifespan(
    open_client: Callable[[], contextlib.AbstractAsyncContextManager[KodmobiClient]] = KodmobiClient,
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens a client when the service starts and closes it when it stops.

    Args:
        open_client: `KodmobiClient` itself, or whatever returns an ``async with`` that brings a client, with a shared
            tracker, say.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_client() as client:
            app.state.kodmobi = client
            try:
                yield
            finally:
                del app.state.kodmobi

    return lifespan


async def _client(request: Request) -> KodmobiClient:  # an ordinary function would run in a thread
    client = getattr(request.app.state, "kodmobi", None)
    if client is None:
        raise ConfigurationError("this service has no client: FastAPI(lifespan=kodmobi_lifespan())")
    assert isinstance(client, KodmobiClient)  # noqa: S101 the lifespan put it there
    return client


Kodmobi: TypeAlias = Annotated[KodmobiClient, Depends(_client)]
"""The service's client, for whatever asks for it: ``async def resend(kodmobi: Kodmobi)``."""


def login_router(
    on_verified: Callable[[Request, VerifiedUser], Any],
    *,
    secret: str | bytes,
    cookie: str = "kodmobi_login",
    secure: bool = True,
    max_checks: int = 5,
    max_checks_per_address: int = 30,
    client_address: Callable[[Request], str] | None = None,
) -> APIRouter:
    """Return a router with what a login page needs: ``start``, ``resend``, ``state``, ``events`` and ``check``.

    ::

        async def on_verified(request: Request, user: VerifiedUser) -> dict[str, str]:
            request.session["user"] = user.to
            return {"next": "/"}

        app.include_router(login_router(on_verified, secret=SECRET), prefix="/login")

    The service needs a client with both keys (`kodmobi_lifespan`) and `add_kodmobi_errors`. The session's id goes to
    the browser only in a signed, ``HttpOnly``, ``SameSite=Strict`` cookie. Left to the application: protection against
    cross-site requests beyond that, and limits on how many logins a client address may start.

    Args:
        on_verified: Called with the request and the verified user; may be asynchronous. Returns a response, or what
            JSON takes.
        secret: Signs the cookie; at least 16 bytes, the same in every process of the service.
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
    return make_router(on_verified, _client, flow, client_address)


def add_kodmobi_errors(app: FastAPI) -> None:
    """Have every error of the client answered with the status that suits it, ``Retry-After`` and its outcome."""
    app.add_exception_handler(KodmobiError, _handle)


async def _handle(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KodmobiError)  # noqa: S101 it is registered for these
    answer = answer_to(error)
    return JSONResponse(answer.body, answer.status, answer.headers)
