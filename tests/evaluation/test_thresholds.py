"""Thresholds and abstention: what they promise on held-out pictures holds, and can be changed without training."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.metrics import precision_recall_curve

import relish
from relish.core.errors import ModelError, RecipeError, RunError
from relish.evaluation.held_out import read_held_out, with_unsure
from relish.evaluation.prediction import Decision, decision_from, softmax
from relish.evaluation.thresholds import (
    Aim,
    at_threshold,
    choose_threshold,
    choose_unsure,
    coverage_curve,
    parse_aim,
    parse_unsure,
    positive_class,
)
from relish.models.saved_model import load_model, read_header, rewrite_header
from tests.commands import done, files_below, refused
from tests.conftest import COLOURS, SMALL, draw, draw_dataset, read_json

PICTURES = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.9, 0.97]), st.booleans()), min_size=1, max_size=40)


def columns(pictures):
    return np.array([p for p, _ in pictures]), np.array([right for _, right in pictures], dtype=bool)


# ---- thresholds -----------------------------------------------------------------------------------------------------


@given(PICTURES, st.sampled_from(["precision", "recall"]), st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_a_threshold_reaches_its_aim_and_no_better_one_does(pictures, measure, share):
    """Every threshold that makes a difference is tried, by scikit-learn's curve."""
    probability, positive = columns(pictures)
    found = choose_threshold(probability, positive, Aim(measure, share, None))
    if not positive.any():
        assert found is None
        return
    precision, recall, _ = precision_recall_curve(positive, probability)
    precision, recall = precision[:-1], recall[:-1]  # its last point is at no threshold
    kept = ((precision if measure == "precision" else recall) >= share - 1e-9) & (recall > 0)
    if not kept.any():
        assert found is None
        return
    what = at_threshold(probability, positive, found)
    assert getattr(what, measure).value >= share - 1e-9
    if measure == "precision":  # of those that reach it, the one that finds the most
        assert what.recall.value == pytest.approx(recall[kept].max())
    else:
        saying = [probability >= t for t in probability]
        enough = [said.sum() for said in saying if positive[said].sum() >= share * positive.sum() - 1e-9]
        assert what.predicted == min(enough)


@given(PICTURES)
def test_f1_is_made_as_large_as_it_can_be(pictures):
    probability, positive = columns(pictures)
    found = choose_threshold(probability, positive, Aim("f1", None, None))
    if found is None:
        assert not positive.any()
        return

    def f1(threshold):
        what = at_threshold(probability, positive, threshold)
        return 2 * what.right / (what.predicted + what.count)

    assert f1(found) == pytest.approx(max(map(f1, probability)))


def test_a_threshold_lies_in_the_middle_between_two_pictures():
    probability, positive = np.array([0.9, 0.7, 0.2]), np.array([True, False, False])
    assert choose_threshold(probability, positive, Aim("precision", 0.9, None)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("words", "aim"),
    [
        ("precision=0.99", Aim("precision", 0.99, None)),
        ("recall=1:not-hotdog", Aim("recall", 1.0, "not-hotdog")),
        ("f1:a:b", Aim("f1", None, "a:b")),
    ],
)
def test_an_aim_is_read_as_it_is_written(words, aim):
    assert parse_aim(words) == aim


@pytest.mark.parametrize("words", ["", "0.99", "precision=", "precision=0", "precision=nan", "accuracy=0.9", "f1=1"])
def test_what_is_no_aim_is_refused(words):
    with pytest.raises(RecipeError, match="--threshold"):
        parse_aim(words)


@pytest.mark.parametrize("words", ["", "0.9", "precision=0.9", "accuracy=", "accuracy=-1", "accuracy=inf"])
def test_what_is_no_accuracy_is_refused(words):
    with pytest.raises(RecipeError, match="--unsure"):
        parse_unsure(words)


def test_a_threshold_is_for_two_classes_and_about_the_first_unless_told():
    assert positive_class(parse_aim("f1"), ("a", "b")) == "a"
    assert positive_class(parse_aim("f1:b"), ("a", "b")) == "b"
    with pytest.raises(RecipeError, match="there are 3"):
        positive_class(parse_aim("f1"), ("a", "b", "c"))


# ---- abstention -----------------------------------------------------------------------------------------------------


