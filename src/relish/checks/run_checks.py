"""All checks of a dataset, the brief ones that need no network, and the cleaned list that follows from them.

The brief checks use what the survey recorded while decoding, so every run can afford them. The cleaned list decides
only what is no matter of opinion: a file that cannot be opened, one of two images that are equal pixel by pixel, a
training image that has a copy in the test split. Labels are changed only where that was asked for, and no file is
touched.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relish.checks.images import (
    Floats,
    ImageSet,
    Positions,
    balance,
    hard_to_see,
    image_set,
    layout,
    many_pages,
    odd_shapes,
    shared_groups,
    unreadable,
)
from relish.checks.label_issues import (
    OutOfFold,
    labels_not_checked,
    off_topic,
    out_of_fold,
    wrong_labels,
)
from relish.checks.near_duplicates import exact_duplicates, near_duplicates, series
from relish.data.dataset import KINDS, SEVERITIES, TEST, VALIDATION, WHOLE, Dataset, Finding
from relish.data.near_copies import exact_groups, exact_pairs, group_pairs, pairs_by_features, pairs_by_hashes
from relish.data.survey import Survey
from relish.evaluation.features import nearest_others, unit_vectors
from relish.evaluation.series import find_series

NEIGHBOURS = 10
"""Nearest others of each image that are searched."""
LEFT_OUT, RELABELLED = "left out", "relabelled"
_KEPT_FIRST = {TEST: 0, VALIDATION: 1}
"""Rank of a split's images among copies; those of other splits come after."""


@dataclass(frozen=True, eq=False)
class Checked:
    """What all checks found, and the images and probabilities that it follows from."""

    findings: tuple[Finding, ...]
    images: ImageSet
    pairs: Positions
    """(P, 2) int64: near copies, exact ones among them."""
    predicted: OutOfFold | None
    """Of a probe; None where there were too few images."""


def brief_findings(dataset: Dataset, surveyed: Survey) -> tuple[Finding, ...]:
    """The checks that need no network.

    Args:
        dataset: before its survey; the warnings of reading it are findings too.
        surveyed: its survey.
    """
    images = image_set(surveyed)
    pairs = np.concatenate([exact_pairs(images.facts), pairs_by_hashes(images.facts)])
    copies = near_duplicates(images, group_pairs(len(images), pairs))
    return _in_order([*_survey_findings(dataset, surveyed, images), *copies])


def all_findings(dataset: Dataset, surveyed: Survey, images: ImageSet, whole: Floats, *others: Floats) -> Checked:
    """Every check.

    Args:
        dataset, surveyed: as in `brief_findings`.
        images: of the survey.
        whole: (N, D) float32 features of the whole images, in their order: copies are found by them.
        others: (N, D) float32 each, of other views of the same images: a probe is trained on them as well.
    """
    vectors = unit_vectors(whole)
    nearest, cosines = nearest_others(vectors, min(NEIGHBOURS, max(0, len(images) - 1)))
    pairs = np.concatenate([exact_pairs(images.facts), pairs_by_features(images.facts, vectors, nearest, cosines)])
    group_of = group_pairs(len(images), pairs)
    predicted = out_of_fold(images, np.concatenate([whole, *others], axis=1), nearest, group_of)
    findings = _survey_findings(dataset, surveyed, images)
    hidden = {name for finding in findings if finding.kind in ("blank", "dark") for name in finding.paths}
    findings += near_duplicates(images, group_of)
    findings += series(images, find_series(whole, images.labels, images.facts, sure=True), group_of)
    doubted = [labels_not_checked()] if predicted is None else wrong_labels(images, predicted)
    findings += [finding for finding in doubted if not hidden.intersection(finding.paths)]
    excluded = np.array([i for i, name in enumerate(images.names) if name in hidden], dtype=np.int64)
    findings += off_topic(images, cosines, excluded)
    return Checked(_in_order(findings), images, pairs, predicted)


def _survey_findings(dataset: Dataset, surveyed: Survey, images: ImageSet) -> list[Finding]:
    """The checks of single images, of exact copies, of classes and of the layout."""
    return [
        *unreadable(surveyed),
        *exact_duplicates(images),
        *shared_groups(images),
        *hard_to_see(images),
        *odd_shapes(images),
        *many_pages(images),
        *balance(images),
        *layout(replace(surveyed.dataset, warnings=dataset.warnings)),
    ]


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings before notes, then by kind; each kind keeps its own order."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), KINDS.index(f.kind))))


