"""The hook for OpenTelemetry's metrics: instruments, units and buckets as the conventions have them."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest
from measured import ByOpenTelemetry
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from kodmobi_async import ConfigurationError, KodmobiClient, __version__
from kodmobi_async.emulator import Emulator
from kodmobi_async.integrations._metrics import ACTIVE_CALLS, CALLS, INSTRUMENTS
from kodmobi_async.integrations.opentelemetry import OpenTelemetryMetrics


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


async def test_without_a_provider_nothing_is_exported_and_nothing_breaks(emulator: Emulator) -> None:
    # no global one is set in these tests
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[OpenTelemetryMetrics()]) as client:
        await client.channels()


@pytest.mark.real_clock
async def test_hooks_built_before_and_after_the_global_provider_is_set_add_up(emulator: Emulator) -> None:
    code = """
import asyncio, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from kodmobi_async import KodmobiClient
from kodmobi_async.integrations.opentelemetry import OpenTelemetryMetrics

hooks = [OpenTelemetryMetrics()]
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
metrics.set_meter_provider(provider)
hooks += [OpenTelemetryMetrics(), OpenTelemetryMetrics(provider)]

async def main(key, base_url):
    for hook in hooks:
        async with KodmobiClient(key, base_url=base_url, hooks=[hook]) as client:
            await client.channels()

asyncio.run(main(*sys.argv[1:]))
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    for point in metric.data.data_points:
        print(metric.name, getattr(point, "count", getattr(point, "value", None)))
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, emulator.api_key, emulator.base_url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert sorted(out.decode().splitlines()) == [
        "http.client.request.duration 3",
        "kodmobi.client.active_calls 0",
        "kodmobi.client.call.duration 3",
        "kodmobi.client.calls 3",
    ]


async def test_sums_are_right_by_any_temporality_and_where_a_view_drops_attributes(emulator: Emulator) -> None:
    reader = InMemoryMetricReader({ObservableCounter: AggregationTemporality.DELTA})
    view = View(instrument_name="kodmobi.client.calls", attribute_keys={"kodmobi.call"})
    hook = OpenTelemetryMetrics(MeterProvider([reader], views=[view], shutdown_on_exit=False))
    async with KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[hook]) as client:
        for number in (1, 2, 3):
            for channel in ("sms", "email")[: min(number, 2)]:
                await client.send(emulator.add_session(), channel)
            data = reader.get_metrics_data()
            assert data is not None
            (calls,) = (
                metric
                for metric in data.resource_metrics[0].scope_metrics[0].metrics
                if metric.name == "kodmobi.client.calls"
            )
            points: list[Any] = list(calls.data.data_points)
            assert [(dict(point.attributes), point.value) for point in points] == [
                ({"kodmobi.call": "send"}, min(number, 2))
            ]


@pytest.mark.real_clock
async def test_clients_of_several_threads_add_up() -> None:
    measured = ByOpenTelemetry()

    async def send() -> None:
        async with (
            Emulator() as emulator,
            KodmobiClient(emulator.api_key, base_url=emulator.base_url, hooks=[measured.hook]) as client,
        ):
            await asyncio.gather(*(client.send(emulator.add_session(), "sms") for _ in range(200)))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, send()) for _ in range(3)))
    assert measured.read(CALLS) == {("send", "sms", "accepted", ""): 600}
    assert measured.read(ACTIVE_CALLS) == {}


@pytest.mark.parametrize("provider", ["global", 5, metrics, MeterProvider])
def test_what_is_no_provider_is_refused(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match="OpenTelemetryMetrics takes a MeterProvider, not"):
        OpenTelemetryMetrics(provider)
