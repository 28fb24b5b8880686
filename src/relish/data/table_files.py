"""Read the rows of a table, CSV or JSON lines: of each image its path, its label and its split.

Columns may have relish's names, those of Hugging Face's image folders (`file_name`) or fastai's (`fname`, `is_valid`).
Values are read as text, so that class 007 is not class 7 and NA is not a missing value; this is why no data-frame
library reads the CSV.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from relish.core.errors import DataError, nearest
from relish.data.dataset import TRAIN, VALIDATION, first_few, is_utf8, plural

PARQUET_SUFFIXES = frozenset([".parquet", ".pq"])
PLAIN_SUFFIXES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson"])
TABLE_SUFFIXES = PLAIN_SUFFIXES | PARQUET_SUFFIXES
_JSON_SUFFIXES = frozenset([".jsonl", ".ndjson"])

NAMES = {
    "path": ("path", "file_name", "fname", "image"),
    "label": ("label", "labels"),
    "split": ("split",),
    "is_valid": ("is_valid",),
    "group": ("group",),
}
"""The names that each column may have, the first found counts. `is_valid` is fastai's: true means validation."""
NEEDED = ("path", "label")
ColumnNames = Mapping[str, str] | str | None
"""What `checked_columns` takes."""
NOTHING_TOLD: Mapping[str, str] = MappingProxyType({})
_ELSEWHERE = {
    "path": ("filename", "filepath", "file", "image_path", "img_path", "image_name", "img", "image_id", "id"),
    "label": ("class", "class_name", "category", "target", "y"),
}
"""What columns are called elsewhere; a table that says what was predicted has `class` too, so these are only asked."""
HINT = "A table needs the columns path,label and may have split, such as:  path,label,split  /  cats/1.jpg,cat,train"
_JSON_HINT = 'Each line is one object, such as {"file_name": "cats/1.jpg", "label": "cat"}'

_EDGES = " \t\r\n"
"""Blanks that people and programs put around a cell; others at the edges of a label are reported."""
_SEPARATORS = (",", ";", "\t", "|")
FEWEST_VALUES, MOST_VALUES = 2, 50
"""Different values of a column that images can be told apart by."""
_TRUE, _FALSE = frozenset(["true", "1", "1.0", "yes"]), frozenset(["false", "0", "0.0", "no"])


@dataclass(frozen=True)
class Row:
    """One image of a table."""

    line: int
    """The line of a text file, or the row of a Parquet file, counted from 1."""
    path: str
    """As the cell has it."""
    label: str
    """As the cell has it, but for blanks at its edges; several labels as a JSON list."""
    split: str
    table: str = ""
    """The name of its table, where a dataset has several."""
    group: str = ""
    further: tuple[tuple[str, str], ...] = ()
    """The name and the cell of further columns, as `FurtherColumns` gives them."""

    @property
    def place(self) -> str:
        """The line to name in a sentence: `3`, or `3 of test/metadata.csv`."""
        return f"{self.line} of {self.table}" if self.table else str(self.line)


@dataclass
class Rows:
    """The content of one table file."""

    rows: list[Row]
    folder: Path
    """What its paths are relative to."""
    columns: Mapping[str, int]
    """The columns found, by the keys of `NAMES`, each with its place."""
    header: tuple[str, ...] = ()
    """All columns."""
    notes: list[str] = field(default_factory=list)
    """What is to be said of it, a sentence each."""
    further: frozenset[str] = frozenset()
    """Columns without a name of relish's that images can be told apart by."""

    @property
    def labelled(self) -> bool:
        """Whether any row has a label."""
        return any(row.label for row in self.rows)

    @property
    def unused(self) -> list[str]:
        """The columns that relish has no use for."""
        used = self.columns.values()
        return [name for place, name in enumerate(self.header) if place not in used and name not in self.further]


