"""Number the classes, and check them between the splits.

In:   for each split, the paths of each class, by name.
Out:  a `Dataset` whose labels are positions in one sorted list of class names.
Not here: where the names come from (`folders.py`, `tables.py`).

Labels go by name, never by position: a class that the test split lacks would otherwise shift every later class by
one, and a good model would score like a guess.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from relish.core.errors import DataError, nearest
from relish.data.dataset import TEST, TRAIN, VALIDATION, WHOLE, Dataset, Split

ByClass = Mapping[str, Sequence[Path]]
"""Class name to the paths of its pictures; an empty list is a class whose folder holds none."""


class TooFewPictures(DataError):
    """A class with fewer pictures than what was asked for needs.

    Args:
        dataset: its name.
        name: the class.
        need: how many it needs, no unit.
        why: what the pictures are needed for.
        counts: pictures of each class.
        notes: what was left out, which may be why they are missing.
    """

    def __init__(
        self, dataset: str, name: str, need: int, why: str, counts: Mapping[str, int], notes: Sequence[str] = ()
    ) -> None:
        have = counts[name]
        pictures = {0: "no pictures", 1: "1 picture"}.get(have, f"{have:,} pictures")
        found = f'{dataset}: class "{name}" has {pictures}; every class needs at least {need} ({why}).'
        close = nearest(name, [other for other in counts if other != name])
        advice = "Add pictures to it, or remove the class" + (f" ({close})." if close else ".")
        hint = "\n  ".join([f"found: {_counted(counts, name)}", advice, *notes[:3]])
        super().__init__(found, hint=hint)
        self.name, self.need, self.counts = name, need, dict(counts)


def label_by_name(
    pictures: Mapping[str, ByClass],
    *,
    name: str,
    source: str,
    root: Path,
    warnings: Iterable[str] = (),
    learnable: bool = True,
) -> Dataset:
    """Build the dataset whose classes are those of its training split, sorted by code point.

    Args:
        pictures: split name to its classes. Where there is no training split, the classes of all splits count.
        name, source, root: as in `Dataset`.
        warnings: what was noticed so far; classes missing from validation or test are added.
        learnable: refuse what nothing can be learned from; otherwise all classes count, and `problem` says why.

    Raises:
        DataError: if `learnable`, another split has a class that training lacks; or, with a training split, what
            `check_trainable` raises.
    """
    known = {c for split, by_class in pictures.items() for c in by_class if split == TRAIN or TRAIN not in pictures}
    noticed, problem = list(warnings), None
    for split in (VALIDATION, TEST):
        if TRAIN in pictures and split in pictures:
            try:
                _refuse_unknown_classes(name, split, pictures[split], pictures[TRAIN])
            except DataError as error:
                if learnable:
                    raise
                known, problem = {*known, *pictures[split]}, error
    classes = tuple(sorted(known))
    for split in (VALIDATION, TEST):
        if split in pictures:
            noticed += _missing_classes(split, pictures[split], classes)
    order = [split for split in (TRAIN, VALIDATION, TEST, WHOLE) if split in pictures]
    splits = {split: _numbered(pictures[split], classes, root) for split in order}
    dataset = Dataset(name, source, root, classes, splits, tuple(noticed), problem)
    if TRAIN in splits and learnable:
        check_trainable(dataset)
    return dataset


def check_trainable(dataset: Dataset) -> None:
    """See that there is something to learn: two classes or more, none of them empty, in `train` or `all`.

    Raises:
        DataError: there is no such split, or one class only.
        TooFewPictures: a class without pictures to learn from.
    """
    split = dataset.splits.get(TRAIN, dataset.splits.get(WHOLE))
    if split is None:
        have = ", ".join(f'"{s}"' for s in dataset.splits) or "none"
        raise DataError(
            f"{dataset.name}: there are no pictures to learn from (splits found: {have}).",
            hint='Put the class folders to learn from into a folder named "train".',
        )
    counts = named_counts(dataset, split)
    for name, count in counts.items():
        if count == 0:
            raise TooFewPictures(dataset.name, name, 1, "to learn from", counts, dataset.warnings)
    if len(counts) < 2:
        only = ", ".join(f'"{c}"' for c in counts) or "none"
        raise DataError(
            f"{dataset.name}: one class only ({only}); telling classes apart takes at least two.",
            hint="Add a folder with pictures of what it is to be told from, such as not-"
            + (next(iter(counts), "hotdog") + "."),
        )


def named_counts(dataset: Dataset, split: Split) -> dict[str, int]:
    """How many pictures each class has in a split, in class order."""
    return dict(zip(dataset.classes, split.counts(len(dataset.classes)).tolist(), strict=True))


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """`a, b, c and 9 more`: enough to know what is meant, whatever the number."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def _refuse_unknown_classes(name: str, split: str, here: ByClass, training: ByClass) -> None:
    unknown = {c: len(paths) for c, paths in sorted(here.items()) if c not in training and paths}
    if not unknown:
        return
    listed = first_few([f'"{c}" ({count:,} picture{"s" * (count != 1)})' for c, count in unknown.items()])
    guesses = {c: _likely(c, training) for c in unknown}
    advice = [f'"{c}" looks like "{guess}": give it that name.' for c, guess in guesses.items() if guess][:3]
    have = _counted({c: len(paths) for c, paths in sorted(training.items())})
    otherwise = f"Add {'it' if len(unknown) == 1 else 'them'} to training, or move out of {split}."
    raise DataError(
        f"{name}: {split} has what training does not have: {'class' if len(unknown) == 1 else 'classes'} {listed}.",
        hint="\n  ".join([f"training has: {have}", *(advice or [otherwise])]),
    )


def _likely(name: str, known: Iterable[str]) -> str:
    """The class that was probably meant: first what differs by case or spaces only, then the nearest spelling."""
    names = list(known)
    plain = plain_name(name)
    same = [c for c in names if plain_name(c) == plain]
    if same:
        return same[0]
    return nearest(name, names).removeprefix('did you mean "').removesuffix('"?')


def plain_name(name: str) -> str:
    """A class name without what people write now one way, now another: case, hyphens, underscores, further spaces."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _missing_classes(split: str, here: ByClass, classes: Sequence[str]) -> list[str]:
    missing = [f'"{c}"' for c in classes if not here.get(c)]
    if not missing:
        return []
    one = len(missing) == 1
    return [
        f"{split} has no pictures of {first_few(missing)}: how well {'it is' if one else 'they are'} told cannot be "
        "measured there."
    ]


def _numbered(by_class: ByClass, classes: Sequence[str], root: Path) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(by_class.get(name, ()), key=lambda path: _name_below(path, root))
        paths += found
        labels += [number] * len(found)
    return Split(tuple(paths), np.asarray(labels, dtype=np.int64))


def _name_below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _counted(counts: Mapping[str, int], among: str = "", shown: int = 12) -> str:
    """`cat 212, cta 1, dog 198`, with the class in question always among those shown."""
    names = list(counts)
    kept = names[:shown]
    if among and among not in kept:
        kept = [*kept[:-1], among]
    rest = len(names) - len(kept)
    return ", ".join(f"{c} {counts[c]:,}" for c in kept) + (f" and {rest:,} more" if rest else "")
