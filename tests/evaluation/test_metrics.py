"""Scores: against scikit-learn and statsmodels, and where nothing can be divided by."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from statsmodels.stats.proportion import proportion_confint

from relish.core.errors import DataError, Diverged
from relish.evaluation import figures as figures_module
from relish.evaluation.figures import area_under_curve
from relish.evaluation.metrics import Estimate, Proportion, Scores, balanced_figures, score, wilson

NAMES = ("bun", "hotdog", "mustard", "pizza")


def drawn(seed, pictures=200, classes=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), pictures), rng.integers(0, classes, pictures)


def one_hot(said, classes):
    return np.eye(classes)[said]


@pytest.mark.parametrize(("correct", "count"), [(752, 800), (0, 5), (5, 5), (1, 1), (1, 3), (400, 2801)])
def test_the_interval_is_wilsons(correct, count):
    assert wilson(correct, count) == pytest.approx(proportion_confint(correct, count, method="wilson"), abs=1e-9)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_value_and_stays_within_0_and_1(shares):
    correct, count = shares
    low, high = wilson(correct, count)
    assert 0 <= low <= correct / count <= high <= 1
    assert low < high


def test_nothing_is_known_of_no_pictures():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "count"), [(6, 5), (-1, 5), (0, -1)])
def test_more_right_than_there_are_is_refused(correct, count):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(correct, count)


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_agrees_with_scikit_learn(seed):
    probabilities, labels = drawn(seed)
    said = probabilities.argmax(1)
    scores = score(probabilities, labels, NAMES)
    assert scores.top1.value == pytest.approx(accuracy_score(labels, said), abs=1e-9)
    assert np.array_equal(scores.confusion, confusion_matrix(labels, said, labels=range(4)))
    theirs = precision_recall_fscore_support(labels, said, labels=range(4))
    ours = [(one.precision, one.recall, one.f1, one.count) for one in scores.per_class]
    np.testing.assert_allclose(ours, np.transpose(theirs), atol=1e-9)


def test_rows_of_the_confusion_are_the_truth():
    scores = score(one_hot([1, 1, 0], 2), np.array([0, 1, 1]), ("a", "b"))
    assert scores.confusion == ((0, 1), (1, 1))


def test_of_equal_probabilities_the_first_class_counts():
    assert score(np.full((3, 2), 0.5), np.array([0, 0, 1]), ("a", "b")).top1.correct == 2


def test_a_class_without_pictures_has_no_figures_even_if_it_was_said():
    absent = score(one_hot([2, 0, 1], 3), np.array([0, 0, 1]), ("a", "b", "c")).per_class[2]
    assert (absent.precision, absent.recall, absent.f1, absent.count) == (None, None, None, 0)


def test_a_class_that_was_never_said_has_no_precision_but_a_recall_of_0():
    silent = score(one_hot([0, 0, 0], 2), np.array([0, 0, 1]), ("a", "b")).per_class[1]
    assert (silent.precision, silent.recall, silent.f1) == (None, 0, 0)


def test_the_document_is_plain_json_with_the_keys_that_evaluate_promises():
    probabilities, labels = drawn(0, classes=2)
    document = score(probabilities.astype(np.float32), labels, ("hotdog", "not-hotdog")).as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document) == ["top1", "classes", "per_class", "confusion"]
    assert list(document["top1"]) == ["value", "correct", "count", "interval"]
    assert list(document["per_class"][0]) == ["class", "precision", "recall", "f1", "count"]


def test_the_document_of_a_class_without_pictures_has_null_and_no_nan():
    document = score(one_hot([0], 2), np.array([0]), ("a", "b")).as_json()
    assert json.loads(json.dumps(document, allow_nan=False))["per_class"][1]["recall"] is None


def test_scores_come_back_from_their_document():
    probabilities, labels = drawn(3)
    scores = score(probabilities, labels, NAMES)
    assert Scores.from_json(json.loads(json.dumps(scores.as_json()))) == scores


def test_the_sentence_says_the_count_and_the_interval():
    low, high = proportion_confint(752, 800, method="wilson")
    assert Proportion(752, 800).sentence() == f"0.940 (752 of 800, 95% interval {low:.3f}–{high:.3f})"


def test_the_order_of_the_pictures_leaves_the_scores_alone():
    probabilities, labels = drawn(1)
    order = np.random.default_rng(2).permutation(len(labels))
    assert score(probabilities[order], labels[order], NAMES) == score(probabilities, labels, NAMES)


def test_no_pictures_at_all_is_an_error():
    with pytest.raises(DataError, match="no picture to score"):
        score(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), NAMES)


def test_an_answer_that_is_not_a_number_is_an_error_and_not_class_0():
    probabilities, labels = drawn(0)
    probabilities[7, 2] = np.nan
    with pytest.raises(Diverged, match="1 of 200 pictures"):
        score(probabilities, labels, NAMES)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_outside_the_classes_is_refused_rather_than_counted_elsewhere(label):
    probabilities, labels = drawn(0)
    labels[0] = label
    with pytest.raises(ValueError, match="4 classes"):
        score(probabilities, labels, NAMES)


def test_probabilities_of_another_shape_are_refused():
    probabilities, labels = drawn(0)
    with pytest.raises(ValueError, match="expected"):
        score(probabilities, labels, NAMES[:3])


THREE = ("a", "b", "c")


def answers(seed, counts=(60, 25, 15)):
    chance, labels = np.random.default_rng(seed), np.repeat(range(len(counts)), counts)
    logits = chance.normal(size=(len(labels), len(counts))) + 1.2 * np.eye(len(counts))[labels]
    raised = np.exp(logits)
    return raised / raised.sum(1, keepdims=True), labels


def drawn_again(labels, draws, seed=0):
    """Positions of pictures, class by class, with replacement."""
    chance = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate(
            [chance.choice(np.flatnonzero(labels == k), (labels == k).sum()) for k in np.unique(labels)]
        )


def recalls(labels, said):
    return np.mean([(said[labels == k] == k).mean() for k in np.unique(labels)])


def f1s(labels, said):
    pairs = [(labels == k, said == k) for k in np.unique(labels)]
    return np.mean([2 * (own & told).sum() / (own.sum() + told.sum()) for own, told in pairs])


def areas(labels, p):
    """Pair by pair, ties half."""
    gaps = [p[labels == k, k][:, None] - p[labels != k, k] for k in np.unique(labels)]
    return np.mean([((gap > 0) + 0.5 * (gap == 0)).mean() for gap in gaps])


def test_an_interval_is_that_of_drawing_the_pictures_again(monkeypatch):
    """The ends of two bootstraps of so many draws differ by some thousandths."""
    monkeypatch.setattr(figures_module, "RESAMPLES", 4000)
    p, labels = answers(1)
    said = p.argmax(1)
    balanced, macro = balanced_figures(score(p, labels, THREE), resamples=20_000)
    again = [
        (recalls(labels[i], said[i]), f1s(labels[i], said[i]), areas(labels[i], p[i]))
        for i in drawn_again(labels, 4000)
    ]
    theirs = np.quantile(again, (0.025, 0.975), axis=0).T
    ours = [balanced.interval, macro.interval, area_under_curve(p, labels).interval]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.008)
    assert np.diff(theirs).min() > 0.08, "or the comparison would prove nothing"


def test_for_many_pictures_the_placements_say_what_the_bootstrap_says(monkeypatch):
    p, labels = answers(2, (600, 300, 100))
    bootstrap = area_under_curve(p, labels)
    monkeypatch.setattr(figures_module, "MOST_RESAMPLED", 0)
    placements = area_under_curve(p, labels)
    assert placements.value == bootstrap.value
    assert placements.interval == pytest.approx(bootstrap.interval, abs=0.003)


def test_the_same_pictures_have_the_same_interval_every_time():
    scores = score(*answers(3), THREE)
    assert balanced_figures(scores) == balanced_figures(scores)
    assert balanced_figures(scores) != balanced_figures(scores, seed=1)


@pytest.mark.slow
def test_intervals_hold_the_true_balanced_accuracy_about_as_often_as_they_say():
    """Recalls of 0.9 and 0.7, 80 and 40 pictures: the truth is 0.8. Percentile intervals run a little narrow."""
    chance, held = np.random.default_rng(0), 0
    labels = np.repeat([0, 1], [80, 40])
    for number in range(400):
        right = chance.random(120) < np.where(labels == 0, 0.9, 0.7)
        said = np.where(right, labels, 1 - labels)
        found, _ = balanced_figures(score(np.eye(2)[said], labels, ("a", "b")), seed=number)
        held += found.interval[0] <= 0.8 <= found.interval[1]
    assert 0.91 <= held / 400 <= 0.98


def test_a_figure_without_an_error_has_an_interval_without_width():
    labels = np.repeat([0, 1], 10)
    balanced, macro = balanced_figures(score(np.eye(2)[labels], labels, ("a", "b")))
    assert balanced == macro == Estimate(1.0, (1.0, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 100])
def test_a_hundred_thousand_pictures_take_seconds(classes):
    import time

    from relish.evaluation.figures import figures

    chance = np.random.default_rng(0)
    labels = chance.integers(0, classes, 100_000)
    logits = (chance.normal(size=(100_000, classes)) + 2 * np.eye(classes)[labels]).astype(np.float32)
    seconds = []
    for count in (10_000, 100_000):
        began = time.process_time()
        figures(logits[:count], labels[:count], [str(k) for k in range(classes)])
        seconds.append(time.process_time() - began)
    print(f"\n100,000 pictures of {classes} classes: {seconds[1]:.1f} s")
    assert seconds[1] < 60
    assert seconds[1] < 40 * seconds[0], "ten times as many take about ten times as long, not a hundred times"
