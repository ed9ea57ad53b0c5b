"""Cross-origin resource sharing: a page of any origin may call the API, as the vendor's browser SDK does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kodmobi_async.emulator._choices import CHALLENGE_HEADER, ENDPOINTS
from kodmobi_async.emulator._http import Response

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = ("cors_headers", "is_preflight", "preflight")

_REQUEST_HEADERS: Final = ("x-api-key", "content-type", "accept-language", CHALLENGE_HEADER)
_RESPONSE_HEADERS: Final = ("Retry-After", "Date", "X-Request-Id")
_MAX_AGE_SECONDS: Final = 600


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser asks if it may send a request."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(endpoint: str | None) -> Response:
    """Return what a browser may send. For an unknown path, this lets a page see the 404."""
    methods = sorted(set(ENDPOINTS.values())) if endpoint is None else [ENDPOINTS[endpoint]]
    headers = {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": ", ".join(_REQUEST_HEADERS),
        "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
    }
    return Response(204, b"", headers)


def cors_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let a page read the response to a request with ``headers``."""
    if "origin" not in headers:
        return {}
    return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": ", ".join(_RESPONSE_HEADERS)}
