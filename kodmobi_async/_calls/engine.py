"""What all calls of a client share on their way to the service: the gate, the retry budget, and the attempts.

An attempt goes: through the gate → over the transport → to a verdict. Where its response was lost, the call itself says
how to find out what became of it. Another attempt follows where the verdict allows it.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from kodmobi_async._calls.gates import OwnGate, SharedGate
from kodmobi_async._rules.call import Call, Read, Repeat, SendingCall
from kodmobi_async._rules.exchange import Progress
from kodmobi_async._rules.pacing import RetryBudget
from kodmobi_async._rules.requests import is_channel
from kodmobi_async._rules.retry import retry
from kodmobi_async._rules.verdicts import Verdict, judge
from kodmobi_async._values.errors import Outcome
from kodmobi_async._values.hooks import AttemptFinished, GateClosed, Hook, LimitsDegraded, Phase, RetryScheduled, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from kodmobi_async._io.transport import Transport
    from kodmobi_async._rules.clock import LoopClock
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async._rules.exchange import Failure, Request, Response
    from kodmobi_async._values.models import SessionChannel
    from kodmobi_async._values.redaction import Redaction
    from kodmobi_async._values.settings import Limits, RetryPolicy

T = TypeVar("T")


class Engine:
    """Makes the attempts of calls.

    Args:
        transport: Makes one exchange.
        clock: The client's.
        cooldowns: Is told of windows that the service names.
        policy: When an attempt is made again.
        limits: Requests a second, and with whom they are shared.
        hooks: Are told of each attempt.
        redact: Takes the client's secrets out of what the service says.
    """

    def __init__(
        self,
        transport: Transport,
        clock: LoopClock,
        cooldowns: CooldownTracker,
        *,
        policy: RetryPolicy,
        limits: Limits,
        hooks: Sequence[Hook],
        redact: Redaction,
    ) -> None:
        self.cooldowns = cooldowns
        self.hooks = hooks
        self.redact = redact
        self._transport = transport
        self._policy = policy
        self._gate = (
            OwnGate(limits.rate, clock)
            if limits.shared is None
            else SharedGate(limits.rate, limits.shared, self._emit_degraded if hooks else None)
        )
        self._budget = RetryBudget()

    async def run(self, call: Call[T]) -> Verdict[T]:
        """Make attempts until one settles the call; return the last verdict."""
        call.begin()
        verdict = await self._attempt(call)
        if verdict.again:
            verdict = await retry(
                functools.partial(self._attempt, call),
                verdict,
                policy=self._policy,
                bounds=call,
                budget=self._budget,
                on_retry=functools.partial(self._emit_retry, call) if self.hooks else None,
            )
        if verdict.result is not None:
            self._budget.give_back(retried=call.attempts > 1)
        return verdict

    async def query(self, call: Call[Any], request: Request, reader: Callable[[Response], T]) -> T | None:
        """Make one request that reads, for a call that wants to know what became of it; ``None`` if that fails."""
        if await self._gate.admit(call) is not None:
            return None
        if request.headers is None:
            request.headers = call.headers
        query = Read(call.kind, request, reader, call.timeout)
        query.progress = Progress()
        came = await self._exchange(call, request, query.progress, asyncio.get_running_loop().time())
        verdict = judge(query, came, self.redact, repeat_unknown=False)
        if verdict.gated:
            await self.close_gate(call, verdict.retry_after)
        return verdict.result

    async def remember(self, session_id: str, channels: Iterable[SessionChannel]) -> None:
        """Pass on to the tracker what the service says of a session's windows."""
        for channel in channels:
            if channel.timeout > 0 and is_channel(channel.type):
                await self.cooldowns.observe(session_id, channel.type, channel.timeout)

    async def close_gate(self, call: Call[Any], seconds: float) -> None:
        """Hold the whole client back, and all that share its limits, as the service asks."""
        if self.hooks:
            emit(
                self.hooks, GateClosed(call.number, call.session_id, call.channel, seconds, kind=call.kind, to=call.to)
            )
        await self._gate.close_for(seconds)

    async def _attempt(self, call: Call[T]) -> Verdict[T]:
        """Make one attempt; find out what became of it where that is unknown."""
        if not self._gate.is_open:
            held_back = await self._gate.admit(call)
            if held_back is not None:
                return Verdict(error=held_back)
        loop = asyncio.get_running_loop()
        began = call.attempt_began = loop.time()
        call.progress = progress = Progress()
        call.attempts += 1
        try:
            came = await self._exchange(call, call.request, progress, began)
        except BaseException:
            if self.hooks:
                self._emit_attempt(call, loop.time() - began)
            raise
        verdict = judge(call, came, self.redact, repeat_unknown=self._policy.repeat_unknown)
        if verdict.error is not None:
            return await self._follow(call, verdict, began)
        if self.hooks:
            self._emit_attempt(call, loop.time() - began)
        return verdict

    async def _follow(self, call: Call[T], verdict: Verdict[T], began: float) -> Verdict[T]:
        """Do what an attempt without a result calls for."""
        if verdict.foreign:
            call.progress.disown()  # with nothing awaited since: nobody else has the connection yet
        if self.hooks:
            self._emit_attempt(call, asyncio.get_running_loop().time() - began)
        if verdict.gated:
            await self.close_gate(call, verdict.retry_after)
        if call.repeat is Repeat.AT_WILL or verdict.error is None or verdict.error.outcome is not Outcome.UNKNOWN:
            return verdict
        call.first_unknown = min(call.first_unknown, began)
        return await call.resolve(self, verdict) if verdict.again and isinstance(call, SendingCall) else verdict

    def _exchange(
        self, call: Call[Any], request: Request, progress: Progress, now: float
    ) -> Coroutine[Any, Any, Response | Failure]:
        deadline = min(now + call.timeout.attempt, call.deadline)
        return self._transport.exchange(request, progress, deadline=deadline, connect=call.timeout.connect)

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _emit_attempt(self, call: Call[Any], duration: float) -> None:
        progress = call.progress
        if progress.status is not None:
            phase = Phase.ANSWERED
        else:
            phase = Phase.WRITTEN if progress.written else Phase.NOT_WRITTEN
        record = AttemptFinished(
            call.number,
            call.session_id,
            call.channel,
            call.attempts,
            call.outcome_of_attempt(),
            phase,
            progress.status,
            duration,
            call.kind,
            call.to,
        )
        emit(self.hooks, record)

    def _emit_retry(self, call: Call[T], verdict: Verdict[T], pause: float) -> None:
        record = RetryScheduled(
            call.number,
            call.session_id,
            call.channel,
            call.attempts,
            pause,
            str(verdict.error),
            kind=call.kind,
            to=call.to,
        )
        emit(self.hooks, record)

    def _emit_degraded(self, call: Call[Any], reason: str) -> None:
        record = LimitsDegraded(call.number, call.session_id, call.channel, reason, kind=call.kind, to=call.to)
        emit(self.hooks, record)
