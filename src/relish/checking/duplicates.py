"""Pictures that are in a dataset more than once, pixel by pixel or nearly so: one finding a group.

In:   a collection, and which pictures are alike.
Out:  `exact-duplicate` and `near-duplicate` findings, those that cross a split or a class first.
Not here: what counts as nearly the same (`near.py`).

A copy across splits makes the test easier than the world; a copy across classes says two things of one picture.
"""

import numpy as np

from relish.checking.collection import Collection, Positions
from relish.checking.groups import crossed, equal_rows, several
from relish.data.findings import Border, Finding


def exact_groups(pictures: Collection) -> list[Positions]:
    """Groups of pictures with the same size and the same pixels, whatever their files are."""
    return several(equal_rows(pictures.facts["pixels"]))


def exact_duplicates(pictures: Collection) -> list[Finding]:
    """One finding for each group of pictures that are the same pixel by pixel."""
    found = [(crossed(pictures, group), group) for group in exact_groups(pictures)]
    return [
        Finding(
            kind="exact-duplicate",
            severity="error" if across else "note",
            message=f"{len(group)} files hold the same picture, pixel by pixel{_where(pictures, group, across)}.",
            advice=_advice(across),
            paths=pictures.named(group),
            across=across,
        )
        for across, group in sorted(found, key=lambda pair: -len(pair[0]))
    ]


def near_duplicates(pictures: Collection, group_of: Positions) -> list[Finding]:
    """One finding for each group of pictures that look like copies of each other.

    Args:
        group_of: (N,) int64, see `groups.joined`; groups of exact duplicates alone are left to `exact_duplicates`.
    """
    pixels = equal_rows(pictures.facts["pixels"])
    groups = [group for group in several(group_of) if len(np.unique(pixels[group])) > 1]
    found = [(crossed(pictures, group), group) for group in groups]
    return [
        Finding(
            kind="near-duplicate",
            severity="warning" if across else "note",
            message=f"{len(group)} pictures look like one, resized, cropped, mirrored or saved anew, or like one scene "
            f"taken twice{_where(pictures, group, across)}.",
            advice=_advice(across),
            paths=pictures.named(group),
            across=across,
        )
        for across, group in sorted(found, key=lambda pair: -len(pair[0]))
    ]


def _where(pictures: Collection, group: Positions, across: tuple[Border, ...]) -> str:
    words = ""
    if "split" in across:
        words += ", in " + _listed([pictures.split_names[i] for i in np.unique(pictures.splits[group])])
    if "class" in across:
        words += ", labelled " + _listed([pictures.classes[i] for i in np.unique(pictures.labels[group])])
    return words


def _advice(across: tuple[Border, ...]) -> str:
    if "class" in across:
        return "If it is one picture, only one label can be right: keep that one."
    if "split" in across:
        return "A picture that was learned from cannot test anything: take it out of one of the splits."
    return "It counts more than the others; one copy is enough."


def _listed(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    told = names[:shown]
    return (", ".join(told) if more else " and ".join([", ".join(told[:-1]), told[-1]])) + more
