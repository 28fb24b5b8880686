"""Read a tree of folders: junk files, images and other files; say what a folder without class folders holds.

Only files that operating systems leave behind are dropped silently; every other file that is no image is listed, so
that the caller can report it.
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from relish.core.errors import DataError, one_line
from relish.data.dataset import first_few, is_utf8, name_below, plural
from relish.data.image_files import is_image_name, kind_of_file, unreadable_reason
from relish.data.table_files import TABLE_SUFFIXES
from relish.data.table_paths import table_advice

_JUNK = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information", "$recycle.bin"}  # Windows
    | {"__macosx", "icon\r", "@eadir", "lost+found", "__pycache__"}  # macOS, Synology, Linux, Python
)


@dataclass(frozen=True)
class Listing:
    """The content of one folder, each kind sorted by code point, without junk and hidden files."""

    folder: Path
    folders: tuple[Path, ...] = ()
    files: Mapping[Path, str | None] = field(default_factory=dict)
    """All else that lies there. Empty: an image by its ending; None: its first bytes say; else what it is in words."""
    problem: str = ""
    """The reason why it could not be read; empty where it could."""

    @cached_property
    def _kinds(self) -> dict[Path, str]:
        return {path: kind_of_file(path) if kind is None else kind for path, kind in self.files.items()}

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """Images by their ending or their first bytes."""
        return tuple(path for path, kind in self._kinds.items() if not kind)

    @cached_property
    def others(self) -> dict[Path, str]:
        """The other files, links to nothing, pipes and devices, each with what it is, such as `text file`."""
        return {path: kind for path, kind in self._kinds.items() if kind}


@dataclass
class Found:
    """The content of a folder and of all folders below it."""

    images: list[Path] = field(default_factory=list)
    others: dict[Path, str] = field(default_factory=dict)
    """As in `Listing`."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    looping: list[Path] = field(default_factory=list)
    """Links to a folder that was read already."""


def list_folder(folder: Path) -> Listing:
    """The content of a folder, links followed, without relish's own runs; one that cannot be read has a `problem`."""
    folders: list[Path] = []
    files: dict[Path, str | None] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in sorted((e for e in entries if not is_junk(e.name)), key=lambda e: e.name):
                kind = _kind(entry)
                if kind == FOLDER:
                    folders += [] if _holds_runs(entry.path) else [folder / entry.name]
                else:
                    files[folder / entry.name] = kind
    except OSError as error:
        return Listing(folder, problem=unreadable_reason(error))
    return Listing(folder, tuple(folders), files)


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or what operating systems leave behind."""
    return name.startswith(".") or name.lower() in _JUNK


def _holds_runs(folder: str) -> bool:
    """Whether a folder is a run's, or the `runs` that `fit` made where it was typed: often beside the class folders."""
    if os.path.basename(folder) == "runs":
        return any(map(_is_run, glob.glob(os.path.join(glob.escape(folder), "*"))))
    return _is_run(folder)


def _is_run(folder: str) -> bool:
    return all(os.path.isfile(os.path.join(folder, name)) for name in ("request.json", "recipe.yaml"))


_PACKED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".rar", ".7z")
FOLDER, PIPE, BROKEN_LINK = "folder", "pipe or device", "link to nothing"


def _kind(entry: os.DirEntry[str]) -> str | None:
    try:
        if entry.is_dir():
            return FOLDER
        if not entry.is_file():
            return BROKEN_LINK if entry.is_symlink() and not os.path.exists(entry.path) else PIPE
    except OSError:  # a link to itself
        return BROKEN_LINK
    if not is_utf8(entry.name):
        return "file whose name is not UTF-8"
    return "" if is_image_name(entry.name) else None


def everything_below(folder: Path, listed: Callable[[Path], Listing] = list_folder) -> Found:
    """All files of a folder and those below it; each real folder is read once, so loops of links end.

    Args:
        listed: reads one folder.
    """
    # A link back up would bring in the images of other classes.
    found, waiting, visited = Found(), [folder], {_identity(above) for above in folder.resolve().parents}
    while waiting:
        here = waiting.pop()
        identity = _identity(here)
        if identity in visited:
            found.looping.append(here)
            continue
        visited.add(identity)
        listing = listed(here)
        if listing.problem:
            found.unreadable.append((here, listing.problem))
        found.images += listing.images
        found.others |= listing.others
        waiting += reversed(listing.folders)
    return found


def _identity(folder: Path) -> tuple[int, int] | Path:
    try:
        status = os.stat(folder)
    except OSError:  # `list_folder` gives the reason
        return folder
    return status.st_dev, status.st_ino


class Tree:
    """Folders, each read once."""

    def __init__(self, root: Path, source: str) -> None:
        self.root, self.source = root, source
        """Where it begins, and what the user calls that."""
        self.listing = cache(list_folder)
        self.below = cache(lambda folder: everything_below(folder, self.listing))

    def address(self, path: Path) -> str:
        """What to type for a file or a folder in it: the real one where the source is an archive or an address."""
        given = Path(self.source).expanduser()
        return one_line(path if given.is_file() or "://" in self.source else given / path.relative_to(self.root))

    def with_images(self, folder: Path) -> list[Path]:
        """The folders in this one that have images, at whatever depth."""
        return [inner for inner in self.listing(folder).folders if self.below(inner).images]

    def above(self, folder: Path) -> list[Listing]:
        """The folders that this one lies in, from the root down."""
        return [self.listing(self.root / above) for above in reversed(folder.relative_to(self.root).parents)]


