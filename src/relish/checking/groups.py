"""Pairs of alike pictures joined into groups, and what borders a group crosses.

In:   pairs of positions.
Out:  groups; the splits and classes that each spans.
Not here: finding the pairs (`near.py`), what is said of a group (`duplicates.py`).
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from relish.checking.collection import Collection, Positions
from relish.data.findings import Border


def joined(count: int, pairs: Positions) -> Positions:
    """Which group each picture is in, where a pair joins two groups into one.

    Args:
        count: N, how many pictures.
        pairs: (P, 2) int64 positions.

    Returns:
        (N,) int64; a picture in no pair has a group of its own.
    """
    if not count:
        return np.zeros(0, dtype=np.int64)
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found: Positions = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def several(group_of: npt.NDArray[np.int64]) -> list[Positions]:
    """The groups of two pictures and more, each ascending, in the order of their first pictures."""
    order = np.argsort(group_of, kind="stable")
    cuts = np.flatnonzero(np.diff(group_of[order])) + 1
    return sorted((g for g in np.split(order, cuts) if len(g) > 1), key=lambda group: int(group[0]))


def equal_rows(values: npt.NDArray[np.generic]) -> Positions:
    """(N,) int64: pictures of equal value get equal numbers."""
    found: Positions = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return found


def crossed(pictures: Collection, group: Positions) -> tuple[Border, ...]:
    """What a group crosses: `split`, `class`, both or nothing."""
    borders: list[Border] = []
    if len(np.unique(pictures.splits[group])) > 1:
        borders.append("split")
    if len(np.unique(pictures.labels[group])) > 1:
        borders.append("class")
    return tuple(borders)
