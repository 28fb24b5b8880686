"""Accuracy where images come in groups (of one scene, patient, camera): its interval, and accuracy by group or column.

Images of a group are right or wrong together more often than images of two groups, so they prove less than as many
independent ones. An accuracy's interval is Wilson's with fewer images: their count divided by the design effect, which
is measured from how often two images of a group are right together. Other figures have a bootstrap that draws groups.
Which interval covers was measured by `benchmarks/group_coverage.py`.

Each value of a column is tested against all others together. Of many values one looks bad by chance, so the p-values
are corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6, pages 65-70).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError, nearest
from relish.core.runtime import rng_for
from relish.data.dataset import Dataset, Split, first_few
from relish.data.groups import GROUP
from relish.evaluation.metrics import LEVEL, RESAMPLES, Estimate, Floats, Groups, Proportion, percentile_interval
from relish.evaluation.significance import SIGNIFICANT, p_words

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
GroupKeys = Sequence[str | None]
"""One key an image; None: the image is a group of its own."""

_AT_ONCE = 100
"""Resamples computed together, which bounds memory."""
_TYPICAL = 0.1
"""A correlation within groups for which the weights of large and small groups are best."""
_IMAGINARY = 0.5
"""Wrong images added; by simulation. With none the interval is too narrow near 1, with one too wide."""


def group_numbers(keys: GroupKeys | None) -> Ints | None:
    """The group of each image as a number, (N,) int64 from 0; None where no group is known."""
    if keys is None or all(key is None for key in keys):
        return None
    numbers: dict[object, int] = {}
    # A position is no key, so an image without a group shares its number with none.
    found = [numbers.setdefault(i if key is None else key, len(numbers)) for i, key in enumerate(keys)]
    return np.array(found, dtype=np.int64)


def proportion(right: Bools, groups: Ints | None) -> Proportion:
    """How many of (N,) are right, N above 0, with its interval by group where (N,) groups are known."""
    effective = None if groups is None else effective_images(right, groups).effective
    return Proportion(int(right.sum()), len(right), effective)


def effective_images(right: Bools, groups: Ints) -> Groups:
    """How many independent images would give as wide an interval as these.

    Args:
        right: (N,) bool, N above 0.
        groups: (N,) int64, from 0; numbers may be missing.
    """
    sizes, hits = np.bincount(groups), np.bincount(groups, weights=right)
    known = sizes > 0
    found = effective_counts(*(counts[known].astype(np.float64) for counts in (hits, sizes)))
    return Groups(len(right), int(known.sum()), float(found))


def effective_counts(hits: Floats, sizes: Floats) -> Floats:
    """The number of independent images that come to as wide an interval, above 0 to the sum of `sizes`.

    It is the count of images over Kish's design effect, 1 + (m - 1) * r, where m is the mean size of an image's group
    and r the correlation of two images of a group: whether both are right, or both wrong, more often than chance has
    it. Half an imaginary wrong image is counted with the others, whose whole group is wrong with it: where few or none
    are wrong, they do not show how alike the images of a group are. As few groups say little of it, Student's t takes
    the normal quantile's place, as in Korn and Graubard 1998, Survey Methodology 24, pages 193-201.

    Args:
        hits: (..., G), the images of each group that are right.
        sizes: (G,), above 0.

    Source: Kish 1965, Survey Sampling, section 5.4.
    """
    from scipy.special import stdtrit  # late: SciPy takes long to import, and few datasets have groups

    count, groups, several = sizes.sum(), len(sizes), sizes > 1
    if not several.any():
        return np.full(hits.shape[:-1], count)
    share = hits.sum(-1, keepdims=True) / count
    right, of = hits[..., several], sizes[several]
    # A large group draws the mean towards itself, and so looks nearer to it than it is.
    apart = (right - share * of) ** 2 / np.maximum(1 - of / count, 1 / groups)
    pairs = apart - right * (1 - share) ** 2 - (of - right) * share**2  # summed products of two images' errors
    # The weight of a group's mean product grows as its pairs where these are few, and no more where they are many.
    weights = of * (of - 1) / (1 + (of - 1) * _TYPICAL) ** 2
    alike = (weights * pairs / (of * (of - 1))).sum(-1)
    chance, imaginary = weights.sum() * (share * (1 - share))[..., 0], _IMAGINARY * weights.sum() / count
    correlation = np.clip((alike + imaginary) / (chance + imaginary), 0.0, 1.0)
    effect = 1 + ((sizes**2).sum() / count - 1) * correlation
    by_groups, by_images = stdtrit(np.array([max(groups, 2) - 1, count - 1]), (1 + LEVEL) / 2)
    found: Floats = count / effect * (by_images / by_groups) ** 2
    return found


def class_proportions(
    labels: Ints, predicted: Ints, classes: int, groups: Ints | None
) -> list[tuple[Proportion | None, Proportion | None]]:
    """Recall and precision of each class, by group; None where the class has no images, or is never predicted.

    Args:
        labels, predicted: (N,) int64, below `classes`.
        groups: (N,) int64, or None.
    """
    right = labels == predicted

    def of(some: Bools) -> Proportion | None:
        return proportion(right[some], None if groups is None else groups[some]) if some.any() else None

    return [(of(labels == k), of(predicted == k)) for k in range(classes)]


# ---- the bootstrap --------------------------------------------------------------------------------------------------


def drawn_weights(labels: Ints, groups: Ints, resamples: int, seed: int, purpose: str) -> Iterator[Floats]:
    """How often each group counts in each resample, (R, G) at a time.

    Groups are drawn within their class where each lies within one, else all together. Of n groups n - 1 are drawn, and
    each counts n / (n - 1) times, so that a figure varies as it should where a class has but two or three groups. A
    class of a single group is always drawn.

    Source: Rao, Wu and Yue 1992, Survey Methodology 18, pages 209-217, section 2.

    Args:
        labels, groups: (N,) int64.
        resamples: a multiple of 100.
        seed, purpose: of the draws.
    """
    rng, count = rng_for(seed, purpose), int(groups.max()) + 1
    class_of = np.full(count, -1)
    class_of[groups] = labels
    if (class_of[groups] != labels).any():
        class_of[class_of >= 0] = 0
    for _ in range(0, resamples, _AT_ONCE):
        weights = np.ones((_AT_ONCE, count))
        for k in np.unique(class_of[class_of >= 0]):
            (among,) = np.nonzero(class_of == k)
            if (n := len(among)) > 1:
                weights[:, among] = rng.multinomial(n - 1, np.full(n, 1 / n), size=_AT_ONCE) * (n / (n - 1))
        yield weights


def balanced_by_group(
    values: tuple[float, float], labels: Ints, predicted: Ints, classes: int, groups: Ints, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Balanced accuracy and macro-F1 with the intervals of a bootstrap that draws groups.

    Args:
        values: the two figures.
        labels, predicted: (N,) int64, below `classes`.
        groups: (N,) int64.
        seed: of the bootstrap.
    """
    from scipy.sparse import coo_matrix  # late, as above

    shape, right = (int(groups.max()) + 1, classes), labels == predicted
    tables = [
        coo_matrix((ones, (groups, of)), shape=shape).tocsr().T  # (K, G): images of each class in each group
        for ones, of in (
            (right.astype(float), labels),
            (np.ones(len(labels)), labels),
            (np.ones(len(labels)), predicted),
        )
    ]
    balanced, macro = [], []
    for weights in drawn_weights(labels, groups, RESAMPLES, seed, "bootstrap by group"):
        hits, counts, said = (table @ weights.T for table in tables)  # (K, R)
        present = counts > 0  # of groups with images of several classes, a resample may lack one
        recall = np.divide(hits, counts, out=np.zeros_like(hits), where=present)
        f1 = np.divide(2 * hits, counts + said, out=np.zeros_like(hits), where=present)
        balanced.append(recall.sum(0) / present.sum(0))
        macro.append(f1.sum(0) / present.sum(0))
    return (
        Estimate(values[0], percentile_interval(np.concatenate(balanced))),
        Estimate(values[1], percentile_interval(np.concatenate(macro))),
    )


# ---- accuracy by the values of a column -----------------------------------------------------------------------------


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
        return self.p_value < SIGNIFICANT


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
    from scipy.stats import hypergeom  # late, as above

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
