"""Labels that a probe and the nearest images doubt, and images far from all others in feature space.

Northcutt, Jiang and Chuang 2021, Confident learning, JAIR 70, arXiv:1911.00068, by cleanlab, on out-of-fold
probabilities.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relish.checks.images import Bools, Floats, ImageSet, Positions
from relish.data.dataset import Finding
from relish.data.groups import units_of
from relish.data.near_copies import least_of_each
from relish.data.split import NEVER, stratified_folds, usable_folds
from relish.evaluation.held_out import fit_temperature
from relish.evaluation.prediction import probability_of, softmax
from relish.training.linear_probe import cross_validate

FOLDS = 5
FEWEST = 5
"""Distinct images a class needs: with fewer, a probe's probability of one depends on each of the others."""
VOTES = 0.3
"""Weight of the nearest images' labels against the probe's probabilities. Of ten labels changed among 2,000
photographs, the labels with a probability below 0.2 include 8.6 beside 60 others with both, and 8.4 beside 66 with the
probe alone (means of 40 draws); below 0.15 it is 8.2 beside 47, and 8.0 beside 52. With 0.5, or 20 nearest, it is the
same."""
ODDS = 4.6
"""A label is also doubted where another class is so many times as probable: there confident learning, which gives a
class no more doubts than it has images in surplus, stops early (7.9 beside 37 in 20 such draws). Ten draws gave 8.2
beside 50 with 5, 8.4 beside 53 with 4.6, and 8.4 beside 55 with 4.3."""
_LEAST = 1e-6
"""Probabilities are raised to this before their logarithm is taken."""
_TOGETHER = 25_000
"""Images that one probe is cross-validated on: more are divided, which bounds memory and time."""

