"""Draw a chart as SVG: axes, lines, points, bars and error bars in a frame.

A `Chart` stands either in an HTML page (macro `chart` of `templates/chart.html`) or in a file of its own (`write_svg`).
Resting the pointer on a mark shows its tooltip. Colours are CSS classes of `templates/chart.css`, which has one set for
light and one for dark, so the same marks serve both.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from relish.core.io import write_text
from relish.reporting.page import render

WIDTH, HEIGHT = 440, 280
"""Default size of a chart, in its own pixels: text of 13 pixels stays readable where a phone shows it at 0.8."""
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 12, 44
"""Margins around the frame, in pixels."""
COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
"""CSS classes: Okabe and Ito's palette, told apart under every common colour blindness, without its pale yellow."""
MARKERS = {
    "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "m-3.5 -3.5h7v7h-7z",
    "triangle": "m0 -5l4.6 8.4h-9.2z",
    "diamond": "m0 -5l5 5l-5 5l-5 -5z",
    "cross": "m-4 -4l8 8m0 -8l-8 8",
}
"""Outlines, from the point that they mark."""
LEGEND_CELLS = 32
"""Longest label of a legend in a file, in character cells; the rest becomes an ellipsis."""
_CELL, _LINE, _TITLE_LINE, _TITLE_CELLS = 7.4, 20, 21, 56
"""In a file: width of a character cell, heights of a legend's and a title's line, in pixels; cells in a title line."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, linear or logarithmic, with labels at some values."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def fraction(self, value: float) -> float:
        """How far along the axis a value lies: 0 at `low`, 1 at `high`."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Line:
    """A line as an SVG path, in pixels."""

    path: str
    colour: str
    dashed: bool


@dataclass(frozen=True)
class Dot:
    """A marked point, in pixels."""

    x: float
    y: float
    colour: str
    tooltip: str
    marker: str = "circle"

    @property
    def path(self) -> str:
        """The outline as an SVG path."""
        return f"M{self.x} {self.y}{MARKERS[self.marker]}"


@dataclass(frozen=True)
class Bar:
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    tooltip: str


@dataclass(frozen=True)
class Key:
    """An entry of the legend: what a colour, a dash or a marker stands for."""

    label: str
    colour: str
    dashed: bool = False
    marker: str | None = None
    line: bool = True

    @property
    def marker_path(self) -> str:
        """The marker in the middle of a sample of 24 × 10 pixels; empty without one."""
        return f"M12 5{MARKERS[self.marker]}" if self.marker else ""


