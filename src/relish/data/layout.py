"""Read a tree of folders: which names mean a split, which files are junk, and what lies where.

Only what operating systems leave behind is dropped in silence; every other file that is no image is listed by name, so
that the caller can report it.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relish.core.errors import DataError
from relish.data.dataset import TEST, TRAIN, VALIDATION
from relish.data.image import IMAGE_SUFFIXES, unreadable_reason

_SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "validate": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "tests": TEST,
    "eval": TEST,
    "evaluation": TEST,
    "holdout": TEST,
}
_EVAL_WORDS = frozenset(["eval", "evaluation"])
_SPLIT_TAIL = re.compile(r"[-_ ]?(set|data|split|images|imgs|pictures|photos)$")
_JUNK = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information", "$recycle.bin"}  # Windows
    | {"__macosx", "icon\r", "@eadir", "lost+found", "__pycache__"}  # macOS, Synology, Linux, Python
)


@dataclass(frozen=True)
class Listing:
    """What one folder holds, each kind sorted by code point; junk and hidden files are left out."""

    folder: Path
    folders: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()
    """Files that are not images by their ending, links to nothing, pipes and devices."""
    problem: str = ""
    """Why it could not be read, in words; empty where it could."""


@dataclass
class Found:
    """All that a folder and the folders below it hold."""

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    looping: list[Path] = field(default_factory=list)
    """Links to a folder that was gone through already."""


def split_words(names: Iterable[str]) -> dict[str, str]:
    """Which of these names mean a split, and which: `{"Training": "train"}`.

    `eval` is the test split, as in other tools, unless another name among these says test: then it is validation.
    """
    words = {name: _SPLIT_TAIL.sub("", name.strip().lower()) for name in names}
    meant = {name: _SPLIT_WORDS[word] for name, word in words.items() if word in _SPLIT_WORDS}
    if any(split == TEST and words[name] not in _EVAL_WORDS for name, split in meant.items()):
        meant |= {name: VALIDATION for name in meant if words[name] in _EVAL_WORDS}
    return meant


def known_split_words() -> tuple[str, ...]:
    """The names that mean a split, for suggestions."""
    return tuple(_SPLIT_WORDS)


def is_junk(name: str) -> bool:
    """Hidden files, and what Windows, macOS and Synology leave in folders."""
    return name.startswith(".") or name.lower() in _JUNK


def listing(folder: Path) -> Listing:
    """What a folder holds, links followed; a folder that cannot be read is empty and says why."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not is_junk(e.name)), key=lambda e: e.name)
            kinds = [(_kind(entry), folder / entry.name) for entry in visible]
    except OSError as error:
        return Listing(folder, problem=unreadable_reason(error))
    return Listing(
        folder,
        folders=tuple(path for kind, path in kinds if kind == "folder"),
        images=tuple(path for kind, path in kinds if kind == "picture"),
        others=tuple(path for kind, path in kinds if kind == "other"),
    )


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        whole = entry.is_file() and _writable_name(entry.name)
    except OSError:  # a link to itself
        return "other"
    return "picture" if whole and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES else "other"


def _writable_name(name: str) -> bool:
    # A name that is not UTF-8 cannot be printed, nor written to the run folder.
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def everything_below(folder: Path) -> Found:
    """Every image and every other file of a folder and those below it; each real folder once, so loops end."""
    found, waiting, seen = Found(), [folder], set[tuple[int, int]]()
    for above in folder.resolve().parents:  # a link back up would bring in the images of other classes
        _first_time(above, seen)
    while waiting:
        here = waiting.pop()
        if not _first_time(here, seen):
            found.looping.append(here)
            continue
        held = listing(here)
        if held.problem:
            found.unreadable.append((here, held.problem))
        found.images += held.images
        found.others += held.others
        waiting += reversed(held.folders)
    return found


def _first_time(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:  # `listing` says why
        return True
    if (status.st_dev, status.st_ino) in seen:
        return False
    seen.add((status.st_dev, status.st_ino))
    return True


def class_name(folder: Path) -> str:
    """The class that a folder stands for. macOS writes é as two code points and others as one: here it is one.

    Raises:
        DataError: the name is not UTF-8.
    """
    if not _writable_name(folder.name):
        raise DataError(f"{printable(folder)}: the name of this class folder is not UTF-8.", hint="Rename the folder.")
    return unicodedata.normalize("NFC", folder.name)


def printable(path: Path | str) -> str:
    """A path as it can be shown, bytes that are not UTF-8 as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def not_class_folders(source: str, top: Path) -> DataError:
    """Say what was found in a folder that has no class folders, and the one change that mends it."""
    found = everything_below(top)
    held = listing(top)
    tables = [p.name for p in held.others if p.suffix.lower() in {".csv", ".tsv", ".parquet"}]
    if not found.images:
        return DataError(
            f"{source}: no pictures found ({_contents(held, found)}).",
            hint="Pictures are files ending in " + ", ".join(sorted(IMAGE_SUFFIXES)) + ", one folder per class.",
        )
    marks = annotation_marks(top, found)
    if marks:
        return DataError(
            f"{source}: this looks like a dataset with boxes or several labels a picture, not one folder per class.\n"
            f"  found: {_contents(held, found)}; {marks}",
            hint="relish gives a whole picture one label: write a table with the columns path,label (and split, if "
            "you have one) and give that instead.",
        )
    if tables:
        advice = f"If {tables[0]} has the columns path,label, give it instead: {source}/{tables[0]}"
    else:
        advice = (
            f"Put the pictures of each class into a folder of its own ({top.name}/cat, {top.name}/dog), or give a "
            "table (.csv) with the columns path,label."
        )
    return DataError(f"{source}: pictures without class folders.\n  found: {_contents(held, found)}", hint=advice)


def annotation_marks(top: Path, found: Found) -> str:
    """What says that the labels lie in files beside the images, or an empty string."""
    stems = {path.stem for path in found.images}
    beside = [p for p in found.others if p.suffix.lower() in {".txt", ".xml", ".json"} and p.stem in stems]
    if beside:
        return f"{len(beside):,} {beside[0].suffix} files named like pictures, such as {_below(beside[0], top)}"
    lists = [p for p in found.others if _is_annotation_list(p)]
    return f"{_below(lists[0], top)}" if lists else ""


def _is_annotation_list(path: Path) -> bool:
    named = path.name.lower()
    telling = "annotation" in path.parent.name.lower() or "annotation" in named or named.startswith("instances_")
    return named == "_classes.csv" or (path.suffix.lower() in {".json", ".xml"} and telling)


def _contents(held: Listing, found: Found) -> str:
    endings = Counter(path.suffix.lower() or "files without an ending" for path in found.others)
    parts = [f"{len(held.folders):,} folder{'s' * (len(held.folders) != 1)} ({_names(held.folders)})"] * bool(
        held.folders
    )
    parts += [f"{len(found.images):,} picture{'s' * (len(found.images) != 1)}"] * bool(found.images)
    parts += [f"{count:,} {ending}" for ending, count in endings.most_common(4)]
    parts += [f"{printable(path.name)} {reason}" for path, reason in found.unreadable[:2]]
    return ", ".join(parts) or "the folder is empty"


def _names(paths: Sequence[Path], shown: int = 4) -> str:
    return ", ".join(printable(p.name) for p in paths[:shown]) + (", …" if len(paths) > shown else "")


def _below(path: Path, top: Path) -> str:
    return printable(path.relative_to(top).as_posix())
