"""A hook that counts and times calls for Prometheus, with prometheus_client (extra ``prometheus``).

    KodmobiClient(hooks=[PrometheusMetrics()])

- ``kodmobi_client_calls_total``, a counter, by call, channel, outcome and error_type
- ``kodmobi_client_call_duration_seconds``, a histogram, by call and outcome
- ``kodmobi_client_request_duration_seconds``, a histogram, one observation an attempt, by call, outcome, method,
  server_address, server_port, status and error_type
- ``kodmobi_client_active_calls``, a gauge, by call
- ``kodmobi_client_cooldown_hits_total``, a counter, by call, channel and by_service
- ``kodmobi_client_gate_closures_total``, a counter
- ``kodmobi_client_degraded_windows_total``, a counter, by call

``call`` is the kind of call, such as ``send``, and ``outcome`` what became of the code. ``error_type`` is the name of
what a call raises; for an attempt, the status, or how far one without a response came: ``written`` or ``not_written``.
A label that does not apply is empty. A channel, a status or an error that is none of the known ones is ``_OTHER``, so
that nobody can make up series.

In prometheus_client's multi-process mode (``PROMETHEUS_MULTIPROC_DIR``), counters and histograms are those of all
processes, and the calls in flight are those of all that live.

Source of the naming: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async.integrations._metrics import Instrument, Kind, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async.integrations._metrics import Key, Measure

__all__ = ("PrometheusMetrics",)

_LABELS: Final = {
    "kodmobi.call": "call",
    "kodmobi.channel": "channel",
    "kodmobi.outcome": "outcome",
    "kodmobi.by_service": "by_service",
    "http.request.method": "method",
    "server.address": "server_address",
    "server.port": "server_port",
    "http.response.status_code": "status",
    "error.type": "error_type",
}


class PrometheusMetrics(Metrics):
    """Measure what a client does. One hook may serve several clients.

    Args:
        registry: Where the metrics are registered.

    Raises:
        ConfigurationError: This is no registry, or it has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        if not isinstance(registry, CollectorRegistry):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError(f"PrometheusMetrics takes a CollectorRegistry, not {type(registry).__name__}")
        registered: list[Counter | Gauge | Histogram] = []

        def build(instrument: Instrument) -> Measure:
            metric = _register(instrument, registry)
            registered.append(metric)
            return _measure(metric)

        try:
            super().__init__(build)
        except ValueError:
            for metric in registered:
                registry.unregister(metric)
            raise ConfigurationError(
                "the registry has metrics of kodmobi_async already: give one PrometheusMetrics to all clients, or each"
                " a registry= of its own"
            ) from None


def _register(instrument: Instrument, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    """Make the metric of an instrument.

    Raises:
        ValueError: The registry has one of this name.
    """
    name, labels = instrument.prometheus, [_LABELS[attribute] for attribute in instrument.attributes]
    if instrument.kind is Kind.COUNTER:
        return Counter(name, instrument.description, labels, registry=registry)
    if instrument.kind is Kind.HISTOGRAM:
        return Histogram(name, instrument.description, labels, registry=registry, buckets=instrument.buckets)
    return Gauge(name, instrument.description, labels, registry=registry, multiprocess_mode="livesum")


def _measure(metric: Counter | Gauge | Histogram) -> Measure:
    """Return what takes a metric's measurements, and finds each of its series once."""
    series: dict[Key, Callable[[float], None]] = {}

    def measure(amount: float, key: Key) -> None:
        found = series.get(key)
        if found is None:
            child = metric.labels(*map(_label, key)) if key else metric
            found = series[key] = child.observe if isinstance(child, Histogram) else child.inc
        found(amount)

    return measure


def _label(value: str | int | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
