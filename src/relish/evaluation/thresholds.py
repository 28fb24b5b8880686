"""Choose a threshold between two classes, or a probability below which the model abstains, on held-out images.

A threshold is chosen for an aim such as `precision=0.99:hotdog`; the bound of abstention for an accuracy.
`prediction.py` applies both.

Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, Journal of Machine Learning
Research 11; for networks Geifman and El-Yaniv 2017, arXiv:1705.08500, where the softmax response is the confidence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from relish.core.errors import RecipeError, nearest
from relish.data.dataset import class_name
from relish.evaluation.grouped import Ints, effective_images
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import UNLIKE

Measure = Literal["precision", "recall", "f1"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CURVE_POINTS = 20
"""Of the coverage curve: every twentieth of the images."""
_TOLERANCE = 1e-9
"""For the comparison of a fraction of counts with the fraction asked for."""
_FORMS = "Such as precision=0.99, recall=0.95 or f1; with the class it is about, precision=0.99:hotdog."


@dataclass(frozen=True)
class Aim:
    """The measure that a threshold is chosen for."""

    measure: Measure
    least: float | None
    """To be reached, above 0 to 1; None for f1, which is maximised."""
    positive: str | None
    """The class it is measured on; None: the first of the two."""

    @property
    def words(self) -> str:
        """Such as `precision=0.99`, without the class."""
        return self.measure if self.least is None else f"{self.measure}={self.least:g}"


@dataclass(frozen=True)
class AtThreshold:
    """The counts of one threshold on some images, and precision and recall."""

    right: int
    """Images of the positive class that are predicted as it."""
    predicted: int
    """Images that are predicted as the positive class."""
    count: int
    """Images of the positive class."""

    @property
    def precision(self) -> Proportion | None:
        """None where the class is never predicted."""
        return Proportion(self.right, self.predicted) if self.predicted else None

    @property
    def recall(self) -> Proportion | None:
        """None where no image is of the class."""
        return Proportion(self.right, self.count) if self.count else None

    def sentence(self) -> str:
        """Precision and recall with count and interval."""
        return precision_and_recall(self.precision, self.recall)


def precision_and_recall(precision: Proportion | None, recall: Proportion | None) -> str:
    """Both in words, with count and interval."""
    said = precision.sentence() if precision else "– (the class is never said)"
    found = recall.sentence() if recall else "– (no picture is of the class)"
    return f"precision {said}, recall {found}"


@dataclass(frozen=True)
class CoveragePoint:
    """The accuracy on the images whose predicted class has at least a given probability."""

    coverage: float
    """Fraction of the images that are answered, above 0 to 1."""
    accuracy: float
    """On these images, 0 to 1."""
    unsure_below: float
    """The lowest probability of a predicted class among these images."""
    count: int
    """Images that are answered."""


@dataclass(frozen=True)
class Answered:
    """The images on which a model does not abstain."""

    correct: int
    count: int
    of: int
    """All images."""
    effective: float | None = None
    """As `Proportion.effective`, of those answered."""

    @property
    def proportion(self) -> Proportion | None:
        """Right among the answered; None where none is answered."""
        return Proportion(self.correct, self.count, self.effective) if self.count else None

    def sentence(self) -> str:
        """Such as `380 of 400 pictures answered, accuracy 0.990 (376 of 380, 95% interval 0.973–0.996)`."""
        right = f"accuracy {self.proportion.sentence()}" if self.proportion else "so there is no accuracy"
        return f"{self.count} of {self.of} pictures answered, {right}"

    def as_json(self) -> dict[str, Any]:
        """`count`, `of`, `correct`, `accuracy` and `interval`; the last two null where none is answered."""
        accuracy = self.proportion
        return {
            "count": self.count,
            "of": self.of,
            "correct": self.correct,
            "accuracy": accuracy and accuracy.value,
            "interval": accuracy and list(accuracy.interval),
        }


@dataclass(frozen=True)
class CalledUnknown:
    """How many of some images a model calls unknown: unlike anything it learned from."""

    count: int
    of: int
    """All images, above 0."""
    above: float
    """The unfamiliarity that they are above."""

    def sentence(self) -> str:
        """Such as `7 of 800 pictures are unlike anything it learned from`."""
        return f"{self.count} of {self.of} pictures {'is' if self.count == 1 else 'are'} {UNLIKE}"

    def as_json(self) -> dict[str, Any]:
        """`count`, `of`, `share`, its `interval`, and `above`."""
        share = Proportion(self.count, self.of)
        return {
            "count": self.count, "of": self.of, "share": share.value, "interval": list(share.interval),
            "above": self.above,
        }  # fmt: skip


def parse_aim(words: str) -> Aim:
    """An aim from a command line.

    Raises:
        RecipeError: not of the form that is needed, or out of range.
    """
    goal, _, positive = words.partition(":")
    measure, equals, number = (part.strip() for part in goal.partition("="))
    if measure not in MEASURES:
        raise RecipeError(f'--threshold {words}: "{measure}" is no aim.', hint=nearest(measure, MEASURES) or _FORMS)
    if (measure == "f1") is bool(equals):
        raise RecipeError(f"--threshold {words}: not of the form that is needed.", hint=_FORMS)
    least = _fraction("--threshold", words, number) if equals else None
    return Aim(measure, least, class_name(positive) or None)


def parse_unsure(words: str) -> float:
    """The accuracy to reach on the answered images, from `accuracy=0.98`.

    Raises:
        RecipeError: not of that form, or out of range.
    """
    match = re.fullmatch(r"\s*accuracy\s*=(.*)", words)
    if match is None:
        raise RecipeError(f"--unsure {words}: not of the form that is needed.", hint="Such as accuracy=0.98.")
    return _fraction("--unsure", words, match[1])


def positive_class(aim: Aim, classes: Sequence[str]) -> str:
    """The class that an aim is measured on.

    Raises:
        RecipeError: there are not two classes, or none of that name.
    """
    if len(classes) != 2:
        raise RecipeError(
            f"--threshold is for two classes, and there are {len(classes)}.",
            hint="With more, --unsure accuracy=0.98 makes the model say when it is not sure.",
        )
    if aim.positive is not None and aim.positive not in classes:
        raise RecipeError(
            f'--threshold: there is no class "{aim.positive}".',
            hint=nearest(aim.positive, classes) or f"There are: {', '.join(classes)}.",
        )
    return aim.positive or classes[0]


def choose_threshold(probability: Floats, positive: Bools, aim: Aim) -> float | None:
    """The threshold for an aim, midway between two images' probabilities; None where no threshold reaches it.

    For a precision the lowest that reaches it, which has the highest recall; for a recall the highest, which has the
    fewest wrong; for f1 the one where it is largest.

    Args:
        probability: (N,) float64, of the positive class, of held-out images.
        positive: (N,) bool, whether the images are of it.
    """
    levels, predicted, right = _cumulated(probability, positive)
    count = int(positive.sum())
    if count == 0:
        return None
    if aim.least is None:
        best = int(np.argmax(2 * right / (predicted + count)))
    else:
        enough = right >= aim.least * (predicted if aim.measure == "precision" else count) - _TOLERANCE
        (reaching,) = np.nonzero(enough & (right > 0))
        if not len(reaching):
            return None
        best = int(reaching[-1] if aim.measure == "precision" else reaching[0])
    return _bound_at(levels, best)


def at_threshold(probability: Floats, positive: Bools, threshold: float) -> AtThreshold:
    """The counts of a threshold, from (N,) probabilities of the positive class and (N,) bool."""
    predicted = probability >= threshold
    return AtThreshold(int((predicted & positive).sum()), int(predicted.sum()), int(positive.sum()))


def answered(right: Bools, unsure: Bools, groups: Ints | None = None) -> Answered:
    """Count the images on which the model does not abstain, from (N,) bool each and (N,) int64 of groups, or None."""
    told = ~unsure
    effective = None if groups is None or not told.any() else effective_images(right[told], groups[told]).effective
    return Answered(int((right & told).sum()), int(told.sum()), len(right), effective)


def coverage_curve(confidence: Floats, right: Bools) -> tuple[CoveragePoint, ...]:
    """From all images answered down to the most confident twentieth; images of equal confidence stay together.

    `confidence` is (N,) float64, the probability of the predicted class; `right` is (N,) bool.
    """
    levels, counts, hits = _cumulated(confidence, right)
    wanted = np.ceil(np.arange(CURVE_POINTS, 0, -1) / CURVE_POINTS * len(right))
    indices = list(dict.fromkeys(np.searchsorted(counts, wanted, side="left").tolist()))
    return tuple(
        CoveragePoint(counts[i] / len(right), hits[i] / counts[i], float(levels[i]), int(counts[i])) for i in indices
    )


def choose_unsure(confidence: Floats, right: Bools, accuracy: float) -> float | None:
    """The lowest bound of confidence above which predictions reach an accuracy.

    Args:
        confidence: (N,) float64, the probability of the predicted class, of held-out images.
        right: (N,) bool.
        accuracy: to reach, above 0 to 1.

    Returns:
        0 where all predictions together reach it, None where no bound does.
    """
    levels, counts, hits = _cumulated(confidence, right)
    (reaching,) = np.nonzero(hits >= accuracy * counts - _TOLERANCE)
    return _bound_at(levels, int(reaching[-1])) if len(reaching) else None


def highest_fraction(probability: Floats, right: Bools) -> float:
    """The largest fraction that is right among the images from some probability on, (N,) each."""
    _, counts, hits = _cumulated(probability, right)
    return float((hits / counts).max())


def _cumulated(probability: Floats, right: Bools) -> tuple[Floats, Floats, Floats]:
    """Each distinct probability, highest first; how many images have it or more, and how many of these are right."""
    levels, level_of = np.unique(-probability, return_inverse=True)
    counts = np.cumsum(np.bincount(level_of, minlength=len(levels))).astype(np.float64)
    hits = np.cumsum(np.bincount(level_of, right, minlength=len(levels))).astype(np.float64)
    return -levels, counts, hits


def _bound_at(levels: Floats, index: int) -> float:
    """A bound that `levels[index]` reaches and the next lower level does not, midway between them; 0 for the last."""
    if index == len(levels) - 1:
        return 0.0
    high, low = float(levels[index]), float(levels[index + 1])
    middle = (high + low) / 2
    return middle if middle > low else high


def _fraction(option: str, words: str, number: str) -> float:
    try:
        fraction = float(number)
    except ValueError:
        raise RecipeError(f"{option} {words}: {number} is no number.", hint="A share, such as 0.99.") from None
    if not 0 < fraction <= 1:
        raise RecipeError(f"{option} {words}: {number} must be above 0 and at most 1.", hint="A share, such as 0.99.")
    return fraction
