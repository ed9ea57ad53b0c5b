"""What a client tells about its work: one frozen record an event, handed to each hook.

A hook is called on the event loop, in the order of events; it must not block. What it raises is logged and harms
nothing. A client without hooks builds no records.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs

from kodmobi_async._errors import KodmobiError, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

_log: Final = logging.getLogger("kodmobi_async")


def shorten(session_id: str) -> str:
    """Return enough of a session id to recognise it by, and too little to use it."""
    return f"{session_id[:4]}…{session_id[-4:]}"


class Phase(StrEnum):
    """How far an attempt came."""

    NOT_WRITTEN = "not_written"
    """Nothing of the request was handed to a connection."""
    WRITTEN = "written"
    """The request was written; no answer came."""
    ANSWERED = "answered"
    """A status came back."""


@attrs.frozen
class SendStarted:
    """A send was asked for, and its input is right.

    Attributes:
        call: A number that all records of one call share, unique within the process.
        session_id: The session; records show it shortened.
        channel: The channel.
        url: Where the request will go.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    url: str


@attrs.frozen
class CooldownHit:
    """The channel is in its cooldown: the call ends by that, or waits where the service is the one to say so.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        retry_after: Seconds until the next send may go.
        by_service: The service said so; otherwise the client held the request back.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    retry_after: float
    by_service: bool


@attrs.frozen
class AttemptFinished:
    """One request came to an end.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        number: Which attempt of the call; 1 is the first.
        outcome: What became of the code by this attempt alone.
        phase: How far it came.
        status: The HTTP status, if one came back.
        duration: Seconds.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    number: int
    outcome: Outcome
    phase: Phase
    status: int | None
    duration: float


@attrs.frozen
class RetryScheduled:
    """Another attempt will be made.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        after_attempt: The number of the attempt that failed.
        pause: Seconds until the next one; the gate may add to it.
        reason: Why the last one failed.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    after_attempt: int
    pause: float
    reason: str


@attrs.frozen
class GateClosed:
    """The service limits the account; the whole client holds back.

    Attributes:
        seconds: For how long.
    """

    seconds: float


@attrs.frozen
class SendFinished:
    """A send has ended, and its slot is settled.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        outcome: What became of the code.
        attempts: How many requests were made.
        confirmed: Asking the service showed that the send had arrived.
        error: What the call raises; ``None`` if it returns a result, or was cancelled.
        cancelled: The call was cancelled, or failed by an exception that is not of this package.
        duration: Seconds, the wait for the cooldown included.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    outcome: Outcome
    attempts: int
    confirmed: bool
    error: KodmobiError | None
    cancelled: bool
    duration: float


Record: TypeAlias = SendStarted | CooldownHit | AttemptFinished | RetryScheduled | GateClosed | SendFinished


class Hook(Protocol):
    """Anything that takes a record; look at its class to see what happened."""

    def __call__(self, record: Record, /) -> None:
        """Take note of ``record``."""
        ...


def tell(hooks: Sequence[Hook], record: Record) -> None:
    """Hand ``record`` to every hook, whatever the others do."""
    for hook in hooks:
        try:
            hook(record)
        except Exception:  # noqa: BLE001 a hook is a guest: whatever it raises, the send goes on
            _log.exception("a hook failed on %s", type(record).__name__)
