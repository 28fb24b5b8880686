"""The figures of a run in words: what each is, what it means, and which end is bad.

In:   evaluation.json, as a mapping; a key that is absent is a figure that is left out.
Out:  rows for the report's table, and sentences.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relish.evaluation.metrics import ClassScores, Scores, wilson

_SHARES = {
    "balanced_accuracy": (
        "balanced accuracy",
        "The mean of the classes' recalls: each class counts alike, however many pictures it has. 100% is perfect, "
        "{guess} is guessing.",
    ),
    "macro_f1": (
        "macro-F1",
        "The mean over the classes of F1, which is high only where the model both finds a class's pictures and is "
        "right when it says so. 0% is worst, 100% best.",
    ),
    "auc": (
        "area under the ROC curve",
        "How often a picture of a class is given a higher probability of it than a picture of another class. 50% is "
        "guessing, 100% perfect.",
    ),
    "top5": ("top-5 accuracy", "How often the true class is among the five likeliest. Higher is better."),
}
"""Figures with an interval: key of evaluation.json, name, meaning."""
_LOSSES = {
    "log_loss": (
        "log-loss",
        "The price of being sure and wrong, a picture, in nats. 0 is perfect, {guess} is guessing evenly, higher is "
        "worse.",
    ),
    "brier": ("Brier score", "The squared distance between probabilities and truth. 0 is perfect, higher is worse."),
    "ece": (
        "expected calibration error",
        "How far confidence and accuracy lie apart, 0 to 1. 0 is perfect, higher is worse.",
    ),
}
"""Figures without one, known before the temperature too."""


@dataclass(frozen=True)
class Figure:
    """One row."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """One class, its shares as fractions of so many pictures."""

    name: str
    count: int
    recall: str
    recall_interval: str
    recall_share: float | None
    precision: str
    precision_interval: str
    f1: str


def as_percent(share: float) -> str:
    """One digit, rounded as `Proportion.sentence` rounds, so that page and command line say the same."""
    return f"{100 * float(f'{share:.3f}'):.1f}%"


def interval_words(interval: tuple[float, float] | list[float]) -> str:
    """Such as `88.8–92.8%`."""
    low, high = interval
    return f"{as_percent(low)[:-1]}–{as_percent(high)}"


def figures_of(evaluation: Mapping[str, Any]) -> list[Figure]:
    """Every figure beside the accuracy that the run has."""
    found = [*_shares(evaluation), *_losses(evaluation)]
    without = evaluation.get("without_duplicates")
    if without and without["left_out"]:
        meaning = (
            f"Without the {without['left_out']:,} judged pictures that have a copy, or nearly one, among those the "
            "model learned from. If it is clearly lower than the accuracy above, believe this one."
        )
        value, interval = as_percent(without["value"]), interval_words(without["interval"])
        found.insert(0, Figure("accuracy without copies", value, interval, meaning))
    return found


def class_rows(scores: Scores) -> list[ClassRow]:
    """Every class with its intervals, the lowest recall first."""
    said = [sum(column) for column in zip(*scores.confusion, strict=True)]
    rows = [_class_row(one, scores.confusion[k][k], said[k]) for k, one in enumerate(scores.per_class)]
    return sorted(rows, key=lambda row: 2.0 if row.recall_share is None else row.recall_share)


def commonest_share(scores: Scores) -> float:
    """What always saying the commonest class would be right on, 0 to 1."""
    return max(sum(row) for row in scores.confusion) / scores.top1.count


def calibration_words(evaluation: Mapping[str, Any]) -> str:
    """How far what the model says of its own certainty can be believed."""
    ece, decision = evaluation.get("ece"), evaluation.get("decision") or {}
    before = _before(evaluation).get("ece")
    words = ""
    if ece is not None:
        words = f"On average, its confidence and how often it is right lie {100 * ece:.1f} points apart"
        words += f"; before its temperature was set, {100 * before:.1f}. " if before is not None else ". "
        words += "0 would be perfect: of the answers it is 90% sure of, 90% are right. "
    temperature, fitted_on = decision.get("temperature", 1.0), decision.get("fitted_on", 0)
    if fitted_on:
        words += (
            f"The temperature, {temperature:.3g}, was chosen on {fitted_on:,} held-out pictures; above 1 it makes the "
            "model less sure, and it never changes the likeliest class."
        )
    return words.strip()


def decision_words(evaluation: Mapping[str, Any]) -> list[str]:
    """What turns probabilities into answers, where it is more than taking the likeliest class."""
    decision, answered = evaluation.get("decision") or {}, evaluation.get("answered")
    words = []
    if decision.get("threshold") is not None:
        aim = f", chosen for {decision['aim']}" if decision.get("aim") else ""
        words.append(f"It says “{decision['positive']}” from a probability of {decision['threshold']:.4f} on{aim}.")
    if decision.get("unsure_below") is not None:
        words.append(f"Below a probability of {decision['unsure_below']:.4f} it says that it is unsure.")
    if answered and not answered["count"]:
        words.append(f"So it answers none of {answered['of']:,} pictures.")
    elif answered:
        words.append(
            f"So it answers {answered['count']:,} of {answered['of']:,} pictures, and is right on "
            f"{as_percent(answered['accuracy'])} of them (95% interval {interval_words(answered['interval'])})."
        )
    return words


def _shares(evaluation: Mapping[str, Any]) -> list[Figure]:
    guess = f"{100 / len(evaluation['classes']):.3g}%"
    return [
        Figure(name, as_percent(found["value"]), interval_words(found["interval"]), meaning.format(guess=guess))
        for key, (name, meaning) in _SHARES.items()
        if (found := evaluation.get(key))
    ]


def _losses(evaluation: Mapping[str, Any]) -> list[Figure]:
    guess = f"{math.log(max(2, len(evaluation['classes']))):.2f}"
    before = _before(evaluation)
    return [
        Figure(
            name,
            f"{evaluation[key]:.4f}",
            f"{before[key]:.4f} before the temperature" if before.get(key) is not None else "",
            meaning.format(guess=guess),
        )
        for key, (name, meaning) in _LOSSES.items()
        if evaluation.get(key) is not None
    ]


def _before(evaluation: Mapping[str, Any]) -> Mapping[str, float]:
    """The figures before the temperature; none where no temperature was fitted, since they are then the same."""
    fitted = (evaluation.get("decision") or {}).get("fitted_on")
    return (evaluation.get("before_temperature") or {}) if fitted else {}


def _class_row(one: ClassScores, right: int, said: int) -> ClassRow:
    return ClassRow(
        name=one.name,
        count=one.count,
        recall=f"{as_percent(one.recall)} ({right} of {one.count})" if one.recall is not None else "–",
        recall_interval=interval_words(wilson(right, one.count)) if one.count else "–",
        recall_share=one.recall,
        precision=f"{as_percent(one.precision)} ({right} of {said})" if one.precision is not None else "–",
        precision_interval=interval_words(wilson(right, said)) if said else "–",
        f1="–" if one.f1 is None else f"{one.f1:.3f}",
    )
