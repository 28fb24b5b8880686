"""The charts of a run's report: the book's curves, reliability, coverage, the sweep of learning rates.

In:   curves, bins and points, as the run's files hold them.
Out:  a `Chart` each, with its sentence; None where there is nothing to draw.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.evaluation.calibration import reliability
from relish.evaluation.metrics import CurvePoint, Curves, SweepPoint
from relish.reporting.charts import Chart, Key, even_axis, log_axis

LOOKS = ("c1", "c2", "c3", "c4")


def curves_chart(curves: Curves, scored_on: str) -> Chart | None:
    """Train loss, train accuracy and held-out accuracy against epochs: the book's figure."""
    loss, train, held = (_finite(curves, m) for m in (_loss, _train, _held))
    if not curves or not (loss or train or held):
        return None
    highest = max((y for _, y in loss), default=0.0)
    x = even_axis("epochs", 0.0, max(p.epoch for p in curves) or 1.0)
    y = even_axis("loss, accuracy", 0.0, max(1.0, min(highest, 2.5)))
    chart = Chart("curves", "Loss and accuracy during training", _curves_words(loss, train, held, scored_on), x, y)
    for name, points, look, dashed in (
        ("train loss", loss, "c1", False),
        ("train accuracy", train, "c2", True),
        (f"{scored_on} accuracy", held, "c3", False),
    ):
        if points:
            chart.add_line(points, look, dashed=dashed)
            chart.keys.append(Key(name, look, dashed))
    for at, value in held:
        chart.add_dot((at, value), "c3", f"epoch {at:g}: {scored_on} accuracy {value:.1%}")
    return chart


def reliability_chart(bins: Sequence[Mapping[str, Any]], before: Sequence[tuple[float, float]]) -> Chart | None:
    """How often the model is right against how sure it says it is.

    Args:
        bins: `reliability` of evaluation.json.
        before: (confidence, accuracy) of the bins before the temperature, if that is known.
    """
    if not bins:
        return None
    fullest = max(bins, key=lambda one: one["count"])
    summary = (
        f"Each bar is a group of answers of about the same confidence; its height says how many of them were right. "
        f"On the dotted diagonal, the model is as often right as it says; bars below it are too sure, bars above it "
        f"too modest. Most answers ({fullest['count']:,}) lie at a confidence of {fullest['confidence']:.0%}, and "
        f"{fullest['accuracy']:.0%} of them are right."
    )
    x, y = (even_axis(label, 0.0, 1.0, percent=True, most=5) for label in ("how sure it says it is", "how often right"))
    chart = Chart("reliability", "Confidence against accuracy", summary, x, y)
    for one in bins:
        words = f"{one['count']:,} answers at {one['confidence']:.1%} confidence: {one['accuracy']:.1%} right"
        chart.add_bar(one["low"], one["high"], one["accuracy"], "c1", words)
    chart.add_line([(0, 0), (1, 1)], "soft", dashed=True)
    chart.keys += [Key("right as often as it says", "soft", dashed=True), Key("the model", "c1")]
    for confidence, accuracy in before:
        chart.add_dot((confidence, accuracy), "c2", f"before: {confidence:.1%} sure, {accuracy:.1%} right")
    if before:
        chart.keys.append(Key("before its temperature was set (dots)", "c2"))
    return chart


