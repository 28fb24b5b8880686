"""Find the dataset that the user names: a folder, an archive, an address, a table, or a registered name.

A path that exists takes precedence over a registered name; a warning says so, since the name may have been meant.
"""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit
from urllib.request import url2pathname

from relish.core.errors import DataError, nearest
from relish.core.progress import SILENT, Progress
from relish.data.archive import ARCHIVE_SUFFIXES, extract, short_name, unpacking_note
from relish.data.dataset import Dataset
from relish.data.download import checksums, download, mismatch, shown
from relish.data.folder import index_folder
from relish.data.groups import checked_group_by, with_groups
from relish.data.hugging_face import tables_in
from relish.data.image_files import HEAD_BYTES, is_image_head, kind_of
from relish.data.set_aside import split_file, with_set_aside
from relish.data.split_names import NONE, SplitNames, checked_split_names
from relish.data.table import NoLabels, index_table, index_tables, table_of
from relish.data.table_files import TABLE_SUFFIXES, ColumnNames, checked_columns
from relish.data.zip_names import checked_encoding

# ---- datasets that go by a name -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One dataset on the web."""

    address: str
    """Of an archive."""
    sha1: str | None = None
    """40 hexadecimal digits; needed where `sha256` is not known."""
    sha256: str | None = None
    """64 hexadecimal digits."""
    origin: str
    """Who published it, and where it is described."""


REGISTERED = {
    "hotdog": Registered(
        address="http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
        sha1="fba480ffa8aa7e0febbb511d181409f899b9baa5",
        origin="Dive into Deep Learning, section 14.2, Fine-Tuning",
    ),
}
"""By the name a user types."""


# ---- what is said of a dataset --------------------------------------------------------------------------------------


class ReadingOptions(TypedDict, total=False):
    """Arguments of every call that reads a dataset: the fields of `Reading`, which says what each means."""

    split_names: SplitNames
    root: str | Path | None
    column_names: ColumnNames
    zip_encoding: str | None
    group_by: str | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the user says of a dataset's form; by default, its names and contents say it.

    Raises:
        DataError: a field cannot be read.
    """

    split_names: SplitNames = None
    """Which folders, or words of a table, are which split, where their names do not say it: `{"train": "seg_train"}` or
    "train=seg_train,test=seg_test"; "none" where every folder is a class."""
    root: str | Path | None = None
    """The folder that the paths of a table are relative to, or end in; None: the table's own."""
    column_names: ColumnNames = None
    """Which column of a table is which: `{"path": "id", "label": "breed"}` or "path=id,label=breed"."""
    zip_encoding: str | None = None
    """Of names in a zip that are not marked as UTF-8, such as "cp932"; None takes UTF-8 where they are that, else a
    guess, with a warning."""
    group_by: str | None = None
    """What says which images are of one group, as `with_groups` takes it: "FOLDER", a regular expression, "none"; None
    takes a table's column `group`, where it has one; else `fit` looks for series of one scene."""

    def __post_init__(self) -> None:
        if self.zip_encoding is not None:
            object.__setattr__(self, "zip_encoding", checked_encoding(self.zip_encoding))
        object.__setattr__(self, "split_names", checked_split_names(self.split_names))
        object.__setattr__(self, "root", None if self.root is None else os.path.abspath(Path(self.root).expanduser()))
        object.__setattr__(self, "column_names", checked_columns(self.column_names) or None)
        checked_group_by(self.group_by)


AS_FOUND = Reading()
"""Nothing is said."""


def as_options(given: Mapping[str, Any]) -> str:
    """Arguments that say how a dataset is read as a command line has them, each behind a blank."""
    words = {
        name: ",".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
        for name, value in given.items()
        if value is not None
    }
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(word)}" for name, word in words.items())


# ---- files that are no dataset --------------------------------------------------------------------------------------


