"""The other side: requests are handed to the fleet, and their outcomes come back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from kodmobi_async._rules.requests import normalize_channel, normalize_session_id
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async._values.models import SendOutcome, SendRequest
from kodmobi_async._values.settings import check_count, check_seconds
from kodmobi_async.integrations._plain import load_outcome, unknown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from taskiq import AsyncTaskiqTask

    from kodmobi_async.integrations.taskiq._worker import ResendTask


async def send_through(
    resend: ResendTask,
    requests: AsyncIterable[SendRequest | tuple[Any, Any]] | Iterable[SendRequest | tuple[Any, Any]],
    *,
    outstanding: int = 256,
    timeout: float = math.inf,  # noqa: ASYNC109 of each request, and its end is an outcome
    requeue_after: float = 120.0,
    poll_interval: float = 0.2,
    task_id: Callable[[SendRequest], str] | None = None,
) -> AsyncGenerator[SendOutcome]:
    """Hand requests to the fleet, and yield the outcome of each, as it becomes known.

    An item's error is its outcome; it never ends the loop. What is in the queue when the loop is left, stays there.

    Args:
        resend: What `add_resend` returned; the broker has been started.
        requests: Taken one by one, as there is room.
        outstanding: Requests at most that are in the queue, or with a worker.
        timeout: Seconds to wait for an outcome; then it is unknown.
        requeue_after: Seconds after which a request without an outcome is put into the queue again, under the same id,
            which does no harm: it may have been lost, and Redis Streams give a dead worker's messages to another only
            when there is a new one.
        poll_interval: Seconds between looks at the results.
        task_id: The id of a request's task, the same whenever it is asked for; a request whose outcome is known from
            an earlier run is not sent again then. By default every request is new.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    check_count("outstanding", outstanding)
    check_seconds("poll_interval", poll_interval)
    if timeout != math.inf:
        check_seconds("timeout", timeout)
    feed = _Feed(resend, check_seconds("requeue_after", requeue_after), timeout)
    async with contextlib.aclosing(_each(requests)) as source:
        exhausted = False
        while not exhausted or feed.items:
            while not exhausted and len(feed.items) < outstanding:
                request = await anext(source, None)
                if request is None:
                    exhausted = True
                elif (failure := await feed.add(request, task_id)) is not None:
                    yield failure
            done = await feed.collect()
            for outcome in done:
                yield outcome
            if not done and feed.items:
                await asyncio.sleep(poll_interval)


class _Item:
    """A request on its way through the fleet."""

    __slots__ = ("handed_over", "request", "requeue_at", "task")

    def __init__(self, request: SendRequest, task: AsyncTaskiqTask[Any], now: float, requeue_after: float) -> None:
        self.request = request
        self.task = task
        self.handed_over = now
        self.requeue_at = now + requeue_after


class _Feed:
    """The requests that are outstanding."""

    def __init__(self, resend: ResendTask, requeue_after: float, timeout: float) -> None:
        self._resend = resend
        self._requeue_after = requeue_after
        self._timeout = timeout
        self.items: dict[str, _Item] = {}

    async def add(self, request: SendRequest, task_id: Callable[[SendRequest], str] | None) -> SendOutcome | None:
        """Put a request into the queue; return its outcome if it cannot be."""
        try:
            canonical = SendRequest(normalize_session_id(request.session_id), normalize_channel(request.channel))
            task = await self._kick(canonical, None if task_id is None else task_id(request))
        except KodmobiError as error:
            return SendOutcome(request, error=error)
        now = asyncio.get_running_loop().time()
        self.items[task.task_id] = _Item(request, task, now, self._requeue_after)
        return None

    async def _kick(self, request: SendRequest, task_id: str | None) -> AsyncTaskiqTask[Any]:
        kicker = self._resend.kicker()
        try:
            return await kicker.with_task_id(task_id).kiq(str(request.session_id), str(request.channel))
        except Exception as error:  # noqa: BLE001 whatever the broker raises
            raise unknown(f"the queue may have it or not ({type(error).__name__})") from None

    async def collect(self) -> list[SendOutcome]:
        """Return the outcomes that have become known since."""
        now = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(self._look(item, now) for item in self.items.values()))
        return [outcome for outcome in found if outcome is not None]

    async def _look(self, item: _Item, now: float) -> SendOutcome | None:
        try:
            outcome = await self._read(item)
        except Exception:  # noqa: BLE001 whatever the result backend raises: look again later
            outcome = None
        if outcome is None and now - item.handed_over > self._timeout:
            outcome = SendOutcome(item.request, error=unknown("no worker has responded in time"))
        if outcome is not None:
            del self.items[item.task.task_id]
        elif now >= item.requeue_at:
            item.requeue_at = now + self._requeue_after
            with contextlib.suppress(KodmobiError):
                await self._kick(item.request, item.task.task_id)
        return outcome

    async def _read(self, item: _Item) -> SendOutcome | None:
        if not await item.task.is_ready():
            return None
        result = await item.task.get_result()
        if result.is_err:
            return SendOutcome(item.request, error=unknown("the task failed in its worker"))
        return load_outcome(item.request, result.return_value)


async def _each(
    requests: AsyncIterable[SendRequest | tuple[Any, Any]] | Iterable[SendRequest | tuple[Any, Any]],
) -> AsyncGenerator[SendRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request if isinstance(request, SendRequest) else SendRequest(*request)
    else:
        for request in requests:
            yield request if isinstance(request, SendRequest) else SendRequest(*request)
