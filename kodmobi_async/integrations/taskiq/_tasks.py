"""The two tasks, and how they come to a broker: one sends one code, the other a batch.

Taskiq tells nobody that it stops before all tasks are done, and waits for them without a bound. It stops to listen to
the broker, though, and that is the sign.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

from taskiq import Context, TaskiqDepends, TaskiqEvents
from taskiq.result_backends.dummy import DummyResultBackend

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async._values.models import SendRequest
from kodmobi_async._values.settings import check_concurrency, check_count, check_seconds
from kodmobi_async.integrations._plain import dump_outcome
from kodmobi_async.integrations.taskiq._batch_run import BatchRun
from kodmobi_async.integrations.taskiq._single_run import SingleRun
from kodmobi_async.integrations.taskiq._store import KEEP, open_store
from kodmobi_async.integrations.taskiq._worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from taskiq import AckableMessage, AsyncBroker, AsyncTaskiqDecoratedTask, ScheduleSource, TaskiqState

ResendTask: TypeAlias = "AsyncTaskiqDecoratedTask[..., Coroutine[Any, Any, dict[str, Any]]]"
"""What `add_resend` returns: ``await resend.kiq(session_id, channel)`` hands one send to the fleet."""


def batch_task_name(task_name: str) -> str:
    """Return by which name workers and feeders know the task that sends a batch."""
    return f"{task_name}:batch"


def add_resend(
    broker: AsyncBroker,
    open_client: Callable[[], contextlib.AbstractAsyncContextManager[KodmobiClient]] = KodmobiClient,
    *,
    task_name: str = "kodmobi_async:resend",
    tries: int = 10,
    concurrency: int = 64,
    grace: float = 45.0,
    stop_timeout: float = 10.0,
    keep: float = KEEP,
    schedule_source: ScheduleSource | None = None,
) -> ResendTask:
    """Register the tasks that send one code, and a batch; open and close their client with each worker.

    The result of the single task is a dictionary of plain values, whose ``outcome`` is one of `Outcome`. A send is
    tried again only where its outcome allows that: after ``.retry_after`` where it came too early, and with backoff
    where nothing was sent.

    Args:
        broker: Any Taskiq broker with a result backend.
        open_client: `KodmobiClient` itself, or whatever returns an ``async with`` that brings a client, with a shared
            tracker, say. It is called in the workers only.
        task_name: By which workers and callers know the task.
        tries: Attempts at a send at most, the first included.
        concurrency: Sends of batches that a worker has in flight at most.
        grace: Seconds that another run of the same send gets to finish before it is taken for dead; more than the
            client's ``Timeout.total``, and less than the service's window, in which the service can be asked.
        stop_timeout: Seconds that sends in flight get to finish when the worker is asked to stop. What is left of them,
            and all that waits, goes back to the queue.
        keep: Seconds for which Redis remembers a send. If a send is handed over again later, with the same id, it is
            sent again.
        schedule_source: Where a single task that has to wait is put, for a ``taskiq scheduler`` to bring back. Without
            one it waits in its worker, and takes one of its ``--max-async-tasks``.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    worker = Worker(
        tries=check_count("tries", tries),
        concurrency=check_concurrency(concurrency),
        grace=check_seconds("grace", grace),
        stop_timeout=check_seconds("stop_timeout", stop_timeout, zero=True),
    )
    keep = check_seconds("keep", keep)
    closing = contextlib.AsyncExitStack()

    async def start(_: TaskiqState) -> None:
        if isinstance(broker.result_backend, DummyResultBackend):
            raise ConfigurationError("the broker needs a result backend: broker.with_result_backend(…)")
        store = open_store(broker, task_name, keep)
        closing.push_async_callback(store.aclose)
        worker.begin(await closing.enter_async_context(open_client()), store)

    async def stop(_: TaskiqState) -> None:
        worker.stop()
        await worker.wait()
        await closing.aclose()

    async def resend(session_id: str, channel: str, context: Context = TaskiqDepends()) -> dict[str, Any]:  # noqa: B008 Taskiq's way to ask for it
        return dump_outcome(await SingleRun(worker, SendRequest(session_id, channel), context, schedule_source).work())

    async def resend_batch(batch: str, context: Context = TaskiqDepends()) -> None:  # noqa: B008 as above
        await BatchRun(worker, batch).work(context)

    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, start)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, stop)
    _on_listening_end(broker, worker.stop)
    broker.register_task(resend_batch, task_name=batch_task_name(task_name))
    return broker.register_task(resend, task_name=task_name)


def _on_listening_end(broker: AsyncBroker, callback: Callable[[], None]) -> None:
    """Call back when the broker is listened to no longer."""
    listen = broker.listen

    async def listen_and_tell() -> AsyncGenerator[bytes | AckableMessage]:
        try:
            async with contextlib.aclosing(listen()) as messages:
                async for message in messages:
                    yield message
        finally:
            callback()

    broker.listen = listen_and_tell  # type: ignore[method-assign] # there is no event for it
