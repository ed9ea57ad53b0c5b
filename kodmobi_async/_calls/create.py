"""``create``: create a recipient's session, or return the one that lives, and send its first code if asked to.

Creating without sending reads: it may be repeated at will. Creating with sending goes like a send: one request for any
number of concurrent callers of one recipient, one outcome, and a slot that is settled from it. As the session is not
known before, the slots are the recipient's: one for the request in flight, and one for the window of each channel.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from typing import TYPE_CHECKING, Final

import attrs
from ulid import ULID

from kodmobi_async._calls.login import perform
from kodmobi_async._calls.send import are_alike, began_elsewhere, began_since
from kodmobi_async._rules.call import Repeat, SendingCall
from kodmobi_async._rules.requests import create_request
from kodmobi_async._rules.responses import read_session
from kodmobi_async._rules.verdicts import Verdict
from kodmobi_async._values.assumptions import GRAIN, SESSION_LIFETIME
from kodmobi_async._values.errors import CooldownError, Outcome
from kodmobi_async._values.models import Session
from kodmobi_async._values.redaction import mask

if TYPE_CHECKING:
    from kodmobi_async._calls.engine import Engine
    from kodmobi_async._calls.slots import Slots
    from kodmobi_async._rules.clock import LoopClock
    from kodmobi_async._rules.cooldown import CooldownTracker, Reservation
    from kodmobi_async._rules.exchange import Response
    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.hooks import CallKind
    from kodmobi_async._values.settings import Timeout

_IN_FLIGHT: Final = "create"
_ANY_CHANNEL: Final = "any"


class Create(SendingCall[Session]):
    """One ``create``.

    Args:
        to: The recipient, in canonical form.
        channel: The channel, in canonical form; ``None`` = the service's choice.
        send: Whether a code is to be sent.
        challenge: The token of a CAPTCHA.
        timeout: What bounds the call.
    """

    kind: CallKind = "create"
    what_is_unknown = "whether the code was sent"

    channel: Channel | str | None
    flight: Reservation | None = None
    """Held while the request is in flight."""

    def __init__(
        self, to: str, channel: Channel | str | None, *, send: bool, challenge: str | None, timeout: Timeout
    ) -> None:
        super().__init__(create_request(to, channel, send=send, challenge=challenge), timeout, None, channel)
        self.repeat = Repeat.IN_WINDOW if send else Repeat.AT_WILL  # type: ignore[misc]
        self.to = mask(to)
        # the service may repeat a number without its plus sign
        self.secrets = (to, to.removeprefix("+"), *([] if challenge is None else [challenge]))
        self.recipient = to
        self.sends = send

    def read(self, response: Response) -> Session:
        """Return what a 2xx says, with ``sent_to`` only where this call has sent."""
        session = read_session(response)
        sent_to = self._sent_by_this(session) if self.sends else None
        return attrs.evolve(session, sent_to=sent_to, attempts=self.attempts)

    def sent_to(self, result: Session | None) -> str | None:
        """Return the channel that a code was sent over, if any was."""
        return None if result is None else result.sent_to

    def outcome_of_result(self, result: Session) -> Outcome:
        """Return ``REFUSED`` where a code was asked for and not sent, as one that was sent before is still good."""
        return Outcome.REFUSED if self.sends and result.sent_to is None else Outcome.ACCEPTED

    def blocks(self, result: Session) -> tuple[float, str | None]:
        """Return for how many seconds the recipient's slot is blocked: as long as the channel that it stands for."""
        channel = result.sent_to or self.channel
        if channel is None:
            return max((each.timeout for each in result.channels), default=0.0), None
        named = [each.timeout for each in result.channels if are_alike(each.type, channel)]
        return (named[0] if named else self.window), None

    async def resolve(self, engine: Engine, verdict: Verdict[Session]) -> Verdict[Session]:
        """Create without sending, which tells of the same session, and return the verdict in that light.

        A window that began since this call did was opened by it. If a channel that was not asked for has become
        blocked since, the service may have sent over that one, so there is no repeat. If the channel asked for is
        blocked by an older window, nothing was sent, and nothing would be by a repeat.
        """
        query = create_request(self.recipient, None, send=False)
        query.headers = self.request.headers
        session = await engine.query(self, query, read_session)
        if session is None:
            return verdict
        sent_to = self._sent_by_this(attrs.evolve(session, sent_to=None))
        is_blocked = self.channel is not None and session.timeout_of(self.channel) > 0
        if sent_to is not None or is_blocked:
            return Verdict(attrs.evolve(session, sent_to=sent_to, attempts=self.attempts, confirmed=True))
        for channel in session.channels:
            if await began_elsewhere(engine, self, str(session.session_id), channel):
                verdict.stop("another channel was sent to meanwhile, perhaps by this request")
        await engine.remember(str(session.session_id), session.channels)
        return verdict

    def _sent_by_this(self, session: Session) -> Channel | str | None:
        """Return the channel that this call has sent over: one whose window began since the call did."""
        named = session.sent_to or self.channel
        listed = [each for each in session.channels if named is None or are_alike(each.type, named)]
        if session.sent_to is not None and not listed:
            return session.sent_to  # the service says so, and nothing of when
        began = min(self.first_unknown, self.attempt_began)
        age = asyncio.get_running_loop().time() - began
        lives = math.inf if session.expires_in is None else session.expires_in
        is_new = SESSION_LIFETIME - age - GRAIN <= lives <= SESSION_LIFETIME + GRAIN
        blocked = (each for each in listed if each.timeout > 0)
        return next((each.type for each in blocked if is_new or began_since(began, each, self.window)), None)