class FurtherColumns:
    """The cells of columns that relish has no name for, of each as long as it has few different values."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = dict(places)
        self._values: dict[str, dict[str, str]] = {name: {} for name in places}
        self._met: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}

    def of(self, cells: Sequence[Any]) -> tuple[tuple[str, str], ...]:
        """The cells of one row that are not empty, each with the name of its column; equal ones are one object."""
        found = []
        for name, place in [*self._places.items()]:
            value, known = cells[place], self._values[name]
            text = "" if value is None or value != value else str(value).strip()  # NaN
            if not (value is None or isinstance(value, str | int | float)) or not is_utf8(text):
                del self._places[name]
            elif text:
                found.append((name, known.setdefault(text, text)))
                if len(known) > MOST_VALUES:
                    del self._places[name]
        return self._met.setdefault(tuple(found), tuple(found))

    @property
    def names(self) -> frozenset[str]:
        """The columns that have several values, and few."""
        return frozenset(name for name in self._places if len(self._values[name]) >= FEWEST_VALUES)


def checked_columns(given: Any) -> dict[str, str]:
    """The option that says which columns are which: `path=id,label=breed`, or a mapping.

    Raises:
        DataError: another form, or a key that is none of `NAMES`.
    """
    pairs = given.items() if isinstance(given, Mapping) else [pair.split("=", 1) for pair in (given or "").split(",")]
    if given and any(len(pair) != 2 or pair[0].strip() not in NAMES or not str(pair[1]).strip() for pair in pairs):
        raise DataError(
            f"--column-names {given}: not of the form path=COLUMN,label=COLUMN.",
            hint=f"Such as --column-names path=id,label=breed; what can be named is {', '.join(NAMES)}.",
        )
    return {key.strip(): str(name).strip() for key, name in pairs} if given else {}


def read_text_table(
    path: Path, source: str, *, needed: Sequence[str] = NEEDED, told: Mapping[str, str] = NOTHING_TOLD
) -> Rows:
    """Read a CSV or JSON lines; no image is opened.

    Args:
        path: a CSV, which is UTF-8 or UTF-16, separated by comma, semicolon, tab or |; or ends in .jsonl or .ndjson.
        source: what to call it in errors.
        needed: columns that must be there.
        told: the names of some columns, as `checked_columns` gives them.

    Raises:
        DataError: the file cannot be read, a column is missing or there twice, a cell holds no text.
    """
    header, lines = read_cells(path, source, told.values())
    columns = meant_columns(header, source, needed, told)
    places = {name: place for place, name in enumerate(header) if name.strip() and place not in columns.values()}
    further = FurtherColumns(places)
    rows = list(rows_of(lines, columns, source, "line", further))
    return Rows(rows, path.parent, columns, tuple(header), said_of_fastai(rows, columns), further.names)


def read_cells(
    path: Path, source: str, names: Iterable[str] = ()
) -> tuple[list[str], Iterator[tuple[int, Sequence[Any]]]]:
    """The columns of a CSV or of JSON lines, and its lines with their numbers.

    Args:
        names: of columns beside those of `NAMES`, by which a separator is known.

    Raises:
        DataError: as in `read_text_table`.
    """
    return _json_lines(path, source) if path.suffix.lower() in _JSON_SUFFIXES else _csv_lines(path, source, names)


def meant_columns(
    header: Sequence[str], source: str, needed: Sequence[str] = NEEDED, told: Mapping[str, str] = NOTHING_TOLD
) -> dict[str, int]:
    """The places of the columns that `NAMES` knows, or that are told.

    Raises:
        DataError: one of those needed or told is missing, or there twice.
    """
    plain = [cell.strip().lower() for cell in header]
    for name in told.values():
        if name.lower() not in plain:
            hint = f"Its columns are {first_few(header, 8)}; {nearest(name, header)}".rstrip("; ")
            raise DataError(f'{source}: no column "{name}", which --column-names names.', hint=hint)
    known = {key: name for key, names in NAMES.items() for name in reversed(names) if name in plain}
    found = {key: name for key, name in known.items() if name not in map(str.lower, told.values())}
    found |= {key: name.lower() for key, name in told.items()}
    if missing := [key for key in needed if key not in found]:
        columns = " and no column ".join(missing)
        words = f"{source}: no column {columns}; its columns are {first_few(plain, 8) or 'none'}."
        raise DataError(words, hint=_renaming(plain, missing) or HINT)
    if twice := [name for name in found.values() if plain.count(name) > 1]:
        raise DataError(f"{source}: two columns are called {twice[0]}.", hint="Rename one of them.")
    if "split" in found:
        found.pop("is_valid", None)
    return {key: plain.index(name) for key, name in found.items()}


def _renaming(header: Sequence[str], missing: Sequence[str]) -> str:
    """What to type where other tools' names stand for the missing columns, or an empty string."""
    meant = {key: next((name for name in _ELSEWHERE.get(key, ()) if name in header), None) for key in missing}
    pairs = [f"{key}={name}" for key, name in meant.items() if name]
    return f"If these are meant:  --column-names {','.join(pairs)}" if len(pairs) == len(missing) else ""


