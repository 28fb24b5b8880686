"""Which 95% interval of an accuracy covers where images come in groups, and which paired test keeps its size.

    python benchmarks/group_coverage.py [--draws 2000]

Groups have accuracies of their own, drawn from a beta or a logit-normal distribution, and each image is right with the
accuracy of its group. An interval should hold the mean of the distribution in 95% of the draws. Sizes are 10 images
each, or log-normal from 1 to some 150 images. Compared are Wilson's interval of all images (`plain`), what relish
prints (`relish`), Student's t over groups with the linearised standard error (`t`), the percentiles of a bootstrap that
draws groups (`bootstrap`), and Korn and Graubard's 1998 interval (`KG`).

The second table is of two classifiers that are equally good: how often a test at 0.05 says otherwise, and how often it
finds 5 points of difference. McNemar's exact test on images (`plain`), Obuchowski 1998, Durkalski et al. 2003, and
relish's sign test over groups. In rows `unlike`, one classifier's errors come in groups and the other's do not.

Writes `results/group_coverage.json`; takes some minutes.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from measuring import finish
from relish.evaluation.grouped import effective_counts
from relish.evaluation.metrics import Z, wilson
from relish.evaluation.significance import mcnemar

GROUPS, ACCURACIES = (40, 80, 200), (0.6, 0.8, 0.9, 0.95, 0.98)
EFFECTS = {"beta": (0.05, 0.1, 0.3, 0.6), "logit-normal": (0.5, 1.0, 2.0)}
"""Of a beta the correlation within a group; of a logit-normal the standard deviation in logits."""
RESAMPLES = 500
NAMES = ("plain", "relish", "t", "bootstrap", "KG")
TESTS = ("plain", "relish", "Obuchowski", "Durkalski")


def group_sizes(kind: str, count: int) -> np.ndarray:
    """(G,) images of each group."""
    if kind == "even":
        return np.full(count, 10)
    at = (np.arange(count) + 0.5) / count
    return np.maximum(1, np.round(np.exp(np.log(6) + 1.2 * stats.norm.ppf(at)))).astype(int)


@cache
def centre(accuracy: float, sd: float) -> float:
    """The logit around which a logit-normal has this mean."""
    at, weights = np.polynomial.hermite_e.hermegauss(80)
    return brentq(lambda mu: (weights / (1 + np.exp(-mu - sd * at))).sum() / weights.sum() - accuracy, -9, 20)


def drawn(rng: np.random.Generator, kind: str, effect: float, accuracy: float, shape: tuple[int, int]) -> np.ndarray:
    """Accuracies of groups, (draws, G)."""
    if kind == "beta":
        both = 1 / effect - 1
        return rng.beta(accuracy * both, (1 - accuracy) * both, shape)
    return 1 / (1 + np.exp(-centre(accuracy, effect) - effect * rng.standard_normal(shape)))


def intervals(rng: np.random.Generator, hits: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The ends of each interval, (draws, 2)."""
    count, groups, share = sizes.sum(), len(sizes), hits.sum(1) / sizes.sum()
    yield "plain", np.array([wilson(one * count, count) for one in share])
    effective = effective_counts(hits, sizes.astype(float))
    yield "relish", np.array([wilson(s * n, n) for s, n in zip(share, effective, strict=True)])
    variance = groups / (groups - 1) * ((hits - share[:, None] * sizes) ** 2).sum(1) / count**2
    reach = stats.t.ppf(0.975, groups - 1) * np.sqrt(variance)
    yield "t", np.stack([share - reach, share + reach], 1)
    times = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)  # (R, G)
    yield "bootstrap", np.quantile((hits @ times.T) / (sizes @ times.T), (0.025, 0.975), axis=1).T
    plain = share * (1 - share) / count
    n = np.divide(plain, variance, out=np.ones_like(plain), where=variance > 0) * count
    n = np.minimum(n, count) * (stats.t.ppf(0.975, count - 1) / stats.t.ppf(0.975, groups - 1)) ** 2
    low = np.where(share > 0, stats.beta.ppf(0.025, share * n, n - share * n + 1), 0)
    yield "KG", np.stack([low, np.where(share < 1, stats.beta.ppf(0.975, share * n + 1, n - share * n), 1)], 1)


