"""``kodmobi emulator`` as test suites in other languages start it: files, JSON, signals, and HTTP alone."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from kodmobi_async.cli import main
from kodmobi_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-m", "kodmobi_async", "emulator")
SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
OTHER = "01K8N1VMPN0EE389K72YW0CBM3"

CONFIG = f"""
api_key = "from-the-file"
channels = ["sms", "email"]
window = 2.5
max_checks = 1
port = 0

[[sessions]]
session_id = "{SESSION}"
to = "+14155550123"

[[sessions]]
to = "jane@example.com"
active = ["telegram"]

[[faults]]
kind = "answer"
status = 503
times = 2
endpoint = "channels"
"""


@contextlib.contextmanager
def running(*args: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run an emulator, and yield it with the first line of its JSON."""
    with subprocess.Popen(
        [*COMMAND, "--json", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(timeout=10)


def http(url: str, body: object = None, *, key: str = "emulator-key", method: str | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"x-api-key": key}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text else None


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "emulator.toml"
    path.write_text(text, "utf-8")
    return str(path)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]*\n", text)
    return text


def test_the_first_line_of_json_says_where_it_is_and_how_it_opens() -> None:
    with running("--port", "0", "--session", SESSION, "--secret-key", "other") as (process, first):
        port = first["port"]
        assert first == {
            "address": f"http://127.0.0.1:{port}/session",
            "port": port,
            "control": f"http://127.0.0.1:{port}/_emulator",
            "api_key": "emulator-key",
            "secret_key": "other",
            "sessions": [SESSION],
        }
        assert http(f"{first['address']}/send", {"session_id": SESSION, "type": "sms"})[0] == 200
        assert process.stdout is not None
        delivery = json.loads(process.stdout.readline())["delivery"]
        (received,) = http(f"{first['control']}/deliveries")[1]["deliveries"]
        assert {name: received[name] for name in ("session_id", "to", "channel", "code")} == {
            name: delivery[name] for name in ("session_id", "to", "channel", "code")
        }
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_a_whole_login_over_http_alone() -> None:
    with running("--port", "0") as (_, first):
        api, control = first["address"], first["control"]
        session_id = http(f"{api}/create", {"to": "+14155550123"})[1]["session_id"]
        assert http(f"{api}/send", {"session_id": session_id, "type": "telegram"})[0] == 429
        assert http(f"{control}/clock", {"advance": 60})[0] == 200
        assert http(f"{control}/faults", {"kind": "answer", "status": 503})[0] == 201
        assert http(f"{api}/send", {"session_id": session_id, "type": "telegram"})[0] == 503
        assert http(f"{api}/send", {"session_id": session_id, "type": "telegram"})[0] == 200
        code = http(f"{control}/deliveries?to=%2B14155550123&wait=5")[1]["deliveries"][-1]["code"]
        token = http(f"{api}/check", {"session_id": session_id, "code": code})[1]["verify_token"]
        assert http(f"{api}/verify", {"verify_token": token})[0] == 401
        user = http(f"{api}/verify", {"verify_token": token}, key=first["secret_key"])[1]
    assert user == {"phone": "+14155550123"}


def test_a_file_sets_it_up_and_a_reset_does_so_again(tmp_path: Path) -> None:
    with running("--config", written(tmp_path, CONFIG)) as (_, first):
        key = first["api_key"]
        assert key == "from-the-file"
        assert first["sessions"][0] == SESSION
        assert len(first["sessions"]) == 2
        channels = f"{first['address']}/channels?session_id={SESSION}"
        for _ in range(2):
            assert [http(channels, key=key)[0] for _ in range(3)] == [503, 503, 200]
            assert [channel["type"] for channel in http(channels, key=key)[1]] == ["sms", "email"]
            body = {"session_id": SESSION, "type": "sms"}
            assert http(f"{first['address']}/send", body, key=key)[1]["channel"]["timeout"] == 2.5
            assert http(f"{first['address']}/check", {"session_id": SESSION, "code": ""}, key=key)[0] == 400
            assert http(channels, key=key)[0] == 404
            assert http(f"{first['control']}/reset", method="POST")[0] == 200
        users = [session["to"] for session in http(f"{first['control']}/sessions")[1]["sessions"]]
    assert users == ["jane@example.com", "+14155550123"]


def test_options_take_precedence_over_the_file(tmp_path: Path) -> None:
    options = ["--api-key", "from-the-options", "--window", "7", "--session", OTHER, "--channel", "viber"]
    with running("--config", written(tmp_path, CONFIG), *options) as (_, first):
        key = "from-the-options"
        assert first["api_key"] == key
        assert first["sessions"][::2] == [SESSION, OTHER]
        sent = http(f"{first['address']}/send", {"session_id": OTHER, "type": "viber"}, key=key)[1]
    assert sent["channel"]["timeout"] == 7


def test_every_option_arrives() -> None:
    options = ["--code-length", "4", "--max-checks", "2", "--block-after", "2", "--require-active", "--challenge"]
    more = ["--create-in-window", "refuse", "--create-existing", "quiet", "--keep", "1", "--session-lifetime", "90"]
    with running("--port", "0", *options, *more) as (_, first):
        settings = http(f"{first['address']}/settings")[1]
        assert settings["code"]["length"] == 4
        assert settings["challenge"]["enabled"] is True
        assert http(f"{first['address']}/create", {"to": "+14155550123"})[1]["sys_message"] == "ERROR_CHALLENGE"
        assert http(f"{first['control']}/health")[1]["session_lifetime"] == 90
        assert len(http(f"{first['control']}/requests")[1]["requests"]) == 1


def test_the_control_interface_can_be_switched_off() -> None:
    with running("--port", "0", "--control", "off") as (_, first):
        assert first["control"] is None
        assert http(first["address"].replace("/session", "/_emulator/health"))[0] == 404


def test_the_introduction_shows_the_inbox_and_names_a_channel_that_there_is() -> None:
    for options, words in (((), "/_emulator (open it in a browser"), (("--control", "off"), '"type": "viber"')):
        arguments = [*COMMAND, "--port", "0", "--channel", "viber", *options]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout is not None
            shown = "".join(iter(process.stdout.readline, "Codes delivered, until Ctrl-C:\n"))
            process.terminate()
            process.stdout.read()
        assert words in shown
        assert ("_emulator" in shown) is (not options)


def test_the_port_stands_in_a_file_while_the_emulator_runs(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with running("--port", "0", "--port-file", str(port_file), "--quiet") as (process, first):
        assert port_file.read_text("utf-8") == f"{first['port']}\n"
        assert list(tmp_path.iterdir()) == [port_file]
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_port_file_that_cannot_be_written_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--port", "0", "--port-file", str(tmp_path / "nowhere" / "port")]) == 2
    assert "--port-file cannot be written" in error(capsys)


def test_a_port_file_may_be_gone_at_the_end(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with running("--port", "0", "--port-file", str(port_file)) as (process, _):
        port_file.unlink()
        process.terminate()
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_more_deliveries_than_are_remembered_are_all_shown() -> None:
    with running("--port", "0", "--keep", "1", "--window", "0", "--session", SESSION) as (process, first):
        for _ in range(5):
            http(f"{first['address']}/send", {"session_id": SESSION, "type": "sms"})
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["delivery"]["channel"] == "sms"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = ", "the file of --config is not TOML"),
        ("\ufeff = 1", "the file of --config is not TOML"),
        ("prot = 8765", "prot is not known in a configuration; allowed are: api_key, "),
        ("window = -1", "window must be finite and at least zero"),
        ("sessions = 5", "sessions must be of type array"),
        ('[[sessions]]\nsession_id = "hello"', "session_id must match"),
        ('[[faults]]\nkind = "nap"', "kind must be one of"),
        ('[[faults]]\nkind = "answer"', "status is missing"),
    ],
)
def test_a_wrong_file_is_exit_2_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert main(["emulator", "--config", written(tmp_path, text)]) == 2
    assert words in error(capsys)


def test_a_file_that_is_not_there_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--config", str(tmp_path / "none.toml")]) == 2
    assert "--config cannot be read: No such file" in error(capsys)


def test_a_wrong_choice_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--control", "maybe"]) == 2
    assert "--control" in error(capsys)


async def test_python_can_set_an_emulator_up_too() -> None:
    def set_up(emulator: Emulator) -> None:
        emulator.add_session(SESSION)

    emulator = Emulator(set_up=set_up)
    async with emulator:
        assert list(emulator.session_ids) == [SESSION]
        emulator.expire_session(SESSION)
    async with emulator:  # what it remembers is not set up anew
        assert list(emulator.session_ids) == []
        newest = emulator.add_session()
        assert list(emulator.session_ids) == [newest]
        emulator.reset()
        assert list(emulator.session_ids) == [SESSION]
