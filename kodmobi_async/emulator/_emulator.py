"""The emulator: its settings, and what a test does with it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs
from ulid import ULID

from kodmobi_async.emulator._exchange import Exchange
from kodmobi_async.emulator._identifiers import canonical, is_recipient
from kodmobi_async.emulator._listener import Listener
from kodmobi_async.emulator._masks import mask_recipient
from kodmobi_async.emulator._script import Script
from kodmobi_async.emulator._service import Service
from kodmobi_async.emulator._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from kodmobi_async.emulator._fault import Fault
    from kodmobi_async.emulator._http import Connection
    from kodmobi_async.emulator._sessions import Delivery

__all__ = ("Emulator",)


@attrs.define(kw_only=True, eq=False, repr=False)
class Emulator(Settings):
    """Serve the kod.mobi API on a port of this machine, and record what it delivers.

    Use it with ``async with``, or call ``start`` and ``aclose``. It belongs to the loop that starts it.

    Args:
        api_key: The public key; it opens every endpoint but ``verify``.
        secret_key: The secret key; it opens every endpoint.
        host: Address to listen on.
        port: 0 takes a free one. A second ``start`` listens on the same port again.
        channels: What the project offers, in its order.
        window: Seconds for which a channel is blocked after a send.
        session_lifetime: Seconds.
        code_length: From 4 to 6.
        code_letters: Whether codes contain capital letters as well as digits.
        max_checks: How many wrong codes end a session.
        block_after: How many wrong codes in a row block their user; None never does.
        require_active: Whether a channel with a bot refuses users who have not started it.
        challenge: Whether creating, sending and checking need the token of a CAPTCHA. True accepts any token, otherwise
            only those given; each is accepted once.
        create_in_window: What ``create`` does if the channel is blocked: responds without sending, or refuses.
        create_existing: What ``create`` does if the user has a live session already: sends, or responds without
            sending.

    Attributes:
        requests: How many requests were read, by endpoint.

    Raises:
        ValueError: A setting is invalid.
    """

    requests: Counter[str] = attrs.field(init=False, factory=Counter[str])
    _script: Script = attrs.field(init=False, factory=Script)
    _listener: Listener = attrs.field(init=False)
    _service: Service | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._listener = Listener(self._serve)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = f"on {self.host}:{self.port}" if self._listener.listening else "not listening"
        service = self._service
        sessions, delivered = (len(service.sessions), len(service.sessions.ledger)) if service else (0, 0)
        return f"<Emulator {state}, {sessions} sessions, {delivered} delivered, {self.pending_faults} faults pending>"

    async def start(self) -> None:
        """Listen. The first start sets the wall clock; sessions and windows survive a restart.

        Raises:
            RuntimeError: The emulator is listening already.
            OSError: The port is in use.
        """
        if self._listener.listening:
            raise RuntimeError("the emulator is listening already")
        self.port = await self._listener.start(self.host, self.port)
        if self._service is None:
            self._service = Service(self, time.time() - asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is doing."""
        await self._listener.aclose()

    @property
    def base_url(self) -> str:
        """The base address of the API's calls, as in ``http://127.0.0.1:8080/session``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/session"

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._listener.connections

    @property
    def ledger(self) -> tuple[Delivery, ...]:
        """Every code delivered, in order."""
        return tuple(self._started.sessions.ledger)

    @property
    def pending_faults(self) -> int:
        """How many requests a fault still waits for."""
        return len(self._script)

    def delivered(
        self, session_id: str | ULID | None = None, channel: str | None = None, *, to: str | None = None
    ) -> list[Delivery]:
        """Return the deliveries to a session, over a channel, to a recipient, or all of these; every one by default.

        Raises:
            ValueError: ``session_id`` is not a ULID.
        """
        wanted = None if session_id is None else _canonical(session_id)
        return [
            delivery
            for delivery in self._started.sessions.ledger
            if wanted in {None, delivery.session_id}
            and channel in {None, delivery.channel}
            and to in {None, delivery.to}
        ]

    def last_code(self, to: str) -> str:
        """Return the code that ``to`` received last.

        Raises:
            LookupError: Nothing was delivered to ``to``.
        """
        for delivery in reversed(self._started.sessions.ledger):
            if delivery.to == to:
                return delivery.code
        raise LookupError(f"no code was delivered to {mask_recipient(to)}")

    def add_session(
        self, session_id: str | ULID | None = None, *, to: str | None = None, active: Iterable[str] = ()
    ) -> str:
        """Open a session, as ``create`` does, without a delivery.

        Args:
            session_id: A ULID in any spelling; a new one by default.
            to: E.164 phone number or email address; by default a number that no other session has.
            active: Channels whose bot the user has started already.

        Returns:
            The session's id in its canonical spelling.

        Raises:
            ValueError: ``session_id`` is not a ULID, or ``to`` is not a recipient.
        """
        sessions = self._started.sessions
        to = sessions.new_recipient() if to is None else _recipient(to)
        session_id = str(ULID()) if session_id is None else _canonical(session_id)
        return sessions.add(session_id, to, active, asyncio.get_running_loop().time()).id

    def activate(self, session_id: str | ULID, channel: str) -> None:
        """Start the bot of a channel, as the session's user would: the channel is active from now on.

        Raises:
            ValueError: ``session_id`` is not a ULID.
            KeyError: There is no such session.
        """
        self._started.sessions.find(_canonical(session_id)).user.active.add(channel)

    def block(self, to: str) -> None:
        """Refuse to create sessions for ``to``, to send to it, and to check its codes.

        Raises:
            ValueError: ``to`` is not a recipient.
        """
        self._started.sessions.user(_recipient(to)).blocked = True

    def unblock(self, to: str) -> None:
        """End the block of ``to``, if there is one.

        Raises:
            ValueError: ``to`` is not a recipient.
        """
        user = self._started.sessions.user(_recipient(to))
        user.blocked, user.wrong_codes = False, 0

    def expire_session(self, session_id: str | ULID) -> None:
        """End a session now.

        Raises:
            ValueError: ``session_id`` is not a ULID.
            KeyError: There is no such session.
        """
        self._started.sessions.find(_canonical(session_id)).expires_at = asyncio.get_running_loop().time()

    def script(self, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
        """Let the next requests go wrong. Faults are used up in the order in which they were scripted.

        Args:
            fault: How.
            times: How many requests.
            endpoint: Of which endpoint; None for any request, unknown paths included.

        Raises:
            ValueError: One of these is invalid.
        """
        self._script.add(fault, times, endpoint)

    def clear_faults(self) -> None:
        """Remove the faults that are still pending."""
        self._script.clear()

    @property
    def _started(self) -> Service:
        if self._service is None:
            raise RuntimeError("the emulator was not started")
        return self._service

    async def _serve(self, connection: Connection) -> None:
        await Exchange(self._started, self._script, self.requests).serve(connection)


def _canonical(session_id: str | ULID) -> str:
    spelled = canonical(str(session_id))
    if spelled is None:
        raise ValueError("session_id must be a ULID")
    return spelled


def _recipient(to: str) -> str:
    if not is_recipient(to):
        raise ValueError("to must be an E.164 phone number or an email address")
    return to
