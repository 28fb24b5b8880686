"""A cleaned list of a dataset's pictures: what to leave out, why, and how to take it back.

In:   what the checks found.
Out:  rows to keep and rows left out, each with its decision and reason, for two tables beside each other.
Not here: writing them (`tasks/check.py`), reading them (`data/tables.py`).

Only what cannot be a matter of opinion is decided: a file that cannot be opened, one of two pictures that are the same
pixel by pixel, a training picture that has a copy in the test. Contradicting labels are left to a person, and labels
are changed only where that was asked for. No file is touched; a row moved from one table to the other undoes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relish.checking.collection import Collection
from relish.checking.duplicates import exact_groups
from relish.checking.whole import Checked
from relish.data.dataset import TEST, VALIDATION, WHOLE, Dataset

LEFT_OUT, RELABELLED = "left out", "relabelled"
_KEPT_FIRST = {TEST: 0, VALIDATION: 1}


@dataclass(frozen=True)
class Row:
    """One picture of the list."""

    path: Path
    label: str
    split: str
    """Empty where the dataset has no splits."""
    decision: str = ""
    """`left out`, `relabelled` or nothing."""
    reason: str = ""


def cleaned(found: Dataset, checked: Checked, relabel: float | None = None) -> list[Row]:
    """A row for each picture of the dataset, in its order, those that cannot be opened among them.

    Args:
        found: the dataset before its survey.
        checked: what was found in it.
        relabel: give training pictures their suggested class where the probe is at least this sure, 0 to 1; None
            changes no label. Test pictures keep theirs: a model must not mark its own test.
    """
    pictures = checked.pictures
    reasons = _left_out(checked)
    _keep_classes_alive(pictures, reasons)
    changed = _relabelled(checked, relabel)
    place_of = {name: place for place, name in enumerate(pictures.names)}
    unreadable = {f.paths[0]: f.message for f in checked.findings if f.kind == "unreadable"}
    rows = []
    for row in _as_found(found):
        name = found.label(row.path)
        place = place_of.get(name)
        if place is None:
            row = replace(row, decision=LEFT_OUT, reason=unreadable.get(name, "Cannot be opened."))
        elif place in reasons:
            row = replace(row, decision=LEFT_OUT, reason=reasons[place])
        elif name in changed:
            label, reason = changed[name]
            row = replace(row, label=label, decision=RELABELLED, reason=reason)
        rows.append(row)
    return rows


def _as_found(found: Dataset) -> Iterator[Row]:
    for name, split in found.splits.items():
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            yield Row(path, found.classes[label], "" if name == WHOLE else name)


def _left_out(checked: Checked) -> dict[int, str]:
    """Why each picture is left out that is, by position."""
    pictures = checked.pictures
    reasons: dict[int, str] = {}
    for group in exact_groups(pictures):
        kept: list[int] = []
        for place in sorted(group.tolist(), key=lambda i: (_turn(pictures, i), pictures.names[i])):
            other = next((k for k in kept if _stands_for(pictures, k, place)), None)
            if other is None:
                kept.append(place)
            else:
                reasons[place] = f"The same picture as {_told(pictures, other)}, pixel by pixel."
    for one, two in checked.pairs.tolist():
        first, second = sorted((one, two), key=lambda i: _turn(pictures, i))
        if _turn(pictures, first) < _turn(pictures, second) and first not in reasons:
            reasons.setdefault(second, f"Looks like a copy of {_told(pictures, first)}.")
    return reasons


def _turn(pictures: Collection, place: int) -> int:
    return _KEPT_FIRST.get(pictures.split_names[pictures.splits[place]], 2)


def _stands_for(pictures: Collection, kept: int, place: int) -> bool:
    """Whether a kept picture makes its copy needless: of the same class, or what the copy would be tested on."""
    return bool(pictures.labels[kept] == pictures.labels[place]) or _turn(pictures, kept) < _turn(pictures, place)


def _told(pictures: Collection, place: int) -> str:
    return f"{pictures.names[place]} ({pictures.split_names[pictures.splits[place]]})"


def _keep_classes_alive(pictures: Collection, reasons: dict[int, str]) -> None:
    """Take decisions back that would leave a class of a split without any picture: that is for a person to mend."""
    key = pictures.splits * len(pictures.classes) + pictures.labels
    out = np.zeros(len(pictures), dtype=bool)
    out[list(reasons)] = True
    alive = np.unique(key[~out])
    for place in np.flatnonzero(out & ~np.isin(key, alive)).tolist():
        del reasons[place]


def _relabelled(checked: Checked, sure: float | None) -> dict[str, tuple[str, str]]:
    """New label and reason by name."""
    if sure is None:
        return {}
    pictures = checked.pictures
    kept = [i for i, name in enumerate(pictures.split_names) if name in _KEPT_FIRST]
    learned = set(pictures.named(np.flatnonzero(~np.isin(pictures.splits, kept))))
    doubted = [f for f in checked.findings if f.kind == "wrong-label" and f.paths[0] in learned]
    return {
        f.paths[0]: (str(f.suggested), f'Was "{f.given}"; a model that did not learn from it doubts it.')
        for f in doubted
        if f.confidence is not None and f.confidence >= sure
    }
