"""The hook for the standard library's logging: what it says, how loudly, and of whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from kodmobi_async import (
    ConfigurationError,
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Limits,
    OutcomeUnknownError,
    RetryPolicy,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.logging import LoggingHook
from kodmobi_async.redis import RedisCooldownTracker, RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[LoggingHook()]) as client:
        yield client


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="kodmobi_async.emulator")  # it runs in this process
    caplog.set_level(logging.DEBUG, logger="kodmobi_async")
    return caplog


CLOSED = "the connection was closed without a response (ServerDisconnectedError)"


def lines(log: pytest.LogCaptureFixture, session: str) -> list[str]:
    """Return the lines of one call, without what all of them begin with, and without moments and numbers of seconds."""
    opening = re.compile(rf"send [0-9]+, session {session[:4]}…{session[-4:]}, [a-z]+: ")
    return [
        re.sub(r"[0-9]+\.[0-9]+", "n", opening.sub("", record.getMessage()))
        for record in log.records
        if opening.match(record.getMessage())
    ]


async def test_a_send_is_told_at_debug(
    emulator: Emulator, client: KodmobiClient, session: str, log: pytest.LogCaptureFixture
) -> None:
    emulator.script(Fault.answer(503))
    emulator.script(Fault.close(process=False))
    await client.send(session, "sms")
    assert lines(log, session) == [
        "started",
        "attempt 1: refused (HTTP 503) after n s",
        "again in n s: HTTP 503",
        "attempt 2: unknown (written) after n s",
        f"again in n s: the request was sent, but {CLOSED}",
        "attempt 3: accepted (HTTP 200) after n s",
        "done, accepted; attempts: 3",
    ]
    assert {record.levelno for record in log.records} == {logging.DEBUG}
    assert {record.name for record in log.records} == {"kodmobi_async"}


async def test_both_kinds_of_cooldown_are_told(
    emulator: Emulator, client: KodmobiClient, session: str, log: pytest.LogCaptureFixture
) -> None:
    await client.send(session, "sms")
    log.clear()
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    emulator.script(Fault.refuse("ERROR_MESSAGE_ATTEMPT", retry_after=17))
    with pytest.raises(CooldownError):
        await client.send(session, "email")
    assert lines(log, session) == [
        "started",
        "too soon, says the client; again in n s",
        "CooldownError, not_sent; attempts: 0",
        "started",
        "attempt 1: refused (HTTP 429) after n s",
        "too soon, says the service; again in n s",
        "CooldownError, refused; attempts: 1",
    ]


async def test_a_cancelled_call_is_told(
    client: KodmobiClient, emulator: Emulator, session: str, log: pytest.LogCaptureFixture
) -> None:
    await client.send(session, "sms")
    log.clear()
    task = asyncio.create_task(client.send(session, "sms", max_wait=100))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lines(log, session) == ["started", "cancelled, not_sent; attempts: 0"]


async def test_an_unknown_outcome_is_a_warning_that_names_no_session(
    emulator: Emulator, session: str, log: pytest.LogCaptureFixture
) -> None:
    emulator.script(Fault.close())
    policy = RetryPolicy(repeat_unknown=False)
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, retry=policy, hooks=[LoggingHook()]
    ) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.send(session, "sms")
    assert [record.getMessage() for record in log.records if record.levelno > logging.DEBUG] == [
        "the outcome of a send is unknown over sms"
    ]
    assert lines(log, session)[-1] == "OutcomeUnknownError, unknown; attempts: 1"


async def test_a_limited_account_is_a_warning_that_names_no_session(
    emulator: Emulator, client: KodmobiClient, session: str, log: pytest.LogCaptureFixture
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "2"}))
    await client.send(session, "sms")
    assert [record.getMessage() for record in log.records if record.levelno > logging.DEBUG] == [
        "the service limits this account: holding back for 2.0 s"
    ]
    assert lines(log, session)[2] == "again in n s: HTTP 429"


async def test_a_send_without_the_shared_windows_is_told(
    emulator: Emulator, session: str, log: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisCooldownTracker("redis://127.0.0.1:1") as cooldowns,
        KodmobiClient(
            emulator.api_key, base_url=emulator.base_url, cooldowns=cooldowns, hooks=[LoggingHook()]
        ) as client,
    ):
        await client.send(session, "sms")
    told = "by this process's own windows alone: the shared ones are unavailable (ConnectionError)"
    assert [line for line in lines(log, session) if "windows alone" in line] == [told]


async def test_a_request_without_the_shared_limits_is_told(
    emulator: Emulator, session: str, log: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisLimits("redis://127.0.0.1:1") as shared,
        KodmobiClient(
            emulator.api_key, base_url=emulator.base_url, limits=Limits(shared=shared), hooks=[LoggingHook()]
        ) as client,
    ):
        await client.send(session, "sms")
    told = "by this process's own share of the rate: the shared limits are unavailable (ConnectionError)"
    assert lines(log, session)[1] == told


@pytest.mark.parametrize("spelled", [str.upper, str.lower])
async def test_the_session_is_shortened_in_the_services_own_words_too(
    emulator: Emulator, client: KodmobiClient, session: str, log: pytest.LogCaptureFixture, spelled: Any
) -> None:
    emulator.script(Fault.answer(503, body={"message": f"{spelled(session)} is busy"}))
    await client.send(session, "sms")
    assert session.lower() not in log.text.lower()
    assert f"HTTP 503: {session[:4]}…{session[-4:]} is busy" in log.text


async def test_no_line_names_a_session_in_full_and_none_above_debug_at_all(
    emulator: Emulator, log: pytest.LogCaptureFixture
) -> None:
    faults = [
        Fault.close(process=False),
        Fault.close(process=True),
        Fault.close("mid_answer"),
        Fault.malformed(),
        Fault.silence(),
        Fault.answer(302),
        Fault.answer(429),
        Fault.answer(500),
        Fault.refuse("ERROR_BLOCKED"),
        Fault.refuse("ERROR_MESSAGE_ATTEMPT"),
    ]
    sessions = [emulator.add_session() for _ in faults]
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[LoggingHook()]) as client:
        for fault, session in zip(faults, sessions, strict=True):
            emulator.script(fault, times=2)
            for _ in range(3):
                with contextlib.suppress(KodmobiError):
                    await client.send(session, "sms")
            emulator.clear_faults()
    for session in sessions:
        assert session not in log.text
        loud = "\n".join(record.getMessage() for record in log.records if record.levelno > logging.DEBUG)
        assert session[-4:] not in loud
    assert emulator.api_key not in log.text


async def test_a_quiet_logger_costs_no_words(emulator: Emulator, session: str) -> None:
    spoken: list[logging.LogRecord] = []

    class Quiet(logging.Logger):
        def handle(self, record: logging.LogRecord) -> None:
            spoken.append(record)

    logger = Quiet("quiet", logging.WARNING)
    emulator.script(Fault.answer(429))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[LoggingHook(logger)]) as client:
        await client.send(session, "sms")
    assert [record.levelno for record in spoken] == [logging.WARNING]


async def test_a_logger_of_the_users_own_is_told(
    emulator: Emulator, session: str, log: pytest.LogCaptureFixture
) -> None:
    log.set_level(logging.DEBUG)

    class Named(logging.LoggerAdapter[logging.Logger]):
        def process(self, msg: Any, kwargs: Any) -> Any:
            return f"[codes] {msg}", kwargs

    hooks = [LoggingHook(logging.getLogger("mine")), LoggingHook(Named(logging.getLogger("mine.too"), {}))]
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=hooks) as client:
        await client.send(session, "sms")
    mine = [record for record in log.records if record.name == "mine"]
    too = [record for record in log.records if record.name == "mine.too"]
    assert len(mine) == len(too) == 3
    assert [record.getMessage() for record in too] == [f"[codes] {record.getMessage()}" for record in mine]


@pytest.mark.parametrize("logger", ["kodmobi_async", logging, 5, logging.Logger])
def test_what_is_no_logger_is_refused(logger: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"LoggingHook takes a logging\.Logger, not"):
        LoggingHook(logger)
