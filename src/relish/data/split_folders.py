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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relish.core.errors import DataError, nearest
from relish.data.dataset import TEST, TRAIN, VALIDATION, first_few, plain_name, plural
from relish.data.layout import Found, Listing, everything_below, list_folder, not_class_folders, printable
from relish.data.split_names import (
    NONE,
    SHORT,
    SPLIT_WORDS,
    SplitNames,
    any_classes,
    holds_any_class,
    is_sidecar,
    is_unlabelled,
    option_text,
    split_series,
    words_of,
)
from relish.data.table_files import TABLE_SUFFIXES
from relish.data.table_paths import table_advice


class Tree:
    """Folders, each read once."""

    def __init__(self, root: Path, source: str) -> None:
        self.root, self.source = root, source
        """Where it begins, and what the user calls that."""
        self._listings: dict[Path, Listing] = {}
        self._below: dict[Path, Found] = {}

    def listing(self, folder: Path) -> Listing:
        """As `list_folder` gives it."""
        if folder not in self._listings:
            self._listings[folder] = list_folder(folder)
        return self._listings[folder]

    def below(self, folder: Path) -> Found:
        """As `everything_below` gives it."""
        if folder not in self._below:
            self._below[folder] = everything_below(folder, self.listing)
        return self._below[folder]

    def address(self, path: Path) -> str:
        """What to type for a file or a folder in it: the real one where the source is an archive or an address."""
        given = Path(self.source).expanduser()
        return printable(path if given.is_file() or "://" in self.source else given / path.relative_to(self.root))

    def with_images(self, listing: Listing) -> list[Path]:
        """The folders in it that have images, at whatever depth."""
        return [folder for folder in listing.folders if self.below(folder).images]


@dataclass(frozen=True)
class Layout:
    """The reading of a tree."""

    top: Listing
    """Holds the class folders, or the split folders."""
    passed: tuple[Listing, ...] = ()
    """The folders above it, which are wrappers."""
    splits: Mapping[str, tuple[Listing, ...]] = field(default_factory=dict)
    """Split to what holds its class folders; empty where there are no splits."""
    unlabelled: tuple[Listing, ...] = ()
    """Split folders without class folders."""
    left_out: tuple[Path, ...] = ()
    """Folders with images beside the splits."""
    alike: tuple[Path, ...] = ()
    """Those of them that have the classes of the splits."""
    notes: tuple[str, ...] = ()
    """What is to be said of it, a sentence each."""
    labelled: bool = True
    """Whether there are class folders; `read_layout` gives no other layout."""

    @property
    def names(self) -> dict[str, list[str]]:
        """Split to the names of its folders in `top`."""
        depth = len(self.top.folder.parts)
        return {split: [held.folder.parts[depth] for held in listings] for split, listings in self.splits.items()}


class AmbiguousLayout(DataError):
    """Folders that may be splits or classes: both readings, and the option that chooses.

    Args:
        source: what the user gave.
        why: what is ambiguous, a clause.
        readings: each as split to the names of its folders; an empty one: all folders are classes.
        folders: the names of all folders with images.
    """

    def __init__(
        self, source: str, why: str, readings: Sequence[Mapping[str, Sequence[str]]], folders: Sequence[str]
    ) -> None:
        lines = [_reading_line(reading, folders) for reading in readings]
        super().__init__(f"{source}: {why}.", hint="\n  ".join(lines))


def _reading_line(reading: Mapping[str, Sequence[str]], folders: Sequence[str]) -> str:
    if not reading:
        return f"as classes:  --split-names {NONE}    ({first_few([printable(name) for name in folders], 6)})"
    taken = {name for names in reading.values() for name in names}
    rest = first_few([printable(name) for name in folders if name not in taken], 6)
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
    *passed, top = _unwrapped(tree, tree.listing(tree.root), split_names)
    layout = _as_classes(tree, top, split_names) if split_names == NONE else _resolved(tree, top)
    if not layout.labelled:
        raise _without_labels(tree, top, passed)
    beside = [] if layout.splits or split_names else _labels_in_table(tree, top, passed)
    return replace(layout, passed=tuple(passed), notes=tuple(beside))


