"""The figures beside the accuracy: against scikit-learn, and where they have no value."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from relish.core.errors import DataError, Diverged
from relish.data.dataset import Finding
from relish.evaluation.figures import area_under_curve, figures, top_k, without_duplicates
from relish.evaluation.metrics import score
from relish.evaluation.prediction import Decision, softmax
from relish.reporting.text import evaluation_text

NAMES = tuple("abcdefgh")


def answers(seed, pictures=300, classes=4, strength=1.5, ties=False):
    """Logits of a model that knows something, and labels; with ties where probabilities are few."""
    chance = np.random.default_rng(seed)
    labels = chance.choice(classes, pictures, p=chance.dirichlet(np.full(classes, 5.0)))
    logits = chance.normal(size=(pictures, classes)) + strength * np.eye(classes)[labels]
    return (np.round(logits) if ties else logits).astype(np.float32), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_scikit_learn(seed, classes, ties):
    logits, labels = answers(seed, classes=classes, ties=ties)
    found, said, p = figures(logits, labels, NAMES[:classes]), logits.argmax(1), softmax(logits)
    expected = {
        "balanced": reference.balanced_accuracy_score(labels, said),
        "macro": reference.f1_score(labels, said, average="macro"),
        "loss": reference.log_loss(labels, p),
        "brier": reference.brier_score_loss(labels, p, labels=range(classes), scale_by_half=False),
        "auc": reference.roc_auc_score(labels, p[:, 1] if classes == 2 else p, multi_class="ovr"),
    }
    ours = {
        "balanced": found.balanced_accuracy.value,
        "macro": found.macro_f1.value,
        "loss": found.calibration.log_loss,
        "brier": found.calibration.brier,
        "auc": found.auc.value,
    }
    assert ours == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_that_of_scikit_learn(k):
    logits, labels = answers(4, classes=8)
    p = softmax(logits)
    theirs = reference.top_k_accuracy_score(labels, p, k=k, labels=range(8))
    assert top_k(p, labels, k).value == pytest.approx(theirs, abs=1e-9)


def test_of_equal_probabilities_the_first_classes_are_among_the_likeliest():
    assert [top_k(np.full((1, 8), 1 / 8), np.array([label])).correct for label in range(8)] == [1] * 5 + [0] * 3


def test_top_5_is_told_from_six_classes_on():
    assert figures(*answers(0, classes=5), NAMES[:5]).top5 is None
    assert figures(*answers(0, classes=6), NAMES[:6]).top5 is not None


def test_the_area_leaves_out_classes_without_pictures_and_is_none_for_one_class():
    logits, labels = answers(1, classes=3)
    p, some = softmax(logits), labels != 2
    one_by_one = [reference.roc_auc_score(labels[some] == k, p[some, k]) for k in (0, 1)]
    assert area_under_curve(p[some], labels[some]).value == pytest.approx(np.mean(one_by_one), abs=1e-9)
    assert area_under_curve(p[labels == 0], labels[labels == 0]) is None


def test_a_class_without_pictures_takes_no_part_in_means():
    logits, labels = answers(2, classes=3)
    some = labels != 2
    found, said = score(logits[some], labels[some], NAMES[:3]), logits[some].argmax(1)
    macro = reference.f1_score(labels[some], said, labels=[0, 1], average="macro")
    assert found.mean_f1 == pytest.approx(macro, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "uneven"), [((10, 10), False), ((15, 10), False), ((16, 10), True), ((9, 0), False)]
)
def test_classes_are_uneven_from_half_as_many_again(counts, uneven):
    labels = np.repeat([0, 1], counts)
    assert score(np.eye(2)[labels], labels, ("a", "b")).uneven is uneven


@given(st.integers(0, 10_000), st.floats(0.05, 20), st.integers(2, 6))
def test_a_temperature_changes_no_answer(seed, temperature, classes):
    logits, labels = answers(seed, pictures=30, classes=classes)
    plain, tempered = (figures(logits, labels, NAMES[:classes], Decision(temperature=t)) for t in (1.0, temperature))
    assert plain.confusion == tempered.confusion
    assert tempered.before_temperature == plain.calibration


def test_the_document_is_plain_json_with_every_key_of_evaluate():
    logits, labels = answers(3, classes=6)
    document = figures(logits, labels, NAMES[:6], Decision(unsure_below=0.5)).as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document["coverage"][0]) == ["coverage", "accuracy", "unsure_below", "count"]
    assert list(document["reliability"][0]) == ["low", "high", "count", "confidence", "accuracy"]
    assert list(document["answered"]) == ["count", "of", "correct", "accuracy", "interval"]
    assert document["coverage"][0]["count"] == document["answered"]["of"] == 300
    assert document["answered"]["count"] < 300


def test_what_has_no_value_is_null():
    logits, labels = answers(3, classes=2)
    document = figures(logits[labels == 0], labels[labels == 0], NAMES[:2], Decision(unsure_below=1.0)).as_json()
    assert (document["auc"], document["top5"]) == (None, None)
    nothing = figures(logits * 1e-3, labels, NAMES[:2], Decision(unsure_below=0.99)).as_json()["answered"]
    assert (nothing["count"], nothing["accuracy"], nothing["interval"]) == (0, None, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_an_error(value):
    logits, labels = answers(0)
    logits[3, 1] = value
    with pytest.raises(Diverged, match="1 of 300 pictures"):
        figures(logits, labels, NAMES[:4])


def test_no_picture_at_all_is_an_error():
    with pytest.raises(DataError, match="no picture to score"):
        figures(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), NAMES[:2])


# ---- copies ---------------------------------------------------------------------------------------------------------


def rows(*names):
    return [{"path": name, "class": "a", "sha256": name.rpartition("/")[2].partition(".")[0]} for name in names]


def duplicates(kind, *paths):
    return Finding(kind=kind, severity="warning", message="", advice="", paths=paths, across=("split",))


LEARNED, JUDGED = rows("train/1.png", "train/2.png"), rows("test/3.png", "test/4.png", "test/5.png")


def test_pictures_with_a_copy_among_those_learned_from_are_left_out():
    found = without_duplicates(
        [duplicates("near-duplicate", "train/1.png", "test/4.png"), duplicates("blank", "train/1.png", "test/3.png")],
        LEARNED, JUDGED, np.array([True, True, False]),
    )  # fmt: skip
    assert (found["correct"], found["count"], found["left_out"]) == (1, 2, 1)
    assert list(found) == ["value", "correct", "count", "interval", "left_out"]


def test_copies_among_the_judged_pictures_themselves_stay():
    found = without_duplicates(
        [duplicates("exact-duplicate", "test/3.png", "test/4.png")], LEARNED, JUDGED, np.array([True, False, True])
    )
    assert (found["count"], found["left_out"]) == (3, 0)


def test_equal_files_are_known_without_a_finding():
    found = without_duplicates([], rows("train/3.png"), JUDGED, np.array([True, False, True]))
    assert (found["correct"], found["count"], found["left_out"]) == (1, 2, 1)


def test_where_every_picture_is_a_copy_nothing_is_known():
    assert without_duplicates([], rows("a/3.png", "a/4.png", "a/5.png"), JUDGED, np.ones(3, dtype=bool)) is None


# ---- on a screen ----------------------------------------------------------------------------------------------------


def test_the_accuracy_with_its_interval_comes_first():
    logits, labels = answers(0)
    words = evaluation_text(figures(logits, labels, NAMES[:4])).splitlines()
    assert words[0] == f"accuracy {score(logits, labels, NAMES[:4]).sentence()}"


def test_many_classes_fit_a_screen():
    names = tuple(f"class {number}" for number in range(300))
    logits, labels = answers(0, pictures=900, classes=300)
    words = evaluation_text(figures(logits, labels, names)).splitlines()
    assert len(words) < 50
    assert max(map(len, words)) < 120
    assert "most often mixed up" in "\n".join(words)


def test_uneven_classes_have_their_balanced_accuracy_beside_the_accuracy():
    labels = np.repeat([0, 1, 2], [50, 10, 10])
    logits = np.random.default_rng(0).normal(size=(70, 3)) + np.eye(3)[labels]
    assert "balanced accuracy" in evaluation_text(figures(logits, labels, NAMES[:3])).splitlines()[1]
    even = np.repeat([0, 1, 2], 10)
    assert "balanced" not in evaluation_text(figures(np.eye(3)[even], even, NAMES[:3]))
