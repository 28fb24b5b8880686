"""Divide images into train, validation and folds: class by class, copies of a file on one side.

Which images are held out depends on the seed and on the images' contents, not on the order a disk lists them in, so
that two computers validate on the same ones. A copy of an image that was trained on would only measure memory.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import RecipeError
from relish.core.runtime import derive_seed
from relish.data.dataset import TRAIN, VALIDATION, WHOLE, Dataset, Split, TooFewImages, check_trainable, named_counts


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to `count - 1`, ascending, from the first to the last.

    A split is sorted by class, so such a sample has every class in about its proportion.
    """
    return [int(position) for position in np.linspace(0, count - 1, min(count, most)).round()]


@dataclass(frozen=True)
class _Group:
    """Images that must stay on one side: those with the same bytes."""

    positions: tuple[int, ...]
    sizes: Mapping[int, int]
    """Images of each class; more than one class where copies of a file are labelled differently."""


def with_validation(
    dataset: Dataset, fraction: float, seed: int, fingerprints: Mapping[Path, str] | None = None
) -> Dataset:
    """Hold out a share of each class's images for validation.

    Args:
        dataset: one with `train` or `all`; if it has `validation` already, it comes back as it is.
        fraction: share of each class's images to hold out, between 0 and 1. Each class gets the nearest whole
            number of images, but at least one on each side.
        seed: the only source of chance here.
        fingerprints: SHA-256 by path; without it every image counts as unlike any other.

    Raises:
        RecipeError: the fraction is not between 0 and 1.
        DataError: there is nothing to learn from, or one class only.
        TooFewImages: a class has no two different images, one to learn from and one to check with.
    """
    check_trainable(dataset)
    if VALIDATION in dataset.splits:
        return dataset
    if not 0 < fraction < 1:
        raise RecipeError(f"val_split must be above 0 and below 1, got {fraction}.")
    whole = TRAIN if TRAIN in dataset.splits else WHOLE
    split = dataset.splits[whole]
    held = _hold_out(_ordered_groups(dataset, split, seed, fingerprints or {}), _targets(dataset, split, fraction))
    _refuse_one_sided_classes(dataset, split, held)
    parts = {
        TRAIN: split.take([i for i in range(len(split)) if i not in held]),
        VALIDATION: split.take(sorted(held)),
    }
    return dataset.with_splits(parts | {name: s for name, s in dataset.splits.items() if name != whole})


def _ordered_groups(dataset: Dataset, split: Split, seed: int, fingerprints: Mapping[Path, str]) -> list[_Group]:
    """The groups in an order drawn from the seed: each has its own draw, so that adding an image moves few others."""
    together: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(split.paths):
        together[fingerprints.get(path) or f"name/{dataset.label(path)}"].append(position)
    names = sorted(together, key=lambda name: (derive_seed(seed, f"validation/{name}"), name))
    return [_group(split, together[name]) for name in names]


def _group(split: Split, positions: list[int]) -> _Group:
    return _Group(tuple(positions), Counter(int(split.labels[i]) for i in positions))


def _targets(dataset: Dataset, split: Split, fraction: float) -> list[int]:
    """How many images of each class to hold out: at least one, at most all but one."""
    counts = split.counts(len(dataset.classes)).tolist()
    return [max(1, min(count - 1, round(fraction * count))) for count in counts]


def _hold_out(groups: list[_Group], targets: list[int]) -> set[int]:
    """Positions for validation.

    Groups of one class first, as long as they fit; a class that has none by then takes its smallest group. A file
    under several labels is held out only where a class has nothing else, and only while all its classes keep some.
    """
    side = _Side(groups, len(targets))
    for group in groups:
        if len(group.sizes) == 1 and side.fits(group, targets):
            side.hold(group)
    by_size = sorted(groups, key=lambda g: (len(g.sizes), len(g.positions)))  # stable: equals stay in drawn order
    for label in range(len(targets)):
        small = [g for g in by_size if label in g.sizes and side.leaves_some(g)]
        if not side.held[label] and small:
            side.hold(small[0])
    for group in by_size:
        if len(group.sizes) == 1 and side.comes_closer(group, targets):
            side.hold(group)
    return side.positions