def bins_of(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> list[tuple[float, float]]:
    """(confidence, accuracy) of equally wide bins, those that are empty left out.

    Args:
        probabilities: (N, K) float64.
        labels: (N,) int64.
    """
    return [(one.confidence, one.accuracy) for one in reliability(probabilities, labels)]


def coverage_chart(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Accuracy of the answers against the share of pictures that are answered, the surest first."""
    if not points:
        return None
    lowest = min(point["accuracy"] for point in points)
    floor = max(0.0, math.floor(lowest * 20 - 0.5) / 20)
    x = even_axis("pictures answered", 0.0, 1.0, percent=True, most=5)
    chart = Chart("coverage", "Accuracy against the share answered", _coverage_words(points), x,
                  even_axis("right among them", floor, 1.0, percent=True))  # fmt: skip
    chart.add_line([(p["coverage"], p["accuracy"]) for p in points], "c1")
    for point in (_nearest(points, share) for share in (1.0, 0.9, 0.75, 0.5, 0.25)):
        words = (
            f"answering {point['coverage']:.0%} (those of {point['unsure_below']:.3f} and surer): "
            f"{point['accuracy']:.1%} right"
        )
        chart.add_dot((point["coverage"], point["accuracy"]), "c1", words)
    return chart


def sweep_chart(points_by_recipe: Mapping[str, Sequence[SweepPoint]], scored_on: str = "validation") -> Chart | None:
    """Accuracy against learning rate with 95% intervals; a cross on the lower edge is a run that diverged."""
    everything = [point for points in points_by_recipe.values() for point in points]
    if not everything:
        return None
    lows = [point.accuracy.interval[0] for point in everything if point.accuracy]
    floor = max(0.0, math.floor(min(lows, default=0.0) * 20 - 1) / 20)
    x = log_axis("learning rate", [point.learning_rate for point in everything])
    y = even_axis(f"{scored_on} accuracy", floor, 1.0, percent=True)
    chart = Chart("sweep", "Accuracy against learning rate", _sweep_words(points_by_recipe), x, y)
    for (name, points), look in zip(points_by_recipe.items(), cycle(LOOKS), strict=False):
        _add_sweep(chart, sorted(points, key=lambda p: p.learning_rate), look)
        chart.keys.append(Key(name, look))
    return chart


def _add_sweep(chart: Chart, points: Sequence[SweepPoint], look: str) -> None:
    chart.add_line([(p.learning_rate, p.accuracy.value) for p in points if p.accuracy], look)
    for point in points:
        rate = point.learning_rate
        if point.accuracy is None:
            chart.add_dot((rate, chart.y.low), look, f"{rate:g}: diverged", cross=True)
            continue
        low, high = point.accuracy.interval
        chart.add_line([(rate, low), (rate, high)], look)
        chart.add_dot((rate, point.accuracy.value), look, f"{rate:g}: {point.accuracy.sentence()}")


def _sweep_words(points_by_recipe: Mapping[str, Sequence[SweepPoint]]) -> str:
    parts = []
    for name, points in points_by_recipe.items():
        fine = [(point.accuracy.value, -point.learning_rate) for point in points if point.accuracy]
        best = f"{name} is best at {-max(fine)[1]:g} ({max(fine)[0]:.1%})" if fine else f"{name} diverged everywhere"
        lost = sum(point.diverged for point in points)
        parts.append(best + (f" and diverged at {lost} of {len(points)} rates" if lost and fine else ""))
    return (
        "Too small a rate learns too little, too large a one destroys what was learned before: look for the top of the "
        f"hill. {'; '.join(parts)}. Upright lines are 95% intervals; a cross is a run that diverged."
    )


def _curves_words(loss: list[Any], train: list[Any], held: list[Any], scored_on: str) -> str:
    parts = []
    if loss:
        parts.append(f"Loss on the training pictures went from {loss[0][1]:.3g} to {loss[-1][1]:.3g} (lower is better)")
    if train:
        parts.append(f"accuracy on them ended at {train[-1][1]:.1%}")
    if held:
        parts.append(f"accuracy on {scored_on} pictures at {held[-1][1]:.1%} (higher is better)")
    return (
        f"{', '.join(parts)}. A {scored_on} line that falls while the training line rises would mean learning by heart."
    )


def _coverage_words(points: Sequence[Mapping[str, Any]]) -> str:
    whole, most, half = (_nearest(points, share) for share in (1.0, 0.9, 0.5))
    return (
        "Let the model pass on what it is least sure of, and it is right more often on the rest: "
        f"{whole['accuracy']:.1%} when it answers {whole['coverage']:.0%} of the pictures, "
        f"{most['accuracy']:.1%} at {most['coverage']:.0%}, "
        f"{half['accuracy']:.1%} at {half['coverage']:.0%}. Higher is better; a flat line means that its confidence "
        "says nothing."
    )


def _nearest(points: Sequence[Mapping[str, Any]], share: float) -> Mapping[str, Any]:
    return min(points, key=lambda point: abs(point["coverage"] - share))


def _finite(curves: Curves, measure: Callable[[CurvePoint], float | None]) -> list[tuple[float, float]]:
    pairs = ((point.epoch, measure(point)) for point in curves)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def _loss(point: CurvePoint) -> float | None:
    return point.loss


def _train(point: CurvePoint) -> float | None:
    return point.train_accuracy


def _held(point: CurvePoint) -> float | None:
    return point.test_accuracy
