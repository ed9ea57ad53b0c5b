"""An aiohttp service with a button that re-sends a code, and a countdown for it.

KODMOBI_API_KEY=… python aiohttp_service.py
"""

import os

from aiohttp import web

from kodmobi_async.integrations.aiohttp import KODMOBI, kodmobi_context, kodmobi_errors

routes = web.RouteTableDef()


@routes.post("/resend/{session_id}/{channel}")
async def resend(request: web.Request) -> web.Response:
    result = await request.app[KODMOBI].send(request.match_info["session_id"], request.match_info["channel"])
    return web.json_response({"again_in": result.channel.timeout})


@routes.get("/remaining/{session_id}/{channel}")
async def remaining(request: web.Request) -> web.Response:
    client = request.app[KODMOBI]
    seconds = await client.remaining(request.match_info["session_id"], request.match_info["channel"])
    return web.json_response({"seconds": seconds})


def make_app() -> web.Application:
    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context())
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
