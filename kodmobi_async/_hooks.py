"""What a client tells about its work: one frozen record an event, handed to each hook.

A hook is called on the event loop, in the order of events; it must not block. What it raises is logged and harms
nothing. A client without hooks builds no records.

The records of a send are, in this order: `SendStarted`; `AttemptFinished` for each request, and `RetryScheduled` before
each further one; `CooldownHit` where the call ends by, or waits for, the channel's cooldown; `SendFinished` in the end.
`GateClosed` follows the answer that closed the gate. `TrackerDegraded` comes once the slot is settled.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs

from kodmobi_async._errors import ConfigurationError, Outcome
from kodmobi_async._models import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log: Final = logging.getLogger("kodmobi_async")


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
    """One request came to an end: by its answer, for want of one, or with a call that was ended in the middle.

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
        call: The send whose request was answered so; ``None`` where it was a call of ``channels``.
        seconds: For how long.
    """

    call: int | None
    seconds: float


@attrs.frozen
class TrackerDegraded:
    """What keeps the shared cooldowns was not to be had: for this send, only this process's own windows counted.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        reason: A few words on why.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    reason: str


@attrs.frozen
class SendFinished:
    """A send has ended, and its slot is settled.

    Attributes:
        call: The call.
        session_id: The session; records show it shortened.
        channel: The channel.
        outcome: What became of the code.
        sent_to: The channel that the service says it took the code for, which may be another than ``channel``; ``None``
            where it did not say.
        attempts: How many requests were made.
        confirmed: Asking the service showed that the send had arrived.
        error: What the call raises, a cancellation included; ``None`` if it returns a result.
        duration: Seconds, the wait for the cooldown included.
    """

    call: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    outcome: Outcome
    sent_to: str | None
    attempts: int
    confirmed: bool
    error: BaseException | None
    duration: float

    @property
    def cancelled(self) -> bool:
        """Whether the call ends because its task was cancelled."""
        return isinstance(self.error, asyncio.CancelledError)


Record: TypeAlias = (
    SendStarted | CooldownHit | AttemptFinished | RetryScheduled | GateClosed | TrackerDegraded | SendFinished
)


class Hook(Protocol):
    """Anything that takes a record; look at its class to see what happened."""

    def __call__(self, record: Record, /) -> None:
        """Take note of ``record``."""
        ...


def check_hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    """Return the hooks if each can be called with a record.

    Raises:
        ConfigurationError: They are no collection, or one of them is a class, an asynchronous function, or nothing that
            can be called.
    """
    try:
        checked = tuple(hooks)
    except TypeError:
        raise ConfigurationError(f"hooks takes a list of hooks, not one {type(hooks).__name__}") from None
    for hook in checked:
        if isinstance(hook, type):
            raise ConfigurationError(f"{hook.__name__} is a class: a hook is an instance, {hook.__name__}()")
        if not callable(hook):
            raise ConfigurationError(f"a hook is called with a record, which {type(hook).__name__} cannot be")
        if any(map(_is_asynchronous, (hook, hook.__call__))):
            raise ConfigurationError("a hook is an ordinary function: nobody would await an asynchronous one")
    return checked


def _is_asynchronous(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def tell(hooks: Sequence[Hook], record: Record) -> None:
    """Hand ``record`` to every hook, whatever the others do."""
    for hook in hooks:
        try:
            hook(record)
        except (KeyboardInterrupt, SystemExit):
            raise  # the process is asked to end
        except BaseException as failure:  # noqa: BLE001 a hook is a guest: even a cancellation in it is not the send's
            # without what was being handled when the hook was called, which may name a session
            lines = "".join(traceback.format_exception(failure, chain=False))
            _log.error("a hook failed on %s\n%s", type(record).__name__, lines.rstrip())
