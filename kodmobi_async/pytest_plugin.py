"""Fixtures for pytest: an emulator, a client, the environment that leads to it, and a clock that tests move.

    def test_a_second_click_comes_too_soon(app, kodmobi_env, kodmobi_emulator, kodmobi_clock): ...

They serve synchronous tests, and those of pytest-asyncio and anyio. Installing the package makes them known; nothing is
imported before a test asks for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kodmobi_async import KodmobiClient
    from kodmobi_async.emulator import Fault
    from kodmobi_async.testing import MovableClock, RunningEmulator

_MARKER = (
    "kodmobi_fault(kind, *args, times=1, endpoint='send', **kwargs): let the next requests to kodmobi_emulator go"
    " wrong; kind is a constructor of kodmobi_async.emulator.Fault, which takes the other arguments"
)
_KINDS = ("answer", "close", "delay", "drip", "malformed", "refuse", "silence")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that scripts faults for an emulator that it does not use."""
    if item.get_closest_marker("kodmobi_fault") and "kodmobi_emulator" not in getattr(item, "fixturenames", ()):
        pytest.fail("kodmobi_fault needs the fixture kodmobi_emulator, or one that uses it", pytrace=False)


@pytest.fixture
def kodmobi_emulator_settings() -> Mapping[str, Any]:
    """Return the settings of `kodmobi_emulator`; override it to change them, as in ``{"window": 30.0}``."""
    return {}


@pytest.fixture
def kodmobi_emulator(
    request: pytest.FixtureRequest, kodmobi_emulator_settings: Mapping[str, Any]
) -> Iterator[RunningEmulator]:
    """Run an emulator on a thread of its own; requests of the client to the real service fail the test."""
    from kodmobi_async.testing import running_emulator  # noqa: PLC0415 not before a test asks for it

    # the marker that stands nearest to the test comes first, and readers begin at the top
    markers = reversed(list(request.node.iter_markers("kodmobi_fault")))
    faults = [_fault(*marker.args, **marker.kwargs) for marker in markers]
    with running_emulator(**kodmobi_emulator_settings) as emulator:
        for fault, times, endpoint in faults:
            emulator.script(fault, times, endpoint)
        yield emulator


@pytest.fixture
def kodmobi_env(kodmobi_emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Lead clients that are built from the environment to the emulator; return the variables that were set."""
    variables = {
        "KODMOBI_API_KEY": kodmobi_emulator.api_key,
        "KODMOBI_SECRET_KEY": kodmobi_emulator.secret_key,
        "KODMOBI_BASE_URL": kodmobi_emulator.base_url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def kodmobi_client(kodmobi_emulator: RunningEmulator) -> KodmobiClient:
    """Return a client of the emulator. It belongs to the loop that uses it, and is closed with that loop."""
    from kodmobi_async import KodmobiClient  # noqa: PLC0415 as above

    return KodmobiClient(
        kodmobi_emulator.api_key, secret_key=kodmobi_emulator.secret_key, base_url=kodmobi_emulator.base_url
    )


@pytest.fixture
def kodmobi_clock() -> Iterator[MovableClock]:
    """Return a clock whose ``advance(seconds)`` moves the emulator, and every client and tracker of the process."""
    from kodmobi_async.testing import movable_clock  # noqa: PLC0415 as above

    with movable_clock() as clock:
        yield clock


def _fault(
    kind: str | None = None, /, *args: Any, times: int = 1, endpoint: str | None = "send", **kwargs: Any
) -> tuple[Fault, int, str | None]:
    """Return what a marker scripts."""
    from kodmobi_async.emulator import Fault  # noqa: PLC0415 as above

    if kind is None or kind not in _KINDS:
        pytest.fail(f"kodmobi_fault takes one of {', '.join(_KINDS)}, not {kind!r}", pytrace=False)
    fault: Fault = getattr(Fault, kind)(*args, **kwargs)
    return fault, times, endpoint
