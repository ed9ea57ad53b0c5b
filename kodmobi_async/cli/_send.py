"""``kodmobi send`` and ``kodmobi channels``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from kodmobi_async import ConfigurationError, CooldownError, Outcome
from kodmobi_async.cli._connect import connected
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._output import clock, seconds

if TYPE_CHECKING:
    from kodmobi_async import KodmobiClient, SendResult, SessionChannel
    from kodmobi_async.cli._connect import Connection
    from kodmobi_async.cli._output import Output

__all__ = ("list_channels", "send", "show")

_SLACK: Final = 1.0
"""The client's own count of a wait that was just waited for may end a moment later, in seconds."""


async def send(connection: Connection, output: Output, session_id: str, channel: str, max_wait: float) -> int:
    """Send a code, and show what became of it."""
    if not max_wait >= 0:
        raise ConfigurationError("--max-wait takes 0 or more seconds")
    async with connected(connection, output, session_id) as client:
        result = await _send_when_possible(client, output, session_id, channel, max_wait)
    if output.as_json:
        output.write_json(result.to_dict())
    else:
        show(output, result)
    return ExitCode.SENT


async def _send_when_possible(
    client: KodmobiClient, output: Output, session_id: str, channel: str, max_wait: float
) -> SendResult:
    """Send; where the service says "too soon", wait, and send again, all within ``max_wait``.

    The client of a process just started knows of no earlier send; only the service does. So the first refusal is where
    its cooldown becomes known.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + max_wait
    slack = 0.0
    while True:
        try:
            return await client.send(session_id, channel, max_wait=slack)
        except CooldownError as refusal:
            pause = refusal.retry_after
            if refusal.outcome is not Outcome.REFUSED or loop.time() + pause > deadline:
                raise
        except asyncio.CancelledError:
            # The process ends, and with it the only memory of this send: what is known has to be said now.
            if await client.remaining(session_id, channel) > 0:
                output.remark("interrupted: the code may be on its way")
            raise
        async with output.countdown(f"{channel} is blocked; waiting", pause, is_remark=True):
            await asyncio.sleep(pause)
        slack = _SLACK


async def list_channels(connection: Connection, output: Output, session_id: str | None) -> int:
    """Show the channels."""
    async with connected(connection, output, session_id) as client:
        channels = await client.channels(session_id)
    if output.as_json:
        output.write_json([channel.to_dict() for channel in channels])
    elif channels:
        rows = [_row(channel, known=session_id is not None) for channel in channels]
        output.table(("channel", "name", "next send", "user", "link"), rows)
    else:
        output.say("The project has no channels.")
    return ExitCode.SENT


def _row(channel: SessionChannel, *, known: bool) -> tuple[str, ...]:
    """Describe a channel; without a session there is no user whose status could be ``known``."""
    free = f"in {seconds(channel.timeout)}" if channel.timeout else "now"
    user = "active" if channel.is_active else "not active"
    return channel.type, channel.name, free if known else "", user if known else "", channel.link


def show(output: Output, result: SendResult) -> None:
    """Tell a person what was sent."""
    channel, now = result.channel, datetime.now(UTC)
    output.say(f"A code is on its way over {channel.name or channel.type}.", style="bold green")
    output.field("session", str(result.session_id))
    if result.session_expired_at is not None:
        # The service's wall clock against this machine's: it is said which, and nothing is decided by it.
        left, at = (result.session_expired_at - now).total_seconds(), clock(result.session_expired_at)
        ends = f"ends at {at}, in {seconds(left)}" if left > 0 else f"ended at {at}"
        output.field("", f"{ends} (by this machine's clock)")
    output.field("channel", channel.type)
    if channel.timeout > 0:
        until = clock(now + timedelta(seconds=channel.timeout))
        output.field("", f"blocked until {until}, for {seconds(channel.timeout)}")
    if result.attempts > 1:
        output.field("attempts", str(result.attempts))
    if result.confirmed:
        output.field("confirmed", "its answer was lost; asked again, the service said that it took the code")
