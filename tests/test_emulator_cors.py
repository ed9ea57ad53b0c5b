"""Pages of any origin may call the emulator's API: the bytes, and a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from chromium import Page, needs_chromium, open_page, running_chromium
from raw_http import SESSION, UNKNOWN, Response, call, clean_emulator, send

from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ORIGIN = "https://shop.example"
ENDPOINTS = {
    "create": "POST",
    "send": "POST",
    "channels": "GET",
    "check": "POST",
    "verify": "POST",
    "settings": "GET",
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with clean_emulator() as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key, "Origin": ORIGIN}) as session:
        yield session


async def preflight(emulator: Emulator, path: str, method: str = "POST", **headers: str) -> Response:
    url = f"http://127.0.0.1:{emulator.port}{path}"
    async with aiohttp.ClientSession() as http:  # a browser sends no key with it
        return await call(http, url, method="OPTIONS", Access_Control_Request_Method=method, **headers)


@pytest.mark.parametrize("prefix", ["session", "v2"])
@pytest.mark.parametrize(("endpoint", "method"), ENDPOINTS.items())
async def test_every_endpoint_responds_to_a_preflight(
    emulator: Emulator, prefix: str, endpoint: str, method: str
) -> None:
    response = await preflight(emulator, f"/{prefix}/{endpoint}", method, Origin=ORIGIN)
    assert (response.status, response.raw) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Methods"] == method
    allowed = "x-api-key, content-type, accept-language, x-cf-turnstile-token"
    assert response.headers["Access-Control-Allow-Headers"] == allowed
    assert response.headers["Access-Control-Max-Age"] == "600"


async def test_a_preflight_of_an_unknown_path_lets_the_page_see_the_404(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    assert (await preflight(emulator, "/api/send", Origin=ORIGIN)).status == 204
    response = await call(http, f"http://127.0.0.1:{emulator.port}/api/send")
    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (404, "*")


async def test_options_without_an_origin_are_no_preflight(emulator: Emulator) -> None:
    assert (await preflight(emulator, "/session/send")).status == 404


async def test_a_preflight_is_not_counted_and_uses_up_no_fault(emulator: Emulator) -> None:
    emulator.script(Fault.answer(503), endpoint=None)
    assert (await preflight(emulator, "/session/send", Origin=ORIGIN)).status == 204
    assert emulator.requests == {}
    assert emulator.pending_faults == 1


async def test_a_page_may_read_every_response_refusals_and_faults_included(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    for fault in (Fault.answer(502), Fault.refuse("ERROR_BLOCKED"), Fault.delay(1), Fault.drip(0)):
        emulator.script(fault)
    responses = [await send(http, emulator, each) for each in (session_id,) * 6 + (UNKNOWN, "hello")]
    assert [response.status for response in responses] == [502, 403, 200, 429, 429, 429, 404, 400]
    for response in responses:
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Expose-Headers"] == "Retry-After, Date, X-Request-Id"


async def test_a_client_that_is_no_page_gets_no_such_headers(emulator: Emulator) -> None:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http:
        response = await send(http, emulator, emulator.add_session(SESSION))
    assert not any(name.startswith("Access-Control") for name in response.headers)


async def test_a_fault_may_have_other_cors_headers(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.script(Fault.answer(200, {"access-control-allow-origin": "null"}))
    assert (await send(http, emulator, SESSION)).headers["Access-Control-Allow-Origin"] == "null"


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
async def page(devtools: str) -> AsyncIterator[Page]:
    async with open_page(devtools) as page:
        yield page


@pytest.fixture
async def shop() -> AsyncIterator[str]:
    """A web site of another origin."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>shop</title>", content_type="text/html")

    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/", serve)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://localhost:{runner.addresses[0][1]}/"
    await runner.cleanup()


CALL = """
window.call = async (path, body, headers = {}) => {
    const response = await fetch(`http://127.0.0.1:%d/session/${path}`, {
        method: body ? "POST" : "GET",
        body: body && JSON.stringify(body),
        headers: {"x-api-key": "emulator-key", "content-type": "application/json", "accept-language": "en", ...headers},
    })
    return {
        status: response.status,
        retryAfter: response.headers.get("retry-after"),
        requestId: response.headers.get("x-request-id"),
        date: response.headers.get("date"),
        body: await response.json(),
    }
}
"""


@needs_chromium
@pytest.mark.real_clock
async def test_a_page_of_another_origin_does_the_whole_login(emulator: Emulator, page: Page, shop: str) -> None:
    await page.goto(shop)
    await page.run(CALL % emulator.port)
    created = await page.run('call("create", {to: "+14155550123"})')
    session_id = created["body"]["session_id"]
    assert (created["status"], created["body"]["sent_to"]) == (200, "telegram")
    assert created["requestId"]
    assert created["date"]
    early = await page.run(f'call("send", {{session_id: "{session_id}", type: "telegram"}})')
    assert (early["status"], early["retryAfter"]) == (429, "60")
    sent = await page.run(
        f'call("send", {{session_id: "{session_id}", type: "sms"}}, {{"x-cf-turnstile-token": "token"}})'
    )
    assert (sent["status"], sent["body"]["channel"]["type"]) == (200, "sms")
    channels = await page.run(f'call("channels?session_id={session_id}")')
    assert [channel["timeout"] > 0 for channel in channels["body"]] == [True, False, True, False]
    emulator.script(Fault.refuse("ERROR_BLOCKED"), endpoint="check")
    check = f'call("check", {{session_id: "{session_id}", code: "{emulator.last_code("+14155550123")}"}})'
    assert (await page.run(check))["body"]["sys_message"] == "ERROR_BLOCKED"
    assert (await page.run(check))["body"]["is_test"] is False
    assert (await page.run('call("elsewhere")'))["body"]["sys_message"] == "ERROR_NOT_FOUND"
    assert emulator.requests == {"create": 1, "send": 2, "channels": 1, "check": 2}


@needs_chromium
@pytest.mark.real_clock
async def test_a_page_of_another_origin_cannot_use_the_control_interface(
    emulator: Emulator, page: Page, shop: str
) -> None:
    emulator.add_session(SESSION)
    await page.goto(shop)
    root = f"http://127.0.0.1:{emulator.port}/_emulator"
    for arguments in (f'"{root}/deliveries"', f'"{root}/reset", {{method: "POST", mode: "no-cors"}}'):
        await page.run(f"fetch({arguments}).catch(error => error.message)")
    assert repr(emulator).endswith("1 sessions, 0 delivered, 0 faults pending>")
    assert await page.run(f'fetch("{root}/health").then(() => "read", () => "refused")') == "refused"
