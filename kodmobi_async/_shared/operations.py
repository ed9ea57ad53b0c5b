"""What trackers do with the slots that processes share: one atomic step each, and the reply to it.

A pair has one slot. It is free, reserved by a token until its lease ends, or blocked until its window ends.
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


@attrs.frozen
class WrongSetup:
    """What is wrong with a set-up, and what to do.

    Attributes:
        message: It holds nothing of an address, a path or a server's reply.
        always: Whether it is wrong even if it has worked before.
    """

    message: str
    always: bool = False

    def error(self) -> ConfigurationError:
        """Return the error for callers."""
        return ConfigurationError(f"the shared cooldowns cannot be used: {self.message}")


@attrs.frozen
class Unavailable:
    """No reply: the store was not reached, did not reply in time, or refused the step.

    Attributes:
        reason: A few words, without anything of an address, a path or a server's reply.
        setup: What is wrong with the set-up, if that is why.
    """

    reason: str
    setup: WrongSetup | None = None


Reply: TypeAlias = tuple[int, int] | Unavailable
"""A state and another number, or the lack of both."""
