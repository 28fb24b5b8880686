"""`report.html`: everything a run is, on one page that needs nothing else.

`templates/run.html` shows it, with images and charts inside the file and no script; here are its rows and sentences.
`confusion_matrix` makes the matrix small enough to read, each number leading to its images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.data.split import evenly_spaced
from relish.evaluation.metrics import Proportion, Scores
from relish.evaluation.prediction import UNLIKE
from relish.reporting.page import Embedded, percent, percent_interval

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
    unfamiliarity: float | None
    """How unlike the training images it is; None where the model cannot say."""
    unknown: bool
    likeliest: tuple[tuple[str, float], ...]
    """Classes with their probabilities, the likeliest first."""
    neighbours: Sequence[Thumbnail]


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


def confusion_matrix(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: int) -> Confusion:
    """The cells of the classes that are confused most, each with the positions of its images.

    Args:
        predicted, labels: (N,) int64, below `classes`.
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


# ---- figures as rows and sentences --------------------------------------------------------------------------------
# `evaluation` is evaluation.json, as a mapping; a figure whose key is absent is omitted.


_SHARES = {
    "balanced_accuracy": (
        "balanced accuracy",
        "The mean of the classes' recalls: each class counts alike, however many pictures it has. 100% is perfect, "
        "{guess} is guessing.",
    ),
    "macro_f1": (
        "macro-F1",
        "The mean over the classes of F1, which is high only where the model both finds a class's pictures and is "
        "right when it says so. 0% is worst, 100% best.",
    ),
    "auc": (
        "area under the ROC curve",
        "How often a picture of a class is given a higher probability of it than a picture of another class. 50% is "
        "guessing, 100% perfect.",
    ),
    "top5": ("top-5 accuracy", "How often the true class is among the five likeliest. Higher is better."),
}
"""Figures with an interval: key of evaluation.json, name, meaning."""
_LOSSES = {
    "log_loss": (
        "log-loss",
        "The price of being sure and wrong, a picture, in nats. 0 is perfect, {guess} is guessing evenly, higher is "
        "worse.",
    ),
    "brier": ("Brier score", "The squared distance between probabilities and truth. 0 is perfect, higher is worse."),
    "ece": (
        "expected calibration error",
        "How far confidence and accuracy lie apart, 0 to 1. 0 is perfect, higher is worse.",
    ),
}
"""Figures without an interval, also known before the temperature."""


def figure_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Every figure of the run beside its accuracy: name, value, interval, what it measures and which end is bad."""
    classes, before = len(evaluation["classes"]), _before(evaluation)
    guess = f"{100 / classes:.3g}%"
    rows = [
        (name, percent(share["value"]), percent_interval(share["interval"]), meaning.format(guess=guess))
        for key, (name, meaning) in _SHARES.items()
        if (share := evaluation.get(key))
    ]
    guess = f"{math.log(max(2, classes)):.2f}"
    for key, (name, meaning) in _LOSSES.items():
        if evaluation.get(key) is not None:
            former = "" if before.get(key) is None else f"{before[key]:.4f} before the temperature"
            rows.append((name, f"{evaluation[key]:.4f}", former, meaning.format(guess=guess)))
    without = evaluation.get("without_duplicates")
    if without and without["left_out"]:
        meaning = (
            f"Without the {without['left_out']:,} judged pictures that have a copy, or nearly one, among those the "
            "model learned from. If it is clearly lower than the accuracy above, believe this one."
        )
        value, interval = percent(without["value"]), percent_interval(without["interval"])
        rows.insert(0, ("accuracy without copies", value, interval, meaning))
    return rows


def class_rows(
    scores: Scores, shares: Sequence[tuple[Proportion | None, Proportion | None]]
) -> list[tuple[str, Proportion | None, Proportion | None, float | None]]:
    """Name, recall, precision and F1 of every class, None where the divisor is 0; the lowest recall first.

    Args:
        shares: recall and precision of each class.
    """
    rows = [
        (one.name, recall, precision if recall else None, one.f1)
        for one, (recall, precision) in zip(scores.per_class, shares, strict=True)
    ]
    return sorted(rows, key=lambda row: 2.0 if row[1] is None else row[1].value)


def calibration_sentences(evaluation: Mapping[str, Any]) -> str:
    """How far the model's confidence can be believed."""
    ece, decision = evaluation.get("ece"), evaluation.get("decision") or {}
    before = _before(evaluation).get("ece")
    text = ""
    if ece is not None:
        text = f"On average, its confidence and how often it is right lie {100 * ece:.1f} points apart"
        text += f"; before its temperature was set, {100 * before:.1f}. " if before is not None else ". "
        text += "0 would be perfect: of the answers it is 90% sure of, 90% are right. "
    temperature, fitted_on = decision.get("temperature", 1.0), decision.get("fitted_on", 0)
    if fitted_on:
        text += (
            f"The temperature, {temperature:.3g}, was chosen on {fitted_on:,} held-out pictures; above 1 it makes the "
            "model less sure, and it never changes the likeliest class."
        )
    return text.strip()


def decision_sentences(evaluation: Mapping[str, Any]) -> list[str]:
    """How probabilities become a prediction, where it is more than taking the likeliest class."""
    decision, answered = evaluation.get("decision") or {}, evaluation.get("answered")
    text = []
    if decision.get("threshold") is not None:
        aim = f", chosen for {decision['aim']}" if decision.get("aim") else ""
        text.append(f"It says “{decision['positive']}” from a probability of {decision['threshold']:.4f} on{aim}.")
    if decision.get("unsure_below") is not None:
        text.append(f"Below a probability of {decision['unsure_below']:.4f} it says that it is unsure.")
    if unknown := evaluation.get("unknown"):
        text.append(
            f"It says of {unknown['count']:,} of {unknown['of']:,} pictures that they are {UNLIKE}: those whose "
            f"unfamiliarity is above {unknown['above']:.3f}."
        )
    if answered and not answered["count"]:
        text.append(f"So it answers none of {answered['of']:,} pictures.")
    elif answered:
        text.append(
            f"So it answers {answered['count']:,} of {answered['of']:,} pictures, and is right on "
            f"{percent(answered['accuracy'])} of them (95% interval {percent_interval(answered['interval'])})."
        )
    return text


def _before(evaluation: Mapping[str, Any]) -> Mapping[str, float]:
    """The figures before the temperature; none where no temperature was fitted, since they are then the same."""
    fitted = (evaluation.get("decision") or {}).get("fitted_on")
    return (evaluation.get("before_temperature") or {}) if fitted else {}
