"""Choose a threshold between two classes, or a probability below which the model abstains, on held-out images.

A threshold is chosen for an aim such as `precision=0.99:hotdog`; the bound of abstention for an accuracy.
`prediction.py` applies both.

Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, Journal of Machine Learning
Research 11; for networks Geifman and El-Yaniv 2017, arXiv:1705.08500, where the softmax response is the confidence.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from relish.core.errors import RecipeError, nearest
from relish.evaluation.metrics import Proportion

Measure = Literal["precision", "recall", "f1"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_FORMS = "Such as precision=0.99, recall=0.95 or f1; with the class it is about, precision=0.99:hotdog."


@dataclass(frozen=True)
class Aim:
    """What a threshold is for."""

    measure: Measure
    share: float | None
    """To be reached, above 0 to 1; None for f1, which is made as large as it can be."""
    positive: str | None
    """The class it is about; None: the first of the two."""

    @property
    def words(self) -> str:
        """Such as `precision=0.99`, without the class."""
        return self.measure if self.share is None else f"{self.measure}={self.share:g}"


@dataclass(frozen=True)
class Reached:
    """What a threshold makes of some pictures."""

    right: int
    """Pictures of the positive class that are said to be of it."""
    said: int
    """Pictures that are said to be of it."""
    count: int
    """Pictures of it."""

    @property
    def precision(self) -> Proportion | None:
        """None where the class is never said."""
        return Proportion(self.right, self.said) if self.said else None

    @property
    def recall(self) -> Proportion | None:
        """None where no picture is of the class."""
        return Proportion(self.right, self.count) if self.count else None

    def sentence(self) -> str:
        """Precision and recall with count and interval."""
        precision = self.precision.sentence() if self.precision else "– (the class is never said)"
        recall = self.recall.sentence() if self.recall else "– (no picture is of the class)"
        return f"precision {precision}, recall {recall}"


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
    share = _share("--threshold", words, number) if equals else None
    return Aim(measure, share, positive.strip() or None)


def parse_unsure(words: str) -> float:
    """The accuracy wanted of the answers, from `accuracy=0.98`.

    Raises:
        RecipeError: not of that form, or out of range.
    """
    met = re.fullmatch(r"\s*accuracy\s*=(.*)", words)
    if met is None:
        raise RecipeError(f"--unsure {words}: not of the form that is needed.", hint="Such as accuracy=0.98.")
    return _share("--unsure", words, met[1])


def positive_class(aim: Aim, classes: Sequence[str]) -> str:
    """The class an aim is about.

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
    """The threshold for an aim; None where none reaches it.

    For a precision the lowest that reaches it, which finds the most pictures; for a recall the highest, which is wrong
    about the fewest; for f1 the one where it is largest. Between two pictures it lies in the middle.

    Args:
        probability: (N,) float64, of the positive class, of held-out pictures.
        positive: (N,) bool, whether they are of it.
    """
    levels, said, right = _by_probability(probability, positive)
    count = int(positive.sum())
    if count == 0:
        return None
    if aim.share is None:
        best = int(np.argmax(2 * right / (said + count)))
    else:
        enough = right >= aim.share * (said if aim.measure == "precision" else count) - 1e-9
        (reaching,) = np.nonzero(enough & (right > 0))
        if not len(reaching):
            return None
        best = int(reaching[-1] if aim.measure == "precision" else reaching[0])
    return 0.0 if best == len(levels) - 1 else between(float(levels[best]), float(levels[best + 1]))


def highest_precision(probability: Floats, positive: Bools) -> float:
    """The largest precision that any threshold comes to, (N,) each."""
    _, said, right = _by_probability(probability, positive)
    return float((right / said).max())


def reached(probability: Floats, positive: Bools, threshold: float) -> Reached:
    """Count what a threshold makes of pictures, (N,) each."""
    said = probability >= threshold
    return Reached(int((said & positive).sum()), int(said.sum()), int(positive.sum()))


def _by_probability(probability: Floats, positive: Bools) -> tuple[Floats, Floats, Floats]:
    """Each different probability, highest first; how many pictures have it or more, and how many are positive."""
    levels, place = np.unique(-probability, return_inverse=True)
    said = np.cumsum(np.bincount(place, minlength=len(levels))).astype(np.float64)
    right = np.cumsum(np.bincount(place, positive, minlength=len(levels))).astype(np.float64)
    return -levels, said, right


