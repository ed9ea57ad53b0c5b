"""The test kit as synchronous programs use it: an emulator on a thread of its own, and a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from kodmobi_async import CooldownError, KodmobiClient, MemoryCooldownTracker, TransportError
from kodmobi_async._rules.clock import LoopClock
from kodmobi_async.emulator import Fault
from kodmobi_async.testing import (
    MovableClock,
    RealServiceError,
    RunningEmulator,
    VirtualClockLoop,
    movable_clock,
    no_real_service,
    running_emulator,
)
from kodmobi_async.testing import _clock as module

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

PHONE = "+14155550123"
SESSION = "01K8N1VMPN0EE389K72YW0CBM2"


@pytest.fixture
def running() -> Iterator[RunningEmulator]:
    with running_emulator() as running:
        yield running


@pytest.fixture
def clock() -> Iterator[MovableClock]:
    with movable_clock() as clock:
        yield clock


def client_of(emulator: RunningEmulator, **settings: Any) -> KodmobiClient:
    return KodmobiClient(emulator.api_key, secret_key=emulator.secret_key, base_url=emulator.base_url, **settings)


def on_a_loop(work: Coroutine[Any, Any, object]) -> object:
    """Run on a loop that is closed in the end, as a test of a web framework does."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


# -- the emulator ------------------------------------------------------------------------------------------------------


def test_a_person_logs_in_and_the_test_reads_the_code_from_another_thread(running: RunningEmulator) -> None:
    async def log_in() -> str:
        async with client_of(running) as client:
            session = await client.create(PHONE, channel="sms", send=True)
            checked = await client.check(session.session_id, running.last_code(PHONE))
            return (await client.verify(checked.verify_token)).to

    assert on_a_loop(log_in()) == PHONE
    assert [delivery.channel for delivery in running.delivered(to=PHONE)] == ["sms"]
    assert running.ledger == tuple(running.delivered())
    assert running.requests == {"create": 1, "check": 1, "verify": 1}


def test_everything_that_is_done_with_an_emulator_is_done_from_any_thread(running: RunningEmulator) -> None:
    session = running.add_session(to=PHONE)
    other = running.add_session(SESSION, active=["telegram"])
    assert list(running.session_ids) == [session, other]
    running.activate(session, "telegram")
    running.expire_session(other)
    assert list(running.session_ids) == [session]
    running.block(PHONE)
    running.unblock(PHONE)
    running.script(Fault.close(), times=3)
    assert running.pending_faults == 3
    running.clear_faults()
    assert running.pending_faults == 0
    running.reset()
    assert not running.session_ids
    assert repr(running).startswith("<RunningEmulator on 127.0.0.1:")
    with pytest.raises(LookupError):
        running.last_code(PHONE)
    with pytest.raises(ValueError, match="ULID"):
        running.expire_session("no ULID")


def test_an_emulator_takes_its_settings_and_refuses_wrong_ones() -> None:
    with running_emulator(api_key="mine", window=5.0) as emulator:
        assert emulator.api_key == "mine"
        with (
            pytest.raises(OSError, match="in use"),
            running_emulator(port=int(emulator.base_url.rpartition(":")[2].partition("/")[0])),
        ):
            pass
    with pytest.raises(ValueError, match="window"), running_emulator(window=-1.0):
        pass


def test_no_thread_is_left_of_an_emulator() -> None:
    before = set(threading.enumerate())  # one of another test may end meanwhile
    started: set[threading.Thread] = set()
    with contextlib.suppress(ZeroDivisionError), running_emulator():
        started = set(threading.enumerate()) - before
        raise ZeroDivisionError
    assert len(started) == 1
    assert not any(thread.is_alive() for thread in started)


class WithUnittest(unittest.TestCase):
    def setUp(self) -> None:
        self.emulator = self.enterContext(running_emulator())
        self.clock = self.enterContext(movable_clock())

    def test_a_code_may_be_sent_again_after_the_window(self) -> None:
        session = self.emulator.add_session()

        async def send_twice() -> None:
            async with client_of(self.emulator) as client:
                await client.send(session, "sms")
                with pytest.raises(CooldownError):
                    await client.send(session, "sms")
                self.clock.advance(60)
                await client.send(session, "sms")

        on_a_loop(send_twice())
        assert len(self.emulator.delivered(session)) == 2


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_time_passes_for_a_tracker_that_goes_from_loop_to_loop(running: RunningEmulator, clock: MovableClock) -> None:
    session, cooldowns = running.add_session(), MemoryCooldownTracker()

    async def send() -> float:
        async with client_of(running, cooldowns=cooldowns) as client:
            await client.send(session, "sms")
            return await client.remaining(session, "sms")

    assert on_a_loop(send()) == pytest.approx(60, abs=1)
    clock.advance(59)
    with pytest.raises(CooldownError) as refused:
        on_a_loop(send())
    assert 0 < refused.value.retry_after <= 1
    clock.advance(1)
    on_a_loop(send())
    assert len(running.delivered(session)) == 2


