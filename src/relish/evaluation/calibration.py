"""Whether a probability can be taken at its word, and the temperature that brings it nearer to that.

In:   logits and labels of pictures that were not learned from.
Out:  `Calibration`: log-loss, Brier score, expected calibration error; bins of a reliability diagram; a temperature.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

BINS = 15
"""Of confidence, equally wide, as Guo et al. 2017 take."""
_SPAN = (-4.0, 4.0)
"""Log temperatures that are searched: from a fiftieth to fifty times."""

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from what happened; 0 is the best of each."""

    log_loss: float
    """Mean of minus the logarithm of the true class's probability, in nats. Guessing among K classes costs log K."""
    brier: float
    """Mean over pictures of the squared distance between the probabilities of all classes and the truth, 0 to 2
    (Brier 1950, Monthly Weather Review 78, pages 1-3); for two classes twice what is asked of one of them."""
    ece: float
    """Expected calibration error, 0 to 1: see `calibration_error`."""

    def as_json(self) -> dict[str, float]:
        """The three figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class Bin:
    """Pictures of about equal confidence: one mark of a reliability diagram."""

    low: float
    """Confidence above this, up to and including `high`."""
    high: float
    count: int
    """Above 0."""
    confidence: float
    """Mean probability of their likeliest class."""
    accuracy: float
    """The share of them for which that class is the true one."""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def calibration(logits: Logits, probabilities: Floats, labels: Labels, temperature: float = 1.0) -> Calibration:
    """The three figures.

    Args:
        logits: (N, K), before the temperature.
        probabilities: (N, K) float64, with it applied.
        labels: (N,) int64.
    """
    pictures = np.arange(len(labels))
    # From the logits: a probability may have been rounded to nothing, whose logarithm would be infinite.
    scaled = logits.astype(np.float64) / temperature
    losses = logsumexp(scaled, axis=1) - scaled[pictures, labels]
    # The squared distance to a truth of one 1 and zeros, multiplied out.
    distances = np.einsum("nk,nk->n", probabilities, probabilities) - 2 * probabilities[pictures, labels] + 1
    return Calibration(
        log_loss=float(losses.mean()),
        brier=float(distances.mean()),
        ece=calibration_error(reliability(probabilities, labels)),
    )


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """Pictures by the probability of their likeliest class, in equally wide bins; empty ones are left out.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums, hits = (np.bincount(place, values, minlength=bins) for values in (confidence, right.astype(np.float64)))
    return tuple(
        Bin(float(edges[b]), float(edges[b + 1]), int(n), float(sums[b] / n), float(hits[b] / n))
        for b, n in enumerate(counts)
        if n
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """The mean gap between confidence and accuracy over the bins, each by its share of the pictures: ECE.

    It never reaches 0 on a finite number of pictures: with few of them a gap is mostly chance.

    Source: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning, AAAI; in this form Guo
        et al. 2017, arXiv:1706.04599, equation 3.
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature under which held-out answers are likeliest, one imaginary wrong answer among them.

    Without that one, a model that happens to have every held-out picture right would be made certain of everything;
    with a few hundred pictures it makes no difference to speak of. So does Platt (1999, Probabilistic outputs for
    support vector machines, section 2.2), whose targets this takes from two classes to K: the true class is wanted
    with (N + 1) / (N + 2), the others share the rest.

    Args:
        logits: (N, K) of pictures that were not learned from; rows that are no numbers are passed over.
        labels: (N,) int64.

    Returns:
        Above 0; 1 where there is no picture, or a single class.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    whole = np.isfinite(logits).all(1)
    kept, own, classes = logits[whole].astype(np.float64), labels[whole], logits.shape[1]
    if len(own) == 0 or classes < 2:
        return 1.0
    rest = 1 / (len(own) + 2)
    wanted = np.full(kept.shape, rest / (classes - 1))
    wanted[np.arange(len(own)), own] = 1 - rest

    def loss(log_temperature: float) -> float:
        return -float((wanted * log_softmax(kept / np.exp(log_temperature), axis=1)).sum(1).mean())

    found = minimize_scalar(loss, bounds=_SPAN, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
