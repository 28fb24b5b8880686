"""Labels that a probe and the nearest images doubt, and images far from all others in feature space.

Labels: Northcutt, Jiang and Chuang 2021, Confident learning, JAIR 70, arXiv:1911.00068, by cleanlab, on out-of-fold
probabilities.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relish.checks.images import Collection, Positions
from relish.data.dataset import Finding
from relish.data.split import NEVER, stratified_folds, usable_folds
from relish.evaluation.calibration import fit_temperature
from relish.evaluation.prediction import softmax
from relish.training.linear_probe import cross_validate

Floats = npt.NDArray[np.float32]

CELL = 2000
"""Pictures that a cell holds on average; up to four times as many are compared without cells."""
_CELLS_LOOKED_IN = 3
_LEARNED_FROM = 20_000
"""Pictures that the centres are learned from."""


def directions(features: Floats) -> Floats:
    """(N, D) float32 of length 1, so that a product of two rows is their cosine."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    found: Floats = features / np.maximum(lengths, np.float32(1e-12))
    return found


def nearest_others(directed: Floats, count: int) -> tuple[Positions, Floats]:
    """Each picture's nearest others, nearest first.

    Args:
        directed: (N, D) float32 of length 1, see `directions`; N is 2 or more.
        count: how many, at most N - 1.

    Returns:
        (N, count) int64 positions, -1 where a cell holds fewer; (N, count) float32 cosines, -1 there.
    """
    from sklearn.neighbors import NearestNeighbors  # late, as below: the brief checks do without scikit-learn

    positions = np.full((len(directed), count), -1, dtype=np.int64)
    cosines = np.full((len(directed), count), -1.0, dtype=np.float32)
    if not count:
        return positions, cosines
    for mine, held in _cells(directed):
        few = min(count + 1, len(held))
        distances, found = (
            NearestNeighbors(n_neighbors=few, algorithm="brute").fit(directed[held]).kneighbors(directed[mine])
        )
        others = held[found] != mine[:, None]
        others[others.all(1), -1] = False  # among many equal ones it may not be met itself
        positions[mine, : few - 1] = held[found][others].reshape(len(mine), few - 1)
        cosines[mine, : few - 1] = 1 - distances[others].reshape(len(mine), few - 1) ** 2 / 2
    return positions, cosines


