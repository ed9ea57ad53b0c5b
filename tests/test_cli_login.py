"""``kodmobi create``, ``check``, ``verify``, ``settings`` and ``login``: against a service, and emulated."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from background import Background, emulator_in_background

from kodmobi_async.cli import main
from kodmobi_async.emulator import Fault
from kodmobi_async.testing import movable_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

PHONE: Final = "+14155550123"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    with emulator_in_background(window=2.0) as service:
        monkeypatch.setenv("KODMOBI_API_KEY", service.emulator.api_key)
        monkeypatch.setenv("KODMOBI_BASE_URL", service.emulator.base_url)
        monkeypatch.delenv("KODMOBI_SECRET_KEY", raising=False)
        yield service


class Typed(io.TextIOBase):
    """Standard input whose lines are made when they are read."""

    def __init__(self, *lines: str | Callable[[], str]) -> None:
        super().__init__()
        self._lines = list(lines)

    def readline(self, _: int = -1, /) -> str:  # type: ignore[override] # as every stream of text has it
        if not self._lines:
            return ""
        line = self._lines.pop(0)
        return (line if isinstance(line, str) else line()) + "\n"


def code_of(service: Background) -> Callable[[], str]:
    return lambda: service.emulator.last_code(PHONE)


def types(monkeypatch: pytest.MonkeyPatch, *lines: str | Callable[[], str]) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(*lines))


def test_a_session_is_created_and_nothing_is_sent(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", PHONE]) == 0
    out = capsys.readouterr().out
    assert "on its way" not in out
    assert "ends in " in out
    assert service.emulator.ledger == ()
    assert main(["create", PHONE, "--json"]) == 0
    session = json.loads(capsys.readouterr().out)
    assert session["session_id"] in out
    assert session["sent_to"] is None


def test_a_code_is_sent_over_the_channel_asked_for(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", PHONE, "--send", "--channel", "sms"]) == 0
    assert capsys.readouterr().out.startswith("A code is on its way over sms.\n")
    (delivery,) = service.emulator.ledger
    assert delivery.channel == "sms"


def test_a_code_that_was_sent_before_has_an_exit_code_of_its_own(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    service.emulator.window = 60.0
    assert main(["create", PHONE, "--send"]) == 0
    service.call(service.emulator.clock.advance, 20)
    assert main(["create", PHONE, "--send"]) == 3
    assert "on its way over" not in capsys.readouterr().out.partition("\n")[2].partition("session")[0]
    assert len(service.emulator.ledger) == 1


def test_a_lost_response_is_told(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    service.call(service.emulator.script, Fault.close(process=True), endpoint="create")
    assert main(["create", PHONE, "--channel", "sms", "--send"]) == 0
    assert "confirmed  its response was lost" in capsys.readouterr().out
    assert len(service.emulator.ledger) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_code_is_checked_and_its_token_redeemed(
    service: Background,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *,
    as_json: bool,
) -> None:
    json_option = ["--json"] if as_json else []
    main(["create", PHONE, "--send", "--json"])
    session = json.loads(capsys.readouterr().out)["session_id"]
    types(monkeypatch, code_of(service))
    assert main(["check", session, *json_option]) == 0
    out = capsys.readouterr().out
    token = json.loads(out)["verify_token"] if as_json else out.split()[-1]
    key = tmp_path / "secret"
    key.write_text(f"{service.emulator.secret_key}\n")
    key.chmod(0o600)
    types(monkeypatch, token)
    assert main(["verify", "--secret-key-file", str(key), *json_option]) == 0
    out = capsys.readouterr().out
    assert (json.loads(out)["to"] if as_json else out.split()[-1]) == PHONE


def test_a_wrong_code_has_an_exit_code_of_its_own(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["create", PHONE, "--send", "--json"])
    session = json.loads(capsys.readouterr().out)["session_id"]
    wrong = "000000" if service.emulator.last_code(PHONE) != "000000" else "111111"
    types(monkeypatch, wrong)
    assert main(["check", session]) == 11
    types(monkeypatch, wrong)
    assert main(["login", PHONE, "--channel", "email"]) == 11
    assert wrong not in capsys.readouterr().err


def test_a_check_whose_response_is_lost_is_told_as_unknown(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["create", PHONE, "--send", "--json"])
    session = json.loads(capsys.readouterr().out)["session_id"]
    service.call(service.emulator.script, Fault.close(), endpoint="check")
    types(monkeypatch, "123456")
    assert main(["check", session]) == 6
    assert "a new session gets a new one" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["check", "01K8N1VMPN0EE389K72YW0CBM2"], ["verify"]])
@pytest.mark.parametrize("closed", [False, True])
def test_without_input_there_is_nothing_to_check(
    service: Background,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    closed: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", None if closed else Typed())
    assert main(command) == 2
    assert "standard input ends before" in capsys.readouterr().err
    assert not service.emulator.requests


def test_verifying_needs_a_secret_key(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types(monkeypatch, "token")
    assert main(["verify"]) == 2
    assert "secret" in capsys.readouterr().err
    assert not service.emulator.requests


def test_the_settings_are_shown(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert "  code       6 digits\n" in capsys.readouterr().out
    assert main(["settings", "--json", "--emulate", "--base-url", service.emulator.base_url]) == 2
    capsys.readouterr()
    assert main(["settings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["challenge"] == {"enabled": False, "api_key": None}


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_whole_login(
    service: Background,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    secret: bool,
    as_json: bool,
) -> None:
    if secret:
        monkeypatch.setenv("KODMOBI_SECRET_KEY", service.emulator.secret_key)
    types(monkeypatch, code_of(service))
    assert main(["login", PHONE, "--channel", "sms", *(["--json"] if as_json else [])]) == 0
    out = capsys.readouterr().out
    if as_json:
        told = json.loads(out)
        assert told["check"]["verify_token"]
        assert told["user"] == ({"to": PHONE, "request_id": told["user"]["request_id"]} if secret else None)
    else:
        assert out.startswith(f"Logged in: {PHONE}\n" if secret else "Logged in.\n  token")


def test_another_code_is_sent_for_an_empty_line_once_the_channel_is_free(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types(monkeypatch, "", code_of(service))
    assert main(["login", PHONE, "--channel", "sms"]) == 0
    err = capsys.readouterr().err
    assert "sms is blocked; waiting: " in err
    assert "another code is on its way over sms" in err
    assert len(service.emulator.ledger) == 2


def test_another_code_that_the_service_refuses_is_told_and_the_login_goes_on(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.call(service.emulator.script, Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=50))
    types(monkeypatch, "", code_of(service))
    assert main(["login", PHONE]) == 0
    assert "too soon" in capsys.readouterr().err


def test_another_code_is_sent_at_once_where_the_channel_is_free_already(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with movable_clock() as clock:

        def when_the_window_has_ended() -> str:
            clock.advance(2)
            return ""

        types(monkeypatch, when_the_window_has_ended, code_of(service))
        assert main(["login", PHONE, "--channel", "sms"]) == 0
    assert "is blocked" not in capsys.readouterr().err
    assert len(service.emulator.ledger) == 2


def test_a_session_whose_end_is_not_known_is_shown_without_one(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    body: dict[str, object] = {"session_id": "01K8N1VMPN0EE389K72YW0CBM2", "session_expired_at": None, "channels": []}
    service.call(service.emulator.script, Fault.answer(200, body=body), endpoint="create")
    assert main(["create", PHONE]) == 0
    assert "ends in" not in capsys.readouterr().out


def test_a_code_that_others_have_sent_is_still_good(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.emulator.window = 60.0
    main(["create", PHONE, "--send"])
    service.call(service.emulator.clock.advance, 20)
    types(monkeypatch, code_of(service))
    assert main(["login", PHONE]) == 0
    assert "no new code was sent" in capsys.readouterr().err


def test_an_emulated_create_shows_the_code_that_would_have_arrived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KODMOBI_BASE_URL", raising=False)
    assert main(["create", PHONE, "--send", "--emulate"]) == 0
    assert "emulated: over telegram would have arrived: " in capsys.readouterr().err


class Terminal:
    """The program at a terminal."""

    def __init__(self, *arguments: str) -> None:
        self._primary, secondary = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KODMOBI_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kodmobi_async", *arguments],
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            env=environment,
        )
        os.close(secondary)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._primary)

    def until(self, words: str) -> None:
        while words not in self.seen:
            self.seen += os.read(self._primary, 4096).decode()

    def type(self, text: bytes) -> None:
        os.write(self._primary, text)


def test_a_login_in_a_terminal_asks_again_after_a_wrong_code() -> None:
    with Terminal("login", PHONE, "--emulate") as terminal:
        terminal.until("would have arrived: ")
        terminal.until("Code (Enter alone sends another one): ")
        code = terminal.seen.partition("would have arrived: ")[2][:6]
        terminal.type(b"12\n")
        terminal.until("a code has 4 to 10 letters and digits")
        terminal.type(("000000" if code != "000000" else "111111").encode() + b"\n")
        terminal.until("Wrong code.")
        terminal.type(f"{code}\n".encode())
        terminal.until(f"Logged in: {PHONE}")
        assert terminal.process.wait(timeout=30) == 0


def test_a_terminal_that_is_closed_ends_a_login() -> None:
    with Terminal("login", PHONE, "--emulate") as terminal:
        terminal.until("Code (Enter alone sends another one): ")
        terminal.type(b"\x04")
        terminal.until("nothing was typed")
        assert terminal.process.wait(timeout=30) == 2
