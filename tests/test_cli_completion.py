"""What a shell is told when somebody presses Tab, and the help's examples."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

import kodmobi_async
from kodmobi_async.cli import main
from kodmobi_async.cli._app import _app

if TYPE_CHECKING:
    from collections.abc import Iterator

bash = pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="there is no bash")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("kodmobi s", {"send", "settings"}), ("kodmobi send --em", {"--emulate"}), ("kodmobi --ver", {"--version"})],
)
def test_a_shell_is_told_what_may_follow(
    line: str, expected: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_KODMOBI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert main([]) == 0
    assert set(capsys.readouterr().out.split()) == expected


@bash
def test_it_is_installed_by_an_option(tmp_path: Path) -> None:
    program = tmp_path / "kodmobi"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kodmobi_async "$@"\n', "utf-8")
    program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(kodmobi_async.__file__).parents[1]),
    }
    # a command after it keeps the shell there, whose name says which shell it is
    subprocess.run(
        ["bash", "-c", "kodmobi --install-completion && true"],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    script = (home / ".bash_completions" / "kodmobi.sh").read_text("utf-8")
    assert "_KODMOBI_COMPLETE=complete_bash" in script
    assert "kodmobi.sh" in (home / ".bashrc").read_text("utf-8")


def commands() -> Iterator[tuple[str, Any]]:
    program: Any = typer.main.get_command(_app)
    yield from program.commands.items()


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_the_help_of_a_command_has_an_example_that_is_right(name: str, command: Any) -> None:
    found = re.fullmatch(rf"Example: kodmobi {name} ?(.*)", command.epilog)
    assert found is not None
    command.make_context(name, shlex.split(found[1].partition(">")[0]))
