"""Whether one model is better than another on the same images, or whether chance explains the difference.

Both tests are paired, so they find differences that two overlapping intervals hide. McNemar's test compares finished
models by which images each gets right. Model selection compares the loss of each image instead, which says more than
accuracy on a few hundred images; each model is first brought to its best temperature, because overconfidence is mended
afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest

from relish.core.errors import RunError

LEVEL = 0.05
"""A p-value below this counts as a difference."""


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's exact test."""

    only_first: int
    """Images that only the first classifier gets right."""
    only_second: int
    """Images that only the second one gets right."""
    p_value: float
    """0 to 1: the probability that two equally good classifiers differ by this much or more."""

    @property
    def differs(self) -> bool:
        """Whether the p-value is below `LEVEL`."""
        return self.p_value < LEVEL

    def sentence(self, first: str, second: str) -> str:
        """The result in words, with the names of the two."""
        if self.only_first == self.only_second == 0:
            return f"{first} and {second} are right on the same pictures."
        better = first if self.only_first > self.only_second else second
        verdict = f"so {better} is better" if self.differs else "so the difference could be chance"
        pictures = "1 picture" if self.only_first == 1 else f"{self.only_first} pictures"
        return (
            f"{first} is right on {pictures} that {second} gets wrong, {second} on {self.only_second}: "
            f"{self.p_words()}, {verdict}."
        )

    def p_words(self) -> str:
        """Such as `p = 0.005` or `p < 0.001`; a digit more where rounding would hide which side of 0.05 it is on."""
        if self.p_value < 0.001:
            return "p < 0.001"
        return f"p = {self.p_value:.{4 if round(self.p_value, 3) == LEVEL else 3}f}"


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Test whether two classifiers err equally often on the same images.

    Args:
        first: (N,) bool, whether the first classifier is right on each image.
        second: (N,) bool, the same of the second, images in the same order.

    Returns:
        The counts and the exact two-sided p-value, which is 1 where the two never differ.

    Raises:
        RunError: the two arrays differ in length.

    Source: McNemar 1947, Psychometrika 12, pages 153-157; exact binomial form.
    """
    if first.shape != second.shape:
        raise RunError(
            f"one run was judged on {len(first)} pictures, the other on {len(second)}: "
            "a paired test needs the same ones.",
            hint="Evaluate both on the same split of the same data.",
        )
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    either = only_first + only_second
    p_value = float(binomtest(only_first, either, 0.5).pvalue) if either else 1.0
    return McNemar(only_first, only_second, p_value)


Probabilities = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]

_SMALLEST = 1e-12
"""Probabilities are raised to this, so that a single image costs at most 28 nats."""


@dataclass(frozen=True)
class Verdict:
    """Whether a model is better than a simpler one, by the paired losses of the same images."""

    gain: float
    """Mean loss of the simpler model minus that of the other, in nats."""
    error: float
    """Standard error of `gain` over the images, in nats."""
    right: int
    """Images that the model has right."""
    right_before: int
    """Images that the simpler model has right."""
    count: int

    @property
    def better(self) -> bool:
        """Whether the loss is lower by more than one standard error, with no fewer images right.

        The one-standard-error rule in favour of the simpler model: Breiman et al. 1984, Classification and Regression
        Trees, section 3.4.3.
        """
        return self.gain > self.error and self.right >= self.right_before

    def sentence(self) -> str:
        """Such as `+0.8 points (396 of 420), loss 0.021 ± 0.009 lower: kept`."""
        points = 100 * (self.right - self.right_before) / self.count
        loss = f"loss {abs(self.gain):.3f} ± {self.error:.3f} {'lower' if self.gain >= 0 else 'higher'}"
        kept = "kept" if self.better else "not kept"
        return f"{points:+.1f} points ({self.right} of {self.count}), {loss}: {kept}"


def compare_losses(probabilities: Probabilities, simpler: Probabilities, labels: Labels) -> Verdict:
    """Compare a model with a simpler one by their (N, K) probabilities on the same images of (N,) labels."""
    gains = tempered_losses(simpler, labels) - tempered_losses(probabilities, labels)
    return Verdict(
        gain=float(gains.mean()),
        error=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("inf"),
        right=int((probabilities.argmax(1) == labels).sum()),
        right_before=int((simpler.argmax(1) == labels).sum()),
        count=len(labels),
    )


def tempered_losses(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.float64]:
    """The loss of each image in nats, (N,) float64, at the temperature where their mean is smallest.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    logs, images = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST)), np.arange(len(labels))

    def losses(log_temperature: float) -> npt.NDArray[np.float64]:
        return np.asarray(-log_softmax(logs / np.exp(log_temperature), axis=1)[images, labels])

    found = minimize_scalar(lambda t: losses(t).mean(), bounds=(-3.0, 3.0), method="bounded")
    return losses(float(found.x))
