"""`RedisLimits`: the rate and the closure of an account, for all processes with one server.

The server hands out turns by its own clock, each the moment of one request. A process waits for its turn by the event
loop's clock, from the server's reply on: so a request may leave late, by what the reply took, and never early.

A closure, and a new process, reach the others as a message, which says only that something changed: whoever waits, or
has relied on the account being open, asks the server again. Where messages are not received, every request asks.

Each process also keeps the closures that it knows of, and tells the server when that has lost them. During an outage it
spaces its requests by its share of the rate, behind the turns that it has from the server.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import TYPE_CHECKING, Final, Literal, Self

from kodmobi_async._rules.pacing import Gate, OwnShare, held_back
from kodmobi_async._shared.backlog import PendingWrite
from kodmobi_async._shared.operations import Operation, Unavailable
from kodmobi_async._shared.store import Store
from kodmobi_async._values.assumptions import MAX_WAIT_SECONDS
from kodmobi_async._values.errors import ConfigurationError, LimitsUnavailableError
from kodmobi_async._values.settings import check_on_outage, check_seconds
from kodmobi_async.redis._address import open_backend
from kodmobi_async.redis._connections import Connections
from kodmobi_async.redis._watch import Watch

if TYPE_CHECKING:
    from types import TracebackType

    from redis.asyncio import Redis, RedisCluster

    from kodmobi_async._shared.operations import Reply

_WHAT: Final = "the shared limits"
# Seconds for which a process counts as active, and between its signs of life.
_ACTIVE: Final = 10.0
_PRESENCE_INTERVAL: Final = 2.5


class RedisLimits:
    """The limits of an account, shared by all processes with the same server, ``prefix`` and ``name``.

    Give it to a client: ``KodmobiClient(limits=Limits(rate=50.0, shared=RedisLimits("redis://localhost")))``. All
    processes together keep the rate, evenly spaced, and a 429 of the account in one of them holds all of them back.
    Give all of them the same rate; a rate below one a day counts as one a day. Without a rate only that 429 is shared,
    and a send takes no round trip while the account is open.

    It may be built anywhere, and belongs to the loop that uses it; when that loop has been closed, the next one takes
    over. Close it with ``async with`` or `aclose`; a client that uses it does not.

    Args:
        server: An address, or a client of yours, as `RedisCooldownTracker` takes it.
        timeout: Seconds until a decision is made without the server.
        on_outage: How to decide without the server: ``"local"`` = this process keeps the rate divided by the number of
            processes that were active in the last 10 s, as the server last said (1 if it has never been reached), and
            the closures that it knows of, which a `LimitsDegraded` and the log report; ``"refuse"`` =
            `LimitsUnavailableError`.
        prefix: What all keys on the server begin with.
        name: Of the account: give each its own.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        *,
        timeout: float = 0.25,
        on_outage: Literal["local", "refuse"] = "local",
        prefix: str = "kodmobi:",
        name: str = "account",
    ) -> None:
        timeout = check_seconds("timeout", timeout)
        open_backend(server, timeout=timeout)
        self._refuses = check_on_outage(on_outage)
        for argument, value in (("prefix", prefix), ("name", name)):
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
                raise ConfigurationError(f"{argument} takes a string")
        self._key = f"{prefix}limits:{name}"
        self._share = OwnShare()
        self._token = secrets.token_hex(12)  # what this process is called on the server
        self._announces_at = 0.0
        self._announced = -1  # after so many changes
        self._watch: Watch | None = None

        def connect() -> Connections:
            backend = open_backend(server, timeout=timeout)
            connections = Connections(backend, timeout=timeout, what=_WHAT, evictable="the rate and a closure")
            self._watch = Watch(self._key, connections)
            return connections

        self._store = Store(
            connect,
            survives_fork=isinstance(server, str),
            name=f"the server of {_WHAT}",
            what=_WHAT,
            proofs=(Operation.PRESENT, Operation.TURN),
            probe=f"{prefix}limits-probe",
            outage_consequence="nothing is sent meanwhile" if self._refuses else "this process keeps its share",
            on_move=self._begin,
        )
        self._clock = self._store.clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key!r}{' degraded' if self._store.outage else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write a closure that is pending, once, and close all connections; a later use opens new ones."""
        self._clock.now()
        await self._store.aclose()
        self._watch = None

    async def ping(self) -> None:
        """Check that the server can be reached, and that these limits may do there what they have to.

        Raises:
            ConfigurationError: The set-up is wrong.
            LimitsUnavailableError: The server is unavailable.
            WrongLoopError: The limits are in use on another loop.
        """
        self._clock.now()
        failure = await self._store.ping(f"{self._token}:processes", (Operation.PRESENT, self._token, 1_000))
        failure = failure or await self._store.ping(
            self._token,
            (Operation.TURN, 1_000_000, 0),
            (Operation.TURN, 1_000_000, 0),
            (Operation.GIVE_BACK, 1, 1),
            (Operation.CLOSE, self._token, 1),
        )
        if failure is not None:
            raise _unavailable(failure.reason)

    @property
    def is_open(self) -> bool:
        """Whether the account is certainly open, so that a request without a rate need not ask."""
        return self._watch is not None and self._watch.is_open

    async def acquire(self, *, rate: float | None, max_wait: float) -> str | None:
        """Wait for the turn of one request; return why it is only this process's, or ``None`` if all agree on it.

        A wait that is cancelled gives its turn back, for another request; one that is cancelled before the server has
        replied loses it.

        Args:
            rate: Requests a second of all processes together; ``None`` = as they come, while the account is open.
            max_wait: Seconds. Where the wait would be as long or longer, no turn is taken.

        Raises:
            RateLimitedError: The turn would come too late; ``retry_after`` says when one would.
            LimitsUnavailableError: The server is unavailable, and ``on_outage`` is ``"refuse"``.
            ConfigurationError: The set-up is wrong.
            WrongLoopError: The limits are in use on another loop.
        """
        deadline = self._clock.now() + max_wait
        held = 0
        while True:
            watch, mark, reply = await self._ask_for_turn(rate, deadline, held)
            if isinstance(reply, Unavailable):
                if self._refuses:
                    raise _unavailable(reply.reason)
                if await self._wait_for_own_turn(rate, deadline, is_held=held > 0):
                    return reply.reason
                continue
            turn, wait = reply[0], reply[1] / 1e6
            if wait <= 0:
                if rate is None:
                    watch.note_open(mark)
                return None
            if turn == 0:
                raise held_back(wait)
            await self._wait_for_turn(turn, wait, rate)
            if watch.is_unchanged_since(mark):
                return None
            held = turn  # perhaps the account was closed meanwhile

    async def close(self, seconds: float) -> None:
        """Hold the requests of all processes back for ``seconds``, or for as long as before if that is longer.

        Without the server, this process holds back, and the others are told when it is back.
        """
        now = self._clock.now()
        if now + seconds <= self._share.closed_until:
            return
        self._share.close(now, seconds)
        if self._watch is not None:
            self._watch.note_change()
        await self._store.write(PendingWrite(Operation.CLOSE, self._key, "closure", self._share.closed_until))

    # -- turns ---------------------------------------------------------------------------------------------------------

    async def _ask_for_turn(self, rate: float | None, deadline: float, held: int) -> tuple[Watch, int | None, Reply]:
        """Return what hears of closures, its mark from before the question, and the server's reply."""
        watch = await self._watching()
        await self._announce(watch)
        mark, now = watch.mark, self._clock.now()
        spacing, longest = _spacing(rate), _microseconds(deadline - now)
        arguments: tuple[int, ...] = (spacing if rate is not None else -spacing, longest)
        if held or self._share.closed_until > now:
            arguments += (held, _microseconds(self._share.closed_until - now))
        reply = await self._store.request(Operation.TURN, self._key, *arguments)
        if not isinstance(reply, Unavailable):
            self._share.end()
            if any(reply[2:]):
                self._share.close(self._clock.now(), reply[2] / 1e6)
        return watch, mark, reply

    async def _wait_for_turn(self, turn: int, wait: float, rate: float | None) -> None:
        """Wait for a turn of the server's; give it back if that is cancelled."""
        if rate is not None:
            self._share.note_turn(self._clock.now() + wait)
        try:
            await asyncio.sleep(wait)
        except BaseException:
            self._store.post(Operation.GIVE_BACK, self._key, turn, _spacing(rate))
            raise

    async def _watching(self) -> Watch:
        """Return what hears of closures, on the running loop."""
        if self._watch is None:
            await self._store.subscription()  # which connects
            assert self._watch is not None  # noqa: S101 connecting makes it
        await self._watch.listen()
        return self._watch

    async def _announce(self, watch: Watch) -> None:
        """Give a sign of life, from time to time, and learn how many processes are active; and after each change."""
        now = self._clock.now()
        if now < self._announces_at and self._announced == watch.changes:
            return
        self._announces_at, self._announced = now + _PRESENCE_INTERVAL, watch.changes
        try:
            reply = await self._store.request(
                Operation.PRESENT, f"{self._key}:processes", self._token, round(_ACTIVE * 1_000), self._key
            )
        except BaseException:  # the set-up is wrong: the next request has to find that, too
            self._announces_at = 0.0
            raise
        if not isinstance(reply, Unavailable):
            self._share.processes = max(1, reply[1])

    # -- without the server --------------------------------------------------------------------------------------------

    async def _wait_for_own_turn(self, rate: float | None, deadline: float, *, is_held: bool) -> bool:
        """Wait for a turn of this process's share; return whether it counts, as the server is still unavailable."""
        now = self._clock.now()
        if is_held and now >= self._share.closed_until:
            return True  # the server's turn has come, and nothing speaks against it
        gate = self._share.gate(rate, now)
        moment = gate.opens_at(now)
        if moment > now and moment >= deadline:
            raise held_back(moment - now)
        gate.pass_at(moment, now)
        if rate is not None:
            self._share.note_turn(moment)
        if moment <= now:
            return True
        await asyncio.sleep(moment - now)
        return self._store.outage is not None and self._clock.now() >= self._share.closed_until

    def _begin(self) -> None:
        """Begin on a loop: what was subscribed on the last one has ended with it."""
        self._token = secrets.token_hex(12)
        self._announces_at = 0.0
        self._watch = None
        self._share.end()


def _spacing(rate: float | None) -> int:
    """Return the microseconds between two turns; never less than the rate allows."""
    return math.ceil(round(1e6 * (Gate.STAGGER if rate is None else min(1 / rate, MAX_WAIT_SECONDS)), 3))


def _microseconds(seconds: float) -> int:
    return math.ceil(1e6 * min(max(0.0, seconds), MAX_WAIT_SECONDS))


def _unavailable(reason: str) -> LimitsUnavailableError:
    return LimitsUnavailableError(f"{_WHAT} are unavailable ({reason}): nothing was sent. Try again when they are back")
