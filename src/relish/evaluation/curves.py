"""What is measured along a training, and along a sweep of learning rates.

In:   figures, as the training loop or a sweep comes by them.
Out:  `CurvePoint` and `SweepPoint`, and their plain form for JSON.
Not here: drawing them (`report/curves.py`).

A value that is no finite number becomes null in the plain form, since JSON has no other word for it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

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


def curves_as_dicts(curves: Curves) -> list[dict[str, float | None]]:
    """One dict a point, ready for JSON."""
    return [{key: _finite(value) for key, value in asdict(point).items()} for point in curves]


def curves_from_dicts(rows: Iterable[Mapping[str, Any]]) -> Curves:
    """The points that `curves_as_dicts` wrote down; absent values are None, further keys are passed over."""
    return tuple(
        CurvePoint(row["epoch"], row.get("loss"), row.get("train_accuracy"), row.get("test_accuracy")) for row in rows
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
