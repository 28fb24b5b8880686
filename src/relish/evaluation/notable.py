"""Which pictures are worth a look: the most wrong, and those the model was least sure of.

In:   probabilities and labels of the same pictures.
Out:  positions, most notable first.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating[Any]]


def most_wrong(
    probabilities: Probabilities, said: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], most: int
) -> list[int]:
    """Positions of pictures that were given another class, those whose true class was thought least likely first.

    Args:
        probabilities: (N, K) floating point.
        said: (N,) int64, the answers.
        labels: (N,) int64.
        most: how many at most.
    """
    wrong = np.flatnonzero(said != labels)
    worst_first = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return [int(i) for i in wrong[worst_first][:most]]


def least_sure(probabilities: Probabilities, most: int) -> list[int]:
    """Positions of the pictures whose two likeliest classes are closest, right or wrong, closest first.

    Args:
        probabilities: (N, K) floating point, K 2 or more; with one class there is nothing to be unsure of.
        most: how many at most.
    """
    if probabilities.shape[1] < 2:
        return []
    best = np.sort(probabilities, axis=1)[:, -2:]
    return [int(i) for i in np.argsort(best[:, 1] - best[:, 0], kind="stable")[:most]]