@dataclass
class Chart:
    """A frame and what is drawn in it.

    `name` is unique in its page; `summary` says in sentences what the chart shows; `note` is written above the frame.
    """

    name: str
    title: str
    summary: str
    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    note: str = ""
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    def add_line(self, points: Iterable[Point], colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points in the axes' units; what lies above or below the frame is cut off."""
        at = [(self.at_x(x), self.y.fraction(y)) for x, y in points]
        path = "".join(self._segment(a, b, follows=place > 0) for place, (a, b) in enumerate(pairwise(at)))
        if path:
            self.lines.append(Line(path, colour, dashed))

    def add_dot(self, point: Point, colour: str, tooltip: str, *, marker: str = "circle") -> None:
        """Mark a point."""
        self.dots.append(Dot(round(self.at_x(point[0]), 1), round(self.at_y(point[1]), 1), colour, tooltip, marker))

    def add_error_bar(self, x: float, low: float, high: float, colour: str) -> None:
        """Draw an upright interval with a cap at either end."""
        at, bottom, top = self.at_x(x), self.at_y(low), self.at_y(high)
        path = f"M{at - 4:.1f} {bottom:.1f}h8m-4 0V{top:.1f}m-4 0h8"
        self.lines.append(Line(path, colour, dashed=False))

    def add_bar(self, left: float, right: float, top: float, colour: str, tooltip: str) -> None:
        """Draw a bar that stands on the lower edge."""
        x, y = self.at_x(left), self.at_y(top)
        width, height = self.at_x(right) - x - 1, self.at_y(self.y.low) - y
        self.bars.append(Bar(round(x, 1), round(y, 1), round(width, 1), round(height, 1), colour, tooltip))

    def at_x(self, value: float) -> float:
        """Pixels from the left; a value outside the axis is drawn at its nearer end."""
        return LEFT + min(1.0, max(0.0, self.x.fraction(value))) * (self.width - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        """Pixels from the top; a value outside the axis is drawn at its nearer end."""
        return self._pixels_down(min(1.0, max(0.0, self.y.fraction(value))))

    @property
    def frame(self) -> dict[str, float]:
        """The chart's size and the frame's edges, in pixels."""
        edges = {"left": LEFT, "right": self.width - RIGHT, "top": TOP, "bottom": self.height - BOTTOM}
        return {"width": self.width, "height": self.height, **edges}

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Pixels from the left, and the label."""
        return [(round(self.at_x(value), 1), label) for value, label in self.x.ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Pixels from the top, and the label."""
        return [(round(self.at_y(value), 1), label) for value, label in self.y.ticks]

    def _pixels_down(self, fraction: float) -> float:
        return self.height - BOTTOM - fraction * (self.height - TOP - BOTTOM)

    def _segment(self, start: Point, end: Point, *, follows: bool) -> str:
        """The part of a segment inside the frame; `start` and `end` are (pixels, fraction of the y axis)."""
        (x0, y0), (x1, y1) = start, end
        inside = _inside(y0, y1)
        if inside is None:
            return ""
        (xa, ya), (xb, yb) = ((x0 + t * (x1 - x0), self._pixels_down(y0 + t * (y1 - y0))) for t in inside)
        moved = "" if follows and 0 <= y0 <= 1 else f"M{xa:.1f} {ya:.1f}"
        return f"{moved}L{xb:.1f} {yb:.1f}"


def even_axis(
    label: str, low: float, high: float, *, percent: bool = False, integers: bool = False, most: int = 6
) -> Axis:
    """A linear axis with up to `most` + 1 ticks at round numbers; `integers` allows whole numbers alone."""
    step = _round_step((high - low) / most)
    step = max(1.0, step) if integers else step
    values = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [f"{100 * v:.{max(0, digits - 2)}f}%" if percent else f"{v:.{digits}f}" for v in values]
    return Axis(label, low, high, tuple(zip(values, labels, strict=True)))


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis over these values, all above 0, with a tick at each power of ten; within a decade at 1, 2 and 5, or at
    some of the values."""
    low, high = min(values) / 1.6, max(values) * 1.6
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    marked = [power for power in powers if low <= power <= high]
    if len(marked) < 2:
        rounded = [power * n for power in powers for n in (1, 2, 5) if low <= power * n <= high]
        marked = rounded if len(rounded) > 1 else sorted(set(values))[:3]
    return Axis(label, low, high, tuple((value, f"{value:g}".replace("e-0", "e-")) for value in marked), log=True)


def write_svg(chart: Chart, path: Path) -> Path:
    """Write a chart to a file of its own: title above, legend to the right, nothing loaded from anywhere.

    Args:
        path: the SVG file; written completely or not at all, the same bytes for the same chart.

    Raises:
        WriteFailed: no space or no permission.
    """
    keys = [(key, _shortened(key.label)) for key in chart.keys]
    legend = 44 + max(cell_len(label) for _, label in keys) * _CELL if keys else 0
    title = textwrap.wrap(chart.title, _TITLE_CELLS, max_lines=2, placeholder=" …")
    top = _TITLE_LINE * len(title) + (18 if chart.note else 0) + 12
    size = {"width": round(chart.width + legend), "height": top + max(chart.height, TOP + _LINE * len(keys))}
    places = [TOP + 8 + _LINE * number for number in range(len(keys))]
    entries = [(key, label, y) for (key, label), y in zip(keys, places, strict=True)]
    title_lines = [(line, _TITLE_LINE * (number + 1)) for number, line in enumerate(title)]
    write_text(path, render("chart.svg", c=chart, top=top, entries=entries, title_lines=title_lines, **size))
    return path


def _inside(start: float, end: float) -> tuple[float, float] | None:
    """Which part of the way from `start` to `end` lies within 0 and 1, as two fractions of it; None where none does."""
    if start == end:
        return (0.0, 1.0) if 0 <= start <= 1 else None
    at_edges = sorted((edge - start) / (end - start) for edge in (0.0, 1.0))
    first, last = max(0.0, at_edges[0]), min(1.0, at_edges[1])
    return (first, last) if first <= last else None


def _shortened(label: str) -> str:
    label = " ".join(label.split())
    return label if cell_len(label) <= LEGEND_CELLS else set_cell_size(label, LEGEND_CELLS - 1).rstrip() + "…"


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least * (1 - 1e-9))
