"""``python -m benchmarks``: run all parts, or those that are named, and write what came of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import charts, loops
from benchmarks.bulk import measure_bulk
from benchmarks.contestants import BASE, CONTESTANTS
from benchmarks.costs import measure_costs
from benchmarks.fleet import measure_fleet
from benchmarks.processes import ContestantError
from benchmarks.scale import CONCURRENCIES, measure_scale
from benchmarks.send import Plan, compare
from benchmarks.worker import LONGEST_TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS: Final = Path(__file__).parent / "results"
CHART_CONCURRENCY: Final = 64
INSTRUCTED_CALLS: Final = 320
RATED_ROWS: Final = 20_000
FLEET_ROWS: Final = 50_000
ROUNDS: Final = {"send": 3, "scale": 3, "costs": 21, "bulk": 9, "fleet": 3}
KEYS: Final = (10_000, 100_000, 1_000_000, 10_000_000)


def send(options: argparse.Namespace) -> list[str]:
    """Compare contestants; return what makes the figures doubtful."""
    plan = Plan(
        contestants=tuple(dict.fromkeys([BASE, *options.contestants])),
        loops=tuple(options.loops),
        concurrencies=tuple(options.concurrency),
        rounds=options.rounds or ROUNDS["send"],
        turns=options.turns,
        seconds=options.seconds,
        calls=options.calls,
    )
    comparison = compare(plan)
    _write(options.out, "send.json", comparison.to_json())
    _write(options.out, "send.md", comparison.to_markdown())
    print(comparison.to_markdown())
    middle = CHART_CONCURRENCY if CHART_CONCURRENCY in plan.concurrencies else plan.concurrencies[-1]
    _draw(lambda: charts.draw_comparison(comparison, options.out / "send.svg", loop=plan.loops[0], concurrency=middle))
    return comparison.doubts()


def scale(options: argparse.Namespace) -> list[str]:
    """Measure how the cost of a send grows."""
    outcome = measure_scale(
        loop=options.loops[0],
        concurrencies=CONCURRENCIES,
        rounds=options.rounds or ROUNDS["scale"],
        seconds=options.seconds,
        keys=tuple(options.keys),
    )
    _write(options.out, "scale.json", outcome.to_json())
    _write(options.out, "scale.md", outcome.to_markdown())
    print(outcome.to_markdown())
    _draw(lambda: charts.draw_scale(outcome, options.out / "scale.svg"))
    return []


def costs(options: argparse.Namespace) -> list[str]:
    """Measure small operations, the import, and instructions."""
    outcome = measure_costs(import_rounds=options.rounds or ROUNDS["costs"], calls=INSTRUCTED_CALLS)
    _write(options.out, "costs.json", outcome.to_json())
    _write(options.out, "costs.md", outcome.to_markdown())
    print(outcome.to_markdown())
    return []


def bulk(options: argparse.Namespace) -> list[str]:
    """Measure runs of many sends."""
    rounds = options.rounds or ROUNDS["bulk"]
    outcome = measure_bulk(rows=options.rows, rate_rows=min(options.rows, RATED_ROWS), rounds=rounds)
    _write(options.out, "bulk.json", outcome.to_json())
    _write(options.out, "bulk.md", outcome.to_markdown())
    print(outcome.to_markdown())
    return []


def fleet(options: argparse.Namespace) -> list[str]:
    """Measure a fleet of workers."""
    outcome = measure_fleet(rows=min(options.rows, FLEET_ROWS), rounds=options.rounds or ROUNDS["fleet"])
    _write(options.out, "fleet.json", outcome.to_json())
    _write(options.out, "fleet.md", outcome.to_markdown())
    print(outcome.to_markdown())
    return []


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")


def _draw(drawing: Callable[[], None]) -> None:
    try:
        drawing()
    except ImportError:
        print("no chart was drawn: matplotlib is not installed", file=sys.stderr)


PARTS: Final[dict[str, Callable[[argparse.Namespace], list[str]]]] = {
    "send": send,
    "scale": scale,
    "costs": costs,
    "bulk": bulk,
    "fleet": fleet,
}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("it takes 1 or more")
    return value


def _duration(text: str) -> float:
    value = float(text)
    if not 0 < value < LONGEST_TURN:
        raise argparse.ArgumentTypeError("it takes a few seconds, or a part of one")
    return value


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--loops", nargs="+", choices=loops.LOOPS, default=list(loops.available()), metavar="LOOP")
    parser.add_argument("--concurrency", nargs="+", type=_positive, default=[1, 64, 512], metavar="N")
    defaults = ", ".join(f"{rounds} of `{part}`" for part, rounds in ROUNDS.items())
    parser.add_argument("--rounds", type=_positive, help=f"of every contestant (default: {defaults})")
    parser.add_argument("--turns", type=_positive, default=9, help="in a match of `send` (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=_duration, default=0.03, help="about so long is a turn (default: %(default)s)"
    )
    parser.add_argument("--calls", type=_positive, default=0, help="in a turn, instead of --seconds")
    parser.add_argument("--keys", nargs="+", type=_positive, default=list(KEYS), metavar="N", help="in a virtual hour")
    parser.add_argument("--rows", type=_positive, default=1_000_000, metavar="N", help="of the long bulk runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for what comes of it")
    options = parser.parse_args(argv)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return 1 if a figure cannot be trusted, or the bare call failed."""
    options = _arguments(argv)
    try:
        doubts = [doubt for part in options.parts or PARTS for doubt in PARTS[part](options)]
    except ContestantError as error:
        print(f"no comparison without it: {error}", file=sys.stderr)
        return 1
    for doubt in doubts:
        print(f"not to be trusted: {doubt}", file=sys.stderr)
    return 1 if doubts else 0


if __name__ == "__main__":
    sys.exit(main())
