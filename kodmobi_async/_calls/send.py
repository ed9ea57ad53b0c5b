"""``send``: re-send a session's code over a channel.

reserve the slot → attempts, each to one verdict → settle the slot from the outcome → return or raise.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from kodmobi_async._rules.call import Repeat, SendingCall
from kodmobi_async._rules.requests import channels_request, is_channel, send_request, to_ulid
from kodmobi_async._rules.responses import read_channels, read_send
from kodmobi_async._rules.verdicts import Verdict
from kodmobi_async._values.assumptions import GRAIN
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async._values.models import SendResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from typing import Any

    from kodmobi_async._calls.engine import Engine
    from kodmobi_async._calls.slots import Slots
    from kodmobi_async._rules.cooldown import CooldownTracker, Reservation
    from kodmobi_async._rules.exchange import Response
    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.hooks import CallKind
    from kodmobi_async._values.models import SessionChannel
    from kodmobi_async._values.settings import Timeout


class Send(SendingCall[SendResult]):
    """One ``send``."""

    kind: CallKind = "send"
    repeat = Repeat.IN_WINDOW
    what_is_unknown = "whether the code was sent"

    session_id: str
    channel: Channel | str

    @classmethod
    def of(cls, session_id: str, channel: Channel | str, challenge: str | None, timeout: Timeout) -> Send:
        """Return the call of a send; all in canonical form."""
        call = cls(send_request(session_id, channel, challenge), timeout, session_id, channel)
        if challenge is not None:
            call.secrets = (challenge,)
        return call

    def read(self, response: Response) -> SendResult:
        """Return what a 2xx says."""
        return read_send(response, self.session_id, self.attempts)

    def sent_to(self, result: SendResult | None) -> str | None:
        """Return the channel that the code was sent over."""
        return None if result is None else result.channel.type

    def blocks(self, result: SendResult) -> tuple[float, str | None]:
        """Return for how many seconds the slot is blocked, and which other channel the code went over, if it did."""
        channel = result.channel
        alike = channel.type is self.channel or are_alike(channel.type, self.channel)
        return channel.timeout, None if alike else channel.type

    async def resolve(self, engine: Engine, verdict: Verdict[SendResult]) -> Verdict[SendResult]:
        """Ask for the session's channels, and return the verdict in that light.

        If the service says that the channel is blocked, the send has arrived. If instead *another* channel has become
        blocked since, and not by this client as far as the tracker knows, the service may have sent over that one: a
        repeat might put out a second code, so there is none.
        """
        channels = await engine.query(self, channels_request(self.session_id), read_channels) or ()
        for channel in channels:
            if channel.timeout > 0 and are_alike(channel.type, self.channel):
                result = SendResult(to_ulid(self.session_id), None, channel, self.attempts, confirmed=True)
                verdict = Verdict(result)
                break
            if await began_elsewhere(engine, self, self.session_id, channel):
                verdict.stop("another channel was sent to meanwhile, perhaps by this request")
        await engine.remember(self.session_id, channels)
        return verdict


def are_alike(one: str, other: str) -> bool:
    """Whether two channel names mean the same channel."""
    return one.lower() == other.lower()


def began_since(moment: float, channel: SessionChannel, window: float) -> bool:
    """Whether a channel's window began after a moment of the running loop's clock."""
    age = asyncio.get_running_loop().time() - moment
    return channel.timeout > 0 and channel.timeout >= window - age - GRAIN


async def began_elsewhere(engine: Engine, call: SendingCall[Any], session_id: str, channel: SessionChannel) -> bool:
    """Whether a channel's window began after the call did, and not by this client as far as the tracker knows."""
    if not began_since(call.first_unknown, channel, call.window) or not is_channel(channel.type):
        return False
    known = 0.0
    with contextlib.suppress(KodmobiError):
        known = await engine.cooldowns.remaining(session_id, channel.type)
    return known < channel.timeout - GRAIN


class Sends:
    """Makes sends.

    Args:
        slots: Hold what is sent to.
        cooldowns: Where slots come from.
    """

    def __init__(self, slots: Slots, cooldowns: CooldownTracker) -> None:
        self._slots = slots
        self._cooldowns = cooldowns

    def send(self, call: Send, max_wait: float) -> Coroutine[Any, Any, SendResult]:
        """Return what sends."""
        if max_wait <= 0:
            return self._slots.send_once(call, self._acquire, 0.0)
        return self._slots.send(call, self._acquire, max_wait)

    def _acquire(self, call: Send, max_wait: float) -> Awaitable[Reservation]:
        lease = call.window + call.timeout.total
        return self._cooldowns.acquire(call.session_id, call.channel, lease=lease, max_wait=max_wait)
