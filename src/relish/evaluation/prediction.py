"""What a model says of one picture, whoever computes it: PyTorch, or an exported file without it.

In:   probabilities and the decision of a model.
Out:  `Prediction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.evaluation.decision import Decision


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture; `error` is set, and nothing else, where it could not be opened."""

    path: str
    """The picture's path, or its place in what was given, such as `picture 3`."""
    class_name: str | None = None
    """The class that is said: the likeliest (the first of equals), unless the model has a threshold."""
    probability: float | None = None
    """Of that class, 0 to 1."""
    probabilities: dict[str, float] | None = None
    """Of every class, in the model's order; they add up to 1."""
    error: str | None = None
    """Why there is no prediction."""
    unsure: bool = False
    """Whether the model abstains: it gives the class less than it was told to ask for."""

    def as_json(self) -> dict[str, Any]:
        """The document that `relish predict --json` prints for one picture."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "class": self.class_name,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "unsure": self.unsure,
        }


def predictions(
    names: Sequence[str], rows: npt.NDArray[np.floating[Any]], classes: Sequence[str], decision: Decision
) -> list[Prediction]:
    """One answer a picture.

    Args:
        names: of the N pictures.
        rows: (N, K) probabilities, temperature applied.
        classes: the K class names.
    """
    said, unsure = decision.decide(rows, classes)
    return [
        Prediction(
            name,
            classes[best],
            float(row[best]),
            {known: float(p) for known, p in zip(classes, row, strict=True)},
            unsure=bool(doubt),
        )
        for name, row, best, doubt in zip(names, rows, said, unsure, strict=True)
    ]