def _share(option: str, words: str, number: str) -> float:
    try:
        share = float(number)
    except ValueError:
        raise RecipeError(f"{option} {words}: {number} is no number.", hint="A share, such as 0.99.") from None
    if not 0 < share <= 1:
        raise RecipeError(f"{option} {words}: {number} must be above 0 and at most 1.", hint="A share, such as 0.99.")
    return share


POINTS = 20
"""Of the curve: every twentieth of the pictures."""


@dataclass(frozen=True)
class CoveragePoint:
    """What comes of answering the pictures of at least some confidence."""

    coverage: float
    """Share of the pictures that are answered, above 0 to 1."""
    accuracy: float
    """Share of these that are right, 0 to 1."""
    unsure_below: float
    """The probability of the least sure answer that is still given."""
    count: int
    """Pictures that are answered."""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Answered:
    """The pictures that a model is not unsure of."""

    correct: int
    count: int
    of: int
    """All pictures."""

    @property
    def proportion(self) -> Proportion | None:
        """Right among the answered; None where none was answered."""
        return Proportion(self.correct, self.count) if self.count else None

    def sentence(self) -> str:
        """Such as `380 of 400 pictures answered, accuracy 0.990 (376 of 380, 95% interval 0.973–0.996)`."""
        right = f"accuracy {self.proportion.sentence()}" if self.proportion else "so there is no accuracy"
        return f"{self.count} of {self.of} pictures answered, {right}"

    def as_json(self) -> dict[str, Any]:
        """`count`, `of`, `correct`, `accuracy` and `interval`; the last two null where none was answered."""
        share = self.proportion
        return {
            "count": self.count,
            "of": self.of,
            "correct": self.correct,
            "accuracy": share and share.value,
            "interval": share and list(share.interval),
        }


def answered(right: Bools, unsure: Bools) -> Answered:
    """Count the pictures that are answered, from (N,) bool each."""
    return Answered(int((right & ~unsure).sum()), int((~unsure).sum()), len(right))


def coverage_curve(confidence: Floats, right: Bools) -> tuple[CoveragePoint, ...]:
    """From all pictures answered down to a twentieth of them, the surest; pictures of equal confidence go together.

    Args:
        confidence: (N,) float64, the probability of the class that is said.
        right: (N,) bool.
    """
    levels, counts, hits = _by_confidence(confidence, right)
    wanted = np.ceil(np.arange(POINTS, 0, -1) / POINTS * len(right))
    places = list(dict.fromkeys(np.searchsorted(counts, wanted, side="left").tolist()))
    return tuple(
        CoveragePoint(counts[i] / len(right), hits[i] / counts[i], float(levels[i]), int(counts[i])) for i in places
    )


def choose_unsure(confidence: Floats, right: Bools, accuracy: float) -> float | None:
    """The lowest bound above which the answers are right at least so often; 0 where they all are, None where no bound
    reaches it.

    Args:
        confidence: (N,) float64, of held-out pictures.
        right: (N,) bool.
        accuracy: wanted of the answers, above 0 to 1.
    """
    levels, counts, hits = _by_confidence(confidence, right)
    (reaching,) = np.nonzero(hits >= accuracy * counts - 1e-9)
    if not len(reaching):
        return None
    last = int(reaching[-1])
    return 0.0 if last == len(levels) - 1 else between(float(levels[last]), float(levels[last + 1]))


def highest_accuracy(confidence: Floats, right: Bools) -> float:
    """The largest accuracy that any bound comes to, (N,) each."""
    _, counts, hits = _by_confidence(confidence, right)
    return float((hits / counts).max())


def between(high: float, low: float) -> float:
    """A bound that `high` reaches and `low` does not, as far from both as numbers allow."""
    middle = (high + low) / 2
    return middle if middle > low else high


def _by_confidence(confidence: Floats, right: Bools) -> tuple[Floats, Floats, Floats]:
    """Each different confidence, highest first; how many pictures have it or more, and how many of these are right."""
    levels, place = np.unique(-confidence, return_inverse=True)
    counts = np.cumsum(np.bincount(place, minlength=len(levels)))
    hits = np.cumsum(np.bincount(place, right, minlength=len(levels))).astype(np.float64)
    return -levels, counts.astype(np.float64), hits
