"""How far chance alone could have moved a figure that is no plain proportion.

In:   a confusion matrix.
Out:  `Estimate`s: a value with the interval of a stratified bootstrap.
Not here: proportions, which have Wilson's interval (`metrics.py`), and the area under the curve (`ranking.py`).

Pictures are drawn again class by class, so that every draw has the classes in the sizes they have. What a draw makes of
a class is a multinomial count over its row of the confusion matrix: no picture has to be looked at again, and a hundred
thousand of them cost what a hundred do.

A resample holds no error that the pictures do not hold: where none was wrong, the interval has no width. How little
that proves with few pictures, the interval of the accuracy says.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.runtime import rng_for
from relish.evaluation.metrics import Scores

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
