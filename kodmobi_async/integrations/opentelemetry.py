"""A hook that traces sends with OpenTelemetry (extra ``otel``).

    KodmobiClient(hooks=[OpenTelemetryHook()])

One client span a call, child of whatever span is current where ``send`` is awaited, and one event an attempt.
Attributes follow OpenTelemetry's semantic conventions for HTTP client spans; those that are this package's own begin
with ``kodmobi.``. No attribute holds a session id or the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import trace

from kodmobi_async._errors import Outcome, ResponseError
from kodmobi_async._hooks import AttemptFinished, CooldownHit, GateClosed, RetryScheduled, SendFinished, SendStarted
from kodmobi_async._version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from kodmobi_async._hooks import Record

__all__ = ("OpenTelemetryHook",)

_PORTS = {"http": 80, "https": 443}


class OpenTelemetryHook:
    """Trace what a client does.

    Args:
        tracer_provider: By default the global one.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("kodmobi_async", __version__, tracer_provider)
        self._spans: dict[int, Span] = {}

    def __call__(self, record: Record, /) -> None:
        """Start, annotate or end the span that ``record`` belongs to."""
        if isinstance(record, GateClosed):
            trace.get_current_span().add_event("kodmobi.gate_closed", {"kodmobi.seconds": record.seconds})
        elif isinstance(record, SendStarted):
            self._start(record)
        elif isinstance(record, SendFinished):
            span = self._spans.pop(record.call, None)
            if span is not None:
                _finish(span, record)
        else:
            span = self._spans.get(record.call)
            if span is not None:
                _annotate(span, record)

    def _start(self, record: SendStarted) -> None:
        url = urlsplit(record.url)
        self._spans[record.call] = self._tracer.start_span(
            "POST",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "http.request.method": "POST",
                "url.full": record.url,
                "server.address": url.hostname or "",
                "server.port": url.port or _PORTS.get(url.scheme, 0),
                "kodmobi.channel": str(record.channel),
            },
        )


def _annotate(span: Span, record: CooldownHit | AttemptFinished | RetryScheduled) -> None:
    attributes: dict[str, AttributeValue]
    match record:
        case CooldownHit():
            attributes = {"kodmobi.retry_after": record.retry_after, "kodmobi.by_service": record.by_service}
            span.add_event("kodmobi.cooldown_hit", attributes)
        case RetryScheduled():
            span.add_event("kodmobi.retry_scheduled", {"kodmobi.pause": record.pause})
        case AttemptFinished():
            attributes = {
                "http.request.resend_count": record.number - 1,
                "kodmobi.outcome": record.outcome.value,
                "kodmobi.phase": record.phase.value,
                "kodmobi.duration": record.duration,
            }
            if record.status is not None:
                attributes["http.response.status_code"] = record.status
                span.set_attribute("http.response.status_code", record.status)
            span.add_event("kodmobi.attempt", attributes)


def _finish(span: Span, record: SendFinished) -> None:
    span.set_attribute("kodmobi.outcome", record.outcome.value)
    span.set_attribute("kodmobi.confirmed", record.confirmed)
    if record.attempts > 1:
        span.set_attribute("http.request.resend_count", record.attempts - 1)
    failed = "cancelled" if record.cancelled else None
    if record.error is not None:
        failed = type(record.error).__name__
        if isinstance(record.error, ResponseError) and record.error.status is not None:
            failed = str(record.error.status)
    if failed is not None:
        span.set_attribute("error.type", failed)
    if failed is not None and record.outcome is not Outcome.ACCEPTED:
        span.set_status(trace.StatusCode.ERROR, failed)
    span.end()