class Creates:
    """Makes creates.

    Args:
        engine: Makes the attempts.
        slots: Hold what is sent to.
        cooldowns: Where slots come from.
        clock: The client's.
    """

    def __init__(self, engine: Engine, slots: Slots, cooldowns: CooldownTracker, clock: LoopClock) -> None:
        self._engine = engine
        self._slots = slots
        self._cooldowns = cooldowns
        self._clock = clock

    async def read(self, call: Create) -> Session:
        """Create the session without sending, or return the one that lives."""
        session = await perform(self._engine, call)
        await self._engine.remember(str(session.session_id), session.channels)
        return session

    async def send(self, call: Create, max_wait: float) -> Session:
        """Create the session and send its code, waiting up to ``max_wait`` seconds for the channel's turn."""
        give_up = self._clock.now() + max_wait
        slot = slot_of(call.recipient)
        while True:
            try:
                session = await self._slots.send(call, self._acquire, max_wait)
            except CooldownError as error:
                raise _about_recipient(error, call) if error.session_id == slot else error from None
            finally:
                await self._release(call)
            await self._engine.remember(str(session.session_id), session.channels)
            seconds, _ = call.blocks(session)
            if session.sent_to is not None:
                await self._cooldowns.observe(slot, session.sent_to, seconds)
                return session
            max_wait = give_up - self._clock.now()
            if not 0 < seconds <= max_wait:
                return session
            call.in_flight, call.first_unknown = False, math.inf  # the code sent before is waited out

    async def _acquire(self, call: Create, max_wait: float) -> Reservation:
        """Acquire the slot of the recipient's channel, and then the one of the request in flight."""
        slot = slot_of(call.recipient)
        give_up = self._clock.now() + max_wait
        # the request of another caller of the same recipient may come first
        lease = call.window + 2 * call.timeout.total
        channel = call.channel or _ANY_CHANNEL
        reservation = await self._cooldowns.acquire(slot, channel, lease=lease, max_wait=max_wait)
        try:
            left = max(0.0, give_up - self._clock.now())
            call.flight = await self._cooldowns.acquire(slot, _IN_FLIGHT, lease=lease, max_wait=left)
        except BaseException:
            await self._cooldowns.release(reservation)
            raise
        return reservation

    async def _release(self, call: Create) -> None:
        flight, call.flight = call.flight, None
        if flight is not None:
            await self._cooldowns.release(flight)


def slot_of(recipient: str) -> str:
    """Return what stands for a recipient in the tracker: in the form of a session id, and no private data."""
    return str(ULID(hashlib.blake2b(recipient.encode(), digest_size=16, person=b"kodmobi_async").digest()))


def _about_recipient(error: CooldownError, call: Create) -> CooldownError:
    over = f" over {call.channel}" if call.channel else ""
    return CooldownError(
        f"{call.to} was sent a code{over} too recently; the next one may go in {error.retry_after:.1f} s",
        retry_after=error.retry_after,
        session_id=None,
        channel=call.channel,
        outcome=error.outcome,
    )
