"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Nothing but what a test opens: no window, no profile, no traffic of its own.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--remote-debugging-port=0",
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@contextlib.contextmanager
def running_chromium(profile: Path) -> Iterator[str]:
    """Run Chromium, and yield the address of its DevTools."""
    assert CHROMIUM is not None
    with subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            assert process.stderr is not None
            listening = next(filter(None, (re.search(r"listening on ws://([^/]+)/", line) for line in process.stderr)))
            yield f"http://{listening[1]}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the browser and its helpers


class Page:
    """A tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._replies[number] = replied = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(30):
            reply = await replied
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    async def goto(self, url: str) -> None:
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        async with asyncio.timeout(30):
            await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """Evaluate an expression, wait for it if it is a promise, and return its value."""
        reply = await self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until an expression is truthy, and return its value."""
        async with asyncio.timeout(30):
            while not (value := await self.run(condition)):  # noqa: ASYNC110 the page is in another process
                await asyncio.sleep(0.02)
        return value

    async def press(self, key: str, *, modifiers: int = 0) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Tab": 9, " ": 32, "Escape": 27}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **more,
            )

    async def show(self, *, width: int, height: int, dark: bool = False) -> None:
        """Look through a window of that size."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.command("Page.captureScreenshot", format="png"))["data"])

    async def listen(self) -> None:
        async for message in self._socket:
            reply = message.json()
            if "id" in reply:
                self._replies.pop(reply["id"]).set_result(reply)
            elif reply["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif reply["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(reply["params"]["exceptionDetails"]))
            elif reply["method"] == "Log.entryAdded" and reply["params"]["entry"]["level"] == "error":
                self.errors.append(reply["params"]["entry"]["text"])


@contextlib.asynccontextmanager
async def open_page(devtools: str) -> AsyncIterator[Page]:
    """Open a tab in a Chromium that runs."""
    async with aiohttp.ClientSession() as http:
        async with http.put(f"{devtools}/json/new") as response:
            target = await response.json()
        async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.ensure_future(page.listen())
            for domain in ("Page", "Runtime", "Log"):
                await page.command(f"{domain}.enable")
            await page.command("Emulation.setFocusEmulationEnabled", enabled=True)
            try:
                yield page
            finally:
                async with http.get(f"{devtools}/json/close/{target['id']}"):
                    pass
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
