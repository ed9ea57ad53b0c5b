"""Hooks that trace and measure calls with OpenTelemetry (extra ``otel``).

    KodmobiClient(hooks=[OpenTelemetryHook(), OpenTelemetryMetrics()])

**Traces.** One client span a call, child of whatever span is current where the call is awaited, and one event an
attempt. A call that the cooldown holds back has its span, too, without an attempt.

The span follows OpenTelemetry's semantic conventions for HTTP client spans, in their form of one span for the whole
operation: ``http.response.status_code`` is the last attempt's, ``http.request.resend_count`` says how many followed the
first. An attempt that fails and is made good is no error of the span. Where the call raises, ``error.type`` is the
status, if the error stands for one, or else the name of what is raised, such as ``kodmobi_async.TransportError`` or
``asyncio.exceptions.CancelledError``. What is this package's own begins with ``kodmobi.``.

Every request of the call carries the trace context (``traceparent`` and ``tracestate``), and nothing else of it: no
baggage, which may hold anything, as the service is another party.

**Metrics.** By the conventions for HTTP, and under names of their own:

- ``http.client.request.duration``, a histogram in seconds, one measurement an attempt, by ``http.request.method``,
  ``server.address``, ``server.port``, ``http.response.status_code``, ``error.type``, ``kodmobi.call`` and
  ``kodmobi.outcome``. Here ``error.type`` is the status, or how far an attempt without a response came: ``written`` or
  ``not_written``.
- ``kodmobi.client.calls``, a counter, by ``kodmobi.call``, ``kodmobi.channel``, ``kodmobi.outcome`` and ``error.type``,
  which is the name of what the call raises.
- ``kodmobi.client.call.duration``, a histogram in seconds, by ``kodmobi.call`` and ``kodmobi.outcome``.
- ``kodmobi.client.active_calls``, an up-down counter, by ``kodmobi.call``: the calls in flight.
- ``kodmobi.client.cooldown_hits``, a counter, by ``kodmobi.call``, ``kodmobi.channel`` and ``kodmobi.by_service``.
- ``kodmobi.client.gate_closures``, a counter.
- ``kodmobi.client.degraded_windows``, a counter, by ``kodmobi.call``.

A channel, a status or an error that is none of the known ones is ``_OTHER``, so that nobody can make up series. The
questions that follow a lost response are no attempts, and are not measured.

No attribute holds a session id, a recipient, the key, or words of the service.

Sources: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span and
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-client
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kodmobi_async._values.errors import ConfigurationError, KodmobiError, ResponseError
from kodmobi_async._values.hooks import (
    AttemptFinished,
    CallFinished,
    CallStarted,
    CooldownHit,
    GateClosed,
    LimitsDegraded,
    RetryScheduled,
    TrackerDegraded,
)
from kodmobi_async._version import __version__
from kodmobi_async.integrations._opentelemetry_metrics import SCHEMA, OpenTelemetryMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from kodmobi_async._values.hooks import Record

__all__ = ("OpenTelemetryHook", "OpenTelemetryMetrics")

_PORTS: Final = {"http": 80, "https": 443}
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()


class _CallSpan:
    """The span of one call, and what its last attempt was answered."""

    __slots__ = ("span", "status")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.status: int | None = None


class OpenTelemetryHook:
    """Trace what a client does. One hook may serve several clients.

    Args:
        tracer_provider: By default the global one.
        propagator: Writes the headers that requests carry the trace context in; by default those of W3C Trace Context.
            ``None`` = the service is told nothing of the trace.

    Raises:
        ConfigurationError: This is no tracer provider, or no propagator.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, propagator: TextMapPropagator | None = _TRACE_CONTEXT
    ) -> None:
        if tracer_provider is not None and not isinstance(tracer_provider, trace.TracerProvider):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError(f"OpenTelemetryHook takes a TracerProvider, not {type(tracer_provider).__name__}")
        self._tracer = trace.get_tracer("kodmobi_async", __version__, tracer_provider, SCHEMA)
        if propagator is not None and not isinstance(propagator, TextMapPropagator):  # pyright: ignore[reportUnnecessaryIsInstance] as above
            raise ConfigurationError(f"propagator takes a TextMapPropagator, not {type(propagator).__name__}")
        self._propagator = propagator
        self._calls: dict[int, _CallSpan] = {}

    def __call__(self, record: Record, /) -> None:
        """Start, annotate or end the span that ``record`` belongs to."""
        if isinstance(record, CallStarted):
            self._calls[record.call] = _CallSpan(self._start(record))
        elif isinstance(record, CallFinished):
            call = self._calls.pop(record.call, None)
            if call is not None:
                _finish(call, record)
        elif (call := self._calls.get(record.call)) is not None:
            _annotate(call, record)

    def request_headers(self, record: CallStarted, /) -> Mapping[str, str]:
        """Return the trace context of the call, with its span as the parent."""
        headers: dict[str, str] = {}
        call = self._calls.get(record.call)
        if call is not None and self._propagator is not None:
            self._propagator.inject(headers, trace.set_span_in_context(call.span))  # pyright: ignore[reportArgumentType] its default is typed for a wider mapping
        return headers

    def _start(self, record: CallStarted) -> Span:
        url = urlsplit(record.url)
        attributes: dict[str, AttributeValue] = {
            "http.request.method": record.method,
            "url.full": record.url,
            "server.address": url.hostname or "",
            "server.port": url.port or _PORTS[url.scheme],
            "kodmobi.call": record.kind,
        }
        if record.channel is not None:
            attributes["kodmobi.channel"] = str(record.channel)
        return self._tracer.start_span(record.method, kind=trace.SpanKind.CLIENT, attributes=attributes)


