"""The figures of a run as rows and sentences of its report: what each is, what it means, and which end is bad.

`evaluation` is evaluation.json, as a mapping; a figure whose key is absent is omitted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relish.evaluation.metrics import ClassScores, Scores, wilson
from relish.reporting.page import percent, percent_interval

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
"""Figures without an interval, also known before the temperature."""


@dataclass(frozen=True)
class Figure:
    """One row of the table of figures."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """One class: its shares in percent, with the counts behind them."""

    name: str
    count: int
    recall: str
    recall_interval: str
    recall_share: float | None
    precision: str
    precision_interval: str
    f1: str


def figure_rows(evaluation: Mapping[str, Any]) -> list[Figure]:
    """Every figure of the run beside its accuracy."""
    rows = [*_shares(evaluation), *_losses(evaluation)]
    without = evaluation.get("without_duplicates")
    if without and without["left_out"]:
        meaning = (
            f"Without the {without['left_out']:,} judged pictures that have a copy, or nearly one, among those the "
            "model learned from. If it is clearly lower than the accuracy above, believe this one."
        )
        value, interval = percent(without["value"]), percent_interval(without["interval"])
        rows.insert(0, Figure("accuracy without copies", value, interval, meaning))
    return rows


def class_rows(scores: Scores) -> list[ClassRow]:
    """Every class with its intervals, the lowest recall first."""
    predicted = [sum(column) for column in zip(*scores.confusion, strict=True)]
    rows = [_class_row(one, scores.confusion[k][k], predicted[k]) for k, one in enumerate(scores.per_class)]
    return sorted(rows, key=lambda row: 2.0 if row.recall_share is None else row.recall_share)


def majority_share(scores: Scores) -> float:
    """Accuracy of always predicting the commonest class, 0 to 1."""
    return max(sum(row) for row in scores.confusion) / scores.top1.count


def calibration_sentences(evaluation: Mapping[str, Any]) -> str:
    """How far the model's confidence can be believed."""
    ece, decision = evaluation.get("ece"), evaluation.get("decision") or {}
    before = _before(evaluation).get("ece")
    text = ""
    if ece is not None:
        text = f"On average, its confidence and how often it is right lie {100 * ece:.1f} points apart"
        text += f"; before its temperature was set, {100 * before:.1f}. " if before is not None else ". "
        text += "0 would be perfect: of the answers it is 90% sure of, 90% are right. "
    temperature, fitted_on = decision.get("temperature", 1.0), decision.get("fitted_on", 0)
    if fitted_on:
        text += (
            f"The temperature, {temperature:.3g}, was chosen on {fitted_on:,} held-out pictures; above 1 it makes the "
            "model less sure, and it never changes the likeliest class."
        )
    return text.strip()


def decision_sentences(evaluation: Mapping[str, Any]) -> list[str]:
    """How probabilities become a prediction, where it is more than taking the likeliest class."""
    decision, answered = evaluation.get("decision") or {}, evaluation.get("answered")
    text = []
    if decision.get("threshold") is not None:
        aim = f", chosen for {decision['aim']}" if decision.get("aim") else ""
        text.append(f"It says “{decision['positive']}” from a probability of {decision['threshold']:.4f} on{aim}.")
    if decision.get("unsure_below") is not None:
        text.append(f"Below a probability of {decision['unsure_below']:.4f} it says that it is unsure.")
    if answered and not answered["count"]:
        text.append(f"So it answers none of {answered['of']:,} pictures.")
    elif answered:
        text.append(
            f"So it answers {answered['count']:,} of {answered['of']:,} pictures, and is right on "
            f"{percent(answered['accuracy'])} of them (95% interval {percent_interval(answered['interval'])})."
        )
    return text


def _shares(evaluation: Mapping[str, Any]) -> list[Figure]:
    guess = f"{100 / len(evaluation['classes']):.3g}%"
    return [
        Figure(name, percent(metric["value"]), percent_interval(metric["interval"]), meaning.format(guess=guess))
        for key, (name, meaning) in _SHARES.items()
        if (metric := evaluation.get(key))
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


def _class_row(one: ClassScores, right: int, predicted: int) -> ClassRow:
    return ClassRow(
        name=one.name,
        count=one.count,
        recall=f"{percent(one.recall)} ({right} of {one.count})" if one.recall is not None else "–",
        recall_interval=percent_interval(wilson(right, one.count)) if one.count else "–",
        recall_share=one.recall,
        precision=f"{percent(one.precision)} ({right} of {predicted})" if one.precision is not None else "–",
        precision_interval=percent_interval(wilson(right, predicted)) if predicted else "–",
        f1="–" if one.f1 is None else f"{one.f1:.3f}",
    )
