"""The attempts of one call: through the gate, over the transport, to a verdict, and again if that makes sense.

What is known of a send at any moment stands in its `Send`, so that whoever interrupts it can settle its slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import attrs

from kodmobi_async._errors import CooldownError, KodmobiError, Outcome, OutcomeUnknownError, RateLimitedError
from kodmobi_async._hooks import AttemptFinished, GateClosed, Hook, Phase, RetryScheduled, tell
from kodmobi_async._models import SendResult
from kodmobi_async._pacing import Gate, RetryBudget
from kodmobi_async._retry import Verdict, judge_channels, judge_send, retry, stop
from kodmobi_async._wire import (
    WINDOW,
    Answer,
    Fault,
    Progress,
    channels_request,
    is_channel,
    outcome_of,
    send_request,
    session_left,
    to_ulid,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from kodmobi_async._cooldown import CooldownTracker, LoopClock
    from kodmobi_async._models import Channel, SessionChannel
    from kodmobi_async._settings import Limits, RetryPolicy, Timeout
    from kodmobi_async._transport import Transport
    from kodmobi_async._wire import Redaction, Request

_GRAIN: Final = 1.0
"""Seconds by which the service may round what it says of a window."""

_NOTHING_YET: Final = Progress()
_numbers: Final = itertools.count(1)


class Call:
    """One call on its way: what bounds it, and how ``aclose`` can end it."""

    task: asyncio.Task[object] | None = None
    """The task that makes the call, while it does."""
    interrupted = False
    """``aclose`` has ended the call."""
    under_way = False
    """Past the wait for a cooldown: the service is being asked."""
    deadline = math.inf

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout

    def begin(self) -> None:
        """Start the clock of ``timeout.total``."""
        self.under_way = True
        self.deadline = asyncio.get_running_loop().time() + self.timeout.total

    @property
    def last_start(self) -> float:
        """The latest moment for an attempt to begin."""
        return self.deadline

    def outcome_now(self) -> Outcome:
        """Return what is known of the code at this moment."""
        return Outcome.NOT_SENT

    def interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the call where it stands, at the loop's next turn."""
        loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None and not self.interrupted:
            self.interrupted = True
            self.task.cancel()


class Send(Call):
    """One ``send`` on its way."""

    attempts = 0
    progress = _NOTHING_YET
    session_left: float | None = None
    """Seconds that the session had left when the service accepted."""
    first_unknown = math.inf
    """When the first attempt began of which nobody knows what became; ``inf`` while there is none."""

    def __init__(self, session_id: str, channel: Channel | str, timeout: Timeout) -> None:
        super().__init__(timeout)
        self.number = next(_numbers)
        self.session_id = session_id
        self.channel = channel

    @property
    def is_unknown(self) -> bool:
        return self.first_unknown != math.inf

    @property
    def last_start(self) -> float:
        """The latest moment for an attempt to begin.

        A repeat of an unknown attempt is harmless only while the window that the first one may have opened is
        certainly open; so it has to be over by then, too.
        """
        return min(self.deadline, self.first_unknown + WINDOW - self.timeout.attempt)

    def outcome_of_attempt(self) -> Outcome:
        """Return what is known at this moment of the code by the latest attempt alone."""
        progress = self.progress
        if progress.status is not None and not progress.foreign:
            return outcome_of(progress.status)
        return Outcome.UNKNOWN if progress.written else Outcome.NOT_SENT

    def outcome_now(self) -> Outcome:
        """Return what is known of the code at this moment, the latest attempt included."""
        outcome = self.outcome_of_attempt()
        return Outcome.UNKNOWN if self.is_unknown and outcome is not Outcome.ACCEPTED else outcome


