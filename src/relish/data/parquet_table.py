"""Read the rows of a Parquet file, and write out the images that it holds, as Hugging Face's do.

Each image is written once to a folder under `RELISH_HOME/datasets`, beside a table of them: all that comes behind works
with paths, and memory holds no more than a row group. Class names come from what Hugging Face's `datasets`
writes into the schema.
"""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from relish.core.errors import DataError
from relish.core.progress import Progress
from relish.data.archive import MAX_EXPANSION, SMALL, unpacked_once
from relish.data.dataset import first_few, plural
from relish.data.image_files import HEAD_BYTES, decoder_of, is_image_name
from relish.data.table_files import NOTHING_TOLD, Row, Rows, meant_columns, read_text_table, rows_of, said_of_fastai

PARQUET_SUFFIXES = frozenset([".parquet", ".pq"])

_WRITTEN = "table.csv"
"""Of the images that came out of a file: path, label, split."""
_BATCH = 16
"""Rows with images in memory at a time."""


def read_parquet_table(
    path: Path, source: str, needed: Sequence[str], progress: Progress, told: Mapping[str, str] = NOTHING_TOLD
) -> Rows:
    """Read a Parquet file; arguments as in `read_text_table`.

    Args:
        progress: says where images were written to.

    Raises:
        DataError: as `read_text_table` does; pyarrow is not installed, the file is damaged, or a label has no name.
        WriteFailed: no space for the images.
    """
    with _opened(path, source) as file:
        schema = file.schema_arrow
        header, features = list(schema.names), _features(schema.metadata)
        images = _image_column(schema, features, source)
        columns = _parquet_columns(header, features, images, source, needed, told)
        names = _class_names(features.get(header[columns["label"]])) if "label" in columns else ()
        shard = _Shard(path, source, file, {key: header[place] for key, place in columns.items()}, names)
        written = bool(images) and not _without_bytes(file, images)
        rows, folder = _written(shard, progress) if written else (list(shard.rows()), path.parent)
        form = str(schema.field(columns["label"]).type) if "label" in columns else ""
    notes = said_of_fastai(rows, columns)
    missing = [str(row.line) for row in rows if written and not row.path]
    if missing:
        rows = [row for row in rows if row.path]
        notes.append(f"{plural(len(missing), 'row')} without a picture: left out (row {first_few(missing)}).")
    if not names and form.startswith(("int", "uint")):
        numbers = first_few(sorted({row.label for row in rows if row.label}, key=int))
        notes.append(f"the labels are numbers, and the file has no names for them: the classes are {numbers}.")
    return Rows(rows, folder, columns, tuple(header), notes)


