"""A client in a FastAPI service (extra ``fastapi``).

app = FastAPI(lifespan=kodmobi_lifespan())
add_kodmobi_errors(app)

@app.post("/resend/{session_id}/{channel}")
async def resend(session_id: str, channel: str, kodmobi: Kodmobi) -> dict[str, float]:
    return {"again_in": (await kodmobi.send(session_id, channel)).channel.timeout}
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import ConfigurationError, KodmobiError
from kodmobi_async.integrations._http import answer_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("Kodmobi", "add_kodmobi_errors", "kodmobi_lifespan")


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


def _client(request: Request) -> KodmobiClient:
    client = getattr(request.app.state, "kodmobi", None)
    if client is None:
        raise ConfigurationError("this service has no client: FastAPI(lifespan=kodmobi_lifespan())")
    assert isinstance(client, KodmobiClient)  # noqa: S101 the lifespan put it there
    return client


Kodmobi: TypeAlias = Annotated[KodmobiClient, Depends(_client)]
"""The service's client, for whatever asks for it: ``async def resend(kodmobi: Kodmobi)``."""


def add_kodmobi_errors(app: FastAPI) -> None:
    """Have every error of the client answered by the table of `kodmobi_async.integrations._http`."""
    app.add_exception_handler(KodmobiError, _handle)


async def _handle(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KodmobiError)  # noqa: S101 it is registered for these
    answer = answer_to(error)
    return JSONResponse(answer.body, answer.status, answer.headers)
