"""Which folders of a tree are splits, which are classes, which only wrap others or hold no labels.

Names alone are not believed (`split_names.py` has their grammar), since `train` may be a class of vehicles. Splits hold
class folders, and the classes of two splits repeat; `read_layout` holds the names of one level and the contents of the
next against each other:

    names say splits, and they hold             beside them              reading
    nothing: no names of splits                 whatever                 every folder is a class
    class folders                               nothing                  splits
    class folders in two or more, repeating     fewer that repeat        splits; what is beside them is named
    class folders in train, images in others    fewer that repeat        splits; the same
    class folders in train alone                one that repeats them    splits; the same
    images alone                                nothing                  refused: the labels are elsewhere
    images alone, names of one split            whatever                 every folder is a class
    anything else; two series; a split twice    whatever                 `AmbiguousLayout`: both readings, the option

Folders without images do not count, nor, beside splits, do those that `is_sidecar` or `is_unlabelled` knows by name. A
wrapper is gone through: the only folder with images of its level, if folders with images are in it; in a split folder
the only one, if it repeats the name or the split or `holds_any_class` (`test/test/cat`, `train/images/cat`).
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relish.core.errors import DataError, nearest, one_line
from relish.data.dataset import TEST, TRAIN, VALIDATION, first_few, plain_name, plural
from relish.data.layout import Tree, names_of, not_class_folders
from relish.data.split_names import (
    NONE,
    SplitNames,
    any_classes,
    holds_any_class,
    is_sidecar,
    is_unlabelled,
    option_text,
    split_series,
    splits_in,
)
from relish.data.table_files import TABLE_SUFFIXES
from relish.data.table_paths import table_advice


@dataclass(frozen=True)
class Layout:
    """The reading of a tree."""

    top: Path
    """Holds the class folders, or the split folders; those that it lies in are wrappers."""
    splits: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Split to what holds its class folders; empty where there are no splits."""
    unlabelled: tuple[Path, ...] = ()
    """Split folders without class folders."""
    left_out: tuple[Path, ...] = ()
    """Folders with images beside the splits."""
    notes: tuple[str, ...] = ()
    """What is to be said of it, a sentence each."""


class AmbiguousLayout(DataError):
    """Folders that may be splits or classes: both readings, and the option that chooses.

    Args:
        why: what is ambiguous, a clause.
        readings: each as split to the names of its folders; an empty one: all folders are classes.
    """

    def __init__(self, tree: Tree, top: Path, why: str, *readings: Mapping[str, Sequence[str]]) -> None:
        lines = [_reading_line(reading, tree.with_images(top)) for reading in readings]
        super().__init__(f"{tree.source}: {why}.", hint="\n  ".join(lines))


def _reading_line(reading: Mapping[str, Sequence[str]], folders: Sequence[Path]) -> str:
    if not reading:
        return f"as classes:  --split-names {NONE}    ({names_of(folders, 6)})"
    taken = {name for names in reading.values() for name in names}
    rest = names_of([folder for folder in folders if folder.name not in taken], 6)
    return f"as splits:   --split-names {option_text(reading)}" + (f"    ({rest}: left out)" if rest else "")


def read_layout(tree: Tree, split_names: SplitNames = None) -> Layout:
    """Which folders are splits, which are classes.

    Args:
        split_names: as `checked_split_names` gives it.

    Raises:
        AmbiguousLayout: splits and classes are both possible.
        DataError: there are no class folders; a folder of `split_names` is not there or has no class folders.
    """
    if isinstance(split_names, Mapping):
        return _as_told(tree, split_names)
    top = _unwrapped(tree, tree.root, split_names)
    if split_names == NONE:
        if not tree.with_images(top):
            raise _without_labels(tree, top)
        return Layout(top)
    layout = _resolved(tree, top)
    return layout if layout.splits else replace(layout, notes=tuple(_labels_in_table(tree, top)))


def _unwrapped(tree: Tree, folder: Path, split_names: SplitNames = None) -> Path:
    """A folder, or what it wraps, or what that wraps, and so on."""
    for _ in range(8):
        if (inner := _wrapped(tree, folder, split_names)) is None:
            break
        folder = inner
    return folder


