"""``send_first``: the first of several channels that takes the code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from kodmobi_async._rules.requests import normalize_channel
from kodmobi_async._values.errors import ChannelUnavailableError, CooldownError, InvalidRequestError, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kodmobi_async._values.channel import Channel
    from kodmobi_async._values.models import SendResult


class SendOver(Protocol):
    """Sends the code over a channel, waiting for it up to so many seconds."""

    async def __call__(self, channel: Channel | str, max_wait: float, /) -> SendResult:
        """Send."""
        ...


def canonical_channels(channels: Iterable[Channel | str]) -> tuple[Channel | str, ...]:
    """Return the channels in their order, each once.

    Raises:
        InvalidRequestError: There are none, or one is no channel name.
    """
    if isinstance(channels, str):
        raise InvalidRequestError("channels takes a list of channels, not one")
    found = {name.lower(): name for name in map(normalize_channel, channels)}
    if not found:
        raise InvalidRequestError("channels is empty: name at least one")
    return tuple(found.values())


async def send_first(send: SendOver, channels: tuple[Channel | str, ...], max_wait: float) -> SendResult:
    """Send over the first channel that takes the code.

    The next one is tried only where the last is provably out: unavailable for this recipient, or in its cooldown. An
    unknown outcome, an acceptance, and every other error end it. When all are out, and one of them is only in its
    cooldown, that one is waited for up to ``max_wait`` seconds.

    Raises:
        KodmobiError: What the decisive channel said: of all that are in their cooldown, the one that is free first.
    """
    give_up = asyncio.get_running_loop().time() + max_wait
    out: list[ChannelUnavailableError | CooldownError] = []
    for channel in channels:
        try:
            return await send(channel, 0.0)
        except (ChannelUnavailableError, CooldownError) as error:
            if error.outcome not in (Outcome.NOT_SENT, Outcome.REFUSED):
                raise
            out.append(error)
    left = give_up - asyncio.get_running_loop().time()
    cooldowns = (error for error in out if isinstance(error, CooldownError))
    soonest = min(cooldowns, key=lambda error: error.retry_after, default=None)
    if soonest is None:
        raise out[0]
    if soonest.channel is None or soonest.retry_after > left:
        raise soonest
    return await send(soonest.channel, left)
