"""How well probabilities agree with frequencies on images held out of training, and the temperature that improves it.

`prediction.py` applies the temperature.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

BINS = 15
"""Equally wide bins of confidence, as in Guo et al. 2017."""
_SPAN = (-4.0, 4.0)
"""Log temperatures to search: temperatures from 0.018 to 55."""

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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
    """The three figures.

    Args:
        logits: (N, K), before the temperature.
        probabilities: (N, K) float64, with it applied.
        labels: (N,) int64.
    """
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


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature that maximises the likelihood of held-out labels, with one imaginary wrong label among them.

    Without that one, a model that has every held-out image right would be made certain of everything; with a few
    hundred images it has hardly any effect. It is Platt's rule (1999, Probabilistic outputs for support vector
    machines, section 2.2) for K classes: the target of the true class is (N + 1) / (N + 2), the other classes share
    the rest.

    Args:
        logits: (N, K) of images held out of training; rows that are not finite are ignored.
        labels: (N,) int64.

    Returns:
        Above 0; 1 where there is no image, or a single class.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    finite = np.isfinite(logits).all(1)
    logits, labels, classes = logits[finite].astype(np.float64), labels[finite], logits.shape[1]
    if len(labels) == 0 or classes < 2:
        return 1.0
    rest = 1 / (len(labels) + 2)
    targets = np.full(logits.shape, rest / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - rest

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(1).mean())

    found = minimize_scalar(loss, bounds=_SPAN, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