def _wrapped(tree: Tree, folder: Path, split_names: SplitNames) -> Path | None:
    """The folder that this one only wraps; None where there is none."""
    inside = tree.with_images(folder)
    pictures = [inner for inner in inside if not is_sidecar(inner.name)]
    if len(pictures) == 1 and holds_any_class(pictures[0].name) and tree.with_images(pictures[0]):
        inside = pictures  # images/cat beside masks/cat
    if len(inside) != 1 or not tree.with_images(inside[0]):
        return None
    inner, listing = inside[0], tree.listing(folder)
    if split_names != NONE and any(inner in group.split_of for group in _groups(tree, folder)):
        return inner if _has_splits(tree, inner) else None  # training_data/train/cat is a wrapper, train/cat a split
    empty = [other for other in listing.folders if not tree.below(other).images]
    if empty and not (holds_any_class(inner.name) or all(is_sidecar(other.name) for other in empty)):
        return None  # an empty class folder beside another class
    loose = len(listing.images)
    return inner if not loose or loose < len(tree.below(inner).images) else None


def _has_splits(tree: Tree, folder: Path) -> bool:
    return any(len(group.splits) > 1 for group in _groups(tree, folder))


@dataclass(frozen=True)
class _Group:
    """Folders whose names say splits, and what they hold."""

    split_of: Mapping[Path, str]
    inside: Mapping[Path, Path]
    """What holds the class folders of each."""
    classes: Mapping[Path, frozenset[str]]
    """Plain names of the class folders with images; empty where images lie there alone, or nothing."""

    @property
    def labelled(self) -> list[Path]:
        """Those with class folders."""
        return [folder for folder, classes in self.classes.items() if classes]

    @property
    def splits(self) -> dict[str, list[Path]]:
        """Split to those of its folders that have class folders."""
        by_split = {s: [f for f in self.labelled if self.split_of[f] == s] for s in (TRAIN, VALIDATION, TEST)}
        return {split: folders for split, folders in by_split.items() if folders}

    @property
    def names(self) -> dict[str, list[str]]:
        """Split to the names of these."""
        return {split: [folder.name for folder in folders] for split, folders in self.splits.items()}


def _groups(tree: Tree, top: Path) -> list[_Group]:
    by_name = {folder.name: folder for folder in tree.listing(top).folders}
    series = split_series(list(by_name))
    return [_group(tree, {by_name[name]: split for name, split in split_of.items()}) for split_of in series]


def _group(tree: Tree, split_of: Mapping[Path, str]) -> _Group:
    inside = {folder: inside_split(tree, folder, split, split_of) for folder, split in split_of.items()}
    return _Group(split_of, inside, {folder: _class_names(tree, inner) for folder, inner in inside.items()})


def inside_split(tree: Tree, folder: Path, split: str = "", others: Iterable[Path] = ()) -> Path:
    """What holds the class folders of a split: its folder, or what that wraps.

    Args:
        others: the folders of the other splits; what is a class there is no wrapper here.
    """
    held = [_class_names(tree, other) for other in others if other != folder]
    elsewhere = frozenset[str]().union(*(classes for classes in held if len(classes) > 1))
    here = folder
    for _ in range(4):
        inside = tree.with_images(here)
        if len(inside) != 1 or tree.listing(here).images:
            break
        name = inside[0].name
        repeated = name.casefold() == folder.name.casefold() or split in splits_in(name)
        if not repeated and (not holds_any_class(name) or plain_name(name) in elsewhere):
            break
        here = inside[0]
    return here


def _class_names(tree: Tree, folder: Path) -> frozenset[str]:
    return frozenset(plain_name(of_class.name) for of_class in tree.with_images(folder))


def _repeat(some: frozenset[str], *others: frozenset[str]) -> bool:
    """Whether half of the smaller set of names, at least one, is in the others."""
    all_others = frozenset[str]().union(*others)
    return 0 < min(len(some), len(all_others)) <= 2 * len(some & all_others)


def _all_repeat(classes: Sequence[frozenset[str]]) -> bool:
    return all(_repeat(some, *classes[:place], *classes[place + 1 :]) for place, some in enumerate(classes))


