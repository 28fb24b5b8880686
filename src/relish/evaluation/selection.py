"""Is one model better than another on the pictures it is to be chosen by?

In:   what two models say of the same validation pictures, and the labels.
Out:  a `Verdict`, in numbers and in a sentence.
Not here: comparing finished models on test pictures (`comparison.py`).

Accuracy on a few hundred pictures is a coarse measure: most of its differences are one or two pictures. The loss of
each picture says more, paired picture by picture. A model that is merely too sure of itself is not a worse one, since
that is mended afterwards, so each is first brought to its best temperature.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SMALLEST = 1e-12
"""Probabilities below it count as this, so that a single picture cannot cost more than 28 nats."""


@dataclass(frozen=True)
class Verdict:
    """A challenger against the model that stands so far."""

    gain: float
    """How much smaller the challenger's mean loss is, in nats; below 0: it is larger."""
    error: float
    """One standard error of that, over the pictures."""
    right: int
    """Pictures the challenger has right."""
    right_before: int
    """Pictures the standing model has right."""
    count: int

    @property
    def better(self) -> bool:
        """Whether the challenger may take its place: by more than one standard error, and with no fewer right.

        The one-standard-error rule in favour of the simpler model: Breiman et al. 1984, Classification and Regression
        Trees, section 3.4.3.
        """
        return self.gain > self.error and self.right >= self.right_before

    def sentence(self) -> str:
        """Such as `+0.8 points (396 of 420), loss 0.021 ± 0.009 lower: kept`."""
        points = 100 * (self.right - self.right_before) / self.count
        loss = f"loss {abs(self.gain):.3f} ± {self.error:.3f} {'lower' if self.gain >= 0 else 'higher'}"
        kept = "kept" if self.better else "not kept"
        return f"{points:+.1f} points ({self.right} of {self.count}), {loss}: {kept}"


def judge(challenger: Floats, standing: Floats, labels: Labels) -> Verdict:
    """Set two models side by side.

    Args:
        challenger, standing: (N, K) float32 probabilities of the same pictures; the standing model is the simpler one.
        labels: (N,) int64.
    """
    gains = tempered_losses(standing, labels) - tempered_losses(challenger, labels)
    return Verdict(
        gain=float(gains.mean()),
        error=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("inf"),
        right=int((challenger.argmax(1) == labels).sum()),
        right_before=int((standing.argmax(1) == labels).sum()),
        count=len(labels),
    )


def tempered_losses(probabilities: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """The loss of each picture in nats, (N,) float64, at the temperature where their mean is smallest.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    found = minimize_scalar(lambda t: _losses(logs, labels, t).mean(), bounds=(-3.0, 3.0), method="bounded")
    return _losses(logs, labels, float(found.x))


def _losses(logs: npt.NDArray[np.float64], labels: Labels, log_temperature: float) -> npt.NDArray[np.float64]:
    losses: npt.NDArray[np.float64] = -log_softmax(logs / np.exp(log_temperature), axis=1)[
        np.arange(len(labels)), labels
    ]
    return losses
