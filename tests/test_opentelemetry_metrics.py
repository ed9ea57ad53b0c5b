"""The hook for OpenTelemetry's metrics: instruments, units and buckets as the conventions have them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from measured import ByOpenTelemetry
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from kodmobi_async import ConfigurationError, KodmobiClient, __version__
from kodmobi_async.integrations._metrics import CALLS, INSTRUMENTS
from kodmobi_async.integrations.opentelemetry import OpenTelemetryMetrics

if TYPE_CHECKING:
    from kodmobi_async.emulator import Emulator


async def test_instruments_have_the_units_and_buckets_that_the_conventions_ask_for(
    emulator: Emulator, session: str
) -> None:
    measured = ByOpenTelemetry()
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[measured.hook]) as client:
        await client.send(session, "sms")
    metric, (point,) = measured.points()["http.client.request.duration"]
    assert metric.unit == "s"
    # Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpclientrequestduration
    assert list(point.explicit_bounds) == [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
    assert 0 <= point.sum < 10
    assert dict(point.attributes) == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": emulator.port,
        "http.response.status_code": 200,
        "kodmobi.call": "send",
        "kodmobi.outcome": "accepted",
    }
    metric, (point,) = measured.points()["kodmobi.client.call.duration"]
    assert metric.unit == "s"
    assert list(point.explicit_bounds)[-1] == 120
    metric, (point,) = measured.points()["kodmobi.client.calls"]
    assert metric.unit == "{call}"
    assert dict(point.attributes) == {
        "kodmobi.call": "send",
        "kodmobi.channel": "sms",
        "kodmobi.outcome": "accepted",
    }


def test_names_are_below_one_root_or_the_conventions_own() -> None:
    for instrument in INSTRUMENTS:
        assert instrument.name.startswith("kodmobi.client.") or instrument.name == "http.client.request.duration"
        assert instrument.unit == "s" or instrument.unit[0] + instrument.unit[-1] == "{}"


async def test_the_scope_is_this_package(emulator: Emulator) -> None:
    reader = InMemoryMetricReader()
    hook = OpenTelemetryMetrics(MeterProvider([reader], shutdown_on_exit=False))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[hook]) as client:
        await client.channels()
    data = reader.get_metrics_data()
    assert data is not None
    scope = data.resource_metrics[0].scope_metrics[0].scope
    assert (scope.name, scope.version) == ("kodmobi_async", __version__)
    assert (scope.schema_url or "").startswith("https://opentelemetry.io/schemas/")


async def test_two_hooks_of_one_provider_add_up(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    measured = ByOpenTelemetry()
    for hook in (measured.hook, OpenTelemetryMetrics(measured.provider)):
        async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[hook]) as client:
            await client.channels()
    assert measured.read(CALLS) == {("channels", "", "accepted", ""): 2}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_by_default_the_global_provider_counts(emulator: Emulator) -> None:
    # none is set in these tests, so this measures into the void
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[OpenTelemetryMetrics()]) as client:
        await client.channels()


@pytest.mark.parametrize("provider", ["global", 5, metrics, MeterProvider])
def test_what_is_no_provider_is_refused(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match="OpenTelemetryMetrics takes a MeterProvider, not"):
        OpenTelemetryMetrics(provider)
