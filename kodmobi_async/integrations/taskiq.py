"""Sends as tasks, for a fleet of workers on any Taskiq broker (extra ``taskiq``).

resend = add_resend(broker, open_client)          # in the module that `taskiq worker` is given
async for outcome in send_through(resend, requests):  # wherever the requests are

A task may be delivered more than once: its worker died, or the queue was asked again. So a run notes in the result
backend that it begins to send, before it does. Who finds such a note, and no result, never sends: it asks the service
whether the code arrived, and if that is not known, says so. A code is sent twice by no task.

The broker needs a result backend that keeps progress, as taskiq-redis's does. A broker that acknowledges messages, such
as Redis Streams, loses no task with its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskiq import Context, TaskiqDepends, TaskiqEvents
from taskiq.depends.progress_tracker import TaskProgress  # pyright: ignore[reportMissingTypeStubs] a part without types
from taskiq.exceptions import NoResultError
from taskiq.kicker import AsyncKicker
from taskiq.result_backends.dummy import DummyResultBackend
from ulid import ULID

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._rules.requests import normalize_channel, normalize_session_id
from kodmobi_async._values.errors import (
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    KodmobiError,
    Outcome,
    RateLimitedError,
    ResponseError,
    TransportError,
)
from kodmobi_async._values.models import SendOutcome, SendRequest, SendResult, SessionChannel
from kodmobi_async._values.settings import check_count, check_seconds
from kodmobi_async.integrations._plain import dump_outcome, load_outcome, unknown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask, AsyncTaskiqTask, ScheduleSource, TaskiqState

__all__ = ("ResendTask", "add_resend", "send_through")

ResendTask: TypeAlias = "AsyncTaskiqDecoratedTask[..., Coroutine[Any, Any, dict[str, Any]]]"
"""What `add_resend` returns: ``await resend.kiq(session_id, channel)`` hands one send to the fleet."""

_SENDING: Final = "kodmobi: sending"
_WAITING: Final = "kodmobi: waiting"
_TRIES: Final = "kodmobi_tries"
# Seconds; the pause after the nth try is drawn from 0 to the first, doubled n times.
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 60.0
# The service's words for "later", apart from the limit of an account.
_LATER: Final = frozenset({408, 421, 425, 503})


def add_resend(
    broker: AsyncBroker,
    open_client: Callable[[], contextlib.AbstractAsyncContextManager[KodmobiClient]] = KodmobiClient,
    *,
    task_name: str = "kodmobi_async:resend",
    tries: int = 10,
    grace: float = 45.0,
    schedule_source: ScheduleSource | None = None,
) -> ResendTask:
    """Register the task that sends one code, and open and close its client with each worker.

    Its result is a dictionary of plain values, whose ``outcome`` is one of `Outcome`. It is tried again only where its
    outcome allows that: after ``.retry_after`` where it came too early, and with backoff where nothing was sent.

    Args:
        broker: Any Taskiq broker with a result backend.
        open_client: `KodmobiClient` itself, or whatever returns an ``async with`` that brings a client, with a shared
            tracker, say. It is called in the workers only.
        task_name: By which workers and callers know the task.
        tries: Sends at most, the first included.
        grace: Seconds that another run of the same task gets to come to its end before it is taken for dead; more than
            the client's ``Timeout.total``.
        schedule_source: Where a task that has to wait is put, for a ``taskiq scheduler`` to bring back. Without one it
            waits in its worker, and takes one of its ``--max-async-tasks``.

    Raises:
        ConfigurationError: ``tries`` or ``grace`` is out of its range.
    """
    worker = _Worker(check_count("tries", tries), check_seconds("grace", grace), schedule_source)
    closing = contextlib.AsyncExitStack()

    async def start(_: TaskiqState) -> None:
        if isinstance(broker.result_backend, DummyResultBackend):
            raise ConfigurationError("the broker needs a result backend: broker.with_result_backend(…)")
        worker.client = await closing.enter_async_context(open_client())

    async def stop(_: TaskiqState) -> None:
        await closing.aclose()

    async def resend(session_id: str, channel: str, context: Context = TaskiqDepends()) -> dict[str, Any]:  # noqa: B008 Taskiq's way to ask for it
        return dump_outcome(await worker.run(SendRequest(session_id, channel), context))

    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, start)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, stop)
    return broker.register_task(resend, task_name=task_name)


class _Worker:
    """Runs tasks with the client of this process."""

    def __init__(self, tries: int, grace: float, schedule_source: ScheduleSource | None) -> None:
        self._tries = tries
        self._grace = grace
        self._schedule_source = schedule_source
        self.client: KodmobiClient | None = None

    async def run(self, request: SendRequest, context: Context) -> SendOutcome:
        """Send until the outcome is final.

        Raises:
            NoResultError: Another run brings the result, or has brought it.
        """
        task_id, notes = context.message.task_id, context.broker.result_backend
        tries = int(context.message.labels.get(_TRIES, 0))
        while True:
            if await notes.is_result_ready(task_id):
                raise NoResultError
            note = await notes.get_progress(task_id)
            if note is not None and note.state == _SENDING:
                return await self._conclude(request, context)
            await notes.set_progress(task_id, TaskProgress(state=_SENDING, meta=None))
            outcome = await self._send(request)
            tries += 1
            pause = pause_after(outcome.error, tries)
            if pause is None or tries >= self._tries:
                return outcome
            await notes.set_progress(task_id, TaskProgress(state=_WAITING, meta=None))
            if self._schedule_source is not None:
                await self._put_off(context, tries, pause)
            try:
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                # Taskiq would store a bare cancellation; what is known is more than that
                return SendOutcome(request, error=ClientClosedError("the worker was stopped before the code was sent"))

    async def _send(self, request: SendRequest) -> SendOutcome:
        assert self.client is not None  # noqa: S101 opened when the worker started
        try:
            return SendOutcome(request, await self.client.send(request.session_id, request.channel))
        except KodmobiError as error:
            return SendOutcome(request, error=error)

    async def _conclude(self, request: SendRequest, context: Context) -> SendOutcome:
        """Find out what became of a send that another run has begun."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._grace
        while loop.time() < ends:
            if await context.broker.result_backend.is_result_ready(context.message.task_id):
                raise NoResultError
            await asyncio.sleep(min(1.0, self._grace / 4))
        assert self.client is not None  # noqa: S101 opened when the worker started
        found: tuple[SessionChannel, ...] = ()
        with contextlib.suppress(KodmobiError):
            found = await self.client.channels(request.session_id)
        for channel in found:
            if channel.type.lower() == request.channel.lower() and channel.timeout > 0:
                session_id = _ulid(request)
                return SendOutcome(request, SendResult(session_id, None, channel, confirmed=True))
        return SendOutcome(request, error=unknown("its worker ended in the middle"))

    async def _put_off(self, context: Context, tries: int, pause: float) -> None:
        """Have the scheduler bring the task back.

        Raises:
            NoResultError: Always: the run that comes later brings the result.
        """
        message = context.message
        kicker: AsyncKicker[Any, Any] = AsyncKicker(message.task_name, context.broker, dict(message.labels))
        again = kicker.with_task_id(message.task_id).with_labels(**{_TRIES: tries})
        assert self._schedule_source is not None  # noqa: S101 asked by the caller
        moment = datetime.now(UTC) + timedelta(seconds=pause)
        await again.schedule_by_time(self._schedule_source, moment, *message.args, **message.kwargs)
        raise NoResultError


