"""Windows in a file: the contract, several processes, kills, full disks, wrong files, reboots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tracker_contract import LEASE, OTHER, SESSION, TrackerContract

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    CooldownUnavailableError,
    KodmobiClient,
    MemoryCooldownTracker,
    WrongLoopError,
)
from kodmobi_async._shared.operations import BLOCKED, FREE, RESERVED, Operation
from kodmobi_async.sqlite import SqliteCooldownTracker
from kodmobi_async.sqlite._clock import HostClock
from kodmobi_async.sqlite._connections import Pipeline
from kodmobi_async.sqlite._database import Database
from kodmobi_async.sqlite._setup import WrongSetupError, is_on_network, wrong_setup
from kodmobi_async.testing import movable_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kodmobi_async.emulator import Emulator

pytestmark = pytest.mark.real_clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "windows.db"


@pytest.fixture
async def tracker(path: Path) -> AsyncIterator[SqliteCooldownTracker]:
    async with SqliteCooldownTracker(path) as tracker:
        yield tracker


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteCooldownTracker]:
    async with SqliteCooldownTracker(path) as other:
        yield other


class TestSqliteCooldownTracker(TrackerContract):
    # a second of the contract's times is 5 ms of the machine's
    scale: ClassVar[float] = 0.005
    grain: ClassVar[float] = 0.02
    slack: ClassVar[float] = 1.0
    windows: ClassVar[tuple[float, ...]] = (20.0, 40.0)


# -- several processes: each tracker stands for one --------------------------------------------------------------------


async def test_what_one_process_sent_is_refused_to_another_with_the_time_left(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    with pytest.raises(CooldownError):
        await other.acquire(SESSION, "sms", lease=LEASE)
    assert held.window == "shared"
    await tracker.start(held, 30.0)
    with pytest.raises(CooldownError) as caught:
        await other.acquire(SESSION, "sms", lease=LEASE)
    assert caught.value.retry_after == pytest.approx(30.0, abs=1.0)
    assert await other.remaining(SESSION, "sms") == pytest.approx(30.0, abs=1.0)
    await other.acquire(OTHER, "sms", lease=LEASE)


async def test_a_process_waits_for_the_send_of_another(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await tracker.release(held)
    await asyncio.wait_for(waiting, 5.0)


async def test_a_wait_ends_with_the_window_of_another_process(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 0.3)
    began = time.monotonic()
    await other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0)
    assert 0.29 <= time.monotonic() - began < 5.0


async def test_a_wait_for_another_process_ends_at_its_deadline_or_when_it_is_hopeless(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    held = await tracker.acquire(SESSION, "sms", lease=LEASE)
    with pytest.raises(CooldownError):
        await other.acquire(SESSION, "sms", lease=LEASE, max_wait=0.1)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.05)
    await tracker.start(held, 60.0)
    with pytest.raises(CooldownError):
        await asyncio.wait_for(waiting, 5.0)


async def test_what_a_process_observes_blocks_another(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    await tracker.observe(SESSION, "sms", 40.0)
    with pytest.raises(CooldownError) as caught:
        await other.acquire(SESSION, "sms", lease=LEASE)
    assert caught.value.retry_after == pytest.approx(40.0, abs=1.0)


async def test_a_wait_that_an_observation_makes_hopeless_ends_at_once(
    tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    await tracker.acquire(SESSION, "sms", lease=LEASE)
    waiting = asyncio.create_task(other.acquire(SESSION, "sms", lease=LEASE, max_wait=20.0))
    await asyncio.sleep(0.1)
    await other.observe(SESSION, "sms", 60.0)
    with pytest.raises(CooldownError):
        await asyncio.wait_for(waiting, 5.0)


async def test_windows_outlive_a_process(path: Path) -> None:
    async with SqliteCooldownTracker(path) as first:
        await first.start(await first.acquire(SESSION, "sms", lease=LEASE), 30.0)
    async with SqliteCooldownTracker(path) as second:
        assert await second.remaining(SESSION, "sms") == pytest.approx(30.0, abs=1.0)


async def test_another_secret_means_other_slots_and_the_file_names_no_session(path: Path) -> None:
    async with SqliteCooldownTracker(path) as one, SqliteCooldownTracker(path, secret="another") as two:
        await one.acquire(SESSION, "sms", lease=LEASE)
        await two.acquire(SESSION, "sms", lease=LEASE)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM slots")]
    assert len(keys) == 2
    assert not any(SESSION in key for key in keys)


PROCESS = """
import asyncio, sys
from kodmobi_async import CooldownError, KodmobiClient
from kodmobi_async.sqlite import SqliteCooldownTracker

