"""Which rows of the source head a user's classes stand for.

In:   class names, the source's labels, and what the user mapped by hand.
Out:  for each class, the source rows it may start from; none where nothing matches.
Not here: making a head of them (`head_init.py`).

Only whole names match, spaces, hyphens, underscores and case aside: `hot_dog` is `hotdog`, `not-hotdog` is not.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from relish.core.errors import RecipeError, nearest
from relish.models.imagenet import imagenet_descriptions, label_set_of, names_of_rows

Match = tuple[int, str]
"""A source row and its label."""


def match_classes(
    classes: Sequence[str], labels: tuple[str, ...] | None, rows: int, mapping: Mapping[str, str | int]
) -> dict[str, list[Match]]:
    """Find each class among the source's rows, the user's mapping first.

    Args:
        classes: the target's class names.
        labels: one per source row; None where nobody knows them.
        rows: how many rows the source head has.
        mapping: class name to row number or source name, as `--map hotdog=934` gives it.

    Returns:
        For each class, in order, no row or one.

    Raises:
        RecipeError: the mapping names an unknown class, row or source name; or a name stands for several rows.
    """
    for name in mapping:
        if name not in classes:
            raise RecipeError(
                f'--map {name}={mapping[name]}: there is no class "{name}".',
                hint=nearest(name, classes) or f"The classes: {', '.join(classes)}.",
            )
    index = _rows_by_name(labels)
    return {name: _match(name, mapping.get(name), labels, rows, index) for name in classes}


def normalised(name: str) -> str:
    """A name as it is compared: lower case, without spaces, hyphens and underscores."""
    return "".join(name.casefold().replace("-", "").replace("_", "").split())


def _match(
    name: str, mapped: str | int | None, labels: tuple[str, ...] | None, rows: int, index: Mapping[str, list[int]]
) -> list[Match]:
    if mapped is None:
        return _only(name, index.get(normalised(name), []), labels)
    if isinstance(mapped, int) or mapped.strip().lstrip("-").isdecimal():
        return [_row(name, int(mapped), labels, rows)]
    found = index.get(normalised(mapped), [])
    if not found:
        known = [one for row in names_of_rows(labels) for one in row] if labels else []
        offer = nearest(mapped, known) if known else "This source has no class names; give the number of a row."
        raise RecipeError(f'--map {name}={mapped}: the source has no class "{mapped}".', hint=offer)
    return _only(name, found, labels)


def _row(name: str, row: int, labels: tuple[str, ...] | None, rows: int) -> Match:
    if not 0 <= row < rows:
        raise RecipeError(
            f"--map {name}={row}: the source head has the rows 0 to {rows - 1}.",
            hint="Give one of these, or the name of a source class.",
        )
    return row, labels[row] if labels else ""


def _only(name: str, found: list[int], labels: tuple[str, ...] | None) -> list[Match]:
    if labels is None or not found:
        return []
    if len(found) > 1:
        label_set = label_set_of(labels)
        words = imagenet_descriptions(label_set) if label_set else labels
        raise RecipeError(
            f'class "{name}" could be any of these source classes: '
            + "; ".join(f"{row} ({words[row]})" for row in found),
            hint=f"Say which: --map {name}={found[0]}.",
        )
    return [(found[0], labels[found[0]])]


def _rows_by_name(labels: tuple[str, ...] | None) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, names in enumerate(names_of_rows(labels) if labels else []):
        for name in dict.fromkeys(map(normalised, names)):
            rows[name].append(row)
    return rows