@dataclass(frozen=True)
class CleanedRow:
    """One image of the cleaned list."""

    path: Path
    label: str
    split: str
    """Empty where the dataset has no splits."""
    decision: str = ""
    """`left out`, `relabelled` or nothing."""
    reason: str = ""


def cleaned(dataset: Dataset, checked: Checked, relabel: float | None = None) -> list[CleanedRow]:
    """A row for each image of the dataset, in its order, those that cannot be opened among them.

    Args:
        dataset: before its survey.
        checked: what was found in it.
        relabel: give training images their suggested class where the probe is at least this sure, 0 to 1; None
            changes no label. Test images keep theirs: a model must not mark its own test.
    """
    images = checked.images
    reasons = _left_out(checked)
    _keep_last_of_class(images, reasons)
    changed = _relabelled(checked, relabel)
    position_of = {name: position for position, name in enumerate(images.names)}
    unopened = {f.paths[0]: f.message for f in checked.findings if f.kind == "unreadable"}
    rows = []
    for row in _rows(dataset):
        name = dataset.label(row.path)
        position = position_of.get(name)
        if position is None:
            row = replace(row, decision=LEFT_OUT, reason=unopened.get(name, "Cannot be opened."))
        elif position in reasons:
            row = replace(row, decision=LEFT_OUT, reason=reasons[position])
        elif name in changed:
            label, reason = changed[name]
            row = replace(row, label=label, decision=RELABELLED, reason=reason)
        rows.append(row)
    return rows


def _rows(dataset: Dataset) -> Iterator[CleanedRow]:
    for name, split in dataset.splits.items():
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            yield CleanedRow(path, dataset.classes[label], "" if name == WHOLE else name)


def _left_out(checked: Checked) -> dict[int, str]:
    """Why an image is left out, by position."""
    images = checked.images
    reasons: dict[int, str] = {}
    for group in exact_groups(images.facts):
        kept: list[int] = []
        for position in sorted(group.tolist(), key=lambda i: (_rank(images, i), images.names[i])):
            other = next((k for k in kept if _stands_for(images, k, position)), None)
            if other is None:
                kept.append(position)
            else:
                reasons[position] = f"The same picture as {_named(images, other)}, pixel by pixel."
    for pair in checked.pairs.tolist():
        first, second = sorted(pair, key=lambda i: _rank(images, i))
        if _rank(images, first) < _rank(images, second) and first not in reasons:
            reasons.setdefault(second, f"Looks like a copy of {_named(images, first)}.")
    return reasons


def _rank(images: ImageSet, position: int) -> int:
    return _KEPT_FIRST.get(images.split_names[images.splits[position]], 2)


def _stands_for(images: ImageSet, kept: int, copy: int) -> bool:
    """Whether a kept image makes its copy needless: of the same class, or in a split that the copy would leak into."""
    return bool(images.labels[kept] == images.labels[copy]) or _rank(images, kept) < _rank(images, copy)


def _named(images: ImageSet, position: int) -> str:
    return f"{images.names[position]} ({images.split_names[images.splits[position]]})"


def _keep_last_of_class(images: ImageSet, reasons: dict[int, str]) -> None:
    """Take decisions back that would leave a class of a split without any image: a person has to decide those."""
    key = images.splits * len(images.classes) + images.labels
    out = np.zeros(len(images), dtype=bool)
    out[list(reasons)] = True
    for position in np.flatnonzero(out & ~np.isin(key, np.unique(key[~out]))).tolist():
        del reasons[position]


def _relabelled(checked: Checked, least: float | None) -> dict[str, tuple[str, str]]:
    """New label and reason by name."""
    if least is None:
        return {}
    images = checked.images
    evaluated = [i for i, name in enumerate(images.split_names) if name in _KEPT_FIRST]
    trained = set(images.named(np.flatnonzero(~np.isin(images.splits, evaluated))))
    doubted = [f for f in checked.findings if f.kind == "wrong-label" and f.paths[0] in trained]
    return {
        f.paths[0]: (str(f.suggested), f'Was "{f.given}"; a model that did not learn from it doubts it.')
        for f in doubted
        if f.confidence is not None and f.confidence >= least
    }
