r"""Find the files that the paths of a table name: without endings, below another root, from another machine.

    cats/001                          the only file of that name, whatever its ending: `cats/001.jpg`
    C:\Users\me\pets\cats\001.jpg     with a root: as much of the end as lies below it, the same part for all rows
    0a1b2c                            with a root: the only file of that name below it

The other way round, `table_advice` sees that a table names the images of a folder, as Kaggle's `train.csv` does, and
says what to type.
"""

import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

from relish.core.errors import DataError
from relish.data.dataset import TEST, first_few
from relish.data.image_files import is_image_name
from relish.data.split_names import is_sidecar, splits_in, words_of
from relish.data.table_files import PLAIN_SUFFIXES, Row, read_cells

_SAMPLE = 1000
"""Rows of a table that are looked at to see which images it names."""
_LABELS = ("label", "labels", "class", "class_name", "category", "target", "diagnosis", "breed", "species", "dx")
"""Columns that are taken for the labels, where there are several besides that of the images."""


class Files:
    """The files below a folder, by what a table may call them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """A path as it is spelt on the disk; None where there is no such file.

        A cell may hold blanks around the path, accents in one or two code points where the folder has the other, and a
        name without its ending.

        Raises:
            DataError: a name without an ending is that of several files.
        """
        plain = path.strip()
        spellings = (path, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))
        found = next((one for one in dict.fromkeys(spellings) if os.path.isfile(self.folder / one)), None)
        return found or self._with_ending(plain)

    def anywhere(self, name: str) -> str | None:
        """The only file of this name, with or without its ending, at any depth; None where there is none.

        Raises:
            DataError: there are several.
        """
        return _only(self._everywhere.get(name.strip(), []), name)

    def _with_ending(self, path: str) -> str | None:
        above, name = os.path.split(path)
        if not name or is_image_name(name):
            return None
        if above not in self._stems:
            names = next(((above, files) for _, _, files in os.walk(self.folder / above)), (above, []))
            self._stems[above] = _by_name([names])
        return _only(self._stems[above].get(name, []), path)

    @cached_property
    def _everywhere(self) -> dict[str, list[str]]:
        return _by_name((os.path.relpath(above, self.folder), names) for above, _, names in os.walk(self.folder))


def _by_name(folders: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """The paths of images by their names, with and without endings."""
    found: dict[str, list[str]] = defaultdict(list)
    for above, names in folders:
        for name in filter(is_image_name, names):
            for called in (name, os.path.splitext(name)[0]):
                found[called].append(name if above == os.curdir else os.path.join(above, name))
    return found


def _only(found: Sequence[str], called: str) -> str | None:
    if len(found) > 1:
        raise DataError(
            f'"{called}" may be any of several files: {first_few(sorted(found))}.',
            hint="Write their paths from the root, with the endings.",
        )
    return found[0] if found else None


def located(rows: Sequence[Row], folder: Path, *, is_root: bool = False) -> tuple[list[Row], set[str]]:
    """Each row with its path as it is spelt on the disk, and the paths that are not there.

    Args:
        folder: what paths are relative to.
        is_root: whether the user gave that folder: then paths may be of another machine, or names alone.

    Raises:
        DataError: a name is that of several files.
    """
    files = Files(folder)
    path_of = {path: files.find(path) for path in dict.fromkeys(row.path for row in rows)}
    elsewhere = [path for path, found in path_of.items() if found is None] if is_root else []
    if elsewhere:
        path_of |= _below_root(elsewhere, files)
    missing = {path.strip() for path, found in path_of.items() if found is None}
    return [replace(row, path=path_of[row.path] or row.path.strip()) for row in rows], missing


def _below_root(paths: Sequence[str], files: Files) -> dict[str, str | None]:
    """Where paths of another machine, and names of images, lie below a root."""
    parts_of = {path: _parts(path) for path in paths}
    skipped = set(range(max(map(len, parts_of.values()))))
    for parts in parts_of.values():
        skipped = {count for count in skipped if count < len(parts) and files.find("/".join(parts[count:]))}
        if not skipped:
            break
    if skipped:
        return {path: files.find("/".join(parts[min(skipped) :])) for path, parts in parts_of.items()}
    return {path: files.anywhere(parts[0]) if len(parts) == 1 else None for path, parts in parts_of.items()}


def _parts(path: str) -> tuple[str, ...]:
    """The names in a path of any system, without a drive, a server or a root."""
    pure = PureWindowsPath(path.strip())
    parts = pure.parts[1:] if pure.anchor else pure.parts
    return () if ".." in parts else parts


def refuse_missing_files(rows: Sequence[Row], absent: Collection[str], folder: Path, source: str) -> None:
    """Say which files of a table are not there, and the one change that mends it.

    Raises:
        DataError: any is in `absent`.
    """
    missing = [row.path for row in rows if row.path in absent]
    if not missing:
        return
    doubled = [_with_folder_twice(path, folder) for path in missing]
    if all(doubled):
        hint = f"Paths are relative to the table's own folder: {doubled[0]}."
    elif any("://" in path for path in missing):
        hint = "Addresses are not fetched: download the pictures and name the files."
    elif any(PureWindowsPath(path).drive or os.path.isabs(path) for path in missing):
        hint = "Say where they are on this machine: --root FOLDER, which the ends of these paths are looked for in."
    elif any("\\" in path for path in missing):
        hint = "Write / between folders, not \\; or say --root FOLDER."
    else:
        hint = f"Paths are relative to {folder}: move the table, mend the paths, or say --root FOLDER."
    files = f"{len(missing):,} of {len(rows):,} files are" if len(missing) > 1 else f"1 of {len(rows):,} files is"
    raise DataError(f"{source}: {files} missing: {first_few(missing)}.", hint=hint)


def _with_folder_twice(path: str, folder: Path) -> str:
    """What to write instead of a path that begins with the table's own folder; empty where that is not the fault."""
    parts = Path(path).parts
    for place in range(len(parts) - 1):
        above = parts[place - 1] if place else folder.name
        shorter = Path(*parts[:place], *parts[place + 1 :])
        if parts[place] == above and os.path.isfile(folder / shorter):
            return f"write {Path(*parts[place + 1 :])}, not {Path(*parts[place:])}"
    return ""


