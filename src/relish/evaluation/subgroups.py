"""Accuracy by the values of a column, such as camera, site or group, and which values chance does not explain.

Each value is tested against all others together. Of many values one looks bad by chance, so the p-values are corrected
for their number (Holm 1979, Scandinavian Journal of Statistics 6, pages 65-70).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relish.core.errors import DataError, nearest
from relish.data.dataset import Dataset, Split, first_few
from relish.data.groups import GROUP
from relish.evaluation.grouped import Bools, Ints, proportion
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import LEVEL, p_words

MOST, WORST = 50, 20
"""Of more values than `MOST`, only the `WORST` are shown."""
Column = Sequence[str | None]
"""The value of each image; None where it has none."""


@dataclass(frozen=True)
class Subgroup:
    """The images with one value of a column."""

    name: str
    """The value."""
    accuracy: Proportion
    p_value: float
    """0 to 1, after Holm's correction: the probability of as many errors if the value is no worse than the others."""

    @property
    def worse(self) -> bool:
        """Whether chance does not explain its errors."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class Subgroups:
    """The values of one column. Made by `by_column`."""

    column: str
    values: tuple[Subgroup, ...]
    """The least accurate first."""
    without: int
    """Images that have no value, and are left out."""

    @property
    def shown(self) -> tuple[Subgroup, ...]:
        """All values, or the worst of many."""
        return self.values if len(self.values) <= MOST else self.values[:WORST]

    def sentence(self) -> str:
        """Such as `after Holm's correction, camera B is worse than the others (p = 0.003)`."""
        worse = [one for one in self.values if one.worse]
        if not worse:
            return f"after Holm's correction, no {self.column} is worse than the others by more than chance explains"
        if len(worse) == 1:
            words = f"{self.column} {worse[0].name} is worse than the others ({p_words(worse[0].p_value)})"
        else:
            named = first_few([f"{one.name} ({p_words(one.p_value)})" for one in worse], 5)
            words = f"{self.column} {named} are worse than the others"
        return f"after Holm's correction, {words}"

    def omitted(self) -> str:
        """What the table does not show, in words; empty where it shows everything."""
        rest = len(self.values) - len(self.shown)
        parts = [f"{rest:,} better values are not shown"] * bool(rest)
        if self.without:
            parts.append(f"{self.without:,} picture{'s' * (self.without != 1)} without a {self.column} left out")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """`column`, `without`, and every one of `values`: `name`, `accuracy`, `p_value`, `worse`."""
        values = [
            {"name": one.name, "accuracy": one.accuracy.as_json(), "p_value": one.p_value, "worse": one.worse}
            for one in self.values
        ]
        return {"column": self.column, "without": self.without, "values": values}


def columns_of(dataset: Dataset, split: Split, by: str | Sequence[str]) -> dict[str, Column]:
    """The values of a split's images in the column or the columns that are named.

    Raises:
        DataError: there is no such column.
    """
    by, known = [by] if isinstance(by, str) else by, dict(dataset.columns)
    if dataset.groups:
        known[GROUP] = dataset.groups
    for name in by:
        if name not in known:
            have = f"There are: {', '.join(known)}." if known else "Columns come from a table; --group-by finds groups."
            hint = f"{nearest(name, known)} {have}".strip()
            raise DataError(f'{dataset.source} has no column "{name}" to show accuracy by.', hint=hint)
    return {name: [known[name].get(path) for path in split.paths] for name in dict.fromkeys(by)}


def columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Every column of the images of `dataset.json` that has two values or more among them."""
    names = dict.fromkeys(name for row in rows for name in row.get("columns", {}))
    found = {name: [row.get("columns", {}).get(name) for row in rows] for name in names}
    found.setdefault(GROUP, [row.get(GROUP) for row in rows])
    return {name: values for name, values in found.items() if len(set(values) - {None}) > 1}


def by_columns(columns: Mapping[str, Column], right: Bools, groups: Ints | None) -> tuple[Subgroups, ...]:
    """Each column's values; see `by_column`."""
    return tuple(by_column(name, values, right, groups) for name, values in columns.items())


def by_column(column: str, values: Column, right: Bools, groups: Ints | None) -> Subgroups:
    """The accuracy of each value, worst first, each tested against all the others.

    Intervals are by group; those of single groups are of their images.

    Args:
        column: its name.
        values: (N,), of each image.
        right: (N,) bool.
        groups: (N,) int64, or None.
    """
    numbers = {name: k for k, name in enumerate(dict.fromkeys(value for value in values if value is not None))}
    value_of = np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int64)
    inside = None if column == GROUP else groups

    def accuracy(some: Bools, by: Ints | None) -> Proportion:
        return proportion(right[some], None if by is None else by[some])

    accuracies, p_values = [], []
    for k in numbers.values():
        own, others = value_of == k, (value_of >= 0) & (value_of != k)
        accuracies.append(accuracy(own, inside))
        p_values.append(_p_worse(accuracies[-1], accuracy(others, groups)) if others.any() else 1.0)
    found = zip(numbers, accuracies, holm(p_values), strict=True)
    rows = [Subgroup(*one) for one in found]
    rows.sort(key=lambda one: (one.accuracy.value, -one.accuracy.count, one.name))
    return Subgroups(column, tuple(rows), int((value_of < 0).sum()))


def _p_worse(own: Proportion, others: Proportion) -> float:
    """Fisher's exact test, one-sided, on counts divided by their design effect; rounded towards no difference.

    Source: Rao and Scott 1992, A simple method for the analysis of clustered binary data, Biometrics 48, pages 577-585.
    """
    from scipy.stats import hypergeom  # late: SciPy takes long to import, and few ask for subgroups

    count, rest = (int(one.effective or one.count) for one in (own, others))
    wrong = int((1 - own.value) * count + _ROUNDING)
    wrong_rest = rest - int(others.value * rest + _ROUNDING)
    return float(hypergeom.sf(wrong - 1, count + rest, wrong + wrong_rest, count))


_ROUNDING = 1e-6
"""So that a whole number of images stays one."""


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values multiplied as Holm 1979 has it, so that a false alarm among all of them is as rare as in one test."""
    order = np.argsort(p_values, kind="stable")
    times = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(times * np.asarray(p_values)[order]), 1.0)
    found = np.empty(len(p_values))
    found[order] = corrected
    return [float(one) for one in found]