async def main(path, base_url, key, session, sends):
    async with (
        SqliteCooldownTracker(path, timeout=20.0) as cooldowns,
        KodmobiClient(key, base_url=base_url, cooldowns=cooldowns) as client,
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        came = await asyncio.gather(*(client.send(session, "sms") for _ in range(sends)), return_exceptions=True)
        sent = [each for each in came if not isinstance(each, BaseException)]
        assert all(isinstance(each, CooldownError) for each in came if isinstance(each, BaseException)), came
        print(len(sent), {each.window for each in sent}, flush=True)

asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
"""


async def test_sixteen_processes_with_500_sends_each_make_one_request(path: Path, emulator: Emulator) -> None:
    session = emulator.add_session()
    command = [sys.executable, "-c", PROCESS, str(path), emulator.base_url, emulator.api_key, session, "500"]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(16)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    told = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    sent = [out.decode().split(" ", 1) for out, _ in told]
    assert sorted(number for number, _ in sent) == ["0"] * 15 + ["1"]
    assert "{'shared'}\n" in [windows for _, windows in sent]
    assert emulator.requests["send"] == 1


KILLED = """
import asyncio, os, sys
from kodmobi_async.sqlite import SqliteCooldownTracker

async def main(path, session):
    async with SqliteCooldownTracker(path) as tracker:
        number = 0
        while True:
            pair = f"channel-{number}"
            held = await tracker.acquire(session, pair, lease=90.0)
            print("reserved", pair, flush=True)
            await tracker.start(held, 60.0)
            print("started", pair, flush=True)
            number += 1

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_process_that_is_killed_at_any_moment_leaves_its_slots_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # other tests may have moved this process's clock, and it alone
    monkeypatch.setattr("kodmobi_async._rules.clock.system_time", time.monotonic)
    for lines in range(1, 40, 4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(path), f"{SESSION[:-2]}{lines:02}", stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        told = [await process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += (await process.stdout.read()).splitlines()
        await process.wait()
        async with SqliteCooldownTracker(path) as tracker:
            for line in told:
                words = line.decode().split()
                if len(words) == 2 and words[0] in ("reserved", "started"):
                    with pytest.raises(CooldownError):
                        await tracker.acquire(f"{SESSION[:-2]}{lines:02}", words[1], lease=LEASE)


# -- without the file --------------------------------------------------------------------------------------------------


async def test_a_busy_file_is_an_outage_that_ends(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="kodmobi_async")
    async with SqliteCooldownTracker(path, timeout=0.05) as tracker:
        await tracker.ping()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as elsewhere:
            elsewhere.execute("BEGIN IMMEDIATE")
            held = await tracker.acquire(SESSION, "sms", lease=LEASE)
            assert held.degraded is not None
            assert held.window == "local"
            await tracker.start(held, 60.0)
            with pytest.raises(CooldownError):
                await tracker.acquire(SESSION, "sms", lease=LEASE)
            elsewhere.execute("COMMIT")
        async with asyncio.timeout(20.0):
            while tracker._store.outage is not None or tracker._store.backlog:  # noqa: ASYNC110 it is another's doing
                await asyncio.sleep(0.02)
        async with SqliteCooldownTracker(path) as other:
            with pytest.raises(CooldownError):
                await other.acquire(SESSION, "sms", lease=LEASE)
    assert "the file of the shared cooldowns is unavailable" in caplog.text
    assert "the file of the shared cooldowns is available again" in caplog.text
    assert str(path.parent) not in caplog.text


async def test_with_on_outage_refuse_nothing_is_sent_without_the_file(path: Path) -> None:
    async with SqliteCooldownTracker(path, timeout=0.05, on_outage="refuse") as tracker:
        await tracker.ping()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as elsewhere:
            elsewhere.execute("BEGIN IMMEDIATE")
            with pytest.raises(CooldownUnavailableError):
                await tracker.acquire(SESSION, "sms", lease=LEASE)
            with pytest.raises(CooldownUnavailableError):
                await tracker.ping()
            elsewhere.execute("COMMIT")


async def test_a_full_disk_is_an_outage(path: Path) -> None:
    async with SqliteCooldownTracker(path) as tracker:
        await tracker.ping()
        connection = tracker._store._connections.pipeline._database._connection  # type: ignore[union-attr]
        ((pages,),) = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {pages}")
        reservations = [await tracker.acquire(SESSION, f"channel-{number}", lease=LEASE) for number in range(300)]
        assert reservations[0].window == "shared"
        assert reservations[-1].degraded == "SQLITE_FULL"


async def test_a_file_that_is_deleted_is_made_anew_and_own_windows_hold(
    path: Path, tracker: SqliteCooldownTracker
) -> None:
    await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)
    for name in ("windows.db", "windows.db-wal", "windows.db-shm"):
        (path.parent / name).unlink(missing_ok=True)
    with pytest.raises(CooldownError):
        await tracker.acquire(SESSION, "sms", lease=LEASE)
    await tracker.start(await tracker.acquire(OTHER, "sms", lease=LEASE), 60.0)
    async with SqliteCooldownTracker(path) as other:
        with pytest.raises(CooldownError):
            await other.acquire(OTHER, "sms", lease=LEASE)


async def test_a_disk_that_does_not_answer_is_an_outage_in_time(path: Path, tracker: SqliteCooldownTracker) -> None:
    pipeline = Pipeline(path, timeout=0.1)
    hold = threading.Event()
    blocking = pipeline._thread.submit(hold.wait, 30.0)
    reply = await pipeline.execute(Operation.READ, "key")
    assert getattr(reply, "reason", None) == "TimeoutError"
    assert getattr(await pipeline.execute(Operation.READ, "key"), "reason", None) == "TimeoutError"
    hold.set()
    while pipeline._worker is not None:  # noqa: ASYNC110 it drops what has expired meanwhile
        await asyncio.sleep(0)
    assert await pipeline.execute(Operation.READ, "key") == (FREE, 0)
    hold.clear()
    blocking = pipeline._thread.submit(hold.wait, 30.0)
    late = pipeline.execute(Operation.READ, "key")
    await pipeline.aclose()
    assert getattr(await late, "reason", None) == "TimeoutError"
    hold.set()
    await asyncio.wrap_future(blocking)
    await tracker.ping()


# -- a wrong set-up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, 7, "", ":memory:", "file:windows.db", b"windows.db", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="path takes"):
        SqliteCooldownTracker(path)


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"on_outage": "wait"}, {"secret": 7}, {"window": -1}])
def test_a_wrong_setting_is_refused(path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SqliteCooldownTracker(path, **settings)


async def raises_configuration_error(path: Path, words: str) -> None:
    async with SqliteCooldownTracker(path) as tracker:
        for used in (tracker.ping, lambda: tracker.acquire(SESSION, "sms", lease=LEASE)):
            with pytest.raises(ConfigurationError, match=words) as caught:
                await used()
            assert str(path.parent) not in str(caught.value)


async def test_a_folder_that_is_not_there_is_a_wrong_setup(tmp_path: Path) -> None:
    await raises_configuration_error(tmp_path / "elsewhere" / "windows.db", "cannot be made")


async def test_a_file_that_is_no_database_is_a_wrong_setup_and_stays_as_it_is(path: Path) -> None:
    path.write_text("the accounts of 2025\n" * 100, "utf-8")
    await raises_configuration_error(path, "no database")
    assert path.read_text("utf-8").startswith("the accounts")


async def test_the_database_of_another_program_is_a_wrong_setup_and_stays_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE accounts (name)")
    await raises_configuration_error(path, "another program")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")] == ["accounts"]


async def test_a_later_format_is_a_wrong_setup(path: Path) -> None:
    async with SqliteCooldownTracker(path) as tracker:
        await tracker.ping()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    await raises_configuration_error(path, "another program")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="rights do not bind this user")