class _Side:
    """The validation side while it fills."""

    def __init__(self, groups: list[_Group], classes: int) -> None:
        self.positions: set[int] = set()
        self.held = [0] * classes
        self.total = [sum(group.sizes.get(label, 0) for group in groups) for label in range(classes)]

    def hold(self, group: _Group) -> None:
        self.positions.update(group.positions)
        for label, size in group.sizes.items():
            self.held[label] += size

    def fits(self, group: _Group, targets: list[int]) -> bool:
        return all(self.held[label] + size <= targets[label] for label, size in group.sizes.items())

    def leaves_some(self, group: _Group) -> bool:
        new = group.positions[0] not in self.positions
        return new and all(self.held[label] + size < self.total[label] for label, size in group.sizes.items())

    def comes_closer(self, group: _Group, targets: list[int]) -> bool:
        return self.leaves_some(group) and all(
            abs(self.held[label] + size - targets[label]) < abs(self.held[label] - targets[label])
            for label, size in group.sizes.items()
        )


def _refuse_one_sided_classes(dataset: Dataset, split: Split, held: set[int]) -> None:
    counts = named_counts(dataset, split)
    here = Counter(int(split.labels[i]) for i in held)
    for label, name in enumerate(dataset.classes):
        if not 0 < here[label] < counts[name]:
            notes = dataset.warnings
            if counts[name] > 1:
                copies = "Its pictures are copies of each other, or of another class's: copies count as one."
                notes = (copies, *notes)
            raise TooFewImages(dataset.name, name, 2, "one to learn from and one to check with", counts, notes)


# ---- folds of cross-validation --------------------------------------------------------------------------------------


Labels = npt.NDArray[np.int64]


NEVER = -1
"""The fold of an image that is always learned from."""


def stratified_folds(labels: Labels, contents: Sequence[str], folds: int, seed: int) -> Labels:
    """Deal the images of each class out to the folds in turn, in an order drawn from the seed.

    Args:
        labels: (N,) int64.
        contents: N hashes; images of equal hash count as one and go to one fold, by the label of the first.
        folds: how many, 2 or more.
        seed: the only source of chance here.

    Returns:
        (N,) int64 from 0 to `folds` - 1, or `NEVER` for a class with fewer different images than folds: it is too
        rare to be held out, and would be missing from what is learned.
    """
    first: dict[str, int] = {}
    for content, label in zip(contents, labels.tolist(), strict=True):
        first.setdefault(content, label)
    different = Counter(first.values())
    # The turn goes on from class to class, so that the folds stay equally large where classes are small.
    dealt = sorted(
        (content for content, label in first.items() if different[label] >= folds),
        key=lambda content: (first[content], derive_seed(seed, f"fold/{content}"), content),
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
    """The positions of about so many images, each class in its share and at least once, drawn from the seed.

    Returns:
        (n,) int64, ascending; all of them where there are no more. A class is never left out, so n may be above
        `count` where classes are many.
    """
    if len(labels) <= count:
        return np.arange(len(labels), dtype=np.int64)
    order = sorted(range(len(labels)), key=lambda i: (derive_seed(seed, f"sample/{contents[i]}"), contents[i], i))
    sizes, met = np.bincount(labels), np.zeros(int(labels.max()) + 1)
    rank = np.empty(len(labels))
    for i in order:
        # 0 for the first of a class, so that none is left out; from there on in the class's own share.
        rank[i] = 0.0 if met[labels[i]] == 0 else (met[labels[i]] + 0.5) / sizes[labels[i]]
        met[labels[i]] += 1
    least = int((rank == 0.0).sum())
    chosen = np.argsort(rank, kind="stable")[: max(count, least)]
    return np.sort(chosen).astype(np.int64)
