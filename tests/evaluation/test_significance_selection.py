"""A rung takes another's place only where it is better by more than chance, and is right no less often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relish.evaluation.significance import compare_losses, tempered_losses


def answers(pictures: int, right: int, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """So many pictures of two classes, the first so many answered right, each with the same certainty."""
    labels = np.arange(pictures) % 2
    said = np.where(np.arange(pictures) < right, labels, 1 - labels)
    probabilities = np.full((pictures, 2), 1 - sure, dtype=np.float32)
    probabilities[np.arange(pictures), said] = sure
    return probabilities, labels


def test_more_pictures_right_is_better():
    few, labels = answers(400, 340, 0.8)
    many, _ = answers(400, 380, 0.9)
    assert compare_losses(many, few, labels).better
    assert not compare_losses(few, many, labels).better
    assert compare_losses(many, few, labels).sentence().startswith("+10.0 points (380 of 400), loss ")


def test_one_picture_more_of_a_few_is_not_enough():
    few, labels = answers(20, 15, 0.75)
    one_more, _ = answers(20, 16, 0.8)
    assert not compare_losses(one_more, few, labels).better


def test_the_same_answers_are_not_better():
    said, labels = answers(50, 40, 0.8)
    verdict = compare_losses(said, said, labels)
    assert (verdict.gain, verdict.better) == (0, False)


def test_too_much_certainty_alone_is_neither_better_nor_worse():
    """At its best temperature a model that is too sure is the model it is when it is not."""
    chance = np.random.default_rng(0)
    logits, labels = chance.normal(size=(300, 4)), chance.integers(0, 4, 300)
    logits[np.arange(300), labels] += 1.5

    def softmax(scores):
        return (np.exp(scores) / np.exp(scores).sum(1, keepdims=True)).astype(np.float32)

    verdict = compare_losses(softmax(2.5 * logits), softmax(logits), labels)
    assert verdict.gain == pytest.approx(0, abs=1e-4)
    assert not verdict.better


@given(
    arrays(np.float32, (12, 3), elements=st.floats(0, 1, width=32)), arrays(np.int64, 12, elements=st.integers(0, 2))
)
def test_tempering_never_makes_the_loss_larger(probabilities, labels):
    totals = probabilities.sum(1, keepdims=True)
    probabilities = np.where(totals > 0, probabilities / np.where(totals > 0, totals, 1), np.float32(1 / 3))
    plain = -np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    plain += np.log(np.exp(-plain).sum(1, keepdims=True))
    losses = tempered_losses(probabilities, labels)
    assert np.isfinite(losses).all()
    assert losses.mean() <= plain[np.arange(12), labels].mean() + 1e-4
