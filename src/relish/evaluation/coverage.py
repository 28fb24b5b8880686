"""What is gained by not answering: the surer a model has to be, the fewer pictures it answers, and the fewer wrong.

In:   for each picture the probability of the class that is said, and whether it is right.
Out:  the curve of accuracy over coverage; the bound below which to be unsure, for a stated accuracy.

Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, Journal of Machine Learning
Research 11; for networks Geifman and El-Yaniv 2017, arXiv:1705.08500, where the softmax response is the confidence.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.evaluation.metrics import Proportion

POINTS = 20
"""Of the curve: every twentieth of the pictures."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
