"""One call in flight: what is known of it at any moment, so that whoever interrupts it can settle what it holds.

A call makes attempts until one of them settles it. What may follow an attempt whose response was lost depends on the
kind of call: a read is repeated at will, a send inside the window that it may have opened, a check never.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

from kodmobi_async._rules.exchange import Progress
from kodmobi_async._rules.refusals import outcome_of
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import CooldownError, KodmobiError, Outcome, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kodmobi_async._calls.engine import Engine
    from kodmobi_async._rules.exchange import Request, Response
    from kodmobi_async._rules.verdicts import Verdict
    from kodmobi_async._values.hooks import CallKind
    from kodmobi_async._values.settings import Timeout

T = TypeVar("T")

_NOTHING_YET: Final = Progress()
_numbers: Final = itertools.count(1)


class Repeat(Enum):
    """What may follow an attempt whose response was lost."""

    AT_WILL = "at will"
    """The call reads; the same again."""
    IN_WINDOW = "in window"
    """The call sends; the same again while the service certainly refuses a second code."""
    NEVER = "never"
    """The request may have used something up."""


class Call(ABC, Generic[T]):
    """One call: its request, how its response is read, and how far it has come.

    Attributes:
        kind: Which call it is; records show it.
        repeat: What may follow an attempt whose response was lost.
        secrets: What of the request must not stand in an error, a record or a log.
        session_id: The session, in canonical form, where the call is about one.
        channel: The channel, where the call names one.
        to: The recipient, masked, where the call names one.
        request: What goes out with each attempt.
        headers: What hooks add to each request of the call.
        timeout: What bounds the call.
        number: All records of the call share it.
    """

    kind: CallKind
    repeat: ClassVar[Repeat] = Repeat.AT_WILL
    what_is_unknown: ClassVar[str] = "whether the service has read the request"

    secrets: tuple[str, ...] = ()
    to: str | None = None
    headers: Mapping[str, str] | None = None

    task: asyncio.Task[object] | None = None
    """The task that makes the call, while it does."""
    interrupted = False
    """``aclose`` has ended the call."""
    in_flight = False
    """Past the wait for a cooldown: requests are made."""
    deadline = math.inf
    window = WINDOW
    """Seconds for which the service blocks a channel after a send."""
    attempts = 0
    attempt_began = -math.inf
    """When the latest attempt began, on the running loop's clock."""
    progress = _NOTHING_YET
    """Of the latest attempt."""
    first_unknown = math.inf
    """When the first attempt with a lost response began; ``inf`` while there is none."""

    def __init__(
        self, request: Request, timeout: Timeout, session_id: str | None = None, channel: str | None = None
    ) -> None:
        self.request = request
        self.timeout = timeout
        self.session_id = session_id
        self.channel = channel
        self.number = next(_numbers)

    @abstractmethod
    def read(self, response: Response) -> T:
        """Return what a 2xx says.

        Raises:
            UnreadableResponseError: It is not the documented shape.
            OutcomeUnknownError: It belongs to another request.
        """

    def outcome_of_result(self, result: T) -> Outcome:
        """Return what a result says of the code, or of the request where the call sends none."""
        del result
        return Outcome.ACCEPTED

    def sent_to(self, result: T | None) -> str | None:
        """Return the channel that a code was sent over, if any was."""
        del result
        return None

    def begin(self) -> None:
        """Start the clock of ``timeout.total``."""
        self.in_flight = True
        self.deadline = asyncio.get_running_loop().time() + self.timeout.total

    @property
    def is_unknown(self) -> bool:
        """Whether the response of some attempt was lost."""
        return self.first_unknown != math.inf

    @property
    def last_start(self) -> float:
        """The latest moment for an attempt to begin.

        A repeat of an unknown attempt is harmless only while the window that the first one may have opened is
        certainly open; so it has to be over by then, too.
        """
        return min(self.deadline, self.first_unknown + self.window - self.timeout.attempt)

    def outcome_of_attempt(self) -> Outcome:
        """Return what is known at this moment by the latest attempt alone."""
        progress = self.progress
        if progress.status is not None and not progress.foreign:
            return outcome_of(progress.status)
        return Outcome.UNKNOWN if progress.written else Outcome.NOT_SENT

    def outcome_now(self) -> Outcome:
        """Return what is known at this moment, the latest attempt included."""
        if self.repeat is Repeat.AT_WILL:
            return Outcome.NOT_SENT
        outcome = self.outcome_of_attempt()
        return Outcome.UNKNOWN if self.is_unknown and outcome is not Outcome.ACCEPTED else outcome

    def conclude(self, error: KodmobiError | None) -> tuple[KodmobiError, KodmobiError | None, float | None]:
        """Return the error to raise, its cause, and the seconds to block a slot for (``None``: release it).

        A call's outcome is its worst attempt's: once one is unknown, only the service's own word about it, not a
        refusal of a later attempt, makes it known.
        """
        assert error is not None  # noqa: S101 a verdict has a result or an error
        if isinstance(error, CooldownError):
            if self.is_unknown:
                # refused as too early: so the one before had arrived
                error.outcome = Outcome.ACCEPTED
            return error, None, error.retry_after
        if error.outcome is Outcome.ACCEPTED:
            return error, None, self.window
        if not self.is_unknown:
            return error, None, None
        if isinstance(error, OutcomeUnknownError):
            error.args = (f"it is unknown {self.what_is_unknown}: {error}",)
            return error, None, self.window
        text = f"it is unknown {self.what_is_unknown}; the last attempt: {error}"
        return OutcomeUnknownError(text, safe_after=self.safe_after), error, self.window

    @property
    def safe_after(self) -> float:
        """Seconds until the same may be asked for again, where the outcome is unknown."""
        return self.window if self.repeat is Repeat.IN_WINDOW else 0.0

    def interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the call where it stands, at the loop's next turn."""
        loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None and not self.interrupted:
            self.interrupted = True
            self.task.cancel()


class SendingCall(Call[T]):
    """A call that sends a code, and holds a slot meanwhile: ``send``, ``create``."""

    @abstractmethod
    async def resolve(self, engine: Engine, verdict: Verdict[T]) -> Verdict[T]:
        """Find out what became of an attempt whose response was lost, and return the verdict in that light."""

    @abstractmethod
    def blocks(self, result: T) -> tuple[float, str | None]:
        """Return for how many seconds a result blocks the slot, and which other channel of the session, if any."""


class Read(Call[T]):
    """A call that sends nothing and changes nothing: ``channels``, ``settings``, a question about another call.

    Args:
        kind: Which call it is.
        request: What to ask.
        reader: Reads the response.
        timeout: What bounds it.
        session_id: The session, where it is about one.
    """

    def __init__(
        self,
        kind: CallKind,
        request: Request,
        reader: Callable[[Response], T],
        timeout: Timeout,
        session_id: str | None = None,
    ) -> None:
        super().__init__(request, timeout, session_id)
        self.kind = kind
        self._reader = reader

    def read(self, response: Response) -> T:
        """Return what a 2xx says."""
        return self._reader(response)
