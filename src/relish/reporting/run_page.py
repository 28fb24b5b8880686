"""`report.html`: everything a run is, on one page that needs nothing else.

A `ReportPage` holds what the page says; `write_report` fills in `templates/run.html`, with images and charts inside the
file and no script. `confusion_matrix` makes the matrix small enough to read, each number leading to its images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.io import write_text
from relish.data.dataset import Finding
from relish.data.split import evenly_spaced
from relish.evaluation.metrics import Proportion
from relish.reporting.page import Embedded, render
from relish.reporting.run_figures import ClassRow, Figure
from relish.reporting.svg import Chart

MOST_CLASSES = 12
"""Rows and columns of the confusion matrix; more do not fit a page, and those that are confused most are shown."""
MOST_A_CELL = 12
"""Images shown behind one number of the matrix."""


@dataclass(frozen=True)
class Thumbnail:
    """A small image and what it is called."""

    image: Embedded
    label: str
    """As the dataset names it."""
    alt: str
    """What it is, for those who do not see it."""
    caption: str = ""
    """A line beneath it."""


@dataclass(frozen=True)
class Example:
    """One image with its prediction, where in the image that rests, and the training images nearest to it."""

    shown: Thumbnail
    overlay: Embedded | None
    truth: str
    predicted: str
    unsure: bool
    likeliest: tuple[tuple[str, float], ...]
    """Classes with their probabilities, the likeliest first."""
    neighbours: tuple[Thumbnail, ...]

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.truth


@dataclass(frozen=True)
class OtherRun:
    """Another finished run, evaluated on the same images."""

    name: str
    recipe: str
    source: str
    top1: Proportion
    sentence: str
    """What the paired test says; empty for the run itself."""


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder."""

    name: str
    text: str
    won: bool


@dataclass(frozen=True)
class ShownFinding:
    """A finding of the data check, with some of its images."""

    finding: Finding
    images: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Cell:
    """One number of the confusion matrix: images of the class `truth` with the predicted class `predicted`."""

    truth: int
    predicted: int
    positions: tuple[int, ...]
    """Of all its images, in the order of the split."""
    share: float
    """Of the images of the true class, 0 to 1."""

    @property
    def name(self) -> str:
        """Its id in the page."""
        return f"cell-{self.truth}-{self.predicted}"

    @property
    def right(self) -> bool:
        """Whether it holds right predictions."""
        return self.truth == self.predicted

    @property
    def step(self) -> int:
        """How dark it is drawn, 0 to 5: the square root of its share, so that few errors can be seen too."""
        return round(5 * math.sqrt(self.share))


@dataclass(frozen=True)
class Confusion:
    """The part of the matrix that is shown."""

    classes: tuple[int, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """A row is a true class, a column a predicted one."""
    omitted: int
    """Classes that are not shown."""


@dataclass(frozen=True)
class ReportPage:
    """What the page says; a part that is empty or None is omitted."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What the model was made from, as short pairs."""
    split: str
    top1: Proportion
    majority_share: float
    """Accuracy of always predicting the commonest class, 0 to 1."""
    decision: Sequence[str]
    figures: Sequence[Figure]
    other_runs: Sequence[OtherRun]
    other_runs_omitted: int
    rungs: Sequence[Rung]
    curves: Chart | None
    checked: int | None
    """Images that the data check looked at; None where there was no check."""
    findings: Sequence[ShownFinding]
    """The gravest first, as many as are shown."""
    counts: Mapping[str, int]
    """Findings of each severity, shown or not, the gravest first; severities without any are omitted."""
    confusion: Confusion
    cell_images: Mapping[str, Sequence[Thumbnail]]
    """By the name of their cell."""
    classes: tuple[str, ...]
    calibration: str
    reliability: Chart | None
    coverage: Chart | None
    mistakes: Sequence[Example]
    mistakes_in_all: int
    least_sure: Sequence[Example]
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
    def findings_omitted(self) -> int:
        """Findings that are not shown."""
        return sum(self.counts.values()) - len(self.findings)


def write_report(path: Path, page: ReportPage) -> None:
    """Write the page.

    Raises:
        WriteFailed: no space or no permission.
    """
    write_text(path, render("run.html", page=page))


def confusion_matrix(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: int) -> Confusion:
    """The cells of the classes that are confused most, each with the positions of its images.

    Args:
        predicted: (N,) int64.
        labels: (N,) int64.
        classes: how many there are.
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    shown = _most_confused(counts) if classes > MOST_CLASSES else list(range(classes))
    rows = tuple(tuple(_cell(predicted, labels, truth, column) for column in shown) for truth in shown)
    return Confusion(tuple(shown), rows, classes - len(shown))


def images_of_cells(confusion: Confusion, most: int) -> dict[str, tuple[int, ...]]:
    """Which images to show behind which cell, by its name: errors first, `most` in all, an even sample of each."""
    cells = sorted(
        (c for row in confusion.rows for c in row if c.positions), key=lambda c: (c.right, -len(c.positions))
    )
    chosen, room = {}, most
    for place, cell in enumerate(cells):
        count = min(len(cell.positions), MOST_A_CELL, max(1, room // (len(cells) - place)) if room else 0)
        if count:
            chosen[cell.name] = tuple(cell.positions[i] for i in evenly_spaced(len(cell.positions), count))
        room -= count
    return chosen


def _most_confused(counts: npt.NDArray[np.int64]) -> list[int]:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    chosen: list[int] = []
    for place in np.argsort(-errors, axis=None, kind="stable"):
        pair = [int(k) for k in np.unravel_index(place, errors.shape)]
        chosen += [k for k in dict.fromkeys(pair) if k not in chosen]
        if len(chosen) >= MOST_CLASSES:
            break
    return sorted(chosen[:MOST_CLASSES])


def _cell(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], truth: int, column: int) -> Cell:
    of_class = labels == truth
    positions = np.flatnonzero(of_class & (predicted == column))
    return Cell(truth, column, tuple(int(i) for i in positions), len(positions) / max(1, int(of_class.sum())))