def _resolved(tree: Tree, top: Path) -> Layout:
    groups, folders = _groups(tree, top), tree.with_images(top)
    labelled = [group for group in groups if group.labelled]
    if not labelled:
        _refuse_images_alone(tree, top, groups)
        _refuse_other_levels(tree, top)
        return Layout(top)
    if len(labelled) > 1:
        raise AmbiguousLayout(tree, top, "two sets of splits lie here", *(group.names for group in labelled))
    group = labelled[0]
    for split, names in group.names.items():
        if len(names) > 1:
            one = {other: folders[:1] for other, folders in group.names.items()}
            both = " and ".join(one_line(name) for name in names)
            raise AmbiguousLayout(tree, top, f"{both} both mean the {split} split", one, group.names)
    left_out = [folder for folder in folders if folder not in group.split_of]
    beside = [folder for folder in left_out if not (is_sidecar(folder.name) or is_unlabelled(folder.name))]
    alike = [folder for folder in beside if _repeat(_class_names(tree, folder), *group.classes.values())]
    if beside and not _are_splits(group, beside, alike):
        why = f"{names_of(group.labelled)} may be splits, or classes like the others"
        raise AmbiguousLayout(tree, top, why, group.names, {})
    if TRAIN in group.split_of.values() and TRAIN not in group.splits:
        raise _without_training(tree, group)
    splits = {split: tuple(group.inside[folder] for folder in folders) for split, folders in group.splits.items()}
    unlabelled = tuple(inner for folder, inner in group.inside.items() if not group.classes[folder])
    free = next((split for split in (TEST, VALIDATION) if split not in splits), TEST)
    options = [(folder, option_text({**group.names, free: [folder.name]})) for folder in alike]
    notes = tuple(f"If {one_line(folder.name)} is a split: --split-names {option}" for folder, option in options)
    return Layout(top, splits, unlabelled, tuple(left_out), notes)


def _are_splits(group: _Group, beside: Sequence[Path], alike: Sequence[Path]) -> bool:
    """Whether folders with split names are splits, though others lie beside them."""
    misnamed = {split for folder in alike for split in splits_in(folder.name)}
    if misnamed - {*group.splits} or len(alike) > len(group.labelled):
        return False
    if len(group.splits) > 1:
        return _all_repeat([group.classes[folder] for folder in group.labelled])
    return TRAIN in group.splits and (len({*group.split_of.values()}) > 1 or alike == beside)


def _refuse_images_alone(tree: Tree, top: Path, groups: Sequence[_Group]) -> None:
    """No folder with the name of a split has class folders: classes, or a dataset whose labels are elsewhere."""
    folders = tree.with_images(top)
    named = {folder: split for group in groups for folder, split in group.split_of.items() if folder in folders}
    holders = [folder for folder in folders if holds_any_class(folder.name) and not tree.with_images(folder)]
    rest = [folder for folder in folders if folder not in holders and not is_sidecar(folder.name)]
    several = len({*named.values()}) > 1
    if len(named) == len(folders) or (not several and len(holders) == 1 and not rest):
        raise _without_labels(tree, top)
    if several:
        why = f"{names_of(named)} are named like splits and hold no class folders, unlike a dataset with splits"
        raise AmbiguousLayout(tree, top, why, {})


def _without_labels(tree: Tree, top: Path) -> DataError:
    """The error for images without class folders, with the option that takes the folders they lie in for classes."""
    folders = tree.with_images(top)
    none = [f"If {names_of(folders)} are the classes themselves: --split-names {NONE}"] if len(folders) > 1 else []
    widest = next((listing.folder for listing in tree.above(top) if len(listing.folders) > 1), top)
    return not_class_folders(tree, widest, *none)


def _without_training(tree: Tree, group: _Group) -> DataError:
    """The error where others have class folders, and the folder to learn from has none."""
    folder = next(folder for folder, split in group.split_of.items() if split == TRAIN)
    count = len(tree.below(folder).images)
    holds = f"{plural(count, 'picture')} without class folders" if count else "no pictures"
    return DataError(
        f"{tree.source}: {one_line(folder.name)} holds {holds}, unlike {names_of(group.labelled)}.",
        hint=f"Put class folders into {tree.address(folder)}, or give {tree.address(group.labelled[0])} alone.",
    )


