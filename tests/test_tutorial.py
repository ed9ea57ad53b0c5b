"""The tutorial, followed word for word."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from pages import PAGES, REPOSITORY, blocks
from ports import kept_port

import kodmobi_async

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = "docs/tutorial.md"
PHONE: Final = "+14155550123"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the page's commands are those of a Unix shell")


def files() -> dict[str, str]:
    """Return what the reader is told to save, by name."""
    return dict(re.findall(r"as `(\w+\.py)`:\n\n```python\n(.*?)^```$", PAGES[PAGE], re.DOTALL | re.MULTILINE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in files().items():
        (tmp_path / name).write_text(content, "utf-8")
    return tmp_path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return one whose programs are those of this Python, and ``kodmobi`` the package under test."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, module in (("kodmobi", "kodmobi_async"), ("uvicorn", "uvicorn"), ("pytest", "pytest")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n', "utf-8")
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(kodmobi_async.__file__).parents[1]),
    }


def test_the_page_has_its_files_and_commands() -> None:
    assert list(files()) == ["service.py", "test_service.py"]
    assert len(blocks(PAGE, "python")) == 2
    assert len(blocks(PAGE, "sh")) == 6


def test_the_tests_that_it_ends_with_pass(folder: Path, environment: dict[str, str]) -> None:
    command = blocks(PAGE, "sh")[-1]
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


@contextmanager
def running(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        ["sh", "-ec", f"{command.rstrip().rpartition(chr(10))[0]}\nexec {command.rstrip().rpartition(chr(10))[2]}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    for _ in range(300):
        try:
            httpx.get(url, timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing answers at {url}")


def test_the_service_and_the_emulator_log_somebody_in(folder: Path, environment: dict[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    with kept_port() as first, kept_port() as second:
        _, *shells, _ = [block.replace("8765", str(first)).replace("8000", str(second)) for block in blocks(PAGE, "sh")]
        emulator, service, by_hand, again = shells
        with running(emulator, folder, environment), running(service, folder, environment):
            wait_for(f"http://127.0.0.1:{first}/_emulator/health")
            wait_for(f"http://127.0.0.1:{second}/")
            assert "<form" in httpx.get(f"http://127.0.0.1:{second}/").text

            def type_in(commands: str) -> str:
                done = subprocess.run(
                    ["sh", "-ec", commands],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    encoding="utf-8",
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                return done.stdout

            shown = type_in(by_hand)
            assert '"sent_to":"sms"' in shown
            code = re.findall(r'"code":\s*"(\w+)"', shown)[-1]
            refused = type_in(again)
            assert refused.startswith("HTTP/1.1 429")
            assert re.search(r"^retry-after: \d+\s*$", refused, re.MULTILINE | re.IGNORECASE)
            check = f"curl --silent --cookie cookies http://127.0.0.1:{second}/login/check"
            assert PHONE in type_in(f'{check} --json \'{{"code": "{code}"}}\'')


@pytest.mark.skipif(not os.environ.get("KODMOBI_THOROUGH"), reason="a fresh virtual environment takes a while")
def test_it_works_in_a_fresh_virtual_environment(folder: Path) -> None:
    first, *_, last = blocks(PAGE, "sh")
    assert "pip install 'kodmobi_async[cli,fastapi]' uvicorn" in first
    commands = first.replace("'kodmobi_async[", f"'{REPOSITORY}[") + last
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=folder, capture_output=True, encoding="utf-8", timeout=900, check=False
    )
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
