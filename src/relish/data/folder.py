"""Turn a folder of class folders, or of split folders that hold them, into a dataset; walk folders of any size.

Names are sorted by code point, not by locale, so class 0 is the same class on every computer.
"""

import glob
import heapq
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relish.core.errors import DataError, ImageError, one_line
from relish.data.dataset import TRAIN, WHOLE, Dataset, first_few, label_by_name, name_below, plural
from relish.data.image_files import is_image_name, kind_of_file, unreadable_reason
from relish.data.layout import (
    BROKEN_LINK,
    FOLDER,
    PIPE,
    Found,
    Listing,
    NoImages,
    Tree,
    annotation_marks,
    folder_label,
    is_junk,
    names_of,
    not_class_folders,
)
from relish.data.split_folders import Layout, inside_split, read_layout
from relish.data.split_names import SplitNames, is_sidecar, is_unlabelled, split_words


def index_folder(
    root: Path, *, name: str, source: str, split_names: SplitNames = None, learnable: bool = True
) -> Dataset:
    """Find the classes, the splits and the images of a folder; nothing is opened.

    Args:
        root: the folder. Where it holds one folder and nothing else to learn from, as unpacked archives do, that
            one is taken, and becomes the root of the dataset.
        name: a short word for the dataset.
        source: what the user gave, for errors.
        split_names: which folders are which split, as `checked_split_names` gives it; None: see `read_layout`.
        learnable: as in `label_by_name`.

    Raises:
        DataError: the folder cannot be read or has no class folders; splits and classes are both possible; a class of
            validation or test is unknown to training; with a training split, fewer than two classes, or a class
            without images.
    """
    tree, notes = Tree(root.absolute(), source), _Notes()
    if problem := tree.listing(tree.root).problem:
        raise DataError(f"{source}: the folder {problem}.", hint="Check its name and who may read it.")
    layout = read_layout(tree, split_names)
    notes.messages += layout.notes
    top = layout.top
    for listing in tree.above(top):
        notes.add_unused(listing)
        beside = [folder for folder in tree.with_images(listing.folder) if not top.is_relative_to(folder)]
        notes.messages += [_left_out(tree, folder) for folder in beside]
    if layout.splits:
        images = _from_splits(tree, layout, split_names, notes)
    else:
        images = {WHOLE: _from_classes(tree, top, notes, split_names)}
    warnings = notes.warnings(top, root)
    return label_by_name(images, name=name, source=source, root=top, warnings=warnings, learnable=learnable)


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

    def warnings(self, top: Path, root: Path) -> list[str]:
        def shown(path: Path) -> str:
            return one_line(name_below(path, top if path.is_relative_to(top) else root))

        def are(paths: Sequence[Path]) -> str:
            count = f"{len(paths):,} files, " if len(paths) > 3 else ""
            return f"{count}{first_few([shown(path) for path in paths])} {'is' if len(paths) == 1 else 'are'}"

        lines = [f"{are(self.stray)} not inside a class folder: left out."] if self.stray else []
        lines += self.messages
        if self.others:
            left_out = NoImages()
            for path, kind in self.others.items():
                left_out.add(shown(path), kind)
            lines.append(left_out.sentence())
        for path, reason in self.unreadable:
            lines.append(f"{shown(path)} {reason}: what it holds is left out.")
        if self.looping:
            lines.append(f"{are(self.looping)} linked to a folder met before: not followed.")
        return lines


def _from_splits(tree: Tree, layout: Layout, told: SplitNames, notes: _Notes) -> dict[str, dict[str, list[Path]]]:
    """Split to class name to images."""
    notes.add_unused(tree.listing(layout.top))
    notes.messages += [_left_out(tree, folder, told) for folder in layout.left_out]
    images: dict[str, dict[str, list[Path]]] = {split: defaultdict(list) for split in layout.splits}
    for split, folders in layout.splits.items():
        for folder in folders:
            for name, paths in _from_classes(tree, folder, notes).items():
                images[split][name] += paths
    for folder in layout.unlabelled:
        notes.add_unused(tree.listing(folder))
        notes.messages.append(f"{one_line(name_below(folder, layout.top))} has no class folders: it is not used.")
    return images


def _left_out(tree: Tree, folder: Path, told: SplitNames = None) -> str:
    name, count = one_line(folder.name), plural(len(tree.below(folder).images), "picture")
    if isinstance(told, Mapping):
        return f"{name} is not in --split-names: left out ({count})."
    if is_unlabelled(name) and not tree.with_images(inside_split(tree, folder)):
        return f"{name} holds {count} without labels: left out."
    what = "a folder of classes or a split, by its name" if is_sidecar(name) else "the name of a split"
    return f"{name} is not {what}: left out ({count})."


def _from_classes(tree: Tree, top: Path, notes: _Notes, told: SplitNames = None) -> dict[str, list[Path]]:
    """Class name to images, including those in folders further down."""
    listing = tree.listing(top)
    if told is None:
        _refuse_other_layouts(tree, listing)
    notes.add_unused(listing)
    by_class: dict[str, list[Path]] = defaultdict(list)
    for folder in listing.folders:
        content = tree.below(folder)
        if not content.images and is_sidecar(folder.name):
            notes.messages.append(f"{one_line(folder.name)} holds no pictures: left out.")
            continue
        by_class[folder_label(folder)] += content.images
        notes.add_class(content)
    notes.messages += _nested_folders([tree.listing(folder) for folder in tree.with_images(top)])
    return by_class


def _refuse_other_layouts(tree: Tree, top: Listing) -> None:
    names = {folder.name.lower(): folder for folder in top.folders}
    empty = [folder for folder in top.folders if not tree.below(folder).images]
    only_sidecars = all(is_sidecar(folder.name) for folder in empty)
    boxes = not only_sidecars and annotation_marks(top.folder, tree.below(top.folder))
    if len(empty) == len(top.folders) or ("images" in names and names.get("labels") in empty) or boxes:
        raise not_class_folders(tree, top.folder)
    inner = [split_words(f.name for f in tree.listing(folder).folders) for folder in top.folders]
    if len(inner) > 1 and all(TRAIN in split_of.values() for split_of in inner):
        first = one_line(top.folders[0].name)
        raise DataError(
            f"{tree.source}: each class folder ({names_of(top.folders)}) holds split folders.",
            hint=f"Turn it inside out: train/{first}, test/{first}; or give a table (.csv) with the columns "
            "path,label,split.",
        )


def _nested_folders(classes: Sequence[Listing]) -> list[str]:
    """What to say of folders of folders: one class per patient or day, or the root is one level too high."""
    if not all(len(listing.folders) > 1 and not listing.images for listing in classes):
        return []
    first = one_line(classes[0].folder.name)
    inner = first_few([f'"{one_line(folder.name)}"' for folder in classes[0].folders])
    advice = f"give the folder {first} instead"
    if len(classes) > 1 and len({tuple(f.name for f in listing.folders) for listing in classes}) == 1:
        # Three versions of each image, or splits by names of their own.
        advice += f", or say which folder is which split: --split-names train={first},…"
    words = f'class folders hold folders, not pictures: {inner} all count as class "{first}". If they are the classes, '
    return [f"{words}{advice}."]


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
