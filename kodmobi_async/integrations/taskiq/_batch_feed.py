"""The feeders' side of batches: requests become batches, reports become outcomes.

The invariant: **every request that was taken has one outcome**, unless the loop is left; and so many are out at most.
A batch is handed over again, under the same id, when nothing was heard of it for long, or when its worker has fallen
silent. Rows that were sent are not sent again by that: the workers' store knows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import attrs

from kodmobi_async._rules.requests import normalize_channel, normalize_session_id
from kodmobi_async._shared.loop_bound import cancel_and_wait
from kodmobi_async._values.errors import CooldownUnavailableError, KodmobiError
from kodmobi_async._values.models import SendOutcome, SendRequest
from kodmobi_async.integrations._plain import dump_outcome, load_outcome, unknown
from kodmobi_async.integrations.taskiq._message import Batch, Report, Row, WorkerProgress
from kodmobi_async.integrations.taskiq._sizes import BatchSize
from kodmobi_async.integrations.taskiq._tasks import batch_task_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kodmobi_async.integrations.taskiq._store import BatchStore
    from kodmobi_async.integrations.taskiq._tasks import ResendTask

SILENCE: Final = 10.0
"""Seconds without a report after which a worker is taken for dead."""
_READ: Final = 1.0
"""Seconds for which a read waits for reports."""
_LINGER: Final = 0.05
"""Seconds for which a batch waits for more rows from a slow input."""
_HAND_OVERS: Final = 5
"""How often in a row the queue may fail to take a batch."""
_BACKOFF: Final = 0.5
"""Seconds until the second of these, doubled each time."""
_REPORTS: Final = 100
"""Reports that are read before they are deleted."""


class _Batch:
    """A batch that is out, or is being gathered."""

    __slots__ = ("batch_id", "failures", "handed_over", "heard", "requeue_at", "rows", "size")

    def __init__(self) -> None:
        self.batch_id = secrets.token_hex(8)
        self.rows: dict[int, tuple[Row, SendRequest]] = {}
        self.size = 0
        self.handed_over = self.requeue_at = math.inf
        self.heard = math.inf
        """When a worker was last heard; ``inf`` = none has taken it."""
        self.failures = 0


class BatchFeed:
    """The requests that are out.

    Args:
        resend: The single task, next to that of batches.
        store: Where the reports are.
        timeout: Seconds to wait for an outcome.
        requeue_after: Seconds after which a batch of which nothing was heard is put into the queue again.
        outstanding: Requests at most that are out.
        task_id: The id of a request.
        on_progress: Is told about workers.
        left: How many requests there are; ``None`` = unknown.
    """

    def __init__(
        self,
        resend: ResendTask,
        store: BatchStore,
        *,
        timeout: float,
        requeue_after: float,
        outstanding: int,
        task_id: Callable[[SendRequest], str] | None,
        on_progress: Callable[[WorkerProgress], None] | None,
        left: int | None,
    ) -> None:
        task = resend.broker.find_task(batch_task_name(resend.task_name))
        assert task is not None  # noqa: S101 registered along with the other
        self._task = task
        self._store = store
        self._timeout = timeout
        self._requeue_after = requeue_after
        self._outstanding = outstanding
        self._task_id = task_id
        self._on_progress = on_progress
        self._left = left
        self._results = f"results:{secrets.token_hex(8)}"
        self._sizes = BatchSize(outstanding)
        self._workers: dict[str, tuple[float, WorkerProgress]] = {}
        self._batches: dict[str, _Batch] = {}
        self._gathered = _Batch()
        self._same: dict[str, list[SendRequest]] = {}
        self._queue: asyncio.Queue[_Batch] = asyncio.Queue()
        self._finished: deque[SendOutcome] = deque()
        self._out = 0
        """Requests that were taken, and whose outcomes were not yielded."""
        self._is_exhausted = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def outcomes(self, requests: AsyncGenerator[SendRequest]) -> AsyncGenerator[SendOutcome]:
        """Hand the requests over, and yield their outcomes."""
        work = self._take_all(requests), self._hand_over_all(), self._read_all()
        tasks = [asyncio.create_task(each) for each in work]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.set())
        try:
            while not self._is_exhausted or self._out:
                self._news.clear()
                while self._finished:
                    outcome = self._finished.popleft()
                    self._out -= 1
                    self._room.set()
                    yield outcome
                for task in tasks:
                    if task.done():
                        task.result()  # raises what the input has raised
                if not self._is_exhausted or self._out:
                    await self._news.wait()
        finally:
            await cancel_and_wait(tasks)
            if not self._batches:
                await self._store.forget(self._results)

    # -- handing over --------------------------------------------------------------------------------------------------

    async def _take_all(self, requests: AsyncGenerator[SendRequest]) -> None:
        async with contextlib.aclosing(requests) as source:
            async for request in source:
                self._take(request)
                while self._out >= self._outstanding:
                    self._room.clear()
                    await self._room.wait()
        self._close(self._gathered)
        self._is_exhausted = True

    def _take(self, request: SendRequest) -> None:
        self._out += 1
        try:
            session_id = normalize_session_id(request.session_id)
            channel = normalize_channel(request.channel)
        except KodmobiError as error:
            self._finish(SendOutcome(request, error=error))
            return
        if self._left is not None:
            self._left -= 1
        send_id = ""
        if self._task_id is not None:
            send_id = self._task_id(request)
            same = self._same.get(send_id)
            if same is not None:
                same.append(request)
                return
            self._same[send_id] = []
        batch = self._gathered
        index = len(batch.rows)
        if not index:
            batch.size = self._sizes.next(len(self._workers), None if self._left is None else self._left + 1)
            asyncio.get_running_loop().call_later(_LINGER, self._on_linger, batch)
        batch.rows[index] = Row(session_id, str.__str__(channel), index, send_id), request
        if index + 1 >= batch.size:
            self._close(batch)

    def _on_linger(self, batch: _Batch) -> None:
        """Hand a batch over that is not full, unless workers have enough to do meanwhile."""
        if batch is self._gathered:
            if sum(len(each.rows) for each in self._batches.values()) >= batch.size:
                asyncio.get_running_loop().call_later(_LINGER, self._on_linger, batch)
            else:
                self._close(batch)

    def _close(self, batch: _Batch) -> None:
        """Hand a batch over that is being gathered, unless it has been."""
        if batch is self._gathered and batch.rows:
            self._gathered = _Batch()
            batch.handed_over = asyncio.get_running_loop().time()
            self._batches[batch.batch_id] = batch
            self._queue.put_nowait(batch)

    async def _hand_over_all(self) -> None:
        while True:
            batch = await self._queue.get()
            if batch.rows:
                await self._hand_over(batch)

    async def _hand_over(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        batch.heard, batch.requeue_at = math.inf, loop.time() + self._requeue_after
        rows = tuple(row for row, _ in batch.rows.values())
        message = Batch(self._results, batch.batch_id, rows, self._task_id is not None)
        try:
            await self._task.kicker().kiq(message.dump())
        except Exception as error:  # noqa: BLE001 whatever the broker raises
            batch.failures += 1
            if batch.failures < _HAND_OVERS:
                loop.call_later(_BACKOFF * 2 ** (batch.failures - 1), self._queue.put_nowait, batch)
            else:
                self._give_up(batch, f"the queue may have it or not ({type(error).__name__})")
        else:
            batch.failures = 0

    # -- outcomes ------------------------------------------------------------------------------------------------------

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        position, unforgotten = "0", 0
        while True:
            try:
                position, reports = await self._store.read(self._results, position, timeout=_READ)
            except CooldownUnavailableError:
                reports = []
                await asyncio.sleep(_READ)
            now = loop.time()
            for report in reports:
                self._on_report(Report.load(report), now)
            unforgotten += len(reports)
            if unforgotten >= _REPORTS:
                unforgotten = 0
                await self._store.forget(self._results, position)
            self._look_after_batches(now)

    def _on_report(self, report: Report, now: float) -> None:
        batch = self._batches.get(report.batch_id)
        found = 0
        if batch is not None:
            batch.heard, batch.requeue_at = now, now + self._requeue_after
            for index, plain in report.outcomes:
                entry = batch.rows.pop(index, None)
                if entry is not None:
                    found += 1
                    self._finish_row(*entry, plain)
            if not batch.rows:
                del self._batches[report.batch_id]
        self._note_worker(report, found, now)
        self._sizes.count(found, len(self._workers), now)

    def _note_worker(self, report: Report, found: int, now: float) -> None:
        known = self._workers.get(report.worker)
        done = found if known is None else known[1].done + found
        progress = WorkerProgress(report.worker, done, report.in_flight, report.waiting)
        self._workers[report.worker] = now, progress
        if self._on_progress is not None:
            self._on_progress(progress)

    def _look_after_batches(self, now: float) -> None:
        """Do what time calls for."""
        for batch in tuple(self._batches.values()):
            if now - batch.handed_over > self._timeout:
                self._give_up(batch, "no worker has responded in time")
            elif now - batch.heard > SILENCE or now >= batch.requeue_at:
                batch.heard = batch.requeue_at = math.inf  # until it has been handed over
                self._queue.put_nowait(batch)
        for name, (heard, progress) in tuple(self._workers.items()):
            if now - heard > SILENCE:
                del self._workers[name]
                if self._on_progress is not None:
                    self._on_progress(attrs.evolve(progress, in_flight=0, waiting=0, is_alive=False))

    def _give_up(self, batch: _Batch, why: str) -> None:
        for row, request in batch.rows.values():
            self._finish_row(row, request, dump_outcome(SendOutcome(request, error=unknown(why))))
        batch.rows.clear()
        self._batches.pop(batch.batch_id, None)

    def _finish_row(self, row: Row, request: SendRequest, plain: Any) -> None:
        for each in (request, *self._same.pop(row.send_id, ())):
            self._finish(load_outcome(each, plain))

    def _finish(self, outcome: SendOutcome) -> None:
        self._finished.append(outcome)
        self._news.set()
