"""What all tasks of a worker share: its client, the store, and how it stops.

A worker that is asked to stop begins nothing more. What waits goes back to the queue at once, and what is in flight has
a timeout, after which it is cancelled and goes back, too. A send that may have been made stays begun: the run that
comes next asks the service about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from typing import TYPE_CHECKING, Any, Final, cast

from taskiq import InMemoryBroker
from ulid import ULID

from kodmobi_async._rules.requests import normalize_session_id
from kodmobi_async._values.errors import (
    LATER,
    ClientClosedError,
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
from kodmobi_async.integrations._plain import unknown

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskiq import AsyncBroker

    from kodmobi_async._calls.client import KodmobiClient
    from kodmobi_async._calls.run import Run
    from kodmobi_async.integrations.taskiq._store import SendStore

# Seconds; the pause after the nth try is drawn from 0 to the first, doubled n times.
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 60.0


class StoppingError(Exception):
    """The worker has been asked to stop."""


class Worker:
    """What all tasks of this process share.

    Args:
        tries: Attempts at a send.
        concurrency: Sends of batches in flight.
        grace: Seconds until another run is taken for dead.
        stop_timeout: Seconds for what is in flight when the worker is asked to stop.
    """

    def __init__(self, *, tries: int, concurrency: int, grace: float, stop_timeout: float) -> None:
        self.tries = tries
        self.concurrency = concurrency
        self.grace = grace
        self.stop_timeout = stop_timeout
        self.name = ""
        self.stopping = asyncio.Event()
        self.slots = asyncio.Semaphore(concurrency)
        self.in_flight = 0
        self.unsent = 0
        """Rows of batches that have begun, which were not tried yet."""
        self._room = asyncio.Event()
        self.runs: set[Run] = set()
        """The batches that are worked on."""
        self.client: KodmobiClient
        self.store: SendStore
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bounded: set[asyncio.Task[Any]] = set()

    def begin(self, client: KodmobiClient, store: SendStore) -> None:
        """Work with this client."""
        self.client, self.store = client, store
        self.name = f"{os.getpid()}-{secrets.token_hex(3)}"
        self.stopping = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Sends that wait for their moments."""
        return sum(run.postponed for run in self.runs)

    @contextlib.contextmanager
    def running(self) -> Generator[asyncio.Task[Any]]:
        """Let `wait` wait for the current task."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        try:
            yield task
        finally:
            self._tasks.discard(task)

    @contextlib.contextmanager
    def bounded(self, task: asyncio.Task[Any]) -> Generator[None]:
        """See that a task is cancelled if this takes too long once the worker has been asked to stop."""
        self._bounded.add(task)
        try:
            yield
        finally:
            self._bounded.discard(task)

    def stop(self) -> None:
        """Begin nothing more, and bring to an end what runs."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._room.set()
            asyncio.get_running_loop().call_later(self.stop_timeout, self._cancel)

    def _cancel(self) -> None:
        for task in self._bounded:
            task.cancel()

    async def wait(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def wait_for_room(self) -> None:
        """Wait until the batches that have begun cannot use all slots, or the worker is asked to stop."""
        while self.unsent >= self.concurrency and not self.stopping.is_set():
            self._room.clear()
            await self._room.wait()

    def note_tried(self) -> None:
        """Count a row of a batch that has begun as tried."""
        self.unsent -= 1
        if self.unsent < self.concurrency:
            self._room.set()

    async def pause(self, seconds: float) -> None:
        """Wait, unless the worker is asked to stop.

        Raises:
            StoppingError: It is.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
                raise StoppingError

    async def find_out(self, request: SendRequest) -> SendOutcome:
        """Ask the service what became of a send that another run had begun."""
        found: tuple[SessionChannel, ...] = ()
        with contextlib.suppress(KodmobiError):
            found = await self.client.channels(request.session_id)
        for channel in found:
            if channel.type.lower() == request.channel.lower() and channel.timeout > 0:
                session_id = ULID.from_str(normalize_session_id(request.session_id))
                return SendOutcome(request, SendResult(session_id, None, channel, confirmed=True))
        return SendOutcome(request, error=unknown("its worker ended in the middle"))

    def has_queue(self, broker: AsyncBroker) -> bool:
        """Return whether what goes back to the queue outlives this worker."""
        return not (self.stopping.is_set() and isinstance(broker, InMemoryBroker))

    async def may_be_sent(self, request: SendRequest) -> bool:
        """Return whether a send that was cancelled may have been made."""
        return await self.client.remaining(request.session_id, request.channel) > 0


def stopped() -> ClientClosedError:
    """Return the error of a send that can go back to no queue."""
    return ClientClosedError("the worker was stopped before the code was sent")


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