def _annotate(
    call: _CallSpan,
    record: CooldownHit | AttemptFinished | RetryScheduled | GateClosed | TrackerDegraded | LimitsDegraded,
) -> None:
    attributes: dict[str, AttributeValue]
    match record:
        case AttemptFinished():
            call.status = record.status
            attributes = {
                "kodmobi.outcome": record.outcome.value,
                "kodmobi.phase": record.phase.value,
                "kodmobi.duration": record.duration,
            }
            if record.number > 1:
                attributes["http.request.resend_count"] = record.number - 1
            if record.status is not None:
                attributes["http.response.status_code"] = record.status
            call.span.add_event("kodmobi.attempt", attributes)
        case RetryScheduled():
            call.span.add_event("kodmobi.retry_scheduled", {"kodmobi.pause": record.pause})
        case GateClosed():
            call.span.add_event("kodmobi.gate_closed", {"kodmobi.seconds": record.seconds})
        case TrackerDegraded():
            call.span.add_event("kodmobi.tracker_degraded", {"kodmobi.reason": record.reason})
        case LimitsDegraded():
            call.span.add_event("kodmobi.limits_degraded", {"kodmobi.reason": record.reason})
        case _:
            attributes = {"kodmobi.retry_after": record.retry_after, "kodmobi.by_service": record.by_service}
            call.span.add_event("kodmobi.cooldown_hit", attributes)


def _finish(call: _CallSpan, record: CallFinished) -> None:
    span = call.span
    span.set_attribute("kodmobi.outcome", record.outcome.value)
    span.set_attribute("kodmobi.confirmed", record.confirmed)
    if record.sent_to is not None:
        span.set_attribute("kodmobi.sent_to", str(record.sent_to))
    if call.status is not None:
        span.set_attribute("http.response.status_code", call.status)
    if record.attempts > 1:
        span.set_attribute("http.request.resend_count", record.attempts - 1)
    if record.error is not None:
        span.set_attribute("error.type", _type_of(record.error))
        span.set_status(trace.StatusCode.ERROR)  # no description: an error's message may name the session
    span.end()


def _type_of(error: BaseException) -> str:
    if isinstance(error, ResponseError) and error.status is not None:
        return str(error.status)
    kind = type(error)
    module = kind.__module__.partition(".")[0] if isinstance(error, KodmobiError) else kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
