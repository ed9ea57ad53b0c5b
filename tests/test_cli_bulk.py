"""``kodmobi bulk``: every row is accounted for, whatever the input holds and however the run ends."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from background import Background, emulator_in_background
from bulk_here import send_rows
from rich.console import Console
from ulid import ULID

from kodmobi_async.cli import main
from kodmobi_async.cli._bulk import check_rows
from kodmobi_async.cli._connect import Connection, reached
from kodmobi_async.cli._output import Output
from kodmobi_async.cli._progress import Tally
from kodmobi_async.cli._rows import BadRow, Input, Row
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.taskiq import WorkerProgress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "key-of-these-tests"
ONE, TWO, THREE = "01K8N1VMPN0EE389K72YW0CBM2", "01K8N1VMPN0EE389K72YW0CBM3", "01K8N1VMPN0EE389K72YW0CBM4"
COMMAND = (sys.executable, "-m", "kodmobi_async", "bulk")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KODMOBI_API_KEY", "KODMOBI_BASE_URL", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with emulator_in_background(api_key=KEY, window=1.0) as background:
        for session in (ONE, TWO, THREE):
            background.call(background.emulator.add_session, session)
        yield background


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(f"{ONE},sms\n{TWO},sms\n{THREE},sms\n")
    return path


def bulk(service: Background, source: Path | str, *options: str) -> int:
    return main(["bulk", str(source), "--base-url", service.emulator.base_url, *options])


def script(service: Background, fault: Fault, times: int = 1, endpoint: str | None = "send") -> None:
    service.call(service.emulator.script, fault, times, endpoint)


def counts(text: str) -> dict[str, Any]:
    """Return the numbers of a summary in JSON that are not 0, once they are found to add up."""
    summary = json.loads(text)
    kinds = ("sent", "blocked", "refused", "not_sent", "unknown", "bad", "left")
    assert sum(summary[kind] for kind in kinds) == summary["rows"]
    return {kind: summary[kind] for kind in kinds if summary[kind]}


def read(tmp_path: Path, content: bytes, channel: str | None = None) -> tuple[list[Row | BadRow], Input]:
    path = tmp_path / "input"
    path.write_bytes(content)
    with Input.open(str(path), channel) as found:
        rows = list(found)
        assert list(found) == rows
        assert found.rows == len(rows)
        return rows, found


# -- what an input may look like --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        f"{ONE},sms\n{TWO},sms",
        f"session_id,channel\n{ONE},sms\n{TWO},sms\n",
        f"\ufeffChannel , Session_ID\r\nsms,{ONE}\r\n\r\n  \r\nsms,{TWO}\r\n",
        f"name;session_id;channel\nx;{ONE};sms\n;{TWO};SMS\n",
        f"session_id\tchannel\n{ONE}\tsms\n{TWO}\tsms\n",
        f'"{ONE}","sms"\n"{TWO}",sms\n',
        f"{ONE}\n{TWO},\n",
        f"session_id\n{ONE}\n{TWO}\n",
        f'{{"session_id": "{ONE}", "channel": "sms", "more": 1}}\n\n{{"session_id": "{TWO}", "channel": null}}\n',
    ],
)
def test_csv_with_or_without_a_header_and_json_lines_mean_the_same(tmp_path: Path, content: str) -> None:
    rows, _ = read(tmp_path, content.encode(), "sms")
    assert [(row.session_id, row.channel) for row in rows if isinstance(row, Row)] == [(ONE, "sms"), (TWO, "sms")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"no-ulid,sms", "session_id is not a ULID"),
        (ONE.encode(), "no channel, and no --channel"),
        (ONE.encode() + b",no channel", "channel is not a channel name"),
        (b",sms", "no session_id"),
        (ONE.encode() + b",sms,more", "3 fields; without a header"),
        (b'"' + ONE.encode(), "not a line of CSV"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_reason(tmp_path: Path, row: bytes, reason: str) -> None:
    good = f"{TWO},sms".encode()
    rows, _ = read(tmp_path, good + b"\n\n" + row + b"\n" + good)
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert bad.line == 3
    assert bad.reason.startswith(reason)
    assert [row.line for row in rows] == [1, 3, 4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"channel": "sms"}', "no session_id"),
        ('{"session_id": 5, "channel": "sms"}', "session_id must be a ULID or a str"),
        (f'{{"session_id": "{ONE}", "channel": 5}}', "channel must be a Channel or a str"),
    ],
)
def test_a_bad_row_of_json_lines_is_told_as_well(tmp_path: Path, row: str, reason: str) -> None:
    good = f'{{"session_id": "{ONE}", "channel": "sms"}}'
    rows, _ = read(tmp_path, f"{good}\n{row}\n".encode())
    assert isinstance(rows[1], BadRow)
    assert rows[1].reason.startswith(reason)


def test_a_row_with_fewer_fields_than_the_header_lacks_them(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, f"channel,session_id\nsms\nsession_id,x\n,{ONE}\n".encode(), "sms")
    assert [getattr(row, "reason", "good")[:13] for row in rows] == ["no session_id", "session_id is", "good"]


def test_the_first_row_may_be_a_bad_one(tmp_path: Path) -> None:
    rows, found = read(tmp_path, f'"x\n{ONE},sms\n'.encode())
    assert (type(rows[0]), type(rows[1]), found.header) == (BadRow, Row, None)


def test_an_empty_input_has_no_rows(service: Background, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    assert bulk(service, tmp_path / "empty") == 0
    assert capsys.readouterr().out.startswith("0 rows in ")


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_tells_a_person_what_became_of_the_rows(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with source.open("a") as file:
        file.write(f"{ONE[:-1]}Z,sms\nwrong,sms\n{ONE[:-1]}Y,sms\n")
    script(service, Fault.close(process=True))
    assert bulk(service, source, "--concurrency", "1") == 8
    out, err = capsys.readouterr()
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].startswith("6 rows in ")
    assert lines[1:] == [
        "  sent      3  1 of them confirmed by asking",
        "  refused   2  ERROR_MESSAGE_NOT_FOUND 2",
        "  bad rows  1",
    ]
    assert err.startswith("line 5: session_id is not a ULID")
    assert len(service.emulator.ledger) == 3


def test_every_kind_of_outcome_is_counted_and_written(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text(f"x,session_id\n1,{ONE}\n2,{ONE}\n3,{TWO}\n4,{THREE}\n5,bad\n6,{ONE[:-1]}Z\n")
    script(service, Fault.silence(), 1)
    files = [tmp_path / name for name in ("output", "failed", "unknown")]
    options = [f"--{path.name}={path}" for path in files]
    script(service, Fault.close(), 20, "channels")
    assert bulk(service, source, "--json", "--channel", "sms", "--concurrency", "1", "--timeout", "1", *options) == 8
    out, _ = capsys.readouterr()
    assert counts(out) == {"sent": 2, "blocked": 1, "refused": 1, "unknown": 1, "bad": 1}
    output, failed, unknown = (path.read_text().splitlines() for path in files)
    lines = sorted((json.loads(line) for line in output), key=lambda line: line["line"])
    outcomes = ["unknown", "blocked", "sent", "sent", "bad", "refused"]
    assert [(line["line"], line["outcome"]) for line in lines] == list(enumerate(outcomes, 2))
    assert lines[2] == {"line": 4, "session_id": TWO, "channel": "sms", "outcome": "sent"}
    assert lines[5]["error"]["sys_message"] == "ERROR_MESSAGE_NOT_FOUND"
    assert (sorted(failed), unknown) == (
        ["2," + ONE, "6," + ONE[:-1] + "Z", "x,session_id"],
        ["x,session_id", "1," + ONE],
    )


def test_rows_that_failed_can_be_given_in_again(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, Fault.refuse("ERROR_BLOCKED"))
    assert bulk(service, source, "--failed", str(tmp_path / "failed"), "--concurrency", "1") == 8
    assert (tmp_path / "failed").read_text() == f"{ONE},sms\n"
    assert bulk(service, tmp_path / "failed") == 0
    assert len(service.emulator.ledger) == 3


def test_repeats_are_postponed_with_max_wait(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text(f"{ONE},sms\n{ONE},sms\n{TWO},sms\n")
    options = ("--max-wait", "10", "--json", "--concurrency", "1", "--journal", str(tmp_path / "journal"))
    assert bulk(service, source, *options) == 0
    assert counts(capsys.readouterr().out) == {"sent": 3}
    assert [delivery.session_id for delivery in service.emulator.ledger] == [ONE, TWO, ONE]


def test_no_row_waits_beyond_the_end_of_its_session(
    monkeypatch: pytest.MonkeyPatch, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with emulator_in_background(api_key=KEY, session_lifetime=50.0) as service:
        service.call(service.emulator.add_session, ONE)
        source.write_text(f"{ONE},sms\n{ONE},sms\n")
        assert bulk(service, source, "--max-wait", "1000", "--json", "--concurrency", "1") == 8
    assert counts(capsys.readouterr().out) == {"sent": 1, "blocked": 1}


def test_a_code_that_went_over_another_channel_says_so(service: Background, source: Path, tmp_path: Path) -> None:
    channel = {"name": "Email", "type": "email", "is_active": True, "timeout": 60, "image_url": "", "link": ""}
    body = {"session_id": ONE, "session_expired_at": None, "channel": channel}
    script(service, Fault.answer(200, body=body))
    report = tmp_path / "report"
    assert bulk(service, source, "--concurrency", "1", "--output", str(report)) == 0
    first, second, _ = map(json.loads, report.read_text().splitlines())
    assert (first["outcome"], first["channel"], first["sent_to"]) == ("sent", "sms", "email")
    assert "sent_to" not in second


def test_a_limited_account_pauses_the_run(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    script(service, Fault.answer(429, {"Retry-After": "2"}))
    assert bulk(service, source, "--json", "--timeout", "1", "--journal", str(journal)) == 0
    assert counts(capsys.readouterr().out) == {"sent": 3}
    assert len(service.emulator.ledger) == 3


def test_an_account_that_stays_limited_ends_the_run_and_the_same_command_goes_on(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--json", "--timeout", "0.5", "--concurrency", "1", "--journal", str(tmp_path / "journal"))
    script(service, Fault.answer(429, {"Retry-After": "1"}), 10)
    assert bulk(service, source, *options) == 9
    assert counts(capsys.readouterr().out) == {"left": 3}
    service.call(service.emulator.clear_faults)
    assert bulk(service, source, *options) == 0
    assert counts(capsys.readouterr().out) == {"sent": 3}


def test_an_acceptance_that_cannot_be_read_counts_as_sent(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(service, Fault.answer(200, body=b"{}", process=True))
    assert bulk(service, source, "--json") == 0
    assert counts(capsys.readouterr().out) == {"sent": 3}


def test_rate_spaces_the_sends(service: Background, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bulk(service, source, "--rate", "20") == 0
    moments = sorted(delivery.at for delivery in service.emulator.ledger)
    assert moments[-1] - moments[0] >= 0.08  # two gaps of 0.05 s, less what the way there may differ


def test_dry_run_checks_every_row_and_needs_no_key(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulk", str(source), "--dry-run"]) == 0
    assert capsys.readouterr().out == "3 rows: 3 can be sent, 0 are bad; nothing was sent\n"
    with source.open("a") as file:
        file.write("bad\nworse\n")
    assert main(["bulk", str(source), "--dry-run", "--json"]) == 8
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": 5, "good": 3, "bad": 2}
    assert re.findall("line (.)", err) == ["4", "5"]
    assert main(["bulk", str(source), "--dry-run", "--quiet"]) == 8
    assert capsys.readouterr().out == ""


def test_the_example_goes_through_the_emulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example-input", "--count", "40"]) == 0
    source = tmp_path / "rows.csv"
    source.write_text(capsys.readouterr().out)
    with source.open("a") as file:
        file.write(source.read_text().splitlines()[1] + "\n")
    assert main(["bulk", str(source), "--emulate", "--json"]) == 8
    assert counts(capsys.readouterr().out) == {"sent": 40, "blocked": 1}


async def test_a_session_that_lives_in_the_emulator_keeps_its_windows(capsys: pytest.CaptureFixture[str]) -> None:
    connection = Connection(base_url=None, api_key=None, language=None, timeout=None, allow_http=False)
    async with reached(connection, Output()) as (client, enrol):
        enrol(ONE)
        await client.send(ONE, "sms")
        enrol(ONE)
        assert {each.timeout for each in await client.channels(ONE) if each.type == "sms"} == {60.0}


def test_a_resumed_run_tells_what_an_earlier_one_had_done(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert bulk(service, source, "--journal", str(tmp_path / "journal")) == 0
    assert capsys.readouterr().out.endswith("\n  of these, 3 were done by an earlier run\n")


def test_quiet_says_nothing_but_what_is_wrong(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk(service, source, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_standard_input_is_read_to_its_end_and_left_open(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.write(writer, source.read_bytes())
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert bulk(service, "-", "--json") == 0
        os.fstat(reader)
    assert counts(capsys.readouterr().out) == {"sent": 3}


def test_many_rows_to_skip_do_not_hold_up_the_loop(
    service: Background, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("1\n" * 1_200 + f"{ONE},sms\n")
    assert bulk(service, source, "--json") == 8
    out, err = capsys.readouterr()
    assert counts(out) == {"sent": 1, "bad": 1_200}
    assert err.count("\n") == 1_200


def test_what_is_added_to_the_input_meanwhile_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text(f"{ONE},sms\n{TWO},sm")
    with Input.open(str(path), None) as found:
        with path.open("a") as file:
            file.write(f"s\n{THREE},sms\n")
        rows = list(found)
        assert found.rows == 2
    assert [(row.session_id, row.channel) for row in rows if isinstance(row, Row)] == [(ONE, "sms"), (TWO, "sm")]


class FailingFile(io.BytesIO):
    """A file whose disk fails at some point."""

    def __init__(self, content: bytes, reads: int) -> None:
        super().__init__(content)
        self._reads = reads

    def readline(self, size: int | None = -1, /) -> bytes:
        self._reads -= 1
        if self._reads < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readline(size)


def test_an_input_that_fails_at_first_is_refused(
    service: Background, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: None)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: FailingFile(source.read_bytes(), 1))
    with source.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert bulk(service, "-") == 2
    assert capsys.readouterr().err == "error: the input cannot be read any more: Input/output error\n"


def test_an_input_that_fails_is_no_end_of_it_when_it_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    source = Input(FailingFile(f"{ONE},sms\n{TWO},sms\n".encode(), 3 + 1), None)
    assert check_rows(source, Output(), quiet=False) == 10
    assert capsys.readouterr().err == "error: the input cannot be read any more: Input/output error\n"


async def test_an_input_that_fails_in_the_middle_ends_the_run_and_all_rows_are_told(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = [emulator.add_session() for _ in range(30)]
    content = "".join(f"{session},sms\n" for session in sessions).encode()
    source = Input(FailingFile(content, 31 + 10), None)
    assert await send_rows(emulator, source, concurrency=4, quiet=False) == 10
    out, err = capsys.readouterr()
    assert counts(out) == {"sent": 10, "left": 20}
    assert "error: the input cannot be read any more" in err


def test_a_standard_input_that_is_closed_is_refused(
    service: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert bulk(service, "-") == 2
    assert capsys.readouterr().err == "error: the input cannot be read: standard input is closed\n"


# -- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--concurrency", "0"], "--concurrency takes"),
        (["--rate", "0"], "--rate takes"),
        (["--max-wait", "nan"], "--max-wait takes"),
        (["--channel", "no channel"], "not a channel name"),
        (["--emulate"], "exclude each other"),
        (["--queue", "redis://127.0.0.1:9", "--max-wait", "5"], "--queue and --max-wait exclude each other"),
        (["--output", "{source}"], "--output and the input are the same file"),
        (["--failed", "{new}", "--unknown", "{new}"], "--unknown and --failed are the same file"),
        (["--output", "{source}/x"], "the file of --output cannot be written"),
        (["--journal", "{source}"], "are the same file"),
    ],
)
def test_wrong_usage_is_exit_2_before_anything_is_sent(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    before = source.read_bytes()
    filled = [option.format(source=source, new=source.with_name("new")) for option in options]
    assert bulk(service, source, *filled) == 2
    assert words in capsys.readouterr().err
    assert source.read_bytes() == before
    assert service.emulator.requests["send"] == 0


def test_an_input_that_cannot_be_read_is_exit_2(
    service: Background, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk(service, tmp_path / "none") == 2
    assert bulk(service, tmp_path) == 2
    assert capsys.readouterr().err.count("the input cannot be read") == 2


def test_standard_input_is_no_file_that_could_be_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bulk", "-", "--output", str(tmp_path / "x"), "--concurrency", "0", "--emulate"]) == 2


# -- how a run ends early ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ERROR_ACCESS_DENIED", "ERROR_BALANCE"])
def test_an_account_at_fault_ends_the_run_and_the_same_command_goes_on(
    service: Background, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    options = ("--json", "--concurrency", "1", "--journal", str(tmp_path / "journal"))
    script(service, Fault.refuse(code, status=402 if "BALANCE" in code else None))
    failed = tmp_path / "failed"
    assert bulk(service, source, *options, "--failed", str(failed)) == 9
    out, err = capsys.readouterr()
    assert counts(out) == {"left": 3}
    assert json.loads(out)["error"]["outcome"] == "refused"
    assert "the same command sends what is left" in err
    assert sorted(failed.read_text().splitlines()) == sorted(source.read_text().splitlines())
    assert bulk(service, source, *options) == 0
    assert counts(capsys.readouterr().out) == {"sent": 3}


@contextmanager
def running(*args: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_sends(service: Background, number: int) -> None:
    deadline = time.monotonic() + 30
    while service.emulator.requests["send"] < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_lets_what_is_in_flight_finish(service: Background, source: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    args = [str(source), "--base-url", service.emulator.base_url, "--json", "--journal", str(journal)]
    script(service, Fault.delay(1.0))
    with running(*args, "--concurrency", "1") as process:
        wait_for_sends(service, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert counts(out) == {"sent": 1, "left": 2}
    assert "stopping: waiting for 1 in flight" in err
    assert len(service.emulator.ledger) == 1
    assert bulk(service, source, "--journal", str(journal), "--quiet") == 0
    assert len(service.emulator.ledger) == 3


def test_ctrl_c_does_not_wait_for_turns_that_are_far_away(service: Background, source: Path) -> None:
    with running(str(source), "--base-url", service.emulator.base_url, "--json", "--rate", "0.01") as process:
        wait_for_sends(service, 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, counts(out)) == (130, {"sent": 1, "left": 2})


def test_a_second_ctrl_c_ends_at_once_and_tells_what_is_unknown(
    service: Background, source: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    args = [str(source), "--base-url", service.emulator.base_url, "--json", "--journal", str(journal)]
    script(service, Fault.silence(process=True))
    with running(*args, "--concurrency", "1") as process:
        wait_for_sends(service, 1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, counts(out)) == (130, {"unknown": 1, "left": 2})
    # the next run asks, inside the window of a second that the emulator has, or does not know
    assert bulk(service, source, "--journal", str(journal), "--quiet") in (0, 8)
    assert len(service.emulator.ledger) == 3


def test_a_report_that_cannot_be_written_ends_the_run(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk(service, source, "--json", "--output", "/dev/full") == 10
    assert "a file of the run cannot be written: No space left" in capsys.readouterr().err


def test_a_report_that_fails_early_begins_nothing_more(
    service: Background, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text(f"{'x' * 50}\n" * 2_000 + f"{ONE},sms\n")
    assert bulk(service, source, "--json", "--output", "/dev/full") == 10
    out, err = capsys.readouterr()
    assert err.count("cannot be written") == 1
    assert counts(out)["bad"] == 2_000


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_a_terminal_sees_the_progress_within_its_width(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("".join(f"{ULID()},sms\n" for _ in range(30)) + "bad\n")
    parent, child = pty.openpty()
    seen = bytearray()

    def watch() -> None:
        while True:
            try:
                seen.extend(os.read(parent, 65_536))
            except OSError:  # the other end is closed
                return

    watching = threading.Thread(target=watch)
    watching.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(
        [*COMMAND, str(source), "--emulate", "--rate", "40"],
        check=False,
        stdout=child,
        stderr=child,
        env=environment,
        timeout=60,
    )
    os.close(child)
    watching.join()
    os.close(parent)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert done.returncode == 8
    assert " of 31" in text
    assert "in flight" in text
    assert "line 31: session_id is not a ULID" in text
    assert max(map(len, re.split("[\r\n]+", text))) <= 80


def test_progress_shows_the_workers_of_a_fleet() -> None:
    tally = Tally(1_000, 0.0)
    console = Console(width=100, file=io.StringIO())

    def drawn() -> str:
        with console.capture() as capture:
            console.print(tally.picture(1.0))
        return capture.get()

    assert "worker" not in drawn()
    for number in range(10):
        tally.note_worker(WorkerProgress(f"{number}-abc", 100 * number, in_flight=64, waiting=number))
    assert "worker 9-abc  900 done  64 in flight  9 waiting" in drawn()
    assert "worker 2-abc" in drawn()
    assert "worker 1-abc" not in drawn()
    assert "2 workers more" in drawn()
    assert tally.words(1.0).endswith("10 workers")
    for number in range(10):
        tally.note_worker(WorkerProgress(f"{number}-abc", 0, in_flight=0, waiting=0, is_alive=False))
    assert "no worker is heard of" in drawn()
    assert tally.words(1.0).endswith("0 workers")


async def test_where_there_is_no_terminal_progress_is_a_line_from_time_to_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()
    async with output.progress(lambda: "", lambda: "so far"):
        await asyncio.sleep(11)
    assert capsys.readouterr().err == "so far\nso far\n"


def test_rate_and_time_left_are_those_of_late() -> None:
    tally = Tally(10_000, 0.0)
    words = tally.words(0.0)
    assert words == "0 of 10,000, 0/s, 0 in flight"
    words = ""
    for now in range(1, 40):
        for _ in range(10 if now < 20 else 100):
            tally.add("sent")
        words = tally.words(float(now))
    assert words == "2,190 of 10,000, 100/s, 0 in flight, 0:01:18 left, sent 2,190"
    tally.paused_for = 30.0
    assert "100/s, 0 in flight, the account is limited, goes on in 30 s, sent" in tally.words(39.0)


def test_reasons_without_end_fill_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(1_000, 0.0)
    for number in range(1_000):
        tally.add("refused", f"reason {number}")
    assert len(tally.reasons["refused"]) == 51
    tally.summarize(Output(), 5_000.0)
    out = capsys.readouterr().out
    assert out.startswith("1,000 rows in 1:23:20, 0/s\n")
    assert "others 950" in out
