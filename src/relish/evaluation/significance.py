"""Whether one model is better than another on the same images, or whether chance explains the difference.

Both tests are paired, so they find differences that two overlapping intervals hide. McNemar's test compares finished
models by which images each gets right; where images come in groups, a group counts as one throw of the coin, however
many images it has. Model selection compares the loss of each image instead, which says more than
accuracy on a few hundred images; each model is first brought to its best temperature, because overconfidence is mended
afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import RunError

SIGNIFICANT = 0.05
"""A p-value below this counts as a difference."""


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's exact test, by image or by group."""

    only_first: int
    """Images that only the first classifier gets right."""
    only_second: int
    """Images that only the second one gets right."""
    p_value: float
    """0 to 1: the probability that two equally good classifiers differ by this much or more."""
    by_group: bool = False
    """Whether groups were tested rather than images."""

    @property
    def differs(self) -> bool:
        """Whether the p-value is below `SIGNIFICANT`."""
        return self.p_value < SIGNIFICANT

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
        """As the function `p_words`, and whether it is by group."""
        return p_words(self.p_value) + " by group" * self.by_group


def p_words(p_value: float) -> str:
    """Such as `p = 0.005` or `p < 0.001`; a digit more where rounding would hide which side of 0.05 it is on."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.{4 if round(p_value, 3) == SIGNIFICANT else 3}f}"


def mcnemar(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None = None
) -> McNemar:
    """Test whether two classifiers err equally often on the same images.

    By group, the difference of the two in each group is kept, and its sign is a coin's: where neither is better, each
    is as likely to be ahead. The p-value counts all assignments of signs, so it is exact for few groups too; where each
    image is a group of its own it is that of McNemar's exact test.

    Args:
        first: (N,) bool, whether the first classifier is right on each image.
        second: (N,) bool, the same of the second, images in the same order.
        groups: (N,) int64, from 0; None: images are independent.

    Returns:
        The counts and the exact two-sided p-value, which is 1 where the two never differ.

    Raises:
        RunError: the two arrays differ in length.

    Source: McNemar 1947, Psychometrika 12, pages 153-157; signs as in Fisher 1935, The Design of Experiments, section
        21.
    """
    if first.shape != second.shape:
        raise RunError(
            f"one run was judged on {len(first)} pictures, the other on {len(second)}: "
            "a paired test needs the same ones.",
            hint="Evaluate both on the same split of the same data.",
        )
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    ahead = first.astype(np.int64) - second
    sums = ahead if groups is None else np.rint(np.bincount(groups, weights=ahead)).astype(np.int64)
    return McNemar(only_first, only_second, _sign_test(sums), groups is not None)


def _sign_test(sums: npt.NDArray[np.int64]) -> float:
    """How likely a sum at least as far from 0 is, if every one of (G,) numbers had its sign by a coin."""
    from scipy.stats import binom  # late: SciPy takes long to import, and few commands compare models

    spread = np.ones(1)  # at i: the probability that those with a plus come to i
    for size, times in zip(*np.unique(np.abs(sums[sums != 0]), return_counts=True), strict=True):
        several = np.zeros(size * times + 1)
        several[::size] = binom.pmf(np.arange(times + 1), times, 0.5)
        spread = np.convolve(spread, several)
    distances = np.abs(2 * np.arange(len(spread)) - (len(spread) - 1))
    return min(1.0, float(spread[distances >= abs(sums.sum())].sum()))


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
    """Standard error of `gain` over the images, or over their groups, in nats."""
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


def compare_losses(
    probabilities: Probabilities, simpler: Probabilities, labels: Labels, groups: Labels | None = None
) -> Verdict:
    """Compare a model with a simpler one by their (N, K) probabilities on the same images of (N,) labels.

    Args:
        groups: (N,) int64, from 0, of which the standard error is then one; None: images are independent.
    """
    gains = tempered_losses(simpler, labels) - tempered_losses(probabilities, labels)
    return Verdict(
        gain=float(gains.mean()),
        error=standard_error(gains, groups),
        right=int((probabilities.argmax(1) == labels).sum()),
        right_before=int((simpler.argmax(1) == labels).sum()),
        count=len(labels),
    )


def standard_error(gains: npt.NDArray[np.float64], groups: Labels | None) -> float:
    """Of the mean of (N,) numbers, over images or over groups of them; infinite of a single one."""
    apart = gains - gains.mean()
    if groups is not None:
        apart = np.bincount(groups, weights=apart)[np.unique(groups)]
    count = len(apart)
    return float(np.sqrt(count / (count - 1) * (apart**2).sum()) / len(gains)) if count > 1 else float("inf")


def tempered_losses(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.float64]:
    """The loss of each image in nats, (N,) float64, at the temperature where their mean is smallest.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # late, as above
    from scipy.special import log_softmax

    logs, images = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST)), np.arange(len(labels))

    def losses(log_temperature: float) -> npt.NDArray[np.float64]:
        return np.asarray(-log_softmax(logs / np.exp(log_temperature), axis=1)[images, labels])

    found = minimize_scalar(lambda t: losses(t).mean(), bounds=(-3.0, 3.0), method="bounded")
    return losses(float(found.x))
