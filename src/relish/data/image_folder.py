"""Find the tables of a folder that is laid out as Hugging Face's image folders and datasets are.

    metadata.csv, .jsonl, .parquet      beside the images, or in the folder of each split: `train/metadata.csv`
    train-00000-of-00002.parquet        the images are in the file; the split is in its name, or its folder's

The tables may lie in a folder that is alone in its own, such as `data`. A Parquet file of any name counts only where no
images lie beside it.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relish.data.dataset import first_few
from relish.data.image_files import is_image_name
from relish.data.layout import Listing, everything_below, list_folder, printable
from relish.data.parquet_table import PARQUET_SUFFIXES
from relish.data.split_names import NONE, SplitNames, split_series, split_words

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5,})-of-(?P<count>\d{5,})(-[0-9a-f]+)?")
_DEPTH = 4
"""Folders that may wrap the tables."""


@dataclass(frozen=True)
class TableFile:
    """A table, and what is known of it before it is read."""

    path: Path
    split: str = ""
    """The split of all its rows; empty where the rows say it, or nothing does."""


@dataclass(frozen=True)
class Tables:
    """The tables of a dataset."""

    root: Path
    """The folder that they were found in."""
    files: tuple[TableFile, ...]
    notes: list[str] = field(default_factory=list)
    """What is to be said of them, a sentence each."""

    @property
    def are_metadata(self) -> bool:
        """Whether the images lie beside the tables."""
        return all(is_metadata(file.path) for file in self.files)


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
    match = _SHARD.fullmatch(path.stem)
    return split_words([match["split"]]).get(match["split"], "") if match else ""


def _metadata(level: Listing) -> dict[Path, str]:
    """Each metadata file of a folder and of those in it, with the name of the folder; none for the upper one."""
    found = dict.fromkeys(_named_metadata(level.folder), "")
    return found | {path: folder.name for folder in level.folders for path in _named_metadata(folder)}


def _named_metadata(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if os.path.isfile(folder / name)]


def _shards(level: Listing) -> dict[Path, str]:
    """Each Parquet file of a folder and of those in it, with the word that may be a split; none beside images."""
    above, inside = _parquet_files(level.folder), {folder: _parquet_files(folder) for folder in level.folders}
    found = {path: match["split"] if (match := _SHARD.fullmatch(path.stem)) else path.stem for path in above}
    for folder, paths in inside.items():
        own = {path: match["split"] for path in paths if (match := _SHARD.fullmatch(path.stem))}
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
    files = tuple(TableFile(path, split_of[word]) for path, word in word_of.items() if word in split_of)
    left_out = [printable(path.relative_to(root)) for path, word in word_of.items() if word not in split_of]
    verb = "is not named like a split" if len(left_out) == 1 else "are not named like splits"
    notes = [f"{first_few(left_out)} {verb}: left out."] if left_out else []
    return Tables(root, files, notes + _missing_shards([file.path for file in files]))


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


def _missing_shards(paths: Sequence[Path]) -> list[str]:
    numbers: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path in paths:
        if match := _SHARD.fullmatch(path.stem):
            numbers[match["split"], int(match["count"])].add(int(match["number"]))
    return [
        f"{split}: {count - len(have):,} of {count:,} Parquet files are not there."
        for (split, count), have in numbers.items()
        if len(have) < count
    ]
