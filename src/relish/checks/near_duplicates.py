"""Findings about exact and near copies, and about series of one scene, one for each group of images."""

import numpy as np

from relish.checks.images import ImageSet, Positions
from relish.data.dataset import Border, Finding, Kind, Severity
from relish.data.near_copies import exact_groups, members
from relish.evaluation.series import Series


def exact_duplicates(images: ImageSet) -> list[Finding]:
    """One finding for each group of images that are equal pixel by pixel, those that cross a split or class first."""
    return _findings(
        images, exact_groups(images.facts), "exact-duplicate", "error", "{} files hold the same picture, pixel by pixel"
    )


def near_duplicates(images: ImageSet, group_of: Positions) -> list[Finding]:
    """One finding for each group of images that look like copies of each other, those that cross a border first.

    Args:
        group_of: (N,) int64, see `near_copies.group_pairs`; groups of exact copies alone are left to the other.
    """
    pixels = images.facts["pixels"]
    return _findings(
        images,
        [group for group in members(group_of) if len(np.unique(pixels[group])) > 1],
        "near-duplicate",
        "warning",
        "{} pictures look like one, resized, cropped, mirrored or saved anew, or like one scene taken twice",
    )


def series(images: ImageSet, found: Series, copies: Positions) -> list[Finding]:
    """One finding for each series that holds more than copies of one image, those that cross a split first, then the
    largest.

    Args:
        copies: (N,) int64, see `near_copies.group_pairs`.
    """
    groups = sorted((group for group in found.scenes if len(np.unique(copies[group])) > 1), key=len, reverse=True)
    return _findings(images, groups, "series", "warning", "{} pictures look like one scene, object or person")


def _findings(images: ImageSet, groups: list[Positions], kind: Kind, severity: Severity, words: str) -> list[Finding]:
    """`severity` is that of a group that crosses a split or a class; `words` has `{}` for the size of a group."""
    found = [(_borders(images, group), group) for group in groups]
    return [
        Finding(
            kind=kind,
            severity=severity if across else "note",
            message=f"{words.format(len(group))}{_where(images, group, across)}.",
            advice=_series_advice(across) if kind == "series" else _advice(across),
            paths=images.named(group),
            across=across,
        )
        for across, group in sorted(found, key=lambda pair: -len(pair[0]))
    ]


def _borders(images: ImageSet, group: Positions) -> tuple[Border, ...]:
    """What a group crosses: `split`, `class`, both or nothing."""
    sides: dict[Border, Positions] = {"split": images.splits, "class": images.labels}
    return tuple(border for border, values in sides.items() if len(np.unique(values[group])) > 1)


def _where(images: ImageSet, group: Positions, across: tuple[Border, ...]) -> str:
    words = ""
    if "split" in across:
        words += ", in " + _listed([images.split_names[i] for i in np.unique(images.splits[group])])
    if "class" in across:
        words += ", labelled " + _listed([images.classes[i] for i in np.unique(images.labels[group])])
    return words


def _advice(across: tuple[Border, ...]) -> str:
    if "class" in across:
        return "If it is one picture, only one label can be right: keep that one."
    if "split" in across:
        return "A picture that was learned from cannot test anything: take it out of one of the splits."
    return "It counts more than the others; one copy is enough."


def _series_advice(across: tuple[Border, ...]) -> str:
    if "split" in across:
        return "A scene that was learned from makes a test too easy: put all of a series on one side."
    return "Whatever you divide these pictures into, keep a series on one side."


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    shown = names[:most]
    return (", ".join(shown) if more else " and ".join([", ".join(shown[:-1]), shown[-1]])) + more
