"""Many sends, a bounded number of them at a time, over a ``send`` that the caller brings.

The invariant: **every request that was read from the input has exactly one outcome**, whatever fails, and nothing runs
on once the iteration is over. The input is read only as fast as it is worked, so its length does not matter.

The workers are all alike. Each asks for the next item, sends it, and puts its outcome where the consumer finds it. The
next item is one that has waited for its moment, or else the next of the input. A worker that finds neither is idle
until something changes: a moment comes, the input can be read again, the consumer catches up, or the run stops.

An item whose channel is in its cooldown keeps no worker busy: it is postponed, if it is worth waiting for. A limit of
the *account* concerns all items: the refused ones are postponed for as long as the service asks, and nothing is read
meanwhile. If that does not help, several times in a row, the run stops as for any other fault of the account.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from kodmobi_async._calls.postponed import Item, Postponed, interrupted
from kodmobi_async._calls.source import END, Source
from kodmobi_async._values.errors import (
    AuthenticationError,
    BalanceError,
    BulkStoppedError,
    ClientClosedError,
    KodmobiError,
    RateLimitedError,
    WrongLoopError,
)
from kodmobi_async._values.models import SendOutcome, SendRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable

    from kodmobi_async._calls.postponed import Later, Pair
    from kodmobi_async._values.models import SendResult

    Requests: TypeAlias = Iterable[SendRequest | Pair] | AsyncIterable[SendRequest | Pair]

MOST_POSTPONED: Final = 10_000
"""How many items wait for their moments before the input is read on."""

# What is wrong with the account, or with the client, is wrong for every request.
_OF_THE_ACCOUNT: Final = (AuthenticationError, BalanceError, ClientClosedError, WrongLoopError)


class Run:
    """The workers, and what passes between them and the consumer.

    It does not know the `SendMany` that began it. When nobody holds that one any more, the loop closes its generator,
    and the workers end with that. The arguments are described there; ``later`` says when a refused item is sent again.
    """

    def __init__(
        self,
        requests: Requests,
        send: Callable[[SendRequest], Awaitable[SendResult]],
        *,
        remaining: Callable[[SendRequest], Awaitable[float]],
        later: Later,
        concurrency: int,
        grace: float,
        on_stop: Callable[[], None] | None,
    ) -> None:
        self._source = Source(requests)
        self._send = send
        self._remaining = remaining
        self._concurrency = concurrency
        self._grace = grace
        self._later = later
        self._on_stop = on_stop
        self._workers: list[asyncio.Task[None]] = []
        self._working = 0
        self._in_flight = 0
        self._read: deque[Item] = deque()  # read from the input, and not begun
        self._postponed = Postponed()
        self._finished: deque[SendOutcome] = deque()
        self._news: asyncio.Future[None]  # the consumer waits for it
        self._idle: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None  # of the first of the postponed
        self._stopped = False
        self._failure: BaseException | None = None
        self._is_of_account = False
        self.done = 0

    # -- the consumer's side -------------------------------------------------------------------------------------------

    async def outcomes(self) -> AsyncGenerator[SendOutcome]:
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        # where reading takes time, one more: it reads while the others send
        self._working = self._concurrency + self._source.is_async
        self._workers = [loop.create_task(self._work(loop)) for _ in range(self._working)]
        try:
            while True:
                while self._finished:
                    if self._idle:
                        self._wake_one()  # it may have waited for the consumer
                    self.done += 1
                    yield self._finished.popleft()
                if self._working:
                    await self._news
                    self._news = loop.create_future()
                elif not self._give_up():
                    break
        finally:
            await self.settle()
        self._raise_failure()

    @property
    def unread(self) -> tuple[SendOutcome, ...]:
        return (*self._finished, *(item.not_sent() for item in self._read), *self._postponed.not_sent())

    def _give_up(self) -> bool:
        """Finish what a stopped run does not send any more; return whether there was something."""
        rest = self.unread
        self._read.clear()
        self._postponed = Postponed()
        self._finished.extend(rest)
        return bool(rest)

    @property
    def paused_for(self) -> float:
        return 0.0 if self._stopped else self._later.pauses.left(asyncio.get_running_loop().time())

    @property
    def postponed(self) -> int:
        return len(self._postponed)

    def stop(self) -> None:
        if self._stopped:
            return  # once more would cut off the input's own cleaning up
        self._stopped = True
        self._source.stop()
        self._wake_all()
        if self._on_stop is not None:
            self._on_stop()

    async def settle(self) -> None:
        """Begin nothing more; give what is in flight its grace, then cancel it."""
        self.stop()
        cancelled: asyncio.CancelledError | None = None
        timeout: float | None = self._grace
        while rest := [worker for worker in self._workers if not worker.done()]:
            try:
                await asyncio.wait(rest, timeout=timeout)
            except asyncio.CancelledError as error:  # cancels what is left now, and is passed on afterwards
                cancelled = error
            timeout = None
            for worker in rest:
                worker.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if cancelled is not None:
            raise cancelled

    def _raise_failure(self) -> None:
        failure = self._failure
        if self._is_of_account and isinstance(failure, KodmobiError):
            raise BulkStoppedError(f"stopped after {self.done} requests: {failure}", done=self.done, error=failure)
        if failure is not None:
            raise failure

    # -- a worker ------------------------------------------------------------------------------------------------------

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (item := await self._next(loop)) is not None:
                outcome = await self._attempt(item, loop)
                if outcome is None:
                    await asyncio.sleep(0)  # however many are postponed in a row, others get their turn
                else:
                    self._finished.append(outcome)
                    _wake(self._news)
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

    async def _next(self, loop: asyncio.AbstractEventLoop) -> Item | None:
        """Return the item to send next, counted as in flight; ``None`` when there is nothing more to do."""
        while not self._stopped:
            item = None
            if self._in_flight < self._concurrency and len(self._finished) <= self._concurrency:
                first = self._postponed.first
                now = 0.0 if first == math.inf else loop.time()
                if first <= now:
                    item = self._postponed.pop()
                    self._set_timer(loop)
                elif self._read:
                    item = self._read.popleft()
                elif self._may_read(now):
                    given = await self._source.anext() if self._source.is_async else self._source.next()
                    if given is not END:
                        self._read.append(given if isinstance(given, Item) else Item(given))
                    continue
                elif not self._source.is_open and not self._postponed:
                    break
            if item is None:
                await self._wait(loop)
                continue
            self._in_flight += 1
            if self._idle and self._in_flight < self._concurrency:
                self._wake_one()  # there may be more to do
            return item
        self._wake_all()
        return None

    def _may_read(self, now: float) -> bool:
        source = self._source
        if not source.is_open or source.is_being_read:
            return False
        return not self._postponed or (len(self._postponed) < MOST_POSTPONED and now >= self._later.reads_from)

    async def _attempt(self, item: Item, loop: asyncio.AbstractEventLoop) -> SendOutcome | None:
        """Send the item; return its outcome, or ``None`` if it was postponed."""
        pauses = self._later.pauses.begun
        try:
            result = await item.sent_by(self._send)
        except KodmobiError as error:
            return self._judge(item, error, pauses, loop)
        except BaseException:
            # cancelled, or a failure that is not ours: whether it was sent shows in the state of its channel
            self._finished.append(SendOutcome(item.request, error=interrupted(await self._left(item.request))))
            raise
        finally:
            self._in_flight -= 1
        self._later.pauses.answered(pauses)
        return SendOutcome(item.request, result)

    def _judge(
        self, item: Item, error: KodmobiError, pauses: int, loop: asyncio.AbstractEventLoop
    ) -> SendOutcome | None:
        """Postpone an item that can be sent later; stop the run for an error that concerns all."""
        is_limit = isinstance(error, RateLimitedError)
        moment = self._later.moment(item, error, pauses, loop.time())
        if moment is not None and not (is_limit and self._stopped):
            self._postponed.push(moment, item)
            self._set_timer(loop)
            return None
        if isinstance(error, _OF_THE_ACCOUNT) or (is_limit and not self._stopped):
            self._fail(error, of_account=True)
        return SendOutcome(item.request, error=error)

    async def _left(self, request: SendRequest) -> float:
        try:
            return await self._remaining(request)
        except BaseException:  # noqa: BLE001 what matters more is raised by the caller
            return math.inf

    def _fail(self, failure: BaseException, *, of_account: bool = False) -> None:
        if self._failure is None:
            self._failure, self._is_of_account = failure, of_account
        self.stop()

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be idle until something changes."""
        change: asyncio.Future[None] = loop.create_future()
        self._idle.append(change)
        await change

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a worker be woken at the first moment of the postponed."""
        first = self._postponed.first
        if self._timer is not None:
            if self._timer.when() == first:
                return
            self._timer.cancel()
        self._timer = None if first == math.inf else loop.call_at(first, self._moment_has_come)

    def _moment_has_come(self) -> None:
        self._timer = None
        self._wake_one()

    def _wake_one(self) -> None:
        while self._idle:
            change = self._idle.popleft()
            if not change.done():
                change.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._idle:
            self._wake_one()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