def _wrapped(tree: Tree, listing: Listing, split_names: SplitNames) -> Listing | None:
    """The folder that this one only wraps; None where there is none."""
    inside = tree.with_images(listing)
    if len(pictures := [folder for folder in inside if not is_sidecar(folder.name)]) == 1 and _holds_all(
        tree, pictures[0]
    ):
        inside = pictures  # images/cat beside masks/cat
    if len(inside) != 1 or not tree.with_images(inner := tree.listing(inside[0])):
        return None
    if split_names != NONE and any(inside[0] in group.split_of for group in _groups(tree, listing)):
        deeper = any(len(group.splits) > 1 for group in _groups(tree, inner))
        return inner if deeper else None  # training_data/train/cat is a wrapper, train/cat a split
    empty = [folder for folder in listing.folders if not tree.below(folder).images]
    if empty and not (holds_any_class(inside[0].name) or all(is_sidecar(folder.name) for folder in empty)):
        return None  # an empty class folder beside another class
    loose = len(listing.images)
    return inner if not loose or loose < len(tree.below(inner.folder).images) else None


def _holds_all(tree: Tree, folder: Path) -> bool:
    """Whether a folder is one of all classes by its name, and has folders with images."""
    return holds_any_class(folder.name) and bool(tree.with_images(tree.listing(folder)))


def _unwrapped(tree: Tree, listing: Listing, split_names: SplitNames = None) -> list[Listing]:
    """A folder, what it wraps, what that wraps, and so on."""
    found = [listing]
    while len(found) < 9 and (inner := _wrapped(tree, found[-1], split_names)):
        found.append(inner)
    return found


@dataclass(frozen=True)
class _Group:
    """Folders whose names say splits, and what they hold."""

    split_of: Mapping[Path, str]
    inside: Mapping[Path, Listing]
    classes: Mapping[Path, frozenset[str]]
    """Plain names of the class folders with images; empty where images lie there alone, or nothing."""

    @property
    def labelled(self) -> list[Path]:
        """Those with class folders."""
        return [folder for folder, classes in self.classes.items() if classes]

    @property
    def splits(self) -> dict[str, list[str]]:
        """Split to the names of its folders that have class folders."""
        return {
            split: names
            for split in (TRAIN, VALIDATION, TEST)
            if (names := [folder.name for folder in self.labelled if self.split_of[folder] == split])
        }

    @property
    def known(self) -> frozenset[str]:
        """Plain names of all classes."""
        return frozenset().union(*self.classes.values())

    @property
    def all_repeat(self) -> bool:
        """Whether the classes of each are those of the others."""
        labelled = self.labelled
        return all(
            _repeat(self.classes[one], frozenset().union(*(self.classes[other] for other in labelled if other != one)))
            for one in labelled
        )


def _groups(tree: Tree, top: Listing) -> list[_Group]:
    by_name = {folder.name: folder for folder in top.folders}
    series = split_series(list(by_name))
    return [_group(tree, {by_name[name]: split for name, split in split_of.items()}) for split_of in series]


def _group(tree: Tree, split_of: Mapping[Path, str]) -> _Group:
    inside = {folder: inside_split(tree, folder, split, split_of) for folder, split in split_of.items()}
    return _Group(split_of, inside, {folder: _class_names(tree, listing) for folder, listing in inside.items()})


def inside_split(tree: Tree, folder: Path, split: str = "", others: Iterable[Path] = ()) -> Listing:
    """What holds the class folders of a split: its folder, or what that wraps.

    Args:
        others: the folders of the other splits; what is a class there is no wrapper here.
    """
    held = [tree.with_images(tree.listing(other)) for other in others if other != folder]
    elsewhere = {plain_name(of_class.name) for classes in held if len(classes) > 1 for of_class in classes}
    listing = tree.listing(folder)
    for _ in range(4):
        inside = tree.with_images(listing)
        if len(inside) != 1 or listing.images:
            break
        name = inside[0].name
        repeated = name.casefold() == folder.name.casefold() or split in map(SPLIT_WORDS.get, words_of(name))
        if not repeated and (not holds_any_class(name) or plain_name(name) in elsewhere):
            break
        listing = tree.listing(inside[0])
    return listing


def _class_names(tree: Tree, listing: Listing) -> frozenset[str]:
    return frozenset(plain_name(folder.name) for folder in tree.with_images(listing))


def _repeat(some: frozenset[str], others: frozenset[str]) -> bool:
    """Whether half of the smaller set of names, at least one, is in the other."""
    return 0 < min(len(some), len(others)) <= 2 * len(some & others)


