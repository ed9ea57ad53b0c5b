"""The commands for many sessions, and their options.

Typer reads the annotations of the commands while the program runs, so this module's are not postponed.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from kodmobi_async import ConfigurationError
from kodmobi_async.cli._bulk import bulk as send_rows
from kodmobi_async.cli._bulk import check_rows
from kodmobi_async.cli._bulk_options import Options
from kodmobi_async.cli._columns import Columns
from kodmobi_async.cli._connect import Connection, find_api_key
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.cli._files import Files
from kodmobi_async.cli._options import (
    AllowHttp,
    ApiKeyFile,
    AsJson,
    BaseUrl,
    Emulate,
    Language,
    TimeoutSeconds,
    file_option,
)
from kodmobi_async.cli._output import Output
from kodmobi_async.cli._rows import Input, example_rows

__all__ = ("bulk", "example_input")

_OWN: Final = 64
"""Sends in flight."""
_OUT: Final = 4096
"""Rows in the queue, or with a worker."""


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
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Sends in flight at most; with --queue, rows that are out at most.",
            show_default="64; 4096 with --queue",
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Sends a second at most, evenly spaced.")] = None,
    max_wait: Annotated[
        float, typer.Option(metavar="S", help="Seconds that a row waits for its channel's cooldown.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Check every row; send nothing.")] = False,
    journal: Annotated[Path | None, file_option("Keep what was done there; the same command then goes on.")] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", metavar="", help="Send again what the journal has as refused, not sent or too soon."
        ),
    ] = False,
    output_file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write a line of JSON about each row there.")
    ] = None,
    failed: Annotated[Path | None, file_option("Write the rows there that may be sent again.")] = None,
    unknown: Annotated[Path | None, file_option("Write the rows there whose outcome is unknown.")] = None,
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

    Ctrl-C begins nothing more and waits for what is in flight; once more ends at once.
    The API key comes from the variable KODMOBI_API_KEY or from --api-key-file.
    """
    output = Output(as_json=as_json)
    options = Options(
        source=file,
        channel=channel,
        concurrency=(_OWN if queue is None else _OUT) if concurrency is None else concurrency,
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
