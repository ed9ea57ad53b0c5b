"""The plugin, found by its entry point, in the test suites of others. Warnings are errors there, and nothing sleeps."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "examples" / "testing"
ENTRY_POINTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]

INI = """
[pytest]
addopts = --strict-markers -p no:schemathesis -p no:cacheprovider
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


@pytest.fixture(autouse=True)
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the package found as an installed one: with its entry points."""
    metadata = pytester.mkdir("installed") / "as_it_stands-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: as_it_stands\nVersion: 0\n", "utf-8")
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
            for group, points in ENTRY_POINTS.items()
        ),
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(metadata.parent), str(REPOSITORY))))
    for name in ("KODMOBI_API_KEY", "KODMOBI_SECRET_KEY", "KODMOBI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    pytester.makefile(".ini", pytest=INI)


def run(pytester: pytest.Pytester, *options: str, **outcomes: int) -> pytest.RunResult:
    result = pytester.runpytest_subprocess(*options, timeout=120)
    result.assert_outcomes(**outcomes)
    return result


def copy_example(pytester: pytest.Pytester) -> None:
    for path in EXAMPLE.glob("*.py"):
        (pytester.path / path.name).write_text(path.read_text("utf-8"), "utf-8")


# -- a service's tests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_a_service_is_tested_synchronously(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    copy_example(pytester)
    run(pytester, *options, passed=8)


def test_no_case_of_the_example_sleeps_or_takes_ten_lines() -> None:
    source = (EXAMPLE / "test_service.py").read_text("utf-8")
    cases = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert len(cases) == 8 + 2  # fixtures
    assert all((case.end_lineno or 0) - case.lineno < 9 for case in cases)
    assert "sleep" not in source


def test_the_howto_runs_as_it_stands(pytester: pytest.Pytester) -> None:
    text = (REPOSITORY / "docs" / "howto" / "pytest.md").read_text("utf-8")
    with_pytest, without, _asynchronous = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    pytester.makepyfile(test_with=with_pytest, test_without=without)
    run(pytester, passed=3)


def test_asynchronous_tests_of_both_plugins_use_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, pytest
        from kodmobi_async import CooldownError

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        def session(kodmobi_emulator):
            return kodmobi_emulator.add_session()

        async def send_twice(client, clock, session):
            await client.send(session, "sms")
            with pytest.raises(CooldownError):
                await client.send(session, "sms")
            waiting = asyncio.create_task(client.send(session, "sms", max_wait=60))
            await asyncio.sleep(0)
            clock.advance(60)
            await waiting

        @pytest.mark.asyncio
        async def test_pytest_asyncio(kodmobi_client, kodmobi_clock, kodmobi_emulator, session):
            await send_twice(kodmobi_client, kodmobi_clock, session)
            assert len(kodmobi_emulator.delivered(session)) == 2

        @pytest.mark.anyio
        async def test_anyio(kodmobi_client, kodmobi_clock, kodmobi_emulator, session):
            await send_twice(kodmobi_client, kodmobi_clock, session)
            assert len(kodmobi_emulator.delivered(session)) == 2

        def test_synchronous(kodmobi_client, kodmobi_clock, kodmobi_emulator, session):
            asyncio.run(send_twice(kodmobi_client, kodmobi_clock, session))
            assert len(kodmobi_emulator.delivered(session)) == 2
        """
    )
    run(pytester, passed=3)


