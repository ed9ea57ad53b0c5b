"""The client inside FastAPI and aiohttp services, over HTTP."""

from __future__ import annotations

import contextlib
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from pages import names_in, table
from test_errors import TREE, made

from kodmobi_async import CooldownError, KodmobiClient, KodmobiError, Outcome, OutcomeUnknownError, RateLimitedError
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations import _http
from kodmobi_async.integrations.aiohttp import KODMOBI, kodmobi_context, kodmobi_errors
from kodmobi_async.integrations.fastapi import Kodmobi, add_kodmobi_errors, kodmobi_lifespan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

EXAMPLES = Path(__file__).parents[1] / "examples"


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer_that_tells_the_outcome_and_nothing_of_the_session(kind: type[KodmobiError]) -> None:
    for outcome in Outcome:
        error = made(kind, outcome)
        answer = _http.answer_to(error)
        assert answer.status == _http.STATUSES[kind]
        assert answer.body["outcome"] == outcome.value
        assert answer.body["error"] == kind.__name__
        assert answer.body.keys() <= {"error", "outcome", "retry_after"}


def test_the_table_in_words_is_that_of_the_code() -> None:
    written: dict[str, int] = {}
    for names, status in re.findall(r"^\| (`[^|]*) \| (\d{3}) \|", _http.__doc__ or "", re.MULTILINE):
        written |= dict.fromkeys(re.findall(r"`(\w+)`", names), int(status))
    assert written == {kind.__name__: status for kind, status in _http.STATUSES.items() if kind is not KodmobiError}
    shown = {name: int(row[0]) for row in table("docs/reference/web.md", "answer") for name in names_in(row[1])}
    assert shown == written


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "0"), (0.001, "1"), (1.0, "1"), (1.2, "2"), (59.01, "60"), (3600.0, "3600")]
)
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    for error in (
        CooldownError("x", retry_after=seconds, session_id="01K", channel="sms"),
        RateLimitedError("x", status=429, retry_after=seconds),
        OutcomeUnknownError("x", safe_after=seconds),
    ):
        answer = _http.answer_to(error)
        assert answer.headers == {"Retry-After": header, "Cache-Control": "no-store"}
        assert answer.body["retry_after"] == seconds


def test_a_limited_account_has_a_retry_after_even_if_the_service_names_none() -> None:
    assert _http.answer_to(RateLimitedError("x", status=429)).headers["Retry-After"] == "1"


def test_a_users_own_kind_of_error_is_answered_like_its_parent() -> None:
    class PatienceError(CooldownError):
        pass

    answer = _http.answer_to(PatienceError("x", retry_after=1.0, session_id="01K", channel="sms"))
    assert (answer.status, answer.body["error"]) == (429, "CooldownError")


# -- the services ------------------------------------------------------------------------------------------------------


class Service:
    """A service under test, and how to press its button."""

    def __init__(self, ask: Callable[[str, str], Any]) -> None:
        self._ask = ask

    async def resend(self, session_id: str, channel: str = "sms") -> tuple[int, str | None, dict[str, Any]]:
        """Return the status, the Retry-After header and the body."""
        status, headers, body = await self._ask("POST", f"/resend/{session_id}/{channel}")
        return status, headers.get("Retry-After"), body

    async def get(self, path: str) -> Any:
        return (await self._ask("GET", path))[2]


@contextlib.asynccontextmanager
async def fastapi_service(app: FastAPI) -> AsyncGenerator[Service]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):

        async def ask(method: str, path: str) -> tuple[int, Any, Any]:
            answer = await http.request(method, path)
            return answer.status_code, answer.headers, answer.json()

        yield Service(ask)


@contextlib.asynccontextmanager
async def aiohttp_service(app: web.Application) -> AsyncGenerator[Service]:
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as http:

        async def ask(method: str, path: str) -> tuple[int, Any, Any]:
            async with http.request(method, server.make_url(path)) as answer:
                return answer.status, answer.headers, await answer.json()

        yield Service(ask)