_UNPACK = "Unpack it and give the folder, or pack it as .zip or .tar.gz."
_TABLE = "Save it as CSV (UTF-8) with the columns path,label and give that."
_LABELS = "Write the labels as a table (.csv) with the columns path,label, and split if there are any, and give that."
_FOLDER = "Give the folder that holds the pictures."
_CLASSES = "Write its pictures into one folder per class."
_KINDS: dict[str, tuple[str, str]] = {
    "empty file": ("an empty file", "Get it again."),
    "RAR archive": ("a RAR archive", _UNPACK),
    "7z archive": ("a 7z archive", _UNPACK),
    "Zstandard archive": ("packed by Zstandard", _UNPACK),
    "old Office document": ("a document of an old Office, such as .xls", _TABLE),
    "Parquet file": ("a Parquet table under another name", "Let its name end in .parquet."),
    "Arrow file": ("an Arrow file", "Save it as Parquet or CSV with the columns path,label and give that."),
    "SQLite database": ("an SQLite database", _LABELS),
    "HDF5 file": ("an HDF5 file", _CLASSES),
    "NumPy array": ("a NumPy array", _CLASSES),
    "PDF document": ("a PDF document", _FOLDER),
    "HTML page": ("a web page", "Download the archive itself, perhaps after logging in."),
}
"""By what `kind_of` calls a file: what it is, and what to do."""
_ENDINGS: dict[str, tuple[str, str]] = {
    ".json": ("a JSON file", _LABELS),
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods", ".numbers"), ("a spreadsheet", _TABLE)),
    **dict.fromkeys((".yaml", ".yml"), ("a YAML file", _FOLDER)),
    ".xml": ("an XML file", _LABELS),
    ".txt": ("a text file", _LABELS),
    **dict.fromkeys((".docx", ".pptx", ".odt"), ("an Office document", _FOLDER)),
    **dict.fromkeys((".npy", ".npz", ".mat"), ("a file of arrays", _CLASSES)),
    **dict.fromkeys((".h5", ".hdf5", ".tfrecord", ".tfrecords", ".lmdb"), ("a database of pictures", _FOLDER)),
    **dict.fromkeys((".pkl", ".pickle"), ("a pickle, which relish does not open", _LABELS)),
    **dict.fromkeys((".pt", ".pth", ".safetensors", ".onnx", ".ckpt", ".keras"), ("a model, not pictures", _FOLDER)),
    **dict.fromkeys((".zst", ".lz4", ".rar", ".7z", ".iso", ".dmg"), ("packed", _UNPACK)),
    **dict.fromkeys((".001", ".z01", ".part"), ("one part of a file", "Join its parts, or download it whole.")),
}
"""Endings of names, where the first bytes do not say it."""
_ZIPPED = ("a spreadsheet", "an Office document", "a file of arrays")
_PACKED = (b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")


def refuse_other_kinds(path: Path, source: str) -> None:
    """Refuse a file that is neither archive nor table: as what it is, by its first bytes or else its name.

    Raises:
        DataError: it is such a file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}).") from error
    named = path.name.lower()
    by_name = _ENDINGS.get(path.suffix.lower(), ("", ""))
    if not (head.startswith(_PACKED) or head[257:262] == b"ustar"):
        picture = ("one picture", _FOLDER) if is_image_head(head) else None
        what, advice = picture or _KINDS.get(kind_of(head), by_name)
    elif named.endswith(ARCHIVE_SUFFIXES) or Path(Path(named).stem).suffix not in {*TABLE_SUFFIXES, *_ENDINGS}:
        what, advice = by_name if by_name[0] in _ZIPPED and head.startswith(b"PK") else ("", "")
    else:
        what, advice = "a single packed file", f"Unpack it and give {path.stem}."
    if what:
        raise DataError(f"{source}: is {what}, not a .zip or .tar archive, a table or a folder.", hint=advice)


# ---- finding a dataset --------------------------------------------------------------------------------------------

DataSource = str | Path | Any
"""A folder, archive, address, table or registered name; or an ImageFolder, a data frame, a list of (path, label)."""


def data_name(source: DataSource) -> str:
    """The name under which `find_dataset` finds a dataset again: the text given, or the path of a table made of it.

    Raises:
        DataError, WriteFailed: as `table_of` does.
    """
    return str(source if isinstance(source, str | Path) else table_of(source))


def find_dataset(
    source: DataSource,
    *,
    sha1: str | None = None,
    sha256: str | None = None,
    reading: Reading = AS_FOUND,
    learnable: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """Find the images, their classes, their splits and their known groups; no image is opened.

    Args:
        source: a folder, an archive, an address of an archive, a table, the `file://` address of any of them, or a
            registered name such as `hotdog`; or what `table_of` takes.
        sha1: what the SHA-1 of the archive must be, 40 hexadecimal digits.
        sha256: what its SHA-256 must be, 64 hexadecimal digits.
        reading: what the user says of its form.
        learnable: refuse a dataset that cannot be trained on; otherwise its `problem` says why.
        progress: shows downloading and unpacking.

    Raises:
        DataError: there is no such thing, it cannot be read as a dataset, it is an archive with another checksum, or
            `group_by` does not divide it.
        DownloadFailed: an address that cannot be reached, or sends another file.
        WriteFailed: no space for the download or the images.
    """
    found = _found(data_name(source), checksums(sha1, sha256), reading, learnable, progress)
    return with_groups(found, reading.group_by)


def _found(text: str, wanted: dict[str, str], reading: Reading, learnable: bool, progress: Progress) -> Dataset:
    if not text.strip():
        raise DataError("The name of the dataset is empty.", hint=_WHAT)
    is_file = re.match(r"file:/", text, re.IGNORECASE) is not None
    if not is_file and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _downloaded(text, shown(text), wanted, reading, learnable, progress)
    path = _path_of(text) if is_file else Path(text).expanduser()
    if _exists(path):
        found = _local(path, text, wanted, reading, learnable, progress)
        warning = f'"{path}" is taken as {path.resolve()}, not as the registered dataset of that name'
        return found.with_splits(found.splits, warning) if text in REGISTERED else found
    if known := REGISTERED.get(text):
        wanted = checksums(known.sha1, known.sha256) | wanted
        return replace(_downloaded(known.address, text, wanted, reading, learnable, progress), name=text)
    raise _nothing_there(text, path)


_NAMES = ", ".join(sorted(REGISTERED))
_WHAT = f"Give a folder, an archive, an address, a .csv, .jsonl or .parquet table, or a name: {_NAMES}."


def _local(
    path: Path, text: str, wanted: dict[str, str], reading: Reading, learnable: bool, progress: Progress
) -> Dataset:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{text}: this path is not UTF-8.", hint="Rename the file or the folder.") from error
    is_table = path.suffix.lower() in TABLE_SUFFIXES
    if (wanted or reading.zip_encoding) and (is_table or path.is_dir()):
        what, options = ("a checksum", "--sha1 and --sha256") if wanted else ("an encoding of names", "--zip-encoding")
        raise DataError(
            f"{text}: {what} belongs to an archive, and this is a {'table' if is_table else 'folder'}.",
            hint=f"Omit {options}.",
        )
    if path.is_dir():
        return _indexed(path, short_name(path.resolve().name), text, reading, learnable, progress)
    if is_table:
        return index_table(
            path,
            name=short_name(path.name),
            source=text,
            split_names=reading.split_names,
            root=None if reading.root is None else Path(reading.root),
            columns=checked_columns(reading.column_names),
            learnable=learnable,
            progress=progress,
        )
    if wrong := mismatch(path, wanted):
        raise DataError(f"{text} is not the archive it should be: {wrong}.", hint="Get it again, or mend the checksum.")
    return _from_archive(path, text, reading, learnable, progress)


def _indexed(folder: Path, name: str, source: str, reading: Reading, learnable: bool, progress: Progress) -> Dataset:
    """A folder by its tables, where it has those of Hugging Face, else by its class folders."""
    if reading.root or reading.column_names:
        raise DataError(
            f"{source}: --root and --column-names say how a table is read, and this is a folder of pictures.",
            hint="Omit them, or give the table.",
        )
    told = reading.split_names
    if told is None and split_file(folder).is_file():  # of `relish teach`, to which every folder is a class
        own: dict[str, Any] = {"name": name, "source": source, "split_names": NONE, "learnable": learnable}
        return with_set_aside(index_folder(folder, **own))
    given: dict[str, Any] = {"name": name, "source": source, "split_names": told, "learnable": learnable}
    tables = tables_in(folder.absolute(), told)
    if tables is None:
        return index_folder(folder, **given)
    try:
        return index_tables(tables, **given, progress=progress)
    except NoLabels as error:
        if not (tables.are_metadata and error.in_folders):
            raise
        found = index_folder(folder, **given)
        return found.with_splits(found.splits, f"{error.message[:-1]}: the folders are the classes.")


def _downloaded(
    address: str, source: str, wanted: dict[str, str], reading: Reading, learnable: bool, progress: Progress
) -> Dataset:
    archive = download(address, sha1=wanted.get("sha1"), sha256=wanted.get("sha256"), progress=progress)
    again = f"\n  To download it again, remove {archive} first."  # without a checksum, a page may be kept like any file
    return _from_archive(archive, source, reading, learnable, progress, again)


def _from_archive(
    archive: Path, source: str, reading: Reading, learnable: bool, progress: Progress, again: str = ""
) -> Dataset:
    """The dataset of an archive, with what is to be said of its names; `again` is added to the hint of a refusal."""
    try:
        refuse_other_kinds(archive, source)
        folder = extract(archive, zip_encoding=reading.zip_encoding, progress=progress)
    except DataError as error:
        raise DataError(error.message, hint=f"{error.hint}{again}".strip()) from error
    found = _indexed(folder, short_name(archive.name), source, reading, learnable, progress)
    note = unpacking_note(folder)
    return found.with_splits(found.splits, f"{source}: {note}") if note else found


def _path_of(address: str) -> Path:
    """The path of a `file://` address: of this machine, %20 as a blank (RFC 8089).

    Raises:
        DataError: it names another machine.
    """
    host, path = urlsplit(address)[1:3]
    if host.lower() not in ("", "localhost"):
        raise DataError(
            f"{address}: a file of another machine, {host}.", hint="Give its path where it is mounted here."
        )
    if not path:
        raise DataError(f"{address}: the address names no file.", hint=_WHAT)
    return Path(url2pathname(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _nothing_there(text: str, path: Path) -> DataError:
    """The error that names the first missing part of the path, and the existing name closest to it."""
    missing = path
    while not _exists(missing.parent):
        missing = missing.parent
    try:
        known = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    except OSError:
        known = []
    part = f", since {missing} does not exist" if missing != path else ""
    names = REGISTERED if len(path.parts) == 1 else ()
    guess = nearest(missing.name, [*names, *known])
    return DataError(
        f'"{text}" is neither a file, a folder nor a registered name{part}.',
        hint=f"{guess[0].upper()}{guess[1:]}" if guess else _WHAT,
    )
