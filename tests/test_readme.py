"""What the README says is true: its examples run, and its tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest
from test_house import PACKAGE, ROOMS

import kodmobi_async
from kodmobi_async import KodmobiClient, KodmobiError, Limits, Outcome, RetryPolicy, Timeout
from kodmobi_async.cli._exits import ExitCode
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.redis import RedisCooldownTracker
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["pytester"]

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block_with(words: str) -> str:
    (block,) = (block for block in blocks("python") if words in block)
    return block


def table(first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this title."""
    lines = iter(README.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            break
    next(lines)
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def loaded(source: str) -> dict[str, Any]:
    module = types.ModuleType("example")
    exec(compile(source, "README.md", "exec"), module.__dict__)
    return module.__dict__


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, "Sent. You can ask again in 60 s"),
        (Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=17), "Please wait 17 s"),
        (Fault.refuse("ERROR_BLOCKED"), "Sorry, that did not work"),
        (Fault.answer(200, body=b"{}", process=True), "Look for your code"),
    ],
    ids=["sent", "too soon", "refused", "unreadable"],
)
async def test_the_example_of_a_service_tells_the_user_the_truth(
    emulator: Emulator, client: KodmobiClient, session: str, fault: Fault | None, words: str
) -> None:
    if fault is not None:
        emulator.script(fault)
    resend: Callable[..., Any] = loaded(block_with("async def resend("))["resend"]
    assert await resend(client, session) == words


async def test_the_example_of_many_sends_names_what_became_of_each(
    emulator: Emulator, client: KodmobiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = [emulator.add_session() for _ in range(3)]
    resend_to_all: Callable[..., Any] = loaded(block_with("resend_to_all"))["resend_to_all"]
    emulator.expire_session(sessions[2])
    await resend_to_all(client, sessions)
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.partition(" ")[0] for line in lines] == sorted(sessions)
    assert sum(line.endswith(" sent") for line in lines) == 2 == len(emulator.ledger)


def test_the_example_of_a_test_passes_as_it_stands() -> None:
    command = [sys.executable, "-c", block_with("with asyncio.Runner(loop_factory=VirtualClockLoop)")]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_of_a_login_logs_somebody_in(capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded(block_with("async def log_in("))
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(example["main"]())
    *counted, wrong, done = capsys.readouterr().out.splitlines()
    assert counted == [f"another code in {left} s" for left in (60, 40, 20, 0)]
    assert wrong == "that code is wrong"
    assert done == "+14155550123 is logged in"


async def test_the_example_of_a_login_page_answers(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_SECRET_KEY", emulator.secret_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    app = loaded(block_with("login_router"))["app"]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://service") as browser,
    ):
        started = await browser.post("/login/start", json={"to": "+14155550123", "channel": "sms"})
        assert started.status_code == 200
        code = emulator.last_code("+14155550123")
        checked = await browser.post("/login/check", json={"code": code})
        assert checked.json() == {"user": "+14155550123"}


def test_the_example_of_a_test_with_fixtures_passes(pytester: pytest.Pytester) -> None:
    service = Path(__file__).parents[1] / "examples/testing/service.py"
    pytester.makepyfile(service=service.read_text("utf-8"))
    pytester.makepyfile(
        test_it="""
import pytest
from fastapi.testclient import TestClient


@pytest.fixture
def browser(kodmobi_env):
    from service import app

    with TestClient(app) as browser:
        yield browser


"""
        + block_with("def test_a_second_click_comes_too_soon")
    )
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=1)


async def test_the_example_of_a_configuration_is_one() -> None:
    (example,) = blocks("toml")
    async with Emulator.from_config(tomllib.loads(example)) as emulator:
        assert len(emulator.session_ids) == 1
        async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
            session_id = next(iter(emulator.session_ids))
            assert (await client.send(session_id, "sms")).attempts == 2
            assert {channel.type for channel in await client.channels(session_id)} == {"telegram", "sms", "email"}


def test_every_python_block_is_python_and_takes_only_public_names() -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "kodmobi_async":
                assert {name.name for name in node.names} <= set(kodmobi_async.__all__)


# -- tables -----------------------------------------------------------------------------------------------------------


def test_every_outcome_is_explained() -> None:
    assert [names_in(row[0])[0] for row in table("`error.outcome`")] == [outcome.name for outcome in Outcome]


def error_classes(root: type[KodmobiError] = KodmobiError) -> Iterator[type[KodmobiError]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith("kodmobi_async"):
            yield kind
            yield from error_classes(kind)


def test_every_error_is_in_the_table() -> None:
    named = [name for row in table("error") for name in names_in(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == {kind.__name__ for kind in error_classes()}


def settings() -> dict[str, object]:
    """Return every setting of a client, as the table names it, and its default."""
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(KodmobiClient).parameters.items():
        if name not in ("timeout", "limits", "retry"):
            found[name] = parameter.default
    for kind in (Timeout, Limits, RetryPolicy):
        for field in attrs.fields(kind):
            found[f"{kind.__name__}({field.name}=…)"] = field.default
    return found


# what a default of None stands for
STANDS_FOR = {
    "api_key": "`KODMOBI_API_KEY`",
    "secret_key": "`KODMOBI_SECRET_KEY`",
    "base_url": "`KODMOBI_BASE_URL`",
    "cooldowns": "a `MemoryCooldownTracker`",
}


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = {names_in(row[0])[0]: row[1] for row in table("setting")}
    assert rows.keys() == settings().keys()
    for name, default in settings().items():
        assert rows[name].strip("`") == (STANDS_FOR.get(name) or str(default)).strip("`"), name


def test_every_argument_of_the_shared_tracker_is_in_the_table_with_its_default() -> None:
    parameters = dict(inspect.signature(RedisCooldownTracker).parameters)
    del parameters["server"]
    rows = {names_in(row[0])[0]: row[1] for row in table("argument")}
    shown = {name: json.loads(row.strip("`").removeprefix("b")) for name, row in rows.items()}
    assert shown == {name: _plain(parameter.default) for name, parameter in parameters.items()}


def _plain(default: Any) -> Any:
    return default.decode() if isinstance(default, bytes) else default


def test_every_record_is_in_the_table() -> None:
    assert {name for row in table("record") for name in names_in(row[0])} == {
        kind.__name__ for kind in kodmobi_async.Record.__args__
    }


def test_every_exit_code_is_in_the_table() -> None:
    assert {int(row[0]) for row in table("exit code")} == {int(code) for code in ExitCode}


def test_every_module_is_in_the_table_in_its_order() -> None:
    named = [name for row in table("module") for name in names_in(row[0])]
    rooms = [module for modules in ROOMS.values() for module in modules]
    assert named[: len(rooms)] == rooms
    doors = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", ".")) and path.stem != "py"}
    assert set(named[len(rooms) :]) == doors
