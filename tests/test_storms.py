"""Ten thousand sends at once, and a service in trouble."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

import pytest
from ulid import ULID

from kodmobi_async import (
    AttemptFinished,
    KodmobiClient,
    KodmobiError,
    MemoryCooldownTracker,
    Outcome,
    Phase,
    Record,
    SendFinished,
    SendResult,
    ServerError,
    Timeout,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.testing import VirtualClockLoop

CALLS: Final = 10_000
WINDOW: Final = 60.0
MOMENT: Final = 0.001
# One pool of connections serves them all, so the last one waits for long.
PATIENT: Final = Timeout(total=3600.0, connect=3600.0, attempt=5.0)

WELL: Final = Fault.delay(0.0)
FAULTS: Final = (
    *(
        Fault.close(when, reset=reset, process=process)
        for when in ("after_reading", "mid_headers")
        for reset in (False, True)
        for process in (False, True)
    ),
    Fault.close("before_reading"),
    Fault.close("mid_answer"),
    Fault.malformed(process=True),
    Fault.malformed(process=False),
    Fault.silence(process=True),
    Fault.silence(process=False),
    Fault.delay(0.5),
    Fault.delay(7.0, before_processing=True),
    Fault.answer(200, body=[], process=True),
    Fault.answer(302),
    *(Fault.answer(status) for status in (400, 403, 404, 408, 500, 502, 503)),
    Fault.answer(500, process=True),
    Fault.refuse("ERROR_BLOCKED"),
)


class Notes:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.ends: dict[str, SendFinished] = {}

    def __call__(self, record: Record, /) -> None:
        assert record.session_id is not None
        if isinstance(record, AttemptFinished):
            self.attempts[record.session_id] += 1
            self.written[record.session_id] += record.phase is not Phase.NOT_WRITTEN
        elif isinstance(record, SendFinished):
            assert record.session_id not in self.ends
            self.ends[record.session_id] = record


async def test_ten_thousand_sends_at_once_through_random_faults_are_all_accounted_for(emulator: Emulator) -> None:
    luck = random.Random(20_251)
    sessions = [emulator.add_session(ULID.from_int(number + 1)) for number in range(CALLS)]
    for _ in range(2 * CALLS):
        emulator.script(luck.choice(FAULTS) if luck.random() < 0.1 else WELL)
    notes, tracker, loop = Notes(), MemoryCooldownTracker(), asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    left_blocked: dict[str, float] = {}
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, timeout=PATIENT, cooldowns=tracker, hooks=[notes]
    ) as client:

        async def send(session: str) -> SendResult | KodmobiError:
            try:
                return await client.send(session, "sms")
            except KodmobiError as error:
                return error
            finally:
                left_blocked[session] = await client.remaining(session, "sms")

        came = dict(zip(sessions, await asyncio.gather(*map(send, sessions)), strict=True))
        await asyncio.sleep(WINDOW)
        assert not any([await client.remaining(session, "sms") for session in sessions])

    codes = Counter(delivery.session_id for delivery in emulator.ledger)
    assert max(codes.values()) == 1
    outcomes: Counter[str] = Counter()
    for session, one in came.items():
        end = notes.ends.pop(session)
        if isinstance(one, SendResult):
            assert str(one.session_id) == session
            assert one.attempts == notes.attempts[session]
        else:
            assert one is end.error
        outcome = Outcome.ACCEPTED if isinstance(one, SendResult) else one.outcome
        outcomes[outcome] += 1
        assert outcome is end.outcome
        if outcome is not Outcome.UNKNOWN:
            assert codes[session] == (outcome is Outcome.ACCEPTED)
        assert (left_blocked[session] > 0) is (outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN))
    assert not notes.ends
    assert set(outcomes) >= {Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN}
    # a request whose first line was not read is no request to the service, but was written
    assert emulator.requests["send"] <= notes.written.total()

    # what has ended goes as new windows come
    for number in range(CALLS // 2):
        await tracker.start(await tracker.acquire(str(ULID.from_int(number + 1)), "email", lease=1.0), MOMENT)
        loop.jump(1.0)
    assert len(tracker) < 10


async def test_a_service_in_trouble_is_not_buried_in_retries_and_soon_has_them_all_again(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    emulator.script(Fault.answer(503), times=100 * CALLS)
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, timeout=PATIENT) as client:
        sends = (client.send(ULID.from_int(number), "sms") for number in range(CALLS))
        errors = await asyncio.gather(*sends, return_exceptions=True)
        assert all(isinstance(error, ServerError) for error in errors)
        assert any("retry budget is empty" in str(error) for error in errors)
        assert emulator.requests["send"] == CALLS + 100  # and 1.1 times as many, and 100, are allowed

        emulator.clear_faults()
        well_since = loop.time()
        for _ in range(500):
            await client.send(emulator.add_session(), "sms")
            await asyncio.sleep(0.02)
        assert loop.time() - well_since <= 10.0 + 1e-6
        # 99 retries in a row, of the 100 that there were at first
        emulator.script(Fault.answer(503), times=4 * 33)
        for _ in range(33):
            with pytest.raises(ServerError) as caught:
                await client.send(emulator.add_session(), "sms")
            assert "budget" not in str(caught.value)
        assert emulator.requests["send"] == CALLS + 100 + 500 + 4 * 33