def folder_label(folder: Path) -> str:
    """The label that a class folder gives its images, as it is spelt there.

    Raises:
        DataError: the name is not UTF-8.
    """
    if not is_utf8(folder.name):
        raise DataError(f"{one_line(folder)}: the name of this class folder is not UTF-8.", hint="Rename the folder.")
    return folder.name


def names_of(paths: Iterable[Path], shown: int = 3) -> str:
    """The names of the first few files or folders, as they can be shown."""
    return first_few([one_line(path.name) for path in paths], shown)


@dataclass
class NoImages:
    """Files that were left out since they are no images: counted by kind, the first few by name."""

    kinds: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str) -> None:
        """Count a file of this kind, such as `text file`."""
        self.kinds[kind] += 1
        if len(self.names) < 3:
            self.names.append(one_line(name))

    def sentence(self) -> str:
        """Such as `a.txt, b.txt are not pictures (text file 2): left out.`"""
        count = self.kinds.total()
        if count == 1:
            return f"{self.names[0]} is not a picture ({next(iter(self.kinds))}): left out."
        files, rest = (f"{count:,} files, ", f" and {count - 3:,} more") if count > 3 else ("", "")
        kinds = first_few([f"{kind} {number:,}" for kind, number in self.kinds.most_common()], 5)
        return f"{files}{', '.join(self.names)}{rest} are not pictures ({kinds}): left out."


def not_class_folders(tree: Tree, top: Path, *further: str) -> DataError:
    """The error for a folder without class folders: what it holds, and the one change that mends it.

    Args:
        further: other advice, a line each.
    """
    found, contents = tree.below(top), _contents(tree.listing(top), tree.below(top))
    tables = [path for path in found.others if path.suffix.lower() in TABLE_SUFFIXES]
    if any(path.suffix.lower() == ".arrow" for path in found.others):
        return DataError(
            f"{tree.source}: a dataset as `datasets` saves it to disk, in Arrow files, which relish does not read.",
            hint='Write each split as Parquet, such as  load_from_disk("pets")["train"].to_parquet("train.parquet")  '
            "and give the folder of these.",
        )
    if not found.images:
        packed = names_of(path for path in found.others if path.suffix.lower() in _PACKED)
        formats = "Pictures are JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PPM or HEIC; one folder per class."
        return DataError(
            f"{tree.source}: no pictures found ({contents}).",
            hint=f"They may be in {packed}: unpack what is packed, then again." if packed else formats,
        )
    if marks := annotation_marks(top, found):
        return DataError(
            f"{tree.source}: this looks like a dataset with boxes or several labels a picture, not one folder per "
            f"class.\n  found: {contents}; {marks}",
            hint="relish gives a whole picture one label: write a table with the columns path,label (and split, if "
            "you have one) and give that instead.",
        )
    advice = table_advice(tables, found.images, tree.address)
    if not advice and tables:
        advice = f"If {tables[0].name} has the columns path,label, give it instead: {tree.address(tables[0])}"
    classes = f"Put the pictures of each class into a folder of its own ({top.name}/cat, {top.name}/dog), or give a "
    hint = "\n  ".join([advice or classes + "table (.csv) with the columns path,label.", *further])
    return DataError(f"{tree.source}: pictures without class folders.\n  found: {contents}", hint=hint)


def annotation_marks(top: Path, found: Found) -> str:
    """The files that show that labels lie beside the images, or an empty string."""
    stems = {path.stem for path in found.images}
    beside = [p for p in found.others if p.suffix.lower() in {".txt", ".xml", ".json"} and p.stem in stems]
    if beside:
        first = one_line(name_below(beside[0], top))
        return f"{len(beside):,} {beside[0].suffix} files named like pictures, such as {first}"
    return next((one_line(name_below(path, top)) for path in found.others if _is_annotation_list(path)), "")


def _is_annotation_list(path: Path) -> bool:
    name = path.name.lower()
    is_named = "annotation" in f"{path.parent.name.lower()}/{name}" or name.startswith("instances_")
    return name == "_classes.csv" or (path.suffix.lower() in {".json", ".xml"} and is_named)


def _contents(listing: Listing, found: Found) -> str:
    endings = Counter(path.suffix.lower() or "files without an ending" for path in found.others)
    parts = [f"{plural(len(listing.folders), 'folder')} ({names_of(listing.folders, 4)})"] * bool(listing.folders)
    parts += [plural(len(found.images), "picture")] * bool(found.images)
    parts += [f"{count:,} {ending}" for ending, count in endings.most_common(4)]
    parts += [f"{one_line(path.name)} {reason}" for path, reason in found.unreadable[:2]]
    return ", ".join(parts) or "the folder is empty"
