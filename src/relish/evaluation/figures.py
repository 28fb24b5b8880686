"""Every figure of one evaluation, from the logits of labelled images and the model's decision.

Besides the figures of `metrics.py`: the area under the ROC curve, top-5 accuracy, calibration, the coverage curve, and
the accuracy without the images that have a copy among the training images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.runtime import rng_for
from relish.data.dataset import Finding
from relish.evaluation.calibration import Bin, Calibration, calibration, reliability
from relish.evaluation.metrics import (
    ClassScores,
    Estimate,
    Floats,
    Proportion,
    Scores,
    Z,
    balanced_figures,
    percentiles,
    said_class,
    score,
)
from relish.evaluation.prediction import Decision, tempered_softmax
from relish.evaluation.thresholds import Answered, CoveragePoint, answered, coverage_curve


@dataclass(frozen=True)
class Figures:
    """How good a model is, and how far its probabilities can be believed. Made by `figures`."""

    scores: Scores
    """Of the classes that the model says, its threshold applied, unsure answers included."""
    likeliest: Proportion
    """The accuracy that saying the likeliest class would have; the same where there is no threshold."""
    balanced_accuracy: Estimate
    macro_f1: Estimate
    auc: Estimate | None
    """None where there are pictures of one class alone."""
    top5: Proportion | None
    """None where there are not more than five classes."""
    calibration: Calibration
    """With the model's temperature."""
    before_temperature: Calibration
    """At temperature 1."""
    reliability: tuple[Bin, ...]
    coverage: tuple[CoveragePoint, ...]
    decision: Decision
    answered: Answered | None
    """None where the model is never unsure."""
    right: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    """(N,) bool: whether the class that is said is the true one, picture by picture."""

    @property
    def top1(self) -> Proportion:
        """The accuracy."""
        return self.scores.top1

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.scores.classes

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Precision, recall and F1 of every class."""
        return self.scores.per_class

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """A row is the true class, a column the one that was said."""
        return self.scores.confusion

    def sentence(self) -> str:
        """The accuracy in words."""
        return self.scores.sentence()

    def as_json(self) -> dict[str, Any]:
        """The document that `relish evaluate --json` prints; plain types, null where a figure has no value."""
        return {
            **self.scores.as_json(),
            "balanced_accuracy": self.balanced_accuracy.as_json(),
            "macro_f1": self.macro_f1.as_json(),
            "auc": self.auc and self.auc.as_json(),
            "top5": self.top5 and self.top5.as_json(),
            **self.calibration.as_json(),
            "before_temperature": self.before_temperature.as_json(),
            "reliability": [one.as_json() for one in self.reliability],
            "coverage": [point.as_json() for point in self.coverage],
            "decision": asdict(self.decision),
            "answered": self.answered and self.answered.as_json(),
        }


def figures(
    logits: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    decision: Decision | None = None,
) -> Figures:
    """Every figure.

    Args:
        logits: (N, K), before any temperature.
        labels: (N,) int64, each an index into `classes`.
        decision: how the model turns them into answers; None: the likeliest class, at temperature 1.

    Raises:
        DataError: there is no picture to score.
        Diverged: a logit is not a number.
    """
    decision = decision or Decision()
    if len(labels) == 0:
        logits = np.zeros((0, len(classes)))  # nothing came back from no picture; `score` says so
    probabilities = tempered_softmax(logits, decision.temperature)
    said, unsure = decision.decide(probabilities, classes)
    scores = score(probabilities, labels, classes, said)
    balanced, macro = balanced_figures(scores)
    right = said == labels
    return Figures(
        scores=scores,
        likeliest=Proportion(int((said_class(probabilities) == labels).sum()), len(labels)),
        balanced_accuracy=balanced,
        macro_f1=macro,
        auc=area_under_curve(probabilities, labels),
        top5=top_k(probabilities, labels) if len(classes) > TOP else None,
        calibration=calibration(logits, probabilities, labels, decision.temperature),
        before_temperature=calibration(logits, tempered_softmax(logits, 1.0), labels),
        reliability=reliability(probabilities, labels),
        coverage=coverage_curve(probabilities[np.arange(len(said)), said], right),
        decision=decision,
        answered=None if decision.unsure_below is None else answered(right, unsure),
        right=right,
    )


TOP = 5
"""The k of top-k; it means little where there are not more classes than that."""
DRAWS = 1000
"""Of the bootstrap."""
MOST_DRAWN = 50_000
"""Pictures times classes up to which the interval is a bootstrap's; beyond it is the one that a bootstrap comes to."""
_AT_ONCE = 100

Labels = npt.NDArray[np.int64]


