"""The service's address: from an argument, from the environment, or the documented one; checked before any use."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final

from kodmobi_async._values.errors import ConfigurationError

BASE_URL_VARIABLE: Final = "KODMOBI_BASE_URL"
DEFAULT_BASE_URL: Final = "https://api.kod.mobi/session"

# Plain ASCII, and every part spelled out: what cannot be misread by one parser and followed by another.
_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?P<port>:[0-9]{1,5})?"
    r"(?P<path>(?:/[A-Za-z0-9._~%-]*)*)"
)
_HIGHEST_PORT: Final = 65_535


def resolve_base_url(base_url: object, *, allow_http: bool) -> str:
    """Return the address without a slash at its end; for ``None``, the environment's, else the documented one.

    Args:
        base_url: The address, or ``None``.
        allow_http: Whether ``http://`` to another machine is allowed.

    Raises:
        ConfigurationError: It is no http(s) address of a host and a path, or would send the key in clear text to
            another machine. The message says where the address was set, and never repeats it: it might hold a password.
    """
    source = "base_url"
    if base_url is None:
        base_url, source = os.environ.get(BASE_URL_VARIABLE, "").strip() or DEFAULT_BASE_URL, BASE_URL_VARIABLE
    match = _ADDRESS.fullmatch(base_url) if isinstance(base_url, str) else None
    del base_url  # a traceback that shows variables must not show a password in it
    if match is None or not 0 < int((match["port"] or ":1")[1:]) <= _HIGHEST_PORT:
        raise ConfigurationError(
            f"{source} takes an address like {DEFAULT_BASE_URL}: http or https, a host in ASCII, a port if need be,"
            " a path; no user, query or fragment"
        )
    if match["host"].startswith("["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1])
        except ValueError:
            raise ConfigurationError(f"{source} holds a wrong IPv6 address") from None
    if match["scheme"] == "http" and not allow_http and not _is_loopback(match["host"].strip("[]")):
        raise ConfigurationError(
            f"{source} is http:// to another machine, which would send the API key in clear text: use https://, or say"
            " allow_http=True"
        )
    return match[0].rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
