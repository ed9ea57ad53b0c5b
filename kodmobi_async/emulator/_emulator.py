"""The emulator: a service, a script of faults, and a loopback port, wired together."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
from ulid import ULID

from kodmobi_async.emulator._fault import Fault, Script, finite, whole
from kodmobi_async.emulator._http import Answer, Connection, UnreadableRequestError
from kodmobi_async.emulator._service import Delivery, Refusal, Service, canonical, endpoint_of, is_recipient

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from kodmobi_async.emulator._http import Request

__all__ = ("Emulator",)

Key = TypeVar("Key", str, str | None)

_KEY: Final = re.compile(r"[!-~]+")
_CHANNEL: Final = re.compile(r"[a-z0-9_-]+")
# Connections that wait to be accepted; the default of 100 makes the kernel drop, and clients wait, in a burst of more.
_BACKLOG: Final = 4096
# asyncio takes this many turns of the loop to make a transport of a connection; a server closed meanwhile leaks it.
_TURNS_TO_ACCEPT: Final = 3
_HEALTHY: Final = Fault(kind="none", process=True)
_UNREADABLE: Final = Refusal("ERROR_BAD_REQUEST").answer("")


def _check_key(_: object, attribute: attrs.Attribute[Key], value: object) -> None:
    if not (isinstance(value, str) and _KEY.fullmatch(value)):
        # The value stays out of the message: it may be a real key, put in the wrong place.
        raise ValueError(f"{attribute.name} must be printable ASCII without spaces")


def _check_public_key(_: object, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None:
        _check_key(_, attribute, value)


def _check_host(_: object, _attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError("host must be the address to listen on")


def _check_port(_: object, _attribute: attrs.Attribute[int], value: object) -> None:
    whole("port", value, at_least=0, at_most=65535)


def _check_window(_: object, _attribute: attrs.Attribute[float], value: object) -> None:
    finite("window", value)


def _check_lifetime(_: object, _attribute: attrs.Attribute[float], value: object) -> None:
    finite("session_lifetime", value, above=0.0)


def _channels(value: Iterable[str]) -> tuple[str, ...]:
    try:
        names = tuple(value)
    except TypeError:
        names = ("",)
    if isinstance(value, str) or not all(map(_is_channel, names)) or len(set(names)) < len(names):
        raise ValueError("channels must be names in lower case, each once")
    return names


def _is_channel(name: object) -> bool:
    return isinstance(name, str) and _CHANNEL.fullmatch(name) is not None


@attrs.define(kw_only=True, eq=False, repr=False)
class Emulator:
    """Serve the kod.mobi API on a port of this machine, and tell what it did.

    Use it with ``async with``, or call ``start`` and ``aclose``. It belongs to the loop that starts it.

    Args:
        api_key: The key that opens the service.
        public_key: The other key of the pair; either opens it.
        host: Address to listen on.
        port: 0 takes a free one. A second ``start`` listens on the same port again.
        window: Seconds for which a channel stays shut after a send.
        session_lifetime: Seconds.
        channels: What the project offers, in its order; the first is where ``create`` delivers by default.

    Attributes:
        requests: How many requests were read, by endpoint.
        connections: How many connections were accepted.

    Raises:
        ValueError: One of the settings makes no sense.
    """

    api_key: str = attrs.field(default="emulator-key", validator=_check_key)
    public_key: str | None = attrs.field(default=None, validator=_check_public_key)
    host: str = attrs.field(default="127.0.0.1", validator=_check_host)
    port: int = attrs.field(default=0, validator=_check_port)
    window: float = attrs.field(default=60.0, validator=_check_window)
    session_lifetime: float = attrs.field(default=180.0, validator=_check_lifetime)
    channels: tuple[str, ...] = attrs.field(default=("telegram", "whatsapp", "sms", "email"), converter=_channels)
    requests: Counter[str] = attrs.field(init=False, factory=Counter[str])
    connections: int = attrs.field(init=False, default=0)
    _script: Script = attrs.field(init=False, factory=Script)
    _tasks: set[asyncio.Task[None]] = attrs.field(init=False, factory=set[asyncio.Task[None]])
    _service: Service | None = attrs.field(init=False, default=None)
    _server: asyncio.Server | None = attrs.field(init=False, default=None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = f"on {self.host}:{self.port}" if self._server else "not listening"
        sessions, delivered = (len(self._service.sessions), len(self._service.ledger)) if self._service else (0, 0)
        return f"<Emulator {state}, {sessions} sessions, {delivered} delivered, {self.pending_faults} faults pending>"

    async def start(self) -> None:
        """Listen. The first start sets the wall clock; sessions and windows outlive a restart.

        Raises:
            RuntimeError: It listens already.
            OSError: The port is taken.
        """
        if self._server is not None:
            raise RuntimeError("the emulator is listening already")
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        if self._service is None:
            self._service = Service(
                keys=[key for key in (self.api_key, self.public_key) if key is not None],
                window=self.window,
                session_lifetime=self.session_lifetime,
                channels=self.channels,
                epoch=time.time() - asyncio.get_running_loop().time(),
            )

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is busy with."""
        server, self._server = self._server, None
        if server is None:
            return
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    @property
    def base_url(self) -> str:
        """Where the API's calls start, as in ``http://127.0.0.1:8080/session``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/session"

    @property
    def ledger(self) -> tuple[Delivery, ...]:
        """Every code delivered, in order."""
        return tuple(self._started.ledger)

    @property
    def pending_faults(self) -> int:
        """How many requests still have a fault waiting for them."""
        return len(self._script)

    def delivered(self, session_id: str | ULID | None = None, channel: str | None = None) -> list[Delivery]:
        """Return the deliveries of one session, over one channel, or both; of all by default."""
        wanted = None if session_id is None else _canonical(session_id)
        return [
            delivery
            for delivery in self._started.ledger
            if wanted in {None, delivery.session_id} and channel in {None, delivery.channel}
        ]

    def add_session(
        self, session_id: str | ULID | None = None, *, to: str = "+10000000000", active: Iterable[str] = ()
    ) -> str:
        """Open a session, as ``create`` does, but deliver nothing.

        Args:
            session_id: A ULID in any spelling; a new one by default.
            to: E.164 phone number or email address.
            active: Channels on which the user is known already (``is_active``).

        Returns:
            The session's id in its canonical spelling.

        Raises:
            ValueError: This is no ULID, or no recipient.
        """
        if not is_recipient(to):
            raise ValueError("to must be an E.164 phone number or an email address")
        session_id = str(ULID()) if session_id is None else _canonical(session_id)
        return self._started.add_session(session_id, to, frozenset(active), asyncio.get_running_loop().time()).id

    def expire_session(self, session_id: str | ULID) -> None:
        """End a session now.

        Raises:
            ValueError: This is no ULID.
            KeyError: There is no such session.
        """
        self._started.sessions[_canonical(session_id)].expires_at = asyncio.get_running_loop().time()

    def script(self, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
        """Let the next requests go wrong; faults are used up in the order in which they were scripted.

        A request uses up its fault when its first line arrives.

        Args:
            fault: How.
            times: How many requests.
            endpoint: Of which endpoint; None for any request, unknown paths included.

        Raises:
            ValueError: One of these makes no sense.
        """
        self._script.add(fault, times, endpoint)

    def clear_faults(self) -> None:
        """Forget the faults that are still to come."""
        self._script.clear()

    @property
    def _started(self) -> Service:
        if self._service is None:
            raise RuntimeError("the emulator was not started")
        return self._service

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        if self._server is None:  # about to close
            connection.abort()
            return
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in a finally of the task: one that is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: connection.abort())

    async def _serve(self, connection: Connection) -> None:
        # A client that goes away, at whatever moment and in whatever manner, is no event here.
        with contextlib.suppress(OSError, EOFError):
            await self._converse(connection)
            await connection.close()

    async def _converse(self, connection: Connection) -> None:
        keep = True
        while keep:
            try:
                keep = await self._exchange(connection)
            except UnreadableRequestError:
                head, body = self._render(_UNREADABLE, keep_alive=False)
                await connection.write(head + body)
                keep = False
                await connection.end()

    async def _exchange(self, connection: Connection) -> bool:
        """Serve one request; False when the connection is over."""
        line = await connection.read_line()
        if line is None:
            return False
        endpoint = endpoint_of(line.path)
        fault = self._script.take(endpoint)
        if fault is not None and not fault.reads:
            await connection.end(reset=fault.end == "rst")
            return False
        request = await connection.read_rest(line)
        if endpoint is not None:
            self.requests[endpoint] += 1
        return await self._respond(request, fault or _HEALTHY, connection)

    async def _respond(self, request: Request, fault: Fault, connection: Connection) -> bool:
        await _pause(fault.delay_before)
        answer = self._answer(request, fault)
        await _pause(fault.delay_after)
        keep = fault.end == "keep" and request.keep_alive and answer.keep_alive
        head, body = self._render(answer, keep_alive=request.keep_alive, headless=request.line.method == "HEAD")
        at_once, dripped, rest = fault.pieces(head, body)
        await connection.write(at_once)
        for position in range(len(dripped)):
            await asyncio.sleep(fault.seconds_per_byte)
            await connection.write(dripped[position : position + 1])
        await connection.write(rest)
        if fault.end == "hang":
            await connection.client_leaves()
        elif not keep:
            await connection.end(reset=fault.end == "rst")
        return keep

    def _answer(self, request: Request, fault: Fault) -> Answer:
        language = request.headers.get("accept-language", "")
        if fault.process:
            answer = self._started.answer(request, asyncio.get_running_loop().time())
        else:
            answer = Refusal("ERROR_SERVER").answer(language)
        replacement = fault.replacement
        if replacement is None:
            return answer
        return replacement.answer(language) if isinstance(replacement, Refusal) else replacement

    def _render(self, answer: Answer, *, keep_alive: bool, headless: bool = False) -> tuple[bytes, bytes]:
        date = self._started.wall_clock(asyncio.get_running_loop().time())
        return answer.render(date, keep_alive=keep_alive, headless=headless)


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


def _canonical(session_id: str | ULID) -> str:
    spelled = canonical(str(session_id))
    if spelled is None:
        raise ValueError("session_id must be a ULID")
    return spelled
