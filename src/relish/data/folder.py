"""Turn a folder of class folders, or of split folders that hold them, into a dataset; walk folders of any size.

Names are sorted by code point, not by locale, so class 0 is the same class on every computer.
"""

import glob
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relish.core.errors import DataError, ImageError
from relish.data.dataset import TRAIN, WHOLE, Dataset, first_few, label_by_name, name_below, plural
from relish.data.image_files import is_image_name, kind_of_file, unreadable_reason
from relish.data.layout import (
    BROKEN_LINK,
    FOLDER,
    PIPE,
    Found,
    Listing,
    NoImages,
    annotation_marks,
    class_name,
    everything_below,
    is_junk,
    list_folder,
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
    notes = _Notes()
    listing = list_folder(root.absolute())
    if listing.problem:
        raise DataError(f"{source}: the folder {listing.problem}.", hint="Check its name and who may read it.")
    top = _unwrapped(listing, notes)
    splits = _split_folders(top)
    images = _from_splits(top, splits, source, notes) if splits else {WHOLE: _from_classes(top, source, notes)}
    return label_by_name(
        images, name=name, source=source, root=top.folder, warnings=notes.warnings(top.folder), learnable=learnable
    )


@dataclass
class _Notes:
    """What the warnings will name, each kind in one sentence."""

    stray: list[Path] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    looping: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def add_unused(self, listing: Listing) -> None:
        """Note the files that lie beside folders of classes or splits."""
        self.stray += listing.images
        self.others |= listing.others

    def add_class(self, found: Found) -> None:
        """Note the files of a class folder that are no images."""
        self.others |= found.others
        self.unreadable += found.unreadable
        self.looping += found.looping

    def warnings(self, top: Path) -> list[str]:
        def are(paths: Sequence[Path]) -> str:
            count = f"{len(paths):,} files, " if len(paths) > 3 else ""
            names = first_few([printable(name_below(path, top)) for path in paths])
            return f"{count}{names} {'is' if len(paths) == 1 else 'are'}"

        lines = [f"{are(self.stray)} not inside a class folder: left out."] if self.stray else []
        lines += self.messages
        if self.others:
            left_out = NoImages()
            for path, kind in self.others.items():
                left_out.add(name_below(path, top), kind)
            lines.append(left_out.sentence())
        for path, reason in self.unreadable:
            lines.append(f"{printable(name_below(path, top))} {reason}: what it holds is left out.")
        if self.looping:
            lines.append(f"{are(self.looping)} linked to a folder met before: not followed.")
        return lines


def _unwrapped(listing: Listing, notes: _Notes) -> Listing:
    """Go down while a folder holds one folder only, which holds folders itself; stop at a lone split folder."""
    for _ in range(8):
        if len(listing.folders) != 1 or listing.images or split_words([listing.folders[0].name]):
            break
        inner = list_folder(listing.folders[0])
        if not inner.folders:
            break
        notes.add_unused(listing)
        listing = inner
    return listing


def _split_folders(top: Listing) -> dict[Path, str]:
    """The folders named like splits, where at least one of them holds folders; `train` may be a class of vehicles."""
    split_of = split_words([folder.name for folder in top.folders])
    splits = {folder: split_of[folder.name] for folder in top.folders if folder.name in split_of}
    only_splits = len(splits) == len(top.folders)
    return splits if only_splits or any(list_folder(folder).folders for folder in splits) else {}


def _from_splits(top: Listing, splits: dict[Path, str], source: str, notes: _Notes) -> dict[str, dict[str, list[Path]]]:
    _refuse_repeated_splits(splits, source)
    notes.add_unused(top)
    for folder in top.folders:
        if folder not in splits:
            count = len(everything_below(folder).images)
            omitted = plural(count, "picture") if count else "no pictures"
            notes.messages.append(f"{printable(folder.name)} is not the name of a split: left out ({omitted}).")
    images: dict[str, dict[str, list[Path]]] = {}
    for folder, split in splits.items():
        listing = _same_split_inside(list_folder(folder), split)
        if listing.problem:
            raise DataError(f"{source}: {printable(folder.name)} {listing.problem}.", hint="Check who may read it.")
        if listing.folders or split == TRAIN:
            images[split] = _from_classes(listing, source, notes)
        else:
            notes.add_unused(listing)
            notes.messages.append(f"{printable(folder.name)} has no class folders: it is not used.")
    if not images:
        raise not_class_folders(source, top.folder)
    return images


def _refuse_repeated_splits(splits: dict[Path, str], source: str) -> None:
    for folder, split in splits.items():
        names = [printable(other.name) for other, of in splits.items() if of == split]
        if len(names) > 1:
            raise DataError(
                f"{source}: {' and '.join(names)} both mean the {split} split.",
                hint=f"Keep one of them beside {printable(folder.parent.name)}'s other splits, or merge the two.",
            )


def _same_split_inside(listing: Listing, split: str) -> Listing:
    # Kaggle's archives come as training_set/training_set/cats.
    if len(listing.folders) == 1 and not listing.images:
        inner = listing.folders[0]
        if split in split_words([inner.name]).values():
            return list_folder(inner)
    return listing


def _from_classes(top: Listing, source: str, notes: _Notes) -> dict[str, list[Path]]:
    """Class name to images, including those in folders further down."""
    found = {folder: everything_below(folder) for folder in top.folders}
    _refuse_other_layouts(top, found, source)
    notes.add_unused(top)
    by_class: dict[str, list[Path]] = {}
    for folder, content in found.items():
        by_class.setdefault(class_name(folder), []).extend(content.images)
        notes.add_class(content)
    _warn_of_nested_folders(found, notes)
    return by_class


def _refuse_other_layouts(top: Listing, found: dict[Path, Found], source: str) -> None:
    names = {folder.name.lower(): folder for folder in top.folders}
    empty = [folder for folder in top.folders if not found[folder].images]
    if (
        len(empty) == len(top.folders)
        or ("images" in names and names.get("labels") in empty)
        or (empty and annotation_marks(top.folder, everything_below(top.folder)))
    ):
        raise not_class_folders(source, top.folder)
    inner = [split_words(f.name for f in list_folder(folder).folders) for folder in top.folders]
    if len(top.folders) > 1 and all(TRAIN in split_of.values() for split_of in inner):
        _refuse_splits_inside(top, source)


def _refuse_splits_inside(top: Listing, source: str) -> None:
    first = printable(top.folders[0].name)
    names = first_few([printable(folder.name) for folder in top.folders])
    if any(list_folder(inner).folders for inner in list_folder(top.folders[0]).folders):
        raise DataError(
            f"{source}: several datasets, each with splits of its own ({names}).",
            hint=f"Give one of them: {source}/{first}",
        )
    raise DataError(
        f"{source}: each class folder ({names}) holds split folders.",
        hint=f"Turn it inside out: train/{first}, test/{first}; or give a table (.csv) with the columns "
        "path,label,split.",
    )


def _warn_of_nested_folders(found: dict[Path, Found], notes: _Notes) -> None:
    """Folders of folders may be one class per patient or day, or the root may be one level too high."""
    nested = [list_folder(folder) for folder, content in found.items() if content.images]
    if not all(len(listing.folders) > 1 and not listing.images for listing in nested):
        return
    first = printable(nested[0].folder.name)
    inner = first_few([f'"{printable(f.name)}"' for f in nested[0].folders])
    notes.messages.append(
        f'class folders hold folders, not pictures: {inner} all count as class "{first}". If they are the classes, '
        f"give the folder {first} instead."
    )


# ---- walking through folders of any size ----------------------------------------------------------------------------


BLOCK = 65_536
"""Names in memory at a time; some ten megabytes."""


def images_below(folder: Path, left_out: NoImages | None = None) -> Iterator[Path | ImageError]:
    """Every image of this folder and those below it, in the order of sorted paths.

    An image is what ends like one, or begins like one. Hidden files and what systems leave behind are skipped. Links
    to folders are not followed, so that no loop can be entered.

    Args:
        left_out: counts the other files, and the links to folders.
    """
    try:
        for name in in_order(lambda: _names(folder)):
            path = folder / name
            kind = _kind(path)
            if kind in ("", BROKEN_LINK) or (is_image_name(name) and kind == FOLDER):
                yield path  # whoever opens a link to nothing says so
            elif left_out is not None and kind != FOLDER:
                left_out.add(str(path), kind)
            if kind == FOLDER:
                yield from images_below(path, left_out)
    except OSError as error:
        yield ImageError(str(folder), unreadable_reason(error))


def _kind(path: Path) -> str:
    """What a path is: empty for an image, FOLDER for one to go into, else what to call it."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return BROKEN_LINK
    if stat.S_ISDIR(mode):
        return "link to a folder" if path.is_symlink() else FOLDER
    if not stat.S_ISREG(mode):
        return PIPE
    return "" if is_image_name(path.name) else kind_of_file(path)


def matches(pattern: str) -> Iterator[str]:
    """The paths that a glob pattern matches, in order; `**` goes through folders."""
    return in_order(lambda: glob.iglob(pattern, recursive=True))


def in_order(names: Callable[[], Iterable[str]], block: int = BLOCK) -> Iterator[str]:
    """The names that each call of `names` gives, sorted by code point, equal ones once; at most `block` in memory."""
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
            if not is_junk(entry.name):
                yield entry.name
