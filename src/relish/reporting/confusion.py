"""The confusion matrix as a page can show it: small enough to read, each number leading to its pictures.

In:   answers and true classes.
Out:  a `Confusion`: the most confused classes, their cells, and which pictures stand behind each.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relish.reporting.predictions_page import evenly_spaced

MOST_CLASSES = 12
"""More rows and columns than this do not fit a page; those that are confused most are shown."""
MOST_A_CELL = 12
"""Pictures shown behind one number."""


@dataclass(frozen=True)
class Cell:
    """One number: pictures of the class `truth` that were said to be of the class `said`."""

    truth: int
    said: int
    positions: tuple[int, ...]
    """Of all its pictures, in the order of the split."""
    share: float
    """Of the pictures of the true class, 0 to 1."""

    @property
    def name(self) -> str:
        """Its address in the page."""
        return f"cell-{self.truth}-{self.said}"

    @property
    def right(self) -> bool:
        """Whether it holds right answers."""
        return self.truth == self.said

    @property
    def step(self) -> int:
        """How dark it is drawn, 0 to 5: the square root of its share, so that few errors can be seen too."""
        return round(5 * math.sqrt(self.share))


@dataclass(frozen=True)
class Confusion:
    """The part of the matrix that is shown."""

    classes: tuple[int, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """A row is a true class, a column an answer."""
    left_out: int
    """Classes that are not shown."""


def confusion_of(said: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: int) -> Confusion:
    """Cells with their pictures.

    Args:
        said: (N,) int64, the answers.
        labels: (N,) int64.
        classes: how many there are.
    """
    counts = np.bincount(labels * classes + said, minlength=classes * classes).reshape(classes, classes)
    shown = _most_confused(counts) if classes > MOST_CLASSES else list(range(classes))
    rows = tuple(tuple(_cell(said, labels, truth, column) for column in shown) for truth in shown)
    return Confusion(tuple(shown), rows, classes - len(shown))


def cells_to_picture(confusion: Confusion, most: int) -> dict[str, tuple[int, ...]]:
    """Which pictures to show behind which cell, by its name: errors first, `most` in all, an even sample of each."""
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


def _cell(said: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], truth: int, column: int) -> Cell:
    of_class = labels == truth
    positions = np.flatnonzero(of_class & (said == column))
    return Cell(truth, column, tuple(int(i) for i in positions), len(positions) / max(1, int(of_class.sum())))
