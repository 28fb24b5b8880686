"""The probe is the optimum that scikit-learn finds, and the folds it is chosen on keep copies together."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from relish.data.split import NEVER, stratified_folds, stratified_sample, usable_folds
from relish.training.linear_probe import cross_validate, fit_probe


def problem(pictures: int, width: int, classes: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre for each class, of very different scales, one of them constant."""
    chance = np.random.default_rng(seed)
    labels = np.arange(pictures) % classes
    features = chance.normal(size=(classes, width))[labels] + noise * chance.normal(size=(pictures, width))
    features *= 10.0 ** chance.uniform(-1, 1, width)
    features += chance.normal(size=width)
    features[:, 0] = 3.0
    return features.astype(np.float32), labels.astype(np.int64)


def scaled(features: np.ndarray) -> tuple[np.ndarray, float]:
    """The features as the probe sees them, computed here on our own, and what they were divided by."""
    scale = np.sqrt(features.astype(np.float64).var(0).mean())
    return (features - features.mean(0, dtype=np.float64)) / scale, scale


def loss_of(features, labels, weight, bias, strength):
    """The objective in float64: mean cross-entropy plus the penalty."""
    scores = features @ weight.T + bias
    scores -= scores.max(1, keepdims=True)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels]
    return losses.mean() + strength / 2 * (weight**2).sum()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("strength", [1.0, 0.03, 1e-3])
