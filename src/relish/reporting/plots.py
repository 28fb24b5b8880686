"""The plots of a run, a comparison, a sweep and a trial of sources: which lines, points and bars stand in them, and
what they say.

Each function takes figures as the files of a run hold them and returns a `Chart`, or None where there is nothing to
draw. The report shows charts inside its page; `svg.write_svg` writes one to a file.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

from relish.evaluation.metrics import CurvePoint, Curves, Proportion, SweepPoint
from relish.reporting.svg import COLOURS, Axis, Chart, Key, Point, even_axis, log_axis

LOSS_CEILING = 2.5
"""A loss above this is cut off: the axis would press the accuracies into a flat line."""
POINT_MARKERS = ("circle", "square", "triangle", "diamond")
"""A second difference beside colour: 4 markers over 7 colours make 28 pairs before one comes back."""
BESIDE = 0.09
"""Decades between recipes that were trained at the same rate, so that their points do not hide each other."""


def training_curves(
    curves: Curves, scored_on: str, *, title: str = "Loss and accuracy during training"
) -> Chart | None:
    """Training loss, training accuracy and held-out accuracy, on the split `scored_on`, against epochs: the book's
    figure. Points without a finite value are omitted from that line.
    """
    loss, train, held = (_finite(curves, "loss"), _finite(curves, "train_accuracy"), _finite(curves, "test_accuracy"))
    if not (loss or train or held):
        return None
    highest = max((y for _, y in loss), default=0.0)
    y = even_axis("loss, accuracy", 0.0, max(1.0, min(highest, LOSS_CEILING)))
    chart = Chart("curves", title, _curves_summary(loss, train, held, scored_on), _epoch_axis(curves), y)
    if highest > LOSS_CEILING:
        chart.note = f"▲ train loss goes up to {highest:.3g}, above this chart"
    for name, points, colour, dashed in (
        ("train loss", loss, "c1", False),
        ("train accuracy", train, "c4", True),
        (f"{scored_on} accuracy", held, "c3", False),
    ):
        if points:
            chart.add_line(points, colour, dashed=dashed)
            chart.keys.append(Key(name, colour, dashed, "circle" if points is held else None))
        if len(points) == 1 and points is not held:  # a line of one point cannot be seen
            chart.add_dot(points[0], colour, f"epoch {points[0][0]:g}: {name} {points[0][1]:.3g}")
    for at, value in held:
        chart.add_dot((at, value), "c3", f"epoch {at:g}: {scored_on} accuracy {value:.1%}")
    return chart


def comparison(curves_by_name: Mapping[str, Curves], scored_on: str) -> Chart | None:
    """Accuracies of several trainings against epochs, in the order of the legend: a colour each, solid on the split
    `scored_on`, dashed on the training images.
    """
    points = {
        name: (_finite(curves, "train_accuracy"), _finite(curves, "test_accuracy"))
        for name, curves in curves_by_name.items()
    }
    accuracies = [y for lines in points.values() for line in lines for _, y in line]
    if not accuracies:
        return None
    x = _epoch_axis([point for curves in curves_by_name.values() for point in curves])
    y = even_axis("accuracy", max(0.0, math.floor(min(accuracies) * 20) / 20 - 0.02), 1.0, percent=True)
    ends = "; ".join(f"{name} ended at {held[-1][1]:.1%}" for name, (_, held) in points.items() if held)
    summary = f"Accuracy on {scored_on} pictures and on training pictures after each epoch; higher is better. {ends}."
    chart = Chart("comparison", "Accuracy during training, by recipe", summary, x, y)
    for (name, (train, held)), colour, marker in zip(
        points.items(), cycle(COLOURS), cycle(POINT_MARKERS), strict=False
    ):
        chart.add_line(train, colour, dashed=True)
        chart.add_line(held, colour)
        for at, value in held:
            chart.add_dot((at, value), colour, f"{name}, epoch {at:g}: {scored_on} {value:.1%}", marker=marker)
        chart.keys.append(Key(name, colour, marker=marker))
    chart.keys += [Key(f"{scored_on} accuracy", "soft"), Key("train accuracy", "soft", dashed=True)]
    return chart


def learning_rates(points_by_recipe: Mapping[str, Sequence[SweepPoint]]) -> Chart | None:
    """Validation accuracy against learning rate, with 95% intervals; a cross on the lower edge is a diverged run."""
    everything = [point for points in points_by_recipe.values() for point in points]
    if not everything:
        return None
    lows = [point.accuracy.interval[0] for point in everything if point.accuracy]
    floor = max(0.0, math.floor(min(lows, default=0.0) * 20 - 1) / 20)
    x = log_axis("learning rate", [point.learning_rate for point in everything])
    y = even_axis("validation accuracy", floor, 1.0, percent=True)
    chart = Chart("sweep", "Accuracy against learning rate", _sweep_summary(points_by_recipe), x, y)
    recipes = len(points_by_recipe)
    styles = zip(points_by_recipe.items(), cycle(COLOURS), cycle(POINT_MARKERS), strict=False)
    for place, ((name, points), colour, marker) in enumerate(styles):
        beside = 10 ** (min(BESIDE, 4 * BESIDE / recipes) * (place - (recipes - 1) / 2))
        _add_sweep(chart, sorted(points, key=lambda p: p.learning_rate), beside, colour, marker)
        chart.keys.append(Key(name, colour, marker=marker))
    if len(lows) < len(everything):
        chart.keys.append(Key("diverged", "soft", marker="cross", line=False))
    return chart


def source_models(found: Mapping[str, tuple[float, Proportion]]) -> Chart | None:
    """Accuracy against the milliseconds that an image takes, with 95% intervals; a dashed line joins the sources that
    no other one beats in both.

    Args:
        found: by name, milliseconds above 0 and the accuracy.
    """
    if not found:
        return None
    floor = max(0.0, math.floor(min(accuracy.interval[0] for _, accuracy in found.values()) * 20) / 20)
    x = log_axis("milliseconds a picture", [float(f"{ms:.2g}") for ms, _ in found.values()])
    y = even_axis("cross-validated accuracy", floor, 1.0, percent=True)
    front = pareto_front({name: (ms, accuracy.value) for name, (ms, accuracy) in found.items()})
    steps = "; ".join(f"{name}: {found[name][1].value:.1%} at {found[name][0]:.3g} ms" for name in front)
    summary = (
        f"Higher is better, and so is further left. The dashed line joins the sources that none beats in both: {steps}."
    )
    chart = Chart("sources", "Accuracy against time, by source model", summary, x, y)
    chart.add_line([(found[name][0], found[name][1].value) for name in front], "soft", dashed=True)
    for (name, (ms, accuracy)), colour, marker in zip(
        found.items(), cycle(COLOURS), cycle(POINT_MARKERS), strict=False
    ):
        chart.add_error_bar(ms, *accuracy.interval, colour)
        chart.add_dot((ms, accuracy.value), colour, f"{name}, {ms:.3g} ms: {accuracy.sentence()}", marker=marker)
        chart.keys.append(Key(name, colour, marker=marker, line=False))
    chart.keys.append(Key("none beats these in both", "soft", dashed=True))
    return chart


def pareto_front(found: Mapping[str, Point]) -> list[str]:
    """The names that no other one is both quicker and more accurate than, the quickest first.

    Args:
        found: by name, (time, accuracy); of equals the first name stands for all.
    """
    front: list[str] = []
    for name in sorted(found, key=lambda name: (found[name][0], -found[name][1])):
        if not front or found[name][1] > found[front[-1]][1]:
            front.append(name)
    return front


def reliability_diagram(bins: Sequence[Mapping[str, Any]], before: Sequence[Point]) -> Chart | None:
    """How often the model is right against its confidence.

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
        tooltip = f"{one['count']:,} answers at {one['confidence']:.1%} confidence: {one['accuracy']:.1%} right"
        chart.add_bar(one["low"], one["high"], one["accuracy"], "c1", tooltip)
    chart.add_line([(0, 0), (1, 1)], "soft", dashed=True)
    chart.keys += [
        Key("right as often as it says", "soft", dashed=True),
        Key("the model", "c1", marker="square", line=False),
    ]
    for confidence, accuracy in before:
        chart.add_dot((confidence, accuracy), "c2", f"before: {confidence:.1%} sure, {accuracy:.1%} right")
    if before:
        chart.keys.append(Key("before its temperature was set", "c2", marker="circle", line=False))
    return chart


