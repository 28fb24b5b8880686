"""What is measured along a training, and along a sweep of learning rates.

In:   figures, as the training loop or a sweep comes by them.
Out:  `CurvePoint` and `SweepPoint`.
Not here: drawing them (`reporting/curves.py`).
"""

from dataclasses import dataclass

from relish.evaluation.metrics import Proportion


@dataclass(frozen=True)
class CurvePoint:
    """What was known at one moment of a training; None where nothing was measured then."""

    epoch: float
    """Epochs done: 0.2 is a fifth of the first one, 1.0 its end."""
    loss: float | None = None
    """Mean loss per training picture since the epoch began, in nats; lower is better."""
    train_accuracy: float | None = None
    """Share of augmented training pictures got right since the epoch began, 0 (worst) to 1."""
    test_accuracy: float | None = None
    """Share of held-out pictures got right, 0 (worst) to 1."""


Curves = tuple[CurvePoint, ...]
"""One training, in the order of time."""


@dataclass(frozen=True)
class SweepPoint:
    """What one learning rate came to."""

    learning_rate: float
    """Above 0."""
    accuracy: Proportion | None
    """None where the training diverged."""

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being a number."""
        return self.accuracy is None
