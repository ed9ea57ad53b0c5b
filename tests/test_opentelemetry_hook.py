"""The hook for OpenTelemetry: one span a call, by the conventions for HTTP client spans.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from cancelled_sends import cancelled_sends
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from kodmobi_async import (
    ClientClosedError,
    ConfigurationError,
    CooldownError,
    KodmobiClient,
    KodmobiError,
    Limits,
    MemoryCooldownTracker,
    OutcomeUnknownError,
    RateLimitedError,
    Record,
    SendStarted,
    ServerError,
    TransportError,
    UnreadableResponseError,
    __version__,
)
from kodmobi_async.emulator import Emulator, Fault
from kodmobi_async.integrations.opentelemetry import OpenTelemetryHook
from kodmobi_async.redis import RedisCooldownTracker, RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from opentelemetry.sdk.trace import ReadableSpan


class Traced:
    """A provider of tracers that keeps the spans, the ended and the begun."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.hook = OpenTelemetryHook(self.provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def only(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    @property
    def open(self) -> int:
        return len(self.hook._calls)


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
async def client(emulator: Emulator, traced: Traced) -> AsyncIterator[KodmobiClient]:
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[traced.hook]) as client:
        yield client
        assert traced.open == 0


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, Mapping[str, Any]]]:
    return [(event.name.removeprefix("kodmobi."), dict(event.attributes or {})) for event in span.events]


