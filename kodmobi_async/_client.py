"""`KodmobiClient`: wires the other modules together.

A send goes: validate → reserve the slot → attempts, each to one verdict → settle the slot from the outcome → return or
raise. Whatever way it ends, cancellation included, the slot is settled from what is known at that moment, with nothing
awaited before the decision: released if provably nothing was done, blocked for the service's own number if the service
took it, blocked for a full window if nobody knows.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs
from ulid import ULID

from kodmobi_async._cooldown import Deadlines, LoopClock, MemoryCooldownTracker
from kodmobi_async._errors import (
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    KodmobiError,
    Outcome,
    OutcomeUnknownError,
    RateLimitedError,
)
from kodmobi_async._models import SendResult
from kodmobi_async._pacing import Gate, RetryBudget
from kodmobi_async._retry import Verdict, judge_channels, judge_send, retry
from kodmobi_async._settings import (
    Limits,
    RetryPolicy,
    Timeout,
    check_base_url,
    check_language,
    check_max_wait,
    resolve_api_key,
)
from kodmobi_async._transport import Transport
from kodmobi_async._wire import (
    MAX_WAIT_SECONDS,
    WINDOW,
    Answer,
    Fault,
    Progress,
    canonical_channel,
    canonical_session_id,
    channels_request,
    outcome_of,
    send_request,
    session_left,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    import aiohttp

    from kodmobi_async._cooldown import CooldownTracker, Reservation
    from kodmobi_async._models import Channel, SessionChannel
    from kodmobi_async._wire import Request

DEFAULT_BASE_URL: Final = "https://api.kod.mobi/session"
CLOSE_GRACE: Final = 5.0
"""Seconds that ``aclose`` gives to sends in flight before it interrupts them."""

T = TypeVar("T")


class _Call:
    """One call on its way: what bounds it, and how ``aclose`` can end it."""

    __slots__ = ("deadline", "scope", "timeout", "under_way")

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout
        self.scope = asyncio.timeout(None)
        self.under_way = False
        """Past the wait for a cooldown: the service is being asked."""
        self.deadline = math.inf

    @property
    def last_start(self) -> float:
        """The latest moment for an attempt to begin."""
        return self.deadline

    def outcome_now(self) -> Outcome:
        """Return what is known of the code at this moment."""
        return Outcome.NOT_SENT

    def interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the call where it stands."""
        if self.scope.when() is None:
            self.scope.reschedule(loop.time())


class _Send(_Call):
    """One ``send`` on its way."""

    __slots__ = ("attempts", "channel", "first_unknown", "progress", "session_id")

    def __init__(self, session_id: str, channel: Channel | str, timeout: Timeout) -> None:
        super().__init__(timeout)
        self.session_id = session_id
        self.channel = channel
        self.attempts = 0
        self.progress = Progress()
        self.first_unknown = math.inf
        """When the first attempt began of which nobody knows what became; ``inf`` while there is none."""

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

    def outcome_now(self) -> Outcome:
        """Return what is known of the code at this moment, the latest attempt included."""
        progress = self.progress
        if progress.status is not None:
            outcome = outcome_of(progress.status)
        else:
            outcome = Outcome.UNKNOWN if progress.written else Outcome.NOT_SENT
        return Outcome.UNKNOWN if self.is_unknown and outcome is not Outcome.ACCEPTED else outcome


