"""The paired test against statsmodels, and curves there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference

from relish.core.errors import RunError
from relish.evaluation.metrics import Proportion, SweepPoint
from relish.evaluation.significance import McNemar, mcnemar


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


def test_runs_judged_on_other_pictures_cannot_be_paired():
    with pytest.raises(RunError, match="3 pictures, the other on 2"):
        mcnemar(np.ones(3, dtype=bool), np.ones(2, dtype=bool))


def test_a_sweep_point_without_accuracy_has_diverged():
    assert SweepPoint(0.1, None).diverged
    assert not SweepPoint(0.1, Proportion(1, 2)).diverged