def without_moments(found: list[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Drop the durations and pauses, which no two runs share."""
    moments = {"kodmobi.duration", "kodmobi.pause"}
    return [(name, {key: value for key, value in more.items() if key not in moments}) for name, more in found]


def unset(span: ReadableSpan) -> bool:
    return span.status.status_code is trace.StatusCode.UNSET


def failed(span: ReadableSpan) -> bool:
    """Whether the span is an error without a description, which could name a session."""
    return span.status.status_code is trace.StatusCode.ERROR and span.status.description is None


# -- the span ----------------------------------------------------------------------------------------------------------


async def test_a_send_is_one_client_span_with_the_attributes_that_the_conventions_ask_for(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    await client.send(session, "sms")
    span = traced.only
    assert span.name == "POST"  # never the path, and there is no route
    assert span.kind is trace.SpanKind.CLIENT
    assert attributes(span) == {
        "http.request.method": "POST",
        "url.full": f"{emulator.base_url}/send",
        "server.address": "127.0.0.1",
        "server.port": emulator.port,
        "http.response.status_code": 200,
        "kodmobi.call": "send",
        "kodmobi.channel": "sms",
        "kodmobi.outcome": "accepted",
        "kodmobi.confirmed": False,
        "kodmobi.sent_to": "sms",
    }
    assert unset(span)
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("kodmobi_async", __version__)
    assert re.fullmatch(r"https://opentelemetry\.io/schemas/1\.[0-9]+\.[0-9]+", scope.schema_url or "")


async def test_what_a_sampler_may_look_at_is_there_from_the_beginning(emulator: Emulator, session: str) -> None:
    seen: list[dict[str, Any]] = []

    class Looking(Sampler):
        def should_sample(  # noqa: PLR0917 the signature is the base class's
            self,
            parent_context: Any,
            trace_id: int,
            name: str,
            kind: Any = None,
            attributes: Any = None,
            links: Any = None,
            trace_state: Any = None,
        ) -> SamplingResult:
            seen.append(dict(attributes))
            return SamplingResult(Decision.DROP)

        def get_description(self) -> str:
            return "looks"

    hook = OpenTelemetryHook(TracerProvider(sampler=Looking(), shutdown_on_exit=False))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[hook]) as client:
        await client.send(session, "sms")  # a span that is not recorded is no obstacle
    (first,) = seen
    assert {"http.request.method", "server.address", "server.port", "url.full"} <= set(first)


@pytest.mark.parametrize(
    ("base_url", "address", "port"),
    [
        ("https://api.kod.mobi/session", "api.kod.mobi", 443),
        ("https://API.kod.mobi:8443/v2", "api.kod.mobi", 8443),
        ("http://localhost/session", "localhost", 80),
        ("http://[::1]:8080", "::1", 8080),
    ],
)
async def test_every_address_is_read_right(traced: Traced, base_url: str, address: str, port: int) -> None:
    class Blocked(MemoryCooldownTracker):
        async def acquire(self, session_id: str, channel: str, **_: Any) -> Any:
            raise CooldownError("too soon", retry_after=5, session_id=session_id, channel=channel)

    async with KodmobiClient("key", base_url=base_url, hooks=[traced.hook], cooldowns=Blocked()) as client:
        with pytest.raises(CooldownError):
            await client.send("01K8N1VMPN0EE389K72YW0CBM2", "sms")
    found = attributes(traced.only)
    assert (found["server.address"], found["server.port"]) == (address, port)
    assert found["url.full"] == f"{base_url}/send"


async def test_a_call_that_the_cooldown_holds_back_has_a_span_without_an_attempt(
    client: KodmobiClient, traced: Traced, session: str
) -> None:
    await client.send(session, "sms")
    traced.exporter.clear()
    with pytest.raises(CooldownError):
        await client.send(session, "sms")
    span = traced.only
    found = attributes(span)
    assert found["error.type"] == "kodmobi_async.CooldownError"
    assert found["kodmobi.outcome"] == "not_sent"
    assert "http.response.status_code" not in found
    assert "http.request.resend_count" not in found
    assert failed(span)
    ((name, more),) = events(span)
    assert name == "cooldown_hit"
    assert more == {"kodmobi.retry_after": pytest.approx(60, abs=0.1), "kodmobi.by_service": False}


async def test_a_send_without_the_shared_windows_has_an_event_for_that(
    emulator: Emulator, traced: Traced, session: str
) -> None:
    async with (
        RedisCooldownTracker("redis://127.0.0.1:1") as cooldowns,
        KodmobiClient(emulator.api_key, base_url=emulator.base_url, cooldowns=cooldowns, hooks=[traced.hook]) as client,
    ):
        await client.send(session, "sms")
    found = dict(events(traced.only))
    assert found["tracker_degraded"] == {"kodmobi.reason": "ConnectionError"}


async def test_a_request_without_the_shared_limits_has_an_event_for_that(
    emulator: Emulator, traced: Traced, session: str
) -> None:
    async with (
        RedisLimits("redis://127.0.0.1:1") as shared,
        KodmobiClient(
            emulator.api_key, base_url=emulator.base_url, limits=Limits(shared=shared), hooks=[traced.hook]
        ) as client,
    ):
        await client.send(session, "sms")
    found = dict(events(traced.only))
    assert found["limits_degraded"] == {"kodmobi.reason": "ConnectionError"}


# -- attempts ----------------------------------------------------------------------------------------------------------


async def test_each_attempt_is_an_event_and_what_was_made_good_is_no_error(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.answer(503))
    emulator.script(Fault.answer(429, {"Retry-After": "7"}))
    emulator.script(Fault.close(process=False))
    await client.send(session, "sms")
    span = traced.only
    assert unset(span)
    found = attributes(span)
    assert "error.type" not in found
    assert found["http.request.resend_count"] == 3
    assert found["http.response.status_code"] == 200
    assert without_moments(events(span)) == [
        (
            "attempt",
            {"kodmobi.outcome": "refused", "kodmobi.phase": "answered", "http.response.status_code": 503},
        ),
        ("retry_scheduled", {}),
        (
            "attempt",
            {
                "kodmobi.outcome": "refused",
                "kodmobi.phase": "answered",
                "http.response.status_code": 429,
                "http.request.resend_count": 1,
            },
        ),
        ("gate_closed", {"kodmobi.seconds": 7.0}),
        ("retry_scheduled", {}),
        ("attempt", {"kodmobi.outcome": "unknown", "kodmobi.phase": "written", "http.request.resend_count": 2}),
        ("retry_scheduled", {}),
        (
            "attempt",
            {
                "kodmobi.outcome": "accepted",
                "kodmobi.phase": "answered",
                "http.response.status_code": 200,
                "http.request.resend_count": 3,
            },
        ),
    ]


async def test_a_lost_answer_that_is_confirmed_is_no_error(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.close(process=True))
    await client.send(session, "sms")
    found = attributes(traced.only)
    assert unset(traced.only)
    assert found["kodmobi.confirmed"] is True
    assert found["kodmobi.outcome"] == "accepted"
    assert "http.response.status_code" not in found
    assert "error.type" not in found


async def test_the_status_is_the_last_attempts_not_one_of_before(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.answer(500))
    emulator.script(Fault.close(process=False), times=9)
    with pytest.raises(OutcomeUnknownError):
        await client.send(session, "sms")
    found = attributes(traced.only)
    assert "http.response.status_code" not in found
    assert found["error.type"] == "kodmobi_async.OutcomeUnknownError"
    assert found["http.request.resend_count"] == 3


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "raised", "error_type", "status", "outcome"),
    [
        (Fault.answer(404), KodmobiError, "404", 404, "refused"),
        (Fault.answer(503), ServerError, "503", 503, "refused"),
        (Fault.answer(500), OutcomeUnknownError, "kodmobi_async.OutcomeUnknownError", 500, "unknown"),
        (Fault.answer(302), OutcomeUnknownError, "kodmobi_async.OutcomeUnknownError", 302, "unknown"),
        (Fault.close(), OutcomeUnknownError, "kodmobi_async.OutcomeUnknownError", None, "unknown"),
        (
            Fault.close("mid_answer"),
            UnreadableResponseError,
            "kodmobi_async.UnreadableResponseError",
            200,
            "accepted",
        ),
        (
            Fault.refuse("ERROR_MESSAGE_ATTEMPT"),
            CooldownError,
            "kodmobi_async.CooldownError",
            429,
            "refused",
        ),
    ],
)
async def test_a_call_that_raises_is_an_error_with_its_type(
    emulator: Emulator,
    client: KodmobiClient,
    traced: Traced,
    session: str,
    *,
    fault: Fault,
    raised: type[KodmobiError],
    error_type: str,
    status: int | None,
    outcome: str,
) -> None:
    emulator.script(fault, times=9)
    emulator.script(Fault.answer(500), times=9, endpoint="channels")
    with pytest.raises(raised):
        await client.send(session, "sms")
    span = traced.only
    assert failed(span)
    found = attributes(span)
    assert found["error.type"] == error_type
    assert found.get("http.response.status_code") == status
    assert found["kodmobi.outcome"] == outcome


async def test_a_service_that_cannot_be_reached_is_an_error_by_its_class(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    await emulator.aclose()
    with pytest.raises(TransportError):
        await client.send(session, "sms")
    assert failed(traced.only)
    assert attributes(traced.only)["error.type"] == "kodmobi_async.TransportError"
    assert "http.response.status_code" not in attributes(traced.only)


async def test_a_closed_gate_is_an_error_by_its_class(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.answer(429, {"Retry-After": "3600"}))
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            await client.send(session, "sms")
    asked, held_back = traced.spans
    assert attributes(asked)["error.type"] == "429"
    assert attributes(held_back)["error.type"] == "kodmobi_async.RateLimitedError"
    assert events(held_back) == []


async def test_a_foreign_exception_is_an_error_by_its_full_name(
    emulator: Emulator, traced: Traced, session: str
) -> None:
    raised: list[Exception] = [LookupError("gone"), HomeMadeError("gone")]

    class Broken(MemoryCooldownTracker):
        async def acquire(self, *_: Any, **__: Any) -> Any:
            raise raised.pop(0)

    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, hooks=[traced.hook], cooldowns=Broken()
    ) as client:
        for _ in range(2):
            with pytest.raises((LookupError, HomeMadeError)):
                await client.send(session, "sms")
    assert [attributes(span)["error.type"] for span in traced.spans] == [
        "LookupError",
        f"{__name__}.HomeMadeError",
    ]


class HomeMadeError(Exception):
    pass


# -- no span is left behind --------------------------------------------------------------------------------------------


async def test_a_call_cancelled_after_any_turn_of_the_loop_ends_its_span(emulator: Emulator, traced: Traced) -> None:
    turns = 0
    async for turns in cancelled_sends(emulator, traced.hook):
        assert traced.open == 0
        assert len(traced.spans) == turns
    *cancelled, sent = traced.spans
    assert unset(sent)
    assert len(cancelled) > 5
    for span in cancelled:
        assert failed(span)
        assert attributes(span)["error.type"] == "asyncio.exceptions.CancelledError"
    assert {attributes(span)["kodmobi.outcome"] for span in cancelled} >= {"not_sent", "unknown"}


async def test_a_call_that_closing_ends_ends_its_span(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.silence())
    task = asyncio.create_task(client.send(session, "sms"))
    await asyncio.sleep(1)
    await client.aclose()
    assert attributes(traced.only)["error.type"] == "kodmobi_async.ClientClosedError"
    assert attributes(traced.only)["kodmobi.outcome"] == "unknown"
    with pytest.raises(ClientClosedError):
        await task


async def test_a_call_whose_beginning_was_kept_from_the_hook_leaves_nothing(
    emulator: Emulator, traced: Traced, session: str
) -> None:
    def late(record: Record, /) -> None:
        if not isinstance(record, SendStarted):
            traced.hook(record)

    emulator.script(Fault.answer(503))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[late]) as client:
        await client.send(session, "sms")
    assert traced.spans == ()
    assert traced.open == 0


async def test_a_question_for_the_channels_has_its_own_span(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    emulator.script(Fault.answer(429), endpoint="channels")
    with traced.provider.get_tracer("mine").start_as_current_span("mine"):
        await client.channels(session)
    asking, mine = traced.spans
    assert (asking.name, mine.name) == ("GET", "mine")
    found = attributes(asking)
    assert (found["http.request.method"], found["kodmobi.call"]) == ("GET", "channels")
    assert found["url.full"] == f"{emulator.base_url}/channels"
    assert "kodmobi.channel" not in found


# -- context -----------------------------------------------------------------------------------------------------------


async def test_a_span_is_the_child_of_the_one_that_is_current_where_send_is_awaited(
    emulator: Emulator, client: KodmobiClient, traced: Traced
) -> None:
    tracer = traced.provider.get_tracer("mine")
    parents: dict[str, int] = {}

    async def one(channel: str) -> None:
        with tracer.start_as_current_span("login") as login:
            parents[channel] = login.get_span_context().span_id
            await client.send(session, channel)
            assert trace.get_current_span() is login

    session = emulator.add_session()
    emulator.script(Fault.answer(503), times=3)
    await asyncio.gather(*(one(channel) for channel in ("sms", "email", "telegram")))
    ours = [span for span in traced.spans if span.name == "POST"]
    assert len(ours) == 3
    for span in ours:
        assert span.parent is not None
        assert span.parent.span_id == parents[attributes(span)["kodmobi.channel"]]


async def test_without_a_current_span_it_is_a_root(client: KodmobiClient, traced: Traced, session: str) -> None:
    await client.send(session, "sms")
    assert traced.only.parent is None


# -- secrets, and what is no provider ----------------------------------------------------------------------------------


async def test_no_span_names_the_session_or_the_key_or_repeats_the_service(
    emulator: Emulator, client: KodmobiClient, traced: Traced, session: str
) -> None:
    body = {"message": f"no {session}, says {emulator.api_key}", "sys_message": session}
    emulator.script(Fault.answer(503, body=body), times=2)
    emulator.script(Fault.answer(404, body=body))
    with pytest.raises(KodmobiError):
        await client.send(session, "sms")
    shown = traced.only.to_json()
    assert session not in shown
    assert session[-4:] not in shown
    assert emulator.api_key not in shown


async def test_by_default_the_global_provider_counts(emulator: Emulator, session: str) -> None:
    # none is set in these tests, so this traces into the void
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[OpenTelemetryHook()]) as client:
        await client.send(session, "sms")


@pytest.mark.parametrize("provider", ["global", 5, trace, TracerProvider])
def test_what_is_no_provider_is_refused(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match="OpenTelemetryHook takes a TracerProvider, not"):
        OpenTelemetryHook(provider)
