"""From probabilities to a predicted class: temperature, threshold, abstention, what is unknown; saved with the model.

No torch: the server and an exported model's reader use this too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from relish.core.errors import ModelError
from relish.data.dataset import class_name
from relish.evaluation.metrics import predicted_class

UNLIKE = "unlike anything it learned from"
"""What an unknown image is called, wherever a person reads it."""

Real = TypeVar("Real", bound=np.floating[Any])

HEADER_KEY = "decision"
"""The key of the decision in a model file's header, and in an exported file's metadata."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a network's logits become a predicted class."""

    temperature: float = 1.0
    """Divides the logits before the softmax, above 0; above 1 makes a model less certain."""
    positive: str | None = None
    """The class that `threshold` belongs to; only with two classes."""
    threshold: float | None = None
    """The positive class is predicted from this probability on, 0 to 1; None predicts the likelier class."""
    aim: str | None = None
    """What the threshold was chosen for, such as `precision=0.99`."""
    unsure_below: float | None = None
    """The model abstains where the predicted class has less than this probability, 0 to 1; None never abstains."""
    unknown_above: float | None = None
    """An image is called unknown where its unfamiliarity (`unfamiliarity.py`) is above this; None calls none so."""
    fitted_on: int = 0
    """Held-out images that these numbers were chosen on; 0 where none were."""

    def __post_init__(self) -> None:
        if self.positive is not None:
            object.__setattr__(self, "positive", class_name(self.positive))
        if not 0 < self.temperature < float("inf"):
            raise ModelError(f"decision: temperature must be above 0, got {self.temperature}.")
        if (self.threshold is None) != (self.positive is None):
            raise ModelError("decision: a threshold belongs to a positive class.")
        for name, bound in (("threshold", self.threshold), ("unsure_below", self.unsure_below)):
            if bound is not None and not 0 <= bound <= 1:
                raise ModelError(f"decision: {name} must be between 0 and 1, got {bound}.")
        if self.unknown_above is not None and not math.isfinite(self.unknown_above):
            raise ModelError(f"decision: unknown_above must be finite, got {self.unknown_above}.")

    def decide(
        self, probabilities: npt.NDArray[np.floating[Any]], classes: Sequence[str]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The predicted class of each image, and whether the model abstains.

        Args:
            probabilities: (N, K) floating point, temperature applied.
            classes: the K class names.

        Returns:
            (N,) int64, the predicted class; (N,) bool, whether its probability is below `unsure_below`.

        Raises:
            Diverged: a probability is NaN.
            ModelError: the positive class is not one of two classes.
        """
        predicted = predicted_class(probabilities)
        if self.threshold is not None and self.positive is not None:
            if len(classes) != 2 or self.positive not in classes:
                raise ModelError(f'decision: there is no threshold for "{self.positive}" among {len(classes)} classes.')
            positive = list(classes).index(self.positive)
            predicted = np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive).astype(np.int64)
        if self.unsure_below is None:
            return predicted, np.zeros(len(predicted), dtype=np.bool_)
        return predicted, probability_of(probabilities, predicted) < self.unsure_below

    def unknown(self, unfamiliarity: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
        """(N,) bool: whether each image of this unfamiliarity, (N,), is called unknown."""
        if self.unknown_above is None:
            return np.zeros(len(unfamiliarity), dtype=np.bool_)
        return np.asarray(unfamiliarity > self.unknown_above)

    def as_header(self) -> str:
        """JSON for a model file's header."""
        return json.dumps(asdict(self))


def decision_from(header: Mapping[str, str]) -> Decision:
    """The decision in a model file's header; without one, the likeliest class at temperature 1.

    Raises:
        ModelError: the value is not what `as_header` wrote.
    """
    if HEADER_KEY not in header:
        return Decision()
    try:
        return TypeAdapter(Decision).validate_json(header[HEADER_KEY])
    except ValidationError as error:
        raise ModelError(f"the model's decision cannot be read ({error.errors()[0]['msg']}).") from None


def softmax(logits: npt.NDArray[np.floating[Any]], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """(N, K) logits to (N, K) float64 probabilities; a row with an infinite logit becomes NaN, which `decide` refuses.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def probability_of(probabilities: npt.NDArray[Real], classes: npt.NDArray[np.int64]) -> npt.NDArray[Real]:
    """(N,): the probability of one class of each image, from (N, K) probabilities and (N,) classes."""
    return probabilities[np.arange(len(classes)), classes]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image; where it cannot be opened, `error` is set and nothing else."""

    path: str
    """The image's path, or its position in the input, such as `picture 3`."""
    class_name: str | None = None
    """The predicted class: the likeliest (the first of equals), unless the model has a threshold."""
    probability: float | None = None
    """Of the predicted class, 0 to 1."""
    probabilities: dict[str, float] | None = None
    """Of every class, in the model's order; they sum to 1."""
    error: str | None = None
    """Why there is no prediction."""
    unsure: bool = False
    """Whether the model abstains: the probability is below the decision's `unsure_below`."""
    unfamiliarity: float | None = None
    """How unlike the training images it is, 0 to 2, higher is stranger; None where the model cannot say."""
    unknown: bool = False
    """Whether it is unlike anything the model learned from: above the decision's `unknown_above`."""

    @property
    def doubts(self) -> list[str]:
        """What a person reads beside the class and its probability."""
        return ["unsure"] * self.unsure + [UNLIKE] * self.unknown

    def as_json(self) -> dict[str, Any]:
        """The document that `relish predict --json` prints for one image."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "class": self.class_name,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "unsure": self.unsure,
            "unfamiliarity": self.unfamiliarity,
            "unknown": self.unknown,
        }


def predictions(
    names: Sequence[str],
    probabilities: npt.NDArray[np.floating[Any]],
    classes: Sequence[str],
    decision: Decision,
    unfamiliarity: npt.NDArray[np.floating[Any]] | None = None,
) -> list[Prediction]:
    """One prediction for each of N names, from (N, K) probabilities with the temperature applied.

    Args:
        unfamiliarity: (N,); None where the model cannot say.
    """
    predicted, unsure = decision.decide(probabilities, classes)
    found = [
        Prediction(
            name,
            classes[best],
            float(row[best]),
            {known: float(p) for known, p in zip(classes, row, strict=True)},
            unsure=bool(doubt),
        )
        for name, row, best, doubt in zip(names, probabilities, predicted, unsure, strict=True)
    ]
    if unfamiliarity is None:
        return found
    scored = zip(found, unfamiliarity, decision.unknown(unfamiliarity), strict=True)
    return [replace(one, unfamiliarity=float(score), unknown=bool(unknown)) for one, score, unknown in scored]
