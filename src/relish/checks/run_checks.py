"""All checks of a dataset, the brief ones that need no network, and the cleaned list that follows from them.

The brief checks use what the survey's one decode recorded, so every run can afford them. The cleaned list decides only
what cannot be a matter of opinion: a file that cannot be opened, one of two images that are equal pixel by pixel, a
training image that has a copy in the test split. Labels are changed only where that was asked for, and no file is
touched.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relish.checks.image_quality import balance, hard_to_see, odd_shapes
from relish.checks.images import Collection, Positions, collected, layout, unreadable
from relish.checks.label_issues import (
    Floats,
    Judged,
    directions,
    judged,
    nearest_others,
    off_topic,
    too_few_to_judge,
    wrong_labels,
)
from relish.checks.near_duplicates import by_both, by_hashes, exact_duplicates, exact_groups, joined, near_duplicates
from relish.data.dataset import KINDS, SEVERITIES, TEST, VALIDATION, WHOLE, Dataset, Finding
from relish.data.survey import Survey


def brief_findings(found: Dataset, looked: Survey) -> tuple[Finding, ...]:
    """What the facts alone give.

    Args:
        found: the dataset before its survey; the warnings that came with it are findings too.
        looked: its survey.
    """
    pictures = collected(looked)
    pairs = np.concatenate([exact_pairs(pictures), by_hashes(pictures)])
    return in_order([*by_facts(found, looked, pictures), *near_duplicates(pictures, joined(len(pictures), pairs))])


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings before notes, then by kind; each kind keeps its own order."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), KINDS.index(f.kind))))


def by_facts(found: Dataset, looked: Survey, pictures: Collection) -> list[Finding]:
    """The checks of single pictures, of exact copies, of classes and of the layout."""
    return [
        *unreadable(looked),
        *exact_duplicates(pictures),
        *hard_to_see(pictures),
        *odd_shapes(pictures),
        *balance(pictures),
        *layout(replace(looked.dataset, warnings=found.warnings)),
    ]


def exact_pairs(pictures: Collection) -> Positions:
    """(P, 2): each picture of a group of exact copies with the next."""
    pairs = [np.stack([group[:-1], group[1:]], axis=1) for group in exact_groups(pictures)]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])


NEIGHBOURS = 10
"""Nearest others of each picture that are looked at."""


@dataclass(frozen=True, eq=False)
class Checked:
    """What all checks found, and what it was found by."""

    findings: tuple[Finding, ...]
    pictures: Collection
    pairs: Positions
    """(P, 2) int64: near copies, exact ones among them."""
    said: Judged | None
    """What a probe says of the pictures; None where there were too few."""


def all_findings(found: Dataset, looked: Survey, pictures: Collection, whole: Floats, *others: Floats) -> Checked:
    """Every check.

    Args:
        found, looked: as in `brief_findings`.
        pictures: of the survey.
        whole: (N, D) float32, features of all that each picture shows, in their order: alike ones are found by them.
        others: (N, D) float32 each, of the same pictures in other framings: a probe learns from them as well.
    """
    directed = directions(whole)
    nearest, cosines = nearest_others(directed, min(NEIGHBOURS, max(0, len(pictures) - 1)))
    pairs = np.concatenate([exact_pairs(pictures), by_both(pictures, directed, nearest, cosines)])
    group_of = joined(len(pictures), pairs)
    said = judged(pictures, np.concatenate([whole, *others], axis=1), nearest, group_of)
    findings = by_facts(found, looked, pictures)
    told = {name for finding in findings if finding.kind in ("blank", "dark") for name in finding.paths}
    places = np.array([i for i, name in enumerate(pictures.names) if name in told], dtype=np.int64)
    findings += near_duplicates(pictures, group_of)
    doubted = [too_few_to_judge()] if said is None else wrong_labels(pictures, said)
    findings += [finding for finding in doubted if not told.intersection(finding.paths)]
    findings += off_topic(pictures, cosines, places)
    return Checked(in_order(findings), pictures, pairs, said)


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
