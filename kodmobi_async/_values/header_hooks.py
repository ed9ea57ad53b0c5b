"""Headers that hooks add to requests, such as a trace context.

A hook with a method ``request_headers`` is asked once a call, right after the record that begins it. What it returns
goes with every request of the call, repeats and questions after a lost response included. A client without such a hook
asks nobody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol, cast

from kodmobi_async._values.assumptions import CHALLENGE_HEADER
from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async._values.hooks import CallStarted, Hook, log_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What the client sets, what frames a request or belongs to one connection, and what carries credentials.
_RESERVED: Final = re.compile(
    rf"x-api-key|{re.escape(CHALLENGE_HEADER)}|host|accept(-.*)?|content-.*|user-agent|connection|keep-alive|te|trailer"
    r"|transfer-encoding|upgrade|expect|proxy-.*|authorization|cookie",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")


class HeaderHook(Hook, Protocol):
    """A hook that also adds headers to the requests of each call, such as a trace context."""

    def request_headers(self, record: CallStarted, /) -> Mapping[str, str]:
        """Return headers for every request of the call that ``record``, which the hook has been called with, begins.

        Names that the client sets itself, those of HTTP's framing and those of credentials are refused, and so is what
        is no name or value of a header; that is logged, and harms nothing.
        """
        ...


def with_headers(hooks: Iterable[Hook]) -> tuple[HeaderHook, ...]:
    """Return those of the hooks that add headers."""
    return tuple(cast("HeaderHook", hook) for hook in hooks if hasattr(hook, "request_headers"))


def collect_headers(hooks: Iterable[HeaderHook], record: CallStarted) -> dict[str, str]:
    """Return what the hooks add to the requests of a call, whatever becomes of some of them."""
    found: dict[str, str] = {}
    for hook in hooks:
        try:
            headers = dict(hook.request_headers(record))
            if not all(_is_header(name, value) for name, value in headers.items()):
                raise ConfigurationError("a hook may not add such a header")  # noqa: TRY301 logged like its own failures
            found |= {name.lower(): value for name, value in headers.items()}
        except (KeyboardInterrupt, SystemExit):
            raise  # the process is asked to end
        except BaseException as failure:  # noqa: BLE001 a hook's failure, even a cancellation, is not the call's
            log_failure(failure, record)
    return found


def _is_header(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and _NAME.fullmatch(name) is not None
        and _VALUE.fullmatch(value) is not None
        and _RESERVED.fullmatch(name) is None
    )
