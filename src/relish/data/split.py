"""Hold out the splits that a dataset lacks, and deal images to folds.

Which images are held out, stratified by class, depends on the seed and on the images' contents, not on the order of
files on the disk, so that two computers validate on the same ones. Copies of a file, and images of one group, stay on
one side: they would only measure memorisation.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import RecipeError
from relish.core.runtime import derive_seed
from relish.data.dataset import (
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    Split,
    TooFewImages,
    check_trainable,
    named_counts,
)
from relish.data.groups import is_group, not_on_both_sides, refuse_large_groups


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to `count - 1`, ascending, from the first to the last.

    A split is sorted by class, so such a sample has every class in about its proportion.
    """
    return [int(position) for position in np.linspace(0, count - 1, min(count, most)).round()]


@dataclass(frozen=True)
class _Unit:
    """Images that must stay on one side."""

    positions: tuple[int, ...]
    sizes: Mapping[int, int]
    """Images of each class."""
    contradicts: bool
    """Whether they are copies of a file that are labelled differently."""


def with_validation(dataset: Dataset, fraction: float, seed: int, units: Mapping[Path, str] | None = None) -> Dataset:
    """Hold out a share of each class's images for validation.

    Args:
        dataset: one with `train` or `all`; if it has `validation` already, it comes back as it is.
        fraction: share of each class's images to hold out, between 0 and 1. Each class gets the nearest whole
            number of images, as far as units allow, but at least one on each side.
        seed: of the random order in which images are held out.
        units: by path, as `units_of` gives them; without it each image stands alone.

    Raises:
        RecipeError: the fraction is not between 0 and 1.
        DataError: there are no training images, or one class only; or a group is too large to be on one side.
        TooFewImages: a class has no two different images, one to train on and one to validate on.
    """
    check_trainable(dataset)
    if VALIDATION in dataset.splits:
        return dataset
    if not 0 < fraction < 1:
        raise RecipeError(f"val_split must be above 0 and below 1, got {fraction}.")
    divided, units = TRAIN if TRAIN in dataset.splits else WHOLE, units or {}
    split = dataset.splits[divided]
    refuse_large_groups(dataset, split, units, fraction, each_class=True)
    # Of each class at least one image is held out, and at least one is left.
    counts = split.counts(len(dataset.classes)).tolist()
    targets = [max(1, min(count - 1, round(fraction * count))) for count in counts]
    held_out = _hold_out(_ordered_units(dataset, split, seed, units), targets)
    _refuse_one_sided_classes(dataset, split, held_out, units)
    train = split.take([i for i in range(len(split)) if i not in held_out])
    others = {name: other for name, other in dataset.splits.items() if name != divided}
    return dataset.with_splits({TRAIN: train, VALIDATION: split.take(sorted(held_out))} | others)


def _ordered_units(dataset: Dataset, split: Split, seed: int, units: Mapping[Path, str]) -> list[_Unit]:
    """The units in a random order: each has a seed of its own, so that adding an image moves few others."""
    inside: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(split.paths):
        inside[units.get(path) or f"name/{dataset.label(path)}"].append(position)
    sizes = {name: Counter(split.labels[inside[name]].tolist()) for name in inside}
    return [
        _Unit(tuple(inside[name]), sizes[name], contradicts=len(sizes[name]) > 1 and not is_group(name))
        for name in sorted(inside, key=lambda name: (derive_seed(seed, f"validation/{name}"), name))
    ]


def _hold_out(units: list[_Unit], targets: list[int]) -> set[int]:
    """Positions for validation.

    Units come in turn as long as they fit; a class that has none by then takes its smallest one. A file with several
    labels is held out only where a class has nothing else, and only while all its classes keep some.
    """
    side = _ValidationSide(units, targets)
    for unit in units:
        if not unit.contradicts and side.fits(unit):
            side.add(unit)
    by_size = sorted(units, key=lambda u: (len(u.sizes), len(u.positions)))  # stable: equals stay in random order
    for label in range(len(targets)):
        small = [u for u in by_size if label in u.sizes and side.leaves_some(u)]
        if not side.counts[label] and small:
            side.add(small[0])
    for unit in by_size:
        if not unit.contradicts and side.leaves_some(unit) and side.comes_closer(unit):
            side.add(unit)
    return side.positions


