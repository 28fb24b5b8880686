"""All checks of a dataset, and the brief ones that need no network.

In:   a dataset as it was found, its survey; for all checks also the features of its pictures.
Out:  findings in one order: what spoils figures first, then by kind, then as each check orders its own.
Not here: computing features (`tasks/check.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from relish.checking.balance import balance
from relish.checking.collection import Collection, Positions, collected
from relish.checking.duplicates import exact_duplicates, exact_groups, near_duplicates
from relish.checking.groups import joined
from relish.checking.layout import layout
from relish.checking.light import hard_to_see
from relish.checking.near import by_both, by_hashes
from relish.checking.neighbours import Floats, directions, nearest_others
from relish.checking.off_topic import off_topic
from relish.checking.shapes import odd_shapes
from relish.checking.unreadable import unreadable
from relish.checking.wrong_labels import Judged, judged, too_few_to_judge, wrong_labels
from relish.data.dataset import Dataset
from relish.data.findings import KINDS, Finding
from relish.data.survey import Survey

NEIGHBOURS = 10
"""Nearest others of each picture that are looked at."""
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, eq=False)
class Checked:
    """What all checks found, and what it was found by."""

    findings: tuple[Finding, ...]
    pictures: Collection
    pairs: Positions
    """(P, 2) int64: near copies, exact ones among them."""
    said: Judged | None
    """What a probe says of the pictures; None where there were too few."""


def brief_findings(found: Dataset, looked: Survey) -> tuple[Finding, ...]:
    """What the survey's facts alone give: cheap enough for the start of every run.

    Args:
        found: the dataset before its survey; the warnings that came with it are findings too.
        looked: its survey.
    """
    pictures = collected(looked)
    pairs = np.concatenate([_exact_pairs(pictures), by_hashes(pictures)])
    return in_order([*_by_facts(found, looked, pictures), *near_duplicates(pictures, joined(len(pictures), pairs))])


def all_findings(found: Dataset, looked: Survey, pictures: Collection, features: Floats) -> Checked:
    """Every check.

    Args:
        found, looked: as in `brief_findings`.
        pictures: of the survey.
        features: (N, D) float32, in their order.
    """
    directed = directions(features)
    nearest, cosines = nearest_others(directed, min(NEIGHBOURS, max(0, len(pictures) - 1)))
    pairs = np.concatenate([_exact_pairs(pictures), by_both(pictures, directed, nearest)])
    group_of = joined(len(pictures), pairs)
    said = judged(pictures, features, group_of)
    findings = _by_facts(found, looked, pictures)
    told = {name for finding in findings if finding.kind in ("blank", "dark") for name in finding.paths}
    places = np.array([i for i, name in enumerate(pictures.names) if name in told], dtype=np.int64)
    findings += near_duplicates(pictures, group_of)
    findings += [too_few_to_judge()] if said is None else wrong_labels(pictures, said)
    findings += off_topic(pictures, cosines, places)
    return Checked(in_order(findings), pictures, pairs, said)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings before notes, then by kind; each kind keeps its own order."""
    return tuple(sorted(findings, key=lambda f: (_SEVERITIES.index(f.severity), KINDS.index(f.kind))))


def _by_facts(found: Dataset, looked: Survey, pictures: Collection) -> list[Finding]:
    return [
        *unreadable(looked),
        *exact_duplicates(pictures),
        *hard_to_see(pictures),
        *odd_shapes(pictures),
        *balance(pictures),
        *layout(replace(looked.dataset, warnings=found.warnings)),
    ]


def _exact_pairs(pictures: Collection) -> Positions:
    """(P, 2): each picture of a group of exact copies with the next."""
    pairs = [np.stack([group[:-1], group[1:]], axis=1) for group in exact_groups(pictures)]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
