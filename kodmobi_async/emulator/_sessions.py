"""Users, their sessions, the windows of their channels, and the ledger of deliveries. Time is passed in."""

from __future__ import annotations

import hmac
import itertools
import math
import secrets
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
from ulid import ULID

from kodmobi_async.emulator._events import Events, Log
from kodmobi_async.emulator._identifiers import canonical
from kodmobi_async.emulator._masks import mask, mask_recipient, shorten
from kodmobi_async.emulator._refusals import RefusedError
from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Delivery", "Session", "Sessions", "User")

T = TypeVar("T")

# Without those that look like digits.
_LETTERS: Final = string.ascii_uppercase.translate(str.maketrans("", "", "ILO"))


@attrs.frozen
class Delivery:
    """A code that reached its recipient.

    Attributes:
        session_id: The session's id in its canonical spelling.
        to: The recipient.
        channel: How the code arrived.
        code: What the recipient would type in.
        at: The time on the emulator's clock, in seconds.
    """

    session_id: str = attrs.field(repr=shorten)
    to: str = attrs.field(repr=mask_recipient)
    channel: str
    code: str = attrs.field(repr=mask)
    at: float


@attrs.define(eq=False, repr=False)
class User:
    """A recipient of codes, through all of its sessions."""

    to: str
    active: set[str] = attrs.Factory(set[str])
    last_channel: str | None = None
    wrong_codes: int = 0
    blocked: bool = False
    session: Session | None = None


@attrs.define(eq=False, repr=False)
class Session:
    """A user's session; times are on the emulator's clock, in seconds."""

    id: str
    user: User
    code: str
    expires_at: float
    wrong_codes: int = 0
    confirmed: bool = False
    blocked_until: dict[str, float] = attrs.Factory(dict[str, float])

    def seconds_left(self, channel: str, now: float) -> int:
        """Return the whole seconds, rounded up, until ``channel`` is free; 0 if it is."""
        left = self.blocked_until.get(channel, now) - now
        # Adding and subtracting the same time leaves an error of 1e-13 seconds, which must not count as a whole one.
        return max(1, math.ceil(round(left, 6))) if left > 0 else 0

    def has_code(self, code: str) -> bool:
        """Compare a code with the session's, in a time that does not depend on where they differ."""
        return hmac.compare_digest(code.encode("utf-8", "replace"), self.code.encode())


@attrs.define(eq=False, repr=False)
class Sessions:
    """Every user, every session, every token, and every delivery."""

    _settings: Settings
    _events: Events
    ledger: Log[Delivery] = attrs.field(init=False)
    _numbers: Iterator[int] = attrs.field(init=False, factory=itertools.count)
    _by_id: dict[str, Session] = attrs.field(init=False, factory=dict[str, Session])
    _users: dict[str, User] = attrs.field(init=False, factory=dict[str, User])
    # Who was verified, by the token that was not redeemed yet.
    _verified: dict[str, User] = attrs.field(init=False, factory=dict[str, User])
    # The tokens of CAPTCHAs that were used, in their order.
    _challenges: dict[str, None] = attrs.field(init=False, factory=dict[str, None])

    def __attrs_post_init__(self) -> None:
        self.ledger = Log("delivery", self._settings, self._events)

    def __len__(self) -> int:
        return len(self._by_id)

    def newest(self) -> Iterator[Session]:
        """Yield every session, the newest first."""
        return reversed(self._by_id.values())

    def user(self, to: str) -> User:
        """Return the user at ``to``."""
        return self._users.get(to) or self._users.setdefault(to, User(to))

    def new_recipient(self) -> str:
        """Return a phone number that has no session. None exists with an area code of zeros."""
        return next(to for number in self._numbers if (to := f"+1{number:010}") not in self._users)

    def add(self, session_id: str, to: str, active: Iterable[str], now: float) -> Session:
        """Open a session for ``to``; it replaces any session of the same id or recipient."""
        user = self.user(to)
        user.active.update(active)
        user.session = session = Session(session_id, user, self._new_code(), now + self._settings.session_lifetime)
        self._by_id.pop(session_id, None)  # so that it becomes the newest
        self._by_id[session_id] = session
        self._drop_old(now)
        self._events.publish("session", session)
        return session

    def of(self, user: User, now: float) -> tuple[Session, bool]:
        """Return the live session of ``user``, and whether it existed; open one if there is none."""
        session = user.session
        if session is not None and now < session.expires_at:
            return session, True
        return self.add(str(ULID()), user.to, (), now), False

    def get(self, session_id: str) -> Session | None:
        """Return the session of that id, live or not; None if there is none."""
        return self._by_id.get(session_id)

    def end(self, session: Session, now: float) -> None:
        """End a session."""
        session.expires_at = now
        self._events.publish("session", session)

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

    def deliver(self, session: Session, channel: str, now: float) -> None:
        """Deliver the session's code over ``channel``, and block the channel for a window."""
        session.blocked_until[channel] = now + self._settings.window
        session.user.last_channel = channel
        self.ledger.append(Delivery(session.id, session.user.to, channel, session.code, now))

    def count_wrong_code(self, session: Session, now: float) -> None:
        """Count a wrong code; the last one allowed ends the session, and may block the user."""
        session.wrong_codes += 1
        if session.wrong_codes >= self._settings.max_checks:
            session.expires_at = now
        user = session.user
        user.wrong_codes += 1
        if self._settings.block_after is not None and user.wrong_codes >= self._settings.block_after:
            user.blocked = True
        self._events.publish("session", session)

    def confirm(self, session: Session, now: float) -> str:
        """End a session whose code was right, and return the token that proves it."""
        session.confirmed = True
        session.user.wrong_codes = 0
        self.end(session, now)
        token = secrets.token_urlsafe()
        self._verified[token] = session.user
        _bound(self._verified, self._settings.keep)
        return token

    def redeem(self, token: str) -> User:
        """Use up a token, and return who was verified.

        Raises:
            RefusedError: The token is unknown or used.
        """
        user = self._verified.pop(token, None)
        if user is None:
            raise RefusedError("ERROR_MESSAGE_NOT_FOUND")
        return user

    def use_challenge(self, token: str) -> bool:
        """Use up the token of a CAPTCHA; return False if it was used before."""
        if token in self._challenges:
            return False
        self._challenges[token] = None
        _bound(self._challenges, self._settings.keep)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._challenges.clear()
        self.ledger.clear()
        self._by_id.clear()
        self._users.clear()
        self._verified.clear()

    def _drop_old(self, now: float) -> None:
        """Forget the oldest sessions, once there are too many and these are over."""
        while len(self._by_id) > self._settings.keep and (oldest := next(iter(self._by_id.values()))).expires_at <= now:
            del self._by_id[oldest.id]
            if oldest.user.session is oldest and not oldest.user.blocked:
                del self._users[oldest.user.to]

    def _new_code(self) -> str:
        alphabet = string.digits + (_LETTERS if self._settings.code_letters else "")
        return "".join(alphabet[secrets.randbelow(len(alphabet))] for _ in range(self._settings.code_length))


def _bound(table: dict[str, T], keep: int) -> None:
    """Drop the oldest entries beyond ``keep``."""
    while len(table) > keep:
        del table[next(iter(table))]
