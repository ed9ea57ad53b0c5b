"""The login page of the example and of ``kodmobi demo --web``: served as it is, and used in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from aiohttp.test_utils import TestServer
from chromium import Page, needs_chromium, open_page, running_chromium

import kodmobi_async.cli
from kodmobi_async.cli import _web_demo, main
from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

REPOSITORY: Final = Path(__file__).parents[1]
EXAMPLE: Final = REPOSITORY / "examples" / "login_page"
PACKAGED: Final = Path(kodmobi_async.cli.__file__).with_name("login_page.html")
PHONE: Final = "+14155550123"
WINDOW: Final = 3.0


# -- the file, and the program -----------------------------------------------------------------------------------------


def test_the_packaged_page_is_the_examples() -> None:
    assert PACKAGED.read_text("utf-8") == (EXAMPLE / "index.html").read_text("utf-8")


def test_the_page_is_one_file_that_makes_no_markup_of_text() -> None:
    page = PACKAGED.read_text("utf-8")
    assert not re.search(r"https?://|src=|<link|@import|url\(", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)


@contextlib.contextmanager
def demo(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the program, and yield the page's address."""
    command = [sys.executable, "-m", "kodmobi_async", "demo", "--web", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            lines = (re.search(r"page +(http://127\.0\.0\.1:[0-9]+/)$", line) for line in process.stdout)
            yield next(filter(None, lines))[1], process
        finally:
            process.kill()


@pytest.mark.real_clock
def test_the_program_prints_the_address_and_ends_when_it_is_told_to() -> None:
    with demo("--window", "2") as (address, process):
        port = re.findall("[0-9]+", address)[-1]
        taken = subprocess.run(
            [sys.executable, "-m", "kodmobi_async", "demo", "--web", "--port", port],
            check=False,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert taken.returncode == 2
        assert f"cannot listen on port {port}" in taken.stderr
        asked = urllib.request.Request(
            f"{address}login/start", json.dumps({"to": PHONE}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as response:
            assert response.status == 200
        assert process.stdout is not None
        assert next(
            re.match(rf"  {re.escape(PHONE)}  telegram  [0-9]{{6}}$", line) for line in process.stdout if PHONE in line
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


async def test_the_example_serves_the_page_and_the_endpoints(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_SECRET_KEY", emulator.secret_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    monkeypatch.setenv("LOGIN_SECRET", "sixteen characters or more")
    make_app = runpy.run_path(str(EXAMPLE / "login_service.py"))["make_app"]
    import aiohttp  # noqa: PLC0415 of this test alone

    jar = aiohttp.CookieJar(unsafe=True)
    async with TestServer(make_app(secure=False)) as server, aiohttp.ClientSession(cookie_jar=jar) as http:
        async with http.get(server.make_url("/")) as response:
            assert await response.text() == (EXAMPLE / "index.html").read_text("utf-8")
        async with http.post(server.make_url("/login/start"), json={"to": PHONE}) as response:
            assert response.status == 200
        async with http.post(server.make_url("/login/check"), json={"code": emulator.last_code(PHONE)}) as response:
            assert await response.json() == {"user": PHONE}


def test_the_program_shows_no_page_where_its_port_is_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--web", "--port", "70000"]) == 2
    assert "port" in capsys.readouterr().err.lower()


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


class Visit:
    """Somebody at the login page."""

    def __init__(self, page: Page, emulator: Emulator, address: str) -> None:
        self.page = page
        self.emulator = emulator
        self.address = address

    async def go(self) -> None:
        await self.page.goto(self.address)
        await self.page.until("!document.getElementById('start').hidden || !document.getElementById('check').hidden")

    async def shows(self, part: str) -> None:
        await self.page.until(f"!document.getElementById('{part}').hidden")

    async def type(self, text: str) -> None:
        await self.page.command("Input.insertText", text=text)

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.press(key)

    async def error(self, words: str) -> None:
        await self.page.until(f"document.getElementById('error').textContent.includes({words!r})")

    async def start(self, channel: str = "SMS") -> None:
        await self.go()
        await self.type("+1 (415) 555-0123")
        await self.page.run(
            f"[...document.querySelectorAll('#choices button')].find(e => e.textContent === '{channel}').click()"
        )
        await self.page.run("document.getElementById('to').focus()")
        await self.press("Enter")
        await self.shows("check")

    def button(self, channel: str) -> str:
        return f"[...document.querySelectorAll('#again button')].find(each => each.dataset.channel === '{channel}')"


@pytest.fixture
async def visit(devtools: str) -> AsyncIterator[Visit]:
    async with (
        Emulator(window=WINDOW) as emulator,
        TestServer(_web_demo._app_for(emulator, WINDOW)) as server,
        open_page(devtools) as page,
    ):
        await page.show(width=1000, height=800)
        yield Visit(page, emulator, str(server.make_url("/")))
        # the browser counts refusals as errors; what is left would be the script's own
        assert [error for error in page.errors if "Failed to load resource" not in error] == []


@needs_chromium
@pytest.mark.real_clock
class TestInABrowser:
    async def test_a_login_from_start_to_end(self, visit: Visit) -> None:
        await visit.start()
        page, emulator = visit.page, visit.emulator
        assert "+1•••••0123 over SMS" in await page.run("document.getElementById('sent').textContent")
        assert await page.run(f"{visit.button('sms')}.disabled")
        assert "again in" in await page.run(f"{visit.button('sms')}.textContent")
        assert not await page.run(f"{visit.button('telegram')}.disabled")
        await page.until(f"!{visit.button('sms')}.disabled")  # the countdown has ended
        await page.run(f"{visit.button('sms')}.click()")
        await page.until(f"{visit.button('sms')}.disabled")
        assert [delivery.channel for delivery in emulator.ledger] == ["sms", "sms"]
        # pasted, with spaces, in Arabic-Indic digits
        code = emulator.last_code(PHONE)
        await visit.type(f" {code[:3]} {code[3:]}".translate({ord("0") + digit: 0x660 + digit for digit in range(10)}))
        await visit.press("Enter")
        await visit.shows("done")
        assert await page.run("document.getElementById('user').textContent") == PHONE
        assert await page.run("document.activeElement.id") == "done"

    async def test_a_reload_in_the_middle_keeps_the_countdown(self, visit: Visit) -> None:
        await visit.start("Telegram")
        await visit.go()
        await visit.shows("check")
        assert await visit.page.run(f"{visit.button('telegram')}.disabled")
        assert "+1•••••0123" in await visit.page.run("document.getElementById('sent').textContent")
        assert len(visit.emulator.ledger) == 1
        await visit.page.until(f"!{visit.button('telegram')}.disabled")

    async def test_errors_are_told_in_words(self, visit: Visit) -> None:
        await visit.go()
        await visit.type("nobody")
        await visit.press("Enter")
        await visit.error("Please check what you typed")
        await visit.start()
        await visit.type("000000" if visit.emulator.last_code(PHONE) != "000000" else "111111")
        await visit.press("Enter")
        await visit.error("That code is wrong")
        visit.emulator.expire_session(visit.emulator.ledger[0].session_id)
        await visit.press("Enter")
        await visit.error("This login has ended")
        await visit.shows("start")

    async def test_it_works_with_the_keyboard_alone(self, visit: Visit) -> None:
        await visit.go()
        await visit.type(PHONE)
        await visit.press("Tab", "Tab", "Tab", "Tab", " ")  # to SMS, and choose it
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(each => each.textContent)"
        assert await visit.page.run(pressed) == ["SMS"]
        await visit.press("Tab", "Tab", "Enter")  # past the last channel, to the button
        await visit.shows("check")
        assert await visit.page.run("document.activeElement.id") == "code"
        assert visit.emulator.ledger[0].channel == "sms"

    @pytest.mark.parametrize("width", [320, 390, 1600])
    @pytest.mark.parametrize("dark", [False, True])
    async def test_it_fits_every_width_light_and_dark(self, visit: Visit, width: int, *, dark: bool) -> None:
        await visit.page.show(width=width, height=800, dark=dark)
        await visit.start()
        assert await visit.page.run("document.documentElement.scrollWidth") <= width
        buttons = "[...document.querySelectorAll('button')].filter(each => each.checkVisibility())"
        assert await visit.page.run(f"Math.min(...{buttons}.map(each => each.offsetHeight))") >= 40
        lightness = await visit.page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(lightness) < 60) is dark
        folder = os.environ.get("KODMOBI_SCREENSHOTS")
        if folder:
            name = f"login-{width}{'-dark' if dark else ''}.png"
            Path(folder, name).write_bytes(await visit.page.screenshot())  # noqa: ASYNC240 for people, on demand