DISTANCES = 5
"""Nearest others whose mean distance is taken."""
FAR = 3.5
"""Robust standard deviations above the median distance from which an image is off topic."""
FEWEST_IMAGES = 30
"""With fewer, no distance is usual."""
_PER_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Probabilities of images by probes that were not trained on them."""

    positions: Positions
    """(n,) int64, ascending; images of classes with too few images are missing."""
    probabilities: Floats
    """(n, K) float32."""


def out_of_fold(images: ImageSet, features: Floats, nearest: Positions, group_of: Positions) -> OutOfFold | None:
    """Probabilities of every image from a probe trained on neither it, a copy of it nor its known group, and from the
    labels of its nearest others, these excluded.

    Args:
        features: (N, D) float32.
        nearest: (N, k) int64, positions of each image's nearest others; -1 for none.
        group_of: (N,) int64: copies have equal numbers and stay in one fold.

    Returns:
        None where fewer than two classes have `FEWEST` distinct images, or no image can be held out.
    """
    contents = least_of_each(group_of, images.sha256)
    units = units_of(dict(zip(images.paths, contents, strict=True)), images.dataset.groups)
    unit_of = [units[path] for path in images.paths]
    together = np.unique(unit_of, return_inverse=True)[1]
    distinct = np.unique(np.stack([images.labels, group_of], axis=1), axis=0)[:, 0]  # one label a distinct image
    enough = np.bincount(distinct, minlength=len(images.classes)) >= FEWEST
    usable = np.flatnonzero(enough[images.labels])
    if enough.sum() < 2:
        return None
    labels = np.cumsum(enough)[images.labels[usable]] - 1
    parts = _parts(labels, [unit_of[i] for i in usable])
    of_probe = np.zeros((len(usable), len(images.classes)), dtype=np.float32)
    held = np.zeros(len(usable), dtype=bool)
    for part in np.unique(parts):
        where = np.flatnonzero(parts == part)
        keys = [unit_of[usable[i]] for i in where]
        probabilities, out = _cross_validated(features[usable[where]], labels[where], int(enough.sum()), keys)
        of_probe[np.ix_(where[out], np.flatnonzero(enough))] = probabilities
        held[where[out]] = True
    if not held.any():
        return None
    positions, probe = usable[held], of_probe[held].astype(np.float64)
    votes = _votes(images.labels, nearest[positions], together, positions, enough)
    both = np.where(votes.any(1, keepdims=True), (1 - VOTES) * probe + VOTES * votes, probe)
    return OutOfFold(positions, _calibrated(both, images.labels[positions], enough))


def wrong_labels(images: ImageSet, predicted: OutOfFold) -> list[Finding]:
    """A finding for each image whose label confident learning doubts, or where `ODDS` are against it; surest first."""
    from cleanlab.filter import find_label_issues

    given = images.labels[predicted.positions]
    classes = np.unique(given)
    if len(classes) < 2:
        return []
    probabilities = predicted.probabilities[:, classes].astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = np.searchsorted(classes, given)
    doubted = find_label_issues(
        labels, probabilities, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suggested, highest = classes[probabilities.argmax(1)], probabilities.max(1)
    doubted = np.union1d(doubted, np.flatnonzero(highest > ODDS * probability_of(probabilities, labels)))
    doubted = [int(i) for i in doubted if suggested[i] != given[i]]
    return [
        _wrong_label(images, int(predicted.positions[i]), int(suggested[i]), float(highest[i]))
        for i in sorted(doubted, key=lambda i: (-highest[i], images.names[predicted.positions[i]]))
    ]


def labels_not_checked() -> Finding:
    """The finding where `out_of_fold` returns None."""
    return Finding(
        kind="too-few",
        severity="note",
        message=f"Fewer than two classes have {FEWEST} different pictures: labels were not looked at.",
        advice="Look through them yourself; with more pictures the check can help.",
    )


def _wrong_label(images: ImageSet, position: int, suggested: int, probability: float) -> Finding:
    given, other = images.classes[images.labels[position]], images.classes[suggested]
    return Finding(
        kind="wrong-label",
        severity="warning",
        message=f'Labelled "{given}", looks like "{other}" to a model that did not learn from it.',
        advice="Look at it: about half of such suspicions are right. Move it if it is wrong, leave it if it is hard.",
        paths=(images.names[position],),
        given=given,
        suggested=other,
        confidence=round(probability, 4),
    )


def _votes(
    labels: Positions, nearest: Positions, unit_of: Positions, positions: Positions, enough: Bools
) -> npt.NDArray[np.float64]:
    """(n, K) float64: fraction of each class among the nearest others of another unit; rows of 0 where there are none.

    Args:
        nearest: (n, k) int64, of the images at `positions`.
        enough: (K,) bool, the classes with enough images; others have no vote.
    """
    counted = (nearest >= 0) & (unit_of[nearest] != unit_of[positions][:, None]) & enough[labels[nearest]]
    votes = np.zeros((len(positions), len(enough)))
    rows = np.broadcast_to(np.arange(len(positions))[:, None], nearest.shape)
    np.add.at(votes, (rows[counted], labels[nearest][counted]), 1.0)
    fractions: npt.NDArray[np.float64] = votes / np.maximum(votes.sum(1, keepdims=True), 1.0)
    return fractions


def _calibrated(mixed: npt.NDArray[np.float64], labels: Positions, enough: Bools) -> Floats:
    """(n, K) float32 at the best temperature: a mean of two probabilities is less certain than it could be."""
    classes = np.flatnonzero(enough)
    logits = np.log(np.maximum(mixed[:, classes], _LEAST))
    probabilities = np.zeros(mixed.shape, dtype=np.float32)
    probabilities[:, classes] = softmax(logits, fit_temperature(logits, np.searchsorted(classes, labels)))
    return probabilities


def _parts(labels: Positions, units: list[str]) -> Positions:
    """(n,) int64: which images are cross-validated together; each part has every class in proportion."""
    count = math.ceil(len(labels) / _TOGETHER)
    if count < 2:
        return np.zeros(len(labels), dtype=np.int64)
    parts = stratified_folds(labels, units, count, seed=0)
    return np.where(parts == NEVER, 0, parts)


def _cross_validated(features: Floats, labels: Positions, classes: int, units: list[str]) -> tuple[Floats, Bools]:
    """(h, K) probabilities of the images that were held out, and (n,) bool which ones those are."""
    folds = stratified_folds(labels, units, usable_folds(labels, units, FOLDS), seed=0)
    if (folds == NEVER).all():
        return np.zeros((0, classes), dtype=np.float32), folds != NEVER
    found = cross_validate(features, labels, classes, folds)
    return softmax(found.logits).astype(np.float32), found.held


def off_topic(images: ImageSet, cosines: Floats, excluded: Positions) -> list[Finding]:
    """One finding of the images that no others resemble, the farthest first.

    Measured is the mean distance, 1 minus the cosine, to the nearest others that there are. Far is relative to this
    dataset's own distances. A rare but right image is far as well, so this is a note.

    Args:
        cosines: (N, k) float32, see `features.nearest_others`.
        excluded: positions that another finding has already, such as blank ones.

    Source: Kuan and Mueller 2022, Back to the Basics: Revisiting Out-of-Distribution Detection Baselines,
        arXiv:2207.03061, section 3.
    """
    if len(images) < FEWEST_IMAGES:
        return []
    near = np.where(cosines[:, :DISTANCES] < -0.5, np.nan, 1 - cosines[:, :DISTANCES])
    near[np.isnan(near).all(1)] = 0
    distances = np.nanmean(near, axis=1)
    median = np.median(distances)
    deviation = _PER_DEVIATION * np.median(np.abs(distances - median))
    far = np.setdiff1d(np.flatnonzero(distances > median + FAR * max(deviation, 1e-6)), excluded)
    if not len(far):
        return []
    far = far[np.argsort(-distances[far], kind="stable")]
    return [
        Finding(
            kind="off-topic",
            severity="note",
            message=f"{'1 picture is' if len(far) == 1 else f'{len(far):,} pictures are'} unlike all others.",
            advice="Look whether they belong here. A rare but right picture is worth keeping.",
            paths=images.named(far),
        )
    ]
