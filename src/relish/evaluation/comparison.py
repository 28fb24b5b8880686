"""Whether one classifier is better than another on the same pictures, or only luckier.

In:   for each of the two, which pictures it got right.
Out:  `McNemar`: the two counts that matter, a p-value, and a sentence.

The test is paired: pictures that both get right or both get wrong say nothing about which is better. That is why it
finds differences that two overlapping intervals hide.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from relish.core.errors import RunError

LEVEL = 0.05
"""A p-value below this is taken for a difference."""


@dataclass(frozen=True)
class McNemar:
    """The outcome of McNemar's exact test."""

    only_first: int
    """Pictures that only the first classifier gets right."""
    only_second: int
    """Pictures that only the second one gets right."""
    p_value: float
    """0 to 1: how often two equally good classifiers would differ by this much or more. Near 0 is a difference."""

    @property
    def differs(self) -> bool:
        """Whether chance is an unlikely explanation."""
        return self.p_value < LEVEL

    def sentence(self, first: str, second: str) -> str:
        """The outcome in words, with the names of the two."""
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
    """Test whether two classifiers err equally often on the same pictures.

    Args:
        first: (N,) bool, whether the first classifier is right on each picture.
        second: (N,) bool, the same of the second, pictures in the same order.

    Returns:
        The counts and the exact two-sided p-value, which is 1 where the two never differ.

    Raises:
        RunError: the two were not judged on the same number of pictures.

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