@given(PICTURES, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_the_bound_reaches_the_accuracy_and_answers_as_many_as_any_that_does(pictures, accuracy):
    confidence, right = columns(pictures)
    found = choose_unsure(confidence, right, accuracy)
    reaching = [(confidence >= c).sum() for c in confidence if right[confidence >= c].mean() >= accuracy - 1e-9]
    if found is None:
        assert not reaching
    else:
        given_ = confidence >= found
        assert right[given_].mean() >= accuracy - 1e-9
        assert given_.sum() == max(reaching)


@given(PICTURES)
def test_the_curve_goes_from_every_picture_down_to_the_surest(pictures):
    confidence, right = columns(pictures)
    curve = coverage_curve(confidence, right)
    assert (curve[0].count, curve[0].accuracy) == (len(right), pytest.approx(right.mean()))
    assert [p.count for p in curve] == sorted({p.count for p in curve}, reverse=True)
    for point in curve:
        answered = confidence >= point.unsure_below
        assert (point.count, point.accuracy) == (answered.sum(), pytest.approx(right[answered].mean()))
        assert point.coverage == point.count / len(right)


@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from([None, 0.2, 0.7]))
def test_unsure_is_what_lies_below_the_bound_of_the_class_that_is_said(seed, bound, threshold):
    p = np.random.default_rng(seed).dirichlet([1, 1], 20)
    positive = None if threshold is None else "b"
    said, unsure = Decision(unsure_below=bound, positive=positive, threshold=threshold).decide(p, ("a", "b"))
    assert unsure.tolist() == [bool(row[k] < bound) for row, k in zip(p, said, strict=True)]
    if threshold is not None:
        assert (said == 1).tolist() == (p[:, 1] >= threshold).tolist()


# ---- in a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    """A finished run on two colours that are hard to tell apart."""
    folder, chance = tmp_path_factory.mktemp("made"), np.random.default_rng(5)
    for part, count in (("train", 30), ("test", 15)):
        for name, middle in (("dark", 105), ("light", 145)):
            for number in range(count):
                colour = tuple(int(v) for v in chance.normal(middle, 40, 3).clip(0, 255))
                draw(folder / "grey" / part / name / f"{number:03}.png", colour, int(chance.integers(10**6)))
    settings = {"image_size": 32}
    relish.fit(folder / "grey", weights=tiny_source, recipe="probe", settings=settings, out=folder / "run")
    return folder


@pytest.fixture
def run(made, tmp_path):
    import shutil

    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def decision(run):
    return decision_from(read_header(run / "model.safetensors"))


def test_a_threshold_is_chosen_afterwards_and_the_tensors_stay_as_they_were(run):
    before, tensors = read_json(run / "evaluation.json"), load_file(run / "model.safetensors")
    said = done("decide", run, "--threshold", "precision=0.9:light").out
    assert "before" in said
    assert "threshold" in said
    now = decision(run)
    assert (now.positive, now.aim) == ("light", "precision=0.9")
    held = read_held_out(run / "held_out.npz")
    p = softmax(held.logits, now.temperature)[:, 1]
    assert at_threshold(p, held.labels == 1, now.threshold).precision.value >= 0.9
    after = read_json(run / "evaluation.json")
    assert after["decision"]["threshold"] == now.threshold
    assert after["model_sha256"] != before["model_sha256"]
    assert after["training_seconds"] == before["training_seconds"]
    assert after["auc"] == before["auc"]
    again = load_file(run / "model.safetensors")
    assert all((again[name] == tensor).all() for name, tensor in tensors.items())
    assert load_model(run / "model.safetensors")[1].labels == ("dark", "light")


def test_the_threshold_is_in_what_predict_and_evaluate_say(run, made):
    done("decide", run, "--threshold", "precision=0.9:light")
    threshold, kept = decision(run).threshold, np.load(run / "predictions.npz")
    files = sorted((made / "grey" / "test").rglob("*.png"))
    said = [p.class_name for p in relish.load(run).predict(files)]
    assert said == ["light" if p >= threshold else "dark" for p in kept["probabilities"][:, 1]]
    printed = read_json(run / "evaluation.json")
    again = relish.load(run).evaluate(made / "grey").as_json()
    assert again == {key: printed[key] for key in again}
    right = sum(name == path.parent.name for name, path in zip(said, files, strict=True))
    assert printed["top1"]["correct"] == right


def test_unsure_pictures_are_marked_and_the_rest_counted(run, made):
    done("decide", run, "--unsure", "accuracy=0.95")
    rows = json.loads(done("predict", run, made / "grey" / "test", "--json").out)
    bound, found = decision(run).unsure_below, read_json(run / "evaluation.json")["answered"]
    assert [row["unsure"] for row in rows] == [row["probability"] < bound for row in rows]
    assert found["count"] == sum(not row["unsure"] for row in rows)
    assert 0 < found["count"] < found["of"] == 30
    lines = done("predict", run, made / "grey" / "test").out.splitlines()
    assert [line.endswith("  unsure") for line in lines] == [row["unsure"] for row in rows]
    assert f"{found['count']} of 30 pictures answered" in done("evaluate", run, made / "grey").out