class Sender:
    """What all calls of a client share on their way to the service."""

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
        self._transport = transport
        self._clock = clock
        self._cooldowns = cooldowns
        self._redact = redact
        self._policy = policy
        self._hooks = hooks
        self._gate = Gate(limits.rate)
        self._budget = RetryBudget()

    async def send(self, call: Send) -> Verdict[SendResult]:
        """Make attempts until one settles it; return the last verdict."""
        call.begin()
        request = send_request(call.session_id, call.channel)
        verdict = await self._attempt(call, request)
        if verdict.again:
            verdict = await retry(
                functools.partial(self._attempt, call, request),
                verdict,
                policy=self._policy,
                bounds=call,
                budget=self._budget,
                on_retry=functools.partial(self._tell_retry, call) if self._hooks else None,
            )
        if verdict.result is not None:
            self._budget.give_back(retried=call.attempts > 1)
        return verdict

    async def ask_channels(self, call: Call, session_id: str | None) -> Verdict[tuple[SessionChannel, ...]]:
        """Ask until there is an answer that counts; return the last verdict."""
        request = channels_request(session_id)
        call.begin()
        loop = asyncio.get_running_loop()

        async def attempt() -> Verdict[tuple[SessionChannel, ...]]:
            held_back = await self._pass_gate(call)
            if held_back is not None:
                return Verdict(error=held_back)
            verdict = judge_channels(await self._exchange(call, request, Progress(), loop.time()), self._redact)
            if verdict.gated:
                self._close_gate(verdict.retry_after, None)
            return verdict

        verdict = await attempt()
        if verdict.again:
            verdict = await retry(attempt, verdict, policy=self._policy, bounds=call, budget=self._budget)
        if session_id is not None and verdict.result is not None:
            await self.remember(session_id, verdict.result)
        return verdict

    async def remember(self, session_id: str, channels: Iterable[SessionChannel]) -> None:
        """Pass on to the tracker what the service says of the session's windows."""
        for channel in channels:
            if channel.timeout > 0 and is_channel(channel.type):
                await self._cooldowns.observe(session_id, channel.type, channel.timeout)

    async def _attempt(self, call: Send, request: Request) -> Verdict[SendResult]:
        """Make one attempt; ask what became of it where that is not known."""
        if not self._gate.is_open:
            held_back = await self._pass_gate(call)
            if held_back is not None:
                return Verdict(error=held_back)
        loop = asyncio.get_running_loop()
        began = loop.time()
        call.progress = progress = Progress()
        call.attempts += 1
        try:
            came = await self._exchange(call, request, progress, began)
        except BaseException:
            if self._hooks:
                self._tell_attempt(call, loop.time() - began)
            raise
        verdict = self._judge(call, came, loop.time() - began)
        if verdict.result is not None and isinstance(came, Answer):
            call.session_left = session_left(came, verdict.result)
            if call.attempts > 1:
                return Verdict(attrs.evolve(verdict.result, attempts=call.attempts))
        elif verdict.error is not None and verdict.error.outcome is Outcome.UNKNOWN:
            call.first_unknown = min(call.first_unknown, began)
            if verdict.again:
                return await self._ask_whether_sent(call, verdict)
        return verdict

    def _judge(self, call: Send, came: Answer | Fault, duration: float) -> Verdict[SendResult]:
        """Return what an attempt came to, with all that follows from it at once."""
        progress = call.progress
        verdict = judge_send(came, progress, call.session_id, call.channel, policy=self._policy, redact=self._redact)
        if verdict.foreign:
            progress.disown()  # with nothing awaited since: nobody else has the connection yet
        if self._hooks:
            self._tell_attempt(call, duration)
        if verdict.gated:
            self._close_gate(verdict.retry_after, call.number)
        return verdict

    def _close_gate(self, seconds: float, call: int | None) -> None:
        self._gate.close(self._clock.now(), seconds)
        if self._hooks:
            tell(self._hooks, GateClosed(call, seconds))

    def _exchange(
        self, call: Call, request: Request, progress: Progress, now: float
    ) -> Coroutine[Any, Any, Answer | Fault]:
        deadline = min(now + call.timeout.attempt, call.deadline)
        return self._transport.exchange(request, progress, deadline=deadline, connect=call.timeout.connect)

    async def _pass_gate(self, call: Call) -> RateLimitedError | None:
        """Wait until a request may go; return the error if that is too late for this call."""
        while (wait := self._gate.opens_at(now := self._clock.now()) - now) > 0:
            if asyncio.get_running_loop().time() + wait >= call.last_start:
                return RateLimitedError(
                    f"no request may go for another {wait:.1f} s: that is the service's or the client's own rate limit",
                    status=None,
                    retry_after=wait,
                    outcome=Outcome.NOT_SENT,
                )
            self._gate.pass_at(now + wait, now)
            closures = self._gate.closures
            await asyncio.sleep(wait)
            if self._gate.closures == closures:
                return None
        self._gate.pass_at(now, now)
        return None

    async def _ask_whether_sent(self, call: Send, verdict: Verdict[SendResult]) -> Verdict[SendResult]:
        """Ask what became of an unknown attempt, and return the verdict in that light.

        If the service says that the channel is blocked, the send has arrived. If instead *another* channel has become
        blocked since, and not by this client as far as the tracker knows, the service may have sent over that one: a
        repeat might put out a second code, so there is none.
        """
        if await self._pass_gate(call) is not None:
            return verdict
        request, now = channels_request(call.session_id), asyncio.get_running_loop().time()
        asked = judge_channels(await self._exchange(call, request, Progress(), now), self._redact)
        if asked.gated:
            self._close_gate(asked.retry_after, call.number)
        since = WINDOW - (asyncio.get_running_loop().time() - call.first_unknown) - _GRAIN
        for channel in asked.result or ():
            if channel.timeout <= 0:
                continue
            if channel.type.lower() == call.channel.lower():
                verdict = Verdict(SendResult(to_ulid(call.session_id), None, channel, call.attempts, confirmed=True))
                break
            if channel.timeout >= since and is_channel(channel.type):
                known = 0.0
                with contextlib.suppress(KodmobiError):
                    known = await self._cooldowns.remaining(call.session_id, channel.type)
                if known < channel.timeout - _GRAIN:
                    stop(verdict, "another channel was sent to meanwhile, perhaps by this request")
        await self.remember(call.session_id, asked.result or ())
        return verdict

    def _tell_attempt(self, call: Send, duration: float) -> None:
        status = call.progress.status
        written = Phase.WRITTEN if call.progress.written else Phase.NOT_WRITTEN
        record = AttemptFinished(
            call.number,
            call.session_id,
            call.channel,
            number=call.attempts,
            outcome=call.outcome_of_attempt(),
            phase=written if status is None else Phase.ANSWERED,
            status=status,
            duration=duration,
        )
        tell(self._hooks, record)

    def _tell_retry(self, call: Send, verdict: Verdict[SendResult], pause: float) -> None:
        reason = str(verdict.error)
        record = RetryScheduled(call.number, call.session_id, call.channel, call.attempts, pause, reason)
        tell(self._hooks, record)


def conclude(call: Send, error: KodmobiError | None) -> tuple[KodmobiError, KodmobiError | None, float | None]:
    """Return the error to raise, its cause, and the seconds to block the slot for (``None``: release it).

    A call's outcome is its worst attempt's: once nobody knows about one, only the service's own word about it, not a
    refusal of a later attempt, makes it known.
    """
    assert error is not None  # noqa: S101 a verdict has a result or an error
    if isinstance(error, CooldownError):
        if call.is_unknown:
            # refused as too early: so the one before had arrived
            error.outcome = Outcome.ACCEPTED
        return error, None, error.retry_after
    if error.outcome is Outcome.ACCEPTED:
        return error, None, WINDOW
    if not call.is_unknown:
        return error, None, None
    if isinstance(error, OutcomeUnknownError):
        error.args = (f"it is unknown whether the code was sent: {error}",)
        return error, None, WINDOW
    unknown = OutcomeUnknownError(
        f"it is unknown whether the code was sent; the last attempt: {error}", safe_after=WINDOW
    )
    return unknown, error, WINDOW
