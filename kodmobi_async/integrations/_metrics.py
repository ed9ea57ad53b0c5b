"""What is measured of a client's work: the instruments, and from records to measurements.

`OpenTelemetryMetrics` and `PrometheusMetrics` are this, over two libraries. Both take their names, units and buckets
from the table of instruments below.

The number of series is bounded whatever callers pass and the service responds: a channel that the documentation does
not name, a status that HTTP does not, and an error of nobody's here count as ``_OTHER``. No attribute holds a session,
a recipient, a key or words of the service.
"""

from __future__ import annotations

import asyncio
import functools
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

import attrs

from kodmobi_async._values import errors as _errors
from kodmobi_async._values.channel import Channel
from kodmobi_async._values.errors import KodmobiError
from kodmobi_async._values.hooks import (
    AttemptFinished,
    CallFinished,
    CallStarted,
    CooldownHit,
    GateClosed,
    LimitsDegraded,
    TrackerDegraded,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kodmobi_async._values.hooks import Record

Key: TypeAlias = tuple[str | int | bool | None, ...]
"""The values of an instrument's attributes, in their order; ``None`` = it has none."""
Measure: TypeAlias = "Callable[[float, Key], None]"
"""Takes one measurement."""

OTHER: Final = "_OTHER"
"""OpenTelemetry's word for a value that is none of the known ones."""

_PORTS: Final = {"http": 80, "https": 443}
_SERVERS: Final = 64
_FIRST_ERROR: Final = 400
_STATUSES: Final = frozenset(map(int, HTTPStatus))
_CHANNELS: Final[dict[str | None, str | None]] = {None: None, **{channel.value: channel.value for channel in Channel}}
_ERROR_TYPES: Final[dict[type, str]] = {
    asyncio.CancelledError: "asyncio.exceptions.CancelledError",
    **{
        kind: f"kodmobi_async.{name}"
        for name, kind in vars(_errors).items()
        if isinstance(kind, type) and issubclass(kind, KodmobiError)
    },
}


class Kind(Enum):
    """How measurements of an instrument add up."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    HISTOGRAM = "histogram"


@attrs.frozen
class Instrument:
    """Something that is measured.

    Attributes:
        name: By OpenTelemetry's conventions.
        prometheus: By Prometheus's.
        kind: How measurements add up.
        unit: In UCUM, with annotations for what is counted.
        description: For people.
        attributes: What a measurement is told apart by.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    prometheus: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Source of the first name and its buckets:
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpclientrequestduration
REQUEST_DURATION: Final = Instrument(
    "http.client.request.duration",
    "kodmobi_client_request_duration_seconds",
    Kind.HISTOGRAM,
    "s",
    "Duration of HTTP client requests.",
    (
        "kodmobi.call",
        "kodmobi.outcome",
        "http.request.method",
        "server.address",
        "server.port",
        "http.response.status_code",
        "error.type",
    ),
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
CALLS: Final = Instrument(
    "kodmobi.client.calls",
    "kodmobi_client_calls_total",
    Kind.COUNTER,
    "{call}",
    "Calls that have ended, by what became of the code.",
    ("kodmobi.call", "kodmobi.channel", "kodmobi.outcome", "error.type"),
)
CALL_DURATION: Final = Instrument(
    "kodmobi.client.call.duration",
    "kodmobi_client_call_duration_seconds",
    Kind.HISTOGRAM,
    "s",
    "Duration of calls: retries, pauses and the wait for a cooldown included.",
    ("kodmobi.call", "kodmobi.outcome"),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
ACTIVE_CALLS: Final = Instrument(
    "kodmobi.client.active_calls",
    "kodmobi_client_active_calls",
    Kind.UP_DOWN_COUNTER,
    "{call}",
    "Calls in flight, those that wait for a cooldown included.",
    ("kodmobi.call",),
)
COOLDOWN_HITS: Final = Instrument(
    "kodmobi.client.cooldown_hits",
    "kodmobi_client_cooldown_hits_total",
    Kind.COUNTER,
    "{hit}",
    "Calls that met a channel's cooldown, and whether the service or the client said so.",
    ("kodmobi.call", "kodmobi.channel", "kodmobi.by_service"),
)
GATE_CLOSURES: Final = Instrument(
    "kodmobi.client.gate_closures",
    "kodmobi_client_gate_closures_total",
    Kind.COUNTER,
    "{closure}",
    "How often the service's limit of the account made the whole client hold back.",
)
DEGRADED_WINDOWS: Final = Instrument(
    "kodmobi.client.degraded_windows",
    "kodmobi_client_degraded_windows_total",
    Kind.COUNTER,
    "{window}",
    "Windows that were kept by this process alone, as the shared ones were unavailable.",
    ("kodmobi.call",),
)
DEGRADED_LIMITS: Final = Instrument(
    "kodmobi.client.degraded_limits",
    "kodmobi_client_degraded_limits_total",
    Kind.COUNTER,
    "{request}",
    "Requests that this process's share of the rate has admitted, as the shared limits were unavailable.",
    ("kodmobi.call",),
)
INSTRUMENTS: Final = (
    REQUEST_DURATION,
    CALLS,
    CALL_DURATION,
    ACTIVE_CALLS,
    COOLDOWN_HITS,
    GATE_CLOSURES,
    DEGRADED_WINDOWS,
    DEGRADED_LIMITS,
)


class Metrics:
    """A hook that measures what a client does.

    Args:
        build: Makes an instrument, and returns what takes its measurements.
    """

    def __init__(self, build: Callable[[Instrument], Measure]) -> None:
        measures = {instrument: build(instrument) for instrument in INSTRUMENTS}
        self._request_duration = measures[REQUEST_DURATION]
        self._calls = measures[CALLS]
        self._call_duration = measures[CALL_DURATION]
        self._active_calls = measures[ACTIVE_CALLS]
        self._cooldown_hits = measures[COOLDOWN_HITS]
        self._gate_closures = measures[GATE_CLOSURES]
        self._degraded_windows = measures[DEGRADED_WINDOWS]
        self._degraded_limits = measures[DEGRADED_LIMITS]
        self._in_flight: dict[int, tuple[str, str, int]] = {}

    def __call__(self, record: Record, /) -> None:
        """Measure what ``record`` says."""
        if isinstance(record, CallStarted):
            self._active_calls(1, (record.kind,))
            self._in_flight[record.call] = (record.method, *_server_of(record.url))
            return
        target = self._in_flight.get(record.call)
        if target is None:  # its beginning was kept from this hook
            return
        if isinstance(record, AttemptFinished):
            self._measure_request(record, target)
        elif isinstance(record, CallFinished):
            del self._in_flight[record.call]
            self._active_calls(-1, (record.kind,))
            outcome = record.outcome.value
            self._call_duration(record.duration, (record.kind, outcome))
            channel = _CHANNELS.get(record.channel, OTHER)
            self._calls(1, (record.kind, channel, outcome, _error_type(record.error)))
        elif isinstance(record, CooldownHit):
            channel = _CHANNELS.get(record.channel, OTHER)
            self._cooldown_hits(1, (record.kind, channel, record.by_service))
        elif isinstance(record, GateClosed):
            self._gate_closures(1, ())
        elif isinstance(record, TrackerDegraded):
            self._degraded_windows(1, (record.kind,))
        elif isinstance(record, LimitsDegraded):
            self._degraded_limits(1, (record.kind,))

    def _measure_request(self, record: AttemptFinished, target: tuple[str, str, int]) -> None:
        status = record.status
        error_type: str | None = None
        if status is None:
            error_type = record.phase.value
        elif status not in _STATUSES:
            status, error_type = None, OTHER
        elif status >= _FIRST_ERROR:
            error_type = str(status)
        self._request_duration(record.duration, (record.kind, record.outcome.value, *target, status, error_type))


def _error_type(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return next((_ERROR_TYPES[kind] for kind in type(error).__mro__ if kind in _ERROR_TYPES), OTHER)


@functools.lru_cache(_SERVERS)
def _server_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]