def text_of(value: Any, column: str, place: str) -> str:
    """A value of a table as text: a list of several as a JSON list, of one as that one; nothing where it is missing.

    Args:
        place: where it stands, for the error.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    if value is None:
        return ""
    if isinstance(value, str | int):
        text = str(value)
        if is_utf8(text):
            return text
        raise DataError(f"{place}: column {column} holds what is no character.", hint="Write its name anew.")
    if column == "label" and isinstance(value, list | tuple | set):
        labels = [text_of(label, column, place) for label in value]
        return json.dumps(labels, ensure_ascii=False) if len(labels) > 1 else "".join(labels)
    raise DataError(
        f"{place}: column {column} holds {type(value).__name__}, not text.",
        hint="Store it as text, so that a class has one name only.",
    )


def split_by_fastai(cell: str, place: str) -> str:
    """The split that a cell of `is_valid` means.

    Raises:
        DataError: it is neither true nor false.
    """
    word = cell.strip().lower()
    if word and word not in _TRUE | _FALSE:
        raise DataError(f'{place}: is_valid is "{cell}".', hint="It is True for validation and False for train.")
    return VALIDATION if word in _TRUE else TRAIN if word else ""


def rows_of(
    lines: Iterable[tuple[int, Sequence[Any]]], columns: Mapping[str, int], source: str, a: str, further: FurtherColumns
) -> Iterator[Row]:
    for line, cells in lines:
        place = f"{source}, {a} {line}"
        text = {key: text_of(cells[index], key, place) for key, index in columns.items() if key != "is_valid"}
        split = text.get("split", "").strip()
        if "is_valid" in columns:
            value = cells[columns["is_valid"]]
            split = split_by_fastai("" if value is None else str(value), place)
        label, group = text.get("label", "").strip(_EDGES), text.get("group", "").strip(_EDGES)
        yield Row(line, text.get("path", ""), label, split, group=group, further=further.of(cells))


def said_of_fastai(rows: Sequence[Row], columns: Mapping[str, int]) -> list[str]:
    """The sentence on a column `is_valid`, where there is one."""
    if "is_valid" not in columns:
        return []
    count = sum(row.split == VALIDATION for row in rows)
    verb = "is" if count == 1 else "are"
    return [f"column is_valid: {plural(count, 'row')} {verb} for validation, the others to train on."]


# ---- text -----------------------------------------------------------------------------------------------------------


def _csv_lines(path: Path, source: str, names: Iterable[str] = ()) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    text = _text(path, source)
    header, known = text.lstrip("\r\n").partition("\n")[0], {name.lower() for name in names}
    separator = max(_SEPARATORS, key=lambda s: (len(_known(header.split(s), known)), header.count(s) * (not known)))
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a cell of another column may be of any length
    lines = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = _even(lines, source)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{source}: the table is empty.", hint=HINT)
    return first[1], rows


def _known(cells: Sequence[str], names: set[str]) -> set[str]:
    known = {name for called in NAMES.values() for name in called} | names
    return {cell.strip().strip('"').lower() for cell in cells} & known


def _even(lines: Any, source: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, each with as many cells as the first."""
    width = 0
    try:
        for cells in lines:
            if not any(map(str.strip, cells)):
                continue
            width = width or len(cells)
            if len(cells) != width:
                raise DataError(
                    f"{source}, line {lines.line_num}: {len(cells)} cells, the first line has {width}.",
                    hint='Put names that hold the separator into quotes: "a,b.jpg".',
                )
            yield lines.line_num, cells
    except csv.Error as error:
        raise DataError(f"{source}, line {lines.line_num}: not a readable CSV ({error}).", hint=HINT) from error


