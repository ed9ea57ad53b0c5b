"""``kodmobi emulator`` and ``kodmobi demo``."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import json
import shlex
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from kodmobi_async._calls.client import KodmobiClient
from kodmobi_async._values.errors import ConfigurationError, CooldownError
from kodmobi_async._values.settings import API_KEY_VARIABLE
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._output import clock, seconds
from kodmobi_async.cli._send import show
from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from kodmobi_async.cli._output import Output
    from kodmobi_async.emulator import Delivery

__all__ = ("demonstrate", "serve")

T = TypeVar("T")

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks at the emulator's ledger."""

_CHANNEL: Final = "telegram"


async def serve(emulator: Emulator, output: Output, sessions: Sequence[str], *, quiet: bool) -> int:
    """Run an emulator until the process is told to stop, and show what it delivers."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows has no such signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _listening(emulator):
        try:
            live = [emulator.add_session(session_id) for session_id in sessions] or [emulator.add_session()]
        except ValueError:
            raise ConfigurationError("--session takes a ULID: 26 characters of Crockford's base 32") from None
        address = _address(emulator)
        if not _is_loopback(emulator.host):
            output.remark(f"warning: {emulator.host} is not only for this machine: others can use the emulator")
        if quiet:
            output.say(address)
            await stop.wait()
        else:
            _introduce(emulator, output, address, live)
            await _report(emulator, output, stop)
    return ExitCode.SENT


@contextlib.asynccontextmanager
async def _listening(emulator: Emulator) -> AsyncGenerator[None]:
    try:
        await emulator.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {emulator.port} is in use; choose another with --port, or 0 for any free one"
        else:
            reason = f"cannot listen on {emulator.host}, port {emulator.port}: {error.strerror}"
        raise ConfigurationError(reason) from None
    try:
        yield
    finally:
        await emulator.aclose()


def _introduce(emulator: Emulator, output: Output, address: str, sessions: Sequence[str]) -> None:
    output.say("An emulator of the kod.mobi API; no code reaches anybody.", style="bold")
    output.tell("address", address)
    output.tell("key", f"{emulator.api_key} (made up; a real key has no business here)")
    for session_id in sessions:
        output.tell("session", session_id)
    output.tell("", f"sessions live for {seconds(emulator.session_lifetime)}: --session-lifetime")
    output.tell("", f"a channel is blocked for {seconds(emulator.window)} after a send: --window")
    body = json.dumps({"session_id": sessions[0], "type": _CHANNEL})
    output.paste(
        f"curl {address}/send \\",
        f"  -H {shlex.quote(f'x-api-key: {emulator.api_key}')} \\",
        f"  --data {shlex.quote(body)}",
    )
    output.paste(
        f"{API_KEY_VARIABLE}={shlex.quote(emulator.api_key)} kodmobi send \\",
        f"  {sessions[0]} {_CHANNEL} \\",
        f"  --base-url {address}" + ("" if _is_loopback(_reachable(emulator.host)) else " --allow-http"),
    )
    output.say()
    output.say("Codes delivered, until Ctrl-C:", style="bold")


async def _report(emulator: Emulator, output: Output, stop: asyncio.Event) -> None:
    shown = 0
    while not stop.is_set() and not output.reader_is_gone:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                await stop.wait()
        new = emulator.ledger[shown:]
        shown += len(new)
        for delivery in new:
            output.say(_line(delivery))


def _line(delivery: Delivery) -> str:
    ago = asyncio.get_running_loop().time() - delivery.at
    at = clock(datetime.now(UTC) - timedelta(seconds=ago))
    return f"{at}  {delivery.session_id}  {delivery.channel:<8}  {delivery.code}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _reachable(host: str) -> str:
    """Return where a client on this machine finds a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 compared with, not listened on


def _address(emulator: Emulator) -> str:
    host = _reachable(emulator.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{emulator.port}/session"


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

        patience = window + 1
        _step(output, 3, f"send again, with max_wait={patience:g}")
        async with output.countdown("waiting for the channel", blocked.retry_after):
            result = await client.send(session_id, _CHANNEL, max_wait=patience)
        show(output, result)
        _show_requests(emulator, output)

        _step(output, 4, "what people would have received, by the emulator's ledger")
        for delivery in emulator.ledger:
            output.say(f"  {_line(delivery)}")
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
    output.tell("emulator", f"requests to send so far: {requests}")
    return requests


def _step(output: Output, number: int, text: str) -> None:
    output.say()
    output.say(f"{number}. {text}", style="bold cyan")


def _expect(found: T | None, otherwise: str) -> T:
    """Return what was ``found``; the story ends where it is nothing, or not so."""
    if not found:
        raise _UnexpectedError(otherwise)
    return found
