"""What a client emits about its work: one frozen record an event, handed to each hook.

A hook is called on the event loop, in the order of events; it must not block. What it raises is logged and harms
nothing. A client without hooks builds no records.

The records of a call are, in this order: `CallStarted`; `AttemptFinished` for each request, and `RetryScheduled` before
each further one; `CooldownHit` where the call ends by, or waits for, a channel's cooldown; `CallFinished` in the end.
`GateClosed` follows the response that closed the gate. `LimitsDegraded` comes before the request that it is about,
`TrackerDegraded` once the slot is settled. For ``send``, the first and the last are a `SendStarted` and a
`SendFinished`.

Above 300 lines: the records are one contract, and those of every send have an ``__init__`` by hand: the generated one,
and its keywords, make a send with a hook 4 % dearer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import attrs

from kodmobi_async._values.errors import ConfigurationError, Outcome
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log: Final = logging.getLogger("kodmobi_async")
_log.addHandler(logging.NullHandler())

CallKind: TypeAlias = Literal["send", "create", "check", "verify", "channels", "settings"]
"""Which call of the client a record belongs to."""


class Phase(StrEnum):
    """How far an attempt came."""

    NOT_WRITTEN = "not_written"
    """Nothing of the request was handed to a connection."""
    WRITTEN = "written"
    """The request was written; no response came."""
    ANSWERED = "answered"
    """A status came back."""


def _shortened(session_id: str | None) -> str:
    return repr(session_id) if session_id is None else shorten(session_id)


@attrs.frozen(slots=False)  # with slots, a frozen object takes a third longer to build
class CallRecord:
    """What all records have in common.

    Attributes:
        call: A number that all records of one call share, unique within the process.
        session_id: The session; reprs show it shortened. ``None`` where the call is about none.
        channel: The channel; ``None`` where the call names none.
        kind: Which call of the client it is.
        to: The recipient, masked, where the call names one.
    """

    call: int
    session_id: str | None = attrs.field(repr=_shortened)
    channel: str | None
    kind: CallKind = attrs.field(default="send", kw_only=True)
    to: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(slots=False, init=False)
class CallStarted(CallRecord):
    """A call was made, and its input is right.

    Attributes:
        url: Where the request will go, without its query.
        method: The HTTP method.
    """

    url: str
    method: str = attrs.field(default="POST", kw_only=True)

    def __init__(  # noqa: PLR0917 keywords cost what this is to save
        self,
        call: int,
        session_id: str | None,
        channel: str | None,
        url: str,
        method: str = "POST",
        kind: CallKind = "send",
        to: str | None = None,
    ) -> None:
        fields = self.__dict__
        fields["call"] = call
        fields["session_id"] = session_id
        fields["channel"] = channel
        fields["url"] = url
        fields["method"] = method
        fields["kind"] = kind
        fields["to"] = to


@attrs.frozen(slots=False, init=False)
class SendStarted(CallStarted):
    """A `CallStarted` of a ``send``."""


@attrs.frozen(slots=False)
class CooldownHit(CallRecord):
    """The channel is in its cooldown: the call ends by that, or waits where the service is the one to say so.

    Attributes:
        retry_after: Seconds until the next send may go.
        by_service: The service said so; otherwise the client held the request back.
    """

    retry_after: float
    by_service: bool


@attrs.frozen(slots=False, init=False)
class AttemptFinished(CallRecord):
    """One request has ended: by its response, without one, or with a call that was ended in the middle.

    Attributes:
        number: Which attempt of the call; 1 is the first.
        outcome: What became of the request by this attempt alone.
        phase: How far it came.
        status: The HTTP status, if one came back.
        duration: Seconds.
    """

    number: int
    outcome: Outcome
    phase: Phase
    status: int | None
    duration: float

    def __init__(  # noqa: PLR0917 keywords cost what this is to save
        self,
        call: int,
        session_id: str | None,
        channel: str | None,
        number: int,
        outcome: Outcome,
        phase: Phase,
        status: int | None,
        duration: float,
        kind: CallKind = "send",
        to: str | None = None,
    ) -> None:
        fields = self.__dict__
        fields["call"] = call
        fields["session_id"] = session_id
        fields["channel"] = channel
        fields["number"] = number
        fields["outcome"] = outcome
        fields["phase"] = phase
        fields["status"] = status
        fields["duration"] = duration
        fields["kind"] = kind
        fields["to"] = to


@attrs.frozen(slots=False)
class RetryScheduled(CallRecord):
    """Another attempt will be made.

    Attributes:
        after_attempt: The number of the attempt that failed.
        pause: Seconds until the next one; the gate may add to it.
        reason: Why the last one failed.
    """

    after_attempt: int
    pause: float
    reason: str


@attrs.frozen(slots=False)
class GateClosed(CallRecord):
    """The service limits the account; the whole client holds back, and all that share its limits, which emit nothing.

    Attributes:
        seconds: For how long.
    """

    seconds: float


@attrs.frozen(slots=False)
class TrackerDegraded(CallRecord):
    """The shared cooldowns were unavailable: for this call, only this process's own windows counted.

    Attributes:
        reason: A few words on why.
    """

    reason: str


@attrs.frozen(slots=False)
class LimitsDegraded(CallRecord):
    """The shared limits of the account were unavailable: for this request, this process kept its own share.

    Attributes:
        reason: A few words on why.
    """

    reason: str


@attrs.frozen(slots=False, init=False)
class CallFinished(CallRecord):
    """A call has ended, and its slot is settled.

    Attributes:
        outcome: What became of the code, or of the request where the call sends none.
        sent_to: The channel that the service says it took the code for, which may be another than ``channel``; ``None``
            where it did not say, or sent nothing.
        attempts: How many requests were made.
        confirmed: Asking the service showed that a request with a lost response had arrived.
        error: What the call raises, a cancellation included; ``None`` if it returns a result.
        duration: Seconds, the wait for a cooldown included.
    """

    outcome: Outcome
    sent_to: str | None
    attempts: int
    confirmed: bool
    error: BaseException | None
    duration: float

    def __init__(  # noqa: PLR0917 keywords cost what this is to save
        self,
        call: int,
        session_id: str | None,
        channel: str | None,
        outcome: Outcome,
        sent_to: str | None,
        attempts: int,
        confirmed: bool,
        error: BaseException | None,
        duration: float,
        kind: CallKind = "send",
        to: str | None = None,
    ) -> None:
        fields = self.__dict__
        fields["call"] = call
        fields["session_id"] = session_id
        fields["channel"] = channel
        fields["outcome"] = outcome
        fields["sent_to"] = sent_to
        fields["attempts"] = attempts
        fields["confirmed"] = confirmed
        fields["error"] = error
        fields["duration"] = duration
        fields["kind"] = kind
        fields["to"] = to

    @property
    def cancelled(self) -> bool:
        """Whether the call ends because its task was cancelled."""
        return isinstance(self.error, asyncio.CancelledError)


@attrs.frozen(slots=False, init=False)
class SendFinished(CallFinished):
    """A `CallFinished` of a ``send``."""


Record: TypeAlias = (
    CallStarted
    | SendStarted
    | CooldownHit
    | AttemptFinished
    | RetryScheduled
    | GateClosed
    | TrackerDegraded
    | LimitsDegraded
    | CallFinished
    | SendFinished
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
            raise ConfigurationError(f"a hook is called with a record; {type(hook).__name__} cannot be called")
        adds_headers = getattr(hook, "request_headers", hook)
        if not callable(adds_headers):
            raise ConfigurationError(
                f"the request_headers of a hook is a method; {type(hook).__name__} has none to call"
            )
        if any(map(_is_asynchronous, (hook, hook.__call__, adds_headers))):
            raise ConfigurationError("a hook is an ordinary function: an asynchronous one would never be awaited")
    return checked


def _is_asynchronous(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def emit(hooks: Sequence[Hook], record: Record) -> None:
    """Hand ``record`` to every hook, whatever the others do."""
    for hook in hooks:
        try:
            hook(record)
        except (KeyboardInterrupt, SystemExit):
            raise  # the process is asked to end
        except BaseException as failure:  # noqa: BLE001 a hook's failure, even a cancellation, is not the call's
            log_failure(failure, record)


def log_failure(failure: BaseException, record: Record) -> None:
    """Log what a hook has raised on ``record``."""
    # without what was being handled when the hook was called, which may name a session
    lines = "".join(traceback.format_exception(failure, chain=False))
    _log.error("a hook failed on %s\n%s", type(record).__name__, lines.rstrip())
