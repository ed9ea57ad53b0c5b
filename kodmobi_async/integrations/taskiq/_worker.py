"""The workers' side: the task that sends one code, and tries again where its outcome allows that."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskiq import Context, TaskiqDepends, TaskiqEvents
from taskiq.depends.progress_tracker import TaskProgress  # pyright: ignore[reportMissingTypeStubs] a part without types
from taskiq.exceptions import NoResultError
from taskiq.kicker import AsyncKicker
from taskiq.result_backends.dummy import DummyResultBackend
from ulid import ULID

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._rules.requests import normalize_session_id
from kodmobi_async._values.errors import (
    LATER,
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    KodmobiError,
    LimitsUnavailableError,
    Outcome,
    RateLimitedError,
    ResponseError,
    TransportError,
)
from kodmobi_async._values.models import SendOutcome, SendRequest, SendResult, SessionChannel
from kodmobi_async._values.settings import check_count, check_seconds
from kodmobi_async.integrations._plain import dump_outcome, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask, ScheduleSource, TaskiqState

ResendTask: TypeAlias = "AsyncTaskiqDecoratedTask[..., Coroutine[Any, Any, dict[str, Any]]]"
"""What `add_resend` returns: ``await resend.kiq(session_id, channel)`` hands one send to the fleet."""

_SENDING: Final = "kodmobi: sending"
_WAITING: Final = "kodmobi: waiting"
_TRIES: Final = "kodmobi_tries"
# Seconds; the pause after the nth try is drawn from 0 to the first, doubled n times.
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 60.0


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
        grace: Seconds that another run of the same task gets to finish before it is taken for dead; more than the
            client's ``Timeout.total``.
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
        if not isinstance(error, RateLimitedError) and error.status not in LATER:
            return None
        if error.retry_after is not None:
            return error.retry_after
    elif not isinstance(error, (TransportError, CooldownUnavailableError, LimitsUnavailableError)):
        return None
    return random.uniform(0, min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**tries))  # noqa: S311 no secret


def _ulid(request: SendRequest) -> ULID:
    return ULID.from_str(normalize_session_id(request.session_id))
