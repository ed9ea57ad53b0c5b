"""Sessions, the windows of their channels, and the ledger of what was delivered. Time is passed in."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING

import attrs
from ulid import ULID

from kodmobi_async.emulator import _choices
from kodmobi_async.emulator._identifiers import canonical
from kodmobi_async.emulator._refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ("Delivery", "Session", "Sessions")


@attrs.frozen
class Delivery:
    """A code that reached its recipient; ``at`` is the loop's clock, in seconds."""

    session_id: str
    channel: str
    code: str
    at: float


@attrs.define
class Session:
    """A recipient's session; times are the loop's clock, in seconds."""

    id: str
    code: str
    expires_at: float
    active: frozenset[str]
    blocked_until: dict[str, float] = attrs.Factory(dict[str, float])

    def seconds_left(self, channel: str, now: float) -> int:
        """Return the whole seconds, rounded up, until ``channel`` is free; 0 if it is."""
        left = self.blocked_until.get(channel, now) - now
        # Adding and subtracting the same time leaves an error of 1e-13 seconds, which must not count as a whole one.
        return max(1, math.ceil(round(left, 6))) if left > 0 else 0


@attrs.define(kw_only=True, eq=False)
class Sessions:
    """Every session, and every delivery.

    Args:
        window: Seconds for which a channel is blocked after a send.
        lifetime: Seconds that a session lives.
    """

    window: float
    lifetime: float
    ledger: list[Delivery] = attrs.field(init=False, factory=list[Delivery])
    _by_id: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])
    _by_recipient: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, session_id: str, to: str, active: Collection[str], now: float) -> Session:
        """Open a session for ``to``; it replaces any session of the same id or recipient."""
        code = f"{secrets.randbelow(10**_choices.CODE_LENGTH):0{_choices.CODE_LENGTH}d}"
        session = Session(session_id, code, now + self.lifetime, frozenset(active))
        self._by_id[session_id] = session
        self._by_recipient[to] = session
        return session

    def of_recipient(self, to: str, now: float) -> Session:
        """Return the live session of ``to``; open one if there is none."""
        session = self._by_recipient.get(to)
        if session is None or now >= session.expires_at:
            session = self.add(str(ULID()), to, (), now)
        return session

    def live(self, session_id: object, now: float) -> Session:
        """Return the session that a request names.

        Raises:
            RefusedError: It is not a ULID, or there is no such session, or the session is over.
        """
        spelled = canonical(session_id) if isinstance(session_id, str) else None
        if spelled is None:
            raise RefusedError("ERROR_BAD_REQUEST", field="session_id")
        session = self._by_id.get(spelled)
        if session is None:
            raise RefusedError("ERROR_MESSAGE_NOT_FOUND")
        if now >= session.expires_at:
            raise RefusedError("ERROR_SESSION_EXPIRED")
        return session

    def expire(self, session_id: str, now: float) -> None:
        """End a session.

        Raises:
            KeyError: There is no such session.
        """
        self._by_id[session_id].expires_at = now

    def deliver(self, session: Session, channel: str, now: float) -> None:
        """Deliver the session's code over ``channel``, and block the channel for a window."""
        session.blocked_until[channel] = now + self.window
        self.ledger.append(Delivery(session.id, channel, session.code, now))
