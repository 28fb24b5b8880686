"""Make the validation split, where a dataset brings none.

In:   a dataset, the share to hold out, a seed, and fingerprints of the files where they are known.
Out:  the same dataset with `train` and `validation`; `test` is never touched.
Not here: reading the files to fingerprint them (`survey.py`).

Which pictures are held out depends on the seed and on the pictures, not on the order a disk lists them in, so that
two computers validate on the same ones. Files with the same bytes stay together: a copy of a picture that was
learned from would only measure memory.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relish.core.errors import RecipeError
from relish.core.seeds import derive
from relish.data.classes import TooFewPictures, check_trainable, named_counts
from relish.data.dataset import TRAIN, VALIDATION, WHOLE, Dataset, Split


@dataclass(frozen=True)
class _Group:
    """Pictures that must stay on one side: those with the same bytes."""

    positions: tuple[int, ...]
    sizes: Mapping[int, int]
    """Pictures of each class; more than one class where copies of a file are labelled differently."""


def with_validation(
    dataset: Dataset, fraction: float, seed: int, fingerprints: Mapping[Path, str] | None = None
) -> Dataset:
    """Hold out a share of each class's pictures for validation.

    Args:
        dataset: one with `train` or `all`; if it has `validation` already, it comes back as it is.
        fraction: share of each class's pictures to hold out, between 0 and 1. Each class gets the nearest whole
            number of pictures, but at least one on each side.
        seed: the only source of chance here.
        fingerprints: SHA-256 by path; without it every picture counts as unlike any other.

    Raises:
        RecipeError: the fraction is not between 0 and 1.
        DataError: there is nothing to learn from, or one class only.
        TooFewPictures: a class has no two different pictures, one to learn from and one to check with.
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
    """The groups in an order drawn from the seed: each has its own draw, so that adding a picture moves few others."""
    together: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(split.paths):
        together[fingerprints.get(path) or f"name/{dataset.label(path)}"].append(position)
    names = sorted(together, key=lambda name: (derive(seed, f"validation/{name}"), name))
    return [_group(split, together[name]) for name in names]


def _group(split: Split, positions: list[int]) -> _Group:
    return _Group(tuple(positions), Counter(int(split.labels[i]) for i in positions))


def _targets(dataset: Dataset, split: Split, fraction: float) -> list[int]:
    """How many pictures of each class to hold out: at least one, at most all but one."""
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
            raise TooFewPictures(dataset.name, name, 2, "one to learn from and one to check with", counts, notes)
