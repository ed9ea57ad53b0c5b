"""Who may use the control interface: programs on this machine, and the emulator's own page.

A page of another site could otherwise drive it: with a request across origins, or with a name of its own that it
rebinds to this machine's address.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

    from kodmobi_async.emulator._http import Request

__all__ = ("reason_to_refuse",)

_FOREIGN: Final = frozenset({"cross-site", "same-site"})


def reason_to_refuse(request: Request, own_hosts: Collection[str]) -> str | None:
    """Return why a request is refused; None if it is not.

    Args:
        request: With its headers.
        own_hosts: The addresses and names of the emulator, besides those of the loopback interface.
    """
    host = request.headers.get("host", "")
    if not _is_own(_name(host), own_hosts):
        return "the control interface is for this machine: use its address, or localhost, as the Host"
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return "the control interface is not for pages of another origin"
    if request.headers.get("sec-fetch-site") in _FOREIGN and not _is_navigation(request):
        return "the control interface is not for pages of another site"
    return None


def _name(host: str) -> str:
    """Return a ``Host`` without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_own(name: str, own_hosts: Collection[str]) -> bool:
    if name == "localhost" or name.endswith(".localhost") or name in own_hosts:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_navigation(request: Request) -> bool:
    """Return whether somebody followed a link to here."""
    return request.line.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
