"""The paired test against statsmodels, by group against every assignment of signs, and curves there and back."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.contingency_tables import mcnemar as reference

from relish.core.errors import RunError
from relish.evaluation.metrics import Proportion, SweepPoint
from relish.evaluation.significance import McNemar, compare_losses, mcnemar, tempered_losses


def pair(both, only_first, only_second, neither):
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(
    "counts", [(700, 31, 12, 57), (700, 12, 31, 57), (0, 1, 0, 0), (5, 7, 7, 1), (1, 300, 200, 9), (790, 10, 0, 0)]
)
def test_the_p_value_is_that_of_statsmodels(counts):
    both, only_first, only_second, neither = counts
    theirs = reference([[both, only_first], [only_second, neither]], exact=True).pvalue
    ours = mcnemar(*pair(*counts))
    assert (ours.only_first, ours.only_second) == (only_first, only_second)
    assert ours.p_value == pytest.approx(theirs, abs=1e-9)


@given(st.tuples(*[st.integers(0, 60)] * 4))
def test_swapping_the_two_swaps_the_counts_and_keeps_the_p_value(counts):
    first, second = pair(*counts)
    one, other = mcnemar(first, second), mcnemar(second, first)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-12)
    assert 0 <= one.p_value <= 1


@given(st.tuples(*[st.integers(0, 40)] * 2), st.integers(0, 500))
def test_pictures_on_which_both_agree_change_nothing(differing, agreed):
    assert mcnemar(*pair(0, *differing, 0)) == mcnemar(*pair(agreed, *differing, agreed))


def test_two_that_never_differ_are_no_evidence():
    outcome = mcnemar(*pair(5, 0, 0, 2))
    assert outcome.p_value == 1
    assert outcome.sentence("A", "B") == "A and B are right on the same pictures."


def test_the_sentence_names_the_better_one():
    words = "A is right on 31 pictures that B gets wrong, B on 12: p = 0.005, so A is better."
    assert mcnemar(*pair(700, 31, 12, 57)).sentence("A", "B") == words
    assert mcnemar(*pair(700, 12, 31, 57)).sentence("A", "B").endswith("so B is better.")


def test_the_sentence_says_when_it_could_be_chance():
    words = "A is right on 1 picture that B gets wrong, B on 3: p = 0.625, so the difference could be chance."
    assert mcnemar(*pair(10, 1, 3, 0)).sentence("A", "B") == words


@pytest.mark.parametrize(("p", "words"), [(1e-9, "p < 0.001"), (0.0496, "p = 0.0496"), (0.3, "p = 0.300")])
def test_a_p_value_is_never_rounded_across_the_line(p, words):
    assert McNemar(1, 2, p).p_words() == words


@given(st.tuples(*[st.integers(0, 30)] * 4))
def test_groups_of_one_picture_are_tested_as_pictures(counts):
    first, second = pair(*counts)
    by_group = mcnemar(first, second, np.arange(len(first)))
    assert by_group.p_value == pytest.approx(mcnemar(first, second).p_value, abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_by_group_the_p_value_counts_all_assignments_of_signs(pictures):
    first, second, groups = (np.array(column) for column in zip(*pictures, strict=True))
    sums = np.bincount(groups, weights=first.astype(int) - second)
    flipped = [abs(np.dot(signs, sums)) for signs in product((1, -1), repeat=len(sums))]
    expected = np.mean([one >= abs(sums.sum()) - 1e-9 for one in flipped])
    assert mcnemar(first, second, groups).p_value == pytest.approx(expected, abs=1e-12)


def test_copies_of_a_picture_are_no_further_evidence():
    first, second = pair(50, 14, 4, 5)
    thrice = np.repeat(first, 3), np.repeat(second, 3)
    found = mcnemar(*thrice, np.repeat(np.arange(len(first)), 3))
    assert found.p_value == pytest.approx(mcnemar(first, second).p_value, abs=1e-12)
    assert mcnemar(*thrice).p_value < found.p_value / 10
    assert "p = 0.031 by group, so A is better" in found.sentence("A", "B")


def test_models_whose_errors_come_in_groups_are_told_apart_no_oftener_than_they_should():
    """Thirty groups of ten, equally good models, 300 draws: a p-value below 0.05 in about one of twenty."""
    chance, groups, plain, by_group = np.random.default_rng(0), np.repeat(np.arange(30), 10), 0, 0
    for _ in range(300):
        first, second = (chance.random(300) < chance.beta(3, 0.7, 30)[groups] for _ in range(2))
        plain, by_group = plain + mcnemar(first, second).differs, by_group + mcnemar(first, second, groups).differs
    assert by_group <= 25
    assert plain > 60


def test_runs_judged_on_other_pictures_cannot_be_paired():
    with pytest.raises(RunError, match="3 pictures, the other on 2"):
        mcnemar(np.ones(3, dtype=bool), np.ones(2, dtype=bool))


def test_a_sweep_point_without_accuracy_has_diverged():
    assert SweepPoint(0.1, None).diverged
    assert not SweepPoint(0.1, Proportion(1, 2)).diverged


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


def test_the_error_of_a_gain_is_that_of_groups_where_pictures_are_copies():
    chance = np.random.default_rng(0)
    labels, said = chance.integers(0, 3, 40), chance.dirichlet(np.ones(3), 40)
    better = (said + np.eye(3)[labels]) / 2
    groups, copied = np.repeat(np.arange(40), 5), [np.repeat(one, 5, axis=0) for one in (better, said, labels)]
    assert compare_losses(*copied, groups).error == pytest.approx(compare_losses(better, said, labels).error)
    assert compare_losses(*copied).error < compare_losses(*copied, groups).error / 2


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
