"""What a journal knows of a request."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async._values.errors import (
    AuthenticationError,
    BalanceError,
    ClientClosedError,
    CooldownError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
)
from kodmobi_async._values.redaction import shorten

if TYPE_CHECKING:
    from kodmobi_async._values.errors import KodmobiError

ACCOUNT_ERRORS: Final = (AuthenticationError, BalanceError, ClientClosedError)
"""What has nothing to do with the request."""


class JournalError(OSError):
    """The journal cannot be read or written any more; what it holds stays valid."""


class State(IntEnum):
    """How far a request has come; the numbers are in the file."""

    LEFT = 0
    """Provably no code was sent, for a reason that has nothing to do with the request. It is sent next time."""
    INTENT = 1
    """Begun, without an outcome: a code may have been sent. The next run asks the service."""
    SENT = 2
    REFUSED = 3
    NOT_SENT = 4
    UNKNOWN = 5
    BLOCKED = 6
    """By its channel's cooldown."""

    def __init__(self, _number: int) -> None:
        self.word = self.name.lower()
        """What people and programs read."""

    @classmethod
    def of(cls, error: KodmobiError | None) -> State:
        """Return the state of a request that ended in an error, or in none."""
        if error is None or error.outcome is Outcome.ACCEPTED:
            return cls.SENT
        if error.outcome is Outcome.UNKNOWN:
            return cls.UNKNOWN
        if isinstance(error, (SendInterruptedError, RateLimitedError, *ACCOUNT_ERRORS)):
            return cls.LEFT
        if isinstance(error, CooldownError):
            return cls.BLOCKED
        return cls.REFUSED if error.outcome is Outcome.REFUSED else cls.NOT_SENT


@attrs.frozen
class Entry:
    """What a journal knows of a request.

    Attributes:
        number: Which request of the input it is, counted from 1.
        session_id: The session.
        channel: The channel.
        tries: How often an earlier run has come to an outcome that is not to count.
        state: How far it has come.
        detail: JSON about its outcome: ``error``, ``confirmed``, ``sent_to``; ``None`` = there is nothing to say.
    """

    number: int
    session_id: str = attrs.field(repr=shorten)
    channel: str
    tries: int = 0
    state: State = State.LEFT
    detail: str | None = attrs.field(default=None, repr=False)
