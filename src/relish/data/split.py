"""Split images into train, validation and folds: stratified by class, copies of a file on one side.

Which images are held out depends on the seed and on the images' contents, not on the order of files on the disk, so
that two computers validate on the same ones. A copy of a training image would only measure memorisation.
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
        seed: of the random order in which images are held out.
        fingerprints: SHA-256 by path; without it no image counts as a copy.

    Raises:
        RecipeError: the fraction is not between 0 and 1.
        DataError: there are no training images, or one class only.
        TooFewImages: a class has no two different images, one to train on and one to validate on.
    """
    check_trainable(dataset)
    if VALIDATION in dataset.splits:
        return dataset
    if not 0 < fraction < 1:
        raise RecipeError(f"val_split must be above 0 and below 1, got {fraction}.")
    divided = TRAIN if TRAIN in dataset.splits else WHOLE
    split = dataset.splits[divided]
    # Of each class at least one image is held out, and at least one is left.
    counts = split.counts(len(dataset.classes)).tolist()
    targets = [max(1, min(count - 1, round(fraction * count))) for count in counts]
    held_out = _hold_out(_ordered_groups(dataset, split, seed, fingerprints or {}), targets)
    _refuse_one_sided_classes(dataset, split, held_out)
    train = split.take([i for i in range(len(split)) if i not in held_out])
    others = {name: other for name, other in dataset.splits.items() if name != divided}
    return dataset.with_splits({TRAIN: train, VALIDATION: split.take(sorted(held_out))} | others)


def _ordered_groups(dataset: Dataset, split: Split, seed: int, fingerprints: Mapping[Path, str]) -> list[_Group]:
    """The groups in a random order: each has a seed of its own, so that adding an image moves few others."""
    copies: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(split.paths):
        copies[fingerprints.get(path) or f"name/{dataset.label(path)}"].append(position)
    names = sorted(copies, key=lambda name: (derive_seed(seed, f"validation/{name}"), name))
    return [_Group(tuple(copies[name]), Counter(split.labels[copies[name]].tolist())) for name in names]


def _hold_out(groups: list[_Group], targets: list[int]) -> set[int]:
    """Positions for validation.

    Groups of one class come first, as long as they fit; a class that has none by then takes its smallest group. A file
    with several labels is held out only where a class has nothing else, and only while all its classes keep some.
    """
    side = _ValidationSide(groups, targets)
    for group in groups:
        if len(group.sizes) == 1 and side.fits(group):
            side.add(group)
    by_size = sorted(groups, key=lambda g: (len(g.sizes), len(g.positions)))  # stable: equals stay in random order
    for label in range(len(targets)):
        small = [g for g in by_size if label in g.sizes and side.leaves_some(g)]
        if not side.counts[label] and small:
            side.add(small[0])
    for group in by_size:
        if len(group.sizes) == 1 and side.leaves_some(group) and side.comes_closer(group):
            side.add(group)
    return side.positions


class _ValidationSide:
    """The validation split while it fills."""

    def __init__(self, groups: list[_Group], targets: list[int]) -> None:
        self.positions: set[int] = set()
        self.targets = targets
        self.counts = [0] * len(targets)
        self.totals = [sum(group.sizes.get(label, 0) for group in groups) for label in range(len(targets))]

    def add(self, group: _Group) -> None:
        self.positions.update(group.positions)
        for label, size in group.sizes.items():
            self.counts[label] += size

    def fits(self, group: _Group) -> bool:
        return all(self.counts[label] + size <= self.targets[label] for label, size in group.sizes.items())

    def leaves_some(self, group: _Group) -> bool:
        new = group.positions[0] not in self.positions
        return new and all(self.counts[label] + size < self.totals[label] for label, size in group.sizes.items())

    def comes_closer(self, group: _Group) -> bool:
        missing = {label: self.targets[label] - self.counts[label] for label in group.sizes}
        return all(abs(missing[label] - size) < abs(missing[label]) for label, size in group.sizes.items())


def _refuse_one_sided_classes(dataset: Dataset, split: Split, held_out: set[int]) -> None:
    counts = named_counts(dataset, split)
    validation = Counter(split.labels[list(held_out)].tolist())
    for label, name in enumerate(dataset.classes):
        if not 0 < validation[label] < counts[name]:
            notes = dataset.warnings
            if counts[name] > 1:
                copies = "Its pictures are copies of each other, or of another class's: copies count as one."
                notes = (copies, *notes)
            raise TooFewImages(dataset.name, name, 2, "one to learn from and one to check with", counts, notes)


# ---- folds of cross-validation --------------------------------------------------------------------------------------


Labels = npt.NDArray[np.int64]
NEVER = -1
"""The fold of an image that is never held out."""


def stratified_folds(labels: Labels, contents: Sequence[str], folds: int, seed: int) -> Labels:
    """Assign the images of each class to the folds in turn, in a random order.

    Args:
        labels: (N,) int64.
        contents: N hashes; images of equal hash count as one and go to one fold, by the label of the first.
        folds: their number, 2 or more.
        seed: of the random order.

    Returns:
        (N,) int64 from 0 to `folds` - 1, or `NEVER` for a class with fewer different images than folds: held out, it
        would be missing from training.
    """
    first: dict[str, int] = {}
    for content, label in zip(contents, labels.tolist(), strict=True):
        first.setdefault(content, label)
    different = Counter(first.values())
    # The count continues from class to class, so that the folds are equally large where classes are small.
    ordered = sorted(
        (content for content, label in first.items() if different[label] >= folds),
        key=lambda content: (first[content], derive_seed(seed, f"fold/{content}"), content),
    )
    fold_of = {content: turn % folds for turn, content in enumerate(ordered)}
    return np.array([fold_of.get(content, NEVER) for content in contents], dtype=np.int64)


def usable_folds(labels: Labels, contents: Sequence[str], most: int) -> int:
    """The number of folds that at least half of the classes have images for, from 2 to `most`."""
    different = set(zip(labels.tolist(), contents, strict=True))
    sizes = sorted(Counter(label for label, _ in different).values())
    return max(2, min(most, sizes[len(sizes) // 2] if sizes else 2))


def stratified_sample(labels: Labels, contents: Sequence[str], count: int, seed: int) -> Labels:
    """The positions of about `count` random images, each class in proportion and at least once.

    Returns:
        (n,) int64, ascending; all positions where N is at most `count`. Every class is in it, so n may be above
        `count` where classes are many.
    """
    if len(labels) <= count:
        return np.arange(len(labels), dtype=np.int64)
    order = sorted(range(len(labels)), key=lambda i: (derive_seed(seed, f"sample/{contents[i]}"), contents[i], i))
    sizes = np.bincount(labels)
    before = np.zeros_like(sizes)
    rank = np.empty(len(labels))
    for i in order:
        # 0 for the first image of a class, so that no class is left out; then its quantile within the class.
        label = labels[i]
        rank[i] = (before[label] + 0.5) / sizes[label] if before[label] else 0.0
        before[label] += 1
    chosen = np.argsort(rank, kind="stable")[: max(count, np.count_nonzero(sizes))]
    return np.sort(chosen).astype(np.int64)
