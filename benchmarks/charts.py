"""Charts of a run, as SVG, readable on white and on black."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from benchmarks.contestants import BASE, CONTESTANTS, OURS
from benchmarks.figures import plain

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.send import Comparison, Figure

# Contrast of 4.5 or more on white and 4 or more on GitHub's black.
TEXT: Final = "#737b85"
BAR: Final = "#9aa4b0"
REFERENCE: Final = "#737b85"
HIGHLIGHT: Final = "#0f9d6b"


def _pyplot() -> Any:
    """Return pyplot, set to draw the same file from the same numbers.

    Raises:
        ImportError: matplotlib is not installed.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    pyplot.rcParams.update(
        {
            "svg.hashsalt": "kodmobi_async",
            "font.size": 10.5,
            "text.color": TEXT,
            "axes.labelcolor": TEXT,
            "axes.edgecolor": TEXT,
            "xtick.color": TEXT,
            "ytick.color": TEXT,
        }
    )
    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    # trailing blanks are matplotlib's; no reader needs them
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text("utf-8").splitlines()), "utf-8")


def draw_comparison(comparison: Comparison, path: Path, *, loop: str, concurrency: int) -> None:
    """Draw what a call costs each contestant as a bar, cheapest first."""
    pyplot = _pyplot()
    figures = [
        figure for figure in comparison.figures if (figure.loop, figure.concurrency) == (loop, concurrency)
    ]
    figures.sort(key=lambda figure: figure.ratio.median)
    canvas, axes = pyplot.subplots(figsize=(8.6, 0.36 * len(figures) + 1.35))
    longest = max(figure.ratio.median for figure in figures)
    for row, figure in enumerate(figures):
        _bar(axes, row, figure, longest)
    axes.axvline(1.0, color=REFERENCE, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.16)
    axes.set_yticks(range(len(figures)), [CONTESTANTS[figure.contestant].label for figure in figures])
    for tick, figure in zip(axes.get_yticklabels(), figures, strict=True):
        if figure.contestant == OURS:
            tick.set_color(HIGHLIGHT)
            tick.set_fontweight("bold")
    axes.tick_params(axis="both", length=0)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    canvas.suptitle("Client CPU of one request, as a multiple of a bare aiohttp call", x=0.02, ha="left", weight="bold")
    environment = comparison.environment
    canvas.text(
        0.02,
        0.025,
        f"{concurrency} in flight on {loop}, against a loopback server in its own process; medians of"
        f" {figures[0].rounds} rounds, lines from the lowest to the highest.\n"
        f"{environment.date}, {environment.python}, aiohttp {environment.versions['aiohttp']}. Shorter is better.",
        fontsize=8.5,
        ha="left",
        va="bottom",
    )
    canvas.subplots_adjust(left=0.245, right=0.99, top=1 - 0.45 / canvas.get_figheight(), bottom=0.62 / canvas.get_figheight())
    _save(canvas, path)
    pyplot.close(canvas)


def _bar(axes: Any, row: int, figure: Figure, longest: float) -> None:
    ratio = figure.ratio
    color = {OURS: HIGHLIGHT, BASE: REFERENCE}.get(figure.contestant, BAR)
    axes.barh(row, ratio.median, height=0.66, color=color)
    axes.plot([ratio.low, ratio.high], [row, row], color=TEXT, linewidth=1.1, solid_capstyle="butt")
    axes.text(
        max(ratio.median, ratio.high) + longest * 0.012,
        row,
        f"{plain(ratio.median)} ×",
        va="center",
        color=HIGHLIGHT if figure.contestant == OURS else TEXT,
        weight="bold" if figure.contestant == OURS else "normal",
    )
