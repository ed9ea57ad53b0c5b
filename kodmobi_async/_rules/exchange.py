"""What passes between the rules and the connections: a request, a response or a failure, and how far an exchange came.

Requests, responses and failures are as good as frozen. They are not frozen, because that makes them twice as slow to
build.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import attrs

MAX_BODY_BYTES: Final = 262_144
"""Longer bodies are not read. The documented ones are below 2 KiB."""

_NO_HEADERS: Final[Mapping[str, str]] = {}


@attrs.define
class Request:
    """One HTTP request, relative to the base address.

    Attributes:
        method: The HTTP method.
        target: Path and query, below the base address.
        body: JSON, where there is one. It may hold private data.
        headers: What goes with this request alone: the token of a CAPTCHA, what hooks add; names and values are right.
        takes_secret_key: Whether the secret key goes with it, instead of the public one.
    """

    method: str
    target: str
    body: bytes | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    takes_secret_key: bool = False


@attrs.define
class Response:
    """What came back: all of it, or the status and headers with the reason why the body could not be read."""

    status: int
    # not shown where a traceback shows variables: a service may repeat in them what it was sent
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    flaw: str | None = None


@attrs.define
class Failure:
    """Why there is no response.

    Attributes:
        reason: For people.
        permanent: The same will happen again.
    """

    reason: str
    permanent: bool = False


class Closable(Protocol):
    """A connection, as far as the rules know it."""

    def close(self) -> None:
        """Close it now."""
        ...


class Progress:
    """How far an exchange has come."""

    __slots__ = ("connection", "foreign", "headers", "status", "unusable", "written")

    def __init__(self) -> None:
        self.written = False
        """The request was handed to a connected socket."""
        self.connection: Closable | None = None
        """The connection that the request was written to."""
        self.unusable = False
        """The connection turned out to be closed when the request was about to be written."""
        self.status: int | None = None
        """The status that came back."""
        self.headers: Mapping[str, str] = _NO_HEADERS
        """The headers that came with it."""
        self.foreign = False
        """The response belongs to another request."""

    def disown(self) -> None:
        """Note that the response belongs to another request, and close its connection: the next response may, too.

        A connection that is back in its pool is closed before anyone else can take it, if nothing was awaited since
        the response was read.
        """
        self.foreign = True
        if self.connection is not None:
            self.connection.close()