async def test_a_folder_without_rights_is_a_wrong_setup(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    await raises_configuration_error(tmp_path / "windows.db", "cannot be made")


def test_errors_that_come_back_by_themselves_are_no_wrong_setup() -> None:
    for error in (sqlite3.OperationalError("locked"), ValueError()):
        assert wrong_setup(error) is None
    assert wrong_setup(PermissionError()) is not None


MOUNTS = """\
22 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:40 / {folder} rw shared:2 - nfs4 server:/export rw
41 40 0:41 / {folder}/local\\040disk rw shared:3 - ext4 /dev/vdb1 rw
"""


def test_a_network_file_system_is_recognised(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "mounted"
    mounts.write_text(MOUNTS.format(folder=folder), "utf-8")
    assert is_on_network(folder / "windows.db", mounts)
    assert is_on_network(folder / "below" / "windows.db", mounts)
    assert not is_on_network(folder / "local disk" / "windows.db", mounts)
    assert not is_on_network(tmp_path / "windows.db", mounts)
    assert not is_on_network(folder / "windows.db", tmp_path / "nothing")


async def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = path.parent / "mountinfo"
    mounts.write_text(MOUNTS.format(folder=path.parent), "utf-8")
    monkeypatch.setattr(is_on_network, "__defaults__", (mounts,))
    await raises_configuration_error(path, "network file system")
    assert not path.exists()


async def test_a_file_system_without_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    memory = Path("file::memory:")  # SQLite's own; it has no write-ahead log
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda _, **how: connect(str(memory), uri=True, **how))
    with pytest.raises(WrongSetupError, match="share memory"):
        Database(Path("/windows.db"), timeout=1.0).execute([(Operation.READ, "key", ())])


# -- time --------------------------------------------------------------------------------------------------------------


def database(path: Path, *, boot: str, tmp_path: Path) -> Database:
    file = tmp_path / "boot_id"
    file.write_text(f"{boot}\n", "ascii")
    return Database(path, timeout=1.0, clock=HostClock(file))


def test_windows_go_on_after_a_reboot(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = database(path, boot="one", tmp_path=tmp_path)
    before.execute([(Operation.START, "started", ("token", 60_000)), (Operation.RESERVE, "held", ("token", 90_000))])
    before.close()
    now, wall = time.monotonic(), time.time()
    monkeypatch.setattr("kodmobi_async._rules.clock.system_time", lambda: now - 1_000_000.0)
    monkeypatch.setattr(time, "time", lambda: wall + 20.0)
    after = database(path, boot="two", tmp_path=tmp_path)
    started, held = after.execute([(Operation.READ, "started", ()), (Operation.READ, "held", ())])
    assert started[0] == held[0] == BLOCKED  # nobody sends any more; it may have been sent
    assert (started[1], held[1]) == pytest.approx((40_000, 70_000), abs=1_000)
    after.close()


def test_a_wall_clock_that_was_far_off_blocks_for_a_day_at_most(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = database(path, boot="one", tmp_path=tmp_path)
    before.execute([(Operation.START, "started", ("token", 60_000))])
    before.close()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    after = database(path, boot="two", tmp_path=tmp_path)
    ((state, left),) = after.execute([(Operation.READ, "started", ())])
    assert state == BLOCKED
    assert left == pytest.approx(86_400_000, abs=1_000)
    after.close()


def test_without_a_boot_the_wall_clock_counts(path: Path, tmp_path: Path) -> None:
    clock = HostClock(tmp_path / "nothing")
    assert clock.now() == pytest.approx(time.time(), abs=1.0)
    assert clock.lead_of_wall_clock() == 0.0
    for _ in range(2):
        wall = Database(path, timeout=1.0, clock=clock)
        assert wall.execute([(Operation.OBSERVE, "key", ("name", 60_000))])[0][0] == BLOCKED
        wall.close()


def test_windows_end_by_a_clock_that_tests_move(path: Path) -> None:
    tracker = SqliteCooldownTracker(path)

    async def take() -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)

    with movable_clock() as clock, asyncio.Runner() as runner:
        runner.run(take())
        with pytest.raises(CooldownError):
            runner.run(take())
        clock.advance(60)
        runner.run(take())
        runner.run(tracker.aclose())


# -- the steps ---------------------------------------------------------------------------------------------------------


def test_each_step_replies_what_it_found(path: Path, tmp_path: Path) -> None:
    steps = database(path, boot="one", tmp_path=tmp_path)

    def do(operation: Operation, *arguments: str | int) -> tuple[int, int]:
        return steps.execute([(operation, "key", arguments)])[0]

    assert do(Operation.READ) == (FREE, 0)
    assert do(Operation.RESERVE, "mine", 60_000) == (FREE, 0)
    assert do(Operation.RESERVE, "mine", 60_000) == (FREE, 0)
    assert do(Operation.RESERVE, "yours", 60_000)[0] == RESERVED
    assert do(Operation.OBSERVE, "name", 30_000)[0] == RESERVED
    assert do(Operation.START, "yours", 60_000) == (FREE, 1)
    assert do(Operation.RELEASE, "yours") == (FREE, 0)
    assert do(Operation.RELEASE, "mine") == (BLOCKED, 0)
    state, left = do(Operation.READ)
    assert state == BLOCKED
    assert left == pytest.approx(30_000, abs=1_000)
    assert do(Operation.START, "mine", 60_000) == (BLOCKED, 0)
    held = [(Operation.RESERVE, "held", ("mine", 60_000)), (Operation.OBSERVE, "held", ("another", 90_000))]
    *_, (state, left) = steps.execute(
        [*held, (Operation.START, "held", ("mine", 60_000)), (Operation.READ, "held", ())]
    )
    assert state == BLOCKED
    assert left == pytest.approx(90_000, abs=1_000)  # what another process has observed meanwhile
    steps.execute([(Operation.START, "another", ("lost", 60_000))])
    assert steps.execute([(Operation.START, "new", ("lost", 60_000))]) == [(BLOCKED, 1)]
    steps.close()


def test_free_slots_are_forgotten(path: Path, tmp_path: Path) -> None:
    steps = database(path, boot="one", tmp_path=tmp_path)
    for number in range(500):
        steps.execute([(Operation.START, f"key-{number}", ("token", 0))])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM slots")
    assert rows < 5
    steps.close()


# -- loops and processes -----------------------------------------------------------------------------------------------


def test_the_next_loop_takes_over_with_all_windows(path: Path) -> None:
    tracker = SqliteCooldownTracker(path)

    async def first() -> None:
        await tracker.start(await tracker.acquire(SESSION, "sms", lease=LEASE), 60.0)

    async def second() -> None:
        with pytest.raises(CooldownError):
            await tracker.acquire(SESSION, "sms", lease=LEASE)
        await tracker.acquire(OTHER, "sms", lease=LEASE)

    asyncio.run(first())
    asyncio.run(second())


async def test_another_loop_at_the_same_time_is_refused(tracker: SqliteCooldownTracker) -> None:
    await tracker.ping()

    def elsewhere() -> None:
        with pytest.raises(WrongLoopError):
            asyncio.run(tracker.ping())

    await asyncio.to_thread(elsewhere)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # that is the point
def test_a_forked_child_opens_the_file_for_itself(path: Path) -> None:
    tracker = SqliteCooldownTracker(path)

    async def use(session: str) -> bool:
        try:
            await tracker.start(await tracker.acquire(session, "sms", lease=LEASE), 60.0)
        except CooldownError:
            return False
        return True

    with asyncio.Runner() as parent:
        assert parent.run(use(SESSION))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                came = asyncio.run(use(SESSION)), asyncio.run(use(OTHER))
                os._exit(0 if came == (False, True) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert not parent.run(use(OTHER))
        parent.run(tracker.aclose())


async def test_another_trackers_reservation_is_refused(tracker: SqliteCooldownTracker) -> None:
    foreign = await MemoryCooldownTracker().acquire(SESSION, "sms", lease=LEASE)
    with pytest.raises(ConfigurationError, match="another tracker"):
        await tracker.start(foreign, 60.0)


async def test_the_repr_names_the_file_alone(path: Path, tracker: SqliteCooldownTracker) -> None:
    assert repr(tracker) == "<SqliteCooldownTracker 'windows.db'>"


async def test_a_client_sends_once_and_says_that_the_window_is_shared(
    emulator: Emulator, tracker: SqliteCooldownTracker, other: SqliteCooldownTracker
) -> None:
    session = emulator.add_session()
    settings: dict[str, Any] = {"api_key": emulator.api_key, "base_url": emulator.base_url}
    async with KodmobiClient(**settings, cooldowns=tracker) as one, KodmobiClient(**settings, cooldowns=other) as two:
        assert (await one.send(session, "sms")).window == "shared"
        with pytest.raises(CooldownError):
            await two.send(session, "sms")
    assert emulator.requests["send"] == 1
