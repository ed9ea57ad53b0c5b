"""``kodmobi demo``."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final, TypeVar

from kodmobi_async import CooldownError, KodmobiClient
from kodmobi_async.cli._emulator import line
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._output import Output, seconds
from kodmobi_async.cli._send import show
from kodmobi_async.emulator import Emulator

__all__ = ("demonstrate",)

T = TypeVar("T")

_CHANNEL: Final = "telegram"


class _UnexpectedError(Exception):
    """The demonstration took another course than it should."""


async def demonstrate(output: Output, window: float) -> int:
    """Do the main job once, against an emulator, and tell each step from what really happened."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with Emulator(window=window, session_lifetime=window + 120) as emulator:
            output.say(f"An emulator on {emulator.base_url} stands in for the service:")
            output.say(f"real HTTP, but no code reaches anybody, and the window is {seconds(window)} instead of 60 s.")
            await _tell_story(emulator, output, window)
    except _UnexpectedError as unexpected:
        output.error(f"the demonstration went wrong: {unexpected}")
        return ExitCode.BUG
    output.say()
    output.say(f"All of it took {seconds(loop.time() - began)}.")
    return ExitCode.SENT


async def _tell_story(emulator: Emulator, output: Output, window: float) -> None:
    session_id = emulator.add_session()
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
        _step(output, 1, "send a code")
        show(output, await client.send(session_id, _CHANNEL))
        requests = _show_requests(emulator, output)

        _step(output, 2, "send again, at once")
        blocked = _expect(await _refusal(client, session_id), "the second send was not blocked")
        output.say(f"{type(blocked).__name__}: {blocked}", style="bold yellow")
        _expect(_show_requests(emulator, output) == requests, "the second send reached the emulator")

        bound = window + 1
        _step(output, 3, f"send again, with max_wait={bound:g}")
        async with output.countdown("waiting for the channel", blocked.retry_after):
            result = await client.send(session_id, _CHANNEL, max_wait=bound)
        show(output, result)
        _show_requests(emulator, output)

        _step(output, 4, "what people would have received, by the emulator's ledger")
        for delivery in emulator.ledger:
            output.say(f"  {line(delivery, emulator.clock.date(delivery.at))}")
        apart = [round(later.at - earlier.at, 6) for earlier, later in itertools.pairwise(emulator.ledger)]
        _expect(len(apart) == 1 and apart[0] >= window, "these are not two codes, at least a window apart")
        output.say(f"  {len(emulator.ledger)} codes, {seconds(apart[0])} apart")


async def _refusal(client: KodmobiClient, session_id: str) -> CooldownError | None:
    try:
        await client.send(session_id, _CHANNEL)
    except CooldownError as error:
        return error
    return None


def _show_requests(emulator: Emulator, output: Output) -> int:
    requests = emulator.requests["send"]
    output.field("emulator", f"requests to send so far: {requests}")
    return requests


def _step(output: Output, number: int, text: str) -> None:
    output.say()
    output.say(f"{number}. {text}", style="bold cyan")


def _expect(found: T | None, otherwise: str) -> T:
    """Return what was ``found``; the story ends where it is nothing, or not so."""
    if not found:
        raise _UnexpectedError(otherwise)
    return found
