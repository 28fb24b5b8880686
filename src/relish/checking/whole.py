"""Every check of a dataset.

In:   a dataset as it was found, its survey, the features of its pictures.
Out:  a `Checked`.
Not here: computing features (`tasks/check.py`), the checks that need none (`brief.py`).
"""

from dataclasses import dataclass

import numpy as np

from relish.checking.brief import by_facts, exact_pairs, in_order
from relish.checking.collection import Collection, Positions
from relish.checking.duplicates import near_duplicates
from relish.checking.groups import joined
from relish.checking.near import by_both
from relish.checking.neighbours import Floats, directions, nearest_others
from relish.checking.off_topic import off_topic
from relish.checking.wrong_labels import Judged, judged, too_few_to_judge, wrong_labels
from relish.data.dataset import Dataset
from relish.data.findings import Finding
from relish.data.survey import Survey

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
