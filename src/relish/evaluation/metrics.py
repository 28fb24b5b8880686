"""Accuracy, precision, recall and F1 from a confusion matrix, each with a 95% interval.

Only the confusion matrix is kept and every other figure follows from it, so no two figures can disagree. Proportions
have Wilson's interval; balanced accuracy and macro-F1 have the interval of a stratified bootstrap, in which what a
resample makes of a class is a multinomial draw over its row of the confusion matrix: the cost does not grow with the
number of images. A bootstrap interval has no width where no image was wrong; the interval of the accuracy shows how
little that proves with few images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError, Diverged
from relish.core.runtime import rng_for

Z = NormalDist().inv_cdf(0.975)
"""How many standard errors a two-sided 95% interval reaches to either side."""
UNEVEN = 1.5
"""Classes are uneven where the largest has more than this many times the pictures of the smallest."""


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion.

    Unlike the textbook interval it stays within 0 and 1 and keeps a width where every answer was right.

    Args:
        correct: how many were right, 0 to `count`.
        count: how many there were; nothing is known of none, so 0 gives (0, 1).

    Returns:
        The lower and the upper end, with `correct / count` between them.

    Source: Wilson 1927, Journal of the American Statistical Association 22, pages 209-212.
    """
    if not 0 <= correct <= count:
        raise ValueError(f"{correct} of {count} is no proportion")
    if count == 0:
        return 0.0, 1.0
    share, weight = correct / count, Z * Z / count
    middle = (share + weight / 2) / (1 + weight)
    reach = Z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    # At both ends the exact value is 0 or 1, which rounding would miss by a last digit.
    return 0.0 if correct == 0 else middle - reach, 1.0 if correct == count else middle + reach


@dataclass(frozen=True)
class Proportion:
    """So many right of so many."""

    correct: int
    count: int
    """Above 0."""

    @property
    def value(self) -> float:
        """0 (worst) to 1."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval."""
        return wilson(self.correct, self.count)

    def sentence(self) -> str:
        """Such as `0.940 (752 of 800, 95% interval 0.921–0.954)`."""
        low, high = self.interval
        return f"{self.value:.3f} ({self.correct} of {self.count}, 95% interval {low:.3f}–{high:.3f})"

    def as_json(self) -> dict[str, Any]:
        """`value`, `correct`, `count` and `interval`."""
        return {
            "value": self.value,
            "correct": self.correct,
            "count": self.count,
            "interval": list(self.interval),
        }


@dataclass(frozen=True)
class ClassScores:
    """How one class fares: figures from 0 (worst) to 1, None where there is nothing to divide by."""

    name: str
    precision: float | None
    """Of the pictures given this class, the share that is of it; None if no picture was given it."""
    recall: float | None
    """Of the pictures of this class, the share that was given it."""
    f1: float | None
    """The harmonic mean of the two."""
    count: int
    """Pictures of this class. With none, all three figures are None."""


@dataclass(frozen=True)
class Scores:
    """What a classifier got right and wrong. Made by `score`."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """K rows of K counts: a row is the true class, a column the one that was said."""

    @property
    def top1(self) -> Proportion:
        """The accuracy: the share of pictures of which the true class is said."""
        correct = sum(self.confusion[k][k] for k in range(len(self.classes)))
        return Proportion(correct, sum(map(sum, self.confusion)))

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Every class, in the order of `classes`."""
        said = [sum(column) for column in zip(*self.confusion, strict=True)]
        return tuple(
            _class_scores(name, row[k], sum(row), said[k])
            for k, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        )

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have pictures, 0 (worst) to 1: every class counts alike.

        Source: Brodersen et al. 2010, The balanced accuracy and its posterior distribution, ICPR, section 2.
        """
        return float(np.mean([one.recall for one in self.per_class if one.recall is not None]))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have pictures, 0 (worst) to 1."""
        return float(np.mean([one.f1 for one in self.per_class if one.f1 is not None]))

    @property
    def uneven(self) -> bool:
        """Whether some class has far more pictures than another, so that accuracy speaks for the large ones."""
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
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Scores":
        """The scores that `as_json` wrote down; further keys are passed over."""
        return cls(tuple(document["classes"]), tuple(tuple(row) for row in document["confusion"]))


