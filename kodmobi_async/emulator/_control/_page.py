"""The inbox: a page that shows the codes as they arrive."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Final

from kodmobi_async.emulator._http import Response

__all__ = ("inbox",)

_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def inbox() -> Response:
    """Return the page. A browser runs nothing in it, and loads nothing for it, but what is in its file."""
    html = resources.files("kodmobi_async.emulator._control").joinpath("inbox.html").read_text("utf-8")
    sources = {name: f"'sha256-{_digest(text)}'" for name, text in _INLINE.findall(html)}
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(200, html.encode(), headers)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
