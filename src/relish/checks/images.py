"""The images of a dataset in one sequence, the files that cannot be opened, and doubtful class folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError
from relish.data.dataset import Dataset, Finding, Severity, Split, check_trainable, first_few, plain_name
from relish.data.layout import split_words
from relish.data.survey import Facts, Survey

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The N images of all splits that can be opened, sorted by split, class and name."""

    dataset: Dataset
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """As `Dataset.label` gives them."""
    labels: Positions
    """(N,) int64, positions in the dataset's classes."""
    splits: Positions
    """(N,) int64, positions in `split_names`."""
    split_names: tuple[str, ...]
    sha256: tuple[str, ...]
    """Of each file."""
    facts: Facts
    """(N,), recorded by the survey."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's class names."""
        return self.dataset.classes

    def as_split(self) -> Split:
        """All of them as one split."""
        return Split(self.paths, self.labels)

    def named(self, positions: Sequence[int] | Positions) -> tuple[str, ...]:
        """The names of some images."""
        return tuple(self.names[i] for i in positions)


def image_set(surveyed: Survey) -> ImageSet:
    """Every image of a survey, once for each split that it is in."""
    dataset = surveyed.dataset
    splits = list(dataset.splits.items())
    paths = tuple(path for _, split in splits for path in split.paths)
    empty = np.zeros(0, dtype=np.int64)
    return ImageSet(
        dataset=dataset,
        paths=paths,
        names=tuple(map(dataset.label, paths)),
        labels=np.concatenate([empty, *(split.labels for _, split in splits)]),
        splits=np.concatenate([empty, *(np.full(len(s), i, dtype=np.int64) for i, (_, s) in enumerate(splits))]),
        split_names=tuple(name for name, _ in splits),
        sha256=tuple(surveyed.sha256[path] for path in paths),
        facts=surveyed.facts_of(paths),
    )


def unreadable(surveyed: Survey) -> list[Finding]:
    """One finding for each file that cannot be opened."""
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            message=f"Cannot be opened: {reason}.",
            advice="It is left out of everything. Get the file again, or take it away.",
            paths=(name,),
        )
        for name, reason in surveyed.unreadable
    ]


_HOLDERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photos", "pics", "jpg", "jpeg", "jpegs", "png", "pngs"}
    | {"data", "dataset", "datasets", "label", "labels", "annotations", "class", "classes", "folder", "misc"}
    | {"unsorted", "temp", "tmp", "backup", "download", "downloads", "output", "outputs"}
)
"""Names of folders that hold images of any class."""
_UNNAMED = re.compile(r"(new|untitled|neuer|nouveau|nuova) (folder|ordner|dossier|cartella)( ?\(?\d+\)?)?")
_COPY = re.compile(r"^copy of | copy( ?\(\d+\))?$| ?\(\d+\)$")


def layout(dataset: Dataset) -> list[Finding]:
    """Why `fit` would refuse the dataset, class names that hint at a wrong folder, and the warnings of reading it."""
    return [
        *_refused(dataset),
        *_doubtful_names(
            list(split_words(dataset.classes)),
            "named like a split",
            "If it is a split, let the classes be folders inside it, and only splits lie beside it.",
        ),
        *_doubtful_names(
            [name for name in dataset.classes if _holds_any_class(plain_name(name))],
            "named like a folder of anything",
            "If the classes are folders inside it, give that folder; if not, name it after what it shows.",
        ),
        *_variants(dataset.classes),
        *(
            _finding("note", warning, "Look whether that was meant; move what belongs in.")
            for warning in dataset.warnings
        ),
    ]


def _finding(severity: Severity, message: str, advice: str) -> Finding:
    return Finding(kind="layout", severity=severity, message=message, advice=advice)


def _holds_any_class(name: str) -> bool:
    return name in _HOLDERS or _UNNAMED.fullmatch(name) is not None


def _refused(dataset: Dataset) -> list[Finding]:
    """Why `fit` would refuse this dataset, in its own words."""
    problem = dataset.problem
    if problem is None:
        try:
            check_trainable(dataset)
        except DataError as error:
            problem = error
    if problem is None:
        return []
    advice = " ".join(problem.hint.split()) or "Mend it before fit."
    return [_finding("error", problem.message, advice)]


def _doubtful_names(names: Sequence[str], words: str, advice: str) -> list[Finding]:
    if not names:
        return []
    verb = "is" if len(names) == 1 else "are"
    message = f"{_listed(names)} {verb} taken for a class, and {words}."
    return [_finding("warning", message, advice)]


def _variants(classes: Sequence[str]) -> list[Finding]:
    """Classes whose names differ in spelling alone."""
    by_plain_name: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_plain_name[_COPY.sub("", plain_name(name)).strip() or plain_name(name)].append(name)
    return [
        _finding(
            "warning",
            f"Classes {_listed(names)} differ in spelling alone.",
            "If they mean one class, put their pictures into one folder.",
        )
        for names in by_plain_name.values()
        if len(names) > 1
    ]


def _listed(names: Sequence[str]) -> str:
    return first_few([f'"{name}"' for name in names])
