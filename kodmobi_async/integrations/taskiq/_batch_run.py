"""The workers' side of a batch: its rows are sent by the machinery of ``send_many``, each on its own account.

The invariant: **a row is begun before it is sent, and its outcome is kept and reported in one step.** What a worker
leaves behind when it is killed is a row that was not begun, which another run sends; one that was, about which another
run asks the service; or one whose outcome is known.

Rows that have to wait keep no other one up. When the worker is asked to stop, what has no outcome becomes a new batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import attrs
from taskiq.kicker import AsyncKicker

from kodmobi_async._calls.postponed import Later
from kodmobi_async._calls.run import Run
from kodmobi_async._values.errors import (
    BulkStoppedError,
    ConfigurationError,
    CooldownError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    SendInterruptedError,
)
from kodmobi_async._values.models import SendOutcome
from kodmobi_async.integrations._plain import load_outcome
from kodmobi_async.integrations.taskiq._message import Batch, Row
from kodmobi_async.integrations.taskiq._reports import Reports
from kodmobi_async.integrations.taskiq._store import BatchStore, Elsewhere, Finished
from kodmobi_async.integrations.taskiq._worker import pause_after, stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskiq import Context

    from kodmobi_async._calls.postponed import Item
    from kodmobi_async._values.models import SendRequest, SendResult
    from kodmobi_async.integrations.taskiq._worker import Worker


@attrs.frozen
class _Held:
    """Another run has begun the send, and may finish it within so many seconds."""

    seconds: float


@attrs.frozen
class _Known:
    """The send has this outcome; ``None`` = it has been reported."""

    outcome: SendOutcome | None


class BatchRun:
    """A run of the task that sends a batch.

    Args:
        worker: Runs it.
        message: The batch.

    Raises:
        ConfigurationError: The worker's results cannot carry those of a batch.
    """

    def __init__(self, worker: Worker, message: str) -> None:
        if not isinstance(worker.store, BatchStore):
            raise ConfigurationError("a worker needs the kind of result backend that the feeder has: Redis")
        self._worker = worker
        self._store = worker.store
        self._batch = Batch.load(message)
        self._token = secrets.token_hex(8)
        self._left = {row.index: row for row in self._batch.rows}
        self._marked: set[int] = set()
        """Rows that the store has been asked to begin."""
        self._begun: set[int] = set()
        """Those that it did; they may have been sent."""
        self._releases: dict[int, Awaitable[None]] = {}
        self._untried = set(self._left)
        self._elsewhere: dict[int, _Held | _Known] = {}
        self._reports = Reports(worker, self._store, self._batch)

    async def work(self, context: Context) -> None:
        """Send the rows; what is left when the worker stops goes back to the queue."""
        with self._worker.running() as task:
            async with self._reports.publishing():
                try:
                    await self._send_all()
                except asyncio.CancelledError:
                    task.uncancel()
                except BulkStoppedError as error:
                    self._settle_rest(error.error)
                except BaseException:
                    self._settle_rest(SendInterruptedError("the task failed in its worker"))
                    raise
                if self._left and not self._worker.has_queue(context.broker):
                    self._settle_rest(stopped())
            if self._left:
                await self._put_back(context)

    async def _send_all(self) -> None:
        """Send what can be sent before the worker stops.

        Raises:
            BulkStoppedError: Something is wrong with the account.
        """
        worker = self._worker
        await worker.wait_for_room()
        run = Run(
            self._batch.rows,
            self._send,
            remaining=self._remaining,
            later=_RetryLater(worker, self._elsewhere, self._release),
            concurrency=min(worker.concurrency, max(1, len(self._batch.rows))),
            grace=worker.stop_timeout,
            on_stop=None,
        )
        worker.runs.add(run)
        worker.unsent += len(self._untried)
        stopper = asyncio.create_task(self._stop_with_worker(run))
        try:
            async with contextlib.aclosing(run.outcomes()) as outcomes:
                async for outcome in outcomes:
                    self._settle(outcome)
        finally:
            stopper.cancel()
            worker.runs.discard(run)
            for index in tuple(self._untried):
                self._note_tried(index)
            for outcome in run.unread:
                self._settle(outcome)

    async def _stop_with_worker(self, run: Run) -> None:
        await self._worker.stopping.wait()
        await run.settle()

    # -- a row ---------------------------------------------------------------------------------------------------------

    async def _send(self, request: SendRequest) -> SendResult:
        row = cast("Row", request)
        worker = self._worker
        async with worker.slots:
            self._note_tried(row.index)
            if worker.stopping.is_set():
                raise SendInterruptedError("the worker stops")
            if (release := self._releases.pop(row.index, None)) is not None:
                await release
            self._marked.add(row.index)
            held = await self._store.begin(row.send_id, self._token)
            if held is None:
                self._begun.add(row.index)
                worker.in_flight += 1
                try:
                    return await worker.client.send(row.session_id, row.channel, max_wait=0.0)
                finally:
                    worker.in_flight -= 1
            self._elsewhere[row.index] = await self._look(row, held)
        raise KodmobiError("another run has begun the send")

    async def _look(self, row: Row, held: Elsewhere | Finished) -> _Held | _Known:
        """Return what there is to know about a send that another run has begun."""
        if isinstance(held, Finished):
            return _Known(None if held.outcome is None else load_outcome(row, held.outcome))
        left = self._worker.grace - held.age
        return _Held(left) if left > 0 else _Known(await self._worker.find_out(row))

    def _note_tried(self, index: int) -> None:
        if index in self._untried:
            self._untried.discard(index)
            self._worker.note_tried()

    async def _remaining(self, request: SendRequest) -> float:
        if cast("Row", request).index not in self._begun:
            return 0.0
        return await self._worker.client.remaining(request.session_id, request.channel)

    def _release(self, row: Row) -> None:
        """Let another run send a row that waits, should this one come to its end."""
        if row.index in self._marked:
            self._marked.discard(row.index)
            self._begun.discard(row.index)
            self._releases[row.index] = self._store.release(row.send_id, self._token)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def _settle(self, outcome: SendOutcome) -> None:
        """Report an outcome; a row that is left to another run has none."""
        row, error = cast("Row", outcome.request), outcome.error
        if isinstance(error, SendInterruptedError):
            if error.outcome is Outcome.NOT_SENT:
                self._release(row)
        elif row.index not in self._releases:  # else it was to be sent later, and the worker stops
            del self._left[row.index]
            elsewhere = self._elsewhere.pop(row.index, None)
            known = elsewhere.outcome if isinstance(elsewhere, _Known) else outcome
            if known is not None:
                self._reports.add(row, known)

    def _settle_rest(self, error: KodmobiError) -> None:
        """Report the rows that are not sent because of something that concerns all."""
        for row in self._left.values():
            own = copy.copy(error)
            own.outcome = Outcome.UNKNOWN if row.index in self._begun else Outcome.NOT_SENT
            self._reports.add(row, SendOutcome(row, error=own))
        self._left.clear()

    async def _put_back(self, context: Context) -> None:
        for release in self._releases.values():
            await release
        message, batch = context.message, self._batch
        rest = Batch(batch.results, batch.batch_id, tuple(self._left.values()), batch.keeps_outcomes)
        kicker: AsyncKicker[Any, Any] = AsyncKicker(message.task_name, context.broker, dict(message.labels))
        await kicker.kiq(rest.dump())


class _RetryLater(Later):
    """Says when a row is sent again.

    Args:
        worker: Knows how often.
        elsewhere: What is known of rows that another run has begun.
        on_postponed: Called with a row that waits.
    """

    def __init__(
        self, worker: Worker, elsewhere: dict[int, _Held | _Known], on_postponed: Callable[[Row], None]
    ) -> None:
        super().__init__(math.inf, self._until_the_session_ends, worker.tries)
        self._worker = worker
        self._elsewhere = elsewhere
        self._on_postponed = on_postponed
        self._tries: Counter[int] = Counter()

    def moment(self, item: Item, error: KodmobiError, pauses: int, now: float) -> float | None:
        """Return the moment at which a row may be sent again; ``None`` = its error is its outcome."""
        row = cast("Row", item.request)
        elsewhere = self._elsewhere.get(row.index)
        if isinstance(elsewhere, _Held):
            del self._elsewhere[row.index]
            return now + elsewhere.seconds
        if elsewhere is not None or isinstance(error, SendInterruptedError):
            return None
        self._tries[row.index] += 1
        tries = self._tries[row.index]
        moment = super().moment(item, error, pauses, now)
        item.error = None
        if not isinstance(error, (CooldownError, RateLimitedError)):
            pause = pause_after(error, tries)
            moment = None if pause is None else now + pause
        if moment is None or tries >= self._worker.tries:
            return None
        self._on_postponed(row)
        return moment

    def _until_the_session_ends(self, request: SendRequest, longest: float) -> float:
        left = self._worker.client.session_left(request.session_id)
        return longest if left is None else min(longest, left)
