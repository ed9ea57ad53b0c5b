"""How a worker tells the outcomes of a batch: as they become known, some together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from orjson import Fragment

from kodmobi_async._values.errors import CooldownUnavailableError
from kodmobi_async.integrations._plain import serialize_outcome
from kodmobi_async.integrations.taskiq._message import dump_report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kodmobi_async._values.models import SendOutcome
    from kodmobi_async.integrations.taskiq._message import Batch, Row
    from kodmobi_async.integrations.taskiq._store import BatchStore
    from kodmobi_async.integrations.taskiq._worker import Worker

HEARTBEAT: Final = 2.0
"""Seconds between reports, where there are no outcomes."""
_LINGER: Final = 0.05
"""Seconds for which outcomes are gathered."""
_PUBLISH_TIMEOUT: Final = 60.0
"""Seconds in which outcomes have to be published; then they are left to another run, which asks about them."""
_PUBLISH_PAUSE: Final = 0.5
"""Seconds between attempts at it."""


class Reports:
    """Publishes outcomes, some together, and that the worker is at work.

    Args:
        worker: Who reports.
        store: Publishes.
        batch: Whose outcomes these are.
    """

    def __init__(self, worker: Worker, store: BatchStore, batch: Batch) -> None:
        self._worker = worker
        self._store = store
        self._batch = batch
        self._waiting: list[tuple[Row, bytes]] = []
        self._news = asyncio.Event()
        self._is_closing = False

    def add(self, row: Row, outcome: SendOutcome) -> None:
        """Publish an outcome soon."""
        self._waiting.append((row, serialize_outcome(outcome)))
        self._news.set()

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncGenerator[None]:
        """Publish meanwhile, and in the end all that there is."""
        publisher = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._is_closing = True
            self._news.set()
            await publisher

    async def _work(self) -> None:
        while True:
            await self._publish()
            if self._is_closing and not self._waiting:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._news.wait()
            if not self._is_closing:
                await asyncio.sleep(_LINGER)
            self._news.clear()

    async def _publish(self) -> None:
        gathered, self._waiting = self._waiting, []
        worker, batch = self._worker, self._batch
        outcomes = ((row.index, Fragment(outcome)) for row, outcome in gathered)
        report = dump_report(batch.batch_id, worker.name, worker.in_flight, worker.waiting, outcomes)
        finished = [(row.send_id, outcome if batch.keeps_outcomes else b"") for row, outcome in gathered]
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                return await self._store.publish(batch.results, report, finished)
            except CooldownUnavailableError:
                longest = worker.stop_timeout if worker.stopping.is_set() else _PUBLISH_TIMEOUT
                if not gathered or loop.time() - began >= longest:
                    return None
                await asyncio.sleep(_PUBLISH_PAUSE)
