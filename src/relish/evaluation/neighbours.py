"""Which pictures that were learned from look most like a given one, to the network.

In:   features of both (`features.py`).
Out:  positions of the nearest, nearest first, with how alike they are.

Two pictures point the same way in feature space where the network sees the same things in them; how long the vectors
are says little, so they are compared by their angle.
"""

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from relish.evaluation.features import Features

Nearest = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Positions, nearest first, and similarities, a row for each picture that was asked about."""


def nearest(learned: Features, asked: Features, count: int) -> Nearest:
    """The nearest of the learned pictures to each that is asked about.

    Args:
        learned: (N, D) float32.
        asked: (M, D) float32.
        count: how many to find; fewer where N is smaller.

    Returns:
        (M, k) int64 positions in `learned`, nearest first; (M, k) float64 cosine similarities, 1 is the same direction.
    """
    search = NearestNeighbors(n_neighbors=min(count, len(learned)), metric="cosine", algorithm="brute").fit(learned)
    distances, positions = search.kneighbors(asked)
    return positions.astype(np.int64), 1.0 - distances
