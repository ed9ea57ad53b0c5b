"""The journal: a bulk run that is killed, cut off or refused its disk goes on, and sends nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from background import Background, emulator_in_background
from bulk_here import bulk_here
from faulty_disk import FULL, IOERR_FSYNC, IOERR_WRITE, FaultyDisk
from ulid import ULID

from kodmobi_async import ConfigurationError
from kodmobi_async.cli import main
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.journal import Entry, Journal, JournalError, State, _file
from kodmobi_async.journal._file import APPLICATION_ID, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = "key-of-these-tests"
# the long mode: every commit of a run of 1 000 rows, instead of some of a shorter one
EVERY_KILL = os.environ.get("KODMOBI_THOROUGH") == "1"
ROWS, CONCURRENCY = (1_000, 64) if EVERY_KILL else (24, 8)
KILLED = -signal.SIGKILL
SETTINGS = {"the input": "abc", "--channel": ""}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    with emulator_in_background(api_key=KEY, session_lifetime=100_000.0) as background:
        yield background


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def write_input(service: Background, path: Path, rows: int, *, unknown: int = 0) -> list[str]:
    """Write an input of sessions that live in the emulator, and ``unknown`` ones that do not."""
    sessions = [service.add_session() if number >= unknown else str(ULID()) for number in range(rows)]
    path.write_text("".join(f"{session},sms\n" for session in sessions))
    return sessions


def bulk(service: Background, source: Path, journal: Path, *options: str) -> int:
    args = ["bulk", str(source), "--journal", str(journal), "--base-url", service.emulator.base_url]
    return main([*args, "--quiet", "--json", *options])


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return counts


def sqlite_is_in_reach() -> bool:
    try:
        FaultyDisk().restore()
    except LookupError:
        return False
    return True


needs_sqlite = pytest.mark.skipif(not sqlite_is_in_reach(), reason="SQLite is built into this Python, out of reach")


def row(number: int) -> Entry:
    return Entry(number, str(ULID()), "sms")


# -- killed at any moment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["command", "script"])
@pytest.mark.parametrize(
    ("moment", "step", "long_step"),
    [
        # the writing of the journal's beginning among it
        pytest.param("write", 7, 5, marks=needs_sqlite),
        pytest.param("half written", 7, 5, marks=needs_sqlite),
        pytest.param("sync", 3, 1, marks=needs_sqlite),
        pytest.param("synced", 3, 1, marks=needs_sqlite),
        ("committed", 1, 1),
        # the requests are many, and alike
        ("before the request", 5, 40),
        ("after the request", 5, 40),
    ],
)
def test_a_run_killed_at_any_moment_goes_on_and_delivers_no_row_twice(
    service: Background, tmp_path: Path, moment: str, step: int, long_step: int, *, kind: str
) -> None:
    step, batch = (long_step, 5) if EVERY_KILL else (step, 4)
    ended: list[dict[str, Any]] = []
    for first in range(1, 100_000 if EVERY_KILL else 2, step * batch):
        sources = [tmp_path / f"{number}.csv" for number in range(first, first + step * batch, step)]
        sessions = {str(source): write_input(service, source, ROWS, unknown=3) for source in sources}
        for end in driven(kind, service.emulator.base_url, moment, str(first), str(step), *map(str, sources)):
            check(service, end, sessions[end["source"]])
            ended.append(end)
        if ended[-1]["killed"] != KILLED:
            break
    killed = sum(end["killed"] == KILLED for end in ended)
    unknown, confirmed = (sum(end[name] for end in ended) for name in ("unknown", "confirmed"))
    sys.stdout.write(f"{moment}: {killed} killed runs, {unknown} rows unknown, {confirmed} confirmed\n")
    assert killed >= 3


def driven(kind: str, *args: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), *args]
    environment = {**os.environ, "CONCURRENCY": str(CONCURRENCY), "KIND": kind}
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(service: Background, end: dict[str, Any], sessions: Sequence[str]) -> None:
    delivered = {session: len(service.emulator.delivered(session)) for session in sessions}
    assert set(delivered.values()) <= {0, 1}, end
    assert end["sent"] + end["refused"] + end["unknown"] == end["rows"] == len(sessions), end
    unknown = {line.split(",")[0] for line in Path(f"{end['source']}.unknown").read_text().splitlines()}
    assert len(unknown) == end["unknown"]
    # what is not unknown is told as it was
    assert sum(count for session, count in delivered.items() if session not in unknown) == end["sent"], end
    assert end["resumed"] == 8


# -- what an earlier run has left open --------------------------------------------------------------------------------


def leave_intent(journal: Path, line: int) -> None:
    with sqlite3.connect(journal) as database:
        database.execute("UPDATE row SET state = ?, detail = NULL WHERE line = ?", (State.INTENT, line))
    database.close()


def sends(service: Background) -> int:
    return service.emulator.requests["send"]


def test_an_intent_without_outcome_is_confirmed_by_asking_and_not_sent_again(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 2)
    assert bulk(service, source, journal) == 0
    capsys.readouterr()
    leave_intent(journal, 2)
    assert bulk(service, source, journal) == 0
    counts = summary(capsys)
    assert (counts["sent"], counts["confirmed"], counts["earlier"], sends(service)) == (2, 1, 2, 2)


def test_the_service_may_spell_channels_as_it_likes(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    assert bulk(service, source, journal) == 0
    capsys.readouterr()
    leave_intent(journal, 1)
    channel = {"name": "SMS", "type": "SMS", "is_active": True, "timeout": 42, "image_url": "", "link": ""}
    service.call(service.emulator.script, Fault.answer(200, body=[channel]), 1, "channels")
    assert bulk(service, source, journal) == 0
    assert summary(capsys)["confirmed"] == 1


def test_of_rows_that_are_alike_one_alone_has_an_intent(
    service: Background, tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(f"{service.add_session()},sms\n" * 5)
    intended: list[int] = []
    intend = Journal.intend

    async def noted(self: Journal, row: Entry) -> None:
        intended.append(row.number)
        await intend(self, row)

    monkeypatch.setattr(Journal, "intend", noted)
    assert bulk(service, source, journal) == 8
    assert intended == [1]
    assert sends(service) == 1


def test_a_line_that_was_a_row_and_is_none_any_more_does_not_hide_the_next(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    good, another = service.add_session(), service.add_session()
    source.write_text(f"{good},sms\nnothing,sms\n{another},sms\n")
    assert bulk(service, source, journal) == 8
    with sqlite3.connect(journal) as database:
        database.execute("INSERT INTO row VALUES (2, 'nothing', 'sms', 0, ?, NULL)", (State.SENT,))
    database.close()
    capsys.readouterr()
    assert bulk(service, source, journal) == 8
    counts = summary(capsys)
    assert (counts["sent"], counts["bad"], counts["earlier"], sends(service)) == (2, 1, 2, 2)


@pytest.mark.parametrize("ended", [True, False])
def test_what_asking_does_not_tell_stays_unknown_for_good(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str], ended: bool
) -> None:
    source = tmp_path / "rows.csv"
    session, _ = write_input(service, source, 2)
    assert bulk(service, source, journal) == 0
    leave_intent(journal, 1)
    if ended:
        service.call(service.emulator.expire_session, session)
    else:  # as if its window had passed
        service.call(service.emulator.add_session, session)
    for _ in range(2):
        capsys.readouterr()
        assert bulk(service, source, journal, "--unknown", str(tmp_path / "unknown")) == 8
        counts = summary(capsys)
        assert (counts["unknown"], counts["sent"], sends(service)) == (1, 1, 2)
        assert (tmp_path / "unknown").read_text() == f"{session},sms\n"


def test_a_service_that_does_not_answer_is_asked_again_by_the_next_run(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    assert bulk(service, source, journal) == 0
    leave_intent(journal, 1)
    service.call(service.emulator.script, Fault.close(), 50, "channels")
    capsys.readouterr()
    assert bulk(service, source, journal) == 8
    assert summary(capsys)["unknown"] == 1
    service.call(service.emulator.clear_faults)
    assert bulk(service, source, journal) == 0
    assert (summary(capsys)["confirmed"], sends(service)) == (1, 1)


def test_an_account_at_fault_ends_the_asking_before_anything_is_sent(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 2)
    assert bulk(service, source, journal) == 0
    capsys.readouterr()
    for line in (1, 2):
        leave_intent(journal, line)
    service.call(service.emulator.script, Fault.refuse("ERROR_ACCESS_DENIED"), 2, "channels")
    assert bulk(service, source, journal) == 9
    assert (summary(capsys)["unknown"], sends(service)) == (2, 2)


def test_a_channel_of_an_unknown_row_is_not_sent_to_for_a_window(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    session = service.add_session()
    source.write_text(f"{session},sms\n{session},sms\n{session},sms\n")
    assert bulk(service, source, journal, "--concurrency", "1") == 8
    with sqlite3.connect(journal) as database:
        database.execute("UPDATE row SET state = ? WHERE line < 3", (State.INTENT,))
        database.execute("UPDATE row SET state = ? WHERE line = 3", (State.LEFT,))
    database.close()
    service.call(service.emulator.add_session, session)
    capsys.readouterr()
    assert bulk(service, source, journal) == 8
    counts = summary(capsys)
    assert (counts["unknown"], counts["blocked"], sends(service)) == (2, 1, 1)


def test_what_was_refused_is_final_unless_it_is_asked_for(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 3)
    service.call(service.emulator.script, Fault.refuse("ERROR_BLOCKED"), 1, "send")
    assert bulk(service, source, journal) == 8
    assert bulk(service, source, journal) == 8
    assert sends(service) == 3
    capsys.readouterr()
    assert bulk(service, source, journal, "--retry-failed") == 0
    counts = summary(capsys)
    assert (counts["sent"], counts["earlier"], sends(service)) == (3, 2, 4)


def test_a_row_that_the_service_finds_too_soon_is_tried_again_later_and_its_intent_taken_back(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    service.call(service.emulator.script, Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=1), 2, "send")
    assert bulk(service, source, journal) == 8
    assert summary(capsys)["blocked"] == 1
    assert bulk(service, source, journal, "--retry-failed", "--max-wait", "5") == 0
    assert (summary(capsys)["sent"], sends(service)) == (1, 3)


def test_a_run_killed_while_a_row_is_postponed_sends_that_row_later(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 2)
    service.call(service.emulator.script, Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=30), 1, "send")
    command = [sys.executable, "-m", "kodmobi_async", "bulk", str(source), "--journal", str(journal)]
    command += ["--base-url", service.emulator.base_url, "--max-wait", "60", "--concurrency", "1", "--quiet"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while sends(service) < 2:  # the intent of the second row is on the disk, and so is what was before it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert bulk(service, source, journal) in (0, 8)  # the second row may be unknown
    assert len(service.emulator.ledger) == 2
    assert summary(capsys)["left"] == 0


def test_a_repeat_that_proves_the_arrival_counts_as_sent(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    service.call(service.emulator.script, Fault.close(process=True), 1, "send")
    service.call(service.emulator.script, Fault.answer(400), 1, "channels")
    assert bulk(service, source, journal, "--max-wait", "5") == 0
    assert bulk(service, source, journal) == 0
    assert len(service.emulator.ledger) == 1


async def test_an_interrupt_ends_the_asking_too(
    emulator: Emulator, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    await asyncio.to_thread(source.write_text, "".join(f"{emulator.add_session()},sms\n" for _ in range(4)))
    assert await bulk_here(emulator, source, journal) == 0
    await asyncio.to_thread(leave_intent, journal, 1)
    await asyncio.to_thread(leave_intent, journal, 2)
    emulator.script(Fault.delay(5.0), 1, "channels")
    resuming = asyncio.create_task(bulk_here(emulator, source, journal))
    await asyncio.sleep(1.0)
    assert emulator.requests["channels"] == 1
    os.kill(os.getpid(), signal.SIGINT)
    assert await resuming == 130
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (counts["sent"], counts["confirmed"], counts["unknown"]) == (3, 1, 1)


async def test_further_interrupts_change_nothing(
    emulator: Emulator, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    await asyncio.to_thread(source.write_text, "".join(f"{emulator.add_session()},sms\n" for _ in range(3)))
    emulator.script(Fault.silence())
    running = asyncio.create_task(bulk_here(emulator, source, journal))
    await asyncio.sleep(1.0)
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
    assert await running == 130
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (counts["unknown"], counts["left"]) == (1, 2)


async def test_an_account_at_fault_ends_the_waiting_for_turns(
    emulator: Emulator, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    await asyncio.to_thread(source.write_text, "".join(f"{emulator.add_session()},sms\n" for _ in range(50)))
    emulator.script(Fault.refuse("ERROR_WRONG_BALANCE", status=402), times=100)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bulk_here(emulator, source, journal, concurrency=20, rate=0.1) == 9
    assert loop.time() - began < 1.0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == 50
    assert emulator.requests["send"] == 1


async def test_a_row_that_waits_for_the_end_of_a_limit_does_not_look_as_if_it_had_been_sent(
    emulator: Emulator, tmp_path: Path, journal: Path
) -> None:
    source = tmp_path / "rows.csv"
    await asyncio.to_thread(source.write_text, f"{emulator.add_session()},sms\n")
    emulator.script(Fault.answer(429, {"Retry-After": "100"}))
    running = asyncio.create_task(bulk_here(emulator, source, journal))
    await asyncio.sleep(10.0)
    killed = tmp_path / "killed"  # as the disk would have it then
    for end in ("", "-wal"):
        await asyncio.to_thread(shutil.copy, f"{journal}{end}", f"{killed}{end}")
    async with Journal.open(killed) as opened:
        assert await opened.intents() == []
    assert await running == 0


async def test_a_run_that_somebody_cancels_is_cancelled(emulator: Emulator, tmp_path: Path, journal: Path) -> None:
    source = tmp_path / "rows.csv"
    await asyncio.to_thread(source.write_text, f"{emulator.add_session()},sms\n")
    emulator.script(Fault.silence())
    task = asyncio.create_task(bulk_here(emulator, source, journal))
    await asyncio.sleep(1.0)
    assert emulator.requests["send"] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Journal.open(journal) as opened:
        assert len(await opened.intents()) == 1


# -- refused before anything is sent ----------------------------------------------------------------------------------


def foreign_text(path: Path) -> None:
    path.write_text("a text of somebody's\n" * 100)


def foreign_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.close()


def marked_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()


def later_version(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute("PRAGMA user_version = 99")
    database.execute("CREATE TABLE run (name, value)")
    database.close()


def hollow(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("CREATE TABLE something (name, value)")
    database.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign_text, "is no journal"),
        (foreign_database, "another program"),
        (marked_database, "another program"),
        (later_version, "of version 99"),
        (hollow, "is no journal"),
        (Path.mkdir, "cannot be opened"),
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_was(journal: Path, make: Any, words: str) -> None:
    make(journal)
    before = content(journal)
    with pytest.raises(ConfigurationError, match=words):
        open_and_close(journal)
    if make is not hollow:  # it has our marks, and is taken for one of ours at first
        assert content(journal) == before


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def open_and_close(journal: Path) -> None:
    async def run() -> None:
        async with Journal.open(journal, binding=SETTINGS):
            pass

    asyncio.run(run())


def test_a_damaged_journal_is_refused(journal: Path) -> None:
    async def fill() -> None:
        async with Journal.open(journal, binding=SETTINGS) as opened:
            for line in range(1, 2_000):
                opened.settle(row(line), State.SENT, "x" * 50)

    asyncio.run(fill())
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    with pytest.raises(ConfigurationError, match="damaged"):
        open_and_close(journal)


async def test_a_second_process_is_refused_while_the_first_one_runs(journal: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from kodmobi_async.journal import Journal\n"
        "async def main():\n"
        "    async with Journal.open(sys.argv[1]): pass\n"
        "try: asyncio.run(main())\n"
        "except Exception as error: print(error)\n"
    )
    async with Journal.open(journal, binding=SETTINGS) as opened:
        await opened.intend(row(1))
        with pytest.raises(ConfigurationError, match="in use"):
            async with Journal.open(journal, binding=SETTINGS):
                pass
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(journal), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
        assert b"in use by another process" in told
        await opened.intend(row(2))


def test_a_changed_input_and_another_channel_are_refused_before_anything_is_sent(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    assert bulk(service, source, journal) == 0
    assert bulk(service, source, journal, "--channel", "sms") == 2
    assert "--channel has changed" in capsys.readouterr().err
    with source.open("a") as file:
        file.write(f"{service.add_session()},sms\n")
    assert bulk(service, source, journal) == 2
    assert "the input has changed" in capsys.readouterr().err
    assert sends(service) == 1


async def test_a_journal_of_a_version_that_wrote_fewer_settings_goes_on(journal: Path) -> None:
    async with Journal.open(journal, binding=SETTINGS):
        pass
    async with Journal.open(journal, binding={**SETTINGS, "--session-column": ""}):
        pass
    with pytest.raises(ConfigurationError, match="--session-column has changed"):
        async with Journal.open(journal, binding={**SETTINGS, "--session-column": "id"}):
            pass


def test_the_address_binds_the_journal_wherever_it_was_set(
    service: Background,
    tmp_path: Path,
    journal: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 1)
    assert bulk(service, source, journal) == 0
    args = ["bulk", str(source), "--journal", str(journal), "--quiet"]
    monkeypatch.setenv("KODMOBI_BASE_URL", f"{service.emulator.base_url}/")
    assert main(args) == 0
    monkeypatch.setenv("KODMOBI_BASE_URL", "http://127.0.0.1:9/session")
    assert main(args) == 2
    assert "the service has changed" in capsys.readouterr().err
    assert sends(service) == 1


def test_a_wrong_address_never_gets_into_a_journal(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(f"{ULID()},sms\n")
    monkeypatch.setenv("KODMOBI_API_KEY", KEY)
    address = "https://user:hunter2@kod.example"
    assert main(["bulk", str(source), "--journal", str(journal), "--base-url", address]) == 2
    assert not journal.exists()
    assert "hunter2" not in capsys.readouterr().err


# -- the disk ---------------------------------------------------------------------------------------------------------


async def test_an_intent_is_on_the_disk_before_it_returns_and_many_share_a_commit(journal: Path) -> None:
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += "INSERT" in statement

    async with Journal.open(journal, binding=SETTINGS) as opened:
        opened._database.set_trace_callback(count)
        await asyncio.gather(*(opened.intend(row(line)) for line in range(1, 101)))
        assert commits <= 2
        assert [entry.number for entry in await opened.intents()] == list(range(1, 101))
        opened.settle(row(1), State.SENT)
        await opened.flush()
        assert [entry.state for entry in await opened.page(0)][:2] == [State.SENT, State.INTENT]
    async with Journal.open(journal, binding=SETTINGS) as opened:
        assert opened.last_number == 100


async def test_a_full_disk_fails_the_intent_and_all_after_it_and_keeps_what_was_written(journal: Path) -> None:
    async with Journal.open(journal, binding=SETTINGS) as opened:
        await opened.intend(row(1))
        pages = opened._database.execute("PRAGMA page_count").fetchone()[0]
        opened._database.execute(f"PRAGMA max_page_count = {pages}")
        together = (opened.intend(row(line)) for line in range(2, 1_000))
        failed = await asyncio.gather(*together, return_exceptions=True)
        assert {str(error) for error in failed} == {"the journal cannot be written: database or disk is full"}
        opened.settle(row(1), State.SENT)
        with pytest.raises(JournalError, match="full"):
            await opened.intend(row(1))
        with pytest.raises(JournalError, match="full"):
            await opened.flush()
    async with Journal.open(journal, binding=SETTINGS) as opened:
        assert [(entry.number, entry.state) for entry in await opened.page(0)] == [(1, State.INTENT)]


async def test_what_comes_while_a_write_fails_fails_with_it(journal: Path) -> None:
    async with Journal.open(journal, binding=SETTINGS) as opened:
        opened._database.execute("PRAGMA max_page_count = 1")
        first = asyncio.create_task(opened.intend(Entry(1, "x" * 9_000, "sms")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(opened.intend(row(2)))
        done = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(error) for error in done] == [JournalError, JournalError]


async def test_whatever_keeps_the_journal_from_being_written_is_told_to_all_who_wait(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(*_: object) -> None:
        raise MemoryError

    async with Journal.open(journal, binding=SETTINGS) as opened:
        monkeypatch.setattr(_file, "commit", commit)
        with pytest.raises(JournalError, match="MemoryError"):
            await opened.intend(row(1))


async def test_what_waits_to_be_written_is_written_however_often_the_closing_is_cancelled(journal: Path) -> None:
    going, released = asyncio.Event(), threading.Event()

    async def work() -> None:
        async with Journal.open(journal, binding=SETTINGS) as opened:
            await opened.intend(row(1))
            opened._thread.submit(released.wait, 30)  # a slow disk
            for line in range(2, 51):
                opened.settle(row(line), State.SENT)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for line in range(51, 101):  # while those before are being written
                opened.settle(row(line), State.SENT)
            going.set()

    task = asyncio.create_task(work())
    await going.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Journal.open(journal, binding=SETTINGS) as opened:
        assert len(await opened.page(0)) == 100


async def test_an_intent_whose_caller_has_gone_is_written_and_holds_up_nobody(journal: Path) -> None:
    async with Journal.open(journal, binding=SETTINGS) as opened:
        first, second = (asyncio.create_task(opened.intend(row(line))) for line in (1, 2))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        assert len(await opened.intents()) == 2


async def test_a_state_that_no_version_has_written_is_an_error_that_says_so(journal: Path) -> None:
    async with Journal.open(journal, binding=SETTINGS) as opened:
        opened._database.execute("INSERT INTO row VALUES (1, '', '', 0, 99, NULL)")
        with pytest.raises(JournalError, match="cannot be read"):
            await opened.page(0)


@contextlib.contextmanager
def files_no_longer_than(limit: int) -> Iterator[None]:
    """Let the kernel refuse this process every write beyond a length, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room_for_a_journal_lets_nothing_be_sent(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 3)
    with files_no_longer_than(100):
        assert bulk(service, source, journal) == 10
    assert (summary(capsys)["left"], sends(service)) == (3, 0)
    assert bulk(service, source, journal) == 0


