"""From probabilities to a predicted class: temperature, threshold and abstention, saved with the model.

No torch: the server and an exported model's reader use this too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from relish.core.errors import ModelError
from relish.evaluation.metrics import said_class

HEADER_KEY = "decision"
"""The word it stands under in a model file's header, and in an exported file's metadata."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What turns a network's logits into an answer."""

    temperature: float = 1.0
    """Logits are divided by it before the softmax; above 1 makes a model less sure. Above 0."""
    positive: str | None = None
    """The class that `threshold` is of; only where there are two classes."""
    threshold: float | None = None
    """The positive class is said where its probability is at least this, 0 to 1; None says the likelier class."""
    aim: str | None = None
    """What the threshold was chosen for, such as `precision=0.99`."""
    unsure_below: float | None = None
    """The model is unsure of a class that it gives less than this probability, 0 to 1; None is never unsure."""
    fitted_on: int = 0
    """Held-out pictures these numbers were chosen on; 0 where nothing was."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ModelError(f"decision: temperature must be above 0, got {self.temperature}.")
        if (self.threshold is None) != (self.positive is None):
            raise ModelError("decision: a threshold belongs to a positive class.")
        for name, share in (("threshold", self.threshold), ("unsure_below", self.unsure_below)):
            if share is not None and not 0 <= share <= 1:
                raise ModelError(f"decision: {name} must be between 0 and 1, got {share}.")

    def decide(
        self, probabilities: npt.NDArray[np.floating[Any]], classes: Sequence[str]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The answer for each picture.

        Args:
            probabilities: (N, K) floating point, temperature applied.
            classes: the K class names.

        Returns:
            (N,) int64, the class that is said; (N,) bool, whether the model is too unsure of it.

        Raises:
            Diverged: a probability is not a number.
            ModelError: the positive class is not one of two classes.
        """
        said = said_class(probabilities)
        if self.threshold is not None and self.positive is not None:
            if len(classes) != 2 or self.positive not in classes:
                raise ModelError(f'decision: there is no threshold for "{self.positive}" among {len(classes)} classes.')
            positive = list(classes).index(self.positive)
            said = np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive).astype(np.int64)
        if self.unsure_below is None:
            return said, np.zeros(len(said), dtype=np.bool_)
        return said, probabilities[np.arange(len(said)), said] < self.unsure_below

    def as_header(self) -> str:
        """JSON for a model file."""
        return json.dumps(asdict(self))


def decision_from(header: Mapping[str, str]) -> Decision:
    """The decision a model file carries; a file without one says the likeliest class at temperature 1.

    Raises:
        ModelError: the words under `decision` are not what `as_header` gave.
    """
    if HEADER_KEY not in header:
        return Decision()
    try:
        return TypeAdapter(Decision).validate_json(header[HEADER_KEY])
    except ValidationError as error:
        raise ModelError(f"the model's decision cannot be read ({error.errors()[0]['msg']}).") from None


def tempered_softmax(logits: npt.NDArray[np.floating[Any]], temperature: float) -> npt.NDArray[np.float64]:
    """(N, K) logits to (N, K) float64 probabilities.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    with np.errstate(invalid="ignore"):  # of what is infinite nothing is made but NaN, which `decide` refuses
        shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


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
