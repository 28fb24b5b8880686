"""Turn a table of images into a dataset: CSV or Parquet with the columns `path,label` and, optionally, `split`.

Data frames, lists and ImageFolders become such a table first, so that a run can record what it was made from.

Paths are relative to the table's folder, or absolute. Labels are read as text, so that class 007 is not class 7 and NA
is not a missing value; this is why no data-frame library reads the CSV. `table_text` writes every table of relish's own
that is read here, so that whatever names it holds come back as they were.
"""

import csv
import hashlib
import operator
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from relish.core.errors import DataError, nearest
from relish.core.io import atomic_path, relish_home
from relish.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    WHOLE,
    Dataset,
    class_name,
    first_few,
    label_by_name,
    plural,
)
from relish.data.split_names import NONE, SPLIT_WORDS, SplitNames, split_words

TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".parquet", ".pq"])

_EDGES = " \t\r\n"
"""Blanks that people and programs put around a cell; others at the edges of a label are reported."""
_SEPARATORS = (",", ";", "\t", "|")
_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "split")
_HINT = "A table needs the columns path,label and may have split, such as:  path,label,split  /  cats/1.jpg,cat,train"


@dataclass(frozen=True)
class _Row:
    line: int
    """The line of a CSV, or the row of a Parquet file, counted from 1."""
    path: str
    """As the cell has it; `_located` finds what it names."""
    label: str
    """As the cell has it, but for blanks at its edges."""
    split: str


def index_table(
    path: Path, *, name: str, source: str, split_names: SplitNames = None, learnable: bool = True
) -> Dataset:
    """Read a table of images; none is opened, but each file must be there.

    Args:
        path: a .csv, .tsv, .parquet or .pq file. A CSV is UTF-8 or UTF-16, separated by comma, semicolon, tab or |.
        name: a short word for the dataset.
        source: what the user gave, for errors.
        split_names: which words of the column `split` are which split, as `checked_split_names` gives it.
        learnable: as in `label_by_name`.

    Raises:
        DataError: a column is missing, a cell is empty, a split has an unknown name, files are missing, an image has
            several labels or stands in several splits; or the classes do not allow it (see `label_by_name`).
    """
    path = path.absolute()
    rows = _read_parquet(path, source) if path.suffix.lower() in {".parquet", ".pq"} else _read_csv(path, source)
    if not rows:
        raise DataError(f"{source}: the table has no rows.", hint=_HINT)
    _refuse_empty_cells(rows, source)
    split_of = _split_names(rows, source, split_names)
    rows, missing = _located(rows, path.parent)
    unique, warnings = _without_repeats(rows, path.parent, split_of, source)
    _refuse_missing_files(unique, missing, path.parent, source)
    images: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for row in unique:
        images[split_of[row.split]][row.label].append(path.parent / row.path)
    paths = [path.parent / row.path for row in unique]
    is_inside = any(image.is_relative_to(path.parent) for image in paths)
    root = path.parent if is_inside else Path(os.path.commonpath([image.parent for image in paths]))
    return label_by_name(images, name=name, source=source, root=root, warnings=warnings, learnable=learnable)


# ---- reading --------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, source: str) -> list[_Row]:
    text = _text(path, source)
    header = text.lstrip("\r\n").partition("\n")[0]
    separator = max(_SEPARATORS, key=lambda s: len(_columns(header.split(s)).keys() & set(_COLUMNS)))
    lines = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        filled = ((lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells))
        return list(_csv_rows(filled, source))
    except csv.Error as error:
        raise DataError(f"{source}, line {lines.line_num}: not a readable CSV ({error}).", hint=_HINT) from error


def _csv_rows(lines: Iterator[tuple[int, list[str]]], source: str) -> Iterator[_Row]:
    header = next(lines, None)
    if header is None:
        raise DataError(f"{source}: the table is empty.", hint=_HINT)
    column_of = _columns(header[1])
    _refuse_missing_columns(header[1], source)
    for line, cells in lines:
        if len(cells) != len(header[1]):
            raise DataError(
                f"{source}, line {line}: {len(cells)} cells, the first line has {len(header[1])}.",
                hint='Put names that hold the separator into quotes: "a,b.jpg".',
            )
        yield _row(line, *(cells[column_of[name]] if name in column_of else "" for name in _COLUMNS))


def _row(line: int, path: str, label: str, split: str) -> _Row:
    return _Row(line, path, label.strip(_EDGES), split.strip())


