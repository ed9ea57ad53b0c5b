"""The options of ``kodmobi emulator``.

Typer reads the annotations of a command while the program runs, so this module's are not postponed.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from kodmobi_async.cli._emulator import build, serve
from kodmobi_async.cli._output import Output

__all__ = ("emulator",)


def emulator(
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="TOML file with settings, sessions and faults; options take precedence."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65_535, help="Port to listen on; 0: any free one.", show_default="8765"
        ),
    ] = None,
    port_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the port into this file, once it is open.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="A made-up key that opens it.", show_default="emulator-key")
    ] = None,
    secret_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The made-up key for verify.", show_default="emulator-secret-key"),
    ] = None,
    session: Annotated[
        list[str] | None,
        typer.Option(metavar="ULID", help="A session to begin with; may be repeated.", show_default="a new one"),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A channel of the project; may be repeated.",
            show_default="telegram, whatsapp, sms, email",
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds a channel is blocked after a send.", show_default="60")
    ] = None,
    session_lifetime: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds that a session lives.", show_default="180")
    ] = None,
    code_length: Annotated[
        int | None, typer.Option(metavar="N", help="Characters of a code, from 4 to 6.", show_default="6")
    ] = None,
    max_checks: Annotated[
        int | None, typer.Option(metavar="N", help="Wrong codes that end a session.", show_default="5")
    ] = None,
    block_after: Annotated[
        int | None, typer.Option(metavar="N", help="Wrong codes in a row that block a user.", show_default="never")
    ] = None,
    require_active: Annotated[
        bool | None,
        typer.Option("--require-active", metavar="", help="Refuse a channel whose bot the user has not started."),
    ] = None,
    challenge: Annotated[
        bool | None,
        typer.Option("--challenge", metavar="", help="Demand the token of a CAPTCHA; any is accepted once."),
    ] = None,
    create_in_window: Annotated[
        Literal["quiet", "refuse"] | None,
        typer.Option(help="What create does while the channel is blocked.", show_default="quiet: does not send"),
    ] = None,
    create_existing: Annotated[
        Literal["send", "quiet"] | None,
        typer.Option(help="What create does if the user has a session already.", show_default="send"),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="Deliveries and requests to remember.", show_default="10000")
    ] = None,
    control: Annotated[
        Literal["on", "off"] | None,
        typer.Option(help="The inbox and the control interface under /_emulator.", show_default="on"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", metavar="", help="Print the address and nothing else.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print the address and keys, then each code, as lines of JSON.")
    ] = False,
) -> int:
    """Run an emulator of the API until Ctrl-C, for clients in any language.

    Its inbox, a page at /_emulator, shows the codes as they arrive.
    """
    given = {
        "host": host,
        "port": port,
        "api_key": api_key,
        "secret_key": secret_key,
        "channels": channel or None,
        "window": window,
        "session_lifetime": session_lifetime,
        "code_length": code_length,
        "max_checks": max_checks,
        "block_after": block_after,
        "require_active": require_active,
        "challenge": challenge,
        "create_in_window": create_in_window,
        "create_existing": create_existing,
        "keep": keep,
        "control": None if control is None else control == "on",
    }
    settings = {name: value for name, value in given.items() if value is not None}
    server = build(config, settings, session or [])
    return asyncio.run(serve(server, Output(as_json=as_json), port_file=port_file, quiet=quiet))
