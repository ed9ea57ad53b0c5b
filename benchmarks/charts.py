"""Charts of a run, as SVG, readable on white and on black."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from benchmarks.contestants import BASE, CONTESTANTS, OURS
from benchmarks.figures import plain

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.scale import Scale
    from benchmarks.send import Comparison, Figure

# Contrast of 4.5 or more on white and 4 or more on GitHub's black.
TEXT: Final = "#737b85"
BAR: Final = "#9aa4b0"
REFERENCE: Final = "#737b85"
HIGHLIGHT: Final = "#0f9d6b"
SHADES: Final = (1.0, 0.7, 0.45)


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
    figures = [figure for figure in comparison.figures if (figure.loop, figure.concurrency) == (loop, concurrency)]
    figures.sort(key=lambda figure: figure.ratio.median)
    canvas, axes = pyplot.subplots(figsize=(8.6, 0.36 * len(figures) + 1.35))
    longest = max(figure.ratio.high for figure in figures)
    for row, figure in enumerate(figures):
        _bar(axes, row, figure, longest)
    # from the bare call downwards: above it the line would run through the numbers
    bare = next(row for row, figure in enumerate(figures) if figure.contestant == BASE)
    axes.plot([1.0, 1.0], [bare, len(figures) - 0.4], color=REFERENCE, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.12)
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
        f" {figures[0].rounds} matches, lines from the lowest to the highest.\n"
        f"{environment.date}, {environment.python}, aiohttp {environment.versions['aiohttp']}. Shorter is better.",
        fontsize=8.5,
        ha="left",
        va="bottom",
    )
    canvas.subplots_adjust(
        left=0.245, right=0.99, top=1 - 0.45 / canvas.get_figheight(), bottom=0.62 / canvas.get_figheight()
    )
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


def draw_scale(scale: Scale, path: Path) -> None:
    """Draw the cost of a call over the calls at a time, a line for each time that the server takes."""
    pyplot = _pyplot()
    canvas, axes = pyplot.subplots(figsize=(8.6, 4.2))
    delays = sorted({point.delay for point in scale.points})
    for name, style in ((OURS, "-"), (BASE, (0, (3, 2)))):
        for delay, shade in zip(delays, SHADES, strict=True):
            points = [point for point in scale.points if (point.contestant, point.delay) == (name, delay)]
            axes.plot(
                [point.concurrency for point in points],
                [point.ratio.median for point in points],
                color=HIGHLIGHT if name == OURS else BAR,
                alpha=shade,
                linestyle=style,
                linewidth=2.0,
                marker="o",
                markersize=4,
                label=f"{CONTESTANTS[name].label}, server takes {delay} ms",
            )
    widths = sorted({point.concurrency for point in scale.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests at a time")
    axes.grid(axis="y", color=TEXT, alpha=0.25, linewidth=0.7)
    axes.tick_params(length=0)
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=TEXT, ncols=2, loc="upper right")
    canvas.suptitle(
        "Client CPU of one request; 1 = a bare aiohttp call, 64 at a time, no delay", x=0.02, ha="left", weight="bold"
    )
    environment = scale.environment
    canvas.text(
        0.02,
        0.02,
        f"{scale.loop}, medians. {environment.date}, {environment.python}, aiohttp {environment.versions['aiohttp']}.\n"
        "Between few calls to a slow server the process sleeps, and each wake-up costs any client more.",
        fontsize=8.5,
    )
    canvas.subplots_adjust(left=0.06, right=0.985, top=0.9, bottom=0.225)
    _save(canvas, path)
    pyplot.close(canvas)
