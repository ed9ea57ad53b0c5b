"""`KodmobiClient`: wires the other modules together, and settles the slot of every send.

A send goes: validate → reserve the slot → attempts, each to one verdict → settle the slot from the outcome → return or
raise. Whatever way it ends, cancellation included, the slot is settled from what is known at that moment, with nothing
awaited before the decision: released if provably nothing was done, blocked for the service's own number if the service
took it, blocked for a full window if nobody knows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from kodmobi_async._bulk import SendMany
from kodmobi_async._cooldown import LoopClock, MemoryCooldownTracker
from kodmobi_async._errors import ClientClosedError, ConfigurationError, CooldownError, KodmobiError, Outcome
from kodmobi_async._hooks import CooldownHit, Hook, SendFinished, SendStarted, TrackerDegraded, check_hooks, tell
from kodmobi_async._sending import Call, Send, Sender, conclude
from kodmobi_async._settings import (
    CLOSE_GRACE,
    Limits,
    RetryPolicy,
    Secret,
    Timeout,
    check_base_url,
    check_language,
    check_max_wait,
    resolve_api_key,
)
from kodmobi_async._transport import Transport
from kodmobi_async._wire import (
    WINDOW,
    Redaction,
    canonical_channel,
    canonical_session_id,
    is_channel,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from types import TracebackType

    import aiohttp
    from ulid import ULID

    from kodmobi_async._cooldown import CooldownTracker, Reservation
    from kodmobi_async._models import Channel, SendResult, SessionChannel
    from kodmobi_async._run import Requests

DEFAULT_BASE_URL: Final = "https://api.kod.mobi/session"
REMEMBERED_SESSIONS: Final = 10_000
"""Of so many sessions, those sent to last, a client knows when they end."""
T = TypeVar("T")


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
        hooks: Called with a record of everything that happens; see `Hook`.
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
        hooks: Iterable[Hook] = (),
        allow_http: bool = False,
    ) -> None:
        self._base_url, self._closed = "not built", False  # for a traceback that shows a client in the making
        try:
            key = Secret(resolve_api_key(api_key))
        finally:
            del api_key  # a traceback that shows variables must not show it
        self._base_url = check_base_url(base_url, allow_http=allow_http)
        self._timeout = _checked(Timeout, timeout)
        self._max_wait = check_max_wait(max_wait)
        self._cooldowns = MemoryCooldownTracker() if cooldowns is None else cooldowns
        self._transport = Transport(
            base_url=self._base_url,
            api_key=key.value,
            limits=_checked(Limits, limits),
            language=check_language(language),
            session=session,
        )
        self._hooks = check_hooks(hooks)
        self._clock = LoopClock()
        self._redact = Redaction(key.value)
        self._sender = Sender(
            self._transport,
            self._clock,
            self._cooldowns,
            policy=_checked(RetryPolicy, retry),
            limits=limits,
            hooks=self._hooks,
            redact=self._redact,
        )
        self._session_ends: OrderedDict[str, float] = OrderedDict()
        self._calls: set[Call] = set()
        self._idle: asyncio.Event | None = None

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
            CooldownUnavailableError: What keeps the shared cooldowns is not to be had, and must not be done without.
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
        bounds = self._timeout if timeout is None else self._bounds(timeout)
        if self._closed or asyncio.get_running_loop() is not self._clock.loop:
            await self._enter()
        call = Send(session, name, bounds)
        if self._hooks:
            return await self._observed(call, patience)
        return await self._run(call, self._send(call, patience) if patience > 0 else self._send_once(call, 0.0))

    def send_many(
        self,
        requests: Requests,
        *,
        concurrency: int = 64,
        max_wait: float | None = None,
        grace: float = CLOSE_GRACE,
    ) -> SendMany:
        """Send to many, a bounded number at a time, and return the outcomes as they finish.

        ::

            async with client.send_many(requests) as outcomes:
                async for outcome in outcomes:
                    print(outcome.request, outcome.error or "sent")

        A request's failure is its outcome and ends nothing. What is wrong with the account (the key, the balance, a
        closed client) ends the run with `BulkStoppedError`, after everything that was begun has been handed out. So
        does a limit of the account's rate that lasts; before, the run pauses for as long as the service asks. An error
        of the input itself is raised at the same point, as it is.

        Args:
            requests: An iterable, or an asynchronous one, of `SendRequest` or ``(session_id, channel)``. It is read
                only as fast as it is worked.
            concurrency: How many are under way at most.
            max_wait: Seconds that a request waits for its channel's cooldown, by default the client's. It waits aside:
                meanwhile, others are sent.
            grace: Seconds that requests under way get to come to their end when the loop is left early, or cancelled;
                then they are cancelled, too.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        return SendMany(
            requests,
            lambda request: self.send(request.session_id, request.channel, max_wait=0.0),
            remaining=lambda request: self.remaining(request.session_id, request.channel),
            worth_waiting=lambda request, patience: self._worth_waiting(
                canonical_session_id(request.session_id), patience
            ),
            concurrency=concurrency,
            max_wait=self._max_wait if max_wait is None else max_wait,
            grace=grace,
        )

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
        session = None if session_id is None else canonical_session_id(session_id)
        await self._enter()
        call = Call(self._timeout)
        verdict = await self._run(call, self._sender.ask_channels(call, session))
        if verdict.result is not None:
            return verdict.result
        assert verdict.error is not None  # noqa: S101 a verdict has one of the two
        verdict.error.outcome = Outcome.NOT_SENT
        raise verdict.error

    async def remaining(self, session_id: ULID | str, channel: Channel | str, *, refresh: bool = False) -> float:
        """Return the seconds until the next send of this pair may go; 0.0 = now.

        A send under way counts as a full window.

        Args:
            session_id: The session's ULID.
            channel: The channel.
            refresh: Ask the service first, as `channels` does: it also knows of sends by others, and by this program
                before it was restarted.

        Raises:
            InvalidRequestError: This is no session, or no channel.
            WrongLoopError: The client works for another event loop.
            KodmobiError: With ``refresh``, all that `channels` raises.
        """
        session, name = canonical_session_id(session_id), canonical_channel(channel)
        if refresh:
            await self.channels(session)
        return await self._cooldowns.remaining(session, name)

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

    def _bounds(self, timeout: Timeout | float) -> Timeout:
        return timeout if isinstance(timeout, Timeout) else attrs.evolve(self._timeout, total=timeout)

    async def _run(self, call: Call, work: Coroutine[Any, Any, T]) -> T:
        """Do the work of a call where ``aclose`` can wait for it, and end it."""
        task = call.task = asyncio.current_task()
        assert task is not None  # noqa: S101 a coroutine of ours runs in a task
        cancelling = task.cancelling()
        self._calls.add(call)
        try:
            return await work
        except asyncio.CancelledError:
            # also cancelled by somebody else: that is theirs to see
            if not call.interrupted or task.cancelling() > cancelling + 1:
                raise
        finally:
            if call.interrupted:
                task.uncancel()
            call.task = None
            self._calls.discard(call)
            if self._idle is not None and not self._calls:
                self._idle.set()
        raise ClientClosedError("the client was closed before the call had ended", outcome=call.outcome_now())

    async def _drain(self, loop: asyncio.AbstractEventLoop, grace: float) -> None:
        """Wait until no call is under way, at most ``grace`` seconds; interrupt what is left, and wait for that."""
        for call in self._calls:
            if not call.under_way:
                call.interrupt(loop)
        if self._calls:
            # one for all who close at the same time: the least patient one ends the wait of the others
            idle = self._idle = self._idle or asyncio.Event()
            try:
                async with asyncio.timeout(grace):
                    await idle.wait()
            except TimeoutError:
                for call in self._calls:
                    call.interrupt(loop)
                await idle.wait()

    # -- a send ----------------------------------------------------------------------------------------------------

    async def _send(self, call: Send, patience: float) -> SendResult:
        """Send when the channel is free, and again where the service, not this client, knew that it was not."""
        give_up = self._clock.now() + patience
        while True:
            try:
                return await self._send_once(call, patience)
            except CooldownError as error:
                patience = give_up - self._clock.now()
                # only where the service says so is there anything to wait for that has not been waited for
                if error.outcome is not Outcome.REFUSED or error.retry_after > patience:
                    raise
                call.under_way = False
                self._tell_cooldown(call, error)

    async def _send_once(self, call: Send, patience: float) -> SendResult:
        reservation = await self._cooldowns.acquire(
            call.session_id,
            call.channel,
            lease=WINDOW + call.timeout.total,
            max_wait=self._worth_waiting(call.session_id, patience) if patience > 0 else 0.0,
        )
        try:
            verdict = await self._sender.send(call)
        except BaseException as error:
            # cancelled, or closed, or worse: what is known now decides
            outcome = call.outcome_now()
            if isinstance(error, KodmobiError):
                error.outcome = outcome
            await self._settle(call, reservation, WINDOW if outcome in (Outcome.UNKNOWN, Outcome.ACCEPTED) else None)
            raise
        if verdict.result is not None:
            if call.session_left is not None and call.session_left > 0:
                self._remember_end(call.session_id, call.session_left)
            accepted = verdict.result.channel
            also = None if accepted.type is call.channel or _alike(accepted.type, call.channel) else accepted.type
            await self._settle(call, reservation, accepted.timeout, also=also)
            if reservation.window != "local":
                return attrs.evolve(verdict.result, window=reservation.window)
            return verdict.result
        failure, cause, block = conclude(call, verdict.error)
        await self._settle(call, reservation, block)
        raise failure from cause

    def _remember_end(self, session_id: str, left: float) -> None:
        ends = self._session_ends
        ends[session_id] = self._clock.now() + left
        ends.move_to_end(session_id)
        if len(ends) > REMEMBERED_SESSIONS:
            ends.popitem(last=False)

    def _worth_waiting(self, session_id: str, patience: float) -> float:
        """Return ``patience``, or less: no wait for a cooldown is worth it that ends after the session does."""
        ends = self._session_ends.get(session_id)
        return patience if ends is None else min(patience, max(0.0, ends - self._clock.now()))

    async def _settle(
        self, call: Send, reservation: Reservation, block: float | None, *, also: str | None = None
    ) -> None:
        """Block the slot for ``block`` seconds, and ``also`` the channel that the code went over instead."""
        try:
            if block is None:
                await self._cooldowns.release(reservation)
            else:
                await self._cooldowns.start(reservation, block)
        finally:
            if also is not None and block and is_channel(also):
                await self._cooldowns.observe(call.session_id, also, block)
            if reservation.degraded is not None and self._hooks:
                record = TrackerDegraded(call.number, call.session_id, call.channel, reservation.degraded)
                tell(self._hooks, record)

    # -- telling hooks -----------------------------------------------------------------------------------------------

    async def _observed(self, call: Send, patience: float) -> SendResult:
        """Do a send between its first record and its last."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        tell(self._hooks, SendStarted(call.number, call.session_id, call.channel, f"{self._base_url}/send"))
        try:
            result = await self._run(call, self._send(call, patience))
        except BaseException as error:
            outcome = error.outcome if isinstance(error, KodmobiError) else call.outcome_now()
            if isinstance(error, CooldownError):
                self._tell_cooldown(call, error)
            self._tell_end(call, loop.time() - began, outcome, error=error)
            raise
        self._tell_end(call, loop.time() - began, Outcome.ACCEPTED, result)
        return result

    def _tell_end(
        self,
        call: Send,
        duration: float,
        outcome: Outcome,
        result: SendResult | None = None,
        *,
        error: BaseException | None = None,
    ) -> None:
        record = SendFinished(
            call.number,
            call.session_id,
            call.channel,
            outcome=outcome,
            attempts=call.attempts,
            sent_to=None if result is None else self._redact(result.channel.type),
            confirmed=result is not None and result.confirmed,
            error=error,
            duration=duration,
        )
        tell(self._hooks, record)

    def _tell_cooldown(self, call: Send, error: CooldownError) -> None:
        if self._hooks:
            by_service = error.outcome is not Outcome.NOT_SENT
            hit = CooldownHit(call.number, call.session_id, call.channel, error.retry_after, by_service)
            tell(self._hooks, hit)


def _alike(one: str, other: str) -> bool:
    """Whether two channel names mean the same channel."""
    return one.lower() == other.lower()


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ConfigurationError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
