"""Every figure of one evaluation, from what a model said of labelled pictures and how it decides.

In:   logits, labels, class names, a `Decision`.
Out:  `Figures`: what is right and wrong, with intervals, and what the probabilities are worth.
Not here: how each is computed (`metrics.py`, `intervals.py`, `ranking.py`, `calibration.py`, `coverage.py`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.evaluation.calibration import Bin, Calibration, calibration, reliability
from relish.evaluation.coverage import Answered, CoveragePoint, answered, coverage_curve
from relish.evaluation.decision import Decision, tempered_softmax
from relish.evaluation.intervals import Estimate, balanced_figures
from relish.evaluation.metrics import ClassScores, Proportion, Scores, said_class, score
from relish.evaluation.ranking import TOP, area_under_curve, top_k


@dataclass(frozen=True)
class Figures:
    """How good a model is, and how far its probabilities can be believed. Made by `figures`."""

    scores: Scores
    """Of the classes that the model says, its threshold applied, unsure answers included."""
    likeliest: Proportion
    """The accuracy that saying the likeliest class would have; the same where there is no threshold."""
    balanced_accuracy: Estimate
    macro_f1: Estimate
    auc: Estimate | None
    """None where there are pictures of one class alone."""
    top5: Proportion | None
    """None where there are not more than five classes."""
    calibration: Calibration
    """With the model's temperature."""
    before_temperature: Calibration
    """At temperature 1."""
    reliability: tuple[Bin, ...]
    coverage: tuple[CoveragePoint, ...]
    decision: Decision
    answered: Answered | None
    """None where the model is never unsure."""
    right: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    """(N,) bool: whether the class that is said is the true one, picture by picture."""

    @property
    def top1(self) -> Proportion:
        """The accuracy."""
        return self.scores.top1

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.scores.classes

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Precision, recall and F1 of every class."""
        return self.scores.per_class

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """A row is the true class, a column the one that was said."""
        return self.scores.confusion

    def sentence(self) -> str:
        """The accuracy in words."""
        return self.scores.sentence()

    def as_json(self) -> dict[str, Any]:
        """The document that `relish evaluate --json` prints; plain types, null where a figure has no value."""
        return {
            **self.scores.as_json(),
            "balanced_accuracy": self.balanced_accuracy.as_json(),
            "macro_f1": self.macro_f1.as_json(),
            "auc": self.auc and self.auc.as_json(),
            "top5": self.top5 and self.top5.as_json(),
            **self.calibration.as_json(),
            "before_temperature": self.before_temperature.as_json(),
            "reliability": [one.as_json() for one in self.reliability],
            "coverage": [point.as_json() for point in self.coverage],
            "decision": asdict(self.decision),
            "answered": self.answered and self.answered.as_json(),
        }


def figures(
    logits: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    decision: Decision | None = None,
) -> Figures:
    """Every figure.

    Args:
        logits: (N, K), before any temperature.
        labels: (N,) int64, each an index into `classes`.
        decision: how the model turns them into answers; None: the likeliest class, at temperature 1.

    Raises:
        DataError: there is no picture to score.
        Diverged: a logit is not a number.
    """
    decision = decision or Decision()
    if len(labels) == 0:
        logits = np.zeros((0, len(classes)))  # nothing came back from no picture; `score` says so
    probabilities = tempered_softmax(logits, decision.temperature)
    said, unsure = decision.decide(probabilities, classes)
    scores = score(probabilities, labels, classes, said)
    balanced, macro = balanced_figures(scores)
    right = said == labels
    return Figures(
        scores=scores,
        likeliest=Proportion(int((said_class(probabilities) == labels).sum()), len(labels)),
        balanced_accuracy=balanced,
        macro_f1=macro,
        auc=area_under_curve(probabilities, labels),
        top5=top_k(probabilities, labels) if len(classes) > TOP else None,
        calibration=calibration(logits, probabilities, labels, decision.temperature),
        before_temperature=calibration(logits, tempered_softmax(logits, 1.0), labels),
        reliability=reliability(probabilities, labels),
        coverage=coverage_curve(probabilities[np.arange(len(said)), said], right),
        decision=decision,
        answered=None if decision.unsure_below is None else answered(right, unsure),
        right=right,
    )
