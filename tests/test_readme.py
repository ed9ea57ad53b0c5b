"""What the README and the documentation say is true: their examples run, and their tables are those of the code."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import attrs
import httpx
import pytest
import trustme
from aiohttp.test_utils import TestClient, TestServer
from pages import PAGES, REPOSITORY, block_with, blocks, loaded, names_in, table
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
    resend: Callable[..., Any] = loaded(block_with("docs/howto/resend.md", "async def resend("))["resend"]
    assert await resend(client, session) == words


async def test_the_example_of_many_sends_names_what_became_of_each(
    emulator: Emulator, client: KodmobiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = [emulator.add_session() for _ in range(3)]
    resend_to_all: Callable[..., Any] = loaded(block_with("docs/howto/bulk.md", "resend_to_all"))["resend_to_all"]
    emulator.expire_session(sessions[2])
    await resend_to_all(client, sessions)
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.partition(" ")[0] for line in lines] == sorted(sessions)
    assert sum(line.endswith(" sent") for line in lines) == 2 == len(emulator.ledger)


def test_the_example_of_a_test_passes_as_it_stands() -> None:
    command = [
        sys.executable,
        "-c",
        block_with("docs/howto/pytest.md", "with asyncio.Runner(loop_factory=VirtualClockLoop)"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", ["README.md", "docs/howto/login.md"])
def test_the_example_of_a_login_logs_somebody_in(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = loaded(block_with(page, "async def log_in("))
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
    app = loaded(block_with("docs/howto/fastapi.md", "login_router"))["app"]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://service") as browser,
    ):
        started = await browser.post("/login/start", json={"to": "+14155550123", "channel": "sms"})
        assert started.status_code == 200
        code = emulator.last_code("+14155550123")
        checked = await browser.post("/login/check", json={"code": code})
        assert checked.json() == {"user": "+14155550123"}


def test_the_examples_of_tests_with_fixtures_and_without_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=block_with("docs/howto/pytest.md", "def test_a_second_click_comes_too_soon"))
    pytester.makepyfile(test_more=block_with("docs/howto/pytest.md", "unittest.TestCase"))
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=3)


async def test_the_example_of_a_configuration_is_one() -> None:
    (example,) = blocks("docs/howto/emulator.md", "toml")
    async with Emulator.from_config(tomllib.loads(example)) as emulator:
        assert len(emulator.session_ids) == 1
        async with KodmobiClient(emulator.api_key, base_url=emulator.base_url) as client:
            session_id = next(iter(emulator.session_ids))
            assert (await client.send(session_id, "sms")).attempts == 2
            assert {channel.type for channel in await client.channels(session_id)} == {"telegram", "sms", "email"}


PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", PYTHON)
def test_every_python_block_takes_only_public_names(page: str) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kodmobi_async"):
                public: tuple[str, ...] = import_module(node.module or "").__all__
                assert {name.name for name in node.names} <= set(public)


@pytest.mark.parametrize("page", [page for page in PYTHON if page != "docs/tutorial.md"])  # it has a test of its own
def test_the_python_blocks_of_a_page_run_one_after_the_other(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", "made-up")
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        names = loaded(block, names)


async def test_the_example_of_the_first_page_sends(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    resend: Callable[..., Any] = loaded(block_with("docs/index.md", "async def resend("))["resend"]
    assert await resend(emulator.add_session()) == "Sent. You can ask again in 60 s"


async def test_the_example_of_an_aiohttp_service_answers(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", emulator.api_key)
    monkeypatch.setenv("KODMOBI_SECRET_KEY", emulator.secret_key)
    monkeypatch.setenv("KODMOBI_BASE_URL", emulator.base_url)
    make_app: Callable[..., Any] = loaded(block_with("docs/howto/aiohttp.md", "make_app"))["make_app"]
    async with TestClient(TestServer(make_app("a secret for the tests"))) as browser:
        path = f"/resend/{emulator.add_session()}/sms"
        async with browser.post(path) as sent, browser.post(path) as refused:
            assert await sent.json() == {"again_in": 60}
            assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
        async with browser.post("/login/start", json={"to": "+14155550123", "channel": "sms"}) as started:
            assert started.status == 200


async def test_the_example_of_windows_in_a_file_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", "made-up")
    monkeypatch.chdir(tmp_path)
    await loaded(block_with("docs/howto/shared-windows.md", "windows.db"))["main"]()


def test_the_example_of_a_client_behind_a_proxy_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", "made-up")
    authorities = tmp_path / "authorities.pem"
    trustme.CA().cert_pem.write_to_path(str(authorities))
    build: Callable[..., Any] = loaded(block_with("docs/howto/proxies.md", "build_client"))["build_client"]
    assert isinstance(build(str(authorities), "http://user:password@127.0.0.1:3128"), KodmobiClient)


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not target.startswith(("https://", "http://", "#")):
            assert (REPOSITORY / page).parent.joinpath(target.partition("#")[0]).exists(), target


def test_the_files_that_contributors_are_sent_to_exist() -> None:
    named = set(re.findall(r"`([\w./]+\.(?:py|md|yml|json|toml|ini))`", PAGES["CONTRIBUTING.md"]))
    assert len(named) > 20
    for name in named:
        if name.startswith(".github") and not (REPOSITORY / ".github").is_dir():
            continue  # what is published has no workflows
        assert (REPOSITORY / name).exists() or (PACKAGE / name).exists() or name == "openapi.json", name


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set()
    for page, text in PAGES.items():
        for entries in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            folder = Path(page).parent
            listed |= {f"{folder.as_posix()}/{line}.md" for line in entries.split() if not line.startswith(":")}
    assert {page for page in PAGES if page.startswith("docs/")} <= listed | {"docs/index.md"}


def test_every_how_to_is_named_in_the_readme() -> None:
    # other languages are behind the page about the emulator
    for page in PAGES:
        if page.startswith("docs/howto/") and Path(page).stem not in ("javascript", "go", "php"):
            assert f"]({page})" in PAGES["README.md"], page


def test_the_readme_can_be_read_in_a_minute() -> None:
    assert PAGES["README.md"].count("\n") <= 150


def test_every_drawing_is_well_formed() -> None:
    drawings = sorted((REPOSITORY / "docs" / "images").glob("*.svg"))
    assert len(drawings) >= 3
    for path in drawings:
        ET.parse(path)


# -- reference --------------------------------------------------------------------------------------------------------

DOORS = (
    "emulator",
    "integrations.aiohttp",
    "integrations.fastapi",
    "integrations.logging",
    "integrations.opentelemetry",
    "integrations.prometheus",
    "integrations.taskiq",
    "journal",
    "redis",
    "sqlite",
    "testing",
)


def test_every_door_is_known_here() -> None:
    found = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if not any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts)
    }
    assert found - {"__init__", "cli", "integrations", "pytest_plugin"} == set(DOORS)


@pytest.mark.parametrize("module", ["kodmobi_async", *(f"kodmobi_async.{door}" for door in DOORS)])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    documented = set()
    for page, text in PAGES.items():
        current = ""
        for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)$", text, re.MULTILINE):
            if not page.startswith("docs/reference/"):
                continue
            if directive == "currentmodule":
                current = name
            else:
                documented.add(name if "." in name else f"{current}.{name}")
    public: tuple[str, ...] = import_module(module).__all__
    assert {f"{module}.{name}" for name in public if name != "__version__"} <= documented


# -- release ----------------------------------------------------------------------------------------------------------


def test_the_changelog_has_the_version_with_a_date() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    version = re.escape(kodmobi_async.__version__)
    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


@pytest.mark.skipif(not (REPOSITORY / ".github").is_dir(), reason="what is published has no workflows")
def test_every_action_of_a_workflow_is_pinned_by_hash() -> None:
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        text = path.read_text("utf-8")
        uses = re.findall(r"uses: (.*)", text)
        assert uses
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in uses), uses
        assert "\npermissions: {}\n" in text  # each job says what it needs


# -- tables -----------------------------------------------------------------------------------------------------------


def test_every_outcome_is_explained() -> None:
    assert [names_in(row[0])[0] for row in table("docs/howto/errors.md", "`error.outcome`")] == [
        outcome.name for outcome in Outcome
    ]


def error_classes(root: type[KodmobiError] = KodmobiError) -> Iterator[type[KodmobiError]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith("kodmobi_async"):
            yield kind
            yield from error_classes(kind)


def test_every_error_is_in_the_table() -> None:
    named = [name for row in table("docs/reference/errors.md", "error") for name in names_in(row[0])]
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
    rows = {names_in(row[0])[0]: row[1] for row in table("docs/reference/settings.md", "setting")}
    assert rows.keys() == settings().keys()
    for name, default in settings().items():
        assert rows[name].strip("`") == (STANDS_FOR.get(name) or str(default)).strip("`"), name


def test_every_argument_of_the_shared_tracker_is_in_the_table_with_its_default() -> None:
    parameters = dict(inspect.signature(RedisCooldownTracker).parameters)
    del parameters["server"]
    rows = {names_in(row[0])[0]: row[1] for row in table("docs/howto/shared-windows.md", "argument")}
    shown = {name: json.loads(row.strip("`").removeprefix("b")) for name, row in rows.items()}
    assert shown == {name: _plain(parameter.default) for name, parameter in parameters.items()}


def _plain(default: Any) -> Any:
    return default.decode() if isinstance(default, bytes) else default


def test_every_record_is_in_the_table() -> None:
    assert {name for row in table("docs/reference/records.md", "record") for name in names_in(row[0])} == {
        kind.__name__ for kind in kodmobi_async.Record.__args__
    }


def test_every_exit_code_is_in_the_table() -> None:
    assert {int(row[0]) for row in table("docs/reference/command-line.md", "exit code")} == {
        int(code) for code in ExitCode
    }


def test_every_module_is_in_the_table_in_its_order() -> None:
    named = [name for row in table("CONTRIBUTING.md", "module") for name in names_in(row[0])]
    rooms = [module for modules in ROOMS.values() for module in modules]
    assert named[: len(rooms)] == rooms
    doors = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", ".")) and path.stem != "py"}
    assert set(named[len(rooms) :]) == doors


def test_every_request_of_the_control_interface_is_in_the_table() -> None:
    described = json.loads((PACKAGE / "emulator/_control/openapi.json").read_text("utf-8"))
    assert {names_in(row[0])[0]: row[1] for row in table("docs/reference/control.md", "request")} == {
        f"{method.upper()} {path}": operation["summary"]
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


def test_the_figures_of_the_readme_are_measured() -> None:
    figures = json.loads((REPOSITORY / "benchmarks/results/send.json").read_text("utf-8"))["figures"]
    measured = {
        each["contestant"]: each["ratio"]["median"]
        for each in figures
        if (each["loop"], each["concurrency"]) == ("asyncio", 64)
    }
    rows = {row[0].strip("*"): float(row[1].strip("*").split()[0]) for row in table("README.md", "instead of it")}
    shown = {
        "kodmobi_async": "ours",
        "a bare aiohttp call": "aiohttp",
        "aiohttp_retry": "aiohttp_retry",
        "aiohttp + tenacity": "tenacity",
        "httpx + stamina": "stamina",
    }
    assert rows.keys() == shown.keys()
    for name, contestant in shown.items():
        assert rows[name] == pytest.approx(measured[contestant], rel=0.01), name
