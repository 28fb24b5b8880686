"""Class names that say a folder was given from the wrong level, and what keeps a dataset from being learned from.

In:   a dataset.
Out:  `layout` findings.
Not here: reading folders (`data/folders.py`); what is said there as a warning is said here as a finding.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from relish.core.errors import DataError
from relish.data.dataset import Dataset, check_trainable, first_few, plain_name
from relish.data.findings import Finding
from relish.data.layout import split_words

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
