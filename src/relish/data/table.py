"""Turn tables of images into a dataset: one with the columns `path,label` and, optionally, `split`, or a folder's.

Data frames, lists and ImageFolders become such a table first, so that a run can record what it was made from.

Paths are relative to the table's folder, or absolute; `table_files.py` and `hugging_face.py` read them.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relish.core.errors import DataError, nearest
from relish.core.io import atomic_path, relish_home
from relish.core.progress import SILENT, Progress
from relish.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    class_name,
    first_few,
    is_utf8,
    label_by_name,
    name_below,
    plural,
)
from relish.data.hugging_face import Tables, is_metadata, read_parquet_table, shard_split, splits_of
from relish.data.layout import everything_below
from relish.data.split_names import NONE, SPLIT_WORDS, SplitNames, split_words
from relish.data.table_files import (
    FEWEST_VALUES,
    HINT,
    MOST_VALUES,
    NEEDED,
    NOTHING_TOLD,
    PARQUET_SUFFIXES,
    Row,
    Rows,
    meant_columns,
    read_text_table,
    refuse_several_labels,
    split_by_fastai,
    table_text,
    text_of,
)
from relish.data.table_paths import located, refuse_missing_files

_COLUMNS = (*NEEDED, "split")


class NoLabels(DataError):
    """Tables of a folder that say nothing of the classes."""

    in_folders = False
    """Whether their images lie in further folders, which may be the classes."""


def index_table(
    path: Path,
    *,
    name: str,
    source: str,
    split_names: SplitNames = None,
    root: Path | None = None,
    columns: Mapping[str, str] = NOTHING_TOLD,
    learnable: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """Read a table of images; none is opened, but each file must be there.

    Args:
        path: ends in one of `TABLE_SUFFIXES`. The name of a Parquet file may have its split (`shard_split`).
        name: a short word for the dataset.
        source: what the user gave, for errors.
        split_names: which words of the column `split` are which split, as `checked_split_names` gives it.
        root: what its paths are relative to, and paths of another machine end in (`located`); None: its own folder.
        columns: which of its columns is which, as `checked_columns` gives it.
        learnable: as in `label_by_name`.
        progress: says where the images of a Parquet file were written to.

    Raises:
        DataError: a column is missing, a cell is empty, a split has an unknown name, files are missing, an image has
            several labels or stands in several splits; or the classes do not allow it (see `label_by_name`).
        WriteFailed: no space for the images of a Parquet file.
    """
    path = path.absolute()
    if root is not None and not root.is_dir():
        raise DataError(f"--root {root}: there is no such folder.", hint="Name the one that the pictures are in.")
    split = shard_split(path) if split_names is None else ""
    table = _read(path, source, NEEDED, progress, columns)
    table.rows = _with_split(table, path, split, split_names)
    folder = root or table.folder
    return _index_rows([table], folder, name, source, split_names, learnable, is_root=root is not None)


def index_tables(
    tables: Tables,
    *,
    name: str,
    source: str,
    split_names: SplitNames = None,
    learnable: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """Read the tables found in a folder as one dataset; arguments and errors as in `index_table`.

    Raises:
        NoLabels: no table has labels.
    """
    read: dict[Path, Rows] = {}
    for path in tables.split_of:
        called = os.path.join(source, name_below(path, tables.root))
        table = _read(path, called, () if is_metadata(path) else ("path",), progress)
        if not is_metadata(path) or "file_name" in map(str.lower, table.header):
            read[path] = table
    found = [table for table in read.values() if table.labelled]
    if not found:
        raise _no_labels(tables, [*read.values()], source)
    inside = all(table.folder.is_relative_to(tables.root) for table in found)
    root = tables.root if inside else Path(os.path.commonpath([table.folder for table in found]))
    notes = [*tables.notes]
    for path, table in read.items():
        shown = name_below(path, tables.root)
        if not table.labelled:
            notes.append(f"{shown} has no labels: left out ({plural(len(table.rows), 'picture')}).")
        below = os.path.relpath(table.folder, root)
        rows = _with_split(table, path, tables.split_of[path], split_names)
        table.rows = [replace(row, path=_below(below, row.path), table=shown) for row in rows]
    if tables.are_metadata:
        notes += _said_of_images(tables.root, [row for table in found for row in table.rows])
    dataset = _index_rows(found, root, name, source, split_names, learnable)
    return dataset.with_splits(dataset.splits, *notes)


def _read(
    path: Path, source: str, needed: Sequence[str], progress: Progress, told: Mapping[str, str] = NOTHING_TOLD
) -> Rows:
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return read_parquet_table(path, source, needed, progress, told)
    return read_text_table(path, source, needed=needed, told=told)


def _no_labels(tables: Tables, read: Sequence[Rows], source: str) -> NoLabels:
    first = os.path.join(source, name_below(next(iter(tables.split_of)), tables.root))
    columns = ", ".join(read[0].header) if read else "others"
    error = NoLabels(
        f"{first}: no column label, or nothing in it; its columns are {columns}.",
        hint="Name the class of each picture in a column called label, or put the pictures into class folders.",
    )
    error.in_folders = not read or any("/" in row.path for table in read for row in table.rows)
    return error


def _below(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path.strip())) if path.strip() else ""


def _with_split(table: Rows, path: Path, split: str, told: SplitNames) -> list[Row]:
    """The rows with the split of their table, where it is known, else that of the folder in the path."""
    split_of = _split_folders(table, told) if is_metadata(path) else {}
    return [replace(row, split=split or split_of.get(_first_folder(row), row.split)) for row in table.rows]


def _split_folders(table: Rows, told: SplitNames) -> dict[str, str]:
    """The split of each first folder of its paths; empty where a column says the splits, or not all of them are."""
    if not table.columns.keys().isdisjoint(("split", "is_valid")):
        return {}
    split_of = splits_of({_first_folder(row) for row in table.rows} - {""}, told)
    return split_of if all(split_of.get(_first_folder(row)) for row in table.rows) else {}


def _first_folder(row: Row) -> str:
    parts = Path(os.path.normpath(row.path.strip())).parts
    return parts[0] if len(parts) > 1 else ""


def _said_of_images(root: Path, rows: Sequence[Row]) -> list[str]:
    """What is to be said of images beside a table: those it leaves out, and those in the folder of another class."""
    named = {os.path.normpath(root / row.path) for row in rows}
    labels = {row.label for row in rows}
    rest = [name_below(path, root) for path in everything_below(root).images if str(path) not in named]
    other = [row for row in rows if (folder := Path(row.path).parent.name) in labels and folder != row.label]
    notes = []
    if rest:
        notes.append(f"{plural(len(rest), 'picture')} in no row of a table: left out ({first_few(rest)}).")
    if other:
        first = f'{other[0].path} is "{other[0].label}"'
        notes.append(f"classes are those of the table, not of the folders ({plural(len(other), 'row')}: {first}).")
    return notes


def _index_rows(
    tables: Sequence[Rows],
    folder: Path,
    name: str,
    source: str,
    told: SplitNames,
    learnable: bool,
    *,
    is_root: bool = False,
) -> Dataset:
    rows = [row for table in tables for row in table.rows]
    if not rows:
        raise DataError(f"{source}: the table has no rows.", hint=HINT)
    _refuse_empty_cells(rows, source)
    warnings = list(dict.fromkeys(note for table in tables for note in table.notes))
    unused = list(dict.fromkeys(column for table in tables for column in table.unused))
    if unused and not any("path" in table.header for table in tables):
        warnings.append(f"not used of the table: {'column' if len(unused) == 1 else 'columns'} {first_few(unused, 8)}.")
    if not any({"decision", "reason"} <= {*table.header} for table in tables):  # `relish check --fix` wrote that
        warnings += refuse_several_labels(rows, source)
    of_column = told == NONE or any("split" in table.columns for table in tables)
    split_of = _split_names(rows, source, told if of_column else None)
    rows, missing = located(rows, folder, is_root=is_root)
    unique, repeats = _without_repeats(rows, folder, split_of, source)
    refuse_missing_files(unique, missing, folder, source)
    images: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for row in unique:
        images[split_of[row.split]][row.label].append(folder / row.path)
    paths = [folder / row.path for row in unique]
    is_inside = any(image.is_relative_to(folder) for image in paths)
    root = folder if is_inside else Path(os.path.commonpath([image.parent for image in paths]))
    warnings += repeats
    found = label_by_name(images, name=name, source=source, root=root, warnings=warnings, learnable=learnable)
    groups = {path: row.group for path, row in zip(paths, unique, strict=True) if row.group}
    return replace(found, groups=groups, columns=_columns(tables, dict(zip(paths, unique, strict=True))))


def _columns(tables: Sequence[Rows], row_of: Mapping[Path, Row]) -> dict[str, dict[Path, str]]:
    """The further columns that images can be told apart by: with few values, most of them of several images."""
    kept: dict[str, dict[Path, str]] = {name: {} for table in tables for name in sorted(table.further)}
    for path, row in row_of.items():
        for name, cell in row.further:
            if name in kept:
                kept[name][path] = cell
    counts = {name: len({*cells.values()}) for name, cells in kept.items()}
    return {
        name: cells for name, cells in kept.items() if FEWEST_VALUES <= counts[name] <= min(MOST_VALUES, len(cells) - 1)
    }


# ---- data that is in Python already ---------------------------------------------------------------------------------


def table_of(data: object) -> Path:
    """Labelled images in Python as a table under `relish_home()`; the same content is the same file.

    Args:
        data: a `torchvision.datasets.ImageFolder` or a `Subset` of one; a data frame with the columns path, label and,
            if wanted, split, group and others; or a sequence of (path, label) or (path, label, split). Paths are
            relative to the current folder, or absolute; labels are texts or whole numbers.

    Raises:
        DataError: it is none of these; a column is missing, or a cell holds something else.
        WriteFailed: no space, no permission.
    """
    rows = [{**row, "path": os.path.abspath(row["path"])} for row in _rows_of(data)]
    used = {key for row in rows for key, cell in row.items() if cell}
    header = [*NEEDED, *(key for key in (rows[0] if rows else ()) if key not in NEEDED and key in used)]
    content = table_text([header, *([row[key] for key in header] for row in rows)]).encode()
    shared = Path(os.path.commonpath([os.path.dirname(row["path"]) for row in rows])) if rows else Path("none")
    file = relish_home() / "tables" / hashlib.sha256(content).hexdigest()[:12] / f"{shared.name or 'images'}.csv"
    if not file.is_file():
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
    return file


def _rows_of(data: Any) -> list[dict[str, str]]:
    """The cells of each row by their columns, the same ones in all."""
    if hasattr(data, "dataset") and hasattr(data, "indices"):  # torch.utils.data.Subset
        rows = _rows_of(data.dataset)
        return [rows[place] for place in data.indices]
    if hasattr(data, "samples") and hasattr(data, "classes"):  # torchvision.datasets.ImageFolder
        if getattr(data, "target_transform", None) is not None:
            raise DataError(
                "the ImageFolder changes its labels by a target_transform.", hint="Give (path, label) rows."
            )
        return [{"path": os.fspath(path), "label": str(data.classes[label])} for path, label in data.samples]
    if hasattr(data, "columns"):  # a data frame of pandas, or of others like it
        return _frame_rows(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return [_listed_row(row, place) for place, row in enumerate(data)]
    raise DataError(
        f"{type(data).__name__} does not say which images it holds.",
        hint="Give a folder, an ImageFolder, a list of (path, label) or a data frame with the columns path,label.",
    )


def _frame_rows(frame: Any) -> list[dict[str, str]]:
    header = [str(name) for name in frame.columns]
    places = meant_columns(header, "the data frame")
    columns = {}
    for key, place in places.items():
        cells = [_cell(value, key, row) for row, value in enumerate(frame[frame.columns[place]])]
        is_split = key == "is_valid"
        columns[key] = [split_by_fastai(c, f"row {row}") for row, c in enumerate(cells)] if is_split else cells
    if "is_valid" in columns:
        columns["split"] = columns.pop("is_valid")
    for place, name in enumerate(header):
        if place not in places.values() and name.strip() and header.count(name) == 1:
            columns[name] = [_plain_cell(value) for value in frame[frame.columns[place]]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _listed_row(row: Any, place: int) -> dict[str, str]:
    if isinstance(row, str | bytes) or not isinstance(row, Sequence) or len(row) not in (2, 3):
        raise DataError(f"item {place} is {row!r:.80}, not (path, label) or (path, label, split).")
    cells = {key: _cell(value, key, place) for key, value in zip(_COLUMNS, row, strict=False)}
    return {"split": "", **cells}


def _plain_cell(value: Any) -> str:
    """A cell of a further column; empty where it is no word or number."""
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's
    text = str(value) if isinstance(value, str | int | float) and value == value else ""
    return text if is_utf8(text) else ""


def _cell(value: Any, column: str, place: int) -> str:
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if value is None or type(value).__name__ == "NAType" or value != value:  # pandas' NA; NaN and NaT
        return ""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(value, str | int | list | tuple | set):
        return text_of(value, column, f"row {place}")
    raise DataError(
        f"row {place}: {column} is a {type(value).__name__}, not text.",
        hint="Store it as text, so that a class has one name only.",
    )


# ---- checking -------------------------------------------------------------------------------------------------------


def _refuse_empty_cells(rows: Sequence[Row], source: str) -> None:
    has_splits = any(row.split for row in rows)
    for column in _COLUMNS if has_splits else NEEDED:
        named = class_name if column == "label" else str.strip
        empty = [row.place for row in rows if not named(getattr(row, column))]
        if empty:
            raise DataError(
                f"{source}: {len(empty):,} row{'s have' if len(empty) > 1 else ' has'} no {column} "
                f"(line {first_few(empty)}).",
                hint=f"Fill in the {column}, or remove the rows.",
            )


def _split_names(rows: Sequence[Row], source: str, told: SplitNames) -> dict[str, str]:
    """The split that each name in the column `split` means; without the column, or told so, `all`."""
    names = {row.split: row.place for row in reversed(rows)}
    if set(names) == {""} or told == NONE:
        return dict.fromkeys(names, WHOLE)
    words = told if isinstance(told, Mapping) else {}
    split_of = {word: split for split, named in words.items() for word in named} or split_words(names)
    for name, line in names.items():
        if name not in split_of:
            guess = nearest(name.lower(), SPLIT_WORDS)
            raise DataError(
                f'{source}, line {line}: unknown split "{name}".',
                hint=f"Splits are {TRAIN}, {VALIDATION} and {TEST}; {guess or 'or say it: --split-names SPLIT=WORD.'}",
            )
    return split_of


def _without_repeats(
    rows: Sequence[Row], folder: Path, split_of: dict[str, str], source: str
) -> tuple[list[Row], list[str]]:
    """Each image once; a row that repeats another gives a warning, one that contradicts it an error."""
    first: dict[str, Row] = {}
    labels_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        key = os.path.normpath(folder / row.path)
        before = first.setdefault(key, row)
        if class_name(before.label) != class_name(row.label):
            labels_of[before.path] |= {before.label, row.label}
        elif before.group != row.group:
            raise DataError(
                f'{source}: {row.path} is of group "{before.group}" (line {before.place}) and of group "{row.group}" '
                f"(line {row.place}).",
                hint="Keep one row for each picture.",
            )
        elif split_of[before.split] != split_of[row.split]:
            raise DataError(
                f"{source}: {row.path} is in {split_of[before.split]} (line {before.place}) and in "
                f"{split_of[row.split]} (line {row.place}).",
                hint="Keep it in one split: a picture that was learned from cannot measure anything.",
            )
    if labels_of:
        listed = first_few([f"{path} ({', '.join(sorted(labels))})" for path, labels in labels_of.items()])
        pictures = f"{plural(len(labels_of), 'picture')} {'have' if len(labels_of) > 1 else 'has'}"
        raise DataError(
            f"{source}: {pictures} several labels: {listed}.",
            hint="relish gives a whole picture one label: keep one row for each picture.",
        )
    repeats = len(rows) - len(first)
    warning = f"{repeats:,} row{'s repeat' if repeats > 1 else ' repeats'} another one: left out."
    return list(first.values()), [warning] if repeats else []
