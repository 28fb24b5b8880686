"""Hugging Face's datasets: the tables of a folder, and Parquet files with the images in them.

    metadata.csv, .jsonl, .parquet      beside the images, or in the folder of each split: `train/metadata.csv`
    train-00000-of-00002.parquet        the images are in the file; the split is in its name, or its folder's

The tables may lie in a folder that is alone in its own, such as `data`. A Parquet file of any name counts only where no
images lie beside it. The images in it are written once to a folder under `RELISH_HOME/datasets`: all that comes behind
works with paths, and memory holds a few rows.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from relish.core.errors import DataError, one_line
from relish.core.progress import Progress
from relish.data.archive import MAX_EXPANSION, SMALL, unpacked_once
from relish.data.dataset import first_few, plural
from relish.data.image_files import HEAD_BYTES, decoder_of, is_image_name
from relish.data.layout import Listing, everything_below, list_folder
from relish.data.split_names import NONE, SplitNames, split_series, split_words
from relish.data.table_files import (
    NOTHING_TOLD,
    PARQUET_SUFFIXES,
    FurtherColumns,
    Row,
    Rows,
    meant_columns,
    rows_of,
    said_of_fastai,
)

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5,})-of-(?P<count>\d{5,})(-[0-9a-f]+)?")
_DEPTH = 4
"""Folders that may wrap the tables."""
_PLAIN = ("string", "large_string", "bool", "int", "uint", "float", "double", "dictionary")
"""How the names begin of Arrow's types whose values are one word or number."""
_BATCH = 16
"""Rows with images in memory at a time."""

# ---- the tables of a folder -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """The tables of a dataset."""

    root: Path
    """The folder that they were found in."""
    split_of: Mapping[Path, str]
    """Each table, and the split of all its rows; empty where the rows say it, or nothing does."""
    notes: list[str] = field(default_factory=list)
    """What is to be said of them, a sentence each."""

    @property
    def are_metadata(self) -> bool:
        """Whether the images lie beside the tables."""
        return all(map(is_metadata, self.split_of))


def is_metadata(path: Path) -> bool:
    """Whether a table has the name that Hugging Face's image folders give it."""
    return path.name.lower() in METADATA


def tables_in(root: Path, told: SplitNames = None) -> Tables | None:
    """The tables that say what the images of a folder are; None where it has none.

    Args:
        root: an absolute path.
        told: which folders, or beginnings of a file's name, are which split, as `checked_split_names` gives it.
    """
    level = list_folder(root)
    for _ in range(_DEPTH):
        if found := _metadata(level) or _shards(level):
            return _with_splits(root, found, told)
        if len(level.folders) != 1 or level.images:
            return None
        level = list_folder(level.folders[0])
    return None


def shard_split(path: Path) -> str:
    """The split in the name of one shard, `train` of `train-00000-of-00002.parquet`; empty where it is none."""
    word = _shard_word(path)
    return split_words([word]).get(word, "")


def _shard_word(path: Path) -> str:
    match = _SHARD.fullmatch(path.stem)
    return match["split"] if match else ""


def _metadata(level: Listing) -> dict[Path, str]:
    """Each metadata file of a folder and of those in it, with the name of the folder; none for the upper one."""
    word_of = {level.folder: "", **{folder: folder.name for folder in level.folders}}
    files = {folder / name: word for folder, word in word_of.items() for name in METADATA}
    return {path: word for path, word in files.items() if os.path.isfile(path)}


def _shards(level: Listing) -> dict[Path, str]:
    """Each Parquet file of a folder and of those in it, with the word that may be a split; none beside images."""
    found = {path: _shard_word(path) or path.stem for path in _parquet_files(level.folder)}
    for folder in level.folders:
        paths = _parquet_files(folder)
        own = {path: word for path in paths if (word := _shard_word(path))}
        found |= own if split_series([*own.values()]) else dict.fromkeys(paths, folder.name)
    return {} if found and everything_below(level.folder).images else found


def _parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder; none as soon as an image is met, since looking through many takes time."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image_name(entry.name):
                    return []
                if Path(entry.name).suffix.lower() in PARQUET_SUFFIXES and not entry.name.startswith("."):
                    found.append(folder / entry.name)
    except OSError:  # whoever lists the folder says so
        return []
    return sorted(found)


