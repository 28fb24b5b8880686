"""`report.html`: everything a run is, on one page that needs nothing else.

In:   what the page says, ready to be shown: a `ReportPage`.
Out:  one HTML file: pictures and charts inside it, no script, no address to fetch anything from.
Not here: gathering it (`tasks/report.py`), how it looks (`report_style.py`, `report_template.py`).

A number of the confusion matrix is a link to its pictures, which the style shows when they are the link's target: so it
opens by click, by Enter and without a script, and a screen reader is taken there. Class and file names come from
strangers' folders: they are escaped by the template engine and kept from turning the text around them by `<bdi>`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from relish.core.io import write_text
from relish.data.findings import Finding
from relish.evaluation.metrics import Proportion
from relish.reporting.chart_template import CHART
from relish.reporting.charts import Chart
from relish.reporting.confusion import Confusion
from relish.reporting.embedding import Embedded
from relish.reporting.predictions_page import percent
from relish.reporting.report_figures import ClassRow, Figure, as_percent, interval_words
from relish.reporting.report_sections import SECTIONS
from relish.reporting.report_style import STYLE
from relish.reporting.report_template import REPORT


@dataclass(frozen=True)
class Shown:
    """A small picture and what it is called."""

    picture: Embedded
    label: str
    """As the dataset names it."""
    alt: str
    """What it is, for those who do not see it."""
    words: str = ""
    """A line beneath it."""


@dataclass(frozen=True)
class Example:
    """One picture the model was asked about: what it said, where in the picture that rests, what it had seen."""

    picture: Shown
    overlay: Embedded | None
    truth: str
    said: str
    unsure: bool
    likeliest: tuple[tuple[str, float], ...]
    """Classes with their probabilities, the likeliest first."""
    neighbours: tuple[Shown, ...]

    @property
    def right(self) -> bool:
        """Whether it said the true class."""
        return self.said == self.truth


@dataclass(frozen=True)
class Rival:
    """Another finished run, judged on the same pictures."""

    name: str
    recipe: str
    source: str
    top1: Proportion
    sentence: str
    """What the paired test says; empty for the run itself."""


@dataclass(frozen=True)
class Rung:
    """One step of the climb."""

    name: str
    words: str
    won: bool


@dataclass(frozen=True)
class Found:
    """A finding of the data check, with some of its pictures."""

    finding: Finding
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class ReportPage:
    """What the page says; a part that is empty or None is left out of it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What it was made from, as short pairs."""
    split: str
    top1: Proportion
    commonest: float
    """What always saying the commonest class would be right on, 0 to 1."""
    decision: Sequence[str]
    figures: Sequence[Figure]
    rivals: Sequence[Rival]
    rivals_left_out: int
    rungs: Sequence[Rung]
    curves: Chart | None
    checked: int | None
    """Pictures that were looked over by the data check; None where there was none."""
    found: Sequence[Found]
    """The gravest first, as many as are shown."""
    counts: Mapping[str, int]
    """How many findings there are of each severity, shown or not, the gravest first; those of none are left out."""
    confusion: Confusion
    behind: Mapping[str, Sequence[Shown]]
    """Pictures by the name of their cell."""
    classes: tuple[str, ...]
    calibration: str
    reliability: Chart | None
    coverage: Chart | None
    wrong: Sequence[Example]
    wrong_in_all: int
    unsure: Sequence[Example]
    class_rows: Sequence[ClassRow]
    sweep: Chart | None
    sweep_conclusion: str
    recipe: Sequence[tuple[str, str, bool]]
    """Field, value, whether it differs from the recipe of that name."""
    environment: Sequence[tuple[str, str]]
    commands: Sequence[tuple[str, str]]
    """What a command is for, and the command."""
    notes: Sequence[str]
    """What is missing from the page, and why."""

    @property
    def found_left_out(self) -> int:
        """Findings that are not shown."""
        return sum(self.counts.values()) - len(self.found)


def write_report(path: Path, page: ReportPage) -> None:
    """Write the page.

    Raises:
        WriteFailed: no space or no permission.
    """
    # Autoescape is on for the whole page; nothing but our own style is marked as safe.
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters |= {"percent": as_percent, "likely": percent, "interval": interval_words}
    made = engine.from_string(CHART + SECTIONS + REPORT).render(page=page, style=Markup(STYLE))  # noqa: S704 - our own
    write_text(path, made.lstrip())
