"""`RedisCooldownTracker`: slots that all processes share.

The server decides who holds a slot, by its own clock; every process also remembers what it has done itself and what it
was told, in a tracker of its own. That memory has three uses:

- It lets **one caller of a process at a time** ask the server about a pair; the others wait for that answer, or in
  line.
- It refuses without asking what is certainly still blocked. It never counts a window as longer than the server does.
- It is what is left when the server is not to be had, and keeps what was sent meanwhile, and before, from being sent
  again by this process.

A question without an answer is asked once more within ``timeout``, with the same token, so a reservation whose reply
was lost is recognised as our own. What the server could not be told is *owed* to it, and told when it is back, for as
long as it still means something.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import secrets
from typing import TYPE_CHECKING, Final, Literal, Self

import attrs

from kodmobi_async._rules.clock import LoopClock
from kodmobi_async._rules.cooldown import MemoryCooldownTracker, Reservation
from kodmobi_async._values.assumptions import WINDOW
from kodmobi_async._values.errors import ConfigurationError, CooldownError, CooldownUnavailableError
from kodmobi_async._values.redaction import shorten
from kodmobi_async._values.settings import check_seconds
from kodmobi_async.redis._courier import Unreachable
from kodmobi_async.redis._link import Link, connect
from kodmobi_async.redis._scripts import BLOCKED, FREE, LOOK, OBSERVE, RELEASE, RESERVE, START, Script

if TYPE_CHECKING:
    from types import TracebackType

    from kodmobi_async._values.models import WindowScope
    from kodmobi_async.redis._bell import Ear
    from kodmobi_async.redis._courier import Reply

_log: Final = logging.getLogger("kodmobi_async")

# Seconds over which the processes that wait for the end of one window spread their questions.
_JITTER: Final = 0.01
# Seconds between questions of one process about one slot under way elsewhere: when it would be told, and when not.
_RARELY: Final = 5.0
_NOW_AND_THEN: Final = 1.0
# Seconds between attempts to reach a server that is away; the first and the longest.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Seconds that a caller in line holds the slot in this process, at most, beyond its lease.
_LONGEST_LINE: Final = 3_600.0


class _Shared(Reservation):
    """A slot held here, and by its token on the server."""

    __slots__ = ("asked", "degraded", "local", "pair", "settled", "token", "window")

    def __init__(self, local: Reservation, pair: tuple[str, str], key: str, token: str) -> None:
        super().__init__(key, local.until)
        self.local = local
        self.pair = pair
        """The session and the channel."""
        self.token = token
        self.asked = False
        """The server may know the token."""
        self.settled = False
        self.window: WindowScope = "shared"
        self.degraded: str | None = None


@attrs.frozen
class _Debt:
    """What the server is still to be told."""

    script: Script
    key: str
    token: str
    ends: float


class RedisCooldownTracker:
    """Slots that all processes share which use the same server, ``prefix`` and ``secret``.

    It may be built anywhere, and belongs to the loop that uses it; when that loop has been closed, the next one takes
    over. Close it with ``async with`` or `aclose`; a client that uses it does not.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes it.
        timeout: Seconds until a decision is taken without the server.
        on_outage: What that decision is: ``"local"`` = by this process's own windows, which is said in a
            `TrackerDegraded`, in the log and in ``SendResult.window``; ``"refuse"`` = `CooldownUnavailableError`.
        prefix: What all keys on the server begin with.
        secret: Goes into the hash that stands for a pair, so that whoever reads the server's keys cannot try out
            session ids; the same in every process.
        window: What a caller is told to wait for while another's send is under way, in seconds.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.25,
        on_outage: Literal["local", "refuse"] = "local",
        prefix: str = "kodmobi:",
        secret: str | bytes = b"",
        window: float = WINDOW,
    ) -> None:
        connect(url)
        if on_outage not in ("local", "refuse"):
            raise ConfigurationError('on_outage takes "local" or "refuse"')
        if not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError("prefix takes a string")
        if not isinstance(secret, (str, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError("secret takes a string, or bytes")
        self._url = url
        self._timeout = check_seconds("timeout", timeout)
        self._window = check_seconds("window", window)
        self._refuses = on_outage == "refuse"
        self._prefix = prefix
        secret = secret.encode() if isinstance(secret, str) else secret
        self._hash = hashlib.blake2b(digest_size=20, key=hashlib.blake2b(secret).digest(), person=b"kodmobi_async")
        self._clock = LoopClock()
        self._local = MemoryCooldownTracker(window=window)
        self._link: Link | None = None
        self._asking: dict[str, asyncio.Future[Reply | None]] = {}
        self._outage: str | None = None
        self._owed: dict[str, _Debt] = {}
        self._mender: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisCooldownTracker {self._prefix!r}{' degraded' if self._outage else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Tell the server what it is owed, if that can be done within ``timeout``, and close all connections.

        Windows are kept; a later use opens new connections.
        """
        await self._enter()
        if self._mender is not None:
            self._mender.cancel()
            await asyncio.wait([self._mender])
            self._mender = None
        if self._owed:
            await self._pay()
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def acquire(self, session_id: str, channel: str, *, lease: float, max_wait: float = 0.0) -> Reservation:
        """Reserve the pair's slot, waiting up to ``max_wait`` seconds for its turn.

        Raises:
            CooldownError: The slot is not to be had within ``max_wait``.
            CooldownUnavailableError: The server is not to be had, and ``on_outage`` is ``"refuse"``.
            WrongLoopError: The tracker is in use on another loop.
        """
        await self._enter()
        key = self._key(session_id, channel)
        gives_up = self._clock.now() + max_wait
        if max_wait <= 0 and (asking := self._asking.get(key)) is not None:
            # another caller of this process is being answered this moment: that answer is ours, too
            _refuse_alike(session_id, channel, await asyncio.shield(asking), self._window)
        local = await self._local.acquire(session_id, channel, lease=_here(lease, max_wait), max_wait=max_wait)
        shared = _Shared(local, (session_id, channel), key, secrets.token_hex(12))
        try:
            async with contextlib.AsyncExitStack() as listening:
                await self._acquire_from_all(shared, listening, lease=lease, gives_up=gives_up)
        except BaseException:
            await self._local.release(shared.local)
            if shared.asked:  # and the answer is not known
                self._owe(*self._freeing(shared, lease))
                self._mend_soon()
            raise
        return shared

    async def start(self, reservation: Reservation, window: float) -> None:
        """Block the slot for ``window`` seconds from now."""
        await self._enter()
        shared = _ours(reservation)
        await self._local.start(shared.local, window)
        await self._settle(START, shared, max(window, self._local.blocked_for(*shared.pair)))

    async def release(self, reservation: Reservation) -> None:
        """Free the slot."""
        await self._enter()
        shared = _ours(reservation)
        await self._local.release(shared.local)
        if shared.asked:
            await self._settle(*self._freeing(shared, self._window))

    async def observe(self, session_id: str, channel: str, seconds: float) -> None:
        """Lengthen the window to ``seconds`` from now, as the service reports it; never shorten it.

        Asks the server only if this process does not know of a window as long as that. Without the server, this process
        keeps the window, and passes it on when the server is back.
        """
        await self._enter()
        if seconds <= self._local.blocked_for(session_id, channel):
            return
        await self._local.observe(session_id, channel, seconds)
        key = self._key(session_id, channel)
        if self._link is not None:
            self._link.bell.ring(key)  # for whoever waits for a send elsewhere to end: the wait may be hopeless now
        asked_at = self._clock.now()
        reply = await self._write(_Debt(OBSERVE, key, f"observed {key}", asked_at + seconds), seconds)
        if isinstance(reply, list) and reply[0] == BLOCKED:
            await self._local.observe(session_id, channel, self._left_of(reply[1], asked_at))

    async def remaining(self, session_id: str, channel: str) -> float:
        """Return the seconds until the next send may go; 0.0 = now. A send under way counts as a full window.

        Raises:
            CooldownUnavailableError: The server is not to be had, and ``on_outage`` is ``"refuse"``.
        """
        await self._enter()
        left = await self._local.remaining(session_id, channel)
        if left > 0:
            return left
        reply = await self._ask(LOOK, self._key(session_id, channel))
        if isinstance(reply, Unreachable):
            if self._refuses:
                raise _unavailable(reply.reason)
            return await self._local.remaining(session_id, channel)
        state, milliseconds = reply
        return 0.0 if state == FREE else milliseconds / 1_000 if state == BLOCKED else self._window

    # -- one question --------------------------------------------------------------------------------------------------

    async def _acquire_from_all(
        self, shared: _Shared, listening: contextlib.AsyncExitStack, *, lease: float, gives_up: float
    ) -> None:
        """Ask until the slot that is ours in this process is ours everywhere."""
        session_id, channel = shared.pair
        ear: Ear | None = None
        while (obstacle := self._observed(shared) or await self._reserve(shared, lease)) is not None:
            state, left = obstacle
            patience = max(0.0, gives_up - self._clock.now())
            if state == BLOCKED:
                # tells those in line here, too; then back to the line, or out of it
                await self._local.start(shared.local, left)
                held_here = _here(lease, patience)
                shared.local = await self._local.acquire(session_id, channel, lease=held_here, max_wait=patience)
                await asyncio.sleep(random.uniform(0, min(_JITTER, max(0.0, patience - left))))  # noqa: S311 no secret
            elif patience <= 0:
                raise _too_soon(session_id, channel, self._window)
            elif ear is None:
                # and ask once more, for what happened before anyone listened
                ear = await listening.enter_async_context((await self._linked()).bell.listen(shared.key))
            else:
                await _hear(ear, min(left, patience))

    def _observed(self, shared: _Shared) -> tuple[int, float] | None:
        """Return the window that was observed since this process reserved the slot for itself, if any."""
        left = self._local.blocked_for(*shared.pair)
        return (BLOCKED, left) if left > 0 else None

    async def _reserve(self, shared: _Shared, lease: float) -> tuple[int, float] | None:
        """Return what stands in the way, and for how many seconds; ``None`` if the slot is ours."""
        asked_at = self._clock.now()
        shared.asked = self._outage is None
        asking = self._asking[shared.key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._ask(RESERVE, shared.key, shared.token, _milliseconds(lease))
            asking.set_result(reply)
        finally:
            del self._asking[shared.key]
            if not asking.done():
                asking.set_result(None)  # cancelled: who waits for the answer has to ask
        if isinstance(reply, Unreachable):
            if self._refuses:
                raise _unavailable(reply.reason)
            shared.window, shared.degraded = "local", reply.reason
            return None
        state, milliseconds = reply
        if state == FREE:
            return None
        shared.asked = False
        return state, max(0.001, self._left_of(milliseconds, asked_at))

    def _left_of(self, milliseconds: int, asked_at: float) -> float:
        """Return the seconds left, counted from the question, not from the reply: never longer than the server does."""
        return milliseconds / 1_000 - (self._clock.now() - asked_at)

    def _freeing(self, shared: _Shared, seconds: float) -> tuple[Script, _Shared, float]:
        """Return what frees the slot on the server, and for how long that means something.

        The server ignores what is observed while a reservation holds the key: the window takes effect now.
        """
        observed = self._local.blocked_for(*shared.pair)
        return (START, shared, observed) if observed > 0 else (RELEASE, shared, seconds)

    async def _settle(self, script: Script, shared: _Shared, seconds: float) -> None:
        if shared.settled:
            return
        shared.settled = True
        reply = await self._write(_Debt(script, shared.key, shared.token, self._clock.now() + seconds), seconds)
        if isinstance(reply, Unreachable):
            shared.window, shared.degraded = "local", reply.reason

    async def _write(self, debt: _Debt, seconds: float) -> Reply:
        """Tell the server something that it is owed if it cannot be told now."""
        self._owed[debt.token] = debt
        try:
            reply = await self._ask(debt.script, debt.key, debt.token, _milliseconds(seconds))
            if not isinstance(reply, Unreachable):
                self._paid(debt)
            return reply
        finally:
            if debt.token in self._owed:
                self._mend_soon()

    def _paid(self, debt: _Debt) -> None:
        if self._owed.get(debt.token) is debt:  # not: the mender was faster, or more was observed since
            del self._owed[debt.token]

    async def _ask(self, script: Script, key: str, *arguments: str | int) -> Reply:
        """Ask the server, unless it is known to be away; note if it is."""
        if self._outage is not None:
            return Unreachable(self._outage)
        reply = await self._try(script, key, *arguments)
        if isinstance(reply, Unreachable) and self._outage is None:
            self._outage = reply.reason
            _log.warning(
                "the server of the shared cooldowns is not to be had (%s): %s",
                reply.reason,
                "nothing is sent meanwhile" if self._refuses else "this process goes by its own windows meanwhile",
            )
            self._mend_soon()
        return reply

    async def _try(self, script: Script, key: str, *arguments: str | int) -> Reply:
        return await (await self._linked()).courier.post(script, key, *arguments)

    # -- when the server is away ---------------------------------------------------------------------------------------

    def _owe(self, script: Script, shared: _Shared, seconds: float) -> None:
        self._owed[shared.token] = _Debt(script, shared.key, shared.token, self._clock.now() + seconds)

    def _mend_soon(self) -> None:
        if self._mender is None:
            self._mender = asyncio.create_task(self._mend())

    async def _mend(self) -> None:
        """Try again and again to reach the server and to pay what it is owed."""
        pause = _FIRST_PAUSE
        while self._outage is not None or self._owed:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 no secret
            if not await self._pay():
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._mender = None

    async def _pay(self) -> bool:
        """Tell the server what it is owed, as far as that still means something; return whether it has heard it all."""
        now = self._clock.now()
        self._owed = {token: debt for token, debt in self._owed.items() if debt.ends > now}
        # whether it takes a reservation, of a slot that nobody asks for
        if isinstance(await self._try(RESERVE, f"{self._prefix}probe", secrets.token_hex(12), 1), Unreachable):
            return False
        if self._outage is not None:
            self._outage = None
            _log.info("the server of the shared cooldowns is back")
        return all(await asyncio.gather(*map(self._pay_one, tuple(self._owed.values()))))

    async def _pay_one(self, debt: _Debt) -> bool:
        left = debt.ends - self._clock.now()
        if isinstance(await self._try(debt.script, debt.key, debt.token, _milliseconds(left)), Unreachable):
            return False
        self._paid(debt)
        return True

    # -- where it runs -------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        if asyncio.get_running_loop() is not self._clock.loop:
            forked = self._clock.is_forked
            self._clock.now()
            if forked and self._link is not None:
                _left_to_the_parent.append(self._link)  # pragma: no cover a forked child leaves no data
            # what belonged to a closed loop has ended with it
            self._link = self._mender = None
            self._asking.clear()
            if self._outage is not None or self._owed:
                self._mend_soon()

    async def _linked(self) -> Link:
        if self._link is None:
            self._link = Link(self._url, timeout=self._timeout)
            await self._link.open()
        return self._link

    def _key(self, session_id: str, channel: str) -> str:
        # A canonical session id has no colon, so no two pairs share a text; channels that differ only in case do.
        digest = self._hash.copy()
        digest.update(f"{session_id}:{channel.lower()}".encode())
        return self._prefix + digest.hexdigest()


# Links that a fork has copied. Their sockets are the parent's; so they are neither closed here nor forgotten.
_left_to_the_parent: Final[list[Link]] = []


async def _hear(ear: Ear, longest: float) -> None:
    """Wait until something has happened to the slot, or it is time to look."""
    pause = (_NOW_AND_THEN if ear.deaf else _RARELY) * random.uniform(0.8, 1.2)  # noqa: S311 no secret
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(longest, pause)):
            await ear.rung.wait()
    ear.rung.clear()


def _ours(reservation: Reservation) -> _Shared:
    if not isinstance(reservation, _Shared):
        raise ConfigurationError("this reservation comes from another tracker")
    return reservation


def _here(lease: float, max_wait: float) -> float:
    """Return for how long, at most, a slot is held within this process; nobody else needs to wait for that."""
    return lease + min(max_wait, _LONGEST_LINE)


def _milliseconds(seconds: float) -> int:
    return math.ceil(max(0.0, seconds) * 1_000)


def _refuse_alike(session_id: str, channel: str, reply: Reply | None, window: float) -> None:
    """Raise what the server's reply means for whoever did not ask itself, and will not wait."""
    if isinstance(reply, list) and reply[0] != FREE:
        raise _too_soon(session_id, channel, reply[1] / 1_000 if reply[0] == BLOCKED else window)


def _too_soon(session_id: str, channel: str, retry_after: float) -> CooldownError:
    return CooldownError(
        f"{channel} was sent to too recently for session {shorten(session_id)}, perhaps by another process;"
        f" the next send may go in {retry_after:.1f} s",
        retry_after=retry_after,
        session_id=session_id,
        channel=channel,
    )


def _unavailable(reason: str) -> CooldownUnavailableError:
    return CooldownUnavailableError(f"the server of the shared cooldowns is not to be had ({reason}): nothing was sent")
