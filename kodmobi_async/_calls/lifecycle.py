"""The calls of a client that are in flight: where they may run, what is emitted about them, and how closing ends them.

A client works for one event loop at a time. When that loop is closed it goes on with the next; a forked child opens
connections of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from kodmobi_async._values.channel import Channel
from kodmobi_async._values.errors import ClientClosedError, CooldownError, KodmobiError, Outcome
from kodmobi_async._values.header_hooks import collect_headers, with_headers
from kodmobi_async._values.hooks import (
    CallFinished,
    CallStarted,
    CooldownHit,
    SendFinished,
    SendStarted,
    emit,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from kodmobi_async._io.transport import Transport
    from kodmobi_async._rules.call import Call
    from kodmobi_async._rules.clock import LoopClock
    from kodmobi_async._values.hooks import CallKind, Hook
    from kodmobi_async._values.redaction import Redaction

T = TypeVar("T")


class Lifecycle:
    """Runs calls where `aclose` can wait for them, and end them.

    Args:
        transport: Its connections follow the event loop, and are closed in the end.
        clock: Says whose event loop the client works for.
        hooks: Are told of the beginning and the end of each call.
        redact: Takes the client's secrets out of what the service says.
        base_url: Where calls go.
    """

    def __init__(
        self, transport: Transport, clock: LoopClock, *, hooks: Sequence[Hook], redact: Redaction, base_url: str
    ) -> None:
        self.is_closed = False
        self._transport = transport
        self._clock = clock
        self._hooks = hooks
        self._header_hooks = with_headers(hooks)
        self._redact = redact
        self._base_url = base_url
        self._urls: dict[CallKind, str] = {}
        self._calls: set[Call[Any]] = set()
        self._idle: asyncio.Event | None = None

    async def enter(self) -> None:
        """See that the client can be used, here and now; before any I/O.

        Raises:
            ClientClosedError: It is closed.
            WrongLoopError: It works for another event loop, which is still open.
        """
        if self.is_closed:
            raise ClientClosedError("the client is closed")
        if asyncio.get_running_loop() is not self._clock.loop:
            await self._move()

    async def run(self, call: Call[T], work: Coroutine[Any, Any, T]) -> T:
        """Do the work of a call, and emit its first and its last record."""
        began = self._emit_start(call, work) if self._hooks else 0.0
        task = call.task = asyncio.current_task()
        assert task is not None  # noqa: S101 a coroutine of ours runs in a task
        cancelling = task.cancelling()
        self._calls.add(call)
        try:
            result = await work
        except BaseException as error:
            closed = isinstance(error, asyncio.CancelledError) and call.interrupted
            # also cancelled by somebody else: that is theirs to see
            closed = closed and task.cancelling() <= cancelling + 1
            self._leave(call, task)
            if not closed:
                if self._hooks:
                    self._emit_failure(call, task.get_loop().time() - began, error)
                raise
        else:
            self._leave(call, task)
            if self._hooks:
                self._emit_end(call, task.get_loop().time() - began, call.outcome_of_result(result), result)
            return result
        raise self._closed(call, task.get_loop().time() - began)

    async def aclose(self, grace: float) -> None:
        """Let no call begin, and end those in flight: after ``grace`` seconds by interruption."""
        self.is_closed = True
        loop = asyncio.get_running_loop()
        if self._clock.loop is not loop:
            await self._move()
        try:
            await self._drain(loop, grace)
        finally:
            for call in self._calls:
                call.interrupt(loop)
            await self._transport.aclose()

    async def _move(self) -> None:
        moved, forked = self._clock.loop is not None, self._clock.is_forked
        self._clock.now()
        if moved:
            self._calls.clear()  # they ended with their loop
            await self._transport.leave(forked=forked)

    def _leave(self, call: Call[Any], task: asyncio.Task[Any]) -> None:
        if call.interrupted:
            task.uncancel()
        call.task = None
        self._calls.discard(call)
        if self._idle is not None and not self._calls:
            self._idle.set()

    def _closed(self, call: Call[Any], duration: float) -> ClientClosedError:
        """Return the error of a call that closing has ended, and emit it."""
        error = ClientClosedError("the client was closed before the call had ended", outcome=call.outcome_now())
        if self._hooks:
            self._emit_failure(call, duration, error)
        return error

    async def _drain(self, loop: asyncio.AbstractEventLoop, grace: float) -> None:
        """Wait until no call is in flight, at most ``grace`` seconds; interrupt what is left, and wait for that."""
        for call in self._calls:
            if not call.in_flight:
                call.interrupt(loop)
        if self._calls:
            # one for all who close at the same time: the shortest grace ends the wait of the others
            idle = self._idle = self._idle or asyncio.Event()
            try:
                async with asyncio.timeout(grace):
                    await idle.wait()
            except TimeoutError:
                for call in self._calls:
                    call.interrupt(loop)
                await idle.wait()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def emit_cooldown(self, call: Call[Any], error: CooldownError) -> None:
        """Emit that a channel is in its cooldown."""
        if self._hooks:
            by_service = error.outcome is not Outcome.NOT_SENT
            record = CooldownHit(
                call.number,
                call.session_id,
                call.channel,
                error.retry_after,
                by_service,
                kind=call.kind,
                to=call.to,
            )
            emit(self._hooks, record)

    def _emit_start(self, call: Call[Any], work: Coroutine[Any, Any, Any]) -> float:
        """Emit the first record of a call, and let hooks add to its requests; return when that was."""
        began = asyncio.get_running_loop().time()
        url = self._urls.get(call.kind)
        if url is None:
            url = self._urls[call.kind] = self._base_url + call.request.target.partition("?")[0]
        kind = SendStarted if call.kind == "send" else CallStarted
        try:
            record = kind(
                call.number,
                call.session_id,
                call.channel,
                url,
                call.request.method,
                call.kind,
                call.to,
            )
            emit(self._hooks, record)
            if self._header_hooks:
                call.headers = headers = collect_headers(self._header_hooks, record) or None
                if headers is not None:
                    call.request.headers = {**headers, **(call.request.headers or {})}
        except BaseException:  # a hook has asked the process to end
            work.close()
            raise
        return began

    def _emit_failure(self, call: Call[Any], duration: float, error: BaseException) -> None:
        """Emit the last records of a call that raises."""
        if isinstance(error, CooldownError):
            self.emit_cooldown(call, error)
        outcome = error.outcome if isinstance(error, KodmobiError) else call.outcome_now()
        self._emit_end(call, duration, outcome, error=error)

    def _emit_end(
        self,
        call: Call[Any],
        duration: float,
        outcome: Outcome,
        result: Any = None,
        error: BaseException | None = None,
    ) -> None:
        sent_to = call.sent_to(result)
        kind = SendFinished if call.kind == "send" else CallFinished
        record = kind(
            call.number,
            call.session_id,
            call.channel,
            outcome,
            # a name of the documentation's is no text of the service's
            sent_to if sent_to is None or type(sent_to) is Channel else self._redact(sent_to),
            call.attempts,
            getattr(result, "confirmed", False),
            error,
            duration,
            call.kind,
            call.to,
        )
        emit(self._hooks, record)
