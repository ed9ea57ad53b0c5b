"""The service's tests: synchronous, over real HTTP, and without a pause.

The fixtures come from ``kodmobi_async.pytest_plugin``.
"""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from service import app

from kodmobi_async.testing import MovableClock, RunningEmulator

PHONE = "+14155550123"


@pytest.fixture
def browser(kodmobi_env: dict[str, str]) -> Iterator[TestClient]:  # noqa: ARG001 leads the service to the emulator
    with TestClient(app) as browser:
        yield browser


@pytest.fixture
def resend(kodmobi_emulator: RunningEmulator) -> str:
    return f"/resend/{kodmobi_emulator.add_session(to=PHONE)}"


def test_a_login(browser: TestClient, kodmobi_emulator: RunningEmulator) -> None:
    session_id = browser.post(f"/login/{PHONE}").json()
    code = kodmobi_emulator.last_code(PHONE)
    assert browser.post(f"/check/{session_id}/{code}").json() == PHONE


def test_sent(browser: TestClient, resend: str, kodmobi_emulator: RunningEmulator) -> None:
    assert browser.post(resend).json() == {"again_in": 60}
    assert [delivery.channel for delivery in kodmobi_emulator.delivered(to=PHONE)] == ["telegram"]


def test_too_soon(browser: TestClient, resend: str, kodmobi_clock: MovableClock) -> None:
    browser.post(resend)
    kodmobi_clock.advance(20)
    refused = browser.post(resend)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "40")


def test_after_the_window(
    browser: TestClient, resend: str, kodmobi_clock: MovableClock, kodmobi_emulator: RunningEmulator
) -> None:
    browser.post(resend)
    kodmobi_clock.advance(60)
    assert browser.post(resend).status_code == 200
    assert len(kodmobi_emulator.delivered(to=PHONE)) == 2


@pytest.mark.kodmobi_fault("close", "after_reading", process=True)
def test_the_answer_is_lost(browser: TestClient, resend: str, kodmobi_emulator: RunningEmulator) -> None:
    assert browser.post(resend).status_code == 200
    assert len(kodmobi_emulator.delivered(to=PHONE)) == 1


@pytest.mark.usefixtures("kodmobi_env")
def test_a_wrong_key(resend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", "wrong")
    with TestClient(app) as browser:
        refused = browser.post(resend)
    assert (refused.status_code, refused.json()["error"]) == (500, "AuthenticationError")


def test_the_session_has_expired(browser: TestClient, resend: str, kodmobi_clock: MovableClock) -> None:
    kodmobi_clock.advance(3_600)
    assert browser.post(resend).status_code == 410


@pytest.mark.kodmobi_fault("answer", 429, {"Retry-After": "300"})
def test_the_account_is_limited(browser: TestClient, resend: str) -> None:
    refused = browser.post(resend)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "300")
