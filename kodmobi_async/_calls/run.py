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
import contextlib
import heapq
import itertools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from kodmobi_async._calls.source import END, Source
from kodmobi_async._rules.pacing import Gate, Pauses
from kodmobi_async._values.errors import (
    AuthenticationError,
    BalanceError,
    BulkStoppedError,
    ClientClosedError,
    CooldownError,
    InvalidRequestError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
    WrongLoopError,
)
from kodmobi_async._values.models import SendOutcome, SendRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable

    from ulid import ULID

    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.models import SendResult

    Pair: TypeAlias = tuple[ULID | str, Channel | str]
    Requests: TypeAlias = Iterable[SendRequest | Pair] | AsyncIterable[SendRequest | Pair]

ROOM_ASIDE: Final = 10_000
"""How many requests wait for their cooldowns at most, besides those under way."""

# What is wrong with the account, or with the client, is wrong for every request.
_OF_THE_ACCOUNT: Final = (AuthenticationError, BalanceError, ClientClosedError, WrongLoopError)
_PAIR: Final = 2


class _Item:
    """A request under way, or set aside."""

    __slots__ = ("gives_up_at", "request")

    def __init__(self, request: SendRequest) -> None:
        self.request = request
        self.gives_up_at: float | None = None


class Run:
    """The workers, and what passes between them and the consumer.

    It knows nothing of the `SendMany` that began it: so that one goes when nobody holds it any more, its generator is
    closed by the loop then, and the workers end with that. The arguments are described there.
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
        on_stop: Callable[[], None] | None,
    ) -> None:
        self._source = Source(requests)
        self._send = send
        self._remaining = remaining
        self._worth_waiting = worth_waiting
        self._concurrency = concurrency
        self._max_wait = max_wait
        self._grace = grace
        self._pauses = Pauses(pauses)
        self._on_stop = on_stop
        self._workers: list[asyncio.Task[None]] = []
        self._working = 0
        self._under_way = 0
        self._finished: deque[SendOutcome] = deque()
        self._aside: list[tuple[float, int, _Item]] = []
        self._numbers = itertools.count()
        # who waits: the consumer for news; workers for a moment, for the input, for room, for a seat
        self._news: asyncio.Future[None]
        self._sleepers: set[asyncio.Future[None]] = set()
        self._in_line: deque[asyncio.Future[None]] = deque()
        self._held_up: deque[asyncio.Future[None]] = deque()
        self._seat: asyncio.Future[None] | None = None
        self._stopped = False
        self._failure: BaseException | None = None
        self._is_of_account = False
        self.done = 0

    def stop(self) -> None:
        if self._stopped:
            return  # once more would cut off the input's own cleaning up
        self._stopped = True
        self._source.stop()
        self._wake_sleepers()
        for worker in self._held_up:
            _wake(worker)
        if self._seat is not None:
            _wake(self._seat)
        if self._on_stop is not None:
            self._on_stop()

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        return (*self._finished, *(_not_sent(item) for _, _, item in sorted(self._aside)))

    @property
    def paused_for(self) -> float:
        return 0.0 if self._stopped else self._pauses.left(asyncio.get_running_loop().time())

    async def outcomes(self) -> AsyncGenerator[SendOutcome]:
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        # where reading takes time, there is one more, so that somebody is left for those set aside
        self._working = self._concurrency + self._source.is_async
        self._workers = [loop.create_task(self._work(loop)) for _ in range(self._working)]
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
            await self.settle()
        self._raise_failure()

    async def settle(self) -> None:
        """Begin nothing more; give what is under way its time, then cancel it."""
        self.stop()
        cancelled: asyncio.CancelledError | None = None
        patience: float | None = self._grace
        while rest := [worker for worker in self._workers if not worker.done()]:
            try:
                await asyncio.wait(rest, timeout=patience)
            except asyncio.CancelledError as error:  # it hurries, and is passed on when nothing runs any more
                cancelled = error
            patience = None
            for worker in rest:
                worker.cancel()
        if cancelled is not None:
            raise cancelled

    def _raise_failure(self) -> None:
        failure = self._failure
        if self._is_of_account and isinstance(failure, KodmobiError):
            raise BulkStoppedError(f"stopped after {self.done} requests: {failure}", done=self.done, error=failure)
        if failure is not None:
            raise failure

    # -- a worker --------------------------------------------------------------------------------------------------

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (item := await self._take(loop)) is not None:
                await self._work_on(item, loop)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if self._stopped or task is None or task.cancelling():
                raise
            self._fail(cancelled)  # what the input or a ``send`` awaits was cancelled, and not the worker
        except Exception as failure:  # noqa: BLE001 the input's, or that of a ``send`` that is not ours
            self._fail(failure)
        finally:
            self._working -= 1
            _wake(self._news)

    async def _work_on(self, item: _Item, loop: asyncio.AbstractEventLoop) -> None:
        """Put what comes of the item where the consumer finds it, unless it is set aside."""
        if self._under_way >= self._concurrency:
            await self._hold(item, loop)
        if self._stopped:  # by the input itself, or while the item was held
            outcome: SendOutcome | None = _not_sent(item)
        else:
            self._under_way += 1
            try:
                outcome = await self._try(item, loop)
            finally:
                self._under_way -= 1
                if self._seat is not None:
                    _wake(self._seat)
        if outcome is None:
            await asyncio.sleep(0)  # however many are set aside in a row, others get their turn
            return
        self._finished.append(outcome)
        _wake(self._news)
        if len(self._finished) > self._concurrency and not self._stopped:
            room = loop.create_future()
            self._held_up.append(room)
            await room

    async def _take(self, loop: asyncio.AbstractEventLoop) -> _Item | None:
        """Return what is to be sent next; ``None`` when there is nothing more to do for a worker."""
        while not self._stopped:
            turn = self._aside[0][0] if self._aside else math.inf
            if self._under_way >= self._concurrency:
                await self._wait_for_seat(loop)
            elif turn < math.inf and turn <= loop.time():
                self._call_next()  # this one may have been called
                return heapq.heappop(self._aside)[2]
            elif not self._source.is_open or len(self._aside) >= ROOM_ASIDE:
                if not self._aside:
                    break
                await self._sleep_until(turn, loop)
            elif self._source.is_being_read:
                await self._stand_in_line(turn, loop)
            else:
                request = await self._read() if self._source.is_async else self._source.next()
                if request is not END:
                    return _Item(_as_request(request))
        return None

    async def _read(self) -> object:
        try:
            return await self._source.anext()
        finally:
            self._call_next()

    def _call_next(self) -> None:
        """See to it that one of those in line reads, if nobody does. When there is nothing left, all of them go."""
        while self._in_line and not self._source.is_being_read:
            place = self._in_line.popleft()
            if not place.done():
                place.set_result(None)
                if self._source.is_open:
                    break

    async def _try(self, item: _Item, loop: asyncio.AbstractEventLoop) -> SendOutcome | None:
        """Return what came of the item; ``None`` if it was set aside."""
        request = item.request
        pauses = 0
        try:
            while True:
                pauses = self._pauses.begun
                try:
                    result = await self._send(_checked(request))
                except RateLimitedError as error:
                    if not await self._sit_out(error, pauses, loop):
                        return SendOutcome(request, error=error)
                else:
                    self._pauses.answered(pauses)
                    return SendOutcome(request, result)
        except KodmobiError as error:
            if error.outcome in (Outcome.REFUSED, Outcome.ACCEPTED):
                self._pauses.answered(pauses)
            if isinstance(error, CooldownError) and self._set_aside(item, error, loop.time()):
                return None
            if isinstance(error, _OF_THE_ACCOUNT):
                self._fail(error, of_account=True)
            return SendOutcome(request, error=error)
        except BaseException:
            # cancelled, or a failure that is not ours: whether it went out shows in the state of its channel
            self._finished.append(SendOutcome(request, error=_interrupted(await self._left(request))))
            raise

    async def _left(self, request: SendRequest) -> float:
        try:
            return await self._remaining(request)
        except BaseException:  # noqa: BLE001 what matters more is passed on by the caller
            return math.inf  # nobody knows

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

    async def _sit_out(self, refusal: RateLimitedError, pauses: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait, with everybody else, for as long as the account is limited; return whether to try again."""
        now = loop.time()
        if refusal.status is None:  # the client's own rate; the service was not asked
            turn: float | None = now + max(refusal.retry_after or 0.0, Gate.STAGGER)
        else:
            turn = self._pauses.refused(now, refusal.retry_after, pauses)
        if turn is None and not self._stopped:
            self._fail(refusal, of_account=True)
        while not self._stopped and turn is not None and loop.time() < turn:
            await self._sleep_until(turn, loop)
        return not self._stopped

    async def _hold(self, item: _Item, loop: asyncio.AbstractEventLoop) -> None:
        """Wait with an item: others have taken all seats while this one waited for the input."""
        try:
            await self._wait_for_seat(loop)
        except BaseException:
            self._finished.append(_not_sent(item))
            raise

    async def _wait_for_seat(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._under_way >= self._concurrency and not self._stopped:
            self._seat = loop.create_future()
            try:
                await self._seat
            finally:
                self._seat = None

    async def _stand_in_line(self, turn: float, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until nobody reads, but no longer than until the first turn of those set aside."""
        place: asyncio.Future[None] = loop.create_future()
        self._in_line.append(place)
        try:
            await _until(turn, place, loop)
        finally:
            with contextlib.suppress(ValueError):  # it was called
                self._in_line.remove(place)

    async def _sleep_until(self, moment: float, loop: asyncio.AbstractEventLoop) -> None:
        sleeper: asyncio.Future[None] = loop.create_future()
        self._sleepers.add(sleeper)
        try:
            await _until(moment, sleeper, loop)
        finally:
            self._sleepers.discard(sleeper)

    def _fail(self, failure: BaseException, *, of_account: bool = False) -> None:
        if self._failure is None:
            self._failure, self._is_of_account = failure, of_account
        self.stop()

    def _wake_sleepers(self) -> None:
        for sleeper in (*self._sleepers, *self._in_line):
            _wake(sleeper)


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


async def _until(moment: float, woken: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """Wait until somebody wakes this one, or until the moment."""
    alarm = None if moment == math.inf else loop.call_at(moment, _wake, woken)
    try:
        await woken
    finally:
        if alarm is not None:
            alarm.cancel()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
