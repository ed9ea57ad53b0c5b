"""``kodmobi emulator``: an emulator as a program of its own, for clients in any language."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import os
import shlex
import signal
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from ulid import ULID

from kodmobi_async import ConfigurationError
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._output import clock, seconds
from kodmobi_async.cli._variables import API_KEY_VARIABLE
from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
    from pathlib import Path

    from kodmobi_async.cli._output import Output
    from kodmobi_async.emulator import Delivery

__all__ = ("build", "line", "serve")

_DEFAULT_PORT: Final = 8765
_LOOK_EVERY: Final = 0.1
"""Seconds between two looks at whether somebody still reads the output."""


def build(config: Path | None, settings: Mapping[str, object], sessions: Sequence[str]) -> Emulator:
    """Build an emulator from a file, and from settings that take precedence over it.

    It begins with the sessions of both; without any, with a new one.

    Raises:
        ConfigurationError: The file cannot be read, or something in it or in the settings is not allowed.
    """
    given = [{"session_id": _checked(session_id)} for session_id in sessions]
    table = {} if config is None else _read(config)
    begin: object = table.get("sessions", [])
    if isinstance(begin, list):
        begin = [*cast("list[object]", begin), *given] or [{"session_id": str(ULID())}]
    try:
        return Emulator.from_config({"port": _DEFAULT_PORT, **table, **settings, "sessions": begin})
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the file of --config cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"the file of --config is not TOML: {error}") from None


def _checked(session_id: str) -> str:
    try:
        Emulator.from_config({"sessions": [{"session_id": session_id}]})
    except ValueError:
        raise ConfigurationError("--session takes a ULID: 26 characters of Crockford's base 32") from None
    return session_id


async def serve(emulator: Emulator, output: Output, *, port_file: Path | None, quiet: bool) -> int:
    """Run an emulator until the process is told to stop, and show what it delivers."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows has no such signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _listening(emulator):
        if not _is_loopback(emulator.host):
            output.remark(f"warning: {emulator.host} is not only for this machine: others can use the emulator")
        with contextlib.nullcontext() if port_file is None else _kept(port_file, f"{emulator.port}\n"):
            _introduce(emulator, output, quiet=quiet)
            if quiet:
                await stop.wait()
            else:
                with _request_lines(output):
                    await _show_deliveries(emulator, output, stop)
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


@contextlib.contextmanager
def _kept(path: Path, text: str) -> Generator[None]:
    """Keep a file with ``text`` while the context lasts; whoever finds it finds it complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"the file of --port-file cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _introduce(emulator: Emulator, output: Output, *, quiet: bool) -> None:
    address = _address(emulator)
    if output.as_json:
        output.write_json(
            {
                "address": address,
                "port": emulator.port,
                "control": _control(emulator),
                "api_key": emulator.api_key,
                "secret_key": emulator.secret_key,
                "sessions": emulator.session_ids,
            }
        )
    elif quiet:
        output.say(address)
    else:
        _explain(emulator, output, address)


def _explain(emulator: Emulator, output: Output, address: str) -> None:
    output.say("An emulator of the kod.mobi API; no code reaches anybody.", style="bold")
    output.field("address", address)
    control = _control(emulator)
    if control is not None:
        output.field("inbox", f"{control} (open it in a browser; {control}/openapi.json for programs)")
    output.field("key", f"{emulator.api_key} (made up; a real key has no business here)")
    output.field("secret key", f"{emulator.secret_key} (for verify)")
    for session_id in emulator.session_ids:
        output.field("session", session_id)
    output.field("", f"sessions live for {seconds(emulator.session_lifetime)}: --session-lifetime")
    output.field("", f"a channel is blocked for {seconds(emulator.window)} after a send: --window")
    session_id, channel = emulator.session_ids[0], next(iter(emulator.channels), "sms")
    body = json.dumps({"session_id": session_id, "type": channel})
    output.paste(
        f"curl {address}/send \\",
        f"  -H {shlex.quote(f'x-api-key: {emulator.api_key}')} \\",
        f"  --data {shlex.quote(body)}",
    )
    output.paste(
        f"{API_KEY_VARIABLE}={shlex.quote(emulator.api_key)} kodmobi send \\",
        f"  {session_id} {channel} \\",
        f"  --base-url {address}" + ("" if _is_loopback(_reachable(emulator.host)) else " --allow-http"),
    )
    output.say()
    output.say("Codes delivered, until Ctrl-C:", style="bold")


@contextlib.contextmanager
def _request_lines(output: Output) -> Generator[None]:
    """Show a line for each request, on the side."""
    log = logging.getLogger("kodmobi_async.emulator")
    handler = _Lines(output)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _Lines(logging.Handler):
    """Writes a log as remarks."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        at = clock(datetime.fromtimestamp(record.created, UTC))
        self._output.remark(f"{at}  {record.getMessage()}", style="dim")


async def _show_deliveries(emulator: Emulator, output: Output, stop: asyncio.Event) -> None:
    arriving = emulator.deliveries()

    async def show() -> None:
        async for delivery in arriving:
            at = emulator.clock.date(delivery.at)
            if output.as_json:
                output.write_json({"delivery": _facts(delivery, at)})
            else:
                output.say(line(delivery, at))

    showing = asyncio.ensure_future(show())
    while not stop.is_set() and not output.reader_is_gone:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                await stop.wait()
    showing.cancel()


def line(delivery: Delivery, at: datetime) -> str:
    """Write a delivery for a person who wants the code."""
    return f"{clock(at)}  {delivery.session_id}  {delivery.to}  {delivery.channel:<8}  {delivery.code}"


def _facts(delivery: Delivery, at: datetime) -> dict[str, str]:
    return {
        "at": at.isoformat(),
        "session_id": delivery.session_id,
        "to": delivery.to,
        "channel": delivery.channel,
        "code": delivery.code,
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _reachable(host: str) -> str:
    """Return where a client on this machine finds a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 compared with, not listened on


def _root(emulator: Emulator) -> str:
    host = _reachable(emulator.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{emulator.port}"


def _address(emulator: Emulator) -> str:
    return f"{_root(emulator)}/session"


def _control(emulator: Emulator) -> str | None:
    return f"{_root(emulator)}/_emulator" if emulator.control else None
