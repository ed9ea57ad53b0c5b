"""The commands of a login, and their options.

Typer reads the annotations of the commands while the program runs, so this module's are not postponed.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from kodmobi_async.cli import _login, _send
from kodmobi_async.cli._connect import Connection, find_api_key, find_secret_key
from kodmobi_async.cli._options import (
    AllowHttp,
    ApiKeyFile,
    AsJson,
    BaseUrl,
    ChannelName,
    Emulate,
    Language,
    OptionalSessionId,
    Recipient,
    SecretKeyFile,
    SessionId,
    TimeoutSeconds,
    ToChannel,
)
from kodmobi_async.cli._output import Output
from kodmobi_async.cli._variables import SECRET_KEY_VARIABLE

__all__ = ("channels", "check", "create", "login", "send", "settings", "verify")


def create(
    to: Recipient,
    *,
    channel: ToChannel = None,
    send: Annotated[bool, typer.Option("--send", metavar="", help="Send a code, too.")] = False,
    max_wait: Annotated[float, typer.Option(metavar="S", help="With --send, seconds to wait for the cooldown.")] = 0.0,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Create a recipient's session, or show the one that lives; with --send, send its first code."""
    output = Output(as_json=as_json)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=emulate, allow_http=allow_http)
    return asyncio.run(_login.create(connection, output, to, channel, send=send, max_wait=max_wait))


def send(
    session_id: SessionId,
    channel: ChannelName,
    *,
    max_wait: Annotated[
        float, typer.Option(metavar="S", help="Seconds to wait for the channel's cooldown; inf: as long as it takes.")
    ] = 0.0,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Re-send the code of a session over a channel.

    The API key comes from the variable KODMOBI_API_KEY or from --api-key-file.
    """
    output = Output(as_json=as_json)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=emulate, allow_http=allow_http)
    return asyncio.run(_send.send(connection, output, session_id, channel, max_wait))


def check(
    session_id: SessionId,
    *,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Check the code of a session; it is asked for, or read from standard input."""
    output = Output(as_json=as_json)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=False, allow_http=allow_http)
    return asyncio.run(_login.check_code(connection, output, session_id))


def verify(
    *,
    secret_key_file: SecretKeyFile = None,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Redeem the token of a right code; it is asked for, or read from standard input."""
    output = Output(as_json=as_json)
    secret_key = find_secret_key(secret_key_file, output)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=False, allow_http=allow_http)
    return asyncio.run(_login.verify_token(connection, output, secret_key))


def settings(
    session_id: OptionalSessionId = None,
    *,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Show what a login page has to know: what codes look like, and whether a CAPTCHA is due."""
    output = Output(as_json=as_json)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=emulate, allow_http=allow_http)
    return asyncio.run(_login.show_settings(connection, output, session_id))


def channels(
    session_id: OptionalSessionId = None,
    *,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """List the project's channels; for a session, with the seconds until each is free.

    The API key comes from the variable KODMOBI_API_KEY or from --api-key-file.
    """
    output = Output(as_json=as_json)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=emulate, allow_http=allow_http)
    return asyncio.run(_send.list_channels(connection, output, session_id))


def login(
    to: Recipient,
    *,
    channel: ToChannel = None,
    secret_key_file: SecretKeyFile = None,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Do a whole login: send a code, ask for it, check it, and redeem its token if there is a secret key."""
    output = Output(as_json=as_json)
    secret_key = find_secret_key(secret_key_file, output)
    connection = _connection(base_url, api_key_file, language, timeout, output, emulate=emulate, allow_http=allow_http)
    can_verify = secret_key is not None or bool(os.environ.get(SECRET_KEY_VARIABLE, "").strip())
    return asyncio.run(_login.log_in(connection, output, to, channel, secret_key=secret_key, can_verify=can_verify))


def _connection(
    base_url: str | None,
    api_key_file: Path | None,
    language: str | None,
    timeout: float | None,
    output: Output,
    *,
    emulate: bool,
    allow_http: bool,
) -> Connection:
    return Connection(
        base_url=base_url,
        api_key=None if emulate else find_api_key(api_key_file, output),
        language=language,
        timeout=timeout,
        allow_http=allow_http,
    )
