"""The trace goes on: from the caller's span into every request of a call, and through a queue of tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import SpanContext, TraceFlags, TraceState
from taskiq import InMemoryBroker
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware

from kodmobi_async import (
    ConfigurationError,
    KodmobiClient,
    KodmobiError,
    Record,
    RetryPolicy,
    SendRequest,
    SendStarted,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.opentelemetry import OpenTelemetryHook
from kodmobi_async.integrations.taskiq import add_resend, send_through

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan

SESSION = "01K8N1VMPN0EE389K72YW0CBM2"
PHONE = "+14155550123"


class Traces:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("mine")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def of_calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans if "kodmobi.call" in (span.attributes or {})]


@pytest.fixture
def traces() -> Traces:
    return Traces()


class Service:
    """A service that notes the headers of requests, and answers each with the next status; 404 in the end."""

    def __init__(self) -> None:
        self.base_url = ""
        self.statuses: list[int] = []
        self.heard: list[dict[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.heard.append(headers)
        status = self.statuses.pop(0) if self.statuses else 404
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        writer.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        service.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield service


def traceparent(span: ReadableSpan) -> str:
    found = span.get_span_context()
    assert found is not None
    assert found.trace_flags.sampled
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


async def refused(call: Any) -> None:
    with pytest.raises(KodmobiError):
        await call


# -- into requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["owned", "borrowed"])
async def test_every_request_of_every_call_carries_its_calls_span(service: Service, traces: Traces, pool: str) -> None:
    borrowed = aiohttp.ClientSession() if pool == "borrowed" else None
    hook = OpenTelemetryHook(traces.provider)
    async with KodmobiClient(
        "key", secret_key="secret", base_url=service.base_url, session=borrowed, hooks=[hook]
    ) as client:
        with traces.tracer.start_as_current_span("login") as login:
            await refused(client.create(PHONE, challenge="token"))
            await refused(client.create(PHONE, channel="sms", send=True))
            await refused(client.send(SESSION, "sms"))
            await refused(client.channels(SESSION))
            await refused(client.settings())
            await refused(client.check(SESSION, "1234"))
            await refused(client.verify("token"))
    if borrowed is not None:
        await borrowed.close()
    calls = traces.of_calls()
    assert [(span.attributes or {})["kodmobi.call"] for span in calls] == [
        "create",
        "create",
        "send",
        "channels",
        "settings",
        "check",
        "verify",
    ]
    assert [headers["traceparent"] for headers in service.heard] == [traceparent(span) for span in calls]
    for span in calls:
        assert span.parent is not None
        assert span.parent.span_id == login.get_span_context().span_id


async def test_every_kind_of_call_has_its_span_with_what_the_conventions_ask_for(
    emulator: Emulator, traces: Traces
) -> None:
    async with KodmobiClient(
        emulator.api_key,
        secret_key=emulator.secret_key,
        base_url=emulator.base_url,
        hooks=[OpenTelemetryHook(traces.provider)],
    ) as client:
        session = await client.create(PHONE, send=True)
        await client.send_first(session.session_id, ["sms", "telegram", "whatsapp"])
        await client.channels(session.session_id)
        await client.settings(session.session_id)
        await refused(client.check(session.session_id, "000000"))
        checked = await client.check(session.session_id, emulator.last_code(PHONE))
        await client.verify(checked.verify_token)
    common = {"server.address": "127.0.0.1", "server.port": emulator.port, "kodmobi.confirmed": False}
    accepted = {"http.response.status_code": 200, "kodmobi.outcome": "accepted"}
    found: list[dict[str, Any]] = [dict(span.attributes or {}) for span in traces.of_calls()]
    tried = {each.pop("kodmobi.channel") for each in found if "kodmobi.channel" in each}
    assert tried <= {"sms", "telegram", "whatsapp"}
    assert {each.pop("kodmobi.sent_to") for each in found if "kodmobi.sent_to" in each} <= {"sms", "telegram", "email"}
    held_back = [each for each in found if each["kodmobi.outcome"] == "not_sent"]
    assert all(each["error.type"] == "kodmobi_async.CooldownError" for each in held_back)
    wrong = next(each for each in found if each["kodmobi.outcome"] == "refused")
    assert wrong.pop("http.response.status_code") == int(wrong.pop("error.type"))
    assert [each for each in found if each not in held_back] == [
        {
            **common,
            **(accepted if each is not wrong else {"kodmobi.outcome": "refused"}),
            "kodmobi.call": kind,
            "http.request.method": method,
            "url.full": f"{emulator.base_url}/{kind}",
        }
        for each, (kind, method) in zip(
            [each for each in found if each not in held_back],
            [
                ("create", "POST"),
                ("send", "POST"),
                ("channels", "GET"),
                ("settings", "GET"),
                ("check", "POST"),
                ("check", "POST"),
                ("verify", "POST"),
            ],
            strict=True,
        )
    ]
    shown = "".join(span.to_json() for span in traces.spans)
    for secret in (PHONE.lstrip("+"), str(session.session_id), str(checked.verify_token), emulator.secret_key):
        assert secret not in shown


async def test_repeats_and_questions_after_a_lost_answer_carry_the_same(service: Service, traces: Traces) -> None:
    service.statuses = [503, 500]
    async with KodmobiClient(
        "key",
        base_url=service.base_url,
        retry=RetryPolicy(initial_backoff=0),
        hooks=[OpenTelemetryHook(traces.provider)],
    ) as client:
        await refused(client.send(SESSION, "sms"))
    (span,) = traces.of_calls()
    assert [headers["traceparent"] for headers in service.heard] == [traceparent(span)] * 4


async def test_the_state_of_a_trace_goes_along_and_baggage_stays(service: Service, traces: Traces) -> None:
    state = TraceState([("vendor", "abc")])
    remote = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1), state)
    token = context.attach(
        baggage.set_baggage("phone", PHONE, trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    )
    try:
        async with KodmobiClient(
            "key", base_url=service.base_url, hooks=[OpenTelemetryHook(traces.provider)]
        ) as client:
            await refused(client.send(SESSION, "sms"))
    finally:
        context.detach(token)
    ((headers),) = service.heard
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["tracestate"] == "vendor=abc"
    assert "baggage" not in headers
    assert PHONE.lstrip("+") not in repr(headers)


async def test_a_propagator_of_ones_own_writes_what_it_likes(service: Service, traces: Traces) -> None:
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    hook = OpenTelemetryHook(traces.provider, propagator=W3CBaggagePropagator())
    try:
        async with KodmobiClient("key", base_url=service.base_url, hooks=[hook]) as client:
            await refused(client.send(SESSION, "sms"))
    finally:
        context.detach(token)
    (headers,) = service.heard
    assert headers["baggage"] == "tenant=blue"
    assert "traceparent" not in headers


@pytest.mark.parametrize("case", ["no propagator", "no provider", "its beginning was missed"])
async def test_where_there_is_nothing_to_tell_the_service_is_told_nothing(
    service: Service, traces: Traces, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    class Late(OpenTelemetryHook):
        def __call__(self, record: Record, /) -> None:
            if not isinstance(record, SendStarted):
                super().__call__(record)

    hooks: dict[str, Callable[[], OpenTelemetryHook]] = {
        "no propagator": lambda: OpenTelemetryHook(traces.provider, propagator=None),
        "no provider": OpenTelemetryHook,
        "its beginning was missed": lambda: Late(traces.provider),
    }
    async with KodmobiClient("key", base_url=service.base_url, hooks=[hooks[case]()]) as client:
        await refused(client.send(SESSION, "sms"))
    assert "trace" not in repr(service.heard).lower()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_context_from_elsewhere_goes_through_where_nothing_is_traced_here(service: Service) -> None:
    incoming = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    token = context.attach(TraceContextTextMapPropagator().extract(incoming))
    try:
        async with KodmobiClient("key", base_url=service.base_url, hooks=[OpenTelemetryHook()]) as client:
            await refused(client.send(SESSION, "sms"))
    finally:
        context.detach(token)
    assert service.heard[0]["traceparent"] == incoming["traceparent"]


@pytest.mark.parametrize("propagator", ["tracecontext", 5, TraceContextTextMapPropagator])
def test_what_is_no_propagator_is_refused(propagator: Any) -> None:
    with pytest.raises(ConfigurationError, match="propagator takes a TextMapPropagator, not"):
        OpenTelemetryHook(propagator=propagator)


async def test_the_sends_of_a_run_belong_to_the_span_that_the_run_was_begun_in(
    emulator: Emulator, traces: Traces
) -> None:
    requests = [(emulator.add_session(), "sms") for _ in range(20)]
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, hooks=[OpenTelemetryHook(traces.provider)]
    ) as client:
        with traces.tracer.start_as_current_span("batch") as batch:
            async with client.send_many(requests, concurrency=4) as outcomes:
                async for outcome in outcomes:
                    assert outcome.error is None
    calls = traces.of_calls()
    assert len(calls) == 20
    for span in calls:
        assert span.parent is not None
        assert span.parent.span_id == batch.get_span_context().span_id


# -- through a queue ---------------------------------------------------------------------------------------------------


async def test_with_taskiqs_own_middleware_the_trace_goes_on_in_the_worker(emulator: Emulator, traces: Traces) -> None:
    broker = InMemoryBroker(max_stored_results=-1)
    broker.add_middlewares(OpenTelemetryMiddleware(tracer_provider=traces.provider))
    hook = OpenTelemetryHook(traces.provider)
    client = KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[hook])
    resend = add_resend(broker, lambda: client)
    requests = [SendRequest(emulator.add_session(), "sms") for _ in range(3)]
    emulator.script(Fault.answer(503))  # repeated inside the call
    await broker.startup()
    with traces.tracer.start_as_current_span("campaign") as campaign:
        async for outcome in send_through(resend, requests):
            assert outcome.error is None
    await broker.shutdown()
    by_id: Mapping[int, ReadableSpan] = {
        span_context.span_id: span for span in traces.spans if (span_context := span.get_span_context()) is not None
    }
    sends = traces.of_calls()
    assert len(sends) == 3
    for span in sends:
        names: list[str] = []
        parent = span.parent
        while parent is not None:
            names.append(by_id[parent.span_id].name)
            parent = by_id[parent.span_id].parent
        assert names == ["execute/kodmobi_async:resend:batch", "send/kodmobi_async:resend:batch", "campaign"]
        found = span.get_span_context()
        assert found is not None
        assert found.trace_id == campaign.get_span_context().trace_id