def _cells(directed: Floats) -> Iterator[tuple[Positions, Positions]]:
    """For each cell the pictures in it, and those that they are compared with."""
    everything = np.arange(len(directed))
    if len(directed) <= 4 * CELL:
        yield everything, everything
        return
    from sklearn.cluster import MiniBatchKMeans

    chance = np.random.RandomState(0)
    some = chance.permutation(len(directed))[:_LEARNED_FROM]
    means = MiniBatchKMeans(len(directed) // CELL, random_state=chance, n_init=1, batch_size=4096).fit(directed[some])
    near = np.argsort(means.transform(directed), axis=1)[:, :_CELLS_LOOKED_IN]  # (N, 3)
    for cell in range(means.n_clusters):
        mine = np.flatnonzero(near[:, 0] == cell)
        if len(mine):
            yield mine, np.flatnonzero((near == cell).any(1))


FOLDS = 5
FEWEST = 5
"""Different pictures a class needs: with fewer, what a probe says of one hangs on the others one by one."""
VOTES = 0.3
"""Weight of the nearest pictures' labels against the probe's probabilities. Of ten labels turned among 2,000
photographs, those given less than 0.2 hold 8.6 beside 60 others with both, and 8.4 beside 66 with the probe alone
(means of 40 draws); below 0.15 it is 8.2 beside 47, and 8.0 beside 52. With 0.5, or 20 nearest, it is the same."""
ODDS = 4.6
"""A label is also doubted where another class is so many times as probable: there confident learning, which gives a
class no more doubts than it has pictures in surplus, stops early (7.9 beside 37 in 20 such draws). Ten draws gave 8.2
beside 50 with 5, 8.4 beside 53 with 4.6, and 8.4 beside 55 with 4.3."""
_LEAST = 1e-6
"""Probability that a class has at least, so that it has a logarithm."""
_TOGETHER = 25_000
"""Pictures that one probe is cross-validated on: more are divided, which bounds memory and time."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What probes say of pictures they did not learn from."""

    positions: Positions
    """(n,) int64: the pictures judged, ascending; those of classes with too few pictures are not."""
    probabilities: Floats
    """(n, K) float32."""


def judged(pictures: Collection, features: Floats, nearest: Positions, group_of: Positions) -> Judged | None:
    """Probabilities for every picture from a probe that learned neither from it nor from a copy of it, and from the
    labels of its nearest others, copies left out.

    Args:
        features: (N, D) float32.
        nearest: (N, k) int64, positions of each picture's nearest others; -1 for none.
        group_of: (N,) int64: copies have equal numbers and stay in one fold.

    Returns:
        None where fewer than two classes have `FEWEST` different pictures.
    """
    contents = _content_of_group(pictures, group_of)
    enough = _classes_with_enough(pictures.labels, group_of, len(pictures.classes))
    usable = np.flatnonzero(enough[pictures.labels])
    if enough.sum() < 2:
        return None
    labels = np.cumsum(enough)[pictures.labels[usable]] - 1
    parts = _parts(labels, [contents[i] for i in usable])
    found = np.zeros((len(usable), len(pictures.classes)), dtype=np.float32)
    held = np.zeros(len(usable), dtype=bool)
    for part in np.unique(parts):
        where = np.flatnonzero(parts == part)
        keys = [contents[usable[i]] for i in where]
        probabilities, out = _out_of_fold(features[usable[where]], labels[where], int(enough.sum()), keys)
        found[np.ix_(where[out], np.flatnonzero(enough))] = probabilities
        held[where[out]] = True
    said = usable[held]
    probe, votes = found[held].astype(np.float64), _votes(pictures.labels, nearest[said], group_of, said, enough)
    both = np.where(votes.any(1, keepdims=True), (1 - VOTES) * probe + VOTES * votes, probe)
    return Judged(said, _calibrated(both, pictures.labels[said], enough))


def wrong_labels(pictures: Collection, said: Judged) -> list[Finding]:
    """One finding for each picture whose label confident learning doubts, or that has the odds against it."""
    from cleanlab.filter import find_label_issues

    given = pictures.labels[said.positions]
    classes = np.unique(given)
    if len(classes) < 2:
        return []
    probabilities = said.probabilities[:, classes].astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    doubted = find_label_issues(
        np.searchsorted(classes, given), probabilities, filter_by="both",
        return_indices_ranked_by="self_confidence", n_jobs=1,
    )  # fmt: skip
    suggested = classes[probabilities.argmax(1)]
    sure, own = probabilities.max(1), probabilities[np.arange(len(given)), np.searchsorted(classes, given)]
    doubted = np.union1d(doubted, np.flatnonzero(sure > ODDS * own))
    places = [int(i) for i in doubted if suggested[i] != given[i]]
    return [
        _finding(pictures, int(said.positions[i]), int(suggested[i]), float(sure[i]))
        for i in sorted(places, key=lambda i: (-sure[i], pictures.names[said.positions[i]]))
    ]


def too_few_to_judge() -> Finding:
    """What to say where `judged` gives nothing."""
    return Finding(
        kind="too-few",
        severity="note",
        message=f"Fewer than two classes have {FEWEST} different pictures: labels were not looked at.",
        advice="Look through them yourself; with more pictures the check can help.",
    )


def _finding(pictures: Collection, position: int, suggested: int, sure: float) -> Finding:
    given, other = pictures.classes[pictures.labels[position]], pictures.classes[suggested]
    return Finding(
        kind="wrong-label",
        severity="warning",
        message=f'Labelled "{given}", looks like "{other}" to a model that did not learn from it.',
        advice="Look at it: about half of such suspicions are right. Move it if it is wrong, leave it if it is hard.",
        paths=(pictures.names[position],),
        given=given,
        suggested=other,
        confidence=round(sure, 4),
    )


def _votes(
    labels: Positions, nearest: Positions, group_of: Positions, said: Positions, enough: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(n, K) float64: the share of each class among the nearest others, rows of 0 where there are none.

    Args:
        nearest: (n, k) int64, of the pictures `said`.
        enough: (K,) bool, the classes that are judged; others have no vote.
    """
    counts = (nearest >= 0) & (group_of[nearest] != group_of[said][:, None]) & enough[labels[nearest]]
    votes = np.zeros((len(said), len(enough)))
    rows = np.broadcast_to(np.arange(len(said))[:, None], nearest.shape)
    np.add.at(votes, (rows[counts], labels[nearest][counts]), 1.0)
    shares: npt.NDArray[np.float64] = votes / np.maximum(votes.sum(1, keepdims=True), 1.0)
    return shares


def _calibrated(said: npt.NDArray[np.float64], labels: Positions, enough: npt.NDArray[np.bool_]) -> Floats:
    """(n, K) float32, brought to the best temperature: a mean of two is less sure than it might be."""
    classes = np.flatnonzero(enough)
    logits = np.log(np.maximum(said[:, classes], _LEAST))
    found = np.zeros(said.shape, dtype=np.float32)
    found[:, classes] = softmax(logits, fit_temperature(logits, np.searchsorted(classes, labels)))
    return found


def _content_of_group(pictures: Collection, group_of: Positions) -> list[str]:
    """One hash for all the copies of a picture: the least of theirs, whatever order they come in."""
    least: dict[int, str] = {}
    for group, content in zip(group_of.tolist(), pictures.contents, strict=True):
        least[group] = min(content, least.get(group, content))
    return [least[group] for group in group_of.tolist()]


def _classes_with_enough(labels: Positions, group_of: Positions, classes: int) -> npt.NDArray[np.bool_]:
    different = np.unique(np.stack([labels, group_of], axis=1), axis=0)[:, 0]
    enough: npt.NDArray[np.bool_] = np.bincount(different, minlength=classes) >= FEWEST
    return enough


def _parts(labels: Positions, contents: list[str]) -> Positions:
    """(n,) int64: which pictures are cross-validated together; each part has every class in its share."""
    count = math.ceil(len(labels) / _TOGETHER)
    if count < 2:
        return np.zeros(len(labels), dtype=np.int64)
    parts = stratified_folds(labels, contents, count, seed=0)
    return np.where(parts == NEVER, 0, parts)


def _out_of_fold(
    features: Floats, labels: Positions, classes: int, contents: list[str]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(h, K) probabilities of those pictures that were held out, and (n,) bool which ones those are."""
    folds = stratified_folds(labels, contents, usable_folds(labels, contents, FOLDS), seed=0)
    if (folds == NEVER).all():
        return np.zeros((0, classes), dtype=np.float32), folds != NEVER
    found = cross_validate(features, labels, classes, folds)
    return softmax(found.logits).astype(np.float32), found.held


NEIGHBOURS = 5
"""Of whose distances the mean is taken."""
FAR = 3.5
"""Robust standard deviations above the median of the distances from which a picture is told."""
FEWEST_IMAGES = 30
"""Pictures; with fewer, none of them can be called usual."""
_PER_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def distances(cosines: Floats) -> Floats:
    """(N,) float32: mean distance, 1 minus the cosine, to the nearest others that there are; larger is farther.

    Source: Kuan and Mueller 2022, Back to the Basics: Revisiting Out-of-Distribution Detection Baselines,
        arXiv:2207.03061, section 3.
    """
    near = np.where(cosines[:, :NEIGHBOURS] < -0.5, np.nan, 1 - cosines[:, :NEIGHBOURS])
    none = np.isnan(near).all(1)
    near[none] = 0
    found: Floats = np.nanmean(near, axis=1)
    return found


def off_topic(pictures: Collection, cosines: Floats, told: Positions) -> list[Finding]:
    """The pictures that no others resemble.

    Args:
        cosines: (N, k) float32, see `neighbours.nearest_others`.
        told: positions that another finding tells already, such as blank ones.
    """
    if len(pictures) < FEWEST_IMAGES:
        return []
    far = distances(cosines)
    middle = np.median(far)
    deviation = _PER_DEVIATION * np.median(np.abs(far - middle))
    beyond = np.setdiff1d(np.flatnonzero(far > middle + FAR * max(deviation, 1e-6)), told)
    if not len(beyond):
        return []
    places = beyond[np.argsort(-far[beyond], kind="stable")]
    one = len(places) == 1
    return [
        Finding(
            kind="off-topic",
            severity="note",
            message=f"{'1 picture is' if one else f'{len(places):,} pictures are'} unlike all others.",
            advice="Look whether they belong here. A rare but right picture is worth keeping.",
            paths=pictures.named(places),
        )
    ]
