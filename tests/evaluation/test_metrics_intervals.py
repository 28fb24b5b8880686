"""Bootstrap intervals: against drawing the pictures again one by one, and against how often they hold the truth."""

import numpy as np
import pytest

from relish.evaluation import figures as figures_module
from relish.evaluation.figures import area_under_curve
from relish.evaluation.metrics import Estimate, balanced_figures, score

NAMES = ("a", "b", "c")


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
    balanced, macro = balanced_figures(score(p, labels, NAMES), resamples=20_000)
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
    scores = score(*answers(3), NAMES)
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
    began = time.monotonic()
    figures(logits, labels, [str(k) for k in range(classes)])
    seconds = time.monotonic() - began
    print(f"\n100,000 pictures of {classes} classes: {seconds:.1f} s")
    assert seconds < 60