def _labels_in_table(tree: Tree, top: Path) -> list[str]:
    """What to say of a table that names the images of class folders; refused where these have no names of classes."""
    others = [path for listing in (*tree.above(top), tree.listing(top)) for path in listing.others]
    tables = [path for path in others if path.suffix.lower() in TABLE_SUFFIXES]
    advice = table_advice(tables, tree.below(top).images, tree.address) if tables else ""
    folders = tree.with_images(top)
    if advice and any_classes([folder.name for folder in folders]):
        raise DataError(
            f"{tree.source}: a table names the pictures, and their folders are not named like classes "
            f"({names_of(folders)}).",
            hint=f"{advice}\n  If the folders are the classes: --split-names {NONE}",
        )
    return [f"If it has their labels: {advice}"] if advice else []


def _refuse_other_levels(tree: Tree, top: Path) -> None:
    """Splits by words that are no sure sign, datasets below, or a copy of the folders in one of them.

    Raises:
        AmbiguousLayout: the same classes in `tr` and `te`, or in `dogs_train` and `cats_test`.
        DataError: the root is one level too high.
    """
    folders = tree.with_images(top)
    held = {f: classes for f in folders if len(splits_in(f.name)) == 1 and (classes := _class_names(tree, f))}
    found: dict[str, list[str]] = defaultdict(list)
    for folder in held:
        found[min(splits_in(folder.name))].append(folder.name)
    if len(found) > 1 and _all_repeat([*held.values()]):
        raise AmbiguousLayout(tree, top, f"{names_of(held)} may be splits or classes", found, {})
    below = [inner for folder in folders if _has_splits(tree, inner := _unwrapped(tree, folder))]
    if len(below) > 1:
        names = first_few([one_line(folder.relative_to(tree.root)) for folder in below])
        raise DataError(
            f"{tree.source}: several datasets, each with splits of its own ({names}).",
            hint=f"Give one of them: {tree.address(below[0])}",
        )
    if below:
        others = names_of([folder for folder in folders if not below[0].is_relative_to(folder)])
        raise _too_high(tree, below[0], f"one folder holds splits, others are beside it ({others})", "all are classes")
    for folder in folders:  # as `flowers/flowers` in some archives
        inside = tree.listing(folder).folders
        again = [one for one in inside if top / one.name in tree.listing(top).folders]
        if 2 * len(again) > len(inside) and (len(again) > 1 or holds_any_class(folder.name)):
            name = one_line(folder.name)
            why = f"{name} holds the folders beside it once more ({names_of(again)})"
            raise _too_high(tree, folder, why, f"{name} is a class")


def _too_high(tree: Tree, folder: Path, why: str, otherwise: str) -> DataError:
    hint = f"Give {tree.address(folder)}, or --split-names {NONE} where {otherwise}."
    return DataError(f"{tree.source}: {why}.", hint=hint)


def _as_told(tree: Tree, split_names: Mapping[str, Sequence[str]]) -> Layout:
    """The layout that `split_names` says, at the first level that has its folders."""
    top = tree.root
    names = [name for folders in split_names.values() for name in folders]
    while missing := [name for name in names if _folder_named(tree, top, name) is None]:
        inside = tree.with_images(top)
        if len(inside) != 1:
            folders = tree.listing(top).folders
            guess = nearest(missing[0], [one_line(folder.name) for folder in folders])
            hint = guess[:1].upper() + guess[1:] or f"Its folders: {names_of(folders, 8) or 'none'}."
            raise DataError(f'{tree.source}: --split-names has "{missing[0]}", and no folder is called so.', hint=hint)
        top = inside[0]
    told = {_folder_named(tree, top, name): split for split, folders in split_names.items() for name in folders}
    group = _group(tree, {folder: split for folder, split in told.items() if folder})
    for folder, classes in group.classes.items():
        if not classes:
            raise DataError(
                f"{tree.source}: {one_line(folder.name)} holds no class folders with pictures, so it is no split.",
                hint="Leave it out of --split-names.",
            )
    splits = {split: tuple(group.inside[folder] for folder in folders) for split, folders in group.splits.items()}
    left_out = [f for f in tree.with_images(top) if not any(named.is_relative_to(f) for named in group.split_of)]
    return Layout(top, splits, (), tuple(left_out))


def _folder_named(tree: Tree, top: Path, name: str) -> Path | None:
    """The folder of this name, or path, below another one."""
    plain = {unicodedata.normalize("NFC", folder.name): folder for folder in tree.listing(top).folders}
    known, below = plain.get(unicodedata.normalize("NFC", name)), top / name
    return known or (below if ".." not in below.parts and below.is_dir() and below != top else None)
