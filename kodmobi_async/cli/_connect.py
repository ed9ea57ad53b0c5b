"""From options to a client: the key, the address, and the emulator that may stand in for the service."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

import attrs

from kodmobi_async import ConfigurationError, KodmobiClient, Limits, Timeout, normalize_session_id
from kodmobi_async.cli._variables import API_KEY_VARIABLE
from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from kodmobi_async import CooldownTracker
    from kodmobi_async.cli._output import Output

__all__ = ("Connection", "connected", "find_api_key", "find_secret_key", "opened", "reached")

_LONGEST_KEY_FILE: Final = 8_192


@attrs.frozen(kw_only=True)
class Connection:
    """How to reach the service; the options that ``send`` and ``channels`` share."""

    base_url: str | None
    """``None``: the one of the environment, or the documented one."""
    api_key: str | None
    """``None``: none is needed, as an emulator stands in for the service."""
    language: str | None
    timeout: float | None
    allow_http: bool


@contextlib.asynccontextmanager
async def connected(connection: Connection, output: Output, session_id: str | None) -> AsyncGenerator[KodmobiClient]:
    """Open a client: to the service, or to an emulator of this run, in which the session lives.

    Raises:
        ConfigurationError: The options make no sense.
        InvalidRequestError: This is no session.
    """
    canonical = None if session_id is None or connection.api_key is not None else normalize_session_id(session_id)
    async with reached(connection, output) as (client, enrol):
        if canonical is not None:
            enrol(canonical)
        yield client


@contextlib.asynccontextmanager
async def reached(
    connection: Connection,
    output: Output,
    *,
    limits: Limits = Limits(),  # noqa: B008 frozen
    cooldowns: CooldownTracker | None = None,
) -> AsyncGenerator[tuple[KodmobiClient, Callable[[str], None]]]:
    """Open a client, and a way to let a session live in the emulator, if it is one that stands in for the service.

    Raises:
        ConfigurationError: The options make no sense.
    """
    async with opened(connection, output, limits=limits, cooldowns=cooldowns) as (client, emulator):
        known: set[str] = set()

        def enrol(session_id: str) -> None:
            if emulator is not None and session_id not in known:  # a second time, its windows would be forgotten
                known.add(emulator.add_session(session_id))

        yield client, enrol


@contextlib.asynccontextmanager
async def opened(
    connection: Connection,
    output: Output,
    *,
    secret_key: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 frozen
    cooldowns: CooldownTracker | None = None,
) -> AsyncGenerator[tuple[KodmobiClient, Emulator | None]]:
    """Open a client to the service, or to an emulator that stands in for it.

    Raises:
        ConfigurationError: The options make no sense.
    """
    timeout = Timeout() if connection.timeout is None else Timeout(total=connection.timeout)
    if connection.api_key is not None:
        async with KodmobiClient(
            connection.api_key,
            secret_key=secret_key,
            base_url=connection.base_url,
            timeout=timeout,
            limits=limits,
            cooldowns=cooldowns,
            language=connection.language,
            allow_http=connection.allow_http,
        ) as client:
            yield client, None
        return
    if connection.base_url is not None:
        raise ConfigurationError("--emulate and --base-url exclude each other")
    async with Emulator() as emulator:
        output.remark(f"emulated: {emulator.base_url} stands in for the service; no code reaches anybody")
        async with KodmobiClient(
            emulator.api_key,
            secret_key=emulator.secret_key,
            base_url=emulator.base_url,
            timeout=timeout,
            limits=limits,
            cooldowns=cooldowns,
            language=connection.language,
        ) as client:
            yield client, emulator


def find_secret_key(path: Path | None, output: Output) -> str | None:
    """Return the secret key from a file; ``None`` leaves it to the environment.

    Raises:
        ConfigurationError: The file is of no use.
    """
    return None if path is None else _read_key(path, output, "--secret-key-file")


def find_api_key(path: Path | None, output: Output) -> str:
    """Return the key from a file, or else from the environment.

    Raises:
        ConfigurationError: There is none, or the file is of no use.
    """
    if path is not None:
        return _read_key(path, output, "--api-key-file")
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigurationError(
            f"no API key: set {API_KEY_VARIABLE}, or name a file with --api-key-file; --emulate needs none"
        )
    return key


def _read_key(path: Path, output: Output, option: str) -> str:
    """Return the key that a file holds.

    No message shows what is in the file, nor its name: that might be a key put in the wrong place.

    Raises:
        ConfigurationError: The file cannot be read, or holds something else than one line.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST_KEY_FILE)
    except OSError as error:
        raise ConfigurationError(f"the file of {option} cannot be read: {error.strerror}") from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        output.remark(f"warning: other users can read the file of {option}; chmod 600 keeps them out")
    key = content.decode("ascii", errors="replace").strip()
    if not key:
        raise ConfigurationError(f"the file of {option} is empty")
    if len(key.split()) > 1:
        raise ConfigurationError(f"the file of {option} holds more than one line or word: it takes the key alone")
    return key
