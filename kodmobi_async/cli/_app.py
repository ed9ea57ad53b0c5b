"""The commands and their options; one small function each, the work is done elsewhere.

Typer reads the annotations of the commands while the program runs, so this module's are not postponed.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from kodmobi_async._values.addresses import BASE_URL_VARIABLE, DEFAULT_BASE_URL
from kodmobi_async._values.errors import ConfigurationError, KodmobiError, Outcome
from kodmobi_async._values.settings import SECRET_KEY_VARIABLE
from kodmobi_async._version import __version__
from kodmobi_async.cli._bulk import Options, check_rows
from kodmobi_async.cli._bulk import bulk as send_rows
from kodmobi_async.cli._columns import Columns
from kodmobi_async.cli._connect import Connection, find_api_key, find_secret_key
from kodmobi_async.cli._emulate import demonstrate, serve
from kodmobi_async.cli._exits import MEANINGS, ExitCode, exit_code, facts, sentence
from kodmobi_async.cli._files import Files
from kodmobi_async.cli._login import check_code, log_in, show_settings, verify_token
from kodmobi_async.cli._login import create as create_session
from kodmobi_async.cli._output import Output
from kodmobi_async.cli._rows import Input, example_rows
from kodmobi_async.cli._send import list_channels
from kodmobi_async.cli._send import send as send_code
from kodmobi_async.emulator import Emulator

__all__ = ("run",)

_PROGRAM: Final = "kodmobi"

# Typer names no class of its own for all that can be wrong with a command line; it is what BadParameter derives from.
_UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

_app: Final = typer.Typer(
    help="Log people in with kod.mobi: send one-time codes, never two on one channel in its window, and check them.",
    epilog="Exit codes:\n" + "\n".join(f"{code:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(args: Sequence[str]) -> int:
    """Run the command line ``args`` and return the exit code."""
    output = Output(as_json="--json" in args)
    command = typer.main.get_command(_app)
    try:
        with command.make_context(_PROGRAM, list(args) or ["--help"]) as context:
            code: int = command.invoke(context)
            return code
    except typer.Exit as leave:
        return leave.exit_code if args else ExitCode.USAGE
    except _UsageError as error:
        message = error.format_message()
        _fail(output, {"type": "UsageError", "message": message, "outcome": Outcome.NOT_SENT.value}, message)
        return ExitCode.USAGE
    except KodmobiError as error:
        _fail(output, facts(error), sentence(error))
        return exit_code(error)
    except SystemExit:  # how rich ends the process when nobody reads the help any more
        return ExitCode.SENT


def _fail(output: Output, known: dict[str, object], message: str) -> None:
    output.error(message)
    if output.as_json:
        output.write_json({"error": known})


def _show_version(wanted: bool) -> None:
    if wanted:
        Output().say(f"{_PROGRAM} {__version__}")
        raise typer.Exit


@_app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


SessionId = Annotated[str, typer.Argument(metavar="SESSION_ID", help="The session's ULID.", show_default=False)]
ChannelName = Annotated[
    str, typer.Argument(metavar="CHANNEL", help="telegram, whatsapp, sms, email, ...", show_default=False)
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address and path prefix of the API.",
        show_default=f"{BASE_URL_VARIABLE}, else {DEFAULT_BASE_URL}",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="File with the API key, instead of the variable KODMOBI_API_KEY."),
]
Emulate = Annotated[
    bool, typer.Option("--emulate", metavar="", help="Start an emulator for this run and use it; needs no key.")
]
Language = Annotated[str | None, typer.Option(metavar="L", help="Of the service's messages: en or ru.")]
TimeoutSeconds = Annotated[
    float | None, typer.Option(metavar="S", help="Seconds for all attempts together.", show_default="30")
]
AllowHttp = Annotated[
    bool,
    typer.Option("--allow-http", metavar="", help="Allow http:// to another machine: the key travels in clear text."),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Write the result, or the error, as JSON.")]


@_app.command()
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
    return asyncio.run(send_code(connection, output, session_id, channel, max_wait))


def _file(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="FILE", help=text)
    return option


@_app.command()
def bulk(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV (session_id,channel; a header is optional) or JSON Lines; gzip and UTF-16 are unpacked;"
            " - for standard input.",
            show_default=False,
        ),
    ],
    *,
    channel: Annotated[str | None, typer.Option(metavar="CHANNEL", help="For rows that name none.")] = None,
    session_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column, or JSON key, of the sessions.", show_default="session_id"),
    ] = None,
    channel_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column, or JSON key, of the channels.", show_default="channel, or type"),
    ] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Sends under way at most.")] = 64,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Sends a second at most, evenly spaced.")] = None,
    max_wait: Annotated[
        float, typer.Option(metavar="S", help="Seconds that a row waits aside for its channel's cooldown.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Check every row; send nothing.")] = False,
    journal: Annotated[Path | None, _file("Keep what was done there; the same command then goes on.")] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", metavar="", help="Send again what the journal has as refused, not sent or too soon."
        ),
    ] = False,
    output_file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write a line of JSON about each row there.")
    ] = None,
    failed: Annotated[Path | None, _file("Write the rows there that may be sent again.")] = None,
    unknown: Annotated[Path | None, _file("Write the rows there of which nobody knows.")] = None,
    queue: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have workers send: the redis:// address of their Taskiq queue."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", metavar="", help="No progress and no summary; what is wrong is still told.")
    ] = False,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    emulate: Emulate = False,
    language: Language = None,
    timeout: TimeoutSeconds = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> int:
    """Re-send the codes of many sessions, a row each.

    Ctrl-C begins nothing more and waits for what is under way; once more ends at once.
    The API key comes from the variable KODMOBI_API_KEY or from --api-key-file.
    """
    output = Output(as_json=as_json)
    options = Options(
        source=file,
        channel=channel,
        concurrency=concurrency,
        rate=rate,
        max_wait=max_wait,
        journal=journal,
        retry_failed=retry_failed,
        files=Files(output=output_file, failed=failed, unknown=unknown),
        quiet=quiet,
        queue=queue,
    )
    if queue is not None and emulate:
        raise ConfigurationError("--queue and --emulate exclude each other: the workers send, not this program")
    if queue is not None and max_wait > 0:
        raise ConfigurationError(
            "--queue and --max-wait exclude each other: the workers wait for cooldowns by themselves"
        )
    connection = Connection(
        base_url=base_url,
        api_key=None if emulate or dry_run or queue is not None else find_api_key(api_key_file, output),
        language=language,
        timeout=timeout,
        allow_http=allow_http,
    )
    with Input.open(file, channel, Columns(session_column, channel_column)) as source:
        if dry_run:
            return check_rows(source, output, quiet=quiet)
        return asyncio.run(send_rows(connection, output, source, options))


@_app.command()
def example_input(
    *,
    count: Annotated[int, typer.Option(metavar="N", min=1, max=10_000_000, help="How many rows.")] = 1_000,
) -> int:
    """Write an example input for bulk: CSV with made-up sessions.

    Use it with bulk --emulate; the service knows none of them.
    """
    output = Output()
    for line in example_rows(count):
        output.say(line)
    return ExitCode.SENT


@_app.command()
def channels(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION_ID]", help="The session's ULID.", show_default=False)
    ] = None,
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
    return asyncio.run(list_channels(connection, output, session_id))


Recipient = Annotated[
    str,
    typer.Argument(metavar="TO", help="Phone number with + and country code, or email address.", show_default=False),
]
ToChannel = Annotated[
    str | None, typer.Option("--channel", metavar="C", help="telegram, sms, ...", show_default="the service's choice")
]
SecretKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="File with the secret key, instead of the variable KODMOBI_SECRET_KEY."),
]


@_app.command()
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
    return asyncio.run(create_session(connection, output, to, channel, send=send, max_wait=max_wait))


@_app.command()
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
    return asyncio.run(check_code(connection, output, session_id))


@_app.command()
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
    return asyncio.run(verify_token(connection, output, secret_key))


@_app.command()
def settings(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[SESSION_ID]", help="The session's ULID.", show_default=False)
    ] = None,
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
    return asyncio.run(show_settings(connection, output, session_id))


@_app.command()
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
    return asyncio.run(log_in(connection, output, to, channel, secret_key=secret_key, can_verify=can_verify))


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


@_app.command()
def emulator(
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="Port to listen on; 0: any free one.")
    ] = 8765,
    api_key: Annotated[str, typer.Option(metavar="KEY", help="A made-up key that opens it.")] = "emulator-key",
    session: Annotated[
        list[str] | None,
        typer.Option(metavar="ULID", help="A session to begin with; may be repeated.", show_default="a new one"),
    ] = None,
    window: Annotated[float, typer.Option(metavar="S", help="Seconds a channel is blocked after a send.")] = 60.0,
    session_lifetime: Annotated[float, typer.Option(metavar="S", help="Seconds that a session lives.")] = 180.0,
    quiet: Annotated[bool, typer.Option("--quiet", metavar="", help="Print the address and nothing else.")] = False,
) -> int:
    """Run an emulator of the API until Ctrl-C, for clients in any language."""
    try:
        server = Emulator(api_key=api_key, host=host, port=port, window=window, session_lifetime=session_lifetime)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return asyncio.run(serve(server, Output(), session or [], quiet=quiet))


@_app.command()
def demo(
    *,
    window: Annotated[
        float, typer.Option(metavar="S", min=1, max=60, help="Seconds the emulator blocks a channel, instead of 60.")
    ] = 5.0,
) -> int:
    """Show the main job: send, be blocked, wait, send again; against an emulator."""
    return asyncio.run(demonstrate(Output(), window))
