"""The hook that measures with OpenTelemetry.

Counters are observable ones: their sums are kept here, by attributes, and read when they are exported. Each measurement
of a synchronous counter would take OpenTelemetry's SDK a quarter of the time of a send. Histograms have no observable
form.

A provider takes the callback of an observable instrument once. So all hooks of one provider share their sums.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from kodmobi_async._values.errors import ConfigurationError
from kodmobi_async._version import __version__
from kodmobi_async.integrations._metrics import Instrument, Kind, Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider
    from opentelemetry.util.types import AttributeValue

    from kodmobi_async.integrations._metrics import Key, Measure

# The first version in which all attributes used here have the meaning that they have today.
SCHEMA: Final = "https://opentelemetry.io/schemas/1.23.1"


class OpenTelemetryMetrics(Metrics):
    """Measure what a client does. One hook may serve several clients.

    Args:
        meter_provider: By default the global one.

    Raises:
        ConfigurationError: This is no meter provider.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        if meter_provider is not None and not isinstance(meter_provider, metrics.MeterProvider):  # pyright: ignore[reportUnnecessaryIsInstance] not everyone uses a checker
            raise ConfigurationError(f"OpenTelemetryMetrics takes a MeterProvider, not {type(meter_provider).__name__}")
        meter = metrics.get_meter("kodmobi_async", __version__, meter_provider, SCHEMA)
        sums = _sums_of(meter_provider)

        def build(instrument: Instrument) -> Measure:
            name, unit, description = instrument.name, instrument.unit, instrument.description
            if instrument.kind is Kind.HISTOGRAM:
                buckets = instrument.buckets
                histogram = meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)
                return _recording(histogram, instrument)
            known = sums.get(name)
            if known is None:
                known = sums[name] = _Sums(instrument)
                if instrument.kind is Kind.COUNTER:
                    meter.create_observable_counter(name, [known.observe], unit, description)
                else:
                    meter.create_observable_up_down_counter(name, [known.observe], unit, description)
            return known.add

        super().__init__(build)


class _Sums:
    """What was counted, by attributes."""

    __slots__ = ("_instrument", "_lock", "_sums")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._lock = threading.Lock()  # clients may be of several threads, and exporters are
        self._sums: dict[Key, float] = {}

    def add(self, amount: float, key: Key) -> None:
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + amount

    def observe(self, _: CallbackOptions) -> list[Observation]:
        with self._lock:
            sums = list(self._sums.items())
        return [Observation(amount, _attributes(self._instrument, key)) for key, amount in sums]


_SumsByName: TypeAlias = dict[str, _Sums]
_global_sums: Final[_SumsByName] = {}
_sums_by_provider: Final[WeakKeyDictionary[MeterProvider, _SumsByName]] = WeakKeyDictionary()


def _sums_of(provider: MeterProvider | None) -> _SumsByName:
    """Return what the hooks of a provider share; the global one may be set later than the hook is built."""
    if provider is None or provider is metrics.get_meter_provider():
        return _global_sums
    return _sums_by_provider.setdefault(provider, {})


def _recording(histogram: Histogram, instrument: Instrument) -> Measure:
    known: dict[Key, Mapping[str, AttributeValue]] = {}

    def record(amount: float, key: Key) -> None:
        attributes = known.get(key)
        if attributes is None:
            attributes = known[key] = _attributes(instrument, key)
        histogram.record(amount, attributes)

    return record


def _attributes(instrument: Instrument, key: Key) -> dict[str, AttributeValue]:
    return {name: value for name, value in zip(instrument.attributes, key, strict=True) if value is not None}