def coverage_curve(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Accuracy against the fraction of images that are answered, the surest first: `coverage` of evaluation.json."""
    if not points:
        return None
    lowest = min(point["accuracy"] for point in points)
    x = even_axis("pictures answered", 0.0, 1.0, percent=True, most=5)
    y = even_axis("right among them", max(0.0, math.floor(lowest * 20 - 0.5) / 20), 1.0, percent=True)
    chart = Chart("coverage", "Accuracy against the share answered", _coverage_summary(points), x, y)
    chart.add_line([(p["coverage"], p["accuracy"]) for p in points], "c1")
    for point in (_nearest(points, share) for share in (1.0, 0.9, 0.75, 0.5, 0.25)):
        tooltip = (
            f"answering {point['coverage']:.0%} (those of {point['unsure_below']:.3f} and surer): "
            f"{point['accuracy']:.1%} right"
        )
        chart.add_dot((point["coverage"], point["accuracy"]), "c1", tooltip)
    return chart


def _epoch_axis(curves: Iterable[CurvePoint]) -> Axis:
    """From 0; the book's begins at epoch 1, which hides the epoch in which most happens."""
    last = max(point.epoch for point in curves) or 1.0
    return even_axis("epoch", 0.0, last, integers=last >= 1)


def _add_sweep(chart: Chart, points: Sequence[SweepPoint], beside: float, colour: str, marker: str) -> None:
    chart.add_line([(p.learning_rate * beside, p.accuracy.value) for p in points if p.accuracy], colour)
    for point in points:
        rate, at = point.learning_rate, point.learning_rate * beside
        if point.accuracy is None:
            chart.add_dot((at, chart.y.low), colour, f"{rate:g}: diverged", marker="cross")
            continue
        chart.add_error_bar(at, *point.accuracy.interval, colour)
        chart.add_dot((at, point.accuracy.value), colour, f"{rate:g}: {point.accuracy.sentence()}", marker=marker)


def _sweep_summary(points_by_recipe: Mapping[str, Sequence[SweepPoint]]) -> str:
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


def _curves_summary(loss: list[Point], train: list[Point], held: list[Point], scored_on: str) -> str:
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


def _coverage_summary(points: Sequence[Mapping[str, Any]]) -> str:
    everything, most, half = (_nearest(points, share) for share in (1.0, 0.9, 0.5))
    return (
        "Let the model pass on what it is least sure of, and it is right more often on the rest: "
        f"{everything['accuracy']:.1%} when it answers {everything['coverage']:.0%} of the pictures, "
        f"{most['accuracy']:.1%} at {most['coverage']:.0%}, "
        f"{half['accuracy']:.1%} at {half['coverage']:.0%}. Higher is better; a flat line means that its confidence "
        "says nothing."
    )


def _nearest(points: Sequence[Mapping[str, Any]], share: float) -> Mapping[str, Any]:
    return min(points, key=lambda point: abs(point["coverage"] - share))


def _finite(curves: Curves, measure: Literal["loss", "train_accuracy", "test_accuracy"]) -> list[Point]:
    pairs = ((point.epoch, getattr(point, measure)) for point in curves)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]