class KodmobiClient:
    """Re-send one-time codes over kod.mobi.

    Build it anywhere; no event loop has to run. Use it with ``async with``, or call `aclose` in the end. One client
    serves any number of concurrent calls of one event loop.

    Args:
        api_key: From the admin panel; by default the environment variable ``KODMOBI_API_KEY``.
        base_url: Address and path prefix of the API.
        timeout: How long a send may take.
        limits: Connections, and sends a second.
        retry: When a failed attempt is made again.
        cooldowns: Who may send when; by default a `MemoryCooldownTracker` of its own.
        max_wait: Seconds that a send waits for a cooldown, unless the call says otherwise: 0 = refuse at once,
            ``math.inf`` = as long as it takes.
        language: Of the service's messages, ``"en"`` or ``"ru"``.
        session: An `aiohttp.ClientSession` to borrow instead of a pool of its own. It is never closed here.
        allow_http: Allow ``http://`` to other machines than this one, which sends the key in clear text.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str = DEFAULT_BASE_URL,
        timeout: Timeout = Timeout(),  # noqa: B008 frozen
        limits: Limits = Limits(),  # noqa: B008 frozen
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 frozen
        cooldowns: CooldownTracker | None = None,
        max_wait: float = 0.0,
        language: str | None = None,
        session: aiohttp.ClientSession | None = None,
        allow_http: bool = False,
    ) -> None:
        self._base_url = check_base_url(base_url, allow_http=allow_http)
        self._timeout = _checked(Timeout, timeout)
        self._retry = _checked(RetryPolicy, retry)
        self._max_wait = check_max_wait(max_wait)
        self._cooldowns = MemoryCooldownTracker() if cooldowns is None else cooldowns
        self._transport = Transport(
            base_url=self._base_url,
            api_key=resolve_api_key(api_key),
            limits=_checked(Limits, limits),
            language=check_language(language),
            session=session,
        )
        self._gate = Gate(limits.rate)
        self._budget = RetryBudget()
        self._session_ends = Deadlines()
        self._clock = LoopClock()
        self._calls: set[_Call] = set()
        self._idle: asyncio.Event | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<KodmobiClient {self._base_url}{' closed' if self._closed else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def send(
        self,
        session_id: ULID | str,
        channel: Channel | str,
        *,
        max_wait: float | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 it bounds the sending alone, not the wait before it
    ) -> SendResult:
        """Re-send the code of a session over a channel.

        Source: ``POST /session/send`` of the API documentation.

        Args:
            session_id: The session's ULID.
            channel: The channel; names other than the documented ones pass as they are.
            max_wait: Seconds to wait for the channel's cooldown; by default the client's.
            timeout: For this call instead of the client's; a number is its ``total``, in seconds.

        Raises:
            InvalidRequestError: This is no session, or no channel.
            CooldownError: The channel was sent to less than a window ago; ``retry_after`` says when again.
            OutcomeUnknownError: The code may be on its way; ``safe_after`` says when a new send is safe.
            UnreadableResponseError: The code is on its way, but the answer cannot be read.
            TransportError: Nothing was sent: the service could not be reached.
            ResponseError: The service refused; one class a reason.
            ClientClosedError: The client is closed, or was closed before the call ended.
            WrongLoopError: The client works for another event loop.
            ConfigurationError: ``max_wait`` or ``timeout`` is no number of seconds.
        """
        session, name = canonical_session_id(session_id), canonical_channel(channel)
        patience = self._max_wait if max_wait is None else check_max_wait(max_wait)
        bounds = self._bounds(timeout)
        await self._enter()
        call = _Send(session, name, bounds)
        return await self._run(call, self._send(call, patience))

    async def channels(self, session_id: ULID | str | None = None) -> tuple[SessionChannel, ...]:
        """Return the project's channels; with a session, each with its current ``timeout`` for it.

        Source: ``GET /session/channels`` of the API documentation. The call sends no code, so the ``outcome`` of every
        error is ``NOT_SENT``.

        Args:
            session_id: The session's ULID.

        Raises:
            InvalidRequestError: This is no session.
            TransportError: The service could not be reached, or did not answer.
            UnreadableResponseError: The answer cannot be read.
            ResponseError: The service refused; one class a reason.
            ClientClosedError: The client is closed, or was closed before the call ended.
            WrongLoopError: The client works for another event loop.
        """
        request = channels_request(None if session_id is None else canonical_session_id(session_id))
        await self._enter()
        call = _Call(self._timeout)
        return await self._run(call, self._ask_channels(call, request))

    async def remaining(self, session_id: ULID | str, channel: Channel | str) -> float:
        """Return the seconds until the next send of this pair may go; 0.0 = now.

        A send under way counts as a full window.

        Raises:
            InvalidRequestError: This is no session, or no channel.
            WrongLoopError: The client works for another event loop.
        """
        return await self._cooldowns.remaining(canonical_session_id(session_id), canonical_channel(channel))

    async def aclose(self, *, grace: float = CLOSE_GRACE) -> None:
        """Close the client: no new calls, and an end to those under way.

        Calls that wait for a cooldown end at once. Those that have begun to send are given time to end by themselves;
        then they are interrupted, and each raises `ClientClosedError` with what is known of its code. A second call of
        ``aclose`` does no harm.

        Args:
            grace: Seconds for the calls under way.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        if self._clock.loop is not loop:
            await self._move()
        try:
            await self._drain(loop, grace)
        finally:
            for call in self._calls:
                call.interrupt(loop)
            await self._transport.aclose()

    # -- one call --------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """See that the client can be used, here and now; before any I/O."""
        if self._closed:
            raise ClientClosedError("the client is closed")
        if asyncio.get_running_loop() is not self._clock.loop:
            await self._move()

    async def _move(self) -> None:
        moved, forked = self._clock.loop is not None, self._clock.is_forked
        self._clock.now()
        if moved:
            self._calls.clear()  # they ended with their loop
            await self._transport.leave(forked=forked)

    def _bounds(self, timeout: Timeout | float | None) -> Timeout:
        if timeout is None:
            return self._timeout
        return timeout if isinstance(timeout, Timeout) else attrs.evolve(self._timeout, total=timeout)

    async def _run(self, call: _Call, work: Coroutine[Any, Any, T]) -> T:
        """Do the work of a call where ``aclose`` can wait for it, and end it."""
        try:
            async with call.scope:
                self._calls.add(call)
                try:
                    return await work
                finally:
                    self._calls.discard(call)
                    if self._idle is not None and not self._calls:
                        self._idle.set()
        except TimeoutError:
            if not call.scope.expired():
                raise
        raise ClientClosedError("the client was closed before the call had ended", outcome=call.outcome_now())

    async def _drain(self, loop: asyncio.AbstractEventLoop, grace: float) -> None:
        """Wait until no call is under way, at most ``grace`` seconds; interrupt what is left, and wait for that."""
        for call in self._calls:
            if not call.under_way:
                call.interrupt(loop)
        if self._calls:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
            except TimeoutError:
                for call in self._calls:
                    call.interrupt(loop)
                await self._idle.wait()

    # -- a send ----------------------------------------------------------------------------------------------------

    async def _send(self, call: _Send, patience: float) -> SendResult:
        reservation = await self._cooldowns.acquire(
            call.session_id,
            call.channel,
            lease=WINDOW + call.timeout.total,
            max_wait=self._worth_waiting(call.session_id, patience),
        )
        try:
            verdict = await self._sent(call)
        except BaseException:
            # cancelled, or closed, or worse: what is known now decides
            blocked = call.outcome_now() in (Outcome.UNKNOWN, Outcome.ACCEPTED)
            await self._settle(reservation, WINDOW if blocked else None)
            raise
        if verdict.result is not None:
            self._budget.give_back(retried=call.attempts > 1)
            await self._settle(reservation, verdict.result.channel.timeout)
            return verdict.result
        error, cause, block = _conclusion(call, verdict.error)
        await self._settle(reservation, block)
        raise error from cause

    def _worth_waiting(self, session_id: str, patience: float) -> float:
        """Return ``patience``, or less: no wait for a cooldown is worth it that ends after the session does."""
        if patience > 0:
            ends = self._session_ends.end(session_id)
            if ends is not None:
                return min(patience, max(0.0, ends - self._clock.now()))
        return patience

    async def _settle(self, reservation: Reservation, block: float | None) -> None:
        if block is None:
            await self._cooldowns.release(reservation)
        else:
            await self._cooldowns.start(reservation, block)

    async def _sent(self, call: _Send) -> Verdict[SendResult]:
        """Make attempts until one settles it; return the last verdict."""
        self._begin(call)
        request = send_request(call.session_id, call.channel)

        async def attempt() -> Verdict[SendResult]:
            return await self._attempt(call, request)

        first = await attempt()
        if not first.again:
            return first
        return await retry(attempt, first, policy=self._retry, bounds=call, budget=self._budget)

    def _begin(self, call: _Call) -> None:
        call.under_way = True
        call.deadline = asyncio.get_running_loop().time() + call.timeout.total

    async def _attempt(self, call: _Send, request: Request) -> Verdict[SendResult]:
        """Make one attempt; ask what became of it where that is not known."""
        held_back = await self._pass_gate(call)
        if held_back is not None:
            return Verdict(error=held_back)
        began = asyncio.get_running_loop().time()
        call.progress = progress = Progress()
        came = await self._exchange(call, request, progress)
        call.attempts += 1
        verdict = judge_send(came, progress, call.session_id, call.channel, self._retry)
        if verdict.gated:
            self._gate.close(self._clock.now(), verdict.retry_after)
        if verdict.result is not None:
            self._note_session_end(call, came, verdict.result)
            return attrs.evolve(verdict, result=attrs.evolve(verdict.result, attempts=call.attempts))
        if verdict.error is not None and verdict.error.outcome is Outcome.UNKNOWN:
            call.first_unknown = min(call.first_unknown, began)
            if verdict.again:
                confirmed = await self._ask_whether_sent(call)
                if confirmed is not None:
                    return Verdict(confirmed)
        return verdict

    async def _exchange(self, call: _Call, request: Request, progress: Progress) -> Answer | Fault:
        within = min(call.timeout.attempt, call.deadline - asyncio.get_running_loop().time())
        if within <= 0:
            return Fault("no time is left", permanent=True)
        return await self._transport.exchange(request, progress, within=within, connect=call.timeout.connect)

    async def _pass_gate(self, call: _Call) -> RateLimitedError | None:
        """Wait until a request may go; return the error if that is too late for this call."""
        while (wait := self._gate.opens_at(now := self._clock.now()) - now) > 0:
            if asyncio.get_running_loop().time() + wait > call.last_start:
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

    async def _ask_whether_sent(self, call: _Send) -> SendResult | None:
        """Return a result if the service says that the session's channel is blocked: then the send has arrived."""
        if await self._pass_gate(call) is not None:
            return None
        verdict = judge_channels(await self._exchange(call, channels_request(call.session_id), Progress()))
        for channel in verdict.result or ():
            if channel.type.lower() == call.channel.lower() and channel.timeout > 0:
                return SendResult(ULID.from_str(call.session_id), None, channel, call.attempts, confirmed=True)
        return None

    def _note_session_end(self, call: _Send, came: Answer | Fault, result: SendResult) -> None:
        left = session_left(came, result) if isinstance(came, Answer) else None
        if left is not None and 0 < left <= MAX_WAIT_SECONDS:
            now = self._clock.now()
            self._session_ends.set(call.session_id, now + left, now)

    # -- asking for the channels -----------------------------------------------------------------------------------

    async def _ask_channels(self, call: _Call, request: Request) -> tuple[SessionChannel, ...]:
        self._begin(call)

        async def attempt() -> Verdict[tuple[SessionChannel, ...]]:
            held_back = await self._pass_gate(call)
            if held_back is not None:
                return Verdict(error=held_back)
            verdict = judge_channels(await self._exchange(call, request, Progress()))
            if verdict.gated:
                self._gate.close(self._clock.now(), verdict.retry_after)
            return verdict

        verdict = await attempt()
        if verdict.again:
            verdict = await retry(attempt, verdict, policy=self._retry, bounds=call, budget=self._budget)
        if verdict.result is not None:
            return verdict.result
        assert verdict.error is not None  # noqa: S101 a verdict has one of the two
        verdict.error.outcome = Outcome.NOT_SENT
        raise verdict.error


def _conclusion(call: _Send, error: KodmobiError | None) -> tuple[KodmobiError, KodmobiError | None, float | None]:
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
        return error, None, WINDOW
    unknown = OutcomeUnknownError(f"nobody knows whether the code was sent; at last: {error}", safe_after=WINDOW)
    return unknown, error, WINDOW


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ConfigurationError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
