"""The workers' side of a single task: one code is sent, and again where its outcome allows that."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from taskiq.exceptions import NoResultError
from taskiq.kicker import AsyncKicker

from kodmobi_async._values.errors import CooldownUnavailableError, KodmobiError
from kodmobi_async._values.models import SendOutcome, SendRequest
from kodmobi_async.integrations._plain import dump_outcome, load_outcome
from kodmobi_async.integrations.taskiq._store import Finished
from kodmobi_async.integrations.taskiq._worker import StoppingError, pause_after, stopped

if TYPE_CHECKING:
    from taskiq import Context, ScheduleSource

    from kodmobi_async.integrations.taskiq._worker import Worker

_TRIES: Final = "kodmobi_tries"


class SingleRun:
    """A run of the task that sends one code.

    Args:
        worker: Runs it.
        request: What to send.
        context: Taskiq's.
        schedule_source: Where it is put when it has to wait.
    """

    def __init__(
        self, worker: Worker, request: SendRequest, context: Context, schedule_source: ScheduleSource | None
    ) -> None:
        self._worker = worker
        self._request = request
        self._context = context
        self._schedule_source = schedule_source
        self._send_id = context.message.task_id
        self._token = secrets.token_hex(8)
        self._tries = int(context.message.labels.get(_TRIES, 0))

    async def work(self) -> SendOutcome:
        """Send until the outcome is final.

        Raises:
            NoResultError: Another run brings the result, or has brought it.
        """
        with self._worker.running() as task:
            try:
                with self._worker.bounded(task):
                    return await self._send()
            except StoppingError:
                pass
            except asyncio.CancelledError:
                task.uncancel()
                if not await self._worker.may_be_sent(self._request):
                    await self._worker.store.release(self._send_id, self._token)
            if not self._worker.has_queue(self._context.broker):
                return SendOutcome(self._request, error=stopped())
            await self._again().kiq(*self._context.message.args, **self._context.message.kwargs)
            raise NoResultError

    async def _send(self) -> SendOutcome:
        worker = self._worker
        while True:
            try:
                known = await self._begin()
                if known is not None:
                    return known
                outcome = SendOutcome(
                    self._request, await worker.client.send(self._request.session_id, self._request.channel)
                )
            except KodmobiError as error:
                outcome = SendOutcome(self._request, error=error)
            self._tries += 1
            pause = pause_after(outcome.error, self._tries)
            if pause is None or self._tries >= worker.tries:
                await self._finish(outcome)
                return outcome
            await worker.store.release(self._send_id, self._token)
            if self._schedule_source is not None:
                moment = datetime.now(UTC) + timedelta(seconds=pause)
                message = self._context.message
                await self._again().schedule_by_time(self._schedule_source, moment, *message.args, **message.kwargs)
                raise NoResultError  # the run that comes later brings it
            await worker.pause(pause)

    async def _begin(self) -> SendOutcome | None:
        """Begin the send; return its outcome if another run has begun it.

        Raises:
            CooldownUnavailableError: It is unknown whether one has.
            NoResultError: The result is there.
        """
        worker, loop = self._worker, asyncio.get_running_loop()
        dead_at = math.inf
        while not await self._context.broker.result_backend.is_result_ready(self._send_id):
            held = await worker.store.begin(self._send_id, self._token)
            if held is None:
                return None
            if isinstance(held, Finished):
                return load_outcome(self._request, held.outcome)
            now = loop.time()
            dead_at = min(dead_at, now + worker.grace - held.age)
            if now >= dead_at:
                outcome = await worker.find_out(self._request)
                await self._finish(outcome)
                return outcome
            await worker.pause(min(1.0, worker.grace / 4, dead_at - now))
        raise NoResultError

    async def _finish(self, outcome: SendOutcome) -> None:
        with contextlib.suppress(CooldownUnavailableError):  # the result tells it, too
            await self._worker.store.finish(self._send_id, dump_outcome(outcome))

    def _again(self) -> AsyncKicker[Any, Any]:
        """Return what puts the task into the queue again."""
        message = self._context.message
        kicker: AsyncKicker[Any, Any] = AsyncKicker(message.task_name, self._context.broker, dict(message.labels))
        return kicker.with_task_id(message.task_id).with_labels(**{_TRIES: self._tries})