class _ValidationSide:
    """The validation split while it fills."""

    def __init__(self, units: list[_Unit], targets: list[int]) -> None:
        self.positions: set[int] = set()
        self.targets = targets
        self.counts = [0] * len(targets)
        self.totals = [sum(unit.sizes.get(label, 0) for unit in units) for label in range(len(targets))]

    def add(self, unit: _Unit) -> None:
        self.positions.update(unit.positions)
        for label, size in unit.sizes.items():
            self.counts[label] += size

    def fits(self, unit: _Unit) -> bool:
        return all(self.counts[label] + size <= self.targets[label] for label, size in unit.sizes.items())

    def leaves_some(self, unit: _Unit) -> bool:
        new = unit.positions[0] not in self.positions
        return new and all(self.counts[label] + size < self.totals[label] for label, size in unit.sizes.items())

    def comes_closer(self, unit: _Unit) -> bool:
        missing = {label: self.targets[label] - self.counts[label] for label in unit.sizes}
        after = sum(abs(missing[label] - size) for label, size in unit.sizes.items())
        return after < sum(map(abs, missing.values()))


def _refuse_one_sided_classes(dataset: Dataset, split: Split, held_out: set[int], units: Mapping[Path, str]) -> None:
    counts = named_counts(dataset, split)
    validation = Counter(split.labels[list(held_out)].tolist())
    for label, name in enumerate(dataset.classes):
        if not 0 < validation[label] < counts[name]:
            own = {units.get(split.paths[i], "") for i in np.flatnonzero(split.labels == label)}
            if counts[name] > 1 and any(map(is_group, own)):
                raise not_on_both_sides(dataset, name, own)
            copies = "Its pictures are copies of each other, or of another class's: copies count as one."
            notes = (*[copies] * (counts[name] > 1), *dataset.warnings)
            raise TooFewImages(dataset.name, name, 2, "one to learn from and one to check with", counts, notes)


# ---- folds of cross-validation --------------------------------------------------------------------------------------


Labels = npt.NDArray[np.int64]
NEVER = -1
"""The fold of an image that is never held out."""


def stratified_folds(labels: Labels, units: Sequence[str], folds: int, seed: int) -> Labels:
    """Deal the images of each class to the folds, whole units at a time.

    Larger units come first, in a random order. Each goes to the fold with the least of its classes, which keeps small
    the sum over folds and classes of (images of the class in the fold)² / (images of the class). So units of one image,
    as all are where no groups are known, go to the folds in turn, class by class.

    Args:
        labels: (N,) int64.
        units: N keys; images of one go to one fold: a group's (`is_group`), or copies, which count as the first alone.
        folds: their number, 2 or more.
        seed: of the random order.

    Returns:
        (N,) int64 from 0 to `folds` - 1, or `NEVER`: of a unit whose classes all have fewer units than folds; and of
        one without which a class would be missing from training.
    """
    sizes = _sizes_of_units(labels, units)
    have = Counter(label for size in sizes.values() for label in size)
    totals = Counter(label for size in sizes.values() for label in size.elements())

    def order(unit: str) -> tuple[int, int, int, str]:
        twice_as_large = sizes[unit].total().bit_length()  # the rest of the order is left to chance
        return -twice_as_large, min(sizes[unit]), derive_seed(seed, f"fold/{unit}"), unit

    dealt = (unit for unit, size in sizes.items() if any(have[label] >= folds for label in size))
    images, met = ({label: [0] * folds for label in have} for _ in range(2))
    filled, fold_of = [0] * folds, dict.fromkeys(sizes, NEVER)
    for unit in sorted(dealt, key=order):
        size = sorted(sizes[unit].items())
        costs: Iterable[tuple[float, int, int]] = (
            (sum(count * images[label][fold] / totals[label] for label, count in size), filled[fold], fold)
            for fold in range(folds)
            if all(met[label][fold] + 1 < have[label] for label, _ in size)
        )
        if len(size) == 1:  # the same order, sooner
            costs = zip(images[size[0][0]], filled, range(folds), strict=True)
        fold_of[unit] = fold = min(costs, default=(0, 0, NEVER))[2]
        for label, count in size if fold != NEVER else ():
            images[label][fold] += count
            met[label][fold] += 1
            filled[fold] += count
    return np.array([fold_of[unit] for unit in units], dtype=np.int64)


def _sizes_of_units(labels: Labels, units: Sequence[str]) -> dict[str, Counter[int]]:
    """How many images of each class count in a unit."""
    sizes: dict[str, Counter[int]] = {}
    for unit, label in zip(units, labels.tolist(), strict=True):
        if unit not in sizes:
            sizes[unit] = Counter({label: 1})
        elif is_group(unit):
            sizes[unit][label] += 1
    return sizes


def usable_folds(labels: Labels, units: Sequence[str], most: int) -> int:
    """The number of folds that at least half of the classes have units for, from 2 to `most`."""
    different = set(zip(labels.tolist(), units, strict=True))
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
