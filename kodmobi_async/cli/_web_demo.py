"""``kodmobi demo --web``: a login page in a browser, with an emulator that stands in for the service."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import secrets
import signal
from typing import TYPE_CHECKING

from aiohttp import web

from kodmobi_async import ConfigurationError, KodmobiClient, Limits
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._output import seconds
from kodmobi_async.emulator import Emulator
from kodmobi_async.integrations.aiohttp import kodmobi_context, kodmobi_errors, login_routes

if TYPE_CHECKING:
    from kodmobi_async import VerifiedUser
    from kodmobi_async.cli._output import Output

__all__ = ("demonstrate_in_browser",)


async def demonstrate_in_browser(output: Output, window: float, port: int) -> int:
    """Serve the page until the process is told to stop, and show the codes that would have arrived."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows has no such signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Emulator(window=window) as emulator:
        runner = web.AppRunner(_app_for(emulator, window))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            try:
                await site.start()
            except OSError as error:
                raise ConfigurationError(f"cannot listen on port {port}: {error.strerror}; choose another") from None
            host, taken = runner.addresses[0][:2]
            _introduce(output, emulator, f"http://{host}:{taken}/", window)
            await _show_codes(output, emulator, stop)
        finally:
            await runner.cleanup()
    return ExitCode.SENT


def _app_for(emulator: Emulator, window: float) -> web.Application:
    def open_client() -> KodmobiClient:
        return KodmobiClient(
            emulator.api_key,
            secret_key=emulator.secret_key,
            base_url=emulator.base_url,
            limits=Limits(window=window),
        )

    page = importlib.resources.files("kodmobi_async.cli").joinpath("login_page.html").read_text("utf-8")

    async def show_page(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def on_verified(_: web.Request, user: VerifiedUser) -> dict[str, str]:
        return {"user": user.to}

    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context(open_client))
    app.router.add_get("/", show_page)
    app.add_routes(login_routes(on_verified, secret=secrets.token_bytes(32), prefix="/login", secure=False))
    return app


def _introduce(output: Output, emulator: Emulator, address: str, window: float) -> None:
    output.say("A login page; an emulator stands in for the service, and no code reaches anybody.", style="bold")
    output.field("page", address)
    output.field("inbox", f"{emulator.base_url.removesuffix('/session')}/_emulator")
    output.field("", f"a channel is blocked for {seconds(window)} after a send: --window")
    output.say()
    output.say("Codes delivered, until Ctrl-C:", style="bold")


async def _show_codes(output: Output, emulator: Emulator, stop: asyncio.Event) -> None:
    async def show() -> None:
        async for delivery in emulator.deliveries():
            output.say(f"  {delivery.to}  {delivery.channel:<8}  {delivery.code}")

    showing = asyncio.create_task(show())
    try:
        await stop.wait()
    finally:
        showing.cancel()
