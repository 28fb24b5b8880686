"""Turn a folder of class folders, or of split folders that hold them, into a dataset; walk folders of any size.

Names are sorted by code point, not by locale, so class 0 is the same class on every computer.
"""

import glob
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relish.core.errors import DataError, ImageError
from relish.data.dataset import TRAIN, WHOLE, Dataset, first_few, label_by_name
from relish.data.image import IMAGE_SUFFIXES, unreadable_reason
from relish.data.layout import (
    Found,
    Listing,
    annotation_marks,
    class_name,
    everything_below,
    listing,
    not_class_folders,
    printable,
    split_words,
)


def index_folder(root: Path, *, name: str, source: str, learnable: bool = True) -> Dataset:
    """Find the classes, the splits and the images of a folder; nothing is opened.

    Args:
        root: the folder. Where it holds one folder and nothing else to learn from, as unpacked archives do, that
            one is taken, and becomes the root of the dataset.
        name: a short word for the dataset.
        source: what the user gave, for errors.
        learnable: as in `label_by_name`.

    Raises:
        DataError: the folder cannot be read or has no class folders; a class of validation or test is unknown to
            training; with a training split, fewer than two classes, or a class without images.
    """
    notes = _Notes(root.absolute())
    top = _unwrapped(_readable(root.absolute(), source), notes)
    notes.top = top.folder
    splits = _split_folders(top)
    images = _from_splits(top, splits, source, notes) if splits else {WHOLE: _from_classes(top, source, notes)}
    return label_by_name(
        images, name=name, source=source, root=top.folder, warnings=notes.warnings(), learnable=learnable
    )


@dataclass
class _Notes:
    """What is met on the way and will be told, each kind in one sentence."""

    top: Path
    stray: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    looping: list[Path] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def beside(self, held: Listing) -> None:
        """Files that lie beside folders of classes or splits."""
        self.stray += held.images
        self.others += held.others

    def inside(self, found: Found) -> None:
        """What a class folder holds that is no image."""
        self.others += found.others
        self.unreadable += found.unreadable
        self.looping += found.looping

    def warnings(self) -> list[str]:
        told = list(self.sentences)
        if self.stray:
            told.insert(0, f"{self._few(self.stray)} {_is(self.stray)} not inside a class folder: left out.")
        if self.others:
            kind = "not a picture" if len(self.others) == 1 else "not pictures"
            told.append(f"{self._few(self.others)} {_is(self.others)} {kind} by name: left out.")
        told += [f"{self._name(path)} {reason}: what it holds is left out." for path, reason in self.unreadable]
        if self.looping:
            told.append(f"{self._few(self.looping)} {_is(self.looping)} linked to a folder met before: not followed.")
        return told

    def _few(self, paths: Sequence[Path]) -> str:
        return (f"{len(paths):,} files, " if len(paths) > 3 else "") + first_few([self._name(p) for p in paths])

    def _name(self, path: Path) -> str:
        below = path.relative_to(self.top).as_posix() if path.is_relative_to(self.top) else str(path)
        return printable(below)


def _is(paths: Sequence[Path]) -> str:
    return "is" if len(paths) == 1 else "are"


def _readable(root: Path, source: str) -> Listing:
    held = listing(root)
    if held.problem:
        raise DataError(f"{source}: the folder {held.problem}.", hint="Check its name and who may read it.")
    return held


def _unwrapped(held: Listing, notes: _Notes) -> Listing:
    """Go down while there is one folder only, and it holds folders itself; a lone split folder is where to stop."""
    seen = 0
    while len(held.folders) == 1 and not held.images and not split_words([held.folders[0].name]) and seen < 8:
        inner = listing(held.folders[0])
        if not inner.folders:
            break
        notes.beside(held)
        held, seen = inner, seen + 1
    return held


def _split_folders(top: Listing) -> dict[Path, str]:
    """The folders named like splits, where one of them at least holds folders; `train` may be a class of vehicles."""
    meant = split_words([folder.name for folder in top.folders])
    splits = {folder: meant[folder.name] for folder in top.folders if folder.name in meant}
    only_splits = len(splits) == len(top.folders)
    return splits if only_splits or any(listing(folder).folders for folder in splits) else {}


def _from_splits(top: Listing, splits: dict[Path, str], source: str, notes: _Notes) -> dict[str, dict[str, list[Path]]]:
    _refuse_twins(splits, source)
    notes.beside(top)
    for folder in top.folders:
        if folder not in splits:
            count = len(everything_below(folder).images)
            left = f"{count:,} picture{'s' * (count != 1)}" if count else "no pictures"
            notes.sentences.append(f"{printable(folder.name)} is not the name of a split: left out ({left}).")
    images: dict[str, dict[str, list[Path]]] = {}
    for folder, split in splits.items():
        held = _same_split_inside(listing(folder), split)
        if held.problem:
            raise DataError(f"{source}: {printable(folder.name)} {held.problem}.", hint="Check who may read it.")
        if held.folders or split == TRAIN:
            images[split] = _from_classes(held, source, notes)
        else:
            notes.beside(held)
            notes.sentences.append(f"{printable(folder.name)} has no class folders: it is not used.")
    if not images:
        raise not_class_folders(source, top.folder)
    return images


