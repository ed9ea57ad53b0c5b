"""What is done with what processes share: one atomic step each, and the reply to it.

A pair has one slot. It is free, reserved by a token until its lease ends, or blocked until its window ends. An
account has one queue of turns, which the service can close.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

import attrs

from kodmobi_async._values.errors import ConfigurationError

FREE: Final = 0
BLOCKED: Final = 1
RESERVED: Final = 2


class Operation(Enum):
    """A step. Its arguments come after the key; times are in milliseconds."""

    RESERVE = "reserve"
    """token, lease → the state that prevents the reservation, else ``FREE``; what is left of that state."""
    START = "start"
    """token, window → ``FREE`` if another reservation holds the slot, else ``BLOCKED``; 1 if its own was lost."""
    RELEASE = "release"
    """token → ``BLOCKED`` if this reservation held the slot, else ``FREE``; 0."""
    OBSERVE = "observe"
    """any name, window → the state, what is left of it; a reservation stays as it is."""
    READ = "read"
    """→ the state, what is left of it."""
    TURN = "turn"
    """Of an account, in microseconds: spacing, negative if only those are spaced who are held back by a closure;
    longest wait; where there is such, the turn that is held already, and for how long the account is closed as far as
    known here → the turn by the store's clock, or 0 where the wait would be too long; the wait; for how long the
    account is closed. Two zeros: at once, and the account is open."""
    GIVE_BACK = "give back"
    """Of an account, in microseconds: turn, spacing → ``FREE``; 0."""
    CLOSE = "close"
    """Of an account: any name, for how long → ``FREE``; 0."""
    PRESENT = "present"
    """Of an account: the name of a process, for how long it counts as active, and, unless this is a probe, the
    account's key, whose listeners are told of a new one → ``FREE``; how many are active."""


@attrs.frozen
class WrongSetup:
    """What is wrong with a set-up, and what to do.

    Attributes:
        message: It holds nothing of an address, a path or a server's reply.
        always: Whether it is wrong even if it has worked before.
    """

    message: str
    always: bool = False

    def error(self, what: str) -> ConfigurationError:
        """Return the error for callers, about what they share."""
        return ConfigurationError(f"{what} cannot be used: {self.message}")


@attrs.frozen
class Unavailable:
    """No reply: the store was not reached, did not reply in time, or refused the step.

    Attributes:
        reason: A few words, without anything of an address, a path or a server's reply.
        setup: What is wrong with the set-up, if that is why.
    """

    reason: str
    setup: WrongSetup | None = None


Reply: TypeAlias = tuple[int, ...] | Unavailable
"""A state and another number, unless the step says otherwise; or the lack of both."""
