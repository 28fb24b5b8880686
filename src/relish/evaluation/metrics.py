"""Accuracy, precision, recall and F1 from a confusion matrix, each with a 95% interval.

Only the confusion matrix is kept and every other figure follows from it, so no two figures can disagree. Proportions
have Wilson's interval; balanced accuracy and macro-F1 have the interval of a stratified bootstrap, in which what a
resample makes of a class is a multinomial draw over its row of the confusion matrix: the cost does not grow with the
number of images. A bootstrap interval has no width where no image was wrong; the interval of the accuracy shows how
little that proves with few images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError, Diverged
from relish.core.runtime import rng_for
from relish.data.dataset import plural

Z = NormalDist().inv_cdf(0.975)
"""A normal 95% interval reaches this many standard errors to each side."""
UNEVEN = 1.5
"""Classes are uneven if the largest has more than this many times the images of the smallest."""
LEVEL = 0.95
"""The probability with which an interval covers the true value."""
RESAMPLES = 2000
"""Resamples of a bootstrap; the ends of an interval vary by a few hundredths of its width between seeds."""
FEW = 30
"""Of fewer independent images than this, the interval is told and not the figure."""
FEW_GROUPS = 10
"""Fewer groups than this say little of how alike the images of a group are."""

Floats = npt.NDArray[np.float64]


def wilson(correct: float, count: float) -> tuple[float, float]:
    """The 95% interval of a proportion.

    Unlike the normal interval it stays within 0 and 1, and keeps a width where every prediction is right.

    Args:
        correct: 0 to `count`.
        count: 0 or more; 0 gives (0, 1). Neither has to be whole: see `Proportion.effective`.

    Returns:
        The lower and the upper end, with `correct / count` between them.

    Source: Wilson 1927, Journal of the American Statistical Association 22, pages 209-212.
    """
    if not 0 <= correct <= count:
        raise ValueError(f"{correct} of {count} is no proportion")
    if count == 0:
        return 0.0, 1.0
    value, weight = correct / count, Z * Z / count
    middle = (value + weight / 2) / (1 + weight)
    half_width = Z / (1 + weight) * math.sqrt(value * (1 - value) / count + weight / (4 * count))
    # At both ends the exact value is 0 or 1; rounding would change its last digit.
    return 0.0 if correct == 0 else middle - half_width, 1.0 if correct == count else middle + half_width


@dataclass(frozen=True)
class Proportion:
    """`correct` of `count`, such as an accuracy."""

    correct: int
    count: int
    """Above 0."""
    effective: float | None = None
    """So many independent images would give as wide an interval, above 0; None: the images are independent."""

    @property
    def value(self) -> float:
        """0 (worst) to 1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval, of as many images as are independent."""
        if self.effective is None:
            return wilson(self.correct, self.count)
        low, high = wilson(self.value * self.effective, self.effective)
        return min(low, self.value), max(high, self.value)  # rounding

    @property
    def few(self) -> bool:
        """Whether the interval is to be told rather than the value."""
        return (self.count if self.effective is None else self.effective) < FEW

    def sentence(self) -> str:
        """Such as `0.940 (752 of 800, 95% interval 0.921–0.954)`; of few images `between 0.68 and 1.00 (8 of 8 right)`.

        The second is the 95% interval too.
        """
        low, high = self.interval
        if self.few:
            return f"between {low:.2f} and {high:.2f} ({self.correct} of {self.count} right)"
        return f"{self.value:.3f} ({self.correct} of {self.count}, 95% interval {low:.3f}–{high:.3f})"

    def as_json(self) -> dict[str, Any]:
        """`value`, `correct`, `count`, `interval`, and `effective` where images are not independent."""
        document = {"value": self.value, "correct": self.correct, "count": self.count, "interval": list(self.interval)}
        return document if self.effective is None else {**document, "effective": self.effective}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Proportion":
        """The inverse of `as_json`."""
        return cls(document["correct"], document["count"], document.get("effective"))


@dataclass(frozen=True)
class Groups:
    """What known groups of images, such as the images of one scene, do to the interval of an accuracy."""

    images: int
    count: int
    """Groups; an image of no known group is one of its own."""
    effective: float
    """So many independent images would give as wide an interval, above 0 to `images`."""

    @property
    def design_effect(self) -> float:
        """How many times as many images the interval needs as if they were independent, 1 or more (Kish 1965, Survey
        Sampling, section 5.4)."""
        return self.images / self.effective

    def sentence(self) -> str:
        """How wide the interval is, and whether that rests on few groups; empty where no group has two images."""
        if self.count == self.images:
            return ""
        groups, independent = plural(self.count, "group"), plural(max(1, round(self.effective)), "independent image")
        few = f"; with fewer than {FEW_GROUPS} groups that is a rough guess" if self.count < FEW_GROUPS else ""
        return f"{plural(self.images, 'image')}, {groups}: the interval is as wide as that of {independent}{few}"

    def as_json(self) -> dict[str, Any]:
        """`count`, `design_effect` and `effective`."""
        return {"count": self.count, "design_effect": self.design_effect, "effective": self.effective}


@dataclass(frozen=True)
class ClassScores:
    """The figures of one class, 0 (worst) to 1; None where the divisor is 0."""

    name: str
    precision: float | None
    """Fraction of the images predicted as this class that are of it; None if no image is predicted as it."""
    recall: float | None
    """Fraction of the images of this class that are predicted as it."""
    f1: float | None
    """Harmonic mean of precision and recall."""
    count: int
    """Images of this class; with none, all three figures are None."""


@dataclass(frozen=True)
class Scores:
    """The confusion matrix and the figures that follow from it. Made by `score`."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """K rows of K counts: a row is the true class, a column the predicted one."""
    groups: Groups | None = field(default=None, kw_only=True)
    """None where no image's group is known."""

    @property
    def top1(self) -> Proportion:
        """The accuracy: the fraction of images whose predicted class is the true one."""
        correct = sum(self.confusion[k][k] for k in range(len(self.classes)))
        count, known = sum(map(sum, self.confusion)), self.groups
        return Proportion(correct, count, known.effective if known and known.count < count else None)

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Every class, in the order of `classes`."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        return tuple(
            _class_scores(name, row[k], sum(row), predicted[k])
            for k, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        )

    @property
    def mean_recall(self) -> float:
        """The balanced accuracy: the mean recall of the classes that have images, 0 (worst) to 1.

        Source: Brodersen et al. 2010, The balanced accuracy and its posterior distribution, ICPR, section 2.
        """
        return float(np.mean([one.recall for one in self.per_class if one.recall is not None]))

    @property
    def mean_f1(self) -> float:
        """Macro-F1: the mean F1 of the classes that have images, 0 (worst) to 1."""
        return float(np.mean([one.f1 for one in self.per_class if one.f1 is not None]))

    @property
    def uneven(self) -> bool:
        """Whether some class has more than `UNEVEN` times the images of another, so that it dominates the accuracy."""
        counts = [one.count for one in self.per_class if one.count]
        return max(counts) > UNEVEN * min(counts)

    def sentence(self) -> str:
        """The accuracy in words, such as `0.940 (752 of 800, 95% interval 0.921–0.954)`."""
        return self.top1.sentence()

    def as_json(self) -> dict[str, Any]:
        """The document that `relish evaluate --json` prints; plain types, null where a figure has no value."""
        return {
            "top1": self.top1.as_json(),
            "classes": list(self.classes),
            "per_class": [
                {"class": one.name, "precision": one.precision, "recall": one.recall, "f1": one.f1, "count": one.count}
                for one in self.per_class
            ],
            "confusion": [list(row) for row in self.confusion],
            **({} if self.groups is None else {"groups": self.groups.as_json()}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Scores":
        """The inverse of `as_json`; other keys are ignored."""
        classes, confusion = tuple(document["classes"]), tuple(tuple(row) for row in document["confusion"])
        found = document.get("groups")
        images = sum(map(sum, confusion))
        groups = Groups(images, found["count"], found["effective"]) if found else None
        return cls(classes, confusion, groups=groups)


def predicted_class(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """(N, K) probabilities to (N,) int64: the likeliest class of each image, the first of equals.

    Raises:
        Diverged: a value is NaN.
    """
    if np.isnan(probabilities).any():
        bad = int(np.isnan(probabilities).any(axis=1).sum())
        raise Diverged(
            f"the model's answer is not a number for {bad} of {len(probabilities)} pictures.",
            hint="Its training went astray: train again with a lower learning rate.",
        )
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def score(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    predicted: npt.NDArray[np.int64] | None = None,
) -> Scores:
    """The confusion matrix of predictions.

    Args:
        probabilities: (N, K) floating point.
        labels: (N,) int64, each an index into `classes`.
        classes: the K class names.
        predicted: (N,) int64, the predicted class of each image; None: the likeliest, the first of equals.

    Raises:
        DataError: N is 0.
        Diverged: a probability is NaN.
    """
    if len(labels) == 0:
        raise DataError("there is no picture to score.", hint="Name a split that has pictures.")
    known = len(classes)
    if probabilities.shape != (len(labels), known):
        raise ValueError(f"probabilities are {probabilities.shape}, expected {(len(labels), known)}")
    if labels.min() < 0 or labels.max() >= known:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, there are {known} classes")
    likeliest = predicted_class(probabilities)
    cells = np.bincount(labels * known + (likeliest if predicted is None else predicted), minlength=known * known)
    rows = cells.reshape(known, known).tolist()  # (K, K) int
    return Scores(tuple(classes), tuple(tuple(row) for row in rows))


def _class_scores(name: str, right: int, count: int, predicted: int) -> ClassScores:
    if count == 0:
        return ClassScores(name, None, None, None, 0)
    precision = right / predicted if predicted else None
    return ClassScores(name, precision, right / count, 2 * right / (count + predicted), count)


@dataclass(frozen=True)
class Estimate:
    """A figure that is no plain proportion, and its 95% interval."""

    value: float
    interval: tuple[float, float]

    def sentence(self) -> str:
        """Such as `0.912 (95% interval 0.893–0.930)`."""
        low, high = self.interval
        return f"{self.value:.3f} (95% interval {low:.3f}–{high:.3f})"

    def as_json(self) -> dict[str, Any]:
        """`value` and `interval`."""
        return {"value": self.value, "interval": list(self.interval)}


def percentile_interval(resampled: Floats) -> tuple[float, float]:
    """The 95% percentile interval of a figure of (R,) bootstrap resamples.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    low, high = np.quantile(resampled, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def balanced_figures(scores: Scores, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Balanced accuracy and macro-F1, with intervals from so many resamples of the images within each class."""
    balanced, macro = _resampled(np.array(scores.confusion, dtype=np.int64), resamples, seed)
    return (
        Estimate(scores.mean_recall, percentile_interval(balanced)),
        Estimate(scores.mean_f1, percentile_interval(macro)),
    )


def _resampled(confusion: npt.NDArray[np.int64], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Balanced accuracy and macro-F1 of every resample, (R,) each."""
    rng, counts = rng_for(seed, "bootstrap"), confusion.sum(1)
    present = np.flatnonzero(counts)
    right, predicted = np.zeros((resamples, len(counts))), np.zeros((resamples, len(counts)))
    for k in present:
        cells = np.flatnonzero(confusion[k])
        drawn = rng.multinomial(counts[k], confusion[k, cells] / counts[k], size=resamples)  # (R, cells)
        predicted[:, cells] += drawn
        right[:, k] = drawn[:, cells == k].sum(1)
    recall = right[:, present] / counts[present]
    f1 = 2 * right[:, present] / (counts[present] + predicted[:, present])
    return recall.mean(1), f1.mean(1)


@dataclass(frozen=True)
class CurvePoint:
    """One measurement during training; None where a figure was not measured."""

    epoch: float
    """Epochs completed: 0.2 is a fifth of the first one, 1.0 its end."""
    loss: float | None = None
    """Mean loss of a training image since the epoch began, in nats; lower is better."""
    train_accuracy: float | None = None
    """Accuracy on augmented training images since the epoch began, 0 (worst) to 1."""
    test_accuracy: float | None = None
    """Accuracy on held-out images, 0 (worst) to 1."""


Curves = tuple[CurvePoint, ...]
"""One training run, in the order of time."""


@dataclass(frozen=True)
class SweepPoint:
    """The accuracy reached with one learning rate."""

    learning_rate: float
    """Above 0."""
    accuracy: Proportion | None
    """None where the training diverged."""

    @property
    def diverged(self) -> bool:
        """Whether the loss became NaN or infinite."""
        return self.accuracy is None
