"""The feeders' side where results cannot carry batches: a task for each request, asked for at intervals."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from kodmobi_async._rules.requests import normalize_channel, normalize_session_id
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async._values.models import SendOutcome, SendRequest
from kodmobi_async.integrations._plain import load_outcome, unknown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from taskiq import AsyncTaskiqTask

    from kodmobi_async.integrations.taskiq._tasks import ResendTask


class _Item:
    """A request on its way through the fleet."""

    __slots__ = ("handed_over", "request", "requeue_at", "task")

    def __init__(self, request: SendRequest, task: AsyncTaskiqTask[Any], now: float, requeue_after: float) -> None:
        self.request = request
        self.task = task
        self.handed_over = now
        self.requeue_at = now + requeue_after


class PollingFeed:
    """The requests that are outstanding.

    Args:
        resend: The task.
        timeout: Seconds to wait for an outcome.
        requeue_after: Seconds after which a request is put into the queue again.
        outstanding: Requests at most that are out.
        task_id: The id of a request's task.
        poll_interval: Seconds between looks at the results.
    """

    def __init__(
        self,
        resend: ResendTask,
        *,
        timeout: float,
        requeue_after: float,
        outstanding: int,
        task_id: Callable[[SendRequest], str] | None,
        poll_interval: float,
    ) -> None:
        self._resend = resend
        self._timeout = timeout
        self._requeue_after = requeue_after
        self._outstanding = outstanding
        self._task_id = task_id
        self._poll_interval = poll_interval
        self._items: dict[str, _Item] = {}

    async def outcomes(self, requests: AsyncGenerator[SendRequest]) -> AsyncGenerator[SendOutcome]:
        """Hand the requests over, and yield their outcomes."""
        async with contextlib.aclosing(requests) as source:
            exhausted = False
            while not exhausted or self._items:
                while not exhausted and len(self._items) < self._outstanding:
                    request = await anext(source, None)
                    if request is None:
                        exhausted = True
                    elif (failure := await self._add(request)) is not None:
                        yield failure
                done = await self._collect()
                for outcome in done:
                    yield outcome
                if not done and self._items:
                    await asyncio.sleep(self._poll_interval)

    async def _add(self, request: SendRequest) -> SendOutcome | None:
        """Put a request into the queue; return its outcome if it cannot be."""
        try:
            canonical = SendRequest(normalize_session_id(request.session_id), normalize_channel(request.channel))
            task = await self._kick(canonical, None if self._task_id is None else self._task_id(request))
        except KodmobiError as error:
            return SendOutcome(request, error=error)
        now = asyncio.get_running_loop().time()
        self._items[task.task_id] = _Item(request, task, now, self._requeue_after)
        return None

    async def _kick(self, request: SendRequest, task_id: str | None) -> AsyncTaskiqTask[Any]:
        kicker = self._resend.kicker()
        try:
            return await kicker.with_task_id(task_id).kiq(str(request.session_id), str(request.channel))
        except Exception as error:  # noqa: BLE001 whatever the broker raises
            raise unknown(f"the queue may have it or not ({type(error).__name__})") from None

    async def _collect(self) -> list[SendOutcome]:
        """Return the outcomes that have become known since."""
        now = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(self._look(item, now) for item in self._items.values()))
        return [outcome for outcome in found if outcome is not None]

    async def _look(self, item: _Item, now: float) -> SendOutcome | None:
        try:
            outcome = await self._read(item)
        except Exception:  # noqa: BLE001 whatever the result backend raises: look again later
            outcome = None
        if outcome is None and now - item.handed_over > self._timeout:
            outcome = SendOutcome(item.request, error=unknown("no worker has responded in time"))
        if outcome is not None:
            del self._items[item.task.task_id]
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