def _json_lines(path: Path, source: str) -> tuple[list[str], Iterator[tuple[int, list[Any]]]]:
    lines = enumerate(_text(path, source).split("\n"), 1)  # `splitlines` cuts at characters that JSON allows in a text
    objects = {number: _json_object(line, f"{source}, line {number}") for number, line in lines if line.strip()}
    header = list(dict.fromkeys(key for entry in objects.values() for key in entry))
    if not header:
        raise DataError(f"{source}: the table is empty.", hint=_JSON_HINT)
    return header, ((line, [entry.get(key) for key in header]) for line, entry in objects.items())


def _json_object(text: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not a JSON object ({str(error).partition(':')[0]}).", hint=_JSON_HINT) from error
    if not isinstance(found, dict):
        raise DataError(f"{place}: not a JSON object, but {type(found).__name__}.", hint=_JSON_HINT)
    return found


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
        raise DataError(f"{source}, line {line}: not UTF-8.", hint="Save the table as UTF-8.") from error


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


# ---- several labels in one cell -------------------------------------------------------------------------------------

_ITEM = r"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|-?\d+)"""
_LIST = re.compile(rf"\[\s*{_ITEM}(?:[\s,]+{_ITEM})+\s*\]")
"""A list of two or more, as JSON, Python and NumPy write it."""


def refuse_several_labels(rows: Sequence[Row], source: str) -> list[str]:
    """Refuse cells that hold several labels; a sentence where blanks may separate them.

    A class may have a separator in its name. It is taken for one where other rows say so: their label is a part of
    this one or, for | and ;, parts change places. Where every row has it, it belongs to the names.
    """
    labels = {row.label for row in rows}
    lists = {label for label in labels if _LIST.fullmatch(label)}
    found = {"": lists} if lists else {mark: _joined(labels, mark) for mark in "|;,"}
    mark, several = next(((mark, several) for mark, several in found.items() if several), ("", set()))
    if several:
        name = f' Where "{min(several)}" is one class, write it without "{mark}".' if mark else ""
        raise DataError(
            f"{source}: {_where(rows, several)} several labels in one cell.",
            hint=f"relish gives a picture one label so far: keep one in each row.{name}",
        )
    spaced = _joined(labels, " ")
    return [
        f"{_where(rows, spaced)} what may be several labels with blanks between; each is taken as one class."
    ] * bool(spaced)


def _joined(labels: set[str], mark: str) -> set[str]:
    """The labels that are others with a mark between."""
    parts = {label: [part.strip() for part in label.split(mark) if part.strip()] for label in labels if mark in label}
    parts = {label: each for label, each in parts.items() if len(each) > 1}
    alone = labels - parts.keys()
    if mark in ", ":  # names such as `maillot, tank suit`
        return {label for label, each in parts.items() if alone.issuperset(each)}
    placed = {(part, place) for each in parts.values() for place, part in enumerate(each)}
    met = Counter(part for part, _ in placed)
    told = max(met.values(), default=0) > 1 or not alone.isdisjoint(met)
    return {*parts} if alone and told else set()


def _where(rows: Sequence[Row], labels: set[str]) -> str:
    found = [f'line {row.place} "{row.label}"' for row in rows if row.label in labels]
    return f"{plural(len(found), 'row')} ({first_few(found)}) {'has' if len(found) == 1 else 'have'}"
