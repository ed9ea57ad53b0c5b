"""`KodmobiClient`: the public calls. Each checks its input, and hands over to the module of its name.

Above 300 lines: these docstrings are the reference of the public surface, and belong in one place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self, TypeVar, cast

import attrs

from kodmobi_async._calls.bulk import RunJournal, SendMany
from kodmobi_async._calls.countdown import countdown
from kodmobi_async._calls.create import Create, Creates
from kodmobi_async._calls.engine import Engine
from kodmobi_async._calls.fallback import canonical_channels, send_first
from kodmobi_async._calls.lifecycle import Lifecycle
from kodmobi_async._calls.login import Check, Verify, channels_call, list_channels, perform, settings_call
from kodmobi_async._calls.send import Send, Sends
from kodmobi_async._calls.slots import SessionEnds, Slots
from kodmobi_async._io.transport import Transport
from kodmobi_async._rules.clock import LoopClock
from kodmobi_async._rules.cooldown import MemoryCooldownTracker
from kodmobi_async._rules.normalize import normalize_code
from kodmobi_async._rules.requests import canonical_recipient, check_token, normalize_channel, normalize_session_id
from kodmobi_async._values.addresses import resolve_base_url
from kodmobi_async._values.errors import ClientClosedError, ConfigurationError, InvalidRequestError, TransportError
from kodmobi_async._values.hooks import Hook, check_hooks
from kodmobi_async._values.redaction import Redaction
from kodmobi_async._values.settings import (
    CLOSE_GRACE,
    Limits,
    RetryPolicy,
    Secret,
    Timeout,
    check_concurrency,
    check_language,
    check_max_wait,
    check_proxy,
    check_seconds,
    check_ssl,
    is_count,
    resolve_api_key,
    resolve_secret_key,
)

if TYPE_CHECKING:
    import ssl as tls
    from collections.abc import AsyncIterator, Iterable
    from types import TracebackType

    import aiohttp
    from ulid import ULID

    from kodmobi_async._calls.run import Requests
    from kodmobi_async._rules.cooldown import CooldownTracker
    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.models import (
        CheckResult,
        ProjectSettings,
        SendResult,
        Session,
        SessionChannel,
        VerifiedUser,
    )

T = TypeVar("T")


class KodmobiClient:
    """Log people in with kod.mobi: create sessions, send codes, check them.

    Build it anywhere; no event loop has to run. Use it with ``async with``, or call `aclose` in the end. One client
    serves any number of concurrent calls of one event loop.

    Args:
        api_key: From the admin panel; by default the environment variable ``KODMOBI_API_KEY``.
        secret_key: The secret key of the pair, which only `verify` uses; by default the environment variable
            ``KODMOBI_SECRET_KEY``.
        base_url: Address and path prefix of the API; by default the environment variable ``KODMOBI_BASE_URL``, else
            ``https://api.kod.mobi/session``.
        timeout: How long a call may take.
        limits: Connections, requests a second, with whom they are shared, and the service's window.
        retry: When a failed attempt is made again.
        cooldowns: Who may send when; by default a `MemoryCooldownTracker` of its own.
        max_wait: Seconds that a send waits for a cooldown, unless the call says otherwise: 0 = refuse at once,
            ``math.inf`` = as long as it takes.
        language: Of the service's messages, ``"en"`` or ``"ru"``.
        session: An `aiohttp.ClientSession` to borrow instead of a pool of its own. It is never closed here.
        ssl: Whom the client's own pool trusts, an `ssl.SSLContext`; by default the system's authorities.
        proxy: ``http://`` or ``https://`` address of a proxy for the client's own pool. Credentials in it are never
            shown.
        hooks: Called with a record of everything that happens; see `Hook`.
        allow_http: Allow ``http://`` to other machines than this one, which sends the key in clear text.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        secret_key: str | None = None,
        base_url: str | None = None,
        timeout: Timeout = Timeout(),  # noqa: B008 frozen
        limits: Limits = Limits(),  # noqa: B008 frozen
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 frozen
        cooldowns: CooldownTracker | None = None,
        max_wait: float = 0.0,
        language: str | None = None,
        session: aiohttp.ClientSession | None = None,
        ssl: tls.SSLContext | None = None,
        proxy: str | None = None,
        hooks: Iterable[Hook] = (),
        allow_http: bool = False,
    ) -> None:
        self._base_url = "not built"  # for a traceback that shows a client in the making
        given = Secret((api_key, secret_key, proxy, base_url))
        del api_key, secret_key, proxy, base_url  # a traceback that shows variables must not show them
        key, secret = Secret(resolve_api_key(given.value[0])), Secret(resolve_secret_key(given.value[1]))
        self._base_url = resolve_base_url(given.value[3], allow_http=allow_http)
        self._has_secret_key = secret.value is not None
        self._timeout = _checked(Timeout, timeout)
        self._max_wait = check_max_wait(max_wait)
        self._window = _checked(Limits, limits).window
        self._cooldowns = MemoryCooldownTracker() if cooldowns is None else cooldowns
        transport = Transport(
            base_url=self._base_url,
            keys=(key, secret),
            limits=limits,
            language=check_language(language),
            session=session,
            ssl=check_ssl(ssl, borrows=session is not None),
            proxy=check_proxy(given.value[2], borrows=session is not None),
        )
        checked = check_hooks(hooks)
        redact = Redaction(*(each.value for each in (key, secret) if each.value is not None))
        clock = LoopClock()
        engine = Engine(
            transport,
            clock,
            self._cooldowns,
            policy=_checked(RetryPolicy, retry),
            limits=limits,
            hooks=checked,
            redact=redact,
        )
        lifecycle = Lifecycle(transport, clock, hooks=checked, redact=redact, base_url=self._base_url)
        self._limits, self._transport = limits, transport
        self._clock, self._engine, self._lifecycle = clock, engine, lifecycle
        self._ends = SessionEnds(clock)
        slots = Slots(engine, lifecycle, clock, self._ends)
        self._sends = Sends(slots, self._cooldowns)
        self._creates = Creates(engine, slots, self._cooldowns, clock)

    def __repr__(self) -> str:
        lifecycle: Lifecycle | None = vars(self).get("_lifecycle")  # none while it is built
        is_closed = lifecycle is not None and lifecycle.is_closed
        return f"<KodmobiClient {self._base_url}{' closed' if is_closed else ''}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def connect(self, connections: int = 1) -> None:
        """Open connections, so that the first code need not wait for DNS, TCP and TLS. Nothing is sent.

        Call it when the service starts. Idle connections count, and all are kept for ``Limits.keepalive``.

        Args:
            connections: How many are to be open, from 1 to ``Limits.connections``.

        Raises:
            ConfigurationError: That is no such number, or the client borrows a session.
            TransportError: The service could not be reached; calls will try again.
            ClientClosedError: The client is closed, or was closed meanwhile.
            WrongLoopError: The client works for another event loop.
        """
        if not is_count(connections) or connections > self._limits.connections:
            raise ConfigurationError(f"connections takes 1 to {self._limits.connections}, which is Limits.connections")
        await self._lifecycle.enter()
        failure = await self._transport.connect(connections, self._timeout.connect)
        if self._lifecycle.is_closed:
            raise ClientClosedError("the client was closed before its connections were open")
        if failure is not None:
            raise TransportError(f"the service cannot be connected to: {failure.reason}")

    # -- codes ---------------------------------------------------------------------------------------------------------

    async def send(
        self,
        session_id: ULID | str,
        channel: Channel | str,
        *,
        challenge: str | None = None,
        max_wait: float | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 it bounds the sending alone, not the wait before it
    ) -> SendResult:
        """Re-send the code of a session over a channel.

        Source: ``POST /session/send`` of the API documentation.

        Args:
            session_id: The session's ULID.
            channel: The channel; names other than the documented ones pass as they are.
            challenge: The token of a CAPTCHA, where the project asks for one.
            max_wait: Seconds to wait for the channel's cooldown; by default the client's.
            timeout: For this call instead of the client's; a number is its ``total``, in seconds.

        Raises:
            InvalidRequestError: This is no session, no channel, or no token.
            CooldownError: The channel was sent to less than a window ago; ``retry_after`` says when again.
            CooldownUnavailableError: The shared cooldowns are unavailable, and nothing is sent without them.
            LimitsUnavailableError: The shared limits are unavailable, and nothing is sent without them.
            OutcomeUnknownError: The code may be on its way; ``safe_after`` says when a new send is safe.
            UnreadableResponseError: The code is on its way, but the response cannot be read.
            TransportError: Nothing was sent: the service could not be reached.
            SessionExpiredError: The session has ended, or ends before the channel is free.
            ResponseError: The service refused; one class a reason.
            ClientClosedError: The client is closed, or was closed before the call ended.
            WrongLoopError: The client works for another event loop.
            ConfigurationError: ``max_wait`` or ``timeout`` is no number of seconds.
        """
        session, name = normalize_session_id(session_id), normalize_channel(channel)
        token = challenge if challenge is None else Secret(challenge)
        del challenge  # a traceback that shows variables must not show it
        wait = self._max_wait if max_wait is None else check_max_wait(max_wait)
        call = Send.of(
            session, name, _checked_token(token), self._timeout if timeout is None else self._bounds(timeout)
        )
        if self._lifecycle.is_closed or asyncio.get_running_loop() is not self._clock.loop:
            await self._lifecycle.enter()
        call.window = self._window
        return await self._lifecycle.run(call, self._sends.send(call, wait))

    async def send_first(
        self,
        session_id: ULID | str,
        channels: Iterable[Channel | str],
        *,
        challenge: str | None = None,
        max_wait: float | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 as above
    ) -> SendResult:
        """Send over the first of several channels that takes the code.

        The next channel is tried only where the last is provably out: unavailable for this recipient, or in its
        cooldown. Whatever may have been sent ends it.

        Args:
            session_id: The session's ULID.
            channels: In the order in which they are tried.
            challenge: The token of a CAPTCHA, where the project asks for one.
            max_wait: Where all channels are out, seconds to wait for the one that is free first.
            timeout: For each send, instead of the client's.

        Raises:
            KodmobiError: As `send`; where all channels are out, the error of the one that is free first.
        """
        names = canonical_channels(channels)
        wait = self._max_wait if max_wait is None else check_max_wait(max_wait)
        token = Secret(challenge)
        del challenge  # as above
        return await send_first(
            lambda name, seconds: self.send(session_id, name, challenge=token.value, max_wait=seconds, timeout=timeout),
            names,
            wait,
        )

    async def create(
        self,
        to: str,
        *,
        channel: Channel | str | None = None,
        send: bool = False,
        challenge: str | None = None,
        max_wait: float | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 as above
    ) -> Session:
        """Create a recipient's session, or return the one that lives; with ``send``, send its first code.

        Without ``send``, the call may be repeated at will, and sends nothing: the ``outcome`` of every error is
        ``NOT_SENT``. With it, any number of concurrent callers of one recipient put one request on the wire, and a lost
        response is resolved by a ``create`` that does not send. A code that was sent earlier may still be good: then
        nothing is sent, and ``Session.sent_to`` is ``None``.

        Source: ``POST /session/create`` of the API documentation.

        Args:
            to: A phone number with its country code, or an email address; see `normalize_phone`.
            channel: The channel to send over; by default the service's choice.
            send: Whether to send a code.
            challenge: The token of a CAPTCHA, where the project asks for one.
            max_wait: With ``send``, seconds to wait for the channel's cooldown; by default the client's.
            timeout: For this call instead of the client's; a number is its ``total``, in seconds.

        Raises:
            KodmobiError: As `send`.
        """
        given, token = Secret(to), challenge if challenge is None else Secret(challenge)
        del to, challenge  # as above
        recipient = Secret(canonical_recipient(given.value))
        name = None if channel is None else normalize_channel(channel)
        if not isinstance(send, bool):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise InvalidRequestError("send takes True or False")
        wait = self._max_wait if max_wait is None else check_max_wait(max_wait)
        bounds = self._timeout if timeout is None else self._bounds(timeout)
        call = Create(recipient.value, name, send=send, challenge=_checked_token(token), timeout=bounds)
        call.window = self._window
        await self._lifecycle.enter()
        work = self._creates.send(call, wait) if send else self._creates.read(call)
        return await self._lifecycle.run(call, work)

    async def check(
        self,
        session_id: ULID | str,
        code: str,
        *,
        challenge: str | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 as above
    ) -> CheckResult:
        """Check the code that a person has entered. It is never repeated once its request was written.

        Source: ``POST /session/check`` of the service's JavaScript SDK.

        Args:
            session_id: The session's ULID.
            code: What was typed; see `normalize_code`.
            challenge: The token of a CAPTCHA, where the project asks for one.
            timeout: For this call instead of the client's; a number is its ``total``, in seconds.

        Raises:
            InvalidRequestError: This is no session, or can be no code. Nothing was sent.
            WrongCodeError: The code is wrong.
            OutcomeUnknownError: The response was lost: the code may be used up. A new session gets a new code.
            KodmobiError: Otherwise as `send`.
        """
        typed, token = Secret(code), challenge if challenge is None else Secret(challenge)
        del code, challenge  # as above
        session, entered = normalize_session_id(session_id), Secret(normalize_code(typed.value))
        bounds = self._timeout if timeout is None else self._bounds(timeout)
        call = Check(session, entered.value, _checked_token(token), bounds)
        await self._lifecycle.enter()
        return await self._lifecycle.run(call, perform(self._engine, call))

    async def verify(
        self,
        verify_token: str,
        *,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 as above
    ) -> VerifiedUser:
        """Redeem the token of a right code, with the secret key. It is never repeated once its request was written.

        Source: ``POST /verify`` is named by the API documentation.

        Args:
            verify_token: What `check` has returned, here or in a browser.
            timeout: For this call instead of the client's; a number is its ``total``, in seconds.

        Raises:
            ConfigurationError: The client has no secret key.
            InvalidRequestError: This can be no token. Nothing was sent.
            OutcomeUnknownError: The response was lost: the token may be used up. A new login gets a new one.
            KodmobiError: Otherwise as `send`.
        """
        token = Secret(verify_token)
        del verify_token
        if not self._has_secret_key:
            raise ConfigurationError("verify needs the secret key: pass secret_key=, or set KODMOBI_SECRET_KEY")
        call = Verify(
            check_token("verify_token", token.value), self._timeout if timeout is None else self._bounds(timeout)
        )
        await self._lifecycle.enter()
        return await self._lifecycle.run(call, perform(self._engine, call))

    def send_many(
        self,
        requests: Requests,
        *,
        concurrency: int = 64,
        max_wait: float | None = None,
        grace: float = CLOSE_GRACE,
        journal: RunJournal | None = None,
        retry_failed: bool = False,
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
            concurrency: How many are in flight at most.
            max_wait: Seconds that a request waits for its channel's cooldown, by default the client's. Others are sent
                meanwhile.
            grace: Seconds that requests in flight get to finish when the loop is left early, or cancelled; then they
                are cancelled, too.
            journal: A `kodmobi_async.journal.Journal`, which makes the run safe to kill: run again with the same
                requests, it sends what was not sent before.
            retry_failed: Whether requests that got no code in an earlier run of the journal are sent again.

        Raises:
            ConfigurationError: A setting cannot be used. From the iteration: the journal is of another run.
        """
        if journal is not None:
            if not hasattr(journal, "items"):
                raise ConfigurationError(f"journal takes a Journal that is open, not {type(journal).__name__}")
            requests = cast(
                "Requests",
                journal.items(
                    requests,
                    client=self,
                    cooldowns=self._cooldowns,
                    concurrency=check_concurrency(concurrency),
                    retry_failed=retry_failed,
                ),
            )
        return SendMany(
            requests,
            lambda request: self.send(request.session_id, request.channel, max_wait=0.0),
            remaining=lambda request: self.remaining(request.session_id, request.channel),
            worth_waiting=lambda request, max_wait: self._ends.worth_waiting(
                normalize_session_id(request.session_id), max_wait
            ),
            concurrency=concurrency,
            max_wait=self._max_wait if max_wait is None else max_wait,
            grace=grace,
        )

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Address and path prefix of the API, checked."""
        return self._base_url

    def session_left(self, session_id: ULID | str) -> float | None:
        """Return the seconds until a session ends, as far as responses have said; ``None`` if that is not known.

        Raises:
            InvalidRequestError: This is no session.
        """
        return self._ends.left(normalize_session_id(session_id))

    async def channels(self, session_id: ULID | str | None = None) -> tuple[SessionChannel, ...]:
        """Return the project's channels; with a session, each with its current ``timeout`` for it.

        The client remembers the windows that the response names. The call sends no code, so the ``outcome`` of every
        error is ``NOT_SENT``.

        Source: ``GET /session/channels`` of the API documentation.

        Args:
            session_id: The session's ULID.

        Raises:
            InvalidRequestError: This is no session.
            TransportError: The service could not be reached, or did not respond.
            UnreadableResponseError: The response cannot be read.
            ResponseError: The service refused; one class a reason.
            ClientClosedError: The client is closed, or was closed before the call ended.
            WrongLoopError: The client works for another event loop.
        """
        call = channels_call(None if session_id is None else normalize_session_id(session_id), self._timeout)
        await self._lifecycle.enter()
        return await self._lifecycle.run(call, list_channels(self._engine, call))

    async def settings(self, session_id: ULID | str | None = None) -> ProjectSettings:
        """Return what a login page has to know of the project: what codes look like, and whether a CAPTCHA is due.

        Source: ``GET /session/settings`` of the service's JavaScript SDK.

        Args:
            session_id: The session's ULID.

        Raises:
            KodmobiError: As `channels`.
        """
        call = settings_call(None if session_id is None else normalize_session_id(session_id), self._timeout)
        await self._lifecycle.enter()
        return await self._lifecycle.run(call, perform(self._engine, call))

    async def remaining(self, session_id: ULID | str, channel: Channel | str, *, refresh: bool = False) -> float:
        """Return the seconds until the next send of this pair may go; 0.0 = now.

        A send in flight counts as a full window.

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
        session, name = normalize_session_id(session_id), normalize_channel(channel)
        if refresh:
            await self.channels(session)
        return await self._cooldowns.remaining(session, name)

    def countdown(self, session_id: ULID | str, channel: Channel | str, *, every: float = 1.0) -> AsyncIterator[float]:
        """Yield the seconds until the next send of this pair may go, down to 0.0.

        A window that grows meanwhile is followed. Where the session is known to end first, the iteration ends with it,
        without a 0.0.

        Args:
            session_id: The session's ULID.
            channel: The channel.
            every: Seconds between two numbers.

        Raises:
            InvalidRequestError: This is no session, or no channel.
            ConfigurationError: ``every`` is no number of seconds.
        """
        session, name = normalize_session_id(session_id), normalize_channel(channel)
        return countdown(
            lambda: self._cooldowns.remaining(session, name),
            lambda: self._ends.left(session),
            check_seconds("every", every),
        )

    async def aclose(self, *, grace: float = CLOSE_GRACE) -> None:
        """Close the client: no new calls, and an end to those in flight.

        Calls that wait for a cooldown end at once. Those that have begun to send are given time to end by themselves;
        then they are interrupted, and each raises `ClientClosedError` with what is known of its code. A second call of
        ``aclose`` does no harm.

        Args:
            grace: Seconds for the calls in flight.
        """
        await self._lifecycle.aclose(grace)

    def _bounds(self, timeout: Timeout | float) -> Timeout:
        return timeout if isinstance(timeout, Timeout) else attrs.evolve(self._timeout, total=timeout)


def _checked_token(challenge: Secret[str] | None) -> str | None:
    return challenge if challenge is None else check_token("challenge", challenge.value)


def _checked(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ConfigurationError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