def _with_splits(root: Path, word_of: Mapping[Path, str], told: SplitNames) -> Tables:
    split_of = splits_of(word_of.values(), told)
    files = {path: split_of[word] for path, word in word_of.items() if word in split_of}
    left_out = [one_line(path.relative_to(root)) for path in word_of if path not in files]
    verb = "is not named like a split" if len(left_out) == 1 else "are not named like splits"
    notes = [f"{first_few(left_out)} {verb}: left out."] if left_out else []
    return Tables(root, files, notes + _missing_shards(files))


def splits_of(words: Iterable[str], told: SplitNames = None) -> dict[str, str]:
    """The split of each word that means one; where none does, each word with an empty one.

    Args:
        told: as `checked_split_names` gives it.
    """
    names = list(dict.fromkeys(words))
    if isinstance(told, Mapping):
        return {name: split for split, named in told.items() for name in named if name in names}
    series = [] if told == NONE else split_series(names)
    found = series[0] if len(series) == 1 else split_words(names) if series else {}
    return {**dict.fromkeys([""] if "" in names else [], ""), **found} if found else dict.fromkeys(names, "")


def _missing_shards(paths: Iterable[Path]) -> list[str]:
    numbers: dict[tuple[str, int], set[str]] = defaultdict(set)
    for path in paths:
        if match := _SHARD.fullmatch(path.stem):
            numbers[match["split"], int(match["count"])].add(match["number"])
    return [
        f"{split}: {count - len(have):,} of {count:,} Parquet files are not there."
        for (split, count), have in numbers.items()
        if len(have) < count
    ]


# ---- Parquet files --------------------------------------------------------------------------------------------------


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
        images = _only([c.name for c in schema if _holds_images(c, features)], "image", told.get("path"), source)
        columns = _parquet_columns(header, features, images, source, needed, told)
        label = header[columns["label"]] if "label" in columns else ""
        names = _class_names(features.get(label))
        others = [c.name for c in schema if str(c.type).startswith(_PLAIN) and header.count(c.name) == 1]
        others = [name for name in others if header.index(name) not in columns.values()]
        further = FurtherColumns({name: place for place, name in enumerate(others)})
        written = bool(images) and not _without_bytes(file, images)
        named = {key: header[place] for key, place in columns.items()}
        shard = _Shard(path, source, file, named, names, tuple(others), further, holds_images=written)
        rows, folder = list(shard.rows()), path.parent
        if written:
            folder = unpacked_once(path, lambda target: _write_images(shard, target), progress)
            name_of = _names_by_row(folder)
            rows = [replace(row, path=name_of.get(row.line, "")) for row in rows]
        is_numbered = bool(label) and not names and str(schema.field(label).type).startswith(("int", "uint"))
    notes = said_of_fastai(rows, columns)
    missing = [str(row.line) for row in rows if written and not row.path]
    if missing:
        rows = [row for row in rows if row.path]
        notes.append(f"{plural(len(missing), 'row')} without a picture: left out (row {first_few(missing)}).")
    if is_numbered:
        numbers = first_few(sorted({row.label for row in rows if row.label}, key=int))
        notes.append(f"the labels are numbers, and the file has no names for them: the classes are {numbers}.")
    return Rows(rows, folder, columns, tuple(header), notes, further.names)


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
    except (OSError, ValueError, OverflowError, lib.ArrowException) as error:
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


def _holds_images(column: Any, features: Mapping[str, Any]) -> bool:
    form = str(column.type)
    if form.startswith("struct<"):
        return "bytes: binary" in form or "bytes: large_binary" in form
    named = _kind(features.get(column.name)) == "Image" or column.name.lower() in {"image", "img", "bytes"}
    return named and form in {"binary", "large_binary"}


def _only(found: Sequence[str], plain: str, told: str | None, source: str) -> str:
    """The one of these columns that is told or has the plain name, or is alone; empty where there is none."""
    chosen = [name for name in found if name.lower() == (told or plain).lower()] or ([] if told else found)
    if len(chosen) > 1:
        what = "pictures" if plain == "image" else "classes"
        raise DataError(
            f"{source}: several columns hold {what} ({first_few(chosen)}).",
            hint=f"Call the one to learn from {plain}, or give the file with --column-names.",
        )
    return chosen[0] if chosen else ""