def _resolved(tree: Tree, top: Listing) -> Layout:
    groups = _groups(tree, top)
    labelled = [group for group in groups if group.labelled]
    if not labelled:
        return _images_alone(tree, top, groups)
    group, names = labelled[0], [folder.name for folder in tree.with_images(top)]
    if len(labelled) > 1:
        raise AmbiguousLayout(tree.source, "two sets of splits lie here", [g.splits for g in labelled], names)
    twice = next((split for split, folders in group.splits.items() if len(folders) > 1), None)
    if twice:
        both = " and ".join(printable(name) for name in group.splits[twice])
        one = {split: folders[:1] for split, folders in group.splits.items()}
        raise AmbiguousLayout(tree.source, f"{both} both mean the {twice} split", [one, group.splits], names)
    left_out = [folder for folder in tree.with_images(top) if folder not in group.split_of]
    beside = [folder for folder in left_out if not (is_sidecar(folder.name) or is_unlabelled(folder.name))]
    alike = [folder for folder in beside if _repeat(_class_names(tree, tree.listing(folder)), group.known)]
    if beside and not _are_splits(group, beside, alike):
        words = " and ".join(printable(folder.name) for folder in group.labelled)
        raise AmbiguousLayout(
            tree.source, f"{words} may be splits, or classes like the others", [group.splits, {}], names
        )
    unlabelled = [listing for folder, listing in group.inside.items() if folder not in group.labelled]
    splits = {split: tuple(group.inside[top.folder / n] for n in folders) for split, folders in group.splits.items()}
    if TRAIN in group.split_of.values() and TRAIN not in splits:
        raise _without_training(tree, group)
    return Layout(top, (), splits, tuple(unlabelled), tuple(left_out), tuple(alike))


def _are_splits(group: _Group, beside: Sequence[Path], alike: Sequence[Path]) -> bool:
    """Whether folders with split names are splits, though others lie beside them."""
    misnamed = {SPLIT_WORDS[word] for folder in alike for word in words_of(folder.name) if word in SPLIT_WORDS}
    if misnamed - {*group.splits} or len(alike) > len(group.labelled):
        return False
    if len(group.splits) > 1:
        return group.all_repeat
    return TRAIN in group.splits and (len({*group.split_of.values()}) > 1 or alike == beside)


def _images_alone(tree: Tree, top: Listing, groups: Sequence[_Group]) -> Layout:
    """No folder with the name of a split has class folders: classes, or a dataset whose labels are elsewhere."""
    folders = tree.with_images(top)
    named = {folder: split for group in groups for folder, split in group.split_of.items() if folder in folders}
    if not named or (len({*named.values()}) == 1 and len(folders) > len(named)):
        return _as_classes(tree, top)
    if len(named) == len(folders):
        return Layout(top, labelled=False)
    words = " and ".join(printable(folder.name) for folder in named)
    why = f"{words} are named like splits and hold no class folders, unlike a dataset with splits"
    raise AmbiguousLayout(tree.source, why, [{}], [folder.name for folder in folders])


def _as_classes(tree: Tree, top: Listing, split_names: SplitNames = None) -> Layout:
    folders = tree.with_images(top)
    holders = [f for f in folders if holds_any_class(f.name) and not tree.with_images(tree.listing(f))]
    if split_names is None:
        if len(holders) == 1 and all(folder in holders or is_sidecar(folder.name) for folder in folders):
            return Layout(top, labelled=False)
        _refuse_scattered_splits(tree, top)
        _refuse_splits_below(tree, folders)
        _refuse_nested_copy(tree, top)
    return Layout(top, labelled=bool(folders))


def _without_labels(tree: Tree, top: Listing, passed: Sequence[Listing]) -> DataError:
    """The error for images without class folders, with the option that takes the folders they lie in for classes."""
    names = [printable(folder.name) for folder in tree.with_images(top)]
    none = [f"If {first_few(names)} are the classes themselves: --split-names {NONE}"] if len(names) > 1 else []
    widest = next((listing for listing in passed if len(listing.folders) > 1), top)
    return not_class_folders(tree.source, widest.folder, *none)


def _without_training(tree: Tree, group: _Group) -> DataError:
    """The error where others have class folders, and the folder to learn from has none."""
    folder = next(folder for folder, split in group.split_of.items() if split == TRAIN)
    count = len(tree.below(folder).images)
    holds = f"{plural(count, 'picture')} without class folders" if count else "no pictures"
    others = first_few([printable(other.name) for other in group.labelled])
    return DataError(
        f"{tree.source}: {printable(folder.name)} holds {holds}, unlike {others}.",
        hint=f"Put class folders into {tree.address(folder)}, or give {tree.address(group.labelled[0])} alone.",
    )


def _labels_in_table(tree: Tree, top: Listing, passed: Sequence[Listing]) -> list[str]:
    """What to say of a table that names the images of class folders; refused where these have no names of classes."""
    tables = [path for listing in (*passed, top) for path in listing.others if path.suffix.lower() in TABLE_SUFFIXES]
    advice = table_advice(tables, tree.below(top.folder).images, tree.address) if tables else ""
    names = [folder.name for folder in tree.with_images(top)]
    if advice and any_classes(names):
        raise DataError(
            f"{tree.source}: a table names the pictures, and their folders are not named like classes "
            f"({first_few([printable(name) for name in names])}).",
            hint=f"{advice}\n  If the folders are the classes: --split-names {NONE}",
        )
    return [f"If it has their labels: {advice}"] if advice else []


