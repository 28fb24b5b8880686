"""The test images that `relish teach` sets aside in a folder of class folders: dealt, written and read again.

`FOLDER/.relish/split.csv` has a row for each image: its path below the folder, the SHA-256 of its file, and `train` or
`test`. `find_dataset` takes the splits of a folder from it, so that `relish fit FOLDER` learns from the same images as
the page did and is judged on those that nothing was fitted to.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from relish.core.errors import DataError
from relish.core.io import sha256_of_file, write_text
from relish.data.dataset import TEST, TRAIN, WHOLE, Dataset, plural

OWN = ".relish"
"""The folder inside a dataset's that holds what `relish teach` keeps; hidden, so no other command takes it for a class.
"""
FILE = "split.csv"
SHARE = 5
"""One image in so many of a class is set aside."""
_COLUMNS = ["path", "sha256", "split"]


def split_file(folder: Path) -> Path:
    """Where the splits of a folder are written."""
    return folder / OWN / FILE


def deal(
    contents: Sequence[str], labels: Sequence[str], units: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """The split of each image: those dealt before stay where they are, and new ones leave a fifth of a class for test.

    New units come in the order of their least content, so the same images are dealt alike on every computer. A unit
    that turns out to be on both sides, such as a series whose frames came one by one, is learned from: moved to test,
    what a model knows already would be in the figure.

    Args:
        contents: SHA-256 of N images.
        labels: N class names.
        units: N keys; images of one key stay on one side.
        known: content to split, dealt before; of images that are no longer here too.

    Returns:
        Content to split, for these images alone.
    """
    by_unit: dict[str, list[int]] = {}
    for place, unit in enumerate(units):
        by_unit.setdefault(unit, []).append(place)
    dealt: dict[str, str] = {}
    sizes, tests = Counter[str](), Counter[str]()
    new: list[tuple[str, list[int]]] = []
    for places in by_unit.values():
        before = {known[contents[place]] for place in places if contents[place] in known}
        if not before:
            new.append((min(contents[place] for place in places), places))
            continue
        split = TEST if before == {TEST} else TRAIN
        dealt |= {contents[place]: split for place in places}
        sizes.update(labels[place] for place in places)
        tests.update(labels[place] for place in places if split == TEST)
    for _, places in sorted(new):
        here = Counter(labels[place] for place in places)
        fits = all(SHARE * (tests[label] + count) <= sizes[label] + count for label, count in here.items())
        dealt |= {contents[place]: TEST if fits else TRAIN for place in places}
        sizes += here
        tests += here if fits else Counter()
    return dealt


def write_splits(folder: Path, rows: Mapping[str, tuple[str, str]]) -> None:
    """Write a folder's splits, atomically.

    Args:
        rows: path below the folder, with forward slashes, to SHA-256 and split.

    Raises:
        WriteFailed: no space, no permission.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([path, *row] for path, row in sorted(rows.items()))
    write_text(split_file(folder), text.getvalue())


def read_splits(folder: Path) -> dict[str, tuple[str, str]]:
    """What `write_splits` wrote; empty where nothing is set aside.

    Raises:
        DataError: the file cannot be read as such.
    """
    file = split_file(folder)
    if not file.is_file():
        return {}
    try:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
        if rows[:1] != [_COLUMNS] or any(len(row) != 3 or row[2] not in (TRAIN, TEST) for row in rows[1:]):
            raise ValueError("its columns are not path,sha256,split with train and test")
    except (OSError, ValueError, csv.Error) as error:
        hint = "Remove it, and every picture is learned from; relish teach sets others aside."
        raise DataError(f"{file}: cannot be read ({error}).", hint=hint) from None
    return {path: (sha256, split) for path, sha256, split in rows[1:]}


def with_set_aside(dataset: Dataset) -> Dataset:
    """A dataset without splits, with those of its folder's file; as it is where there is no such file.

    An image whose path is not listed, since somebody moved it, is found by its content; a new one is learned from.

    Raises:
        DataError: the file cannot be read.
    """
    rows = read_splits(dataset.root) if WHOLE in dataset.splits else {}
    if not rows:
        return dataset
    by_content = dict(rows.values())

    def split_of(path: Path) -> str:
        name = path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else ""
        if name in rows:
            return rows[name][1]
        try:
            return by_content.get(sha256_of_file(path), TRAIN)
        except OSError:  # the survey gives the reason
            return TRAIN

    whole = dataset.splits[WHOLE]
    sides = [split_of(path) for path in whole.paths]
    parts = {side: whole.take([i for i, one in enumerate(sides) if one == side]) for side in (TRAIN, TEST)}
    if not all(map(len, parts.values())):
        return dataset
    words = f"{plural(len(parts[TEST]), 'picture')} set aside by relish teach are the test split ({OWN}/{FILE})"
    return dataset.with_splits(parts, words)
