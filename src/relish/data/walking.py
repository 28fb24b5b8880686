"""Walk through folders of any size, in order, without ever holding all their names.

In:   a folder, or a glob pattern.
Out:  its pictures one by one, always in the same order; a folder that cannot be read, as a `PictureError` among them.
Not here: folders whose names are classes (`folders.py`), opening pictures (`pictures.py`).

A folder's names are sorted a block at a time: each pass over the folder keeps the next `BLOCK` names and forgets the
rest. A million names take 16 passes, which is seconds beside the hours that a million pictures take.
"""

import glob
import heapq
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from relish.core.errors import PictureError
from relish.data.image import PICTURE_SUFFIXES, unreadable_reason

BLOCK = 65_536
"""Names held at once; some ten megabytes."""


def pictures_below(folder: Path) -> Iterator[Path | PictureError]:
    """Every file of this folder and those below it that is a picture by its ending, in the order of sorted paths.

    What begins with a dot is passed over, and a link to a folder is not followed, so that no loop can be entered.
    """
    try:
        for name in in_order(lambda: _names(folder)):
            path = folder / name
            if _is_picture(name):
                yield path
            if os.path.isdir(path) and not os.path.islink(path):
                yield from pictures_below(path)
    except OSError as error:
        yield PictureError(str(folder), unreadable_reason(error))


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
            if not entry.name.startswith(".") and (_is_picture(entry.name) or entry.is_dir(follow_symlinks=False)):
                yield entry.name


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
