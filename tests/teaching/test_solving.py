"""The probe of a folder that changes: solved again from where it was, and what more images would bring."""

import numpy as np
import pytest

from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import softmax
from relish.teaching.solving import (
    FOLDS,
    Examples,
    LearningCurve,
    advice,
    chosen_strength,
    dealt_folds,
    fitted_curve,
    measured_curve,
    solve,
)
from relish.teaching.suggestions import most_useful
from relish.training.linear_probe import fit_probe


def examples(count: int = 60, classes: tuple[str, ...] = ("cat", "dog", "owl"), apart: float = 2.0) -> Examples:
    """Features of as many classes, each around a corner of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(classes)
    features = rng.normal(size=(count, 12)).astype(np.float32)
    features[np.arange(count), labels] += apart
    keys = tuple(f"{place:064x}" for place in range(count))
    return Examples(classes, keys, labels.astype(np.int64), keys, features)


def relabelled(some: Examples, place: int, label: int) -> Examples:
    labels = some.labels.copy()
    labels[place] = label
    return Examples(some.classes, some.contents, labels, some.units, some.features)


def test_solved_again_after_a_change_it_is_the_probe_that_the_images_give():
    before = solve(examples(), bias=True)
    changed = relabelled(examples(), 7, 0)
    again, afresh = solve(changed, before, bias=True), fit_probe(changed.features, changed.labels, 3, 0.01)
    np.testing.assert_allclose(again.probe.logits(changed.features), afresh.logits(changed.features), atol=0.02)
    assert again.accuracy.count == 60


def test_a_class_that_comes_goes_or_gets_another_name_is_solved_for_too():
    some = examples()
    renamed = Examples(("ape", "dog", "owl"), some.contents, some.labels, some.units, some.features)
    two = np.flatnonzero(some.labels < 2)
    fewer = Examples(
        ("cat", "dog"), tuple(some.contents[i] for i in two), some.labels[two], tuple(some.units[i] for i in two),
        some.features[two],
    )  # fmt: skip
    found = solve(some, bias=True)
    for other in (fewer, renamed, some):
        found = solve(other, found, bias=True)
        afresh = fit_probe(other.features, other.labels, len(other.classes), 0.01)
        now, then = (softmax(one.logits(other.features)) for one in (found.probe, afresh))
        np.testing.assert_allclose(now, then, atol=0.01)


def test_folds_stay_as_they_are_and_new_images_go_where_their_class_has_the_fewest():
    some = examples(60)
    first = dealt_folds(some.units[:45], some.labels[:45], {})
    more = dealt_folds(some.units, some.labels, first)
    assert first.items() <= more.items()
    for label in range(3):
        sizes = np.bincount([more[unit] for unit, one in zip(some.units, some.labels, strict=True) if one == label])
        assert (len(sizes), set(sizes)) == (FOLDS, {4})


def test_images_of_one_unit_are_held_out_together():
    some = examples(60)
    units = tuple(f"{place // 6}" for place in range(60))
    fold_of = dealt_folds(units, some.labels, {})
    assert set(fold_of) == set(units)
    series = Examples(some.classes, some.contents, some.labels, units, some.features)
    assert solve(series, bias=True).accuracy.effective is not None


def test_the_strength_is_chosen_among_those_of_the_ladder():
    solved = solve(examples(apart=0.5), bias=True)
    assert chosen_strength(solved, True) > 0.1  # classes that overlap ask for a strong penalty


def test_a_learning_curve_is_found_again():
    sizes = [20.0, 40.0, 80.0]
    curve = fitted_curve(sizes, [0.8 * size**-0.4 for size in sizes], [10_000] * 3)
    assert curve.power == pytest.approx(0.4, abs=0.02)
    assert curve.accuracy(160) == pytest.approx(1 - 0.8 * 160**-0.4, abs=0.01)


def test_the_learning_curve_of_these_images_falls_with_their_number():
    curve = measured_curve(solve(examples(120, apart=1.5), bias=True), True)
    assert 0 <= curve.power <= 1
    assert curve.accuracy(1000) >= curve.accuracy(50)


def test_so_many_images_are_asked_for_as_halve_the_interval():
    found = advice(Proportion(36, 40), LearningCurve(0.6, 0.5), 20)
    assert found is not None
    assert found["now_each"] == 20
    assert found["then_width"] <= found["now_width"] / 2
    assert found["each"] > 20
    assert advice(Proportion(9_900, 10_000), LearningCurve(0.6, 0.5), 5_000) is None


def test_the_most_useful_images_are_uncertain_and_unlike_one_another():
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]] * 3
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.55, 0.45], [1.0, 0.0], [1.0, 0.0]])
    drawn = [most_useful(features, probabilities, 2, seed) for seed in range(50)]
    assert {first for first, _ in drawn} == {0}
    counts = np.bincount([second for _, second in drawn], minlength=5)
    assert counts[1] == 0  # as the first one
    assert counts[2] > max(counts[3:])  # certain ones are drawn less often
    assert sorted(most_useful(features, probabilities, 9)) == [0, 1, 2, 3, 4]
    assert len(set(most_useful(features, None, 4))) == 4
    assert most_useful(features[:0], None, 3) == []
