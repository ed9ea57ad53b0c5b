"""A test that would reach the real service fails at once.

Nothing in the client asks whether a test is running: the method that makes an exchange is replaced while it matters.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kodmobi_async._io.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Generator

    from kodmobi_async._rules.exchange import Failure, Progress, Request, Response

__all__ = ("RealServiceError", "no_real_service")

_DOMAIN: Final = "kod.mobi"
_METHOD: Final = "exchange"


class RealServiceError(AssertionError):
    """A test would have sent a request to the real service.

    It is no `KodmobiError`, so that a program that handles those does not handle this.
    """


@contextmanager
def no_real_service() -> Generator[None]:
    """Refuse all requests of this process's clients to ``kod.mobi``, before a connection is opened.

    Raises:
        RealServiceError: In the call, and again at the end of the block, should the program have caught it.
    """
    exchange = Transport.exchange
    refused: list[str] = []

    async def refuse_or_exchange(
        transport: Transport, request: Request, progress: Progress, *, deadline: float, connect: float
    ) -> Response | Failure:
        base_url = transport.base_url
        if _is_real(base_url):
            refused.append(f"{request.method} {base_url}{request.target.partition('?')[0]}")
            raise _error(refused)
        return await exchange(transport, request, progress, deadline=deadline, connect=connect)

    setattr(Transport, _METHOD, refuse_or_exchange)
    try:
        yield
    finally:
        setattr(Transport, _METHOD, exchange)
    if refused:
        raise _error(refused)


def _is_real(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == _DOMAIN or host.endswith(f".{_DOMAIN}")


def _error(refused: list[str]) -> RealServiceError:
    return RealServiceError(
        f"a test would have sent a request to the real service, {refused[0]}: give the client the emulator's base_url,"
        " or set KODMOBI_BASE_URL before the client is built (with pytest: the fixture kodmobi_env)"
    )
