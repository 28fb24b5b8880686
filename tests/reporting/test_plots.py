"""The plots of a run, a comparison and a sweep: what they show, and what they say in words."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from relish.evaluation.figures import reliability
from relish.evaluation.metrics import CurvePoint, Proportion, SweepPoint
from relish.reporting.plots import (
    LOSS_CEILING,
    comparison,
    coverage_curve,
    learning_rates,
    pareto_front,
    reliability_diagram,
    source_models,
    training_curves,
)
from relish.reporting.svg import write_svg

CURVES = tuple(CurvePoint(k / 5, 1 / k, 1 - 0.5 / k, 1 - 0.4 / k if k % 5 == 0 else None) for k in range(1, 16))
RATES = [SweepPoint(1e-4, Proportion(80, 100)), SweepPoint(1e-3, Proportion(90, 100))]


def labels(chart):
    return [key.label for key in chart.keys]


def test_a_curve_that_was_never_measured_is_not_drawn():
    assert labels(training_curves(CURVES, "test")) == ["train loss", "train accuracy", "test accuracy"]
    only_loss = training_curves(tuple(CurvePoint(point.epoch, point.loss) for point in CURVES), "test")
    assert labels(only_loss) == ["train loss"]
    assert [line.colour for line in only_loss.lines] == ["c1"]


@pytest.mark.parametrize(
    "curves",
    [
        (CurvePoint(0.2, 0.7, 0.5),),
        (CurvePoint(1.0, 0.7, 0.5, 0.6),),
        (CurvePoint(1.0, math.nan, 0.5), CurvePoint(2.0, math.inf, 0.5, 0.5)),
        (CurvePoint(1.0, 1e30, 0.5), CurvePoint(2.0, 1e-30, 0.5, 0.5)),
    ],
    ids=["one point", "one epoch", "diverged", "enormous"],
)
def test_a_training_that_went_wrong_or_just_began_can_be_drawn(tmp_path, curves):
    for chart in (training_curves(curves, "test"), comparison({"x": curves}, "test")):
        path = write_svg(chart, tmp_path / "chart.svg")
        assert ElementTree.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - our own file
        assert not {"nan", "inf"} & set(path.read_text().replace('"', " ").split())


def test_plots_of_nothing_are_left_out():
    assert (training_curves((), "test"), comparison({"x": ()}, "test")) == (None, None)
    assert (learning_rates({}), coverage_curve([]), reliability_diagram([], [])) == (None, None, None)
    assert source_models({}) is None


def test_a_loss_above_the_chart_is_told():
    high = training_curves((CurvePoint(1.0, 10.0), CurvePoint(2.0, 1.0)), "test")
    assert "goes up to 10" in high.note
    assert high.y.high == LOSS_CEILING
    assert training_curves(CURVES, "test").note == ""


def test_epochs_are_whole_numbers_from_one_epoch_on():
    assert all(float(label).is_integer() for _, label in training_curves(CURVES, "test").x.ticks)


def test_every_recipe_of_a_comparison_looks_different():
    chart = comparison({f"recipe {k}": CURVES for k in range(28)}, "test")
    assert len({(key.colour, key.marker) for key in chart.keys[:28]}) == 28
    assert len({key.colour for key in chart.keys[:7]}) == 7


def test_a_diverged_point_of_a_sweep_is_marked():
    whole, diverged = learning_rates({"book": RATES}), learning_rates({"book": [*RATES, SweepPoint(2e-4, None)]})
    assert labels(diverged) == [*labels(whole), "diverged"]
    assert [dot.marker for dot in diverged.dots] == ["circle", "cross", "circle"]


def test_recipes_at_the_same_rate_do_not_hide_each_other():
    chart = learning_rates(dict.fromkeys("abcdefg", RATES))
    assert len({dot.x for dot in chart.dots}) == len(chart.dots) == 14


@pytest.mark.parametrize("done", [[], [Proportion(100, 100)], [Proportion(0, 100)]])
def test_a_sweep_at_the_edges_can_be_drawn(tmp_path, done):
    points = [SweepPoint(1.0, None), *(SweepPoint(0.1, accuracy) for accuracy in done)]
    assert write_svg(learning_rates({"book": points}), tmp_path / "s.svg").stat().st_size > 1000


def test_a_sweep_in_which_all_diverged_is_drawn_too():
    chart = learning_rates({"book": [SweepPoint(0.1, None), SweepPoint(1.0, None)]})
    assert [dot.marker for dot in chart.dots] == ["cross", "cross"]
    assert "book diverged everywhere" in chart.summary


def test_bins_are_those_of_their_definition():
    rng = np.random.default_rng(1)
    found, labels = rng.dirichlet([1, 1, 1], 500), rng.integers(0, 3, 500)
    sure, right = found.max(1), found.argmax(1) == labels
    wanted = [
        (sure[of].mean(), right[of].mean())
        for low in np.arange(15) / 15
        if (of := (sure > low) & (sure <= low + 1 / 15)).any()
    ]
    bins = [(one.confidence, one.accuracy) for one in reliability(found, labels)]
    np.testing.assert_allclose(bins, wanted)


def test_a_source_that_is_beaten_in_both_is_not_on_the_front():
    points = {"slow": (9.0, 0.8), "quick": (1.0, 0.7), "best": (5.0, 0.9), "beaten": (4.0, 0.6)}
    assert pareto_front(points) == ["quick", "best"]
    chart = source_models({name: (ms, Proportion(round(100 * right), 100)) for name, (ms, right) in points.items()})
    assert labels(chart)[:-1] == list(points)
    assert "quick: 70.0% at 1 ms; best: 90.0% at 5 ms" in chart.summary
    assert [line.dashed for line in chart.lines] == [True, False, False, False, False]
