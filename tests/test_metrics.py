"""What is measured of calls, by OpenTelemetry and by prometheus_client alike: judged by what each exports."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest
from cancelled_sends import cancelled_sends
from measured import ByOpenTelemetry, ByPrometheus, Measured, number_of_series

from kodmobi_async import (
    Channel,
    ClientClosedError,
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    RateLimitedError,
    Record,
    RetryPolicy,
    SendStarted,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations._metrics import (
    ACTIVE_CALLS,
    CALL_DURATION,
    CALLS,
    COOLDOWN_HITS,
    DEGRADED_LIMITS,
    DEGRADED_WINDOWS,
    GATE_CLOSURES,
    INSTRUMENTS,
    REQUEST_DURATION,
)
from kodmobi_async.redis import RedisCooldownTracker, RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PHONE: Final = "+14155557391"


@pytest.fixture(params=[ByOpenTelemetry, ByPrometheus], ids=["opentelemetry", "prometheus"])
def measured(request: pytest.FixtureRequest) -> Measured:
    found: Measured = request.param()
    return found


@pytest.fixture
async def client(emulator: Emulator, measured: Measured) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(
        emulator.api_key, secret_key=emulator.secret_key, base_url=emulator.base_url, hooks=[measured.hook]
    ) as client:
        yield client
        assert measured.read(ACTIVE_CALLS) == {}


def requests(measured: Measured, emulator: Emulator) -> dict[tuple[str, ...], float]:
    """Return the measured requests, without what is the same in all: by call, outcome, method, status and error."""
    found: dict[tuple[str, ...], float] = {}
    for (call, outcome, method, address, port, *rest), count in measured.read(REQUEST_DURATION).items():
        assert (address, port) == ("127.0.0.1", str(emulator.port))
        found[(call, outcome, method, *rest)] = count
    return found


# -- every call --------------------------------------------------------------------------------------------------------


async def test_every_kind_of_call_is_counted_and_timed(
    emulator: Emulator, client: KodmobiClient, measured: Measured
) -> None:
    session = await client.create(PHONE, channel="sms", send=True)
    await client.send(session.session_id, Channel.EMAIL)
    await client.channels(session.session_id)
    await client.settings()
    with pytest.raises(KodmobiError):
        await client.check(session.session_id, "0000")
    checked = await client.check(session.session_id, emulator.last_code(PHONE))
    await client.verify(checked.verify_token)
    wrong = "kodmobi_async.WrongCodeError"
    assert measured.read(CALLS) == {
        ("create", "sms", "accepted", ""): 1,
        ("send", "email", "accepted", ""): 1,
        ("channels", "", "accepted", ""): 1,
        ("settings", "", "accepted", ""): 1,
        ("check", "", "refused", wrong): 1,
        ("check", "", "accepted", ""): 1,
        ("verify", "", "accepted", ""): 1,
    }
    assert measured.read(CALL_DURATION) == {
        ("create", "accepted"): 1,
        ("send", "accepted"): 1,
        ("channels", "accepted"): 1,
        ("settings", "accepted"): 1,
        ("check", "refused"): 1,
        ("check", "accepted"): 1,
        ("verify", "accepted"): 1,
    }
    found = requests(measured, emulator)
    (refused,) = [key for key in found if key[1] == "refused"]
    assert refused[:3] == ("check", "refused", "POST")
    assert refused[3] == refused[4]  # an error's type is its status
    assert {key: count for key, count in found.items() if key != refused} == {
        (call, "accepted", "GET" if call in ("channels", "settings") else "POST", "200", ""): 1
        for call in ("create", "send", "channels", "settings", "check", "verify")
    }
    assert all(measured.read(each) == {} for each in (COOLDOWN_HITS, GATE_CLOSURES, DEGRADED_WINDOWS))


async def test_each_attempt_is_measured_and_the_call_counts_once(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    emulator.script(Fault.answer(503))
    emulator.script(Fault.answer(429))
    emulator.script(Fault.close(process=False))
    await client.send(session, "sms")
    assert requests(measured, emulator) == {
        ("send", "refused", "POST", "503", "503"): 1,
        ("send", "refused", "POST", "429", "429"): 1,
        ("send", "unknown", "POST", "", "written"): 1,
        ("send", "accepted", "POST", "200", ""): 1,
    }
    assert measured.read(CALLS) == {("send", "sms", "accepted", ""): 1}
    assert measured.read(GATE_CLOSURES) == {(): 1}


@pytest.mark.parametrize(
    ("fault", "error_type", "outcome"),
    [
        (Fault.answer(404), "NotFoundError", "refused"),
        (Fault.answer(418), "ResponseError", "refused"),
        (Fault.answer(503), "ServerError", "refused"),
        (Fault.answer(500), "OutcomeUnknownError", "unknown"),
        (Fault.answer(302), "OutcomeUnknownError", "unknown"),
        (Fault.close(), "OutcomeUnknownError", "unknown"),
        (Fault.silence(), "OutcomeUnknownError", "unknown"),
        (Fault.close("mid_answer"), "UnreadableResponseError", "accepted"),
        (Fault.answer(429, {"Retry-After": "3600"}), "RateLimitedError", "refused"),
        (Fault.refuse("ERROR_MESSAGE_ATTEMPT"), "CooldownError", "refused"),
        (Fault.refuse("ERROR_WRONG_BALANCE"), "BalanceError", "refused"),
        (Fault.refuse("ERROR_ACCESS_DENIED"), "AuthenticationError", "refused"),
    ],
)
async def test_a_call_that_raises_counts_by_its_outcome_and_what_it_raises(
    emulator: Emulator,
    client: KodmobiClient,
    measured: Measured,
    session: str,
    *,
    fault: Fault,
    error_type: str,
    outcome: str,
) -> None:
    emulator.script(fault, times=9)
    emulator.script(Fault.answer(500), times=9, endpoint="channels")
    with pytest.raises(KodmobiError):
        await client.send(session, "sms")
    assert measured.read(CALLS) == {("send", "sms", outcome, f"kodmobi_async.{error_type}"): 1}
    assert measured.read(CALL_DURATION) == {("send", outcome): 1}


async def test_a_service_that_cannot_be_reached_counts_as_not_written(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    await emulator.aclose()
    with pytest.raises(KodmobiError):
        await client.send(session, "sms")
    assert measured.read(CALLS) == {("send", "sms", "not_sent", "kodmobi_async.TransportError"): 1}
    assert requests(measured, emulator) == {("send", "not_sent", "POST", "", "not_written"): 4}


# -- cooldowns, the gate, shared windows -------------------------------------------------------------------------------


async def test_a_cooldown_counts_by_who_says_so(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    await client.send(session, "sms")
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT"))
    with pytest.raises(CooldownError):
        await client.send(session, "email")
    await client.create(PHONE, send=True)
    with pytest.raises(CooldownError):
        await client.create(PHONE, send=True)
    assert measured.read(COOLDOWN_HITS) == {
        ("send", "sms", "false"): 1,
        ("send", "email", "true"): 1,
        ("create", "", "false"): 1,
    }


async def test_the_gate_counts_when_it_closes_not_those_whom_it_holds_back(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "3600"}))
    for _ in range(3):
        with pytest.raises(RateLimitedError):
            await client.send(session, "sms")
    assert measured.read(GATE_CLOSURES) == {(): 1}
    assert sum(measured.read(REQUEST_DURATION).values()) == 1
    assert measured.read(CALLS) == {
        ("send", "sms", "refused", "kodmobi_async.RateLimitedError"): 1,
        ("send", "sms", "not_sent", "kodmobi_async.RateLimitedError"): 2,
    }


async def test_windows_and_requests_without_the_shared_server_count_as_degraded(
    emulator: Emulator, measured: Measured, session: str
) -> None:
    async with (
        RedisCooldownTracker("redis://127.0.0.1:1") as cooldowns,
        RedisLimits("redis://127.0.0.1:1") as shared,
        KodmobiClient(
            emulator.api_key,
            base_url=emulator.base_url,
            cooldowns=cooldowns,
            limits=Limits(shared=shared),
            hooks=[measured.hook],
        ) as client,
    ):
        await client.send(session, "sms")
        await client.channels(session)
    assert measured.read(DEGRADED_WINDOWS) == {("send",): 1}
    assert measured.read(DEGRADED_LIMITS) == {("send",): 1, ("channels",): 1}


# -- in flight ---------------------------------------------------------------------------------------------------------


async def test_calls_in_flight_are_those_that_wait_and_those_that_send(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    emulator.script(Fault.silence(), endpoint="settings")
    await client.send(session, "sms")
    waiting: list[asyncio.Task[object]] = [
        *(asyncio.ensure_future(client.send(session, "sms", max_wait=90.0)) for _ in range(2)),
        asyncio.ensure_future(client.settings()),
    ]
    await asyncio.sleep(1)
    assert measured.read(ACTIVE_CALLS) == {("send",): 2, ("settings",): 1}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert measured.read(ACTIVE_CALLS) == {}
    assert measured.read(CALLS)["send", "sms", "not_sent", "asyncio.exceptions.CancelledError"] == 2


async def test_a_call_cancelled_after_any_turn_of_the_loop_is_in_flight_no_more(
    emulator: Emulator, measured: Measured
) -> None:
    cancelled: list[int] = []
    async for turns in cancelled_sends(emulator, measured.hook):
        cancelled.append(turns)
        assert measured.read(ACTIVE_CALLS) == {}
    calls = measured.read(CALLS)
    assert sum(calls.values()) == len(cancelled) == sum(measured.read(CALL_DURATION).values())
    assert calls.pop(("send", "sms", "accepted", "")) >= 1
    assert {key[3] for key in calls} == {"asyncio.exceptions.CancelledError"}
    assert {key[2] for key in calls} >= {"not_sent", "unknown"}


async def test_a_call_that_closing_ends_is_in_flight_no_more(
    emulator: Emulator, client: KodmobiClient, measured: Measured, session: str
) -> None:
    emulator.script(Fault.silence())
    task = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(1)
    assert measured.read(ACTIVE_CALLS) == {("send",): 1}
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await task
    assert measured.read(ACTIVE_CALLS) == {}
    assert measured.read(CALLS) == {("send", "sms", "unknown", "kodmobi_async.ClientClosedError"): 1}
    with pytest.raises(ClientClosedError):
        await client.send(session, "sms")  # no call was begun
    assert sum(measured.read(CALLS).values()) == 1


def test_a_call_whose_loop_was_closed_under_it_is_in_flight_no_more(measured: Measured) -> None:
    async def begin() -> asyncio.Task[object]:
        client = KodmobiClient("key", base_url="http://127.0.0.1:9", hooks=[measured.hook], max_wait=90.0)
        await client._cooldowns.observe("01K8N1VMPN0EE389K72YW0CBM2", "sms", 60.0)
        task: asyncio.Task[object] = asyncio.ensure_future(client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms"))
        await asyncio.sleep(0.01)
        assert measured.read(ACTIVE_CALLS) == {("send",): 1}
        return task

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.run_until_complete(begin())
    loop.close()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        del task
        gc.collect()
    assert measured.read(ACTIVE_CALLS) == {}
    assert measured.read(CALLS) == {("send", "sms", "not_sent", "_OTHER"): 1}


async def test_a_thousand_calls_at_a_time_add_up(emulator: Emulator, measured: Measured) -> None:
    sessions = [emulator.add_session() for _ in range(1000)]
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, limits=Limits(connections=64), hooks=[measured.hook]
    ) as client:
        await asyncio.gather(*(client.send(session, "sms") for session in sessions * 2), return_exceptions=True)
    blocked = "kodmobi_async.CooldownError"
    assert measured.read(CALLS) == {
        ("send", "sms", "accepted", ""): 1000,
        ("send", "sms", "not_sent", blocked): 1000,
    }
    assert measured.read(ACTIVE_CALLS) == {}
    assert measured.read(COOLDOWN_HITS) == {("send", "sms", "false"): 1000}


async def test_one_hook_serves_several_clients(emulator: Emulator, measured: Measured, session: str) -> None:
    async with Emulator() as other:
        for each in (emulator, other):
            async with KodmobiClient(each.api_key, base_url=each.base_url, hooks=[measured.hook]) as client:
                await client.channels()
    assert measured.read(CALLS) == {("channels", "", "accepted", ""): 2}
    assert {key[4] for key in measured.read(REQUEST_DURATION)} == {str(emulator.port), str(other.port)}


async def test_a_call_whose_beginning_was_kept_from_the_hook_is_not_measured(
    emulator: Emulator, measured: Measured, session: str
) -> None:
    def late(record: Record, /) -> None:
        if not isinstance(record, SendStarted):
            measured.hook(record)

    emulator.script(Fault.answer(503))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[late]) as client:
        await client.send(session, "sms")
    assert number_of_series(measured) == 0


# -- what nobody can make up -------------------------------------------------------------------------------------------


async def test_neither_callers_nor_the_service_can_make_up_series(emulator: Emulator, measured: Measured) -> None:
    class Raises(MemoryCooldownTracker):
        number = 0

        async def acquire(self, *_: Any, **__: Any) -> Any:
            self.number += 1
            raise type(f"Error{self.number}", (Exception,), {})("made up")

    statuses = [status for status in range(200, 600) if status != 429]
    settings: dict[str, Any] = {"base_url": emulator.base_url, "hooks": [measured.hook]}
    async with KodmobiClient(
        emulator.api_key, **settings, retry=RetryPolicy(attempts=1, repeat_unknown=False)
    ) as client:
        for number, status in enumerate(statuses):
            body = {"sys_message": f"ERROR_{number}", "message": f"{number}", "channel": {"type": f"channel-{number}"}}
            emulator.script(Fault.answer(status, {"Retry-After": "1"}, body))
            with pytest.raises(KodmobiError):
                await client.send(emulator.add_session(), f"Channel-{number}")
    async with KodmobiClient(emulator.api_key, **settings, cooldowns=Raises()) as client:
        for number in range(100):
            with pytest.raises(Exception, match="made up"):
                await client.send(emulator.add_session(), f"other-{number}")
    known = [key for key in measured.read(REQUEST_DURATION) if key[5]]
    assert len(known) < 60  # the statuses that HTTP has from 200 on
    others = {(key[1], key[6]) for key in measured.read(REQUEST_DURATION) if not key[5]}
    assert others >= {(outcome, "_OTHER") for outcome in ("accepted", "refused", "unknown")}
    assert others <= {(outcome, "_OTHER") for outcome in ("accepted", "refused", "unknown")} | {("unknown", "written")}
    assert sum(measured.read(REQUEST_DURATION).values()) == len(statuses)
    assert {key[1] for key in measured.read(CALLS)} == {"_OTHER"}
    assert measured.read(CALLS)["send", "_OTHER", "not_sent", "_OTHER"] == 100
    assert number_of_series(measured) < 100
    shown = measured.shown().lower()
    assert not [each for each in ("made up", "channel-", "other-", "error_1", "error1") if each in shown]


async def test_an_error_derived_from_one_of_ours_counts_as_that(emulator: Emulator, measured: Measured) -> None:
    class MyError(CooldownError):
        pass

    class Raises(MemoryCooldownTracker):
        async def acquire(self, session_id: str, channel: str, **_: Any) -> Any:
            raise MyError("mine", retry_after=1.0, session_id=session_id, channel=channel)

    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, hooks=[measured.hook], cooldowns=Raises()
    ) as client:
        with pytest.raises(MyError):
            await client.send(emulator.add_session(), "sms")
    assert measured.read(CALLS) == {("send", "sms", "not_sent", "kodmobi_async.CooldownError"): 1}


async def test_nothing_private_is_exported(emulator: Emulator, client: KodmobiClient, measured: Measured) -> None:
    session = await client.create(PHONE, channel="sms", send=True, challenge="canary-challenge")
    code = emulator.last_code(PHONE)
    said = f"{PHONE} {session.session_id} {code} {emulator.api_key}"
    for status in (400, 404, 418, 500, 503):
        fault = Fault.answer(status, {"X-Request-Id": said}, {"message": said, "sys_message": said})
        emulator.script(fault, endpoint="check")
        with pytest.raises(KodmobiError):
            await client.check(session.session_id, "0000" if code != "0000" else "1111", timeout=1.0)
        emulator.clear_faults()
    checked = await client.check(session.session_id, code)
    await client.verify(checked.verify_token)
    shown = measured.shown()
    assert "WrongCodeError" in shown or "BadRequestError" in shown
    for secret in (
        PHONE.lstrip("+"),
        PHONE[-4:],
        str(session.session_id),
        str(session.session_id)[-4:],
        str(checked.verify_token),
        emulator.api_key,
        emulator.secret_key,
        "canary-challenge",
    ):
        assert secret not in shown
    assert code not in shown.replace(f"{emulator.port}", "")


def test_names_and_attributes_are_told_apart() -> None:
    assert len({instrument.name for instrument in INSTRUMENTS}) == len(INSTRUMENTS)
    assert len({instrument.prometheus for instrument in INSTRUMENTS}) == len(INSTRUMENTS)
    for instrument in INSTRUMENTS:
        assert list(instrument.buckets) == sorted(set(instrument.buckets))
