"""The benchmarks run and say what they claim to; how fast anything is, is not asserted here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kodmobi_async.testing import VirtualClockLoop

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (REPOSITORY / "benchmarks").is_dir(), reason="the benchmarks are not here")

INSTALLED = ("aiohttp", "ours", "tuned", "raw")
MISSING = "prelude_aiohttp"
CALLS = 30


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    out = tmp_path_factory.mktemp("benchmarks")
    command = [
        *(sys.executable, "-m", "benchmarks", "send", "--rounds", "2", "--calls", str(CALLS)),
        *("--concurrency", "1", "4", "--loops", "asyncio", "--contestants", *INSTALLED, MISSING, "--out", str(out)),
    ]
    # coverage would only slow them down: it looks at the package, which other tests walk through
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    done = subprocess.run(
        command, check=False, capture_output=True, encoding="utf-8", cwd=REPOSITORY, env=environment, timeout=120
    )
    assert (out / "send.json").exists(), done.stderr
    read: dict[str, Any] = json.loads((out / "send.json").read_text("utf-8"))
    return read, (out / "send.md").read_text("utf-8")


def test_every_contestant_that_is_installed_is_measured(outcome: tuple[dict[str, Any], str]) -> None:
    figures = outcome[0]["figures"]
    measured = {(figure["contestant"], figure["concurrency"]) for figure in figures}
    assert measured >= {(name, width) for name in INSTALLED for width in (1, 4)}
    assert len(measured) == len(figures)


def test_figures_are_in_order(outcome: tuple[dict[str, Any], str]) -> None:
    for figure in outcome[0]["figures"]:
        assert (figure["calls"], figure["rounds"], figure["loop"]) == (CALLS, 2, "asyncio")
        for name in ("cpu", "wall", "ratio"):
            assert 0 < figure[name]["low"] <= figure[name]["median"] <= figure[name]["high"]
        assert figure["server_share"] >= 0
        assert 0 <= figure["connections"] <= figure["concurrency"]


def test_what_is_left_out_is_said(outcome: tuple[dict[str, Any], str]) -> None:
    read, words = outcome
    measured = {figure["contestant"] for figure in read["figures"]}
    assert measured | read["left_out"].keys() == {*INSTALLED, MISSING}
    for reason in read["left_out"].values():
        assert reason.startswith("not installed: ")
        assert reason in words


def test_a_peer_that_costs_less_is_named(outcome: tuple[dict[str, Any], str]) -> None:
    read, words = outcome
    cpu = {(figure["contestant"], figure["concurrency"]): figure["ratio"]["median"] for figure in read["figures"]}
    (line,) = (line for line in words.splitlines() if line.startswith("- cheaper than kodmobi_async: "))
    cheaper = [f"asyncio {width}" for width in (1, 4) if cpu["aiohttp", width] < cpu["ours", width]]
    assert line.partition(": ")[2] == (f"aiohttp, bare call ({', '.join(cheaper)})" if cheaper else "no peer")


def test_versions_and_date_are_told(outcome: tuple[dict[str, Any], str]) -> None:
    environment = outcome[0]["environment"]
    assert environment["versions"].keys() >= {"aiohttp", "kodmobi_async", "orjson"}
    assert environment["date"] in outcome[1]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--contestants", "nobody"], ["--rounds", "0"], ["--concurrency", "0"], ["--seconds", "nan"]],
    ids=" ".join,
)
def test_a_wrong_argument_is_refused_before_anything_runs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.__main__ import main  # noqa: PLC0415 importable only here

    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("importable")
def test_bulk_runs_of_every_kind_are_measured() -> None:
    from benchmarks.bulk import KINDS, LONG_RUNS, measure_bulk  # noqa: PLC0415 importable only here

    costs = measure_bulk(rows=100, rate_rows=50, rounds=1)
    assert costs.rates.keys() == KINDS.keys()
    assert all(rate.cpu.median > 0 and rate.wall_ratio.median > 0 for rate in costs.rates.values())
    assert all(costs.callbacks[kind].cpu > 0 and costs.memory[kind].peak > 1 for kind in LONG_RUNS)
    assert all(words in costs.to_markdown() for words, _ in KINDS.values())


@pytest.mark.usefixtures("importable")
def test_the_documentation_shows_the_results() -> None:
    from benchmarks.readme import PAGE, insert, render  # noqa: PLC0415 importable only here

    text = PAGE.read_text("utf-8")
    assert insert(text, render()) == text, "python -m benchmarks.readme puts them there"


@pytest.mark.usefixtures("importable")
def test_a_busy_server_casts_doubt_on_a_figure() -> None:
    from benchmarks.send import Match, figure_of, is_doubtful  # noqa: PLC0415 importable only here
    from benchmarks.worker import Sample  # noqa: PLC0415 beside the other

    idle, busy = (
        Match([Sample(100, 50.0, 60.0, share, 0)], [Sample(100, 50.0, 60.0, 0.3, 0)] * 2) for share in (0.3, 0.95)
    )
    figures = [figure_of((name, "asyncio", 64), [idle, last]) for name in ("ours", "raw") for last in (idle, busy)]
    assert [figure.server_was_busy for figure in figures] == [False, True, False, True]
    assert [is_doubtful(figure) for figure in figures] == [False, True, False, False]


@pytest.mark.usefixtures("importable")
def test_a_turn_is_compared_with_the_bare_calls_right_before_and_after_it() -> None:
    from benchmarks.send import Match, figure_of  # noqa: PLC0415 importable only here
    from benchmarks.worker import Sample  # noqa: PLC0415 beside the other

    def turns(*cpu: float) -> list[Sample]:
        return [Sample(100, each, each, 0.3, 0) for each in cpu]

    # the machine got slower between the first turn and the second, and was disturbed in the third
    slower = Match(turns(50.0, 100.0, 900.0), turns(100.0, 100.0, 300.0, 300.0))
    assert slower.ratio == 0.5
    even = Match(turns(60.0), turns(100.0, 100.0))
    figure = figure_of(("ours", "asyncio", 64), [slower, even, even])
    assert (figure.ratio.low, figure.ratio.median, figure.ratio.high) == (0.5, 0.6, 0.6)
    assert (figure.cpu.low, figure.cpu.median, figure.cpu.high) == (60.0, 60.0, 100.0)


@pytest.mark.usefixtures("importable")
def test_session_ids_are_different_ulids() -> None:
    from benchmarks.worker import session_ids  # noqa: PLC0415 importable only here
    from kodmobi_async._rules.requests import normalize_session_id  # noqa: PLC0415 beside the other

    ids = session_ids(1_000)
    assert len(set(ids)) == 1_000
    assert [normalize_session_id(each) for each in ids] == ids


@pytest.mark.usefixtures("importable")
def test_a_virtual_hour_keeps_only_what_is_alive() -> None:
    from benchmarks.scale import virtual_hour  # noqa: PLC0415 importable only here

    keys = virtual_hour(20_000)
    assert keys.expected == pytest.approx(20_000 / 60)
    assert keys.expected <= keys.most <= 1.1 * keys.expected


@pytest.mark.usefixtures("importable")
async def test_the_server_answers_requests_in_pieces_and_in_a_row() -> None:
    from benchmarks.server import serve  # noqa: PLC0415 importable only here

    assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(stop, port.set_result))
    reader, writer = await asyncio.open_connection("127.0.0.1", await port)
    body = b'{"session_id": "01K8N1VMPN0EE389K72YW0CBM9", "type": "sms"}'
    request = b"POST /200/session/send HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    began = asyncio.get_running_loop().time()
    for piece in (request[:30], request[30:90], request[90:] + request):
        writer.write(piece)
        await asyncio.sleep(0.01)
    for _ in range(2):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        assert answer["session_id"] == "01K8N1VMPN0EE389K72YW0CBM9"
        assert answer["channel"]["timeout"] == 60
    assert asyncio.get_running_loop().time() - began >= 0.2
    writer.write(b"POST /0/unheard-of HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
    writer.close()
    stop.set()
    await serving
