"""The emulator's clock, and how much it remembers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest
from raw_http import SESSION, call, clean_emulator, get, jump, send

from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with clean_emulator() as emulator:
        yield emulator


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as session:
        yield session


# --- the clock --------------------------------------------------------------------------------------------------------


async def test_the_clock_is_the_loop_s_until_it_is_changed(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    assert emulator.clock.time() == loop.time()
    jump(0.1)
    assert emulator.clock.time() == loop.time()
    assert emulator.clock.speed == 1


async def test_moving_the_clock_forward_opens_windows_and_ends_sessions(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    session_id = emulator.add_session()
    assert (await send(http, emulator, session_id)).status == 200
    emulator.clock.advance(59.5)
    assert (await send(http, emulator, session_id)).headers["Retry-After"] == "1"
    emulator.clock.advance(0.5)
    assert (await send(http, emulator, session_id)).status == 200
    first, second = emulator.ledger
    assert second.at - first.at == pytest.approx(60)
    emulator.clock.advance(120)
    assert (await send(http, emulator, session_id)).json["sys_message"] == "ERROR_SESSION_EXPIRED"


async def test_the_date_header_follows_the_clock(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    url = f"{emulator.base_url}/channels"
    before = parsedate_to_datetime((await get(http, url)).headers["Date"])
    emulator.clock.advance(86_400)
    after = parsedate_to_datetime((await get(http, url)).headers["Date"])
    assert after - before == timedelta(days=1)


async def test_time_can_pass_faster_slower_and_not_at_all(emulator: Emulator) -> None:
    clock = emulator.clock
    began = clock.time()
    for speed, passed in ((10, 20), (0.5, 1), (0, 0), (1, 2)):
        clock.speed = speed
        assert clock.time() == pytest.approx(began)  # a change of the speed moves nothing
        jump(2)
        assert clock.time() - began == pytest.approx(passed)
        began = clock.time()


async def test_a_late_response_is_late_by_the_loop_s_clock(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    emulator.clock.speed = 100
    emulator.script(Fault.delay(5))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await send(http, emulator, emulator.add_session())).status == 200
    assert loop.time() - began == pytest.approx(5)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "60", 1e12])
async def test_the_clock_does_not_go_back_or_beyond_all_dates(emulator: Emulator, seconds: float) -> None:
    before = emulator.clock.time()
    with pytest.raises(ValueError, match=r"seconds must|the year 3000"):
        emulator.clock.advance(seconds)
    assert emulator.clock.time() == before


@pytest.mark.parametrize("speed", [-1, 1001, float("inf"), None])
async def test_the_speed_has_bounds(emulator: Emulator, speed: float) -> None:
    with pytest.raises(ValueError, match="speed must"):
        emulator.clock.speed = speed
    assert emulator.clock.speed == 1


def test_the_clock_goes_on_where_another_loop_starts_the_emulator_again() -> None:
    emulator = Emulator()
    emulator.clock.speed = 2

    async def use() -> float:
        async with emulator:
            await asyncio.sleep(10)
            return emulator.clock.time()

    times = []
    for start in (1_000.0, 5.0):
        with asyncio.Runner(loop_factory=lambda start=start: VirtualClockLoop(start)) as runner:  # type: ignore[misc]
            times.append(runner.run(use()))
    assert times[1] - times[0] == pytest.approx(20)


# --- what it remembers ------------------------------------------------------------------------------------------------


async def test_it_remembers_a_bounded_number_of_deliveries() -> None:
    async with (
        Emulator(keep=3) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        sessions = [emulator.add_session() for _ in range(5)]
        for session_id in sessions:
            await send(http, emulator, session_id)
        assert [delivery.session_id for delivery in emulator.ledger] == sessions[2:]
        emulator.keep = 1
        await send(http, emulator, sessions[0], "sms")
        assert len(emulator.ledger) == 1


async def test_it_forgets_the_oldest_sessions_once_they_are_over() -> None:
    async with (
        Emulator(keep=2) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.api_key}) as http,
    ):
        live = [emulator.add_session(to=f"+1415555010{number}") for number in range(3)]
        emulator.block("+14155550101")
        assert [(await send(http, emulator, session_id)).status for session_id in live] == [200, 403, 200]
        jump(180)
        emulator.add_session(SESSION)
        refusals = [(await send(http, emulator, session_id)).json["sys_message"] for session_id in live]
        assert refusals == ["ERROR_MESSAGE_NOT_FOUND"] * 2 + ["ERROR_SESSION_EXPIRED"]
        create = f"{emulator.base_url}/create"
        assert (await call(http, create, {"to": "+14155550101"})).json["sys_message"] == "ERROR_PHONE_BLOCKED"


async def test_it_remembers_a_bounded_number_of_tokens() -> None:
    async with (
        Emulator(keep=1, challenge=True) as emulator,
        aiohttp.ClientSession(headers={"x-api-key": emulator.secret_key}) as http,
    ):
        tokens = []
        for number in range(3):
            to = f"+1415555010{number}"
            headers = {"x_cf_turnstile_token": f"create {number}"}
            created = (await call(http, f"{emulator.base_url}/create", {"to": to}, **headers)).json
            body = {"session_id": created["session_id"], "code": emulator.last_code(to)}
            headers = {"x_cf_turnstile_token": f"check {number}"}
            tokens.append((await call(http, f"{emulator.base_url}/check", body, **headers)).json["verify_token"])
        verify = f"{emulator.base_url}/verify"
        statuses = [(await call(http, verify, {"verify_token": token})).status for token in tokens]
        assert statuses == [404, 404, 200]


async def test_it_can_be_reset(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    session_id = emulator.add_session(to="+14155550123")
    emulator.block("+14155550123")
    await send(http, emulator, emulator.add_session())
    emulator.script(Fault.silence())
    emulator.clock.advance(60)
    emulator.clock.speed = 10
    now = emulator.clock.time()
    emulator.reset()
    assert emulator.ledger == ()
    assert emulator.requests == {}
    assert emulator.pending_faults == 0
    assert emulator.clock.time() == pytest.approx(now)
    assert emulator.clock.speed == 1
    assert (await send(http, emulator, session_id)).status == 404
    assert (await call(http, f"{emulator.base_url}/create", {"to": "+14155550123"})).status == 200
