"""Many sends, a bounded number of them at a time, over a ``send`` that somebody else brings.

The invariant: **every request that was read from the input has exactly one outcome**, whatever fails, and nothing runs
on once the iteration is over. The input is read only as fast as it is worked, so its length is no matter.

A fixed number of workers each take a request, send it, and put its outcome where the consumer finds it. A request whose
channel is in its cooldown does not keep a worker busy: where it is worth waiting for, it is put *aside*, in the order
of the moments at which it may go, and the next one is taken meanwhile. So that memory stays flat, only so many are put
aside; when there is no more room, the reading waits until the first of them has gone.

A limit of the *account* concerns all of them: the run pauses for as long as the service asks, and the refused requests
are tried again then. When that does not help, several times in a row, it stops as for any other fault of the account.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kodmobi_async._errors import (
    AuthenticationError,
    BalanceError,
    BulkStoppedError,
    ClientClosedError,
    CooldownError,
    InvalidRequestError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    ResponseError,
    SendInterruptedError,
    WrongLoopError,
)
from kodmobi_async._models import SendOutcome, SendRequest
from kodmobi_async._pacing import Gate
from kodmobi_async._settings import CLOSE_GRACE, check_concurrency, check_max_wait, check_seconds
from kodmobi_async._source import END, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from ulid import ULID

    from kodmobi_async._models import Channel, SendResult

    Pair: TypeAlias = tuple[ULID | str, Channel | str]
    Requests: TypeAlias = Iterable[SendRequest | Pair] | AsyncIterable[SendRequest | Pair]

ROOM_ASIDE: Final = 10_000
"""How many requests wait for their cooldowns at most, besides those under way."""

PAUSES_IN_A_ROW: Final = 3
"""How often a run sits out a limit of the account with no other answer in between."""

# What is wrong with the account, or with the client, is wrong for every request.
_OF_THE_ACCOUNT: Final = (AuthenticationError, BalanceError, ClientClosedError, WrongLoopError)
_PAIR: Final = 2


class _Item:
    """A request under way, or set aside."""

    __slots__ = ("gives_up_at", "request")

    def __init__(self, request: SendRequest) -> None:
        self.request = request
        self.gives_up_at: float | None = None


class SendMany(AsyncIterator[SendOutcome]):
    """The outcomes of many sends, as they finish.

    When the loop over it is left early, nothing more is begun, and what is under way gets ``grace`` seconds to come to
    its end. Use ``async with``, or call `aclose`, to know when that is over and to find in `unread` what became of it.

    Args:
        requests: What to send; each a `SendRequest` or a pair.
        send: Sends one, without waiting for its cooldown.
        remaining: Says how long a request's channel is still blocked, in seconds.
        worth_waiting: Returns how much of a wait makes sense for a request; by default all of it.
        concurrency: How many are under way at most.
        max_wait: Seconds that a request waits for its cooldown.
        grace: Seconds for what is under way when the loop is left early; then it is cancelled.
        pauses: How often the run sits out a limit of the account with no other answer in between.

    Raises:
        ConfigurationError: A setting cannot be used, or ``requests`` are nothing to iterate over.
    """

    def __init__(
        self,
        requests: Requests,
        send: Callable[[SendRequest], Awaitable[SendResult]],
        *,
        remaining: Callable[[SendRequest], Awaitable[float]],
        worth_waiting: Callable[[SendRequest, float], float] | None = None,
        concurrency: int = 64,
        max_wait: float = 0.0,
        grace: float = CLOSE_GRACE,
        pauses: int = PAUSES_IN_A_ROW,
    ) -> None:
        self._run = _Run(
            requests,
            send,
            remaining=remaining,
            worth_waiting=worth_waiting,
            concurrency=check_concurrency(concurrency),
            max_wait=check_max_wait(max_wait),
            grace=check_seconds("grace", grace, zero=True),
            pauses=pauses,
        )
        self._outcomes = self._run.outcomes()

    @property
    def done(self) -> int:
        """How many outcomes were handed out."""
        return self._run.done

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        """Once closed: the outcomes that were not handed out."""
        return self._run.unread

    @property
    def paused_for(self) -> float:
        """Seconds for which the run still sits out a limit of the account; 0.0 = it goes on."""
        return self._run.paused_for

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[SendOutcome]:
        """Return the next outcome.

        Raises:
            BulkStoppedError: Something is wrong with the account; all that was begun has been handed out before.
        """
        return anext(self._outcomes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Begin nothing more. What is under way comes to its end and is handed out; then the iteration is over."""
        self._run.stop()

    async def aclose(self) -> None:
        """Begin nothing more, and wait until nothing is under way. Whoever is cancelled here waits no longer."""
        await self._outcomes.aclose()