# ---- tables that name the images of a folder ------------------------------------------------------------------------


def table_advice(tables: Iterable[Path], images: Iterable[Path], typed: Callable[[Path], str]) -> str:
    """What to type for the first table that names images; empty where none names as many as half of its rows.

    Args:
        tables: those beside the images.
        images: all that the table may name.
        typed: a path as one can type it.
    """
    folders_of: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        folders_of[image.name].append(image.parent)
        folders_of[image.stem].append(image.parent)
    plain = (table for table in tables if table.suffix.lower() in PLAIN_SUFFIXES)
    return next((advice for table in plain if (advice := _advice_of(table, folders_of, typed))), "")


def _advice_of(table: Path, folders_of: Mapping[str, Sequence[Path]], typed: Callable[[Path], str]) -> str:
    """What to give instead of the folder; empty where the table names no images, or cannot be read."""
    try:
        header, lines = read_cells(table, table.name)
        rows = [cells for _, cells in islice(lines, _SAMPLE)]
    except DataError:
        return ""
    for place in range(len(header) if len(header) > 1 else 0):
        cells = [re.split(r"[\\/]", str(row[place]).strip()) for row in rows]
        met = [names for names in cells if names[-1] in folders_of]
        if met and 2 * len(met) >= len(cells):
            break
    else:
        return ""
    root, spread = _shared_root(table, [(names[:-1], folders_of[names[-1]]) for names in met])
    path, others = header[place], [name for name in header if name not in ("", header[place])]
    known = [name for name in others if name.lower() in _LABELS]
    label = (known or (others if len(others) == 1 else [""]))[0]
    words = [shlex.quote(typed(table))]
    if spread or root != table.parent:
        words.append(f"--root {shlex.quote(typed(root))}")
    if (path.lower(), label.lower()) != ("path", "label"):
        words.append("--column-names " + shlex.quote(f"path={path},label={label or 'COLUMN'}"))
    which = "" if label else f", where COLUMN is one of {first_few(others, 6)}"
    return f"{table.name} names these pictures; give it instead: {' '.join(words)}{which}"


def _shared_root(table: Path, met: Sequence[tuple[Sequence[str], Sequence[Path]]]) -> tuple[Path, bool]:
    """The folder that all paths are relative to, else the one that all lie below; whether it is the latter.

    Of several, such as `images` and `masks`, or `train` and `test` beside `train.csv`, it is the one named like that.
    """
    counts = Counter(root for tail, folders in met for root in {_without_tail(folder, tail) for folder in folders})
    called = {*words_of(table.stem)}

    def order(root: Path) -> tuple[Any, ...]:
        is_test = TEST in splits_in(root.name)
        return -counts[root], is_sidecar(root.name), called.isdisjoint(words_of(root.name)), is_test, root

    first = min(counts, key=order)
    return (first, False) if counts[first] == len(met) else (Path(os.path.commonpath(counts)), True)


def _without_tail(folder: Path, tail: Sequence[str]) -> Path:
    """The folder that a path through these folders is relative to."""
    for name in reversed(tail):
        if folder.name != name:
            break
        folder = folder.parent
    return folder
