"""The emulator's page, in a real browser: codes appear, faults are injected, time is moved."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

import aiohttp
import pytest
from chromium import Page, needs_chromium, open_page, running_chromium
from ports import kept_port
from raw_http import SESSION, call, clean_emulator, get, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kodmobi_async.emulator import Emulator

PHONE = "+14155550123"
in_a_browser = [needs_chromium, pytest.mark.real_clock]


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    with kept_port() as port:
        async with clean_emulator(port=port) as emulator:
            yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


@pytest.fixture
async def page(devtools: str, emulator: Emulator) -> AsyncIterator[Page]:
    """Open the page, which must not cause an error: in its script, by its policy, or by what it loads."""
    async with open_page(devtools) as page:
        await page.show(width=1200, height=900)
        await visit(page, emulator)
        yield page
        assert page.errors == []


async def visit(page: Page, emulator: Emulator) -> None:
    await page.goto(f"http://127.0.0.1:{emulator.port}/_emulator")
    await page.until('document.getElementById("about").textContent')
    await page.until('document.getElementById("connection").textContent === "connected"')


def text(selector: str) -> str:
    return f'(document.querySelector({selector!r})?.innerText ?? "")'


async def click(page: Page, selector: str) -> None:
    await page.run(f"document.querySelector({selector!r}).click()")


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text() -> None:
    html = resources.files("kodmobi_async.emulator._control").joinpath("inbox.html").read_text("utf-8")
    assert re.findall(r"https?://|//\w|@import|url\(|\bsrc=", html.replace("data:,", "")) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\son\w+=", html) == []


@pytest.mark.parametrize("path", ["/_emulator", "/_emulator/"])
async def test_the_page_allows_only_what_is_in_its_file(
    emulator: Emulator, http: aiohttp.ClientSession, path: str
) -> None:
    response = await get(http, f"http://127.0.0.1:{emulator.port}{path}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'; connect-src 'self'; "
        r"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        policy,
    )
    head = await call(http, f"http://127.0.0.1:{emulator.port}{path}", method="HEAD")
    assert (head.status, head.raw) == (200, b"")


async def test_the_page_takes_no_other_method_and_no_other_host(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    url = f"http://127.0.0.1:{emulator.port}/_emulator"
    assert (await call(http, url, method="POST")).status == 404
    assert (await call(http, url, method="GET", Host="example.com")).status == 403


# --- in a browser -----------------------------------------------------------------------------------------------------


class TestInABrowser:
    pytestmark = in_a_browser

    async def test_a_code_appears_as_it_arrives(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        assert "No code has arrived yet" in await page.run(text("section"))
        await call(http, f"{emulator.base_url}/create", {"to": PHONE, "type": "sms"})
        shown = await page.until(text("#codes li"))
        assert shown.split("\n")[:3] == [PHONE, "sms", emulator.last_code(PHONE)]
        assert re.search(r"blocked for (60|59|58) s", shown)
        assert not await page.run('document.getElementById("no-codes").checkVisibility()')
        await page.until(f"/blocked for 5[0-9] s/.test({text('#codes li')})")

    async def test_codes_are_grouped_by_recipient_and_can_be_filtered(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        phone, email = emulator.add_session(to=PHONE), emulator.add_session(to="jane@example.com")
        for session_id, channel in ((phone, "sms"), (email, "email"), (phone, "whatsapp")):
            await send(http, emulator, session_id, channel)
        await page.until('document.querySelectorAll(".delivery").length === 3')
        headings = '[...document.querySelectorAll("#codes h3")].filter(each => each.checkVisibility())'
        assert await page.run(f"{headings}.map(each => each.textContent)") == [PHONE, "jane@example.com"]
        await page.run('document.getElementById("filter").focus()')
        for key in "JANE":
            await page.press(key)
        assert await page.run(f"{headings}.map(each => each.textContent)") == ["jane@example.com"]

    async def test_a_code_can_be_copied(self, emulator: Emulator, http: aiohttp.ClientSession, page: Page) -> None:
        origin = f"http://127.0.0.1:{emulator.port}"
        await page.command(
            "Browser.grantPermissions",
            origin=origin,
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        await call(http, f"{emulator.base_url}/create", {"to": PHONE})
        await page.until(text(".delivery button"))
        await click(page, ".delivery button")
        await page.until(f'{text(".delivery button")} === "Copied"')
        assert await page.run("navigator.clipboard.readText()") == emulator.last_code(PHONE)
        await page.until(f'{text(".delivery button")} === "Copy"')
        await page.run('Object.defineProperty(navigator, "clipboard", {value: undefined})')  # as on a page without TLS
        await click(page, ".delivery button")
        await page.until(f'{text(".delivery button")} === "Selected"')
        assert await page.run("getSelection().toString()") == emulator.last_code(PHONE)

    async def test_a_fault_is_injected_with_the_keyboard_and_makes_a_request_fail(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        await page.run('document.getElementById("fault").focus()')
        for _ in range(3):  # endpoint, times, the button
            await page.press("Tab")
        assert await page.run("document.activeElement.id") == "inject"
        await page.press("Enter")
        await page.until(text("#faults li"))
        assert emulator.pending_faults == 1
        assert (await send(http, emulator, emulator.add_session())).status == 503
        request = await page.until(text("#requests li"))
        assert "503" in request
        assert "fault: answer" in request
        await page.until('document.querySelectorAll("#faults li").length === 0')

    async def test_the_fault_has_the_endpoint_and_the_number_that_were_chosen(
        self, emulator: Emulator, page: Page
    ) -> None:
        await page.run('document.getElementById("fault").selectedIndex = 3')
        await page.run('document.getElementById("endpoint").value = ""')
        await page.run('document.getElementById("times").value = "7"')
        await click(page, "#inject")
        shown = await page.until(text("#faults li"))
        assert "close" in shown
        assert "next 7 requests to any endpoint" in shown
        assert 'when: "after_reading", reset: false, process: true' in shown
        await click(page, "#clear")
        await page.until('document.querySelectorAll("#faults li").length === 0')
        assert emulator.pending_faults == 0

    async def test_every_fault_of_the_menu_is_accepted(self, emulator: Emulator, page: Page) -> None:
        faults = await page.run('document.getElementById("fault").options.length')
        for index in range(faults):
            await page.run(f'document.getElementById("fault").selectedIndex = {index}')
            await click(page, "#inject")
            await page.until(f'document.querySelectorAll("#faults li").length === {index + 1}')
        assert emulator.pending_faults == faults == 12

    async def test_what_is_wrong_with_an_input_is_shown(self, emulator: Emulator, page: Page) -> None:
        await page.run('document.getElementById("times").value = "0"')
        await click(page, "#inject")
        assert await page.until(text("#message")) == "times must be at least 1"
        assert emulator.pending_faults == 0
        page.errors.clear()  # the browser counts the 400 as one

    async def test_time_can_be_moved_and_sped_up(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        session_id = emulator.add_session(to=PHONE)
        await send(http, emulator, session_id)
        await page.until(f"/blocked/.test({text('#codes li')})")
        await click(page, '[data-advance="60"]')
        await page.until(f"/· free/.test({text('#codes li')})")
        assert (await send(http, emulator, session_id)).status == 200
        for _ in range(2):
            await click(page, '[data-advance="60"]')
        await page.until(f"/over/.test({text('#sessions li')})")
        assert (await send(http, emulator, session_id)).status == 404
        await page.run('document.getElementById("speed").value = "60"')
        await page.run('document.getElementById("speed").dispatchEvent(new Event("change"))')
        emulator.add_session(to="jane@example.com")
        await page.until(f"/over/.test({text('#sessions li')})")
        assert emulator.clock.speed == 60
        emulator.clock.speed = 7
        await page.until('document.getElementById("speed").selectedOptions[0].text.startsWith("7")')

    async def test_sessions_are_opened_counted_down_and_ended(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        await click(page, "#add")
        assert re.search(r"(3 min 0|2 min 59) s\s+live\s+Expire", await page.until(text("#sessions li")))
        await click(page, "#sessions button")
        await page.until(f"/over/.test({text('#sessions li')})")
        emulator.add_session(SESSION, to=PHONE)
        await send(http, emulator, SESSION)
        check = f"{emulator.base_url}/check"
        await call(http, check, {"session_id": SESSION, "code": ""})
        await page.until(f"/wrong codes: 1/.test({text('#sessions li')})")
        await call(http, check, {"session_id": SESSION, "code": emulator.last_code(PHONE)})
        await page.until(f"/confirmed/.test({text('#sessions li')})")
        assert await page.run('document.querySelectorAll("#sessions li").length') == 2

    async def test_a_request_opens_to_its_response(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        await send(http, emulator, SESSION)
        await page.until(text("#requests li"))
        await page.run('document.querySelector("summary").focus()')
        await page.press("Enter")
        shown = await page.until(text("#requests pre"))
        assert '"sys_message": "ERROR_MESSAGE_NOT_FOUND"' in shown
        assert f'"session_id": "{SESSION}"' in shown

    async def test_a_reset_empties_the_page(self, emulator: Emulator, http: aiohttp.ClientSession, page: Page) -> None:
        await call(http, f"{emulator.base_url}/create", {"to": PHONE})
        await page.until(text("#codes li"))
        await click(page, "#reset")
        await page.until('document.querySelectorAll(".items > li").length === 0')
        assert "No requests yet" in await page.run(text("#requests-card"))
        assert emulator.ledger == ()

    async def test_a_reload_shows_what_was_there(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        await call(http, f"{emulator.base_url}/create", {"to": PHONE})
        emulator.clock.advance(20)
        await visit(page, emulator)
        shown = await page.until(text("#codes li"))
        assert emulator.last_code(PHONE) in shown
        assert re.search(r"blocked for (40|39|38) s", shown)
        assert PHONE in await page.run(text("#sessions li"))
        assert "POST /session/create" in await page.run(text("#requests li"))

    async def test_the_page_comes_back_with_the_emulator(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        await emulator.aclose()
        await page.until('document.getElementById("connection").textContent === "not connected"')
        await click(page, "#reset")
        assert "Is it still running?" in await page.until(text("#message"))
        await emulator.start()
        await call(http, f"{emulator.base_url}/create", {"to": PHONE})
        await page.until('document.getElementById("connection").textContent === "connected"')
        await page.until(text("#codes li"))
        page.errors.clear()  # the browser counts every connection that was refused

    async def test_text_from_clients_never_becomes_markup(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page
    ) -> None:
        image = "<img/src=x/onerror=document.title='owned'>"
        await call(http, f"{emulator.base_url}/create", {"to": f"{image}@example.com"}, User_Agent=image)
        await get(http, f"http://127.0.0.1:{emulator.port}/session/{image}")
        await page.until('document.querySelectorAll("#requests li").length === 2')
        assert image in await page.run(text("#codes h3"))
        await page.run('document.querySelectorAll("details").forEach(each => each.open = true)')
        assert await page.run('document.querySelectorAll("img, iframe, object").length') == 0
        assert await page.run('document.querySelectorAll("script").length') == 1
        assert await page.run("document.title") == "kod.mobi emulator"

    async def test_everything_comes_from_the_emulator(self, emulator: Emulator, page: Page) -> None:
        loaded = await page.run('performance.getEntriesByType("resource").map(each => new URL(each.name).origin)')
        assert set(loaded) == {f"http://127.0.0.1:{emulator.port}"}

    @pytest.mark.parametrize("width", [320, 390, 800, 1600])
    async def test_the_page_fits_every_width(
        self, emulator: Emulator, http: aiohttp.ClientSession, page: Page, width: int
    ) -> None:
        await page.show(width=width, height=800)
        await call(http, f"{emulator.base_url}/create", {"to": f"{'long' * 40}@example.com", "type": "whatsapp"})
        await page.until(text("#requests li"))
        await click(page, "#inject")
        await page.until(text("#faults li"))
        await page.run('document.querySelector("details").open = true')
        assert await page.run("document.documentElement.scrollWidth") <= width
        buttons = '[...document.querySelectorAll("button")].filter(each => each.checkVisibility())'
        tallest = 44 if width < 800 else 36
        assert await page.run(f"Math.min(...{buttons}.map(each => each.offsetHeight))") >= tallest

    async def test_the_page_is_dark_in_the_dark(self, page: Page) -> None:
        lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        assert min(await page.run(lightness)) > 200
        await page.show(width=1200, height=900, dark=True)
        assert max(await page.run(lightness)) < 50