def test_what_was_chosen_is_taken_away_again(run):
    before = files_below(run)
    done("decide", run, "--threshold", "f1", "--unsure", "accuracy=0.9")
    assert files_below(run) != before
    done("decide", run, "--threshold", "none", "--unsure", "none")
    assert {k: v for k, v in files_below(run).items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }


def test_without_an_option_nothing_changes_and_the_coverage_is_shown(run):
    before = files_below(run)
    assert "answered" in done("decide", run).out
    assert files_below(run) == before


def test_an_accuracy_that_no_bound_reaches_is_refused_and_changes_nothing(run, monkeypatch):
    monkeypatch.setattr("relish.evaluation.held_out.choose_unsure", lambda *_: None)
    before = files_below(run)
    words = refused("decide", run, "--unsure", "accuracy=0.999")
    assert "accuracy 0.999 is not reached" in words
    assert "Nothing was changed" in words
    assert files_below(run) == before


def test_a_precision_that_no_threshold_reaches_is_refused_and_the_highest_told(run):
    held = read_held_out(run / "held_out.npz")
    replace(held, labels=1 - held.labels).save(run / "held_out.npz")  # the surest are wrong now
    assert "the highest precision is" in refused("decide", run, "--threshold", "precision=0.99:light")
    assert decision(run).threshold is None


def test_a_damaged_file_of_held_out_answers_is_told(run):
    (run / "held_out.npz").write_bytes(b"PK\x03\x04 cut short")
    assert "held_out.npz cannot be read" in refused("decide", run, "--threshold", "f1")


def test_fit_chooses_what_it_is_asked_for(squares, tiny_source, tmp_path):
    words = ("--weights", tiny_source, "--recipe", "probe", "--image-size", 32, "--out", tmp_path / "run")
    said = done("fit", squares, *words, "--threshold", "recall=0.9:red", "--unsure", "accuracy=0.9").err
    found = decision(tmp_path / "run")
    assert (found.positive, found.aim) == ("red", "recall=0.9")
    assert found.unsure_below is not None
    assert f"threshold {found.threshold:.4f} of red" in said
    assert "held-out: precision" in said
    assert "test: precision" in said


def test_fit_keeps_the_run_where_the_aim_is_not_reached(squares, tiny_source, tmp_path, monkeypatch):
    monkeypatch.setattr("relish.evaluation.held_out.choose_threshold", lambda *_: None)
    words = ("--weights", tiny_source, "--recipe", "probe", "--image-size", 32, "--out", tmp_path / "run")
    assert (
        "warning: no threshold reaches precision=0.99"
        in done("fit", squares, *words, "--threshold", "precision=0.99").err
    )
    assert read_json(tmp_path / "run" / "evaluation.json")["decision"]["threshold"] is None


def test_more_than_two_classes_are_refused_before_a_run_folder_is_made(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", classes=tuple(COLOURS))
    with pytest.raises(RecipeError, match="--unsure"):
        relish.fit(root, weights=tiny_source, settings=SMALL, threshold="f1", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_finished_is_not_decided_on(run):
    (run / "evaluation.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        relish.decide(run, unsure="accuracy=0.9")


def test_with_a_threshold_the_bound_for_unsure_is_asked_for_anew(run):
    relish.decide(run, unsure="accuracy=0.9")
    before = (run / "evaluation.json").read_bytes()
    with pytest.raises(RunError, match="chosen for the answers it had"):
        relish.decide(run, threshold="f1")
    assert (run / "evaluation.json").read_bytes() == before
    assert relish.decide(run, threshold="f1", unsure="none").after.decision.unsure_below is None


def test_a_bound_counts_the_class_that_the_threshold_makes_it_say(run):
    held = read_held_out(run / "held_out.npz")
    bold = Decision(positive="light", threshold=0.05)
    found = with_unsure(bold, held, ("dark", "light"), 0.9)
    said, unsure = found.decide(softmax(held.logits), ("dark", "light"))
    assert (said == held.labels)[~unsure].mean() >= 0.9


# ---- the header -----------------------------------------------------------------------------------------------------


def test_the_headers_own_words_cannot_be_rewritten(run):
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="labels"):
        rewrite_header(run / "model.safetensors", {"labels": "x"})
    assert (run / "model.safetensors").read_bytes() == before


def test_a_disk_that_fills_up_leaves_the_model_as_it_was(run, monkeypatch):
    import errno
    import shutil

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (run / "model.safetensors").read_bytes()
    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert "No space left" in refused("decide", run, "--unsure", "accuracy=0.9", code=1)
    assert (run / "model.safetensors").read_bytes() == before
