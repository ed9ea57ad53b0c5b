"""The other libraries' clients, pointed at loopback in the ways that they document.

Each asks for what it was made for, since none can ask for a code of kod.mobi: Slack for a message, Twilio and Prelude
for a verification. The server answers each with its own service's documented answer.

The pools of httpx and Prelude stay as they come. Made as wide as the concurrency, httpx's costs three times as much
with 64 calls at a time, since each request looks at every idle connection.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[str], Awaitable[object]]

ATTEMPTS: Final = 4
API_KEY: Final = "benchmark"
PHONE: Final = "+15017122661"


@contextlib.asynccontextmanager
async def httpx_stamina(base: str, _: int) -> AsyncIterator[Call]:
    """An httpx call in stamina's decorator, as its documentation shows it."""
    httpx: Any = importlib.import_module("httpx")
    stamina: Any = importlib.import_module("stamina")
    url = f"{base}/session/send"
    # with the default of 5 s, some of 512 calls at a time would give up waiting for a connection, and try again
    async with httpx.AsyncClient(timeout=30.0) as client:

        async def post(session_id: str) -> object:
            body = {"session_id": session_id, "type": "telegram"}
            response = await client.post(url, json=body, headers={"x-api-key": API_KEY})
            response.raise_for_status()
            answer: object = response.json()
            return answer

        # the decorator, written as the call that it is, since checkers do not see an optional package
        yield stamina.retry(on=httpx.HTTPError, attempts=ATTEMPTS)(post)


@contextlib.asynccontextmanager
async def slack(base: str, concurrency: int) -> AsyncIterator[Call]:
    """``chat.postMessage`` over a session that is kept; without one the client would connect anew for every call."""
    async_client: Any = importlib.import_module("slack_sdk.web.async_client")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        client = async_client.AsyncWebClient("xoxb-benchmark", base_url=f"{base}/api/", session=session)

        async def call(session_id: str) -> object:
            answer: object = await client.chat_postMessage(channel="C123ABC456", text=session_id)
            return answer

        yield call


@contextlib.asynccontextmanager
async def twilio(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A verification of Twilio Verify, with the asynchronous HTTP client that comes with it."""
    http: Any = importlib.import_module("twilio.http.async_http_client")
    rest: Any = importlib.import_module("twilio.rest")
    async with http.AsyncTwilioHttpClient() as client:
        # the one it makes for itself has aiohttp's 100 connections, and no setting for them
        await client.session.close()
        client.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))
        api = rest.Client("AC" + "0" * 32, API_KEY, http_client=client)
        api.verify.base_url = base
        verifications = api.verify.v2.services("VA" + "0" * 32).verifications

        async def call(_: str) -> object:
            answer: object = await verifications.create_async(to=PHONE, channel="sms")
            return answer

        yield call


@contextlib.asynccontextmanager
async def prelude_httpx(base: str, _: int, backend: str = "DefaultAsyncHttpxClient") -> AsyncIterator[Call]:
    """A verification of Prelude, over httpx, as it comes."""
    sdk: Any = importlib.import_module("prelude_python_sdk")
    http = getattr(sdk, backend)()
    async with sdk.AsyncPrelude(api_token=API_KEY, base_url=base, http_client=http) as client:

        async def call(_: str) -> object:
            target = {"type": "phone_number", "value": PHONE}
            answer: object = await client.verification.create(target=target)
            return answer

        yield call


@contextlib.asynccontextmanager
async def prelude_aiohttp(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A verification of Prelude, over its own aiohttp backend.

    Raises:
        ImportError: Its extra ``aiohttp`` is not installed.
    """
    importlib.import_module("httpx_aiohttp")
    async with prelude_httpx(base, concurrency, "DefaultAioHttpClient") as call:
        yield call