def test_a_service_that_lives_for_all_tests_follows_each_tests_clock(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from fastapi.testclient import TestClient
        from kodmobi_async import KodmobiClient
        from kodmobi_async.integrations.fastapi import kodmobi_lifespan
        from kodmobi_async.testing import running_emulator
        from service import app

        @pytest.fixture(scope="module")
        def everything():
            with running_emulator(session_lifetime=1e6) as emulator:
                make = lambda: KodmobiClient(emulator.api_key, base_url=emulator.base_url)
                app.router.lifespan_context = kodmobi_lifespan(make)
                with TestClient(app) as browser:
                    path = "/resend/" + emulator.add_session()
                    yield lambda: browser.post(path).status_code

        def test_first(everything, kodmobi_clock):
            assert everything() == 200
            kodmobi_clock.advance(60)
            assert everything() == 200

        def test_without_a_clock(everything):
            assert everything() == 429

        def test_second(everything, kodmobi_clock):
            kodmobi_clock.advance(59)
            assert everything() == 429
            kodmobi_clock.advance(1)
            assert everything() == 200
        """
    )
    copy_example(pytester)
    (pytester.path / "test_service.py").unlink()
    run(pytester, passed=3)


# -- the fixtures ------------------------------------------------------------------------------------------------------


def test_the_environment_leads_to_the_emulator_for_the_length_of_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test_during(kodmobi_env, kodmobi_emulator):
            assert kodmobi_env.items() <= os.environ.items()
            assert os.environ["KODMOBI_BASE_URL"] == kodmobi_emulator.base_url

        def test_after():
            assert not [name for name in os.environ if name.startswith("KODMOBI_")]
        """
    )
    run(pytester, passed=2)


def test_the_emulators_settings_are_a_fixture_to_override(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def kodmobi_emulator_settings():
            return {"api_key": "mine"}

        def test(kodmobi_env):
            assert kodmobi_env["KODMOBI_API_KEY"] == "mine"
        """
    )
    run(pytester, passed=1)


def test_faults_come_in_the_order_in_which_they_are_read(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, pytest
        from kodmobi_async import NotFoundError, RetryPolicy, ServerError

        @pytest.mark.kodmobi_fault("answer", 500, times=2, endpoint="channels")
        @pytest.mark.kodmobi_fault("refuse", "ERROR_NOT_FOUND", 404, endpoint="channels")
        def test(kodmobi_emulator, kodmobi_client):
            session = kodmobi_emulator.add_session()
            assert kodmobi_emulator.pending_faults == 3
            with pytest.raises(NotFoundError):
                asyncio.run(kodmobi_client.channels(session))
            assert kodmobi_emulator.requests["channels"] == 3

        class TestFresh:
            def test(self, kodmobi_emulator):
                assert kodmobi_emulator.pending_faults == 0
        """
    )
    run(pytester, passed=2)


def test_a_marker_that_cannot_work_fails_the_test_in_words(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.kodmobi_fault("close")
        def test_without_the_emulator():
            pass

        @pytest.mark.kodmobi_fault("explode")
        def test_of_no_kind(kodmobi_emulator):
            pass

        @pytest.mark.kodmobi_fault()
        def test_of_nothing(kodmobi_emulator):
            pass
        """
    )
    result = run(pytester, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "kodmobi_fault needs the fixture kodmobi_emulator, or one that uses it",
            "kodmobi_fault takes one of answer, close, delay, drip, malformed, refuse, silence, not 'explode'",
            "kodmobi_fault takes one of answer, *, not None",
        ]
    )


def test_the_markers_are_listed(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(
        ["@pytest.mark.kodmobi_fault(kind, [*]args, times=1, endpoint='send', [*][*]kwargs): *"]
    )


def test_a_request_to_the_real_service_fails_its_test_by_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, contextlib
        from kodmobi_async import KodmobiClient

        async def send():
            async with KodmobiClient("key") as client:
                await client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms")

        def test_that_lets_it_through(kodmobi_emulator):
            with contextlib.suppress(ZeroDivisionError):
                asyncio.run(send())

        def test_that_swallows_it(kodmobi_clock):
            with contextlib.suppress(Exception):
                asyncio.run(send())
        """
    )
    result = run(pytester, failed=1, passed=1, errors=2)
    result.stdout.fnmatch_lines(
        ["E * kodmobi_async.testing.*RealServiceError: * POST https://api.kod.mobi/session/send*"]
    )


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_nothing_is_imported_before_a_test_asks_for_a_fixture(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure(config):
            assert config.pluginmanager.get_plugin("kodmobi")
            print(*sorted(name for name in sys.modules if name.startswith(("kodmobi_async", "aiohttp"))))
        """
    )
    result = pytester.runpytest_subprocess("--collect-only", "-q")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["kodmobi_async kodmobi_async._version kodmobi_async.pytest_plugin"])
