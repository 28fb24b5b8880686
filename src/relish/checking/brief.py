"""The checks that need no network: what the facts of the survey's one decode give.

In:   a dataset as it was found, and its survey.
Out:  findings in one order: what spoils figures first, then by kind, then as each check orders its own.
Not here: the checks that compare features (`whole.py`).

Cheap enough for the start of every run: nothing is read again.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from relish.checking.balance import balance
from relish.checking.collection import Collection, Positions, collected
from relish.checking.duplicates import exact_duplicates, exact_groups, near_duplicates
from relish.checking.groups import joined
from relish.checking.layout import layout
from relish.checking.light import hard_to_see
from relish.checking.near import by_hashes
from relish.checking.shapes import odd_shapes
from relish.checking.unreadable import unreadable
from relish.data.dataset import Dataset
from relish.data.findings import KINDS, SEVERITIES, Finding
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