def _text(path: Path, source: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}).", hint="Check its name and place.") from error
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{source}, line {line}: not UTF-8.", hint="Save the table as UTF-8 CSV.") from error


def _columns(header: Sequence[str]) -> dict[str, int]:
    return {cell.strip().strip('"').lower(): place for place, cell in enumerate(header)}


def _refuse_missing_columns(header: Sequence[str], source: str) -> None:
    plain = [cell.strip().lower() for cell in header]
    missing = [column for column in _NEEDED if column not in plain]
    twice = [column for column in _COLUMNS if plain.count(column) > 1]
    if missing:
        raise DataError(
            f"{source}: no column {' and no column '.join(missing)}; its columns are {first_few(plain, 8)}.", hint=_HINT
        )
    if twice:
        raise DataError(f"{source}: two columns are called {twice[0]}.", hint="Rename one of them.")


def _read_parquet(path: Path, source: str) -> list[_Row]:
    try:
        from pyarrow import lib, parquet  # late: only a Parquet table needs it
    except ImportError as error:
        raise DataError(
            f"{source}: reading Parquet takes pyarrow, which is not installed.",
            hint='Install it with  pip install "relish-vision[parquet]"  or save the table as CSV.',
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _refuse_missing_columns(names, source)
            wanted = {key: names[place] for key, place in _columns(names).items() if key in _COLUMNS}
            table = file.read(columns=list(wanted.values()))
    except (OSError, lib.ArrowException) as error:
        raise DataError(f"{source}: not a readable Parquet file ({error}).", hint=_HINT) from error
    cells = {key: _texts(table.column(column), key, source) for key, column in wanted.items()}
    splits = cells.get("split", [""] * table.num_rows)
    rows = zip(cells["path"], cells["label"], splits, strict=True)
    return [_row(line, *row) for line, row in enumerate(rows, 1)]


def _texts(column: Any, name: str, source: str) -> list[str]:
    values = column.to_pylist()
    for line, value in enumerate(values, 1):
        if value is not None and not isinstance(value, str | int):
            raise DataError(
                f"{source}, row {line}: column {name} holds {type(value).__name__}, not text.",
                hint="Store it as text, so that a class has one name only.",
            )
    return ["" if value is None else str(value) for value in values]


def _located(rows: Sequence[_Row], folder: Path) -> tuple[list[_Row], set[str]]:
    """Each row with its path as it is spelt on the disk, and the paths that are not there.

    A cell may hold blanks around the path, and accents in one or two code points where the folder has the other.
    """
    found, missing = [], set()
    for row in rows:
        plain = row.path.strip()
        spellings = (row.path, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))
        path = next((path for path in dict.fromkeys(spellings) if os.path.isfile(folder / path)), None)
        if path is None:
            missing.add(plain)
        found.append(replace(row, path=plain if path is None else path))
    return found, missing


# ---- data that is in Python already ---------------------------------------------------------------------------------


