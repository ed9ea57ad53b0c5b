"""``python -m benchmarks.readme``: put the results into the documentation, between the two marks of a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.bulk import KINDS
from benchmarks.contestants import CONTESTANTS
from benchmarks.environment import Environment
from benchmarks.figures import plain, table

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[1] / "docs" / "explanation" / "costs.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"


def render(results: Path = RESULTS) -> str:
    """Return the tables that stand in the page."""
    send, bulk = (_read(results / name) for name in ("send.json", "bulk.json"))
    return "\n".join(["", _calls(send), Environment(**send["environment"]).to_markdown(), _runs(bulk)])


def insert(text: str, tables: str) -> str:
    """Return a page with these tables in it."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, "the page has lost its marks"
    return f"{before}{BEGIN}{tables}\n{mark}{after}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _calls(send: Any) -> str:
    columns = [(loop, width) for loop in send["plan"]["loops"] for width in send["plan"]["concurrencies"]]
    ratios = {
        (figure["contestant"], figure["loop"], figure["concurrency"]): figure["ratio"]["median"]
        for figure in send["figures"]
    }
    middle = columns[0][0], 64
    names = sorted({name for name, *_ in ratios}, key=lambda name: ratios[name, *middle])
    return table(
        ["CPU of one call, calls at a time", *(f"{loop}, {width}" for loop, width in columns)],
        [[CONTESTANTS[name].label, *(f"{plain(ratios[name, *column])} ×" for column in columns)] for name in names],
    )


def _runs(bulk: Any) -> str:
    rates = table(
        [f"a send of many, {_count(bulk['rate_rows'])} of them", "CPU", "time", "beside"],
        [
            [
                KINDS[kind][0],
                f"{rate['cpu_ratio']['median']:.2f} ×",
                f"{rate['wall_ratio']['median']:.2f} ×",
                KINDS[KINDS[kind][1]][0],
            ]
            for kind, rate in bulk["rates"].items()
            if KINDS[kind][1] != kind
        ],
    )
    some = next(iter(bulk["memory"].values()))
    long, short = _count(some["rows"]), _count(some["shorter_rows"])
    memory = table(
        [f"{long} rows", f"peak memory, beside {short}", "longest callback of the loop"],
        [
            [
                KINDS[kind][0],
                f"{each['peak'] / each['shorter_peak']:.2f} × ({each['peak']:.0f} MiB)",
                f"{bulk['callbacks'][kind]['cpu']:.1f} ms",
            ]
            for kind, each in bulk["memory"].items()
        ],
    )
    return f"{rates}\n{memory}"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text("utf-8"), render()), "utf-8")