def coverage(draws: int) -> list[dict[str, object]]:
    """One row a case: what was drawn, and how often each interval covers."""
    rows, effects = [], [(kind, one) for kind, some in EFFECTS.items() for one in some]
    for case in product(("even", "uneven"), GROUPS, effects, ACCURACIES):
        sizes_kind, groups, (kind, effect), accuracy = case
        rng = np.random.default_rng([int(1000 * accuracy), groups, int(100 * effect), len(kind)])
        sizes = group_sizes(sizes_kind, groups)
        hits = rng.binomial(sizes, drawn(rng, kind, effect, accuracy, (draws, groups)))
        found = dict(intervals(rng, hits, sizes))
        covered = {name: float(np.mean((e[:, 0] <= accuracy) & (accuracy <= e[:, 1]))) for name, e in found.items()}
        row = {"sizes": sizes_kind, "groups": groups, "drawn": kind, "effect": effect, "accuracy": accuracy}
        rows.append({**row, **covered})
    return rows


def paired(draws: int) -> list[dict[str, object]]:
    """How often each paired test says that two classifiers differ."""
    rows = []
    for kind, groups, gap, alike in product(("even", "uneven"), (5, 10, 20, 40, 100), (0.0, 0.05), (True, False)):
        rng, sizes, said = np.random.default_rng([groups, int(100 * gap), alike]), group_sizes(kind, groups), []
        numbers = np.repeat(np.arange(groups), sizes)
        for _ in range(draws):
            one = drawn(rng, "beta", 0.3, 0.85 + gap, (1, groups))[0]
            other = drawn(rng, "beta", 0.3 if alike else 0.01, 0.85, (1, groups))[0]
            first, second = (rng.random(len(numbers)) < of[numbers] for of in (one, other))
            ahead = np.bincount(numbers, weights=first.astype(int) - second)
            statistics = [ahead.sum() ** 2 / max((ahead**2).sum() * groups / (groups - 1), 1e-9)]
            statistics.append((ahead / sizes).sum() ** 2 / max(((ahead / sizes) ** 2).sum(), 1e-9))
            tests = [mcnemar(first, second).differs, mcnemar(first, second, numbers).differs]
            said.append([*tests, *(one > Z**2 for one in statistics)])
        shares = dict(zip(TESTS, np.mean(said, 0).tolist(), strict=True))
        row = {"sizes": kind, "groups": groups, "gap": gap, "errors": "alike" if alike else "unlike"}
        rows.append({**row, **shares})
    return rows


def summary(rows: list[dict[str, object]]) -> list[list[str]]:
    """By sizes and count of groups: the mean coverage over the cases, the lowest, the highest, and cases in 93-97%."""
    table = [["groups", "cases", *NAMES]]
    for kind, groups in product(("even", "uneven"), GROUPS):
        some, cells = [row for row in rows if (row["sizes"], row["groups"]) == (kind, groups)], []
        for name in NAMES:
            found = [100 * row[name] for row in some]
            within = sum(93 <= one <= 97 for one in found)
            cells.append(f"{np.mean(found):.1f} ({min(found):.1f}–{max(found):.1f}), {within} within")
        table.append([f"{groups} {kind}", str(len(some)), *cells])
    return table


def paired_summary(rows: list[dict[str, object]]) -> list[list[str]]:
    """By sizes and count of groups: false alarms with errors alike and unlike, then how often 5 points are found."""
    table = [["groups", *TESTS]]
    for kind, groups in product(("even", "uneven"), (5, 10, 20, 40, 100)):
        some = [row for row in rows if (row["sizes"], row["groups"]) == (kind, groups)]
        cells = []
        for name in TESTS:
            false, found = ([f"{row[name]:.3f}" for row in some if (row["gap"] > 0) is gap] for gap in (False, True))
            cells.append(f"{', '.join(false)}; {', '.join(found)}")
        table.append([f"{groups} {kind}", *cells])
    return table


def main() -> None:
    """Print both tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    asked = parser.parse_args()
    command = f"python benchmarks/group_coverage.py --draws {asked.draws}"
    rows, tests = coverage(asked.draws), paired(asked.draws)
    of = f"{asked.draws:,} draws a case"
    finish("group_coverage_paired", command, tests, paired_summary(tests), of=of)
    finish("group_coverage", command, rows, summary(rows), of=of)


if __name__ == "__main__":
    main()
