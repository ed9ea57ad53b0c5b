"""``kodmobi bulk --queue``: a feeder, a queue on a real server and a worker, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter, deque
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from fleet_worker import make_fleet

from kodmobi_async.cli import main
from kodmobi_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from valkey_server import Valkey

pytestmark = pytest.mark.real_clock

WORKER = Path(__file__).with_name("fleet_worker.py")
EXAMPLES = Path(__file__).parents[1] / "examples"
LONG = os.environ.get("KODMOBI_THOROUGH") == "1"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(session_lifetime=600.0, keep=200_000) as emulator:
        yield emulator


@contextlib.asynccontextmanager
async def process(emulator: Emulator, valkey: Valkey, *args: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *args,
        env={
            **os.environ,
            "KODMOBI_API_KEY": emulator.api_key,
            "KODMOBI_BASE_URL": emulator.base_url,
            "REDIS_URL": valkey.url,
            "PYTHONPATH": os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 another process sets no event of this one's
        await asyncio.sleep(0.01)


@pytest.fixture
async def rows(emulator: Emulator, tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"{emulator.add_session()},sms\n" for _ in range(30)), "utf-8")
    return path


def resident(pid: int) -> int:
    """Return the memory of a process, in KiB; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def command(valkey: Valkey, rows: Path) -> tuple[str, ...]:
    journal = str(rows.with_suffix(".journal"))
    return "-m", "kodmobi_async", "bulk", str(rows), "--queue", valkey.url, "--journal", journal, "--json", "--quiet"


async def run(emulator: Emulator, valkey: Valkey, *args: str) -> tuple[int | None, dict[str, Any]]:
    async with process(emulator, valkey, *args) as feeder:
        out, _ = await feeder.communicate()
    return feeder.returncode, json.loads(out)


async def test_workers_send_the_rows_and_a_journal_remembers_them(
    emulator: Emulator, valkey: Valkey, rows: Path
) -> None:
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"))
    async with process(emulator, valkey, str(WORKER)):
        code, told = await run(emulator, valkey, *command(valkey, rows))
        assert (code, told["sent"], told["refused"]) == (8, 29, 1)
        code, told = await run(emulator, valkey, *command(valkey, rows))
        assert (code, told["sent"], told["refused"]) == (8, 29, 1)
    assert len(emulator.ledger) == 29


async def test_rows_that_are_to_be_tried_again_are_sent_again(emulator: Emulator, valkey: Valkey, rows: Path) -> None:
    """Those that failed, and those that the account kept from being sent."""
    emulator.script(Fault.refuse("ERROR_PHONE_BLOCKED"), endpoint="send")
    emulator.script(Fault.refuse("ERROR_WRONG_BALANCE", status=402), times=100, endpoint="send")
    async with process(emulator, valkey, str(WORKER)):
        code, told = await run(emulator, valkey, *command(valkey, rows))
        assert (code, told["refused"], told["left"]) == (9, 1, 29)
        emulator.clear_faults()
        code, told = await run(emulator, valkey, *command(valkey, rows), "--retry-failed")
        assert (code, told["sent"]) == (0, 30)
    assert len(emulator.ledger) == 30


async def test_a_run_may_do_without_a_journal(emulator: Emulator, valkey: Valkey, rows: Path) -> None:
    async with process(emulator, valkey, str(WORKER)):
        code, told = await run(
            emulator,
            valkey,
            "-m",
            "kodmobi_async",
            "bulk",
            str(rows),
            "--queue",
            valkey.url,
            "--json",
            "--quiet",
            "--rate",
            "1000",
        )
    assert (code, told["sent"]) == (0, 30)


async def test_a_feeder_killed_in_the_middle_goes_on_and_sends_no_row_twice(
    emulator: Emulator, valkey: Valkey, rows: Path
) -> None:
    async with process(emulator, valkey, *command(valkey, rows)) as feeder:
        await until(rows.with_suffix(".journal-wal").exists)
        async with process(emulator, valkey, str(WORKER)):
            await until(lambda: emulator.ledger)
            feeder.send_signal(signal.SIGKILL)
            await feeder.wait()
            code, told = await run(emulator, valkey, *command(valkey, rows))
    assert (code, told["sent"]) == (0, 30)
    assert len(emulator.ledger) == len({delivery.session_id for delivery in emulator.ledger}) == 30


async def test_a_feeder_that_is_interrupted_leaves_its_rows_to_the_next_run(
    emulator: Emulator, valkey: Valkey, rows: Path
) -> None:
    async with process(emulator, valkey, *command(valkey, rows)) as feeder:
        with valkey.client() as server:
            await until(lambda: server.xlen("taskiq") == 1)
        assert feeder.stderr is not None
        feeder.send_signal(signal.SIGINT)
        assert b"stopping: waiting for 30 in flight" in await feeder.stderr.readline()
        feeder.send_signal(signal.SIGINT)
        out, _ = await feeder.communicate()
    assert feeder.returncode == 130
    assert json.loads(out)["sent"] == 0
    async with process(emulator, valkey, str(WORKER)):
        code, told = await run(emulator, valkey, *command(valkey, rows))
    assert (code, told["sent"]) == (0, 30)
    assert len(emulator.ledger) == 30


