"""Charts that are part of a page: marks placed in a frame, which the page's template writes as SVG.

In:   axes, and points in their units.
Out:  a `Chart`: marks in pixels, each with the words a pointer resting on it shows.
Not here: the SVG itself (`chart_template.py`), which charts there are (`run_charts.py`), files (`curves.py`).

Colours are names of the page's style, so that one chart serves light and dark.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 440, 280
"""Of a chart in its own pixels: letters of 13 stay readable where a phone shows it at 0.8."""
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 44
"""Margins around the frame."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with words at some values."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Line:
    """A line through points, in pixels."""

    path: str
    look: str
    dashed: bool


@dataclass(frozen=True)
class Dot:
    """A point, in pixels."""

    x: float
    y: float
    look: str
    words: str
    cross: bool = False


@dataclass(frozen=True)
class Bar:
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float
    look: str
    words: str


@dataclass(frozen=True)
class Key:
    """What a colour stands for."""

    words: str
    look: str
    dashed: bool = False


@dataclass
class Chart:
    """A frame and what stands in it. `name` is unique in the page; `summary` says what the chart shows without it."""

    name: str
    title: str
    summary: str
    x: Axis
    y: Axis
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    def add_line(self, points: Iterable[Point], look: str, *, dashed: bool = False) -> None:
        """A line through points in the axes' units."""
        steps = [f"{self.at_x(x):.1f} {self.at_y(y):.1f}" for x, y in points]
        if len(steps) > 1:
            self.lines.append(Line("M" + "L".join(steps), look, dashed))

    def add_dot(self, point: Point, look: str, words: str, *, cross: bool = False) -> None:
        """A dot, or a cross."""
        self.dots.append(Dot(round(self.at_x(point[0]), 1), round(self.at_y(point[1]), 1), look, words, cross))

    def add_bar(self, left: float, right: float, top: float, look: str, words: str) -> None:
        """A bar that stands on the lower edge."""
        x, y = self.at_x(left), self.at_y(top)
        width, height = self.at_x(right) - x - 1, self.at_y(self.y.low) - y
        self.bars.append(Bar(round(x, 1), round(y, 1), round(width, 1), round(height, 1), look, words))

    def at_x(self, value: float) -> float:
        """Pixels from the left; what lies outside is brought to the edge."""
        return LEFT + min(1.0, max(0.0, self.x.share(value))) * (WIDTH - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        """Pixels from the top; what lies outside is brought to the edge."""
        return HEIGHT - BOTTOM - min(1.0, max(0.0, self.y.share(value))) * (HEIGHT - TOP - BOTTOM)

    @property
    def frame(self) -> dict[str, float]:
        """The chart's size and the frame's edges, in pixels."""
        edges = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
        return {"width": WIDTH, "height": HEIGHT, **edges}

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Pixels from the left, and words."""
        return [(round(self.at_x(value), 1), words) for value, words in self.x.ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Pixels from the top, and words."""
        return [(round(self.at_y(value), 1), words) for value, words in self.y.ticks]


def even_axis(label: str, low: float, high: float, *, percent: bool = False, most: int = 6) -> Axis:
    """An axis with ticks at round numbers, 2 to `most` of them."""
    step = _round_step((high - low) / most)
    values = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    words = [f"{100 * v:.{max(0, digits - 2)}f}%" if percent else f"{v:.{digits}f}" for v in values]
    return Axis(label, low, high, tuple(zip(values, words, strict=True)))


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis over these values, all above 0, with a tick at each power of ten, or at some of them."""
    low, high = min(values) / 1.6, max(values) * 1.6
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    marked = [power for power in powers if low <= power <= high] or sorted(set(values))[:3]
    return Axis(label, low, high, tuple((value, f"{value:g}") for value in marked), log=True)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least * (1 - 1e-9))
