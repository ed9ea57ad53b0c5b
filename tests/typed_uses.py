"""Uses of the public names as a user's type checker sees them. It is checked by ``tox -e types``, and never run."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import aiohttp
import pytest
from aiohttp import web
from fastapi import APIRouter, FastAPI, Request
from taskiq import AsyncBroker
from ulid import ULID

from kodmobi_async import (
    CallStarted,
    Channel,
    CheckResult,
    CooldownError,
    CooldownTracker,
    HeaderHook,
    Hook,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    Outcome,
    OutcomeUnknownError,
    ProjectSettings,
    Record,
    ResponseError,
    RetryPolicy,
    SendFinished,
    SendMany,
    SendOutcome,
    SendRequest,
    SendResult,
    Session,
    SessionChannel,
    Timeout,
    VerifiedUser,
    normalize_code,
    normalize_phone,
)
from kodmobi_async.emulator import Delivery, Emulator, Fault
from kodmobi_async.integrations.aiohttp import KODMOBI, kodmobi_context, kodmobi_errors, login_routes
from kodmobi_async.integrations.fastapi import Kodmobi, add_kodmobi_errors, kodmobi_lifespan, login_router
from kodmobi_async.integrations.logging import LoggingHook
from kodmobi_async.integrations.opentelemetry import OpenTelemetryHook, OpenTelemetryMetrics
from kodmobi_async.integrations.prometheus import PrometheusMetrics
from kodmobi_async.integrations.taskiq import ResendTask, WorkerProgress, add_resend, send_through
from kodmobi_async.journal import Entry, Journal
from kodmobi_async.redis import RedisCooldownTracker, RedisLimits
from kodmobi_async.sqlite import SqliteCooldownTracker
from kodmobi_async.testing import MovableClock, RunningEmulator, VirtualClockLoop, movable_clock, running_emulator


def build(session: aiohttp.ClientSession, context: ssl.SSLContext) -> tuple[KodmobiClient, ...]:
    assert_type(Timeout(total=10.0).total, float)
    return (
        KodmobiClient(),
        KodmobiClient("key", secret_key="secret", base_url="https://example.org", language="ru", max_wait=20.0),
        KodmobiClient(timeout=Timeout(), limits=Limits(rate=5.0), retry=RetryPolicy(repeat_unknown=False)),
        KodmobiClient(limits=Limits(rate=5.0, shared=RedisLimits("redis://localhost", on_outage="refuse"))),
        KodmobiClient(session=session),
        KodmobiClient(ssl=context, proxy="http://127.0.0.1:3128"),
        KodmobiClient(cooldowns=MemoryCooldownTracker(), hooks=[LoggingHook(), OpenTelemetryHook(), print]),
    )


async def log_in(client: KodmobiClient) -> str:
    session = await client.create("+14155550123", channel="sms", send=True)
    assert_type(session, Session)
    assert_type(session.session_id, ULID)
    sent_to: Channel | str | None = session.sent_to
    assert sent_to
    async for seconds in client.countdown(session.session_id, Channel.SMS):
        assert_type(seconds, float)
    assert_type(await client.send(str(session.session_id), "sms", max_wait=1.0, timeout=2.0), SendResult)
    assert_type(await client.send_first(session.session_id, [Channel.SMS, "viber"]), SendResult)
    checked = await client.check(session.session_id, normalize_code(" 123-456 "))
    assert_type(checked, CheckResult)
    user = await client.verify(checked.verify_token)
    assert_type(user, VerifiedUser)
    assert_type(await client.settings(), ProjectSettings)
    assert_type(await client.channels(), tuple[SessionChannel, ...])
    assert_type(await client.remaining(session.session_id, "sms", refresh=True), float)
    assert_type(session.to_dict(), dict[str, Any])
    return normalize_phone(user.to)


async def handle(client: KodmobiClient) -> float | None:
    try:
        await client.send(ULID(), Channel.TELEGRAM)
    except CooldownError as error:
        return assert_type(error.retry_after, float)
    except OutcomeUnknownError as error:
        return error.safe_after
    except ResponseError as error:
        return assert_type(error.retry_after, float | None)
    except KodmobiError as error:
        assert_type(error.outcome, Outcome)
        assert_type(error.retryable, bool)
    return None


async def send_to_all(
    client: KodmobiClient, pairs: list[tuple[str, Channel]], more: AsyncIterator[SendRequest]
) -> None:
    async with client.send_many(pairs, concurrency=8, max_wait=1.0) as outcomes:
        assert_type(outcomes, SendMany)
        async for outcome in outcomes:
            assert_type(outcome, SendOutcome)
            assert_type(outcome.request, SendRequest)
            assert_type(outcome.error, KodmobiError | None)
            assert_type(outcome.result, SendResult | None)
    async with Journal.open("run.journal") as journal, client.send_many(more, journal=journal) as outcomes:
        async for _ in outcomes:
            pass
        async for entry in journal.outcomes():
            assert_type(entry, Entry)


async def share(client: KodmobiClient) -> tuple[CooldownTracker, ...]:
    async with (
        RedisCooldownTracker("redis://localhost", on_outage="refuse") as redis,
        SqliteCooldownTracker("x") as file,
    ):
        await redis.ping()
        return redis, file, MemoryCooldownTracker()


def count(record: Record) -> None:
    if isinstance(record, SendFinished):
        assert_type(record.outcome, Outcome)
        assert_type(record.attempts, int)


class Headers:
    def __call__(self, record: Record, /) -> None: ...

    def request_headers(self, record: CallStarted, /) -> Mapping[str, str]:
        return {"X-Kind": record.kind}


HOOKS: list[Hook | HeaderHook] = [count, Headers(), LoggingHook(), OpenTelemetryMetrics(), PrometheusMetrics()]


async def welcome(request: Request, user: VerifiedUser) -> dict[str, str]:
    return {"user": user.to}


def open_client() -> AbstractAsyncContextManager[KodmobiClient]:
    return KodmobiClient()


def make_fastapi() -> FastAPI:
    app = FastAPI(lifespan=kodmobi_lifespan(open_client))
    add_kodmobi_errors(app)
    router = login_router(welcome, secret="a secret for this file")
    assert_type(router, APIRouter)
    app.include_router(router)
    return app


async def resend(session_id: str, kodmobi: Kodmobi) -> SendResult:
    return await kodmobi.send(session_id, "sms")


async def welcome_too(request: web.Request, user: VerifiedUser) -> dict[str, str]:
    assert_type(request.app[KODMOBI], KodmobiClient)
    return {"user": user.to}


def make_aiohttp() -> web.Application:
    app = web.Application(middlewares=[kodmobi_errors])
    app.cleanup_ctx.append(kodmobi_context())
    app.add_routes(login_routes(welcome_too, secret="a secret for this file"))
    return app


async def work(broker: AsyncBroker, requests: list[SendRequest]) -> None:
    task: ResendTask = add_resend(broker, open_client)
    workers: list[WorkerProgress] = []
    async for outcome in send_through(task, requests, on_progress=workers.append):
        assert_type(outcome, SendOutcome)
    assert_type(workers[0].in_flight, int)


async def emulate() -> None:
    async with Emulator(window=5.0) as emulator:
        session_id = emulator.add_session(to="+14155550123")
        emulator.script(Fault.close("after_reading", process=True))
        assert_type(emulator.delivered(session_id), list[Delivery])
        assert_type(emulator.last_code("+14155550123"), str)


def test(kodmobi_emulator: RunningEmulator, kodmobi_clock: MovableClock, kodmobi_client: KodmobiClient) -> None:
    kodmobi_clock.advance(60)
    assert_type(kodmobi_emulator.base_url, str)
    with running_emulator() as emulator, movable_clock() as clock:
        assert_type(emulator, RunningEmulator)
        assert_type(clock, MovableClock)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(emulate())
    with pytest.raises(KodmobiError):
        raise KodmobiError("made up")
