"""Divide pictures into folds for cross-validation: alike in classes, copies on one side.

In:   labels, and for each picture the hash of its file.
Out:  for each picture the number of its fold.
Not here: the validation split that is held out once (`split.py`).

Which fold a picture is in depends on the seed and on its content, not on the order it is listed in.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from relish.core.seeds import derive

Labels = npt.NDArray[np.int64]


NEVER = -1
"""The fold of a picture that is always learned from."""


def stratified_folds(labels: Labels, contents: Sequence[str], folds: int, seed: int) -> Labels:
    """Deal the pictures of each class out to the folds in turn, in an order drawn from the seed.

    Args:
        labels: (N,) int64.
        contents: N hashes; pictures of equal hash count as one and go to one fold, by the label of the first.
        folds: how many, 2 or more.
        seed: the only source of chance here.

    Returns:
        (N,) int64 from 0 to `folds` - 1, or `NEVER` for a class with fewer different pictures than folds: it is too
        rare to be held out, and would be missing from what is learned.
    """
    first: dict[str, int] = {}
    for content, label in zip(contents, labels.tolist(), strict=True):
        first.setdefault(content, label)
    different = Counter(first.values())
    # The turn goes on from class to class, so that the folds stay equally large where classes are small.
    dealt = sorted(
        (content for content, label in first.items() if different[label] >= folds),
        key=lambda content: (first[content], derive(seed, f"fold/{content}"), content),
    )
    fold_of = {content: turn % folds for turn, content in enumerate(dealt)}
    return np.array([fold_of.get(content, NEVER) for content in contents], dtype=np.int64)


def usable_folds(labels: Labels, contents: Sequence[str], most: int) -> int:
    """As many folds as half of the classes or more can be in, at least 2 and at most `most`."""
    different: dict[int, set[str]] = {}
    for content, label in zip(contents, labels.tolist(), strict=True):
        different.setdefault(label, set()).add(content)
    sizes = sorted(map(len, different.values()))
    return max(2, min(most, sizes[len(sizes) // 2] if sizes else 2))


def stratified_sample(labels: Labels, contents: Sequence[str], count: int, seed: int) -> Labels:
    """The positions of about so many pictures, each class in its share and at least once, drawn from the seed.

    Returns:
        (n,) int64, ascending; all of them where there are no more. A class is never left out, so n may be above
        `count` where classes are many.
    """
    if len(labels) <= count:
        return np.arange(len(labels), dtype=np.int64)
    order = sorted(range(len(labels)), key=lambda i: (derive(seed, f"sample/{contents[i]}"), contents[i], i))
    sizes, met = np.bincount(labels), np.zeros(int(labels.max()) + 1)
    rank = np.empty(len(labels))
    for i in order:
        # 0 for the first of a class, so that none is left out; from there on in the class's own share.
        rank[i] = 0.0 if met[labels[i]] == 0 else (met[labels[i]] + 0.5) / sizes[labels[i]]
        met[labels[i]] += 1
    least = int((rank == 0.0).sum())
    chosen = np.argsort(rank, kind="stable")[: max(count, least)]
    return np.sort(chosen).astype(np.int64)
