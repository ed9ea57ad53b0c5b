"""The program ``kodmobi``: its commands, and what becomes of their errors.

Typer reads the annotations of the commands while the program runs, so this module's are not postponed.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer

from kodmobi_async import KodmobiError, Outcome
from kodmobi_async._version import __version__
from kodmobi_async.cli import _bulk_commands, _login_commands
from kodmobi_async.cli._emulate import demonstrate
from kodmobi_async.cli._emulator_options import emulator
from kodmobi_async.cli._exits import MEANINGS, ExitCode, exit_code, facts, sentence
from kodmobi_async.cli._output import Output

__all__ = ("run",)

_PROGRAM: Final = "kodmobi"
_COMPLETION: Final = "_KODMOBI_COMPLETE"
"""The variable with which a shell asks what may follow, when somebody presses Tab."""

# Typer names no class of its own for all that can be wrong with a command line; it is what BadParameter derives from.
_UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

_app: Final = typer.Typer(
    help="Log people in with kod.mobi: send one-time codes, never two on one channel in its window, and check them.",
    epilog="Exit codes:\n" + "\n".join(f"{code:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(args: Sequence[str]) -> int:
    """Run the command line ``args`` and return the exit code."""
    output = Output(as_json="--json" in args)
    command = typer.main.get_command(_app)
    try:
        if _COMPLETION in os.environ:
            command.main(list(args), _PROGRAM)  # says what may follow, and ends
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
    except SystemExit:  # how rich ends when nobody reads the help any more, and Typer when it has served a shell
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


def demo(
    *,
    window: Annotated[
        float, typer.Option(metavar="S", min=1, max=60, help="Seconds the emulator blocks a channel, instead of 60.")
    ] = 5.0,
    web: Annotated[bool, typer.Option("--web", metavar="", help="Show a login page in your browser instead.")] = False,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="With --web, the page's port; 0: any free one.")
    ] = 0,
) -> int:
    """Show the main job: send, be blocked, wait, send again; against an emulator."""
    if web:
        from kodmobi_async.cli._web_demo import demonstrate_in_browser  # noqa: PLC0415 its web server costs a start

        return asyncio.run(demonstrate_in_browser(Output(), window, port))
    return asyncio.run(demonstrate(Output(), window))


for _command, _example in (
    (_login_commands.login, "login +14155550123 --emulate"),
    (_login_commands.create, "create +14155550123 --channel sms --send"),
    (_login_commands.send, "send 01K8N1VMPN0EE389K72YW0CBM2 telegram --emulate"),
    (_login_commands.check, "check 01K8N1VMPN0EE389K72YW0CBM2"),
    (_login_commands.verify, "verify --secret-key-file secret.key"),
    (_login_commands.channels, "channels 01K8N1VMPN0EE389K72YW0CBM2"),
    (_login_commands.settings, "settings --json"),
    (_bulk_commands.bulk, "bulk rows.csv --journal run.journal --failed again.csv"),
    (_bulk_commands.example_input, "example-input --count 1000 > rows.csv"),
    (emulator, "emulator --port 8765 --window 5"),
    (demo, "demo --web"),
):
    _app.command(epilog=f"Example: {_PROGRAM} {_example}")(_command)