def pause_after(error: KodmobiError | None, tries: int) -> float | None:
    """Return the seconds after which to try again, or ``None`` where the outcome is final."""
    if error is None or error.outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED):
        return None
    if isinstance(error, CooldownError):
        return error.retry_after
    if isinstance(error, (RateLimitedError, ResponseError)):
        if not isinstance(error, RateLimitedError) and error.status not in _LATER:
            return None
        if error.retry_after is not None:
            return error.retry_after
    elif not isinstance(error, (TransportError, CooldownUnavailableError)):
        return None
    return random.uniform(0, min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**tries))  # noqa: S311 no secret


# -- the other end -----------------------------------------------------------------------------------------------------


async def send_through(
    resend: ResendTask,
    requests: AsyncIterable[SendRequest | tuple[Any, Any]] | Iterable[SendRequest | tuple[Any, Any]],
    *,
    outstanding: int = 256,
    patience: float = math.inf,
    remind: float = 120.0,
    poll: float = 0.2,
    task_id: Callable[[SendRequest], str] | None = None,
) -> AsyncGenerator[SendOutcome]:
    """Hand requests to the fleet, and yield what became of each, as it becomes known.

    An item's error is its outcome; it never ends the loop. What is in the queue when the loop is left, stays there.

    Args:
        resend: What `add_resend` returned; the broker has been started.
        requests: Taken one by one, as there is room.
        outstanding: Requests at most that are in the queue, or with a worker.
        patience: Seconds to wait for an outcome, after which nobody knows it.
        remind: Seconds after which a request without an outcome is put into the queue again, under the same id, which
            does no harm: it may have been lost, and Redis Streams give a dead worker's messages to another only when
            there is a new one.
        poll: Seconds between looks at the results.
        task_id: The id of a request's task, the same whenever it is asked for; a request whose outcome is known from
            an earlier run is not sent again then. By default every request is new.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    check_count("outstanding", outstanding)
    check_seconds("poll", poll)
    if patience != math.inf:
        check_seconds("patience", patience)
    feed = _Feed(resend, check_seconds("remind", remind), patience)
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
                await asyncio.sleep(poll)


class _Item:
    """A request on its way through the fleet."""

    __slots__ = ("handed_over", "remind_at", "request", "task")

    def __init__(self, request: SendRequest, task: AsyncTaskiqTask[Any], now: float, remind: float) -> None:
        self.request = request
        self.task = task
        self.handed_over = now
        self.remind_at = now + remind


class _Feed:
    """The requests that are outstanding."""

    def __init__(self, resend: ResendTask, remind: float, patience: float) -> None:
        self._resend = resend
        self._remind = remind
        self._patience = patience
        self.items: dict[str, _Item] = {}

    async def add(self, request: SendRequest, task_id: Callable[[SendRequest], str] | None) -> SendOutcome | None:
        """Put a request into the queue; return its outcome if it cannot be."""
        try:
            canonical = SendRequest(normalize_session_id(request.session_id), normalize_channel(request.channel))
            task = await self._kick(canonical, None if task_id is None else task_id(request))
        except KodmobiError as error:
            return SendOutcome(request, error=error)
        now = asyncio.get_running_loop().time()
        self.items[task.task_id] = _Item(request, task, now, self._remind)
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
        if outcome is None and now - item.handed_over > self._patience:
            outcome = SendOutcome(item.request, error=unknown("no worker has told in time"))
        if outcome is not None:
            del self.items[item.task.task_id]
        elif now >= item.remind_at:
            item.remind_at = now + self._remind
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


def _ulid(request: SendRequest) -> ULID:
    return ULID.from_str(normalize_session_id(request.session_id))
