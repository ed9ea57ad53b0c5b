"""Who takes part: ways to send one code, each as its own documentation shows it.

A contestant opens its client for one match and hands out ``call``, which makes one request and reads its answer. The
pools of all that stand on aiohttp are as wide as the concurrency, so that nobody waits for a connection. What is not
installed is left out, and said to be.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import attrs
import orjson
import tenacity
from yarl import URL

from benchmarks import peers
from benchmarks.raw import Pool
from kodmobi_async import Channel, KodmobiClient, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[str], Awaitable[object]]
    Opener = Callable[[str, int], contextlib.AbstractAsyncContextManager[Call]]

API_KEY: Final = "benchmark"
ATTEMPTS: Final = 4
HEADERS: Final = {"x-api-key": API_KEY}


@attrs.frozen
class Contestant:
    """One way to send a code.

    Attributes:
        name: For the command line and JSON.
        label: For tables and charts.
        packages: The distributions that it consists of; their versions are reported.
        open: Opens a client for an address and a concurrency.
        is_peer: Something that one would use instead; ours is to be cheaper.
    """

    name: str
    label: str
    packages: tuple[str, ...]
    open: Opener
    is_peer: bool = True


def payload(session_id: str) -> dict[str, str]:
    """Return the documented body."""
    return {"session_id": session_id, "type": "telegram"}


@contextlib.asynccontextmanager
async def ours(base: str, concurrency: int) -> AsyncIterator[Call]:
    """All that `KodmobiClient.send` does: validation, reservation, outcome, a typed result."""
    limits = Limits(connections=concurrency)
    async with KodmobiClient(API_KEY, base_url=f"{base}/session", limits=limits) as client:
        yield lambda session_id: client.send(session_id, Channel.TELEGRAM)


@contextlib.asynccontextmanager
async def hooked(base: str, concurrency: int) -> AsyncIterator[Call]:
    """Ours, with one hook that does nothing."""
    limits, hooks = Limits(connections=concurrency), (lambda _: None,)
    async with KodmobiClient(API_KEY, base_url=f"{base}/session", limits=limits, hooks=hooks) as client:
        yield lambda session_id: client.send(session_id, Channel.TELEGRAM)


@contextlib.asynccontextmanager
async def bare(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A call as aiohttp's documentation shows it: no retries, no cooldown, no types."""
    url = f"{base}/session/send"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def call(session_id: str) -> object:
            async with session.post(url, json=payload(session_id), headers=HEADERS) as response:
                return await response.json()

        yield call


@contextlib.asynccontextmanager
async def tuned(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A bare call with all that a session lets one leave out, and a faster JSON."""
    url = URL(f"{base}/session/send")
    headers = {**HEADERS, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
    ) as session:

        async def call(session_id: str) -> object:
            body = orjson.dumps(payload(session_id))
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return orjson.loads(await response.read())

        yield call


@contextlib.asynccontextmanager
async def with_tenacity(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A bare call in tenacity's decorator, with the usual backoff."""
    url = f"{base}/session/send"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        @tenacity.retry(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(0.1, max=5.0),
            retry=tenacity.retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
            reraise=True,
        )
        async def call(session_id: str) -> object:
            async with session.post(url, json=payload(session_id), headers=HEADERS) as response:
                response.raise_for_status()
                return await response.json()

        yield call


@contextlib.asynccontextmanager
async def with_aiohttp_retry(base: str, concurrency: int) -> AsyncIterator[Call]:
    """A bare call through aiohttp_retry's client."""
    aiohttp_retry: Any = importlib.import_module("aiohttp_retry")
    url = f"{base}/session/send"
    options = aiohttp_retry.ExponentialRetry(attempts=ATTEMPTS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        client = aiohttp_retry.RetryClient(client_session=session, retry_options=options, raise_for_status=True)

        async def call(session_id: str) -> object:
            async with client.post(url, json=payload(session_id), headers=HEADERS) as response:
                return await response.json()

        yield call


@contextlib.asynccontextmanager
async def raw(base: str, concurrency: int) -> AsyncIterator[Call]:
    """An `asyncio.Protocol` written for this one request: nothing checked, nothing bounded. The limit."""
    address = URL(f"{base}/session/send")
    async with Pool(address.host or "", address.port or 0, concurrency) as pool:
        head = (
            f"POST {address.raw_path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nx-api-key: {API_KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

        async def call(session_id: str) -> object:
            body = orjson.dumps(payload(session_id))
            return orjson.loads(await pool.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body)))

        yield call


BASE: Final = "aiohttp"
"""The contestant that all others are compared with."""

OURS: Final = "ours"
LIMIT: Final = "raw"
HOOKED: Final = "hooked"

CONTESTANTS: Final[dict[str, Contestant]] = {
    each.name: each
    for each in (
        Contestant(BASE, "aiohttp, bare call", ("aiohttp",), bare),
        Contestant(OURS, "kodmobi_async", ("kodmobi_async",), ours, is_peer=False),
        Contestant("tuned", "aiohttp, tuned session", ("aiohttp", "orjson"), tuned, is_peer=False),
        Contestant("tenacity", "aiohttp + tenacity", ("aiohttp", "tenacity"), with_tenacity),
        Contestant("aiohttp_retry", "aiohttp_retry", ("aiohttp-retry",), with_aiohttp_retry),
        Contestant("stamina", "httpx + stamina", ("httpx", "stamina"), peers.httpx_stamina),
        Contestant("slack", "slack_sdk", ("slack_sdk",), peers.slack),
        Contestant("twilio", "twilio, Verify", ("twilio",), peers.twilio),
        Contestant("prelude", "prelude (httpx)", ("prelude-python-sdk",), peers.prelude_httpx),
        Contestant("prelude_aiohttp", "prelude (aiohttp)", ("prelude-python-sdk",), peers.prelude_aiohttp),
        Contestant(LIMIT, "asyncio protocol: the limit", (), raw, is_peer=False),
    )
}

UNDER_CALLGRIND: Final[dict[str, Opener]] = {HOOKED: hooked, **{name: each.open for name, each in CONTESTANTS.items()}}
"""Whose instructions are counted; what a hook costs is too little to be told from times."""
