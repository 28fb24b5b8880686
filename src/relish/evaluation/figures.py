"""Every figure of one evaluation, from the logits of labelled images and the model's decision.

Besides the figures of `metrics.py`: the area under the ROC curve, top-5 accuracy, calibration, the coverage curve, and
the accuracy without the images that have a copy among the training images.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.runtime import rng_for
from relish.data.dataset import Dataset, Finding, Split
from relish.evaluation.grouped import (
    Column,
    GroupKeys,
    Ints,
    Subgroups,
    balanced_by_group,
    by_columns,
    class_proportions,
    drawn_weights,
    effective_images,
    group_numbers,
    proportion,
)
from relish.evaluation.metrics import (
    Estimate,
    Floats,
    Proportion,
    Scores,
    Z,
    balanced_figures,
    percentile_interval,
    predicted_class,
    score,
)
from relish.evaluation.prediction import Decision, probability_of, softmax
from relish.evaluation.thresholds import Answered, CalledUnknown, CoveragePoint, answered, coverage_curve

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
ImageRow = Mapping[str, Any]
"""An image of `dataset.json`: `path`, `class`, `sha256`; `group` and `columns` where they are known."""

TOP = 5
"""The k of top-k accuracy, which is given with more classes than that."""
RESAMPLES = 1000
"""Of the bootstrap of the area under the curve."""
MOST_RESAMPLED = 50_000
"""Images times classes up to which the interval is a bootstrap's."""
_AT_ONCE = 100
"""Resamples computed together, which bounds memory."""
BINS = 15
"""Equally wide bins of confidence, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Calibration:
    """Three figures of how far probabilities are from the labels; 0 is the best value of each."""

    log_loss: float
    """Mean negative log probability of the true class, in nats; guessing evenly among K classes gives log K."""
    brier: float
    """Mean squared distance between the probabilities of all classes and the one-hot label, 0 to 2 (Brier 1950, Monthly
    Weather Review 78, pages 1-3); with two classes, twice the score of one of them."""
    ece: float
    """Expected calibration error, 0 to 1: see `calibration_error`."""


@dataclass(frozen=True)
class Bin:
    """Images of about equal confidence: one mark of a reliability diagram."""

    low: float
    """Confidence above this, up to and including `high`."""
    high: float
    count: int
    """Above 0."""
    confidence: float
    """Mean probability of the likeliest class."""
    accuracy: float
    """Fraction of the images whose likeliest class is the true one."""


def calibration(logits: Logits, probabilities: Floats, labels: Labels, temperature: float = 1.0) -> Calibration:
    """The three figures, from (N, K) logits before the temperature, probabilities after it, and (N,) labels."""
    from scipy.special import logsumexp  # late: SciPy takes long to import, and predicting does without it

    images = np.arange(len(labels))
    # From the logits: a probability may be rounded to 0, whose logarithm is infinite.
    scaled = logits.astype(np.float64) / temperature
    losses = logsumexp(scaled, axis=1) - scaled[images, labels]
    # The squared distance to the one-hot label, expanded.
    distances = np.einsum("nk,nk->n", probabilities, probabilities) - 2 * probabilities[images, labels] + 1
    return Calibration(
        log_loss=float(losses.mean()),
        brier=float(distances.mean()),
        ece=calibration_error(reliability(probabilities, labels)),
    )


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """Images grouped by the probability of their likeliest class, in equally wide bins; empty bins are omitted.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums, hits = (np.bincount(bin_of, values, minlength=bins) for values in (confidence, right.astype(np.float64)))
    return tuple(
        Bin(float(edges[b]), float(edges[b + 1]), int(n), float(sums[b] / n), float(hits[b] / n))
        for b, n in enumerate(counts)
        if n
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """The expected calibration error: mean difference of confidence and accuracy over bins, weighted by their counts.

    It is biased upwards: with few images most of a bin's difference is chance.

    Source: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning, AAAI; in this form Guo
        et al. 2017, arXiv:1706.04599, equation 3.
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total


@dataclass(frozen=True)
class Figures(Scores):
    """Accuracy and what stands beside it, and how well calibrated the probabilities are. Made by `figures`.

    The confusion matrix is of the predicted classes, the threshold applied; images on which the model abstains are
    included.
    """

    likeliest: Proportion
    """The accuracy without the threshold; the same where there is none."""
    balanced_accuracy: Estimate
    macro_f1: Estimate
    auc: Estimate | None
    """None where the images are of one class only."""
    top5: Proportion | None
    """None with five classes or fewer."""
    calibration: Calibration
    """With the model's temperature."""
    before_temperature: Calibration
    """At temperature 1."""
    reliability: tuple[Bin, ...]
    coverage: tuple[CoveragePoint, ...]
    decision: Decision
    answered: Answered | None
    """None where the model never abstains."""
    right: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    """(N,) bool: whether the predicted class of each image is the true one."""
    recall_and_precision: Sequence[tuple[Proportion | None, Proportion | None]] = field(repr=False)
    """Of each class; None where the divisor is 0."""
    subgroups: tuple[Subgroups, ...] = ()
    """Of the columns that were asked for."""
    unknown: CalledUnknown | None = None
    """None where the model calls nothing unknown."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish evaluate --json` prints; plain types, null where a figure has no value."""
        return {
            **super().as_json(),
            "balanced_accuracy": self.balanced_accuracy.as_json(),
            "macro_f1": self.macro_f1.as_json(),
            "auc": self.auc and self.auc.as_json(),
            "top5": self.top5 and self.top5.as_json(),
            **asdict(self.calibration),
            "before_temperature": asdict(self.before_temperature),
            "reliability": [asdict(one) for one in self.reliability],
            "coverage": [asdict(point) for point in self.coverage],
            "decision": asdict(self.decision),
            "answered": self.answered and self.answered.as_json(),
            "unknown": self.unknown and self.unknown.as_json(),
            **({"subgroups": [one.as_json() for one in self.subgroups]} if self.subgroups else {}),
        }


def figures(
    logits: Logits,
    labels: Labels,
    classes: Sequence[str],
    decision: Decision | None = None,
    groups: GroupKeys | None = None,
    unfamiliarity: Logits | None = None,
) -> Figures:
    """Every figure; intervals are by group where groups are known.

    Args:
        logits: (N, K), before any temperature.
        labels: (N,) int64, each an index into `classes`.
        decision: of the model; None: the likeliest class, at temperature 1.
        groups: (N,) keys, None for an image that is a group of its own; or None.
        unfamiliarity: (N,); None where the model cannot say.

    Raises:
        DataError: N is 0.
        Diverged: a logit is NaN or infinite.
    """
    decision = decision or Decision()
    if len(labels) == 0:
        logits = np.zeros((0, len(classes)))  # without images K is unknown to the network; `score` raises
    probabilities = softmax(logits, decision.temperature)
    predicted, unsure = decision.decide(probabilities, classes)
    scores = score(probabilities, labels, classes, predicted)
    right = predicted == labels
    numbers = group_numbers(groups)
    known = None if numbers is None else effective_images(right, numbers)
    if known is not None and known.count == known.images:
        numbers = None  # no two images are of one group
    if numbers is None:
        balanced, macro = balanced_figures(scores)
    else:
        both = scores.mean_recall, scores.mean_f1
        balanced, macro = balanced_by_group(both, labels, predicted, len(classes), numbers)
    return Figures(
        classes=scores.classes,
        confusion=scores.confusion,
        groups=known,
        likeliest=proportion(predicted_class(probabilities) == labels, numbers),
        balanced_accuracy=balanced,
        macro_f1=macro,
        auc=area_under_curve(probabilities, labels, numbers),
        top5=top_k(probabilities, labels, groups=numbers) if len(classes) > TOP else None,
        calibration=calibration(logits, probabilities, labels, decision.temperature),
        before_temperature=calibration(logits, softmax(logits), labels),
        reliability=reliability(probabilities, labels),
        coverage=coverage_curve(probability_of(probabilities, predicted), right),
        decision=decision,
        answered=None if decision.unsure_below is None else answered(right, unsure, numbers),
        right=right,
        recall_and_precision=class_proportions(labels, predicted, len(classes), numbers),
        unknown=called_unknown(decision, unfamiliarity),
    )


def called_unknown(decision: Decision, unfamiliarity: Logits | None) -> CalledUnknown | None:
    """How many images of this unfamiliarity, (N,), are called unknown; None where the model calls nothing so."""
    if unfamiliarity is None or decision.unknown_above is None:
        return None
    return CalledUnknown(int(decision.unknown(unfamiliarity).sum()), len(unfamiliarity), decision.unknown_above)


def split_figures(
    logits: Logits,
    split: Split,
    dataset: Dataset,
    classes: Sequence[str],
    decision: Decision,
    columns: Mapping[str, Column] | None = None,
    unfamiliarity: Logits | None = None,
) -> Figures:
    """As `figures`, by the groups that the dataset knows, with the accuracy by each of the columns.

    Args:
        logits: (N, K), of the split's images.
        columns: of `grouped.columns_of`.
        unfamiliarity: (N,); None where the model cannot say.
    """
    groups = list(map(dataset.groups.get, split.paths))
    found = figures(logits, split.labels, classes, decision, groups, unfamiliarity)
    return replace(found, subgroups=by_columns(columns or {}, found.right, group_numbers(groups)))


def top_k(probabilities: Floats, labels: Labels, k: int = TOP, groups: Ints | None = None) -> Proportion:
    """How often the true class is among the k likeliest of (N, K) probabilities; of equal ones the first counts."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return proportion((likeliest == labels[:, None]).any(1), groups)


def area_under_curve(
    probabilities: Floats, labels: Labels, groups: Ints | None = None, seed: int = 0
) -> Estimate | None:
    """The area under the ROC curve with its interval; None where the images are of one class only.

    It is how often an image of a class gets a higher probability of it than an image of another class: 0.5 is guessing,
    1 the best. With more than two classes it is the mean over the classes, each against the rest (Provost and Domingos
    2000; scikit-learn's `multi_class="ovr", average="macro"`).

    The interval is the percentile interval of a bootstrap stratified by class; with many images, where a bootstrap is
    slow and comes to the same, the normal interval with DeLong's variance. Both go by group where groups are known.

    Args:
        probabilities: (N, K) float64.
        labels: (N,) int64. Classes without images are left out of the mean.
        groups: (N,) int64, or None.
        seed: of the bootstrap.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, pages 837-845; by group Obuchowski 1997, Biometrics
        53, pages 567-578.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    # Of two classes, one's area is the other's.
    scored = present[-1:] if probabilities.shape[1] == 2 else present
    areas, parts = np.zeros(len(scored)), np.zeros(len(labels))
    for index, k in enumerate(scored):
        areas[index], placements = _placements(probabilities[:, k], labels == k)
        parts += placements / len(scored)
    value = float(areas.mean())
    if len(labels) * len(scored) <= MOST_RESAMPLED:
        resampled = _resampled_areas(probabilities[:, scored], labels, scored, groups, seed)
        return Estimate(value, percentile_interval(resampled))
    for k in present:
        parts[labels == k] -= parts[labels == k].mean()
    sums = parts if groups is None else np.bincount(groups, weights=parts)
    error = np.sqrt((sums**2).sum())
    return Estimate(value, (float(max(value - Z * error, 0.0)), float(min(value + Z * error, 1.0))))


def _placements(scores: Floats, positive: Bools) -> tuple[float, Floats]:
    """The area of one class, and each image's part of it, (N,): the mean over its side (the class, or the others) of
    the fraction of the other side that it is ranked right against. By midranks."""
    from scipy.stats import rankdata  # late, as above

    ranks, parts = rankdata(scores), np.empty(len(scores))
    inside, outside = int(positive.sum()), int((~positive).sum())
    above = ranks[positive] - rankdata(scores[positive])  # others ranked below each image of the class
    below = ranks[~positive] - rankdata(scores[~positive])  # images of the class ranked below each other
    parts[positive] = above / outside / inside
    parts[~positive] = (1 - below / inside) / outside
    return float(np.sort(parts[positive]).sum()), parts  # sorted: the same sum in whatever order the images come


def _resampled_areas(scores: Floats, labels: Labels, scored: Labels, groups: Ints | None, seed: int) -> Floats:
    """(R,) mean areas of resamples, class by class."""
    if groups is None:
        draws = _drawn_images(labels, seed)
    else:
        draws = (weights[:, groups] for weights in drawn_weights(labels, groups, RESAMPLES, seed, "area by group"))
    areas = [np.mean([_weighted_areas(scores[:, i], labels == k, t) for i, k in enumerate(scored)], 0) for t in draws]
    return np.concatenate(areas)


def _drawn_images(labels: Labels, seed: int) -> Iterator[Floats]:
    """How often each image counts in each resample, (R, N) at a time; drawn within each class."""
    rng = rng_for(seed, "area")
    for _ in range(0, RESAMPLES, _AT_ONCE):
        times = np.zeros((_AT_ONCE, len(labels)))
        for k in np.unique(labels):
            (of_class,) = np.nonzero(labels == k)
            even = np.full(len(of_class), 1 / len(of_class))
            times[:, of_class] = rng.multinomial(len(of_class), even, size=_AT_ONCE)
        yield times


def _weighted_areas(scores: Floats, positive: Bools, times: Floats) -> Floats:
    """(R,) areas of one class where each image counts `times`, (R, N); equal scores count half. All resamples at once:
    scikit-learn's `roc_auc_score` with weights takes one resample a call."""
    order = np.argsort(scores, kind="stable")
    (starts,) = np.nonzero(np.diff(scores[order], prepend=-np.inf))
    inside = np.add.reduceat(times[:, order] * positive[order], starts, axis=1)  # (R, distinct scores)
    outside = np.add.reduceat(times[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(outside, axis=1) - outside / 2
    pairs = inside.sum(1) * outside.sum(1)
    # Of groups with images of several classes a resample may lack one side, and then says nothing.
    areas: Floats = np.divide((inside * below).sum(1), pairs, out=np.full(len(times), 0.5), where=pairs > 0)
    return areas


def without_duplicates(
    findings: Iterable[Finding], trained: Sequence[ImageRow], evaluated: Sequence[ImageRow], right: Bools
) -> dict[str, Any] | None:
    """The accuracy without images that a model may have memorised; None where every evaluated image has a copy.

    Args:
        findings: of every kind; duplicates across splits are used. Equal files are known without them.
        trained, evaluated: images as `dataset.json` lists them.
        right: (N,) bool, of the evaluated ones, in their order.

    Returns:
        The accuracy, by group where the rows know groups, as `Proportion.as_json` has it, and `left_out`, the count of
        evaluated images that have a copy.
    """
    paths, files = {row["path"] for row in trained}, {row["sha256"] for row in trained}
    copies: set[str] = set()
    for finding in findings:
        if finding.kind in ("exact-duplicate", "near-duplicate") and paths.intersection(finding.paths):
            copies.update(finding.paths)
    fresh = np.array([row["path"] not in copies and row["sha256"] not in files for row in evaluated], dtype=np.bool_)
    if not fresh.any():
        return None
    groups = group_numbers([row.get("group") for row in evaluated])
    found = proportion(right[fresh], None if groups is None else groups[fresh])
    return {**found.as_json(), "left_out": len(evaluated) - found.count}
