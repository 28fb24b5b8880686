"""Accuracy by column: who is called worse, and who is not."""

import numpy as np
import pytest
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

from relish.evaluation.grouped import by_column, columns_of_rows, holm


def table(*counts):
    """Values and answers of (name, right, wrong) each."""
    values = [name for name, right, wrong in counts for _ in range(right + wrong)]
    right = np.concatenate([np.arange(right + wrong) < right for _, right, wrong in counts])
    return values, right


@pytest.mark.parametrize("seed", range(5))
def test_the_correction_is_that_of_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(9) ** 4
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_a_value_is_tested_against_all_others_together():
    values, right = table(("A", 95, 5), ("B", 70, 30), ("C", 45, 5))
    found = {one.name: one.p_value for one in by_column("camera", values, right, None).values}
    counts = ((5, 95), (30, 70), (5, 45))
    alone = [fisher_exact([[wrong, n], [40 - wrong, 210 - n]], "greater").pvalue for wrong, n in counts]
    assert [found[name] for name in "ABC"] == pytest.approx(holm(alone))


def test_the_worst_comes_first_and_is_told():
    found = by_column("camera", *table(("A", 95, 5), ("B", 70, 30), ("C", 92, 8)), None)
    assert [one.name for one in found.values] == ["B", "C", "A"]
    assert [one.worse for one in found.values] == [True, False, False]
    assert found.sentence() == "after Holm's correction, camera B is worse than the others (p < 0.001)"


def test_a_value_of_few_images_is_shown_but_not_called_worse():
    found = by_column("camera", *table(("A", 95, 5), ("B", 0, 1), ("C", 90, 10)), None)
    assert (found.values[0].name, found.values[0].worse) == ("B", False)
    low, high = found.values[0].accuracy.interval
    assert high - low > 0.7
    assert "no camera is worse" in found.sentence()


def test_images_of_one_scene_are_no_evidence_about_a_camera():
    """Thirty wrong pictures of two scenes, one scene each to a camera's name."""
    values, right = table(("A", 190, 10), ("B", 10, 30))
    groups = np.concatenate([np.arange(200), 200 + np.arange(40) // 20])
    assert by_column("camera", values, right, None).values[0].worse
    assert not by_column("camera", values, right, groups).values[0].worse


def test_a_single_group_may_be_worse_than_the_others():
    values = [f"scene {i // 20}" for i in range(400)]
    right = np.random.default_rng(0).random(400) < 0.9
    right[:20] = np.arange(20) < 4
    found = by_column("group", values, right, np.arange(400) // 20)
    assert "group scene 0 is worse" in found.sentence()


def test_equal_values_are_rarely_called_worse():
    """Twelve cameras of 10 scenes of 5 images, equally good; a false alarm in at most 5% of the draws."""
    rng, false_alarms = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(120), 5)
    values = [str(group // 10) for group in groups]
    for _ in range(60):
        right = rng.random(600) < rng.beta(4, 1, 120)[groups]
        false_alarms += any(one.worse for one in by_column("camera", values, right, groups).values)
    assert false_alarms <= 6


def test_of_more_than_fifty_values_the_worst_twenty_are_shown_and_the_rest_counted():
    found = by_column("site", *table(*((f"s{i:02}", 20 - i % 10, i % 10) for i in range(60))), None)
    assert (len(found.values), len(found.shown)) == (60, 20)
    assert found.omitted() == "40 better values are not shown"
    assert len(by_column("site", *table(*((f"s{i}", 5, 1) for i in range(50))), None).shown) == 50
    assert len(found.as_json()["values"]) == 60


def test_images_without_a_value_are_left_out_and_counted():
    values, right = table(("A", 9, 1), ("B", 9, 1))
    found = by_column("camera", [None, *values], np.append(False, right), None)
    assert found.without == 1
    assert found.omitted() == "1 picture without a camera left out"
    assert sum(one.accuracy.count for one in found.values) == 20


def test_a_column_of_one_value_says_nothing_is_worse():
    assert not by_column("camera", *table(("A", 1, 9)), None).values[0].worse


def test_columns_of_a_run_are_those_with_two_values_or_more():
    rows = [
        {"path": "1", "columns": {"camera": "A", "site": "x"}, "group": "g"},
        {"path": "2", "columns": {"camera": "B", "site": "x"}, "group": "h"},
        {"path": "3"},
    ]
    assert columns_of_rows(rows) == {"camera": ["A", "B", None], "group": ["g", "h", None]}
    assert columns_of_rows([{"path": "1"}, {"path": "2"}]) == {}