def _refuse_scattered_splits(tree: Tree, top: Listing) -> None:
    """Words of splits, short or in no series, and the same classes in each: `tr`, `te`; `dogs_train`, `cats_test`."""
    splits: dict[str, list[str]] = {}
    classes = {}
    for folder in tree.with_images(top):
        named = {
            SPLIT_WORDS.get(word) or SHORT[word]
            for word in words_of(folder.name)
            if word in SPLIT_WORDS or word in SHORT
        }
        held = _class_names(tree, tree.listing(folder))
        if len(named) == 1 and held:
            splits.setdefault(named.pop(), []).append(folder.name)
            classes[folder] = held
    if len(splits) > 1 and _Group({}, {}, classes).all_repeat:
        words = " and ".join(printable(folder.name) for folder in classes)
        names = [folder.name for folder in tree.with_images(top)]
        raise AmbiguousLayout(tree.source, f"{words} may be splits or classes", [splits, {}], names)


def _refuse_splits_below(tree: Tree, folders: Sequence[Path]) -> None:
    """A dataset with splits beside other folders, or several of them: the root is one level too high."""
    inner = [_unwrapped(tree, tree.listing(folder))[-1] for folder in folders]
    found = [listing for listing in inner if any(len(group.splits) > 1 for group in _groups(tree, listing))]
    if len(found) > 1:
        names = first_few([printable(listing.folder.relative_to(tree.root)) for listing in found])
        raise DataError(
            f"{tree.source}: several datasets, each with splits of its own ({names}).",
            hint=f"Give one of them: {tree.address(found[0].folder)}",
        )
    if found:
        others = first_few([printable(folder.name) for folder in folders if folder not in _upwards(found[0].folder)])
        raise DataError(
            f"{tree.source}: one folder holds splits, others are beside it ({others}).",
            hint=f"Give {tree.address(found[0].folder)}, or --split-names {NONE} where all are classes.",
        )


def _upwards(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)


def _refuse_nested_copy(tree: Tree, top: Listing) -> None:
    """A folder that holds those beside it once more, as `flowers/flowers` does in some archives."""
    for folder in top.folders:
        inner = {f.name for f in tree.listing(folder).folders}
        again = inner & {other.name for other in top.folders}
        if 2 * len(again) > len(inner) and (len(again) > 1 or holds_any_class(folder.name)):
            shown = first_few([printable(name) for name in sorted(again)])
            raise DataError(
                f"{tree.source}: {printable(folder.name)} holds the folders beside it once more ({shown}).",
                hint=f"Give {tree.address(folder)}, or --split-names {NONE} where {printable(folder.name)} is a class.",
            )


def _as_told(tree: Tree, split_names: Mapping[str, Sequence[str]]) -> Layout:
    """The layout that `split_names` says, at the first level that has its folders."""
    top, passed = tree.listing(tree.root), list[Listing]()
    names = [name for folders in split_names.values() for name in folders]
    while missing := [name for name in names if _folder_named(top, name) is None]:
        inside = tree.with_images(top)
        if len(inside) != 1:
            have = [printable(folder.name) for folder in top.folders]
            guess = nearest(missing[0], have) or f"its folders: {first_few(have, 8) or 'none'}."
            hint = guess[0].upper() + guess[1:]
            raise DataError(f'{tree.source}: --split-names has "{missing[0]}", and no folder is called so.', hint=hint)
        passed.append(top)
        top = tree.listing(inside[0])
    split_of = {_folder_named(top, name): split for split, folders in split_names.items() for name in folders}
    group = _group(tree, {folder: split for folder, split in split_of.items() if folder is not None})
    for folder, classes in group.classes.items():
        if not classes:
            raise DataError(
                f"{tree.source}: {printable(folder.name)} holds no class folders with pictures, so it is no split.",
                hint="Leave it out of --split-names.",
            )
    splits = {split: tuple(group.inside[f] for f in group.labelled if split_of[f] == split) for split in split_names}
    left_out = [f for f in tree.with_images(top) if not any(f == named or f in named.parents for named in group.inside)]
    return Layout(top, tuple(passed), splits, (), tuple(left_out))


def _folder_named(top: Listing, name: str) -> Path | None:
    """The folder of this name, or path, below another one."""
    plain = {unicodedata.normalize("NFC", folder.name): folder for folder in top.folders}
    known = plain.get(unicodedata.normalize("NFC", name))
    below = top.folder / name
    return known or (below if ".." not in below.parts and below.is_dir() and below != top.folder else None)