def test_a_disk_that_fills_up_ends_the_run_before_the_next_request_and_the_run_goes_on_later(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 200)
    with files_no_longer_than(100_000):
        assert bulk(service, source, journal, "--concurrency", "4") == 10
    out, err = capsys.readouterr()
    assert err.startswith("error: the journal cannot be written: ")
    counts = json.loads(out)
    assert counts["sent"] + counts["left"] == 200
    assert counts["sent"] == len(service.emulator.ledger) < 200
    assert bulk(service, source, journal) == 0
    assert summary(capsys)["sent"] == 200 == len(service.emulator.ledger)


def test_wherever_the_disk_fills_up_the_row_is_sent_once_and_the_failure_is_told(
    service: Background, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: set[tuple[int, int]] = set()
    for pages in range(1, 20):
        source, journal = tmp_path / f"{pages}.csv", tmp_path / f"{pages}.journal"
        (session,) = write_input(service, source, 1)
        with files_no_longer_than(pages * 4_096):
            code = bulk(service, source, journal)
        ended.add((code, summary(capsys)["sent"]))
        assert bulk(service, source, journal) == 0
        assert (summary(capsys)["sent"], len(service.emulator.delivered(session))) == (1, 1)
        if code == 0:
            break
    # before the request, between the request and the writing of its outcome, nowhere
    assert ended == {(10, 0), (10, 1), (0, 1)}


@needs_sqlite
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("write", IOERR_WRITE, "disk I/O error"),
        ("write", FULL, "database or disk is full"),
        ("sync", IOERR_FSYNC, "disk I/O error"),
    ],
)
@pytest.mark.parametrize("number", [1, 8, 25])
def test_a_disk_that_fails_ends_the_run_before_the_next_request_and_the_run_goes_on_later(
    service: Background,
    tmp_path: Path,
    journal: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    call: str,
    error: int,
    words: str,
    number: int,
) -> None:
    source = tmp_path / "rows.csv"
    sessions = write_input(service, source, 60)
    calls = 0
    began: list[int] = []

    def fail(asked: str) -> int:
        nonlocal calls
        calls += asked == call
        if asked != call or calls < number:
            return 0
        began.append(sends(service))
        return error

    disk = FaultyDisk(before=fail)
    try:
        code = bulk(service, source, journal, "--concurrency", "2")
    finally:
        disk.restore()
    out, err = capsys.readouterr()
    assert (code, words in err) == (10, True), err
    # what was under way may have come to its end
    assert sends(service) <= began[0] + 2
    assert bulk(service, source, journal) in (0, 8)
    counts = summary(capsys)
    delivered = [len(service.emulator.delivered(session)) for session in sessions]
    assert set(delivered) <= {0, 1}
    assert counts["sent"] + counts["unknown"] == 60
    assert json.loads(out)["sent"] <= sum(delivered)


def test_a_journal_that_cannot_be_read_ends_the_run(
    service: Background, tmp_path: Path, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rows.csv"
    write_input(service, source, 2)
    assert bulk(service, source, journal) == 0
    with sqlite3.connect(journal) as database:
        database.execute("UPDATE row SET state = 99 WHERE line = 2")
    database.close()
    capsys.readouterr()
    assert bulk(service, source, journal) == 10
    assert (summary(capsys)["left"], sends(service)) == (2, 2)
