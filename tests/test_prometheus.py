"""The hook for prometheus_client: how it registers, many processes, and the dashboard that is drawn from it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.parser import text_string_to_metric_families

import kodmobi_async
from kodmobi_async import ConfigurationError, KodmobiClient
from kodmobi_async.integrations._metrics import _ERROR_TYPES, INSTRUMENTS, Kind
from kodmobi_async.integrations.prometheus import _LABELS, PrometheusMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kodmobi_async.emulator import Emulator

DASHBOARD = Path(__file__).parents[1] / "examples" / "dashboards" / "prometheus.json"


def names(registry: CollectorRegistry) -> set[str]:
    """Return the names of all metrics, as they are exported."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.endswith("_created")
    }


# -- registering -------------------------------------------------------------------------------------------------------


def test_all_metrics_are_registered_under_the_names_of_the_table() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    assert names(registry) == {instrument.prometheus for instrument in INSTRUMENTS}


def test_names_are_those_that_prometheus_asks_for() -> None:
    suffixes = {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_seconds", Kind.UP_DOWN_COUNTER: "_calls"}
    for instrument in INSTRUMENTS:
        assert re.fullmatch("kodmobi_client_[a-z_]+", instrument.prometheus)
        assert instrument.prometheus.endswith(suffixes[instrument.kind])


def test_by_default_the_global_registry_counts() -> None:
    code = """
import prometheus_client
from kodmobi_async.integrations.prometheus import PrometheusMetrics
PrometheusMetrics()
print(prometheus_client.generate_latest().decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8", timeout=60)
    assert "kodmobi_client_gate_closures_total 0.0" in done.stdout


def test_a_second_hook_on_one_registry_is_refused_and_the_first_goes_on() -> None:
    registry = CollectorRegistry()
    first = PrometheusMetrics(registry)
    with pytest.raises(ConfigurationError, match=r"give one PrometheusMetrics to all clients, or each a registry="):
        PrometheusMetrics(registry)
    first._gate_closures(1, ())
    assert registry.get_sample_value("kodmobi_client_gate_closures_total") == 1
    assert names(registry) == {instrument.prometheus for instrument in INSTRUMENTS}
    PrometheusMetrics(CollectorRegistry())


def test_a_registry_that_has_one_of_the_names_is_left_as_it_was() -> None:
    registry = CollectorRegistry()
    mine = Counter("kodmobi_client_gate_closures", "Mine.", registry=registry)
    with pytest.raises(ConfigurationError):
        PrometheusMetrics(registry)
    assert names(registry) == {"kodmobi_client_gate_closures_total"}
    registry.unregister(mine)
    PrometheusMetrics(registry)


@pytest.mark.parametrize("registry", [None, "default", prometheus_client, CollectorRegistry])
def test_what_is_no_registry_is_refused(registry: Any) -> None:
    with pytest.raises(ConfigurationError, match="PrometheusMetrics takes a CollectorRegistry, not"):
        PrometheusMetrics(registry)


async def test_durations_are_seconds_in_the_buckets_of_the_table(emulator: Emulator, session: str) -> None:
    registry = CollectorRegistry()
    async with KodmobiClient(
        emulator.api_key, base_url=emulator.base_url, hooks=[PrometheusMetrics(registry)]
    ) as client:
        await client.send(session, "sms")
        await client.send(session, "sms", max_wait=90.0)
    labels = {"call": "send", "outcome": "accepted"}
    total = registry.get_sample_value("kodmobi_client_call_duration_seconds_sum", labels)
    assert total == pytest.approx(60, abs=1)
    for bound, count in (("30.0", 1), ("120.0", 2), ("+Inf", 2)):
        name = "kodmobi_client_call_duration_seconds_bucket"
        assert registry.get_sample_value(name, {**labels, "le": bound}) == count


# -- many processes ----------------------------------------------------------------------------------------------------

WORKER = """
import asyncio, os, sys
from kodmobi_async import KodmobiClient
from kodmobi_async.integrations.prometheus import PrometheusMetrics

async def main(key, base_url, *sessions):
    async with KodmobiClient(key, base_url=base_url, hooks=[PrometheusMetrics()], max_wait=900.0) as client:
        for session in sessions:
            await client.send(session, "sms")
        waiting = asyncio.create_task(client.send(session, "sms"))
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.real_clock
async def test_counters_of_all_processes_add_up_and_so_do_the_calls_in_flight_of_those_that_live(
    emulator: Emulator, tmp_path: Path
) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    workers = []
    for number in (1, 2, 3):
        arguments = (emulator.api_key, emulator.base_url, *(emulator.add_session() for _ in range(number)))
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WORKER,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        workers.append(worker)
    for worker in workers:
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n"
    sent = {"call": "send", "channel": "sms", "outcome": "accepted", "error_type": ""}
    assert registry.get_sample_value("kodmobi_client_calls_total", sent) == 6
    durations = {"call": "send", "outcome": "accepted"}
    assert registry.get_sample_value("kodmobi_client_call_duration_seconds_count", durations) == 6
    assert registry.get_sample_value("kodmobi_client_active_calls", {"call": "send"}) == 3
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        await worker.wait()
    mark_process_dead(workers[0].pid, str(tmp_path))  # type: ignore[no-untyped-call]
    assert registry.get_sample_value("kodmobi_client_active_calls", {"call": "send"}) == 2
    assert registry.get_sample_value("kodmobi_client_calls_total", sent) == 6


# -- the dashboard -----------------------------------------------------------------------------------------------------


def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"), object_pairs_hook=no_name_twice)
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_the_dashboard_shows_every_metric_and_no_other(dashboard: dict[str, Any]) -> None:
    used = {name for expression in expressions(dashboard) for name in re.findall(r"kodmobi_client_\w+", expression)}
    exported = {
        name
        for instrument in INSTRUMENTS
        for name in (
            [f"{instrument.prometheus}_{suffix}" for suffix in ("bucket", "sum", "count")]
            if instrument.kind is Kind.HISTOGRAM
            else [instrument.prometheus]
        )
    }
    assert used <= exported
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} == {each.prometheus for each in INSTRUMENTS}
    (job,) = (each for each in dashboard["templating"]["list"] if each["name"] == "job")
    assert set(re.findall(r"kodmobi_client_\w+", job["query"]["query"])) <= exported