def top_k(probabilities: Floats, labels: Labels, k: int = TOP) -> Proportion:
    """How often the true class is among the k likeliest; of equal probabilities the first class counts.

    Args:
        probabilities: (N, K) float64.
        labels: (N,) int64.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before = (probabilities > own) | ((probabilities == own) & earlier)
    return Proportion(int((before.sum(1) < k).sum()), len(labels))


def area_under_curve(probabilities: Floats, labels: Labels, seed: int = 0) -> Estimate | None:
    """The area under the ROC curve with its interval; None where there are pictures of one class alone.

    The interval is that of a bootstrap stratified by class, of percentiles; for many pictures the normal interval with
    the variance of the placements, which is what the bootstrap's comes to.

    Args:
        probabilities: (N, K) float64.
        labels: (N,) int64. Classes without pictures are left out of the mean.
        seed: the only source of chance here.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, pages 837-845.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    # Of two classes, one's area is the other's.
    judged = present[-1:] if probabilities.shape[1] == 2 else present
    areas, parts = np.zeros(len(judged)), np.zeros(len(labels))
    for number, k in enumerate(judged):
        areas[number], placed = _placements(probabilities[:, k], labels == k)
        parts += placed / len(judged)
    value = float(areas.mean())
    if len(labels) * len(judged) <= MOST_DRAWN:
        return Estimate(value, percentiles(_drawn(probabilities[:, judged], labels, judged, seed)))
    spread = np.sqrt(sum((labels == k).sum() * parts[labels == k].var() for k in present))
    return Estimate(value, (float(max(value - Z * spread, 0.0)), float(min(value + Z * spread, 1.0))))


def _placements(scores: Floats, own: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """The area of one class, and what each picture adds to it, (N,): its share of the others it is on the right side
    of, over the pictures of its side."""
    (inside,), (outside,) = np.nonzero(own), np.nonzero(~own)
    order = inside[np.argsort(scores[inside])]
    below, up_to = (np.searchsorted(scores[order], scores[outside], side=side) for side in ("left", "right"))
    parts = np.empty(len(scores))
    parts[outside] = (1 - (below + up_to) / 2 / len(inside)) / len(outside)
    # An other lies below the i-th of the class where at most i of the class lie below it, or are its equal.
    passed, met = (np.cumsum(np.bincount(n, minlength=len(inside) + 1))[:-1] for n in (up_to, below))
    parts[order] = (passed + met) / 2 / len(outside) / len(inside)
    return float(parts[order].sum()), parts


def _drawn(scores: Floats, labels: Labels, judged: Labels, seed: int) -> Floats:
    """(D,) areas of pictures drawn again, class by class."""
    chance, found = rng_for(seed, "area"), np.zeros(DRAWS)
    for start in range(0, DRAWS, _AT_ONCE):
        times = np.zeros((_AT_ONCE, len(labels)))
        for k in np.unique(labels):
            (where,) = np.nonzero(labels == k)
            times[:, where] = chance.multinomial(len(where), np.full(len(where), 1 / len(where)), size=_AT_ONCE)
        areas = [_weighted_area(scores[:, i], labels == k, times) for i, k in enumerate(judged)]
        found[start : start + _AT_ONCE] = np.mean(areas, axis=0)
    return found


def _weighted_area(scores: Floats, own: npt.NDArray[np.bool_], times: Floats) -> Floats:
    """(D,) areas where each picture counts so many times, (D, N); equal scores count half."""
    order = np.argsort(scores, kind="stable")
    (starts,) = np.nonzero(np.diff(scores[order], prepend=-np.inf))
    inside = np.add.reduceat(times[:, order] * own[order], starts, axis=1)  # (D, different scores)
    outside = np.add.reduceat(times[:, order] * ~own[order], starts, axis=1)
    below = np.cumsum(outside, axis=1) - outside / 2
    area: Floats = (inside * below).sum(1) / (own.sum() * (~own).sum())
    return area


Row = Mapping[str, str]
"""A picture of `dataset.json`: `path`, `class`, `sha256`."""


@dataclass(frozen=True)
class WithoutDuplicates:
    """Accuracy on the judged pictures that have no copy among those learned from."""

    right: Proportion
    left_out: int
    """Pictures that have one."""

    def as_json(self) -> dict[str, Any]:
        """The proportion, and `left_out`."""
        return {**self.right.as_json(), "left_out": self.left_out}


def without_duplicates(
    findings: Iterable[Finding], learned: Sequence[Row], judged: Sequence[Row], right: npt.NDArray[np.bool_]
) -> WithoutDuplicates | None:
    """Count again without the copies; None where every judged picture has one.

    Args:
        findings: of every kind; those that are read are duplicates across splits. Equal files are known without them.
        learned, judged: pictures as `dataset.json` lists them.
        right: (N,) bool, of the judged ones, in their order.
    """
    paths, files = {row["path"] for row in learned}, {row["sha256"] for row in learned}
    copies: set[str] = set()
    for finding in findings:
        if finding.kind in ("exact-duplicate", "near-duplicate") and paths.intersection(finding.paths):
            copies.update(finding.paths)
    fresh = np.array([row["path"] not in copies and row["sha256"] not in files for row in judged], dtype=np.bool_)
    count = int(fresh.sum())
    if count == 0:
        return None
    return WithoutDuplicates(Proportion(int((right & fresh).sum()), count), len(judged) - count)
