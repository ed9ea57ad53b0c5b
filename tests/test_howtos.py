"""The how-tos in other languages run as they stand, against ``kodmobi emulator``, where the language is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kodmobi_async

HOWTOS = Path(__file__).parents[1] / "docs" / "howto"


def code(howto: str, language: str) -> str:
    text = (HOWTOS / f"{howto}.md").read_text("utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(block)


def program(name: str, language: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{language} is not installed: there is no {name}")
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return one in which the command ``kodmobi`` is the package under test."""
    if sys.platform == "win32":
        pytest.skip("the command is a shell script here")
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "kodmobi"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kodmobi_async "$@"\n', "utf-8")
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(kodmobi_async.__file__).parents[1]),
    }


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_one_for_javascript(tmp_path: Path, environment: dict[str, str]) -> None:
    node = program("node", "JavaScript")
    (tmp_path / "login.test.mjs").write_text(code("javascript", "js"), "utf-8")
    assert re.search(r"^. pass 3$", run([node, "--test"], tmp_path, environment), re.MULTILINE)


def test_the_one_for_go(tmp_path: Path, environment: dict[str, str]) -> None:
    go = program("go", "Go")
    (tmp_path / "go.mod").write_text("module login\n\ngo 1.18\n", "utf-8")
    (tmp_path / "login_test.go").write_text(code("go", "go"), "utf-8")
    settings = {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-count=1"}
    assert run([go, "test", "-v"], tmp_path, environment | settings).count("--- PASS") == 3


def test_the_one_for_php(tmp_path: Path, environment: dict[str, str]) -> None:
    phpunit = program("phpunit", "PHP")
    (tmp_path / "LoginTest.php").write_text(code("php", "php"), "utf-8")
    assert "OK (3 tests" in run([phpunit, "LoginTest.php"], tmp_path, environment)