def _refuse_twins(splits: dict[Path, str], source: str) -> None:
    for folder, split in splits.items():
        twins = [printable(other.name) for other, meant in splits.items() if meant == split]
        if len(twins) > 1:
            raise DataError(
                f"{source}: {' and '.join(twins)} both mean the {split} split.",
                hint=f"Keep one of them beside {printable(folder.parent.name)}'s other splits, or merge the two.",
            )


def _same_split_inside(held: Listing, split: str) -> Listing:
    # Kaggle's archives come as training_set/training_set/cats.
    if len(held.folders) == 1 and not held.images:
        inner = held.folders[0]
        if split in split_words([inner.name]).values():
            return listing(inner)
    return held


def _from_classes(top: Listing, source: str, notes: _Notes) -> dict[str, list[Path]]:
    """Class name to images, those in folders further down included."""
    found = {folder: everything_below(folder) for folder in top.folders}
    _refuse_other_layouts(top, found, source)
    notes.beside(top)
    by_class: dict[str, list[Path]] = {}
    for folder, held in found.items():
        by_class.setdefault(class_name(folder), []).extend(held.images)
        notes.inside(held)
    _tell_of_a_level_too_high(found, notes)
    return by_class


def _refuse_other_layouts(top: Listing, found: dict[Path, Found], source: str) -> None:
    if not any(held.images for held in found.values()):
        raise not_class_folders(source, top.folder)
    names = {folder.name.lower(): folder for folder in top.folders}
    if {"images", "labels"} <= set(names) and not found[names["labels"]].images:
        raise not_class_folders(source, top.folder)
    without = [held for held in found.values() if not held.images]
    if without and annotation_marks(top.folder, everything_below(top.folder)):
        raise not_class_folders(source, top.folder)
    inner = {folder: split_words(f.name for f in listing(folder).folders) for folder in top.folders}
    if len(top.folders) > 1 and all(TRAIN in meant.values() for meant in inner.values()):
        _refuse_splits_inside(top, source)


def _refuse_splits_inside(top: Listing, source: str) -> None:
    first = printable(top.folders[0].name)
    names = first_few([printable(folder.name) for folder in top.folders])
    if any(listing(inner).folders for inner in listing(top.folders[0]).folders):
        raise DataError(
            f"{source}: several datasets, each with splits of its own ({names}).",
            hint=f"Give one of them: {source}/{first}",
        )
    raise DataError(
        f"{source}: each class folder ({names}) holds split folders.",
        hint=f"Turn it inside out: train/{first}, test/{first}; or give a table (.csv) with the columns "
        "path,label,split.",
    )


def _tell_of_a_level_too_high(found: dict[Path, Found], notes: _Notes) -> None:
    """Folders of folders may be one class per patient or day, or a root that was given one level too high."""
    filled = [folder for folder, held in found.items() if held.images]
    nested = {folder: listing(folder) for folder in filled}
    if not all(len(held.folders) > 1 and not held.images for held in nested.values()):
        return
    first = filled[0]
    inner = first_few([f'"{printable(f.name)}"' for f in nested[first].folders])
    notes.sentences.append(
        f"class folders hold folders, not pictures: {inner} all count as class "
        f'"{printable(first.name)}". If they are the classes, give the folder {printable(first.name)} instead.'
    )


# ---- walking through folders of any size ----------------------------------------------------------------------------


BLOCK = 65_536
"""Names held at once; some ten megabytes."""


def images_below(folder: Path) -> Iterator[Path | ImageError]:
    """Every file of this folder and those below it that is an image by its ending, in the order of sorted paths.

    What begins with a dot is passed over, and a link to a folder is not followed, so that no loop can be entered.
    """
    try:
        for name in in_order(lambda: _names(folder)):
            path = folder / name
            if _is_image(name):
                yield path
            if os.path.isdir(path) and not os.path.islink(path):
                yield from images_below(path)
    except OSError as error:
        yield ImageError(str(folder), unreadable_reason(error))


def matches(pattern: str) -> Iterator[str]:
    """What a glob pattern matches, in order; `**` goes through folders."""
    return in_order(lambda: glob.iglob(pattern, recursive=True))


def in_order(names: Callable[[], Iterable[str]], block: int = BLOCK) -> Iterator[str]:
    """The names that each call of `names` gives, sorted by code point, equal ones once; at most `block` are held."""
    last: str | None = None
    while True:
        kept = heapq.nsmallest(block, (name for name in names() if last is None or name > last))
        for name in kept:
            if name != last:
                yield name
            last = name
        if len(kept) < block:
            return


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and (_is_image(entry.name) or entry.is_dir(follow_symlinks=False)):
                yield entry.name


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