def _parquet_columns(
    header: Sequence[str],
    features: Mapping[str, Any],
    images: str,
    source: str,
    needed: Sequence[str],
    told: Mapping[str, str],
) -> dict[str, int]:
    columns = meant_columns(header, source, (), told)
    if images:
        columns["path"] = header.index(images)
    if "label" not in columns:
        coded = _only([name for name in header if _kind(features.get(name)) == "ClassLabel"], "label", None, source)
        columns |= {"label": header.index(coded)} if coded else {}
    if any(key not in columns for key in needed):
        meant_columns([*header, *({"path"} if images else ())], source, needed)
    return columns


def _without_bytes(file: Any, column: str) -> bool:
    """Whether the file has no image in it, but the paths of images."""
    paths = [file.schema.column(place).path for place in range(len(file.schema))]
    if not {f"{column}.bytes", f"{column}.path"} <= {*paths}:
        return False
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    statistics = [group.column(paths.index(f"{column}.bytes")).statistics for group in groups]
    return all(s is not None and s.null_count == g.num_rows for s, g in zip(statistics, groups, strict=True))


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
    others: tuple[str, ...]
    """Columns without a name of relish's, in the order of `further`."""
    further: FurtherColumns
    holds_images: bool
    """Whether the column of paths holds images."""

    def rows(self) -> Iterator[Row]:
        """The rows, a few in memory at a time; of one whose image is in the file, without a path."""
        columns = {key: name for key, name in self.columns.items() if key != "path" or not self.holds_images}
        places = {key: place for place, key in enumerate(columns, len(self.others))}
        for number, values in enumerate(self.values([*self.others, *columns.values()]), 1):
            cells = [*values]
            if "path" in places:
                cells[places["path"]] = _image(cells[places["path"]])[1]
            if "label" in places and self.class_names:
                cells[places["label"]] = self._named(cells[places["label"]], number)
            yield from rows_of([(number, cells)], places, self.source, "row", self.further)

    def values(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The cells of these columns, row by row."""
        if not names:
            yield from repeat((), self.file.metadata.num_rows)
            return
        try:
            for batch in self.file.iter_batches(batch_size=_BATCH, columns=list(dict.fromkeys(names))):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        except OSError as error:  # damage that shows late is not taken for a full disk
            raise ValueError(str(error)) from error

    def _named(self, label: Any, row: int) -> Any:
        if isinstance(label, list):
            return [self._named(one, row) for one in label]
        if label == -1:  # how Hugging Face marks an image without a label
            return None
        if not isinstance(label, int) or 0 <= label < len(self.class_names):
            return self.class_names[label] if isinstance(label, int) else label
        raise DataError(
            f"{self.source}, row {row}: label {label} is none of the file's {len(self.class_names):,} class names.",
            hint="Write the file again with the classes that its labels number.",
        )


def _image(value: Any) -> tuple[bytes | None, Any]:
    """The bytes and the path of a cell that holds an image, or a path."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (value, None) if isinstance(value, bytes) else (None, value)


def _write_images(shard: _Shard, folder: Path) -> None:
    allowed = max(SMALL, MAX_EXPANSION * shard.path.stat().st_size)
    for number, (value,) in enumerate(shard.values([shard.columns["path"]]), 1):
        content, given = _image(value)
        allowed -= len(content or b"")
        if allowed < 0:
            raise DataError(f"{shard.source}: unpacks to far more than its size.", hint="It may be a bomb.")
        if content:
            (folder / _image_name(number, given, content)).write_bytes(content)
    os.sync()  # before the folder gets its name: a power cut must not leave empty files in it


def _names_by_row(folder: Path) -> dict[int, str]:
    """The files that `_write_images` wrote, by their rows."""
    return {int(row[0]): name for name in os.listdir(folder) if (row := re.match(r"\d{6,}", name))}


def _image_name(number: int, given: Any, content: bytes) -> str:
    """A file's name of safe characters: the row, then what the file was called."""
    stem, ending = os.path.splitext(os.path.basename(str(given or "").replace("\\", "/")))
    if not is_image_name(f"x{ending}"):
        decoder = decoder_of(content[:HEAD_BYTES])
        ending = f".{decoder.format}" if decoder and decoder.format else ""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:60].strip("-._")
    return f"{number:06}{'-' * bool(word)}{word}{ending.lower()}"
