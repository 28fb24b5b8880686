"""The charts: the book's three curves of one training, several trainings together, and accuracy against learning rate.

In:   curves and sweep points (`evaluation/metrics.py`).
Out:  `STEM.png` and `STEM.svg`, whole or not at all.

Figures are drawn on their own canvas under Matplotlib's default style: pyplot would choose a window system for the
user's whole process and keep every figure alive, and a notebook's style would change what a run folder holds.
"""

import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from relish.core.io import atomic_path
from relish.evaluation.metrics import CurvePoint, Curves, SweepPoint

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette, told apart under every common colour blindness; its yellow is too pale for a line."""
MARKERS = ("o", "s", "^", "D", "v")
"""A second difference beside colour; 5 markers over 7 colours make 35 pairs before one comes back."""
LOSS_CEILING = 2.5
"""A loss above this is cut by the chart's edge, since it would press the accuracies into a flat line."""

_STYLE = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in the name of a dataset is a dollar sign
    "svg.hashsalt": "relish",  # with the date left out, the same curves give the same file
}
_Measure = Callable[[CurvePoint], float | None]


def draw_curves(curves: Curves, stem: Path, *, title: str, scored_on: str = "test") -> tuple[Path, Path]:
    """Draw train loss, train accuracy and held-out accuracy against epochs, as the book's figure ends up.

    Args:
        curves: one training; points without a finite value are left out of that line.
        stem: path without suffix.
        title: one line above the chart.
        scored_on: the split of the held-out accuracy, for the legend.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        WriteFailed: no space or no permission.
    """
    with _chart((7.0, 4.4)) as (figure, axes):
        _line(axes, curves, lambda p: p.loss, "train loss", color=COLOURS[0])
        _line(axes, curves, lambda p: p.train_accuracy, "train accuracy", color=COLOURS[3], linestyle="--")
        name = f"{scored_on} accuracy"
        _line(axes, curves, lambda p: p.test_accuracy, name, color=COLOURS[2], linestyle="-.", marker="o")
        _epoch_axis(axes, curves)
        highest = max((y for _, y in _xy(curves, lambda p: p.loss)), default=0.0)
        axes.set_ylim(0, max(1.0, min(highest, LOSS_CEILING)) * 1.04)
        _title(axes, title, pad=12 if highest <= LOSS_CEILING else 24)
        if highest > LOSS_CEILING:
            _note_cut_loss(axes, highest)
        _legend_beside(axes)
        return _save(figure, stem)


def draw_comparison(
    curves_by_name: Mapping[str, Curves], stem: Path, *, title: str = "", scored_on: str = "test"
) -> tuple[Path, Path]:
    """Draw the accuracies of several trainings on one chart: a colour each, solid held-out, dashed training.

    Args:
        curves_by_name: one training each, by the name for the legend, in the order of the legend.
        stem: path without suffix.
        title: one line above the chart.
        scored_on: the split of the held-out accuracy, for the legend.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        WriteFailed: no space or no permission.
    """
    with _chart((8.4, 4.8)) as (figure, axes):
        for (name, curves), (colour, marker) in zip(curves_by_name.items(), _looks(), strict=False):
            _line(axes, curves, lambda p: p.train_accuracy, "", color=colour, linestyle="--", linewidth=1.4, alpha=0.8)
            _line(axes, curves, lambda p: p.test_accuracy, name, color=colour, marker=marker)
        everything = [point for curves in curves_by_name.values() for point in curves]
        _epoch_axis(axes, everything)
        seen = [*_xy(everything, lambda p: p.train_accuracy), *_xy(everything, lambda p: p.test_accuracy)]
        lowest = min((y for _, y in seen), default=0.0)
        floor = max(0.0, math.floor(lowest * 20) / 20 - 0.02)
        axes.set_ylim(floor, 1.0 + (1.0 - floor) * 0.02)
        axes.set_ylabel("accuracy")
        _title(axes, title, pad=12)
        _legend_beside(
            axes,
            Line2D([], [], color="#555555", label=f"{scored_on} accuracy"),
            Line2D([], [], color="#555555", linestyle="--", linewidth=1.4, label="train accuracy"),
        )
        return _save(figure, stem)


