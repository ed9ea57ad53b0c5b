"""The commands of the documentation run, against an emulator."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import typer
from pages import PAGES, blocks

import kodmobi_async
from kodmobi_async.cli._app import _app
from kodmobi_async.testing import running_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kodmobi_async.testing import RunningEmulator

SESSION: Final = "01K8N1VMPN0EE389K72YW0CBM2"
PHONE: Final = "+14155550123"

unix = pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a Unix shell")


def commands(page: str) -> list[str]:
    """Return the lines of a page's shell blocks that call the program, without their comments."""
    lines = "".join(blocks(page, "sh")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("kodmobi ")]


COMMANDS: Final = [(page, command) for page in PAGES for command in commands(page)]


@pytest.fixture
def emulator() -> Iterator[RunningEmulator]:
    with running_emulator() as emulator:
        emulator.add_session(SESSION, to=PHONE)
        yield emulator


@pytest.fixture
def environment(tmp_path: Path, emulator: RunningEmulator) -> dict[str, str]:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "kodmobi"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kodmobi_async "$@"\n', "utf-8")
    program.chmod(0o755)
    return {
        **os.environ,
        "KODMOBI_API_KEY": emulator.api_key,
        "KODMOBI_BASE_URL": emulator.base_url,
        "KODMOBI_SECRET_KEY": emulator.secret_key,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(kodmobi_async.__file__).parents[1]),
    }


def run(command: str, folder: Path, environment: dict[str, str], typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-ec", command],
        input=typed,
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_and_option_exists(page: str, command: str) -> None:
    words = shlex.split(re.split(r"[|>]", command)[0])[1:]
    program = typer.main.get_command(_app)
    with program.make_context("kodmobi", words) as context:
        assert context.command is program, page
        subcommand = program.get_command(context, words[0])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue] it is a group
        assert subcommand is not None, f"{page}: {command}"
        subcommand.make_context(words[0], words[1:], parent=context)


@unix
def test_the_commands_for_a_login_run_in_their_order(
    tmp_path: Path, environment: dict[str, str], emulator: RunningEmulator
) -> None:
    token = ""
    for command in commands("docs/howto/command-line.md"):
        if command == "kodmobi emulator" or command.startswith("kodmobi bulk"):
            continue  # until Ctrl-C; has a page of its own
        if command.startswith("kodmobi login"):
            continue  # asks a person for the code, as the tests of the command line do
        typed = token if command == "kodmobi verify" else emulator.last_code(PHONE) if "check" in command else ""
        done = run(command, tmp_path, environment, f"{typed}\n")
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command.startswith("kodmobi check"):
            token = done.stdout.split()[-1]


@unix
def test_the_commands_for_many_sessions_run(tmp_path: Path, environment: dict[str, str]) -> None:
    for block in blocks("docs/howto/bulk.md", "sh"):
        done = run(block, tmp_path, environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.journal").is_file()


@unix
def test_the_requests_to_the_emulator_are_answered(
    tmp_path: Path, environment: dict[str, str], emulator: RunningEmulator
) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    block = next(block for block in blocks("docs/howto/emulator.md", "sh") if "curl" in block)
    origin = emulator.base_url.removesuffix("/session")
    done = run(block.replace("http://127.0.0.1:8765", origin).replace("wait=5", "wait=0"), tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout
    assert emulator.pending_faults == 1