def test_the_dashboard_knows_only_labels_that_its_metrics_have(dashboard: dict[str, Any]) -> None:
    labels = {each.prometheus: {_LABELS[name] for name in each.attributes} for each in INSTRUMENTS}
    selections = 0
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            known = {"job"}
            for name, selection in re.findall(r"(kodmobi_client_\w+)\{([^}]*)\}", target["expr"]):
                selections += 1
                has = labels[re.sub("_(bucket|sum|count)$", "", name)]
                known |= has | ({"le"} if name.endswith("_bucket") else set())
                assert set(re.findall(r'(\w+)(?:=|!=|=~|!~)"', selection)) <= has | {"job"}
                for error_type in re.findall(r'error_type!?="([^"]+)"', selection):
                    assert error_type in _ERROR_TYPES.values()
                for outcome in re.findall(r'outcome!?="([^"]+)"', selection):
                    assert outcome in set(kodmobi_async.Outcome)
            by = {label for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
            assert by <= known
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= by
    assert selections >= len(INSTRUMENTS)


def test_the_dashboard_is_one_that_grafana_takes(dashboard: dict[str, Any]) -> None:
    assert {"title", "uid", "panels", "schemaVersion", "templating", "time"} <= dashboard.keys()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
        assert panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}
    for expression in expressions(dashboard):
        assert expression.count("(") == expression.count(")")
        assert set(re.findall(r"\$\w+", expression)) <= {"$job", "$__rate_interval"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job"]