def said_class(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """(N, K) probabilities to (N,) int64: the likeliest class of each picture, the first of equals.

    Raises:
        Diverged: a value is not a number; the largest of such has no meaning.
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
    said: npt.NDArray[np.int64] | None = None,
) -> Scores:
    """Count what was right and what was taken for what.

    Args:
        probabilities: (N, K) floating point, a row per picture; the first of equal largest values counts.
        labels: (N,) int64, each an index into `classes`.
        classes: the K class names.
        said: (N,) int64, the class that is said of each picture; None: the likeliest.

    Raises:
        DataError: there is no picture to score.
        Diverged: a probability is not a number.
    """
    if len(labels) == 0:
        raise DataError("there is no picture to score.", hint="Name a split that has pictures.")
    known = len(classes)
    if probabilities.shape != (len(labels), known):
        raise ValueError(f"probabilities are {probabilities.shape}, expected {(len(labels), known)}")
    if labels.min() < 0 or labels.max() >= known:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, there are {known} classes")
    likeliest = said_class(probabilities)
    cells = np.bincount(labels * known + (likeliest if said is None else said), minlength=known * known)
    rows = cells.reshape(known, known).tolist()  # (K, K) int
    return Scores(tuple(classes), tuple(tuple(row) for row in rows))


def _class_scores(name: str, right: int, count: int, said: int) -> ClassScores:
    if count == 0:
        return ClassScores(name, None, None, None, 0)
    precision = right / said if said else None
    return ClassScores(name, precision, right / count, 2 * right / (count + said), count)


DRAWS = 2000
"""Of the bootstrap; its ends then move by a few hundredths of their distance from one seed to another."""
LEVEL = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval."""

    value: float
    interval: tuple[float, float]

    def sentence(self) -> str:
        """Such as `0.912 (95% interval 0.893–0.930)`."""
        low, high = self.interval
        return f"{self.value:.3f} (95% interval {low:.3f}–{high:.3f})"

    def as_json(self) -> dict[str, Any]:
        """`value` and `interval`."""
        return {"value": self.value, "interval": list(self.interval)}


def percentiles(draws: Floats) -> tuple[float, float]:
    """The percentile interval of (D,) draws.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def balanced_figures(scores: Scores, draws: int = DRAWS, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Balanced accuracy and macro-F1 with their intervals.

    Args:
        draws: how often the pictures are drawn again.
        seed: the only source of chance here.
    """
    balanced, macro = _resampled(np.array(scores.confusion, dtype=np.int64), draws, seed)
    return (
        Estimate(scores.balanced_accuracy, percentiles(balanced)),
        Estimate(scores.macro_f1, percentiles(macro)),
    )


def _resampled(confusion: npt.NDArray[np.int64], draws: int, seed: int) -> tuple[Floats, Floats]:
    """Both figures of every draw, (D,) each."""
    chance, counts = rng_for(seed, "bootstrap"), confusion.sum(1)
    present = np.flatnonzero(counts)
    right, said = np.zeros((draws, len(counts))), np.zeros((draws, len(counts)))
    for k in present:
        cells = np.flatnonzero(confusion[k])
        drawn = chance.multinomial(counts[k], confusion[k, cells] / counts[k], size=draws)  # (D, cells)
        said[:, cells] += drawn
        right[:, k] = drawn[:, cells == k].sum(1)
    recall = right[:, present] / counts[present]
    f1 = 2 * right[:, present] / (counts[present] + said[:, present])
    return recall.mean(1), f1.mean(1)


@dataclass(frozen=True)
class CurvePoint:
    """What was known at one moment of a training; None where nothing was measured then."""

    epoch: float
    """Epochs done: 0.2 is a fifth of the first one, 1.0 its end."""
    loss: float | None = None
    """Mean loss per training picture since the epoch began, in nats; lower is better."""
    train_accuracy: float | None = None
    """Share of augmented training pictures got right since the epoch began, 0 (worst) to 1."""
    test_accuracy: float | None = None
    """Share of held-out pictures got right, 0 (worst) to 1."""


Curves = tuple[CurvePoint, ...]
"""One training, in the order of time."""


@dataclass(frozen=True)
class SweepPoint:
    """What one learning rate came to."""

    learning_rate: float
    """Above 0."""
    accuracy: Proportion | None
    """None where the training diverged."""

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being a number."""
        return self.accuracy is None