def table_of(data: object) -> Path:
    """Labelled images in Python as a table under `relish_home()`; the same content is the same file.

    Args:
        data: a `torchvision.datasets.ImageFolder` or a `Subset` of one; a data frame with the columns path, label and,
            if wanted, split; or a sequence of (path, label) or (path, label, split). Paths are relative to the current
            folder, or absolute; labels are texts or whole numbers.

    Raises:
        DataError: it is none of these; a column is missing, or a cell holds something else.
        WriteFailed: no space, no permission.
    """
    rows = [(os.path.abspath(path), label, split) for path, label, split in _rows_of(data)]
    columns = 3 if any(split for _, _, split in rows) else 2
    content = table_text(row[:columns] for row in [("path", "label", "split"), *rows]).encode()
    shared = Path(os.path.commonpath([os.path.dirname(row[0]) for row in rows])) if rows else Path("none")
    file = relish_home() / "tables" / hashlib.sha256(content).hexdigest()[:12] / f"{shared.name or 'images'}.csv"
    if not file.is_file():
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
    return file


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a CSV that is read back cell by cell as it was, whatever the names in it.

    Raises:
        DataError: a name is not UTF-8.
    """
    text = StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a bare carriage return would end the row
    for row in rows:
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    try:
        text.getvalue().encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise DataError(f"a name is not UTF-8 ({near!r}).", hint="Rename the file or its folder.") from error
    return text.getvalue()


def _rows_of(data: Any) -> list[tuple[str, str, str]]:
    if hasattr(data, "dataset") and hasattr(data, "indices"):  # torch.utils.data.Subset
        rows = _rows_of(data.dataset)
        return [rows[place] for place in data.indices]
    if hasattr(data, "samples") and hasattr(data, "classes"):  # torchvision.datasets.ImageFolder
        if getattr(data, "target_transform", None) is not None:
            raise DataError(
                "the ImageFolder changes its labels by a target_transform.", hint="Give (path, label) rows."
            )
        return [(os.fspath(path), str(data.classes[label]), "") for path, label in data.samples]
    if hasattr(data, "columns"):  # a data frame of pandas, or of others like it
        return _frame_rows(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return [_listed_row(row, place) for place, row in enumerate(data)]
    raise DataError(
        f"{type(data).__name__} does not say which images it holds.",
        hint="Give a folder, an ImageFolder, a list of (path, label) or a data frame with the columns path,label.",
    )


def _frame_rows(frame: Any) -> list[tuple[str, str, str]]:
    names = [str(name) for name in frame.columns]
    _refuse_missing_columns(names, "the data frame")
    column_of = _columns(names)
    wanted = [key for key in _COLUMNS if key in column_of]
    columns = [[_cell(value, key, place) for place, value in enumerate(frame[names[column_of[key]]])] for key in wanted]
    return [(*row, "")[:3] for row in zip(*columns, strict=True)]


def _listed_row(row: Any, place: int) -> tuple[str, str, str]:
    if isinstance(row, str | bytes) or not isinstance(row, Sequence) or len(row) not in (2, 3):
        raise DataError(f"item {place} is {row!r:.80}, not (path, label) or (path, label, split).")
    cells = [_cell(value, key, place) for value, key in zip(row, _COLUMNS, strict=False)]
    return (*cells, "")[:3]  # type: ignore[return-value]


def _cell(value: Any, column: str, place: int) -> str:
    if value is None or value != value:  # NaN is a data frame's missing value
        return ""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    try:
        return str(operator.index(value))
    except TypeError:
        raise DataError(
            f"row {place}: {column} is a {type(value).__name__}, not text.",
            hint="Store it as text, so that a class has one name only.",
        ) from None


# ---- checking -------------------------------------------------------------------------------------------------------


def _refuse_empty_cells(rows: Sequence[_Row], source: str) -> None:
    has_splits = any(row.split for row in rows)
    for column in _COLUMNS if has_splits else _NEEDED:
        named = class_name if column == "label" else str.strip
        empty = [str(row.line) for row in rows if not named(getattr(row, column))]
        if empty:
            raise DataError(
                f"{source}: {len(empty):,} row{'s have' if len(empty) > 1 else ' has'} no {column} "
                f"(line {first_few(empty)}).",
                hint=f"Fill in the {column}, or remove the rows.",
            )


def _split_names(rows: Sequence[_Row], source: str, told: SplitNames) -> dict[str, str]:
    """The split that each name in the column `split` means; without the column, or told so, `all`."""
    names = {row.split: row.line for row in reversed(rows)}
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
    rows: Sequence[_Row], folder: Path, split_of: dict[str, str], source: str
) -> tuple[list[_Row], list[str]]:
    """Each image once; a row that repeats another gives a warning, one that contradicts it an error."""
    first: dict[str, _Row] = {}
    labels_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        key = os.path.normpath(folder / row.path)
        before = first.setdefault(key, row)
        if class_name(before.label) != class_name(row.label):
            labels_of[before.path] |= {before.label, row.label}
        elif split_of[before.split] != split_of[row.split]:
            raise DataError(
                f"{source}: {row.path} is in {split_of[before.split]} (line {before.line}) and in "
                f"{split_of[row.split]} (line {row.line}).",
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


def _refuse_missing_files(rows: Sequence[_Row], absent: Collection[str], folder: Path, source: str) -> None:
    missing = [row.path for row in rows if row.path in absent]
    if not missing:
        return
    if any("://" in path for path in missing):
        hint = "Addresses are not fetched: download the pictures and name the files."
    elif any("\\" in path for path in missing):
        hint = "Write / between folders, not \\."
    else:
        hint = f"Paths are relative to the table's folder, {folder}: move the table or mend the paths."
    files = f"{len(missing):,} of {len(rows):,} files are" if len(missing) > 1 else f"1 of {len(rows):,} files is"
    raise DataError(f"{source}: {files} missing: {first_few(missing)}.", hint=hint)
