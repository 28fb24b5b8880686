"""Intervals by group: laws that hold whatever the groups, and a small simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.evaluation import figures as figures_module
from relish.evaluation.figures import area_under_curve, figures
from relish.evaluation.grouped import effective_counts, effective_images, group_numbers, proportion
from relish.evaluation.metrics import Groups, Proportion, Scores, balanced_figures, score, wilson
from relish.evaluation.prediction import Decision, softmax
from relish.reporting.text import evaluation_text

NAMES = ("a", "b", "c")


def answers(seed, counts=(80, 50, 30), strength=1.2):
    chance, labels = np.random.default_rng(seed), np.repeat(range(len(counts)), counts)
    logits = chance.normal(size=(len(labels), len(counts))) + strength * np.eye(len(counts))[labels]
    return logits.astype(np.float32), labels


def ends(found):
    return [*found.top1.interval, *found.balanced_accuracy.interval, *found.macro_f1.interval, *found.auc.interval]


# ---- groups, as keys and as numbers ---------------------------------------------------------------------------------


def test_without_a_known_group_there_are_no_groups():
    assert group_numbers(None) is None
    assert group_numbers([None, None]) is None


def test_an_image_without_a_key_is_a_group_of_its_own():
    assert group_numbers(["x", None, "x", None, "0"]).tolist() == [0, 1, 0, 2, 3]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60), st.randoms())
def test_neither_names_nor_order_matter_and_no_interval_is_narrower_than_of_independent_images(images, random):
    right, groups = np.array([r for r, _ in images]), np.array([g for _, g in images])
    found = effective_images(right, groups)
    assert 0 < found.effective <= len(right) + 1e-9
    order = random.sample(range(len(images)), len(images))
    assert effective_images(right[order], 7 - groups[order]).effective == pytest.approx(found.effective)
    low, high = proportion(right, groups).interval
    plain = wilson(int(right.sum()), len(right))
    assert low <= plain[0] + 1e-9
    assert high >= plain[1] - 1e-9
    assert low <= right.mean() <= high


# ---- how much a group is worth --------------------------------------------------------------------------------------


def test_copies_of_an_image_prove_no_more_than_the_image():
    right = np.random.default_rng(0).random(200) < 0.85
    found = effective_images(np.repeat(right, 5), np.repeat(np.arange(200), 5))
    assert found.effective == pytest.approx(200, rel=0.1)
    assert found.design_effect == pytest.approx(5, rel=0.1)


def test_independent_images_that_are_called_groups_lose_little():
    rng, sizes = np.random.default_rng(0), np.full(80, 5.0)
    effects = 400 / effective_counts(rng.binomial(5, 0.85, (200, 80)).astype(float), sizes)
    assert 1 <= effects.mean() < 1.25


def test_where_every_image_is_right_a_group_counts_as_one_image():
    """Nothing shows how alike the images of a group are."""
    found = effective_images(np.ones(400, dtype=bool), np.repeat(np.arange(40), 10))
    assert found.effective == pytest.approx(40, rel=0.1)


def test_a_single_group_proves_next_to_nothing():
    low, high = proportion(np.arange(50) < 45, np.zeros(50, dtype=int)).interval
    assert low < 0.1
    assert high > 0.98


@pytest.mark.parametrize("accuracy", [0.7, 0.95])
def test_the_interval_covers_where_groups_have_accuracies_of_their_own(accuracy):
    """A small version of `benchmarks/group_coverage.py`: 60 groups of 1 to 30 images, correlation 0.3, 600 draws."""
    rng, sizes = np.random.default_rng(1), np.tile([1, 2, 5, 12, 30], 12)
    hits = rng.binomial(sizes, rng.beta(accuracy * 7 / 3, (1 - accuracy) * 7 / 3, (600, 60)))
    shares, count = hits.sum(1) / sizes.sum(), int(sizes.sum())
    effective = effective_counts(hits.astype(float), sizes.astype(float))
    by_group = [wilson(s * n, n) for s, n in zip(shares, effective, strict=True)]
    plain = [wilson(s * count, count) for s in shares]
    covered, uncovered = (np.mean([low <= accuracy <= high for low, high in some]) for some in (by_group, plain))
    assert 0.92 <= covered <= 0.98
    assert uncovered < 0.8


# ---- every figure ---------------------------------------------------------------------------------------------------


def test_groups_of_one_image_leave_every_figure_as_it_is():
    logits, labels = answers(0)
    plain, grouped = figures(logits, labels, NAMES), figures(logits, labels, NAMES, None, list(map(str, range(160))))
    assert ends(grouped) == ends(plain)
    assert grouped.groups.design_effect == 1
    assert evaluation_text(grouped) == evaluation_text(plain)


def test_copies_in_groups_widen_every_interval_back_to_that_of_the_originals(monkeypatch):
    """Each image four times, its copies one group: bootstraps of so many draws differ by a hundredth or two."""
    logits, labels = answers(1)
    keys = [str(i) for i in np.repeat(np.arange(160), 4)]
    copied = np.repeat(logits, 4, axis=0), np.repeat(labels, 4)
    decision = Decision(unsure_below=0.5)
    original = figures(logits, labels, NAMES, decision)
    grouped, ungrouped = figures(*copied, NAMES, decision, keys), figures(*copied, NAMES, decision)
    np.testing.assert_allclose(ends(grouped), ends(original), atol=0.02)
    assert np.diff(ends(ungrouped))[::2].max() < 0.6 * np.diff(ends(original))[::2].max()
    assert grouped.answered.proportion.interval == pytest.approx(original.answered.proportion.interval, abs=0.02)
    for (recall, precision), (of_one, of_another) in zip(
        grouped.recall_and_precision, original.recall_and_precision, strict=True
    ):
        assert recall.interval == pytest.approx(of_one.interval, abs=0.03)
        assert precision.interval == pytest.approx(of_another.interval, abs=0.03)
    monkeypatch.setattr(figures_module, "MOST_RESAMPLED", 0)  # DeLong's
    p, numbers = softmax(copied[0]), np.repeat(np.arange(160), 4)
    of_originals = area_under_curve(softmax(logits), labels).interval
    assert area_under_curve(p, copied[1], numbers).interval == pytest.approx(of_originals, abs=0.002)


def test_groups_that_span_classes_are_drawn_whole():
    logits, labels = answers(2)
    by_patient = figures(logits, labels, NAMES, None, [f"patient {i % 20}" for i in range(160)])
    low, high = by_patient.balanced_accuracy.interval
    assert low < by_patient.balanced_accuracy.value < high


def test_a_class_of_a_single_group_leaves_no_figure_out():
    logits, labels = answers(3)
    keys = ["only"] * 80 + [str(i // 2) for i in range(80)]
    found = figures(logits, labels, NAMES, None, keys)
    assert np.isfinite(ends(found)).all()


# ---- in words and in files ------------------------------------------------------------------------------------------


def test_how_wide_the_interval_is_stands_in_words():
    words = "400 images, 37 groups: the interval is as wide as that of 90 independent images"
    assert Groups(400, 37, 90.2).sentence() == words


def test_few_groups_are_said_to_be_few():
    assert "with fewer than 10 groups that is a rough guess" in Groups(400, 9, 9.1).sentence()
    assert "guess" not in Groups(400, 10, 9.1).sentence()


def test_the_evaluation_says_it_below_the_accuracy():
    logits, labels = answers(0)
    words = evaluation_text(figures(logits, labels, NAMES, None, [str(i // 4) for i in range(160)])).splitlines()
    assert words[1].startswith("160 images, 40 groups: the interval is as wide as that of ")


def test_groups_come_back_from_the_document():
    logits, labels = answers(0)
    found = figures(logits, labels, NAMES, None, [str(i // 4) for i in range(160)])
    document = found.as_json()
    assert list(document["groups"]) == ["count", "design_effect", "effective"]
    assert document["groups"]["count"] == 40
    assert Scores.from_json(document).top1 == Proportion.from_json(document["top1"]) == found.top1
    assert "groups" not in score(softmax(logits), labels, NAMES).as_json()


def test_of_few_images_the_interval_is_the_figure():
    assert Proportion(8, 8).sentence() == "between 0.68 and 1.00 (8 of 8 right)"
    assert Proportion(20, 29).sentence() == "between 0.51 and 0.83 (20 of 29 right)"
    assert Proportion(20, 30).sentence().startswith("0.667 (20 of 30, ")
    assert Proportion(350, 400, effective=29.5).sentence().startswith("between 0.7")
    assert Proportion(350, 400, effective=30.0).sentence().startswith("0.875 (350 of 400, ")


def test_balanced_figures_without_groups_are_as_they_were():
    logits, labels = answers(0)
    found = figures(logits, labels, NAMES)
    assert (found.balanced_accuracy, found.macro_f1) == balanced_figures(score(softmax(logits), labels, NAMES))
