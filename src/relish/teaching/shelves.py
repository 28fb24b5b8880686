"""What a folder of class folders holds at one moment, as the page shows it.

    FOLDER/cat/…                           the images of class cat, at whatever depth
    FOLDER/.relish/unlabelled/…            images without a class
    FOLDER/.relish/removed/classes/cat/…   what was removed from class cat; removed/unlabelled/… likewise
    FOLDER/.relish/incoming/upload         an upload while it is written
    FOLDER/.relish/journal.sqlite3         every change, see `journal.py`
    FOLDER/.relish/split.csv               which images are set aside for test, see `data/set_aside.py`

An image's id is of its path, size and time, so it can be named before its content has been read.
"""

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image as Picture

from relish.core.cache import Cache
from relish.core.errors import BadInput, DataError
from relish.data.image import open_image
from relish.data.layout import Listing, Tree, everything_below, list_folder
from relish.data.set_aside import OWN
from relish.data.split_folders import read_layout

UNLABELLED, REMOVED = f"{OWN}/unlabelled", f"{OWN}/removed"
_REMOVED_CLASSES, _REMOVED_UNLABELLED = f"{REMOVED}/classes", f"{REMOVED}/unlabelled"

State = tuple[int, int, int]
"""Inode, size and time of a file: equal for the same file under another name."""


class Image(NamedTuple):
    """One image file."""

    id: str
    path: str
    """Relative to the folder, with forward slashes."""
    state: State

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Shelf:
    """The images of one place, sorted by name, and a stamp that changes with them."""

    images: tuple[Image, ...]
    stamp: str


@dataclass(frozen=True)
class Content:
    """What a folder holds at one moment."""

    classes: Mapping[str, Shelf]
    unlabelled: Shelf
    removed: Shelf
    by_id: Mapping[str, Image]

    @property
    def labelled(self) -> Iterator[tuple[str, Image]]:
        """Every image of the classes, with its class."""
        return ((name, image) for name, shelf in self.classes.items() for image in shelf.images)


def place_of(path: str) -> str:
    """The folder of a class, `UNLABELLED`, or where removed images of one of them lie."""
    parts = path.split("/")
    if parts[0] != OWN:
        return parts[0]
    return "/".join(parts[: 4 if path.startswith(f"{_REMOVED_CLASSES}/") else 3 if path.startswith(REMOVED) else 2])


def removed_place(place: str) -> str:
    """Where what is removed from a class, or from the unlabelled images, is kept."""
    return _REMOVED_UNLABELLED if place == UNLABELLED else f"{_REMOVED_CLASSES}/{place}"


def place_before(place: str) -> str:
    """The inverse of `removed_place`."""
    return UNLABELLED if place == _REMOVED_UNLABELLED else place.removeprefix(f"{_REMOVED_CLASSES}/")


class Shelves:
    """Reads a folder, and tells by the times of its folders whether it has to be read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: dict[Path, int] = {}

    @property
    def changed(self) -> bool:
        """Whether a folder has got or lost an entry since it was read."""
        return any(_time(folder) != time for folder, time in self._times.items())

    def read(self) -> Content:
        """What the folder holds now."""
        self._times = {}
        classes = {folder.name: self._shelf(folder) for folder in self._listed(self._folder).folders}
        unlabelled, removed = (self._shelf(self._folder / place) for place in (UNLABELLED, REMOVED))
        shelves = [*classes.values(), unlabelled, removed]
        return Content(classes, unlabelled, removed, {image.id: image for one in shelves for image in one.images})

    def _shelf(self, folder: Path) -> Shelf:
        found = (_stated(path, self._folder) for path in everything_below(folder, self._listed).images)
        images = sorted((image for image in found if image is not None), key=lambda image: (image.name, image.path))
        stamp = hashlib.sha1("".join(image.id for image in images).encode(), usedforsecurity=False).hexdigest()[:12]
        return Shelf(tuple(images), stamp)

    def _listed(self, folder: Path) -> Listing:
        self._times[folder] = _time(folder)
        return list_folder(folder)


def refuse_splits(folder: Path) -> None:
    """Refuse a folder whose folders are splits, or that wraps another one: they would show as classes."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file.", hint="Name a folder.")
    if not folder.is_dir() or (folder / OWN).is_dir():
        return
    try:
        layout = read_layout(Tree(folder, str(folder)), None)
    except DataError:  # empty, or without class folders
        return
    inner = next(iter(layout.splits.get("train", ())), None) if layout.splits else layout.top
    if layout.splits or layout.top != folder:
        raise BadInput(
            f"{folder}: the class folders are further down.", hint=f"Open their folder: {inner or layout.top}"
        )


def _time(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _stated(path: Path, folder: Path) -> Image | None:
    try:
        return image_at(path.relative_to(folder).as_posix(), path.stat())
    except (OSError, ValueError):
        return None


def image_at(path: str, status: os.stat_result) -> Image:
    state = (status.st_ino, status.st_size, status.st_mtime_ns)
    words = f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogateescape")
    return Image(hashlib.sha1(words, usedforsecurity=False).hexdigest()[:32], path, state)


def shown_place(place: str) -> str:
    """A place as the page is told of it: the class, or nothing."""
    return "" if place.startswith(f"{OWN}/") else place


# ---- small pictures, made once and kept in relish's cache ------------------------------------------------------------


SIZES = (96, 160, 320, 640)
"""Pixels of the longer side that a thumbnail may have at most."""
WHOLE = 1600
"""The same of an image that is looked at alone."""
_AT_ONCE = threading.BoundedSemaphore(4)
"""Images decoded at a time, which bounds memory."""
_QUALITY = 82
"""Of WebP, 0 to 100."""


def thumbnail(path: Path, state: State, size: int) -> bytes:
    """A WebP of an image, its longer side at most as long as the next of `SIZES`, or `WHOLE`; never enlarged.

    Args:
        path: of the image.
        state: of its file, by which it is known again when it has been moved.
        size: pixels wanted.

    Raises:
        ImageError: the image cannot be opened.
    """
    side = next((one for one in SIZES if one >= size), WHOLE)
    key = hashlib.sha256(repr(state).encode()).digest()
    cache, kind = Cache(), f"thumbnail/{side}"
    kept = dict(cache.recall(kind, [key])) if side != WHOLE else {}
    if key in kept:
        return kept[key]
    with _AT_ONCE:
        content = _made(path, side)
    if side != WHOLE:
        cache.remember(kind, {key: content})
    return content


def _made(path: Path, side: int) -> bytes:
    image = open_image(path, min_side=side)
    image.thumbnail((side, side), Picture.Resampling.BILINEAR)
    written = io.BytesIO()
    image.save(written, "WEBP", quality=_QUALITY, method=2)
    return written.getvalue()