def draw_sweep(
    points_by_recipe: Mapping[str, Sequence[SweepPoint]],
    stem: Path,
    *,
    title: str = "",
    scored_on: str = "validation",
) -> tuple[Path, Path]:
    """Draw accuracy against learning rate with 95% intervals; a diverged run is a cross on the chart's floor.

    Args:
        points_by_recipe: the points of each recipe, in any order.
        stem: path without suffix.
        title: one line above the chart.
        scored_on: the split of the accuracies, for the axis.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        WriteFailed: no space or no permission.
    """
    with _chart((8.4, 4.8)) as (figure, axes):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda rate, _: f"{rate:.0e}".replace("e-0", "e-").replace("e+0", "e"))
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        floor = _sweep_floor(points_by_recipe)
        for position, (name, points) in enumerate(points_by_recipe.items()):
            # Moved aside by a few hundredths of a decade, so that recipes at the same rate do not hide each other.
            aside = 10 ** (0.09 * (position - (len(points_by_recipe) - 1) / 2))
            colour, marker = next(islice(_looks(), position, None))
            _sweep_line(axes, sorted(points, key=lambda p: p.learning_rate), aside, floor, _words(name), colour, marker)
        rates = [point.learning_rate for points in points_by_recipe.values() for point in points] or [1e-5, 1e-1]
        axes.set_xlim(min(rates) / 1.7, max(rates) * 1.7)
        rates = [point.learning_rate for points in points_by_recipe.values() for point in points]
        if rates:
            axes.set_xlim(min(rates) / 2, max(rates) * 2)  # has room even where there is one rate alone
        axes.set_ylim(floor - 0.02, 1.01)
        axes.set_xlabel("learning rate")
        axes.set_ylabel(f"{scored_on} accuracy, 95% interval")
        _title(axes, title, pad=12)
        diverged = any(point.diverged for points in points_by_recipe.values() for point in points)
        cross = Line2D([], [], color="#555555", marker="X", linestyle="", markersize=8, label="diverged")
        _legend_beside(axes, *([cross] if diverged else []))
        return _save(figure, stem)


@contextmanager
def _chart(inches: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; that is no reason to fill the screen with warnings.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def _save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    # Not with_suffix: a run may be called `lr-1e-0.5`.
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    with atomic_path(svg) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    return png, svg


def _xy(curves: Sequence[CurvePoint], measure: _Measure) -> list[tuple[float, float]]:
    pairs = ((point.epoch, measure(point)) for point in curves)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def _line(axes: Axes, curves: Curves, measure: _Measure, label: str, **look: str | float) -> None:
    points = _xy(curves, measure)
    if not points:
        return
    if len(points) == 1:
        look.setdefault("marker", "o")  # a line of one point cannot be seen
    (line,) = axes.plot([x for x, _ in points], [y for _, y in points], clip_on=True, **look)  # type: ignore[arg-type]
    line.set_label(_words(label) if label else "_")  # Matplotlib leaves a name that begins so out of the legend


def _words(name: str) -> str:
    """A name as the legend can show it: one that begins with `_` would be left out, a long one would eat the chart."""
    short = name if len(name) <= 32 else name[:31] + "…"
    return f" {short}" if short.startswith("_") else short


def _title(axes: Axes, words: str, pad: float) -> None:
    axes.set_title(textwrap.fill(words, 64, max_lines=2, placeholder=" …"), loc="left", pad=pad)


def _looks() -> Iterator[tuple[str, str]]:
    return zip(cycle(COLOURS), cycle(MARKERS), strict=False)


def _epoch_axis(axes: Axes, curves: Sequence[CurvePoint]) -> None:
    """Set the horizontal axis from 0; the book's begins at epoch 1, which hides the epoch in which most happens."""
    last = max((point.epoch for point in curves), default=1.0)
    axes.set_xlim(-last * 0.015, last * 1.015)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.set_xlabel("epoch")


def _note_cut_loss(axes: Axes, highest: float) -> None:
    words = f"▲ train loss goes up to {highest:.3g}, above this chart"
    axes.text(0, 1.01, words, transform=axes.transAxes, color=COLOURS[0], fontsize=10, va="bottom")


def _legend_beside(axes: Axes, *further: Line2D) -> None:
    """The legend stands outside, where it can cover no curve."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [*handles, *further]
    labels = [*labels, *(str(line.get_label()) for line in further)]
    if handles:
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=2.6)


def _sweep_floor(points_by_recipe: Mapping[str, Sequence[SweepPoint]]) -> float:
    lows = [p.accuracy.interval[0] for points in points_by_recipe.values() for p in points if p.accuracy is not None]
    return max(0.0, math.floor(min(lows, default=0.0) * 20 - 1) / 20)


def _sweep_line(
    axes: Axes, points: Sequence[SweepPoint], aside: float, floor: float, name: str, colour: str, marker: str
) -> ErrorbarContainer:
    done = [(point.learning_rate * aside, point.accuracy) for point in points if point.accuracy is not None]
    values = [accuracy.value for _, accuracy in done]
    # Rounding may put an end of the interval a last digit past the value; Matplotlib refuses negative lengths.
    below = [max(0.0, accuracy.value - accuracy.interval[0]) for _, accuracy in done]
    above = [max(0.0, accuracy.interval[1] - accuracy.value) for _, accuracy in done]
    lost = [point.learning_rate * aside for point in points if point.diverged]
    axes.plot(lost, [floor] * len(lost), color=colour, marker="X", linestyle="", markersize=8, label="_", clip_on=False)
    return axes.errorbar(
        [x for x, _ in done],
        values,
        yerr=[below, above],
        color=colour,
        marker=marker,
        capsize=3,
        elinewidth=1.2,
        label=name,
    )
