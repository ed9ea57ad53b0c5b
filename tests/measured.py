"""The hooks that measure, each with something to read what it has measured, in the same terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from kodmobi_async.integrations._metrics import INSTRUMENTS, Instrument, Kind
from kodmobi_async.integrations.opentelemetry import OpenTelemetryHook, OpenTelemetryMetrics
from kodmobi_async.integrations.prometheus import _LABELS, PrometheusMetrics

if TYPE_CHECKING:
    from kodmobi_async import Hook

Series: TypeAlias = dict[tuple[str, ...], float]
"""By the values of an instrument's attributes, "" for none: the sum, or a histogram's number of measurements."""


class Measured(Protocol):
    """A hook, and what it has measured."""

    hook: Hook

    def read(self, instrument: Instrument) -> Series:
        """Return all series of an instrument that are not 0."""
        ...

    def shown(self) -> str:
        """Return all that is exported but for the numbers, as text."""
        ...


class Traced:
    """A hook that traces, and the spans that it has made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.hook = OpenTelemetryHook(self._provider)

    def shown(self) -> str:
        """Return all that is exported but for numbers of traces and times, as text."""
        return repr(
            [
                (
                    span.name,
                    dict(span.attributes or {}),
                    span.status.description,
                    [(each.name, dict(each.attributes or {})) for each in span.events],
                )
                for span in self._exporter.get_finished_spans()
            ]
        )


class ByOpenTelemetry:
    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.hook = OpenTelemetryMetrics(self.provider)

    def points(self) -> dict[str, tuple[Any, list[Any]]]:
        """Return what was exported by the instrument's name: the metric, and its data points."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: (metric, list(metric.data.data_points))
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def read(self, instrument: Instrument) -> Series:
        _, points = self.points().get(instrument.name, (None, []))
        found: Series = {}
        for point in points:
            attributes = dict(point.attributes)
            key = tuple(_text(attributes.pop(name, None)) for name in instrument.attributes)
            assert attributes == {}
            assert key not in found
            found[key] = point.count if instrument.kind is Kind.HISTOGRAM else point.value
        return {key: value for key, value in found.items() if value}

    def shown(self) -> str:
        return repr(
            [
                (name, metric.description, metric.unit, dict(point.attributes))
                for name, (metric, points) in self.points().items()
                for point in points
            ]
        )


class ByPrometheus:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.hook = PrometheusMetrics(self.registry)

    def read(self, instrument: Instrument) -> Series:
        name = instrument.prometheus + ("_count" if instrument.kind is Kind.HISTOGRAM else "")
        samples = [sample for metric in self.registry.collect() for sample in metric.samples if sample.name == name]
        labels = [_LABELS[attribute] for attribute in instrument.attributes]
        assert all(sample.labels.keys() == set(labels) for sample in samples)
        return {tuple(sample.labels[each] for each in labels): sample.value for sample in samples if sample.value}

    def shown(self) -> str:
        return repr(
            [
                (metric.name, metric.documentation, sample.name, sample.labels)
                for metric in self.registry.collect()
                for sample in metric.samples
            ]
        )


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def number_of_series(measured: Measured) -> int:
    return sum(len(measured.read(instrument)) for instrument in INSTRUMENTS)