def test_who_waits_on_another_thread_is_woken(running: RunningEmulator, clock: MovableClock) -> None:
    session, waits = running.add_session(), threading.Event()

    async def send_twice() -> None:
        async with client_of(running) as client:
            await client.send(session, "sms")
            asyncio.get_running_loop().call_later(0.01, waits.set)
            await client.send(session, "sms", max_wait=math.inf)

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(on_a_loop, send_twice())
        assert waits.wait(30)
        clock.advance(60)
        sending.result(5)  # its next timer is due in 10 s
    assert len(running.delivered(session)) == 2


def test_a_late_response_comes_when_its_time_has_passed(running: RunningEmulator, clock: MovableClock) -> None:
    session = running.add_session()
    running.script(Fault.delay(5.0))

    async def send() -> None:
        async with client_of(running) as client:
            sending = asyncio.create_task(client.send(session, "sms"))
            while not running.requests["send"]:  # noqa: ASYNC110 the emulator is another thread's
                await asyncio.sleep(0)
            clock.advance(5)
            await sending

    on_a_loop(send())


def test_two_clocks_add_up(clock: MovableClock) -> None:
    loop = asyncio.SelectorEventLoop()
    with contextlib.closing(loop), movable_clock() as other:
        before = loop.time()
        clock.advance(100)
        other.advance(1_000)
        assert loop.time() - before == pytest.approx(1_100, abs=10)


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_time_goes_forward_by_a_number_of_seconds(clock: MovableClock, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds takes a finite number"):
        clock.advance(seconds)


async def test_a_virtual_clock_jumps_along(clock: MovableClock) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    before = loop.time()
    clock.advance(60)
    assert loop.time() == before + 60


class OtherLoop(asyncio.AbstractEventLoop):
    """A loop that keeps its own time, as uvloop's do."""

    def time(self) -> float:
        return 0.0


def test_a_client_on_a_loop_that_cannot_be_moved_is_told(clock: MovableClock) -> None:
    asyncio.events._set_running_loop(OtherLoop())  # type: ignore[abstract]  # it only has a time
    try:
        with pytest.raises(RuntimeError, match=r"cannot move a loop of test_testing: run the tests on asyncio's own"):
            LoopClock().now()
    finally:
        asyncio.events._set_running_loop(None)


def test_a_loop_that_cannot_be_moved_is_nobodys_business_without_a_clock() -> None:
    with movable_clock():
        pass
    asyncio.events._set_running_loop(OtherLoop())  # type: ignore[abstract]  # it only has a time
    try:
        assert LoopClock().now() == 0.0
    finally:
        asyncio.events._set_running_loop(None)


def test_a_loop_that_is_closed_meanwhile_is_left_alone() -> None:
    loop = asyncio.SelectorEventLoop()
    loop.close()
    module._wake(loop)


# -- the real service --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_url", [None, "https://api.kod.mobi/session", "https://kod.mobi", "https://KOD.mobi:443"])
def test_a_request_to_the_real_service_fails_by_name_before_a_connection_is_opened(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None
) -> None:
    monkeypatch.delenv("KODMOBI_BASE_URL", raising=False)

    async def send() -> None:
        async with KodmobiClient("key", base_url=base_url) as client:
            await client.send(SESSION, "sms")

    words = r"(?i)to the real service, POST https://.*kod.mobi.*/send: .* kodmobi_env"
    with pytest.raises(RealServiceError, match=words), no_real_service():
        on_a_loop(send())


def test_a_program_that_swallows_the_error_fails_at_the_end() -> None:
    async def send() -> None:
        async with KodmobiClient("key", base_url="https://api.kod.mobi/session") as client:
            with contextlib.suppress(Exception):
                await client.send(SESSION, "sms")

    with pytest.raises(RealServiceError), running_emulator():
        on_a_loop(send())


def test_other_addresses_are_the_programs_own_business() -> None:
    async def send() -> None:
        async with KodmobiClient("key", base_url="http://127.0.0.1:9/kod.mobi") as client:
            await client.send(SESSION, "sms", timeout=0.2)

    with movable_clock(), pytest.raises(TransportError):
        on_a_loop(send())