def make_fastapi(open_client: Callable[[], KodmobiClient]) -> FastAPI:
    app = FastAPI(lifespan=kodmobi_lifespan(open_client))
    add_kodmobi_errors(app)
    app.post("/resend/{session_id}/{channel}")(resend)
    return app


async def resend(session_id: str, channel: str, kodmobi: Kodmobi) -> dict[str, float]:
    return {"again_in": (await kodmobi.send(session_id, channel)).channel.timeout}


def make_aiohttp(open_client: Callable[[], KodmobiClient]) -> web.Application:
    async def resend(request: web.Request) -> web.Response:
        result = await request.app[KODMOBI].send(request.match_info["session_id"], request.match_info["channel"])
        return web.json_response({"again_in": result.channel.timeout})

    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context(open_client))
    app.router.add_post("/resend/{session_id}/{channel}", resend)
    return app


@pytest.fixture(params=["fastapi", "aiohttp"])
async def service(request: pytest.FixtureRequest, emulator: Emulator) -> AsyncIterator[Service]:
    def open_client() -> KodmobiClient:
        return KodmobiClient(emulator.api_key, base_url=emulator.base_url)

    if request.param == "fastapi":
        async with fastapi_service(make_fastapi(open_client)) as service:
            yield service
    else:
        async with aiohttp_service(make_aiohttp(open_client)) as service:
            yield service


async def test_a_code_is_sent_and_the_next_one_refused_with_the_seconds_left(
    service: Service, emulator: Emulator, session: str
) -> None:
    assert await service.resend(session) == (200, None, {"again_in": 60.0})
    status, retry_after, body = await service.resend(session)
    assert (status, retry_after, body["outcome"]) == (429, "60", "not_sent")
    assert body.keys() == {"error", "outcome", "retry_after"}
    assert len(emulator.delivered(session)) == 1


@pytest.mark.parametrize(
    ("fault", "status", "outcome"),
    [
        (Fault.refuse("ERROR_SESSION_EXPIRED"), 410, "refused"),
        (Fault.refuse("ERROR_BLOCKED"), 403, "refused"),
        (Fault.answer(401), 500, "refused"),
        (Fault.answer(200, body=b"{}", process=True), 202, "accepted"),
    ],
    ids=["expired", "blocked", "wrong key", "unreadable"],
)
async def test_an_error_is_answered_by_the_table(
    service: Service, emulator: Emulator, session: str, *, fault: Fault, status: int, outcome: str
) -> None:
    emulator.script(fault)
    found, _, body = await service.resend(session)
    assert (found, body["outcome"]) == (status, outcome)
    assert session not in str(body)
    assert emulator.api_key not in str(body)


async def test_what_is_no_session_is_the_callers_mistake(service: Service) -> None:
    assert await service.resend("nobody") == (400, None, {"error": "InvalidRequestError", "outcome": "not_sent"})


async def test_the_client_is_closed_with_the_service(emulator: Emulator, session: str) -> None:
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    async with fastapi_service(make_fastapi(lambda: client)) as service:
        await service.resend(session)
        assert "closed" not in repr(client)
    assert "closed" in repr(client)
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url)
    async with aiohttp_service(make_aiohttp(lambda: client)) as service:
        await service.resend(session, "email")
        assert "closed" not in repr(client)
    assert "closed" in repr(client)


async def test_a_fastapi_service_without_the_lifespan_says_what_is_missing(session: str) -> None:
    app = FastAPI()
    add_kodmobi_errors(app)
    app.post("/resend/{session_id}/{channel}")(resend)
    async with fastapi_service(app) as service:
        assert await service.resend(session) == (500, None, {"error": "ConfigurationError", "outcome": "not_sent"})


# -- the examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 40


async def test_the_aiohttp_example_sends_and_counts_down(
    emulator: Emulator, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    app = runpy.run_path(str(EXAMPLES / "aiohttp_service.py"))["make_app"]()
    async with aiohttp_service(app) as service:
        assert await service.resend(session) == (200, None, {"again_in": 60.0})
        assert (await service.resend(session))[:2] == (429, "60")
        assert await service.get(f"/remaining/{session}/sms") == {"seconds": pytest.approx(60.0, abs=1.0)}
