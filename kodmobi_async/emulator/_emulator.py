"""The emulator: its settings, and what a test does with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from ulid import ULID

from kodmobi_async.emulator._config import Config
from kodmobi_async.emulator._control import Control
from kodmobi_async.emulator._exchange import Exchange
from kodmobi_async.emulator._identifiers import require_recipient, require_ulid
from kodmobi_async.emulator._listener import Listener
from kodmobi_async.emulator._masks import mask_recipient
from kodmobi_async.emulator._service import Service
from kodmobi_async.emulator._settings import Settings
from kodmobi_async.emulator._state import State

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from kodmobi_async.emulator._clock import Clock
    from kodmobi_async.emulator._fault import Fault
    from kodmobi_async.emulator._sessions import Delivery, Session

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
        keep: How many deliveries and requests are remembered; the oldest are dropped first.
        control: Whether there is a control interface, and a page, under ``/_emulator``.
        set_up: Prepares what there is to begin with, such as sessions; called at the first start, and after a reset.

    Raises:
        ValueError: A setting is invalid.
    """

    set_up: Callable[[Emulator], None] | None = attrs.field(default=None)
    _state: State = attrs.field(init=False)
    _listener: Listener = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._state = State(self, self._prepare)
        service = Service(self, self._state.sessions, self._state.clock.date)
        self._listener = Listener(Exchange(self._state, service, Control(self._state, service)).serve)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = f"on {self.host}:{self.port}" if self._listener.listening else "not listening"
        sessions = self._state.sessions
        return (
            f"<Emulator {state}, {len(sessions)} sessions, {len(sessions.ledger)} delivered,"
            f" {self.pending_faults} faults pending>"
        )

    async def start(self) -> None:
        """Listen. The first start sets the date; sessions and windows survive a restart.

        Raises:
            RuntimeError: The emulator is listening already.
            OSError: The port is in use.
        """
        if self._listener.listening:
            raise RuntimeError("the emulator is listening already")
        self._state.clock.bind(asyncio.get_running_loop())
        self._state.begin()
        self.port: int = await self._listener.start(self.host, self.port)

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is doing."""
        await self._listener.aclose()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build an emulator from a configuration, as ``tomllib`` reads it from a file.

        Args:
            config: Any of the settings, by name, and ``sessions`` and ``faults`` to begin with: lists of what the
                control interface takes.

        Raises:
            ValueError: Something in it is not known, or not allowed.
        """
        read = Config.read(config)
        return cls(**read.settings, set_up=read.set_up)

    @property
    def base_url(self) -> str:
        """The base address of the API's calls, as in ``http://127.0.0.1:8080/session``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/session"

    @property
    def clock(self) -> Clock:
        """The clock of sessions and windows, which can be moved forward and sped up."""
        return self._state.clock

    @property
    def requests(self) -> Counter[str]:
        """How many requests were read, by endpoint."""
        return self._state.counts

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._listener.connections

    @property
    def ledger(self) -> tuple[Delivery, ...]:
        """The codes delivered, in order: the newest ``keep``."""
        return tuple(self._state.sessions.ledger)

    @property
    def pending_faults(self) -> int:
        """How many requests a fault still waits for."""
        return len(self._state.script)

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions that are live, in the order in which they were opened."""
        now = self._state.clock.time()
        newest = [session.id for session in self._state.sessions.newest() if now < session.expires_at]
        return tuple(reversed(newest))

    def delivered(
        self, session_id: str | ULID | None = None, channel: str | None = None, *, to: str | None = None
    ) -> list[Delivery]:
        """Return the deliveries to a session, over a channel, to a recipient, or all of these; every one by default.

        Raises:
            ValueError: ``session_id`` is not a ULID.
        """
        wanted = None if session_id is None else require_ulid(session_id)
        return [
            delivery
            for delivery in self._state.sessions.ledger
            if wanted in {None, delivery.session_id}
            and channel in {None, delivery.channel}
            and to in {None, delivery.to}
        ]

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield each delivery from now on, as it happens, without end."""
        return self._deliveries(self._state.sessions.ledger.total)

    def last_code(self, to: str) -> str:
        """Return the code that ``to`` received last.

        Raises:
            LookupError: Nothing was delivered to ``to``.
        """
        for _, delivery in self._state.sessions.ledger.newest():
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
        sessions = self._state.sessions
        to = sessions.new_recipient() if to is None else require_recipient(to)
        session_id = str(ULID()) if session_id is None else require_ulid(session_id)
        return sessions.add(session_id, to, active, self._state.clock.time()).id

    def activate(self, session_id: str | ULID, channel: str) -> None:
        """Start the bot of a channel, as the session's user would: the channel is active from now on.

        Raises:
            ValueError: ``session_id`` is not a ULID.
            KeyError: There is no such session.
        """
        self._find(session_id).user.active.add(channel)

    def block(self, to: str) -> None:
        """Refuse to create sessions for ``to``, to send to it, and to check its codes.

        Raises:
            ValueError: ``to`` is not a recipient.
        """
        self._state.sessions.user(require_recipient(to)).blocked = True

    def unblock(self, to: str) -> None:
        """End the block of ``to``, if there is one.

        Raises:
            ValueError: ``to`` is not a recipient.
        """
        user = self._state.sessions.user(require_recipient(to))
        user.blocked, user.wrong_codes = False, 0

    def expire_session(self, session_id: str | ULID) -> None:
        """End a session now.

        Raises:
            ValueError: ``session_id`` is not a ULID.
            KeyError: There is no such session.
        """
        self._state.sessions.end(self._find(session_id), self._state.clock.time())

    def script(self, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
        """Let the next requests go wrong. Faults are used up in the order in which they were scripted.

        Args:
            fault: How.
            times: How many requests.
            endpoint: Of which endpoint; None for any request, unknown paths included.

        Raises:
            ValueError: One of these is invalid.
        """
        self._state.script.add(fault, times, endpoint)

    def clear_faults(self) -> None:
        """Remove the faults that are still pending."""
        self._state.script.clear()

    def reset(self) -> None:
        """Forget sessions, deliveries, requests and faults, begin anew, and let time pass at its normal speed."""
        self._state.reset()

    def _prepare(self) -> None:
        if self.set_up is not None:
            self.set_up(self)

    async def _deliveries(self, seen: int) -> AsyncIterator[Delivery]:
        ledger = self._state.sessions.ledger
        while True:
            for number, delivery in reversed(list(ledger.newest(after=seen))):
                seen = number
                yield delivery
            await self._state.events.change()

    def _find(self, session_id: str | ULID) -> Session:
        spelled = require_ulid(session_id)
        session = self._state.sessions.get(spelled)
        if session is None:
            raise KeyError(spelled)
        return session
