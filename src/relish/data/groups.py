"""Groups: images that stay on one side of every split, such as those of one patient, scene or camera.

In:   a dataset whose table may have a column `group`, and the option `group_by`.
Out:  its known groups; and for each image its unit: the key of all that has to stay with it, copies of it included.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from relish.core.errors import DataError
from relish.data.dataset import Dataset, Split, class_name, first_few, plural

GROUP = "group"
"""The column of known groups."""
NO_GROUPS, FOLDER = "none", "FOLDER"
"""What `group_by` may be beside a regular expression."""
_MARK = "/"
"""Begins the unit of a known group; other units are a SHA-256, which has no such sign."""
_EXAMPLE = f"Such as --group-by {FOLDER}, or --group-by '^[^_]+' where names are like scene1_002.jpg."
_NOT_ALIKE = f"--group-by {NO_GROUPS} where pictures of a group are no more alike than others"


def checked_group_by(given: str | None) -> str | None:
    """The option that says what a group is, as it is kept.

    Raises:
        DataError: it is empty, or no regular expression.
    """
    if given in (None, NO_GROUPS, FOLDER):
        return given
    try:
        re.compile(given or "(")
    except (re.error, OverflowError, RecursionError) as error:
        words = f"--group-by {given}: neither {FOLDER} nor {NO_GROUPS} nor a regular expression ({error})."
        raise DataError(words, hint=_EXAMPLE) from error
    return given


def with_groups(dataset: Dataset, group_by: str | None) -> Dataset:
    """The dataset with the known groups of its images.

    Args:
        dataset: with the groups of its table's column, if it has one.
        group_by: None: those; `none`: no groups; `FOLDER`: the folder inside the class folder; else a regular
            expression, searched for in the names of files: its first group, or all that it matches, is the name.

    Raises:
        DataError: it gives no image a group, or all of them the same one.
    """
    if group_by is None:
        return dataset
    if group_by == NO_GROUPS:  # a column like others
        columns = {**dataset.columns, **({GROUP: dataset.groups} if dataset.groups else {})}
        return replace(dataset, groups={}, columns=columns)
    found = _by_folder(dataset) if group_by == FOLDER else _by_name(dataset, group_by)
    return replace(dataset, groups=found, warnings=(*dataset.warnings, *_said(dataset, found, group_by)))


def _by_folder(dataset: Dataset) -> dict[Path, str]:
    """By the uppermost folder inside the class folder; where no folder has the name of the class, by the last one."""
    found = {}
    for split in dataset.splits.values():
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            folders = Path(dataset.label(path)).parts[:-1]
            named = [class_name(folder) for folder in folders]
            name = dataset.classes[label]
            inside = folders[named.index(name) + 1 :][:1] if name in named else folders[-1:]
            if inside:
                found[path] = inside[0]
    return found


def _by_name(dataset: Dataset, pattern: str) -> dict[Path, str]:
    sought = re.compile(pattern)
    met = {path: sought.search(path.name) for split in dataset.splits.values() for path in split.paths}
    names = {path: one[min(1, sought.groups)] for path, one in met.items() if one}
    return {path: name for path, name in names.items() if name}


def _said(dataset: Dataset, found: Mapping[Path, str], group_by: str) -> list[str]:
    """What is to be said of groups that were found by folders or names.

    Raises:
        DataError: there are none, or there is one alone.
    """
    paths = [path for split in dataset.splits.values() for path in split.paths]
    sizes, option = Counter(found.values()), f"--group-by {group_by}"
    if paths and not found:
        shown = dataset.label(paths[0])
        words = f"no picture lies in a folder inside its class folder: {shown}"
        words = words if group_by == FOLDER else f'matches none of {plural(len(paths), "name")}, such as "{shown}"'
        raise DataError(f"{option}: {words}.", hint=_EXAMPLE)
    if len(paths) == len(found) > 1 == len(sizes):
        shown = f'"{min(sizes)}", such as {dataset.label(paths[0])}'
        raise DataError(f"{option}: all {len(paths):,} pictures are of one group, {shown}.", hint=_EXAMPLE)
    notes = []
    if len(sizes) == len(found) > 1:
        shown = f'{dataset.label(next(iter(found)))} is of "{next(iter(sizes))}"'
        notes.append(f"{option} puts every picture into a group of its own: {shown}.")
    if rest := [dataset.label(path) for path in paths if path not in found]:
        notes.append(f"{option} says nothing of {plural(len(rest), 'picture')} ({first_few(rest)}): each stands alone.")
    return notes


# ---- what stays on one side ------------------------------------------------------------------------------------------


def units_of(sha256: Mapping[Path, str], groups: Mapping[Path, str]) -> dict[Path, str]:
    """The unit of each image: equal for images of one group, for copies of a file, and for all that these join.

    Args:
        sha256: of each image's file, 64 hexadecimal digits.
        groups: the names of groups, known or found; of some images, or of none.

    Returns:
        By path, whatever their order: the first name of the groups behind a mark (see `is_group`), or the SHA-256.
    """
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while (higher := above.setdefault(key, key)) != key:
            above[key] = above[higher]
            key = higher
        return key

    for path, content in sha256.items():
        if path in groups:
            first, second = sorted((top(content), top(_MARK + groups[path])))  # the mark sorts before any digit
            above[second] = first
    return {path: top(content) for path, content in sha256.items()}


def is_group(unit: str) -> bool:
    """Whether a unit is that of a group, and not a file's SHA-256."""
    return unit.startswith(_MARK)


def group_name(unit: str) -> str:
    """The name of a unit's group."""
    return unit.removeprefix(_MARK)


def refuse_large_groups(
    dataset: Dataset, split: Split, units: Mapping[Path, str], share: float, *, each_class: bool
) -> None:
    """Refuse a group that, on whichever side it is, leaves the other side less than half of what it should have.

    Args:
        split: the images to be divided.
        units: as `units_of` gives them.
        share: of the images that is to be held out, between 0 and 1.
        each_class: whether it is to be held out of each class.

    Raises:
        DataError: there is such a group, of all images or of those of a class.
    """
    keys = [units.get(path, "") for path in split.paths]
    of_class: dict[int, list[str]] = defaultdict(list)
    for key, label in zip(keys, split.labels.tolist(), strict=True):
        of_class[label].append(key)
    named = (
        {f' of class "{dataset.classes[label]}"': inside for label, inside in of_class.items()} if each_class else {}
    )
    for of, inside in {"": keys, **named}.items():
        unit, count = max(Counter(inside).items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if is_group(unit) and 1 < len(inside) <= count / (1 - min(share, 1 - share) / 2):
            raise DataError(
                f'{dataset.name}: group "{group_name(unit)}" holds {count:,} of {len(inside):,} pictures{of}; it stays '
                "on one side, so too few are left for the other.",
                hint=f"Add pictures of other groups, or divide it into smaller ones; or {_NOT_ALIKE}.",
            )


def not_on_both_sides(dataset: Dataset, name: str, units: Iterable[str]) -> DataError:
    """The error where no way was found to have a class on both sides without dividing a group."""
    groups = sorted({group_name(unit) for unit in units if is_group(unit)})
    return DataError(
        f'{dataset.name}: class "{name}" cannot be both learned from and held out: groups stay on one side, and its '
        f"pictures are of {plural(len(groups), 'group')} ({first_few(groups)}).",
        hint=f"Add pictures of it of other groups, or bring a validation split of your own; {_NOT_ALIKE}.",
    )
