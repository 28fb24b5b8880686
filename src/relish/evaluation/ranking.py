"""How well a model puts pictures in order, whatever it finally says: area under the ROC curve, and top-k.

In:   (N, K) probabilities and the labels.
Out:  an `Estimate` and a `Proportion`.

The area is the chance that a picture of a class is given a higher probability of it than a picture of another; 0.5 is
guessing, 1 the best. Where there are more than two classes it is each class against the rest, and the mean of these
(Provost and Domingos 2000; scikit-learn's `multi_class="ovr", average="macro"`).
"""

import numpy as np
import numpy.typing as npt

from relish.core.runtime import rng_for
from relish.evaluation.intervals import Estimate, Floats, percentiles
from relish.evaluation.metrics import Proportion, Z

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