class _Run:
    """The workers, and what passes between them and the consumer.

    It knows nothing of the `SendMany` that began it: so that one goes when nobody holds it any more, its generator is
    closed by the loop then, and the workers end with that.
    """

    def __init__(
        self,
        requests: Requests,
        send: Callable[[SendRequest], Awaitable[SendResult]],
        *,
        remaining: Callable[[SendRequest], Awaitable[float]],
        worth_waiting: Callable[[SendRequest, float], float] | None,
        concurrency: int,
        max_wait: float,
        grace: float,
        pauses: int,
    ) -> None:
        self._source = Source(requests)
        self._send = send
        self._remaining = remaining
        self._worth_waiting = worth_waiting
        self._concurrency = concurrency
        self._max_wait = max_wait
        self._grace = grace
        self._most_pauses = pauses
        self._pauses = 0
        self._paused_until = 0.0
        self._aside: list[tuple[float, int, _Item]] = []
        self._numbers = itertools.count()
        self._finished: deque[SendOutcome] = deque()
        self._news: asyncio.Future[None]  # what the consumer waits for, once there is one
        self._held_up: deque[asyncio.Future[None]] = deque()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._working = 0
        self._stopped = False
        self._failure: Exception | None = None
        self.done = 0
        self.unread: tuple[SendOutcome, ...] = ()

    def stop(self) -> None:
        self._stopped = True
        self._wake_sleepers()
        for worker in self._held_up:
            _wake(worker)
        self._source.stop()

    @property
    def paused_for(self) -> float:
        return max(0.0, self._paused_until - asyncio.get_running_loop().time()) if self._pauses else 0.0

    async def outcomes(self) -> AsyncGenerator[SendOutcome]:
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        workers = [loop.create_task(self._work(loop)) for _ in range(self._concurrency)]
        self._working = len(workers)
        try:
            while True:
                while self._finished:
                    if self._held_up:
                        _wake(self._held_up.popleft())
                    self.done += 1
                    yield self._finished.popleft()
                if not self._working:
                    break
                await self._news
                self._news = loop.create_future()
            while self._aside:  # stopped, they will not be sent any more
                self.done += 1
                yield _not_sent(heapq.heappop(self._aside)[2])
        finally:
            self.stop()
            try:
                await asyncio.wait(workers, timeout=self._grace)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.wait(workers)
                self.unread = (*self._finished, *(_not_sent(item) for _, _, item in sorted(self._aside)))
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure = self._failure
        if isinstance(failure, KodmobiError):
            raise BulkStoppedError(f"stopped after {self.done} requests: {failure}", done=self.done, error=failure)
        if failure is not None:
            raise failure

    # -- a worker --------------------------------------------------------------------------------------------------

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (item := await self._take(loop)) is not None:
                # an input may stop its own run
                outcome = _not_sent(item) if self._stopped else await self._try(item, loop)
                if outcome is None:
                    await asyncio.sleep(0)  # however many are set aside in a row, others get their turn
                    continue
                self._finished.append(outcome)
                self._tell_news()
                if len(self._finished) > self._concurrency and not self._stopped:
                    room = loop.create_future()
                    self._held_up.append(room)
                    await room
        except Exception as failure:  # noqa: BLE001 the input's, or that of a ``send`` that is not ours
            self._fail(failure)
        finally:
            self._working -= 1
            self._tell_news()

    async def _take(self, loop: asyncio.AbstractEventLoop) -> _Item | None:
        """Return what is to be sent next; ``None`` when there is nothing more to do for a worker."""
        while not self._stopped:
            if self._aside and self._aside[0][0] <= loop.time():
                return heapq.heappop(self._aside)[2]
            if self._source.is_open and len(self._aside) < ROOM_ASIDE:
                request = await self._source.anext() if self._source.is_async else self._source.next()
                if request is not END:
                    return _Item(_as_request(request))
            elif self._aside:
                await self._sleep_until(self._aside[0][0], loop)
            else:
                break
        return None

    async def _try(self, item: _Item, loop: asyncio.AbstractEventLoop) -> SendOutcome | None:
        """Return what came of the item; ``None`` if it was set aside."""
        request = item.request
        try:
            while True:
                try:
                    result = await self._send(_checked(request))
                except RateLimitedError as error:
                    if not await self._sit_out(error, loop):
                        return SendOutcome(request, error=error)
                else:
                    self._go_on(loop)
                    return SendOutcome(request, result)
        except KodmobiError as error:
            if isinstance(error, ResponseError):
                self._go_on(loop)
            if isinstance(error, CooldownError) and self._set_aside(item, error, loop.time()):
                return None
            if isinstance(error, _OF_THE_ACCOUNT):
                self._fail(error)
            return SendOutcome(request, error=error)
        except BaseException:
            # cancelled, or a failure that is not ours: whether it went out shows in the state of its channel
            left = await self._remaining(request)
            self._finished.append(SendOutcome(request, error=_interrupted(left)))
            raise

    def _set_aside(self, item: _Item, refusal: CooldownError, now: float) -> bool:
        """Set the item aside if its turn comes soon enough."""
        if self._max_wait <= 0 or refusal.outcome is Outcome.ACCEPTED:
            return False
        if item.gives_up_at is None:
            item.gives_up_at = now + self._max_wait
        patience = item.gives_up_at - now
        if self._worth_waiting is not None:
            patience = self._worth_waiting(item.request, patience)
        if refusal.retry_after > patience:
            return False
        turn = now + refusal.retry_after
        if self._aside and turn < self._aside[0][0]:
            self._wake_sleepers()
        heapq.heappush(self._aside, (turn, next(self._numbers), item))
        return True

    async def _sit_out(self, refusal: RateLimitedError, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait, with everybody else, for as long as the account is limited; return whether to try again."""
        now = loop.time()
        if now >= self._paused_until and not self._stopped:  # and not one of those who were under way when it began
            if self._pauses == self._most_pauses:
                self._fail(refusal)
            self._pauses += 1
        wait = Gate.DEFAULT_CLOSURE if refusal.retry_after is None else refusal.retry_after
        self._paused_until = max(self._paused_until, now + wait)
        while not self._stopped and loop.time() < self._paused_until:
            await self._sleep_until(self._paused_until, loop)
        return not self._stopped

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take note of an answer that says nothing of a limit."""
        if self._pauses and loop.time() >= self._paused_until:
            self._pauses = 0

    async def _sleep_until(self, moment: float, loop: asyncio.AbstractEventLoop) -> None:
        sleeper = loop.create_future()
        self._sleepers.add(sleeper)
        alarm = loop.call_at(moment, _wake, sleeper)
        try:
            await sleeper
        finally:
            alarm.cancel()
            self._sleepers.discard(sleeper)

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self.stop()

    def _wake_sleepers(self) -> None:
        for sleeper in self._sleepers:
            _wake(sleeper)

    def _tell_news(self) -> None:
        if not self._news.done():
            self._news.set_result(None)


def _as_request(given: object) -> SendRequest:
    """Return a pair as a request, and everything else as it is: an outcome names what was given."""
    if isinstance(given, SendRequest):
        return given
    if isinstance(given, (tuple, list)) and len(cast("tuple[Any, ...]", given)) == _PAIR:
        return SendRequest(*cast("Pair", given))
    return cast("SendRequest", given)


def _checked(request: object) -> SendRequest:
    if isinstance(request, SendRequest):
        return request
    raise InvalidRequestError(f"expected a SendRequest or a pair, got {type(request).__name__}")


def _interrupted(blocked_for: float) -> SendInterruptedError:
    if blocked_for > 0:
        return SendInterruptedError(
            "the run was ended while the request was under way: it may have been sent", outcome=Outcome.UNKNOWN
        )
    return SendInterruptedError("the run was ended before the request was sent")


def _not_sent(item: _Item) -> SendOutcome:
    return SendOutcome(item.request, error=_interrupted(0.0))


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