@pytest.mark.parametrize("shape", [(40, 120), (300, 30)], ids=["wide", "tall"])
def test_the_probe_is_scikit_learns_optimum(classes, strength, shape):
    features, labels = problem(*shape, classes, seed=classes)
    seen, spread = scaled(features)
    probe = fit_probe(features, labels, classes, strength)
    ours = loss_of(seen, labels, probe.weight * spread, probe.bias + probe.weight @ features.mean(0), strength)
    # One row of weights stands for two here, so its squares count half.
    theirs = LogisticRegression(C=(2 if classes == 2 else 1) / (strength * len(labels)), tol=1e-9, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(seen, labels)
    weight, bias = theirs.coef_, theirs.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    best = loss_of(seen, labels, weight, bias, strength)
    assert ours <= best * (1 + 1e-4)
    assert (probe.logits(features).argmax(1) == theirs.predict(seen)).mean() >= 0.99


def test_folding_mean_and_scale_in_changes_no_answer():
    features, labels = problem(60, 12, 3, seed=1)
    probe = fit_probe(features, labels, 3, 0.01)
    seen, spread = scaled(features)
    weight = probe.weight.astype(np.float64) * spread
    bias = probe.bias + probe.weight.astype(np.float64) @ features.mean(0, dtype=np.float64)
    np.testing.assert_allclose(probe.logits(features), seen @ weight.T + bias, atol=1e-3)


def test_noise_is_penalised_hard_and_what_can_be_told_apart_is_not():
    clear, labels = problem(120, 20, 2, seed=0, noise=0.3)
    folds = np.arange(120) // 2 % 5
    noise = np.random.default_rng(1).normal(size=clear.shape).astype(np.float32)
    assert cross_validate(noise, labels, 2, folds).strength > 10 * cross_validate(clear, labels, 2, folds).strength


def test_a_picture_is_judged_by_a_probe_that_did_not_learn_from_it():
    """With labels drawn by chance, memory would be right nearly always; honest judging is right half of the time."""
    chance = np.random.default_rng(0)
    features, labels = chance.normal(size=(200, 400)).astype(np.float32), chance.integers(0, 2, 200)
    found = cross_validate(features, labels, 2, np.arange(200) % 5)
    assert (fit_probe(features, labels, 2, 1e-3).logits(features).argmax(1) == labels).all()
    assert 0.35 < (found.logits.argmax(1) == labels).mean() < 0.65


def test_views_of_a_picture_stay_in_its_fold():
    """Each second view is the first again: a probe that had learned from it would know the picture by heart."""
    chance = np.random.default_rng(0)
    features, labels = chance.normal(size=(100, 300)).astype(np.float32), chance.integers(0, 2, 100)
    found = cross_validate(np.tile(features, (2, 1)), np.tile(labels, 2), 2, np.arange(100) % 5)
    assert (found.logits.argmax(1) == labels).mean() < 0.65
    assert found.logits.shape == (100, 2)


def test_pictures_in_no_fold_are_learned_from_and_never_judged():
    features, labels = problem(30, 8, 3, seed=4)
    found = cross_validate(features, labels, 3, np.where(labels == 2, -1, np.arange(30) // 3 % 3))
    assert found.logits.shape == (20, 3)
    np.testing.assert_array_equal(found.held, labels != 2)
    assert np.isfinite(found.logits).all()


def test_an_output_layer_without_a_bias_is_solved_for_without_one():
    """Features far from zero: a probe that counted on a bias would be at chance without it."""
    chance = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = (5 + chance.normal(size=(200, 10)) + labels[:, None] * np.eye(10)[0] * 8).astype(np.float32)
    probe = fit_probe(features, labels, 2, 1e-3, bias=False)
    assert (probe.bias == 0).all()
    assert ((features @ probe.weight.T).argmax(1) == labels).mean() > 0.95


# ---- folds ----------------------------------------------------------------------------------------------------------

datasets = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=4, max_size=60)


@given(datasets, st.integers(2, 6), st.integers(0, 3))
def test_copies_are_in_one_fold_and_classes_are_spread_evenly(pictures, folds, seed):
    labels = np.array([label for label, _ in pictures])
    contents = [f"{label}/{content}" for label, content in pictures]
    fold_of = stratified_folds(labels, contents, folds, seed)
    by_content = dict(zip(contents, fold_of.tolist(), strict=True))
    assert [by_content[content] for content in contents] == fold_of.tolist()
    for label in set(labels.tolist()):
        met = [fold for content, fold in by_content.items() if content.startswith(f"{label}/")]
        if len(met) < folds:
            assert set(met) == {NEVER}, "too rare to be held out"
        else:
            counts = np.bincount(met, minlength=folds)
            assert counts.max() - counts.min() <= 1


@given(datasets, st.randoms())
def test_folds_do_not_depend_on_the_order_of_the_pictures(pictures, chance):
    def folds(listed):
        contents = [f"{label}/{content}" for label, content in listed]
        found = stratified_folds(np.array([label for label, _ in listed]), contents, 3, 0)
        return dict(zip(contents, found.tolist(), strict=True))

    mixed = list(pictures)
    chance.shuffle(mixed)
    assert folds(pictures) == folds(mixed)


def test_a_rare_class_does_not_change_how_the_others_are_held_out():
    labels = np.array([0] * 30 + [1] * 30 + [2])
    contents = [str(place) for place in range(61)]
    assert usable_folds(labels, contents, 5) == 5
    fold_of = stratified_folds(labels, contents, 5, 0)
    assert fold_of[-1] == NEVER
    assert np.bincount(fold_of[:60]).tolist() == [12] * 5


def test_no_more_folds_than_most_classes_have_different_pictures():
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert usable_folds(labels, ["a", "b", "c", "d", "e", "f"], 5) == 3
    assert usable_folds(labels, ["a", "a", "c", "d", "d", "e"], 5) == 2


@settings(max_examples=50)
@given(datasets, st.integers(1, 70))
def test_a_sample_has_every_class_and_its_share(pictures, count):
    labels = np.unique([label for label, _ in pictures], return_inverse=True)[1].astype(np.int64)
    contents = [str(place) for place in range(len(labels))]
    chosen = stratified_sample(labels, contents, count, 0)
    classes = int(labels.max()) + 1
    assert len(chosen) == min(len(labels), max(count, classes))
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(labels[chosen]) == set(labels)
    share = np.bincount(labels) / len(labels)
    assert (np.abs(np.bincount(labels[chosen], minlength=classes) - share * len(chosen)) <= classes + 1).all()