async def test_workers_killed_again_and_again_cost_no_row_its_outcome_and_nobody_a_second_code(
    emulator: Emulator, valkey: Valkey, tmp_path: Path
) -> None:
    count, workers = (100_000, 3) if LONG else (2_000, 2)
    emulator.script(Fault.delay(0.01 if LONG else 0.2), times=10 * count, endpoint="send")
    rows, outcomes = tmp_path / "rows.csv", tmp_path / "outcomes.jsonl"
    rows.write_text("".join(f"{emulator.add_session()},sms\n" for _ in range(count)), "utf-8")
    random = Random(7)
    memory: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        fleet = deque([await stack.enter_async_context(process(emulator, valkey, str(WORKER))) for _ in range(workers)])
        feeder = await stack.enter_async_context(
            process(emulator, valkey, *command(valkey, rows), "--output", str(outcomes))
        )
        done = asyncio.create_task(feeder.communicate())
        kills = 0
        while not done.done():
            await asyncio.wait([done], timeout=random.uniform(1.0, 5.0) if LONG else 1.5)
            if not done.done() and emulator.ledger and (LONG or kills < 4):
                memory.append(resident(feeder.pid))
                fleet[0].kill()
                fleet.rotate(-1)
                fleet[-1] = await stack.enter_async_context(process(emulator, valkey, str(WORKER)))
                kills += 1
        told = json.loads((await done)[0])
    assert kills >= 2
    assert told["sent"] + told["unknown"] == told["rows"] == count
    codes = Counter(str(delivery.session_id) for delivery in emulator.ledger)
    assert max(codes.values()) == 1
    states = {}
    with outcomes.open(encoding="utf-8") as lines:
        for line in lines:
            known = json.loads(line)
            assert known["session_id"] not in states
            states[known["session_id"]] = known["outcome"]
    assert len(states) == count
    assert all(codes[session] for session, outcome in states.items() if outcome == "sent")
    # no more are unknown than the killed workers had in flight
    assert told["unknown"] <= 64 * kills
    if LONG:
        assert max(memory) < 1.1 * memory[len(memory) // 4]


async def test_a_worker_of_taskiqs_own_command_stops_within_its_bound(
    emulator: Emulator, valkey: Valkey, rows: Path
) -> None:
    """Whether rows of a batch wait, or single tasks."""
    sessions = [line.partition(",")[0] for line in rows.read_text("utf-8").split()]
    taskiq = "-m", "taskiq", "worker", "taskiq_worker:broker", "--workers", "1", "--log-level", "WARNING"
    broker, resend = make_fleet(valkey.url)
    await broker.startup()
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=10), times=35, endpoint="send")
    tasks = [await resend.kiq(session, "telegram") for session in sessions[:5]]
    async with process(emulator, valkey, *command(valkey, rows)) as feeder:
        async with process(emulator, valkey, *taskiq) as worker:
            await until(lambda: emulator.requests["send"] == 35)
            loop = asyncio.get_running_loop()
            began = loop.time()
            worker.terminate()
            await worker.wait()
            assert loop.time() - began < 6.0  # an idle one takes up to three seconds, with Taskiq
        assert feeder.returncode is None
        async with process(emulator, valkey, str(WORKER)):
            out, _ = await feeder.communicate()
            results = [await task.wait_result(timeout=60) for task in tasks]
    await broker.shutdown()
    assert json.loads(out)["sent"] == 30
    assert [result.return_value["outcome"] for result in results] == ["accepted"] * 5
    assert len(emulator.ledger) == 35


# -- what cannot be ----------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["bulk", *args]) == 2
    return capsys.readouterr().err


def test_a_server_that_is_not_there_is_said_to_be(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--queue: the server is unavailable" in refused(capsys, str(rows), "--queue", "redis://127.0.0.1:9")


def test_an_address_that_is_none_is_not_repeated(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, str(rows), "--queue", "nothing://user:secret@host")
    assert "--queue: the server is unavailable" in said
    assert "secret" not in said


def test_a_queue_and_an_emulator_exclude_each_other(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exclude each other" in refused(capsys, str(rows), "--queue", "redis://127.0.0.1:9", "--emulate")


def test_a_missing_extra_is_one_clear_line(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "taskiq_redis", None)
    said = refused(capsys, str(rows), "--queue", "redis://127.0.0.1:9")
    assert said == "error: --queue needs its extra: pip install 'kodmobi_async[cli,queue]'\n"


def test_a_bug_is_not_taken_for_a_missing_extra(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kodmobi_async.integrations.taskiq", None)
    with pytest.raises(ModuleNotFoundError, match="integrations"):
        main(["bulk", str(rows), "--queue", "redis://127.0.0.1:9"])
