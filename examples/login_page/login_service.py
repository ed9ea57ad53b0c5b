"""A login page with kod.mobi: one HTML file, and the aiohttp service around it.

KODMOBI_API_KEY=... KODMOBI_SECRET_KEY=... LOGIN_SECRET=... python examples/login_page/login_service.py
"""

from __future__ import annotations

import os
from pathlib import Path

from aiohttp import web

from kodmobi_async import VerifiedUser  # noqa: TC001 a handler that a reader may copy
from kodmobi_async.integrations.aiohttp import kodmobi_context, kodmobi_errors, login_routes

PAGE = Path(__file__).with_name("index.html")


async def show_page(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE, headers={"Content-Security-Policy": "frame-ancestors 'none'"})


async def on_verified(_: web.Request, user: VerifiedUser) -> dict[str, str]:
    # here, an application would begin a session of its own
    return {"user": user.to}


def make_app(*, secure: bool = True) -> web.Application:
    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context())
    app.router.add_get("/", show_page)
    app.add_routes(login_routes(on_verified, secret=os.environ["LOGIN_SECRET"], prefix="/login", secure=secure))
    return app


if __name__ == "__main__":
    # behind a proxy that speaks HTTPS; without one, the cookie needs secure=False
    web.run_app(make_app(), host="127.0.0.1", port=8000)
