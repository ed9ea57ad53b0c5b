"""The four endpoints of a login, in a FastAPI and in an aiohttp service, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import fastapi
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kodmobi_async import ConfigurationError, KodmobiClient, SessionExpiredError, VerifiedUser
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations._attempts import REMEMBERED, Attempts
from kodmobi_async.integrations._login import LoginFlow, _Login
from kodmobi_async.integrations.aiohttp import kodmobi_context, kodmobi_errors, login_routes
from kodmobi_async.integrations.fastapi import add_kodmobi_errors, kodmobi_lifespan, login_router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PHONE: Final = "+14155550123"
SECRET: Final = "a secret of sixteen characters"


class Browser:
    """Keeps cookies as a browser does, and reads JSON."""

    def __init__(self, request: Callable[..., Any]) -> None:
        self._request = request
        self.cookie: str | None = None
        self.set_cookie = ""

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
        sent = {"Content-Type": "application/json", **headers}
        if self.cookie is not None:
            sent["Cookie"] = self.cookie
        status, answered, text = await self._request(method, f"/login{path}", json.dumps(body), sent)
        self.set_cookie = answered.get("Set-Cookie", "")
        if self.set_cookie:
            pair = self.set_cookie.partition(";")[0]
            self.cookie = None if pair.endswith(('=""', "=")) else pair
        return status, json.loads(text), answered


def opener(emulator: Emulator) -> Callable[[], KodmobiClient]:
    return lambda: KodmobiClient(emulator.api_key, secret_key=emulator.secret_key, base_url=emulator.base_url)


@contextlib.asynccontextmanager
async def fastapi_service(emulator: Emulator, on_verified: Any, **settings: Any) -> AsyncIterator[Browser]:
    app = fastapi.FastAPI(lifespan=kodmobi_lifespan(opener(emulator)))
    add_kodmobi_errors(app)
    app.include_router(login_router(on_verified, **{"secret": SECRET, **settings}), prefix="/login")
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:

            async def request(method: str, path: str, body: str, headers: dict[str, str]) -> tuple[int, Any, str]:
                response = await http.request(method, path, content=body, headers=headers)
                http.cookies.clear()
                return response.status_code, response.headers, response.text

            yield Browser(request)


@contextlib.asynccontextmanager
async def aiohttp_service(emulator: Emulator, on_verified: Any, **settings: Any) -> AsyncIterator[Browser]:
    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context(opener(emulator)))
    app.add_routes(login_routes(on_verified, **{"secret": SECRET, "prefix": "/login", **settings}))
    async with TestServer(app) as server, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:

        async def request(method: str, path: str, body: str, headers: dict[str, str]) -> tuple[int, Any, str]:
            async with http.request(method, server.make_url(path), data=body, headers=headers) as response:
                return response.status, response.headers, await response.text()

        yield Browser(request)


SERVICES: Final = {"fastapi": fastapi_service, "aiohttp": aiohttp_service}


async def welcome(_: Any, user: VerifiedUser) -> dict[str, str]:
    return {"hello": user.to}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Any:
    return SERVICES[request.param]


@pytest.fixture
async def browser(service: Any, emulator: Emulator) -> AsyncIterator[Browser]:
    async with service(emulator, welcome) as browser:
        yield browser


def seconds_left(page: dict[str, Any], channel: str) -> float:
    (found,) = (each["seconds_left"] for each in page["channels"] if each["type"] == channel)
    assert isinstance(found, float)
    return found


async def test_a_whole_login(emulator: Emulator, browser: Browser) -> None:
    status, page, _ = await browser("POST", "/start", {"to": "+1 (415) 555-0123", "channel": "sms"})
    assert (status, page["to"], page["sent_to"]) == (200, "+1•••••0123", "sms")
    assert seconds_left(page, "sms") == pytest.approx(60, abs=0.1)
    assert page["expires_in"] == pytest.approx(180, abs=1.5)
    assert "is_active" not in json.dumps(page)
    status, page, _ = await browser("POST", "/resend", {"channel": "telegram"})
    assert (status, page["sent_to"]) == (200, "telegram")
    status, page, _ = await browser("POST", "/check", {"code": f" {emulator.last_code(PHONE)} "})
    assert (status, page) == (200, {"hello": PHONE})
    assert browser.cookie is None
    status, _, headers = await browser("GET", "/state")
    # a browser keeps a 410 and shows it again, even once there is a login, unless it is told not to
    assert (status, headers["Cache-Control"]) == (410, "no-store")


async def test_the_session_is_in_a_signed_cookie_that_scripts_cannot_read(emulator: Emulator, browser: Browser) -> None:
    _, page, _ = await browser("POST", "/start", {"to": PHONE})
    attributes = browser.set_cookie.lower()
    assert all(word in attributes for word in ("httponly", "samesite=strict", "secure", "max-age=1"))
    session_id = emulator.ledger[0].session_id
    assert session_id not in json.dumps(page)
    name, _, value = (browser.cookie or "").partition("=")
    assert name == "kodmobi_login"
    content, _, signature = value.partition(".")
    other = base64.urlsafe_b64encode(json.dumps(["01K8N1VMPN0EE389K72YW0CBM2", 9e9, "x"]).encode()).decode().rstrip("=")
    for forged in (
        f"{other}.{signature}",
        f"{content}.",
        f"{content}.{signature[::-1]}",
        "x",
        ".",
        "*.*",
        f"{other}.{other}",
    ):
        browser.cookie = f"{name}={forged}"
        status, answered, _ = await browser("GET", "/state")
        assert (status, answered["error"]) == (410, "SessionExpiredError"), forged
    assert emulator.requests["channels"] == 0


async def test_the_countdown_survives_a_reload_and_is_the_services(emulator: Emulator, browser: Browser) -> None:
    await browser("POST", "/start", {"to": PHONE, "channel": "sms"})
    await asyncio.sleep(20)
    status, page, headers = await browser("GET", "/state")
    assert headers["Cache-Control"] == "no-store"
    assert (status, page["sent_to"], page["to"]) == (200, None, "+1•••••0123")
    assert seconds_left(page, "sms") == pytest.approx(40, abs=1)
    status, answered, headers = await browser("POST", "/resend", {"channel": "sms"})
    assert (status, answered["error"], headers["Retry-After"]) == (429, "CooldownError", "40")
    await asyncio.sleep(41)
    assert (await browser("POST", "/resend", {"channel": "sms"}))[0] == 200
    assert len(emulator.ledger) == 2


async def test_starting_twice_sends_once_and_the_first_code_is_still_good(emulator: Emulator, browser: Browser) -> None:
    await browser("POST", "/start", {"to": PHONE})
    browser.cookie = None
    status, page, _ = await browser("POST", "/start", {"to": PHONE})
    assert (status, page["sent_to"]) == (200, None)
    assert (await browser("POST", "/check", {"code": emulator.last_code(PHONE)}))[0] == 200
    assert len(emulator.ledger) == 1


async def test_guesses_are_bounded_for_a_login_and_for_an_address(service: Any) -> None:
    async with (
        Emulator(max_checks=100, session_lifetime=3000) as emulator,
        service(emulator, welcome, max_checks=3, max_checks_per_address=5) as browser,
    ):

        async def guess() -> tuple[int, Any, Any]:
            answered: tuple[int, Any, Any] = await browser("POST", "/check", {"code": "000000x"})
            return answered

        await browser("POST", "/start", {"to": PHONE})
        assert [(await guess())[0] for _ in range(4)] == [400, 400, 400, 429]
        await browser("POST", "/start", {"to": "+14155550124"})
        statuses = [(await guess())[0] for _ in range(3)]
        assert statuses == [400, 429, 429]
        _, answered, headers = await guess()
        assert answered["error"] == "RateLimitedError"
        assert 3500 < int(headers["Retry-After"]) <= 3600
        assert emulator.requests["check"] == 4
        await asyncio.sleep(3601)
        await browser("POST", "/start", {"to": PHONE})
        assert (await guess())[0] == 400


async def test_the_clients_address_may_come_from_elsewhere(service: Any, emulator: Emulator) -> None:
    settings = {"max_checks_per_address": 1, "client_address": lambda request: request.headers["X-Real-IP"]}
    async with service(emulator, welcome, **settings) as browser:
        await browser("POST", "/start", {"to": PHONE})
        for address, expected in (("a", 400), ("a", 429), ("b", 400)):
            status, _, _ = await browser("POST", "/check", {"code": "000000x"}, **{"X-Real-IP": address})
            assert status == expected


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/start", {}),
        ("/start", {"to": 7}),
        ("/start", {"to": PHONE, "channel": 7}),
        ("/start", []),
        ("/start", None),
        ("/resend", {}),
        ("/check", {"code": None}),
    ],
)
async def test_a_body_of_another_shape_is_refused(
    emulator: Emulator, browser: Browser, path: str, body: object
) -> None:
    status, _, _ = await browser("POST", path, body)
    assert status in (400, 422)
    assert not emulator.requests


async def test_a_body_that_is_no_json_is_refused(emulator: Emulator, browser: Browser) -> None:
    status, _, _ = await browser._request("POST", "/login/start", '{"to":', {"Content-Type": "application/json"})
    assert status in (400, 422)
    assert not emulator.requests


async def test_a_cookie_outlives_no_login(emulator: Emulator) -> None:
    flow = LoginFlow(SECRET)
    async with opener(emulator)() as client:
        _, cookie = await flow.start(client, PHONE, "sms", None)
        assert (await flow.state(client, cookie.value)).to == "+1•••••0123"
        ended = flow._cookie(_Login("01K8N1VMPN0EE389K72YW0CBM2", time.time() - 1, "x"))
        with pytest.raises(SessionExpiredError):
            await flow.state(client, ended.value)


async def test_attempts_are_remembered_of_so_many_keys_alone() -> None:
    attempts = Attempts(1, 60.0)
    assert attempts.take("first") == 0
    assert attempts.take("first") == pytest.approx(60)
    for number in range(REMEMBERED):
        attempts.take(str(number))
    assert len(attempts._counts) == REMEMBERED
    assert attempts.take("first") == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_of_another_site_is_refused(emulator: Emulator, browser: Browser, kind: str) -> None:
    status, _, _ = await browser("POST", "/start", {"to": PHONE}, **{"Content-Type": kind})
    assert status in (400, 422)
    assert not emulator.requests


async def test_what_is_no_recipient_and_no_code_is_refused_by_the_table(emulator: Emulator, browser: Browser) -> None:
    assert (await browser("POST", "/start", {"to": "nobody"}))[0] == 400
    await browser("POST", "/start", {"to": PHONE})
    assert (await browser("POST", "/check", {"code": "?"}))[0] == 400
    emulator.script(Fault.close(), endpoint="check")
    status, answered, _ = await browser("POST", "/check", {"code": "123456"})
    assert (status, answered["outcome"]) == (504, "unknown")


async def test_a_lost_response_to_the_start_is_resolved(emulator: Emulator, browser: Browser) -> None:
    emulator.script(Fault.close(process=True), endpoint="create")
    status, page, _ = await browser("POST", "/start", {"to": PHONE})
    assert (status, page["sent_to"]) == (200, "telegram")
    emulator.script(Fault.close(process=True), endpoint="create")
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT"), times=9, endpoint="create")
    status, answered, _ = await browser("POST", "/start", {"to": "+14155550124"})
    assert (status, answered["outcome"]) == (429, "accepted")


async def test_an_application_may_return_a_response_of_its_own_or_nothing(service: Any, emulator: Emulator) -> None:
    responses = {
        "fastapi": lambda *_: fastapi.responses.JSONResponse({"own": True}, 201),
        "aiohttp": lambda *_: web.json_response({"own": True}, status=201),
    }
    own = responses["fastapi" if service is fastapi_service else "aiohttp"]
    for on_verified, expected in ((own, (201, {"own": True})), (lambda *_: None, (200, {"verified": True}))):
        async with service(emulator, on_verified) as browser:
            await browser("POST", "/start", {"to": PHONE})
            status, answered, _ = await browser("POST", "/check", {"code": emulator.last_code(PHONE)})
            assert (status, answered) == expected
        await asyncio.sleep(61)


async def test_an_address_is_masked_too(emulator: Emulator, browser: Browser) -> None:
    _, page, _ = await browser("POST", "/start", {"to": "jane.doe@Example.com", "channel": "email"})
    assert page["to"] == "j•••@Example.com"
    assert emulator.ledger[0].to == "jane.doe@example.com"


@pytest.mark.parametrize("secret", ["short", b"short", 7, None])
@pytest.mark.parametrize("make", [login_router, login_routes])
def test_a_secret_that_is_too_short_is_refused(make: Any, secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="16 bytes or more"):
        make(welcome, secret=secret)
    with pytest.raises(ConfigurationError, match="1 or more"):
        make(welcome, secret=SECRET, max_checks=0)


async def events_of(request: Any) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in request.splitlines() if line.startswith("data: ")]


async def test_events_count_down_and_end_with_the_login(service: Any) -> None:
    async with Emulator(session_lifetime=5) as emulator, service(emulator, welcome) as browser:
        browser_request = browser._request
        await browser("POST", "/start", {"to": PHONE, "channel": "sms"})
        status, headers, text = await browser_request("GET", "/login/events", "null", {"Cookie": browser.cookie})
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
        pages = await events_of(text)
        counted = [round(seconds_left(page, "sms")) for page in pages]
        assert counted[:3] == [60, 59, 58]
        assert emulator.requests["channels"] == 1
        status, _, text = await browser_request("GET", "/login/events", "null", {})
        assert (status, json.loads(text)["error"]) == (410, "SessionExpiredError")


def test_openapi_describes_the_endpoints_with_examples() -> None:
    app = fastapi.FastAPI()
    app.include_router(login_router(welcome, secret=SECRET), prefix="/login")
    document = app.openapi()
    assert set(document["paths"]) == {f"/login/{name}" for name in ("start", "resend", "state", "events", "check")}
    schemas = document["components"]["schemas"]
    assert schemas["StartLogin"]["properties"]["to"]["examples"] == [PHONE]
    assert "retry_after" in schemas["LoginError"]["properties"]
    assert {"410", "429", "504"} <= set(document["paths"]["/login/start"]["post"]["responses"])