@contextmanager
def _opened(path: Path, source: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`; whatever it raises while it is open, as a DataError."""
    try:
        from pyarrow import lib, parquet  # late: only a Parquet table needs it
    except ImportError as error:
        raise DataError(
            f"{source}: reading Parquet takes pyarrow, which is not installed.",
            hint='Install it with  pip install "relish-vision[parquet]"  or save the table as CSV.',
        ) from error
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**16) as file:
            yield file
    except (OSError, ValueError, lib.ArrowException) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(
            f"{source}: not a readable Parquet file ({reason}).", hint="Write or download it again."
        ) from error


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What Hugging Face's `datasets` writes into the schema of its columns, by name."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _class_names(feature: Any) -> tuple[str, ...]:
    """The names of a ClassLabel, by number; also where each image has a list of them."""
    inner = feature.get("feature") if _kind(feature) in {"Sequence", "List"} else feature
    names = inner.get("names") if _kind(inner) == "ClassLabel" else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _image_column(schema: Any, features: Mapping[str, Any], source: str) -> str:
    """The column with the bytes of images; empty where there is none."""
    found = [column.name for column in schema if _holds_images(column, features)]
    preferred = [name for name in found if name.lower() in {"image", "img"}]
    if len(found) > 1 and len(preferred) != 1:
        raise DataError(
            f"{source}: several columns hold pictures ({first_few(found)}).", hint="Call the one to learn from image."
        )
    return str((preferred or found or [""])[0])


def _holds_images(column: Any, features: Mapping[str, Any]) -> bool:
    form = str(column.type)
    if form.startswith("struct<"):
        return "bytes: binary" in form or "bytes: large_binary" in form
    named = _kind(features.get(column.name)) == "Image" or column.name.lower() in {"image", "img", "bytes"}
    return named and form in {"binary", "large_binary"}


def _parquet_columns(
    header: Sequence[str],
    features: Mapping[str, Any],
    images: str,
    source: str,
    needed: Sequence[str],
    told: Mapping[str, str],
) -> dict[str, int]:
    columns = meant_columns(header, source, (), told)
    if images and "path" not in told:
        columns["path"] = header.index(images)
    coded = [name for name in header if _kind(features.get(name)) == "ClassLabel"]
    if "label" not in columns and coded:
        if len(coded) > 1:
            raise DataError(
                f"{source}: several columns hold classes ({first_few(coded)}).", hint="Call the one to learn label."
            )
        columns["label"] = header.index(coded[0])
    if any(key not in columns for key in needed):
        meant_columns([*header, *({"path"} if images else ())], source, needed)
    return columns


def _without_bytes(file: Any, column: str) -> bool:
    """Whether the file has no image in it, but the paths of images."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for place in range(group.num_columns):
            part = group.column(place)
            if part.path_in_schema == f"{column}.bytes":
                statistics = part.statistics
                if statistics is None or statistics.null_count != group.num_rows:
                    return False
    return f"{column}.path" in {file.schema.column(place).path for place in range(len(file.schema))}


@dataclass(frozen=True)
class _Shard:
    """An open Parquet file, and which of its columns are read."""

    path: Path
    source: str
    file: Any
    columns: Mapping[str, str]
    """By the keys of `NAMES`."""
    class_names: tuple[str, ...]
    """By label; none where the labels are their own names."""

    def values(self) -> Iterator[tuple[int, list[Any]]]:
        """The row, counted from 1, and the values of `columns`, a few rows in memory at a time."""
        number = 0
        names = list(dict.fromkeys(self.columns.values()))
        for batch in self.file.iter_batches(batch_size=_BATCH if "path" in self.columns else 1024, columns=names):
            for cells in zip(*(batch.column(name).to_pylist() for name in self.columns.values()), strict=True):
                number += 1
                yield number, self._named(list(cells), number)

    def rows(self) -> Iterator[Row]:
        """The rows of a file whose paths are those of other files."""
        paths = self._places.get("path")
        lines = ((n, [_image(c)[1] if i == paths else c for i, c in enumerate(cells)]) for n, cells in self.values())
        return rows_of(lines, self._places, self.source, "row")

    @property
    def _places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.columns)}

    def _named(self, cells: list[Any], row: int) -> list[Any]:
        place = self._places.get("label")
        if self.class_names and place is not None:
            label = cells[place]
            many = isinstance(label, list)
            found = [self._class_name(one, row) for one in (label if many else [label])]
            cells[place] = found if many else found[0]
        return cells

    def _class_name(self, label: Any, row: int) -> Any:
        if not isinstance(label, int) or label == -1:  # -1 is how Hugging Face marks an image without a label
            return None if label == -1 else label
        if 0 <= label < len(self.class_names):
            return self.class_names[label]
        raise DataError(
            f"{self.source}, row {row}: label {label} is none of the file's {len(self.class_names):,} class names.",
            hint="Write the file again with the classes that its labels number.",
        )


def _image(value: Any) -> tuple[bytes | None, Any]:
    """The bytes and the path of a cell that holds an image, or a path."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (value, None) if isinstance(value, bytes) else (None, value)


def _written(shard: _Shard, progress: Progress) -> tuple[list[Row], Path]:
    """The rows of a file that holds images, and the folder that these were written to."""
    folder = unpacked_once(shard.path, lambda target: _write_images(shard, target), progress)
    table = read_text_table(folder / _WRITTEN, shard.source)
    return [replace(row, line=number) for number, row in enumerate(table.rows, 1)], folder


def _write_images(shard: _Shard, folder: Path) -> None:
    allowed = max(SMALL, MAX_EXPANSION * shard.path.stat().st_size)
    table = StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows.writerow(("path", "label", "split"))
    image = shard._places["path"]
    for number, cells in _readable(shard):
        content, given = _image(cells[image])
        cells[image] = _image_name(number, given, content) if content else ""
        row = next(rows_of([(number, cells)], shard._places, shard.source, "row"))
        rows.writerow((row.path, row.label, row.split))
        if content:
            allowed -= len(content)
            if allowed < 0:
                raise DataError(f"{shard.source}: unpacks to far more than its size.", hint="It may be a bomb.")
            (folder / row.path).write_bytes(content)
    (folder / _WRITTEN).write_bytes(table.getvalue().encode())
    os.sync()  # before the folder gets its name: a power cut must not leave empty files in it


def _readable(shard: _Shard) -> Iterator[tuple[int, list[Any]]]:
    """The rows; damage that shows late is not taken for a full disk."""
    try:
        yield from shard.values()
    except OSError as error:
        raise ValueError(str(error)) from error


def _image_name(number: int, given: Any, content: bytes) -> str:
    """A file's name of safe characters: the row, then what the file was called."""
    stem, ending = os.path.splitext(os.path.basename(str(given or "").replace("\\", "/")))
    if not is_image_name(f"x{ending}"):
        decoder = decoder_of(content[:HEAD_BYTES])
        ending = f".{decoder.format}" if decoder and decoder.format else ""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:60].strip("-._")
    return f"{number:06}{'-' * bool(word)}{word}{ending.lower()}"
