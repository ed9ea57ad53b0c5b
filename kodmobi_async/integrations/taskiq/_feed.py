"""The feeders' side: requests are handed to the fleet, and their outcomes come back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterable, Sized
from typing import TYPE_CHECKING, Any, Final

from kodmobi_async._values.models import SendRequest
from kodmobi_async._values.settings import check_count, check_seconds
from kodmobi_async.integrations.taskiq._batch_feed import BatchFeed
from kodmobi_async.integrations.taskiq._polling_feed import PollingFeed
from kodmobi_async.integrations.taskiq._store import BatchStore, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from kodmobi_async._values.models import SendOutcome
    from kodmobi_async.integrations.taskiq._message import WorkerProgress
    from kodmobi_async.integrations.taskiq._tasks import ResendTask


_IN_BATCHES: Final = 4096
_ALONE: Final = 256


async def send_through(
    resend: ResendTask,
    requests: AsyncIterable[SendRequest | tuple[Any, Any]] | Iterable[SendRequest | tuple[Any, Any]],
    *,
    outstanding: int | None = None,
    timeout: float = math.inf,  # noqa: ASYNC109 of each request, and its end is an outcome
    requeue_after: float = 120.0,
    poll_interval: float = 0.2,
    task_id: Callable[[SendRequest], str] | None = None,
    on_progress: Callable[[WorkerProgress], None] | None = None,
) -> AsyncGenerator[SendOutcome]:
    """Hand requests to the fleet, and yield the outcome of each, as it becomes known.

    They go in batches, as many in each as a worker sends in about a second, and their outcomes come back as a stream.
    That takes a result backend of taskiq-redis, or Taskiq's own in memory; with any other, each request is a task of
    its own, and the results are asked for at intervals.

    An item's error is its outcome; it never ends the loop. What is in the queue when the loop is left, stays there.

    Args:
        resend: What `add_resend` returned; the broker has been started.
        requests: Taken one by one, as there is room.
        outstanding: Requests at most that are in the queue, or with a worker; by default 4096, or 256 where there are
            no batches, as the results of all of them are asked for.
        timeout: Seconds to wait for an outcome; then it is unknown.
        requeue_after: Seconds after which requests of which nothing was heard are put into the queue again, under the
            same id, which does no harm: they may have been lost, and Redis Streams give a dead worker's messages to
            another only when there is a new one. A batch goes to another worker earlier, if its own has fallen silent.
        poll_interval: Seconds between looks at the results, where there are no batches.
        task_id: The id of a request, the same whenever it is asked for; a request whose outcome is known from an
            earlier run is not sent again then. By default every request is new.
        on_progress: Called with what a worker tells about itself; only where there are batches.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    if outstanding is not None:
        check_count("outstanding", outstanding)
    check_seconds("poll_interval", poll_interval)
    check_seconds("requeue_after", requeue_after)
    if timeout != math.inf:
        check_seconds("timeout", timeout)
    store = open_store(resend.broker, resend.task_name)
    feed: BatchFeed | PollingFeed
    if isinstance(store, BatchStore):
        left = len(requests) if isinstance(requests, Sized) else None
        feed = BatchFeed(
            resend,
            store,
            timeout=timeout,
            requeue_after=requeue_after,
            outstanding=_IN_BATCHES if outstanding is None else outstanding,
            task_id=task_id,
            on_progress=on_progress,
            left=left,
        )
    else:
        feed = PollingFeed(
            resend,
            timeout=timeout,
            requeue_after=requeue_after,
            outstanding=_ALONE if outstanding is None else outstanding,
            task_id=task_id,
            poll_interval=poll_interval,
        )
    try:
        async with contextlib.aclosing(feed.outcomes(_each(requests))) as outcomes:
            async for outcome in outcomes:
                yield outcome
    finally:
        await store.aclose()


async def _each(
    requests: AsyncIterable[SendRequest | tuple[Any, Any]] | Iterable[SendRequest | tuple[Any, Any]],
) -> AsyncGenerator[SendRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request if isinstance(request, SendRequest) else SendRequest(*request)
    else:
        for request in requests:
            yield request if isinstance(request, SendRequest) else SendRequest(*request)
