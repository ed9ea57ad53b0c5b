"""The command line: real processes and real sockets, against an emulator with a loop and a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from background import Background, emulator_in_background
from ports import kept_port

from kodmobi_async import __version__
from kodmobi_async.cli import main
from kodmobi_async.cli._emulate import demonstrate
from kodmobi_async.cli._output import Output
from kodmobi_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
KEY = "key-of-these-tests"
COMMAND = (sys.executable, "-m", "kodmobi_async")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KODMOBI_API_KEY", "KODMOBI_BASE_URL", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    """An emulator whose key is in the environment, and in which the session lives."""
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with emulator_in_background(api_key=KEY, window=1.0) as background:
        background.call(background.emulator.add_session, SESSION)
        yield background


def send(service: Background, *options: str, session_id: str = SESSION) -> int:
    return main(["send", session_id, "telegram", "--base-url", service.emulator.base_url, *options])


def script(service: Background, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
    service.call(service.emulator.script, fault, times, endpoint)


def answer(**changes: object) -> Fault:
    channel: dict[str, object] = {
        "name": "Telegram",
        "type": "telegram",
        "is_active": True,
        "timeout": 60,
        "image_url": "",
        "link": "",
    }
    body: dict[str, object] = {"session_id": SESSION, "session_expired_at": None, "channel": channel}
    for name, value in changes.items():
        (channel if name in channel else body)[name] = value
    return Fault.answer(200, body=body)


def one_line(text: str, *words: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and all(word in text for word in words)


@contextlib.contextmanager
def running(*args: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **settings
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line_with(stream: IO[str], word: str) -> str:
    return next(line for line in stream if word in line)


# -- send -------------------------------------------------------------------------------------------------------------


def test_a_sent_code_is_told_in_words(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert send(service) == 0
    out, err = capsys.readouterr()
    assert out.startswith("A code is on its way over Telegram.\n")
    assert SESSION in out
    assert ", for 1 s\n" in out
    assert "(by this machine's clock)" in out
    assert "attempts" not in out
    assert err == ""
    assert len(service.emulator.delivered(SESSION, "telegram")) == 1


def test_json_is_one_object_in_the_spelling_of_the_api(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert send(service, "--json", "--language", "ru") == 0
    result = json.loads(capsys.readouterr().out)
    assert result.pop("session_expired_at").endswith("+00:00")
    assert 0 < result.pop("expires_in") < 600
    assert len(result.pop("request_id")) == 32
    assert result == {
        "session_id": SESSION,
        "channel": {
            "name": "Telegram",
            "type": "telegram",
            "is_active": False,
            "timeout": 1.0,
            "image_url": "https://storage.kod.mobi/icons/telegram.svg",
            "link": "https://t.me/my-tg-bot",
            "description": None,
        },
        "attempts": 1,
        "confirmed": False,
        "window": "local",
    }


def test_more_than_one_attempt_is_told(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    script(service, Fault.answer(503))
    assert send(service) == 0
    assert "  attempts   2\n" in capsys.readouterr().out


def test_a_confirmation_is_told_in_words(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    script(service, Fault.close(process=True))
    assert send(service) == 0
    assert "asked again, the service said that it took the code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (None, None),
        ("2001-01-01T00:00:00Z", "ended at 2001-01-01 "),
        ("9999-12-31T23:59:59Z", "ends at 9999-12-31 23:59:59+00:00, in "),
    ],
)
def test_a_session_may_end_at_any_time_or_at_none(
    service: Background,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    end: str | None,
    told: str | None,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # where the year 9999 ends too late for a calendar
    time.tzset()
    try:
        script(service, answer(session_expired_at=end))
        assert send(service) == 0
        out = capsys.readouterr().out
        assert told in out if told else "clock" not in out
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_channel_that_is_not_blocked_is_not_called_so(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, answer(timeout=0))
    assert send(service) == 0
    assert "blocked" not in capsys.readouterr().out


def test_text_of_the_service_is_no_markup_and_controls_no_terminal(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, answer(name="[bold]\x1b[31m\x9b2J\u202e\x07:smile:", type="a\nb"))
    script(service, Fault.answer(400, body={"error": "[red]\x1b[2Jno\r\n"}))
    assert send(service) == 0
    assert send(service) == 4
    out, err = capsys.readouterr()
    assert "over [bold] [31m 2J  :smile:.\n" in out
    assert "  channel    a b\n" in out
    assert one_line(err, "[red] [2Jno")
    assert all(char.isprintable() or char == "\n" for char in out + err)


def test_json_holds_no_control_character_either(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    script(service, answer(name="\x1b\x7f\x9b"))
    assert send(service, "--json") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.rstrip("\n").isprintable()
    assert json.loads(out)["channel"]["name"] == "\x1b\x7f\x9b"


# -- how a send fails -------------------------------------------------------------------------------------------------


def test_a_blocked_channel_is_exit_3_and_says_for_how_long(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(service) == 0
    capsys.readouterr()
    assert send(service, "--json") == 3
    out, err = capsys.readouterr()
    assert one_line(err, "in 1.0 s")
    error = json.loads(out)["error"]
    assert error == {
        "type": "CooldownError",
        "message": err.removeprefix("error: ").rstrip(),
        "outcome": "refused",
        "retry_after": 1.0,
    }


def test_a_refused_repeat_that_proves_the_arrival_says_so(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, Fault.close(process=True))
    script(service, Fault.answer(400), endpoint="channels")
    assert send(service, "--max-wait", "inf") == 3
    assert one_line(capsys.readouterr().err, "the first request arrived: the code is on its way")
    assert len(service.emulator.ledger) == 1


def test_a_refusal_is_exit_4_with_the_words_of_the_service(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(service, "--json", session_id=SESSION[:-1] + "3") == 4
    out, err = capsys.readouterr()
    assert one_line(err, "Message not found.")
    error = json.loads(out)["error"]
    assert (error["type"], error["status"], error["sys_message"]) == ("NotFoundError", 404, "ERROR_MESSAGE_NOT_FOUND")


def test_a_service_out_of_reach_is_exit_5(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with kept_port() as port:
        assert main(["send", SESSION, "sms", "--base-url", f"http://127.0.0.1:{port}"]) == 5
    assert one_line(capsys.readouterr().err, "nothing was sent")


@pytest.mark.parametrize("fault", [Fault.close(), Fault.answer(500)])
def test_an_unknown_outcome_is_exit_6_and_says_when_sending_is_safe(
    service: Background, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    script(service, fault, times=50, endpoint=None)
    assert send(service, "--json") == 6
    out, err = capsys.readouterr()
    assert one_line(err, "error: it is unknown whether the code was sent", "sending again is safe after 60 s")
    assert json.loads(out)["error"]["safe_after"] == 60.0
    assert json.loads(out)["error"]["outcome"] == "unknown"


def test_an_unreadable_answer_is_exit_7(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    script(service, Fault.answer(200))
    assert send(service) == 7
    assert one_line(capsys.readouterr().err, "cannot be read")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([SESSION], "Missing argument"),
        ([SESSION, "sms", "--max-wait", "soon"], "--max-wait"),
        ([SESSION, "sms", "--max-wait", "nan"], "--max-wait"),
        ([SESSION, "sms", "--max-wait=-1"], "--max-wait"),
        ([SESSION, "sms", "--timeout", "0"], "--timeout takes"),
        ([SESSION, "sms", "--base-url", "http://kod.example"], "--allow-http"),
        ([SESSION, "sms", "--base-url", "ftp://kod.example"], "--base-url takes"),
        ([SESSION, "sms", "--language", "\x1b"], "--language takes"),
        ([SESSION, "sms", "--emulate", "--base-url", "https://kod.example"], "exclude each other"),
        (["no-session", "sms"], "not a ULID"),
        (["no-session", "sms", "--emulate"], "not a ULID"),
        ([SESSION, "no channel"], "not a channel name"),
        ([SESSION, "sms", "--api-key=oops"], "No such option"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    assert main(["send", *args, "--json"]) == 2
    out, err = capsys.readouterr()
    assert one_line(err, words)
    assert json.loads(out)["error"]["outcome"] == "not_sent"
    assert "oops" not in out + err


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_max_wait_waits_for_a_cooldown_that_only_the_service_knows_of(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(service) == 0
    assert send(service, "--max-wait", "inf", "--json") == 0
    out, err = capsys.readouterr()
    assert err == "telegram is blocked; waiting: 1 s\n"
    assert json.loads(out.splitlines()[-1])["attempts"] == 1
    first, second = service.emulator.ledger
    assert second.at - first.at >= 1.0


def test_a_wait_longer_than_max_wait_is_not_begun(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    script(service, Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=40))
    began = time.monotonic()
    assert send(service, "--max-wait", "20") == 3
    assert time.monotonic() - began < 5
    assert one_line(capsys.readouterr().err, "in 40.0 s")


def test_ctrl_c_ends_a_wait_quietly_with_130(service: Background) -> None:
    script(service, Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=40))
    with running("send", SESSION, "telegram", "--base-url", service.emulator.base_url, "--max-wait", "60") as process:
        assert process.stderr is not None
        first_line_with(process.stderr, "waiting")
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "")
    assert process.returncode == 130
    assert service.emulator.ledger == ()


def test_ctrl_c_while_a_request_is_out_says_that_the_code_may_be_on_its_way(service: Background) -> None:
    script(service, Fault.silence())
    with running("send", SESSION, "telegram", "--base-url", service.emulator.base_url) as process:
        while not service.call(lambda: service.emulator.ledger):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "interrupted: the code may be on its way\n")
    assert process.returncode == 130


def test_ctrl_c_before_a_request_is_out_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with running("send", SESSION, "telegram", "--base-url", address) as process:
            connection, _ = listener.accept()  # and no word of TLS
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.communicate() == ("", "")
    assert process.returncode == 130


# -- the key ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_without_a_key_the_ways_to_give_one_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", SESSION, "sms", "--json"]) == 2
    out, err = capsys.readouterr()
    assert one_line(err, "KODMOBI_API_KEY", "--api-key-file", "--emulate")
    assert json.loads(out)["error"]["type"] == "ConfigurationError"


def test_the_key_may_come_from_a_file_and_outweighs_the_environment(
    service: Background, key_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", "another-key")
    assert send(service, "--api-key-file", str(key_file)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert KEY not in out


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_can_read_is_warned_of(
    service: Background, key_file: Path, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    key_file.chmod(mode)
    assert send(service, "--api-key-file", str(key_file)) == 0
    assert "warning: other users can read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("one-s3cret\nanother-s3cret\n", "more than one line"),
        ("\x00s3cret", "printable ASCII"),
        ("ключ-s3cret", "printable ASCII"),
        ("s3cret" * 3_000, "printable ASCII"),
    ],
)
def test_a_key_file_of_no_use_is_an_error_that_shows_nothing_of_it(
    key_file: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    key_file.write_text(content, encoding="utf-8")
    assert main(["channels", "--api-key-file", str(key_file)]) == 2
    out, err = capsys.readouterr()
    assert one_line(err, words)
    assert "s3cret" not in out + err
    assert "ключ" not in out + err


@pytest.mark.parametrize("name", ["missing-key", "."])
def test_a_key_file_that_cannot_be_read_is_an_error_without_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["channels", "--api-key-file", f"{tmp_path}/{name}"]) == 2
    err = capsys.readouterr().err
    assert one_line(err, "--api-key-file cannot be read: ")
    assert name == "." or name not in err


def test_ctrl_c_while_the_key_is_awaited_from_a_pipe_is_quiet(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with running("send", SESSION, "telegram", "--api-key-file", str(fifo)) as process, fifo.open("wb"):
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "")
    assert process.returncode == 130


# -- channels, and the emulator of a run ------------------------------------------------------------------------------


def test_the_channels_of_a_session_are_a_table(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert send(service) == 0
    capsys.readouterr()
    assert main(["channels", SESSION, "--base-url", service.emulator.base_url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["channel", "telegram", "whatsapp", "sms", "email"]
    assert "in 1 s" in lines[1]
    assert "now" in lines[2]


def test_the_channels_of_a_project_name_no_user(service: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["channels", "--base-url", service.emulator.base_url]) == 0
    out = capsys.readouterr().out
    assert "telegram" in out
    assert "active" not in out


def test_a_project_without_channels_is_said_to_have_none(
    service: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, Fault.answer(200, body=[]), endpoint="channels")
    assert main(["channels", "--base-url", service.emulator.base_url]) == 0
    assert capsys.readouterr().out == "The project has no channels.\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_an_emulated_send_needs_no_key_and_never_goes_unsaid(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    assert main(["send", SESSION.lower(), "sms", "--emulate", *(["--json"] if as_json else [])]) == 0
    out, err = capsys.readouterr()
    assert SESSION in out
    assert err.startswith("emulated: http://127.0.0.1:")
    assert err.count("\n") == 1


def test_emulated_channels_are_a_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["channels", "--emulate", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [channel["type"] for channel in json.loads(out)] == ["telegram", "whatsapp", "sms", "email"]
    assert err.startswith("emulated: ")


# -- the address ------------------------------------------------------------------------------------------------------


def test_the_address_may_come_from_the_environment(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_BASE_URL", service.emulator.base_url)
    assert main(["send", SESSION, "telegram"]) == 0
    assert main(["channels"]) == 0
    assert service.emulator.requests == {"send": 1, "channels": 1}


def test_the_option_counts_before_the_environment(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_BASE_URL", "https://user:hunter2@kod.example")
    assert send(service) == 0


def test_a_wrong_address_in_the_environment_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    monkeypatch.setenv("KODMOBI_BASE_URL", "https://user:hunter2@kod.example")
    assert main(["send", SESSION, "telegram", "--json"]) == 2
    out, err = capsys.readouterr()
    assert one_line(err, "error: KODMOBI_BASE_URL takes an address like https://api.kod.mobi/session")
    assert json.loads(out)["error"]["type"] == "ConfigurationError"
    assert "hunter2" not in out + err


def test_an_emulator_that_is_asked_for_counts_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_BASE_URL", "https://user:hunter2@kod.example")
    assert main(["send", SESSION, "telegram", "--emulate"]) == 0
    assert capsys.readouterr().err.startswith("emulated: http://127.0.0.1:")


# -- the emulator as a command ----------------------------------------------------------------------------------------


def test_the_emulator_serves_curl_and_shows_each_code() -> None:
    with running("emulator", "--port", "0", "--session", SESSION.lower(), "--api-key", "a'b") as process:
        assert process.stdout is not None
        address = first_line_with(process.stdout, "address").split()[-1]
        introduction = list(iter(process.stdout.readline, "Codes delivered, until Ctrl-C:\n"))
        assert f"curl {address}/send \\\n" in introduction
        assert f"  --base-url {address}\n" in introduction
        body = json.dumps({"session_id": SESSION, "type": "sms"})
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
        headers = {"x-api-key": "a'b", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/session/send", body, headers)
        assert connection.getresponse().status == 200
        connection.close()
        moment, *delivered, code = process.stdout.readline().split()
        assert delivered == [SESSION, "+10000000000", "sms"]
        assert len(moment) == len("12:00:00")
        assert len(code) == 6
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert out == ""
        assert err.endswith("  POST /session/send 200\n")
    assert process.returncode == 130


def test_what_the_emulator_suggests_to_paste_works() -> None:
    with running("emulator", "--port", "0", "--host", "0.0.0.0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("warning: 0.0.0.0 is not only for this machine")
        lines = list(iter(process.stdout.readline, "Codes delivered, until Ctrl-C:\n"))
        command = "".join(lines[next(n for n, line in enumerate(lines) if " kodmobi send " in line) :])
        pasted = subprocess.run(
            ["sh", "-c", command.replace("kodmobi send", f"'{sys.executable}' -m kodmobi_async send", 1)],
            check=True,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert "A code is on its way over Telegram." in pasted.stdout
        assert "telegram" in process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_a_quiet_emulator_prints_its_address_and_ends_well_at_sigterm() -> None:
    with running("emulator", "--port", "0", "--quiet", "--host", "::1") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://[::1]:")
        process.terminate()
        assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_an_emulator_ends_with_the_reader_of_its_output() -> None:
    with running("emulator", "--port", "0", "--host", "localhost") as process:
        assert process.stdout is not None
        address = first_line_with(process.stdout, "address").split()[-1]
        session_id = first_line_with(process.stdout, "session").split()[-1]
        first_line_with(process.stdout, "Codes delivered")
        process.stdout.close()
        assert main_with_key("emulator-key", "send", session_id, "sms", "--base-url", address) == 0
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read().endswith("  POST /session/send 200\n")


def main_with_key(key: str, *args: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KODMOBI_API_KEY", key)
        return main(args)


def test_a_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert main(["emulator", "--port", str(listener.getsockname()[1])]) == 2
    assert one_line(capsys.readouterr().err, "is in use", "--port")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--session", "no-session"], "--session takes a ULID"),
        (["--window", "nan"], "window"),
        (["--session-lifetime", "0"], "session_lifetime"),
        (["--port", "65536"], "--port"),
        (["--api-key", ""], "api_key"),
    ],
)
def test_an_emulator_with_a_wrong_setting_is_exit_2(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulator", "--port", "0", *args]) == 2
    assert one_line(capsys.readouterr().err, words)


# -- the demonstration ------------------------------------------------------------------------------------------------


def test_the_demonstration_tells_what_happened() -> None:
    demo = subprocess.run([*COMMAND, "demo", "--window", "1"], check=True, capture_output=True, encoding="utf-8")
    assert demo.stderr == ""
    assert "\x1b" not in demo.stdout
    assert "the window is 1 s instead of 60 s" in demo.stdout
    assert demo.stdout.count("A code is on its way over Telegram.") == 2
    assert demo.stdout.count("requests to send so far: 1\n") == 2
    assert demo.stdout.count("requests to send so far: 2\n") == 1
    assert "CooldownError: " in demo.stdout
    assert "waiting for the channel: " in demo.stdout
    assert "  2 codes, 1" in demo.stdout


def test_the_demonstration_counts_down_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = on_a_terminal("demo", "--window", "1")
    assert "waiting for the channel: 1 s" in shown
    assert "waiting for the channel: 0 s" in shown
    assert max(len(line) for line in shown.split("\r\n") if "\x1b" not in line) <= 80


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    emulated = ("send", SESSION, "sms", "--emulate")
    assert "\x1b[33m" in on_a_terminal(*emulated)
    monkeypatch.setenv("NO_COLOR", "1")
    shown = on_a_terminal(*emulated)
    assert not any(f"\x1b[{color}m" in shown for color in range(30, 38))
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_a_terminal(*emulated)


def on_a_terminal(*args: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *args], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 65_536):
                shown += part
        os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_a_demonstration_that_goes_another_way_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    # without a window nothing is blocked
    assert asyncio.run(demonstrate(Output(), 0.0)) == 1
    assert one_line(capsys.readouterr().err, "the second send was not blocked")


# -- the program ------------------------------------------------------------------------------------------------------


def test_version_help_and_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kodmobi {__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"{code} " in text for code in (0, 2, 3, 4, 5, 6, 7, 130))
    assert main([]) == 2
    assert capsys.readouterr().out == text


def test_a_mistyped_command_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snd"]) == 2
    assert one_line(capsys.readouterr().err, "snd", "send")


@pytest.mark.parametrize("args", [("--help",), ("send", SESSION, "sms", "--emulate")])
def test_a_closed_pipe_is_quiet_and_changes_nothing(args: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*COMMAND, *args], check=False, stdout=writer, stderr=subprocess.PIPE, encoding="utf-8")
    os.close(writer)
    assert ended.returncode == 0
    assert ended.stderr.replace("emulated: ", "", 1).count("\n") <= 1
    assert "rror" not in ended.stderr


def test_a_result_that_cannot_be_written_is_said_once_and_changes_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "send", SESSION, "sms", "--emulate"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
    assert ended.returncode == 0
    assert ended.stderr.count(f"error: the result could not be written: {os.strerror(errno.ENOSPC)}\n") == 1


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_an_output_that_is_closed_or_is_no_file_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["send", SESSION, "sms", "--emulate"]) == 0
    assert stream is None or SESSION in stream.getvalue()


def test_an_alphabet_that_the_output_lacks_is_no_error(service: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    script(service, answer(name="Телеграм"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    sent = subprocess.run(
        [*COMMAND, "send", SESSION, "sms", "--base-url", service.emulator.base_url], check=True, capture_output=True
    )
    assert sent.stdout.startswith(rb"A code is on its way over \u0422")


def test_without_the_extra_it_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['typer'] = None; from kodmobi_async.cli import main; sys.exit(main([]))"
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, encoding="utf-8")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert one_line(ended.stderr, "pip install 'kodmobi_async[cli]'")


def test_another_missing_module_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kodmobi_async.cli._app", None)
    with pytest.raises(ModuleNotFoundError, match="_app"):
        main([])


def test_importing_the_package_imports_nothing_of_the_command_line() -> None:
    code = "import sys, kodmobi_async; sys.exit(bool({'typer', 'rich', 'kodmobi_async.cli'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_runs_in_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kodmobi", "--version"])
    assert main() == 0
    assert __version__ in capsys.readouterr().out
