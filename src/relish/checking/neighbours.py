"""The nearest other pictures of each picture in a backbone's feature space.

In:   (N, D) features.
Out:  for each picture the positions of its nearest ones, and how alike they are.
Not here: what that means of copies (`near.py`) or of strays (`off_topic.py`).

Few pictures are all compared. Many are first put into cells around the centres of k-means, and compared within their
own cell and the next ones alone (an inverted file: Jegou, Douze and Schmid 2011, IEEE TPAMI 33(1), section III.C): the
work grows with the number of pictures and not with its square.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

CELL = 2000
"""Pictures that a cell holds on average; up to four times as many are compared without cells."""
_CELLS_LOOKED_IN = 3
_LEARNED_FROM = 20_000
"""Pictures that the centres are learned from."""


def directions(features: Floats) -> Floats:
    """(N, D) float32 of length 1, so that a product of two rows is their cosine."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    found: Floats = features / np.maximum(lengths, np.float32(1e-12))
    return found


def nearest_others(directed: Floats, count: int) -> tuple[Positions, Floats]:
    """Each picture's nearest others, nearest first.

    Args:
        directed: (N, D) float32 of length 1, see `directions`; N is 2 or more.
        count: how many, at most N - 1.

    Returns:
        (N, count) int64 positions, -1 where a cell holds fewer; (N, count) float32 cosines, -1 there.
    """
    positions = np.full((len(directed), count), -1, dtype=np.int64)
    cosines = np.full((len(directed), count), -1.0, dtype=np.float32)
    if not count:
        return positions, cosines
    for mine, held in _cells(directed):
        few = min(count + 1, len(held))
        distances, found = (
            NearestNeighbors(n_neighbors=few, algorithm="brute").fit(directed[held]).kneighbors(directed[mine])
        )
        others = held[found] != mine[:, None]
        others[others.all(1), -1] = False  # among many equal ones it may not be met itself
        positions[mine, : few - 1] = held[found][others].reshape(len(mine), few - 1)
        cosines[mine, : few - 1] = 1 - distances[others].reshape(len(mine), few - 1) ** 2 / 2
    return positions, cosines


def _cells(directed: Floats) -> Iterator[tuple[Positions, Positions]]:
    """For each cell the pictures in it, and those that they are compared with."""
    everything = np.arange(len(directed))
    if len(directed) <= 4 * CELL:
        yield everything, everything
        return
    chance = np.random.RandomState(0)
    some = chance.permutation(len(directed))[:_LEARNED_FROM]
    means = MiniBatchKMeans(len(directed) // CELL, random_state=chance, n_init=1, batch_size=4096).fit(directed[some])
    near = np.argsort(means.transform(directed), axis=1)[:, :_CELLS_LOOKED_IN]  # (N, 3)
    for cell in range(means.n_clusters):
        mine = np.flatnonzero(near[:, 0] == cell)
        if len(mine):
            yield mine, np.flatnonzero((near == cell).any(1))
