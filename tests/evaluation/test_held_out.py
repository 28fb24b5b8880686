"""A final figure that is lower than the held-out one: because of other shares of the classes, or of other pictures."""

import numpy as np
import pytest

from relish.core.run_folder import RunFolder
from relish.evaluation.held_out import HeldOut, gap_of
from relish.evaluation.metrics import Proportion

EACH = ((900, 891), (100, 60))
"""Held-out pictures of an easy class and of a hard one, and how many of them were right."""


@pytest.fixture
def folder(tmp_path):
    labels = np.repeat([0, 1], [count for count, _ in EACH])
    said = np.concatenate([np.where(np.arange(count) < right, k, 1 - k) for k, (count, right) in enumerate(EACH)])
    HeldOut(labels, np.eye(2, dtype=np.float32)[said], ("",) * len(labels)).save(tmp_path / "held_out.npz")
    folder = RunFolder(tmp_path)
    folder.record(event="rung", rung="probe", correct=951, count=1000)
    return folder


def test_other_shares_of_the_classes_explain_what_they_explain(folder):
    """Half and half, as good on either class as it was: .99 / 2 + .6 / 2."""
    gap = gap_of(folder, Proportion(158, 200), [100, 100])
    assert gap.lower
    assert gap.reweighted == pytest.approx(0.795)
    assert "other shares, in which accuracy on held-out pictures would be 0.795" in gap.reason("test")


def test_what_shares_do_not_explain_are_other_pictures(folder):
    gap = gap_of(folder, Proportion(120, 200), [100, 100])
    assert gap.lower
    assert gap.reason("test") == "the test pictures are of another kind"


@pytest.mark.parametrize("right", [190, 199])
def test_the_same_shares_explain_nothing(folder, right):
    gap = gap_of(folder, Proportion(right, 200), [180, 20])
    assert not gap.lower
    assert gap.points == pytest.approx(100 * (right / 200 - 0.951))


@pytest.mark.parametrize("damage", [b"", None])
def test_without_the_answers_nothing_is_explained(folder, damage):
    folder.held_out.unlink() if damage is None else folder.held_out.write_bytes(damage)
    assert gap_of(folder, Proportion(158, 200), [100, 100]).reweighted is None


def test_classes_that_were_never_held_out_explain_nothing(folder):
    assert gap_of(folder, Proportion(0, 200), [0, 0, 200]).reweighted is None


def test_a_run_that_was_not_chosen_by_held_out_pictures_has_no_gap(tmp_path):
    assert gap_of(RunFolder(tmp_path), Proportion(1, 2), [1, 1]) is None
