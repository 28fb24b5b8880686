"""The images that every check works on, the files that cannot be opened, and doubtful class folders."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError
from relish.data.dataset import Dataset, Finding, Split, check_trainable, first_few, plain_name
from relish.data.layout import split_words
from relish.data.survey import Facts, Survey

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Collection:
    """N pictures that can be opened, sorted by split, class and name."""

    dataset: Dataset
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """As `Dataset.label` gives them."""
    labels: Positions
    """(N,) int64, positions in the dataset's classes."""
    splits: Positions
    """(N,) int64, positions in `split_names`."""
    split_names: tuple[str, ...]
    contents: tuple[str, ...]
    """SHA-256 of each file."""
    facts: Facts
    """(N,) of `data.facts.FACTS`."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's class names."""
        return self.dataset.classes

    def as_split(self) -> Split:
        """All of them as one."""
        return Split(self.paths, self.labels)

    def named(self, positions: Sequence[int] | Positions) -> tuple[str, ...]:
        """The names of some pictures."""
        return tuple(self.names[i] for i in positions)


def collected(looked: Survey) -> Collection:
    """Every picture of a survey, each once per split it lies in."""
    dataset = looked.dataset
    splits = list(dataset.splits.items())
    paths = tuple(path for _, split in splits for path in split.paths)
    nothing = np.zeros(0, dtype=np.int64)
    return Collection(
        dataset=dataset,
        paths=paths,
        names=tuple(map(dataset.label, paths)),
        labels=np.concatenate([nothing, *(split.labels for _, split in splits)]),
        splits=np.concatenate([nothing, *(np.full(len(s), i, dtype=np.int64) for i, (_, s) in enumerate(splits))]),
        split_names=tuple(name for name, _ in splits),
        contents=tuple(looked.sha256[path] for path in paths),
        facts=looked.facts_of(paths),
    )


def unreadable(looked: Survey) -> list[Finding]:
    """One finding for each file that was left out."""
    return [
        Finding(
            kind="unreadable",
            severity="warning",
            message=f"Cannot be opened: {reason}.",
            advice="It is left out of everything. Get the file again, or take it away.",
            paths=(name,),
        )
        for name, reason in looked.unreadable
    ]


_HOLDERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photos", "pics", "jpg", "jpeg", "jpegs", "png", "pngs"}
    | {"data", "dataset", "datasets", "label", "labels", "annotations", "class", "classes", "folder", "misc"}
    | {"unsorted", "temp", "tmp", "backup", "download", "downloads", "output", "outputs"}
)
"""Names of folders that hold pictures of any class."""
_UNNAMED = re.compile(r"(new|untitled|neuer|nouveau|nuova) (folder|ordner|dossier|cartella)( ?\(?\d+\)?)?")
_COPY = re.compile(r"^copy of | copy( ?\(\d+\))?$| ?\(\d+\)$")


def layout(dataset: Dataset) -> list[Finding]:
    """What the class names and the way the pictures lie let one suspect."""
    return [
        *_refused(dataset),
        *_splits_as_classes(dataset.classes),
        *_holders(dataset.classes),
        *_twins(dataset.classes),
        *(_noticed(warning) for warning in dataset.warnings),
    ]


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
    return [Finding(kind="layout", severity="error", message=problem.message, advice=advice)]


def _splits_as_classes(classes: Sequence[str]) -> list[Finding]:
    meant = split_words(classes)
    if not meant:
        return []
    return [
        Finding(
            kind="layout",
            severity="warning",
            message=f"{_named(list(meant))} taken for a class, and named like a split.",
            advice="If it is a split, let the classes be folders inside it, and only splits lie beside it.",
        )
    ]


def _holders(classes: Sequence[str]) -> list[Finding]:
    found = [name for name in classes if plain_name(name) in _HOLDERS or _UNNAMED.fullmatch(plain_name(name))]
    if not found:
        return []
    return [
        Finding(
            kind="layout",
            severity="warning",
            message=f"{_named(found)} taken for a class, and named like a folder of anything.",
            advice="If the classes are folders inside it, give that folder; if not, name it after what it shows.",
        )
    ]


def _twins(classes: Sequence[str]) -> list[Finding]:
    together: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        together[_COPY.sub("", plain_name(name)).strip() or plain_name(name)].append(name)
    return [
        Finding(
            kind="layout",
            severity="warning",
            message=f"Classes {first_few([_quoted(name) for name in names])} differ in spelling alone.",
            advice="If they mean one class, put their pictures into one folder.",
        )
        for names in together.values()
        if len(names) > 1
    ]


def _noticed(warning: str) -> Finding:
    return Finding(
        kind="layout", severity="note", message=warning, advice="Look whether that was meant; move what belongs in."
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _named(names: list[str]) -> str:
    return f"{first_few([_quoted(name) for name in names])} {'is' if len(names) == 1 else 'are'}"
