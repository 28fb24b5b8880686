"""Calibration: against an independent computation, and a temperature that mends what it is for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relish
from relish.evaluation.figures import calibration, calibration_error, reliability
from relish.evaluation.held_out import HeldOut, choose_decision, fit_temperature, read_held_out
from relish.evaluation.prediction import decision_from, softmax
from relish.models.saved_model import read_header
from tests.conftest import SMALL, SQUARE, TORTURE, draw_dataset, read_json


def answers(seed, pictures=2000, classes=3, sureness=1.0):
    """Labels drawn from the softmax of logits, and logits that are so many times as sure as they should be."""
    chance = np.random.default_rng(seed)
    honest = chance.normal(0, 1.5, (pictures, classes))
    p = softmax(honest)
    labels = (chance.random(pictures)[:, None] > p.cumsum(1)).sum(1).clip(0, classes - 1)
    return (honest * sureness).astype(np.float32), labels


def ece_by_the_book(p, labels, bins=15):
    """Guo et al. 2017, equations 1 to 3, picture by picture."""
    total = 0.0
    for low, high in zip(np.linspace(0, 1, bins + 1)[:-1], np.linspace(0, 1, bins + 1)[1:], strict=True):
        members = [i for i in range(len(labels)) if low < p[i].max() <= high]
        if members:
            accuracy = np.mean([p[i].argmax() == labels[i] for i in members])
            total += len(members) / len(labels) * abs(accuracy - np.mean([p[i].max() for i in members]))
    return total


@pytest.mark.parametrize("sureness", [0.5, 1, 3])
def test_the_calibration_error_is_that_of_its_definition(sureness):
    logits, labels = answers(0, 500, sureness=sureness)
    p = softmax(logits)
    assert calibration_error(reliability(p, labels)) == pytest.approx(ece_by_the_book(p, labels), abs=1e-12)


@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1, max_size=60))
def test_every_picture_is_in_one_bin_whose_ends_hold_its_mean(rows):
    confidence = np.array([c for c, _ in rows])
    p = np.stack([confidence, 1 - confidence], axis=1)
    bins = reliability(p, np.array([0 if right else 1 for _, right in rows]))
    assert sum(one.count for one in bins) == len(rows)
    assert all(one.low - 1e-12 <= one.confidence <= one.high + 1e-12 for one in bins)
    assert 0 <= calibration_error(bins) <= 1


def test_an_answer_that_is_certain_and_wrong_costs_a_finite_loss():
    logits, labels = np.array([[800.0, 0.0]], dtype=np.float32), np.array([1])
    assert calibration(logits, softmax(logits), labels).log_loss == pytest.approx(800)


@pytest.mark.parametrize("sureness", [0.4, 1, 2.5])
def test_the_temperature_undoes_how_sure_logits_were_made(sureness):
    assert fit_temperature(*answers(1, 20_000, sureness=sureness)) == pytest.approx(sureness, rel=0.05)


def test_the_temperature_is_the_best_of_a_fine_grid():
    logits, labels = answers(2, 300, sureness=2)
    n, k = logits.shape
    wanted = np.full((n, k), 1 / (n + 2) / (k - 1))
    wanted[np.arange(n), labels] = 1 - 1 / (n + 2)
    grid = np.geomspace(0.2, 20, 4001)
    losses = [-(wanted * np.log(softmax(logits, t))).sum() for t in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


def test_a_few_right_answers_make_no_model_certain():
    """Without the imaginary wrong answer the likeliest temperature of these is 0."""
    logits, labels = np.array([[1.0, 0.0], [0.0, 1.0]] * 10, dtype=np.float32), np.array([0, 1] * 10)
    confidence = softmax(logits, fit_temperature(logits, labels)).max()
    assert confidence == pytest.approx(21 / 22, abs=1e-4)


def test_nothing_held_out_is_temperature_1():
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == 1
    assert choose_decision(None, ("a", "b")).temperature == 1


def test_rows_that_are_no_numbers_are_passed_over():
    logits, labels = answers(3, 200)
    broken = np.concatenate([logits, np.full((1, 3), np.nan, dtype=np.float32)])
    assert fit_temperature(broken, np.append(labels, 0)) == fit_temperature(logits, labels)


@pytest.mark.parametrize("seed", range(5))
def test_on_fresh_pictures_the_calibration_error_is_lower_with_the_temperature(seed):
    """A model 2.5 times as sure as it should be, 400 pictures to fit on, as many to judge on."""
    logits, labels = answers(seed, 800, sureness=2.5)
    temperature = fit_temperature(logits[:400], labels[:400])
    before, after = (ece_by_the_book(softmax(logits[400:], t), labels[400:]) for t in (1.0, temperature))
    assert after < before


# ---- in a run -------------------------------------------------------------------------------------------------------


def test_answers_come_back_from_their_file(tmp_path):
    logits, labels = answers(4, 5)
    HeldOut(labels, logits, tuple("abcde")).save(tmp_path / "held_out.npz")
    back = read_held_out(tmp_path / "held_out.npz")
    np.testing.assert_array_equal(back.logits, logits)
    assert (back.labels.tolist(), back.sha256) == (labels.tolist(), tuple("abcde"))


@pytest.fixture(scope="module")
def climbed(tiny_source, tmp_path_factory):
    """A run of the default recipe, beside the `colours` that it learned from."""
    folder = tmp_path_factory.mktemp("climbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        relish.fit(
            draw_dataset(folder / "colours", size=SQUARE), weights=tiny_source, settings=SMALL, out=folder / "run"
        )
    return folder / "run"


def test_a_climb_keeps_what_it_said_of_each_picture_held_out_and_fits_its_temperature_on_that(climbed):
    held = read_held_out(climbed / "held_out.npz")
    learned = read_json(climbed / "dataset.json")["splits"]["train"]
    classes = read_json(climbed / "classes.json")
    told = {row["sha256"]: classes.index(row["class"]) for row in learned}
    assert len(set(held.sha256)) == len(held.sha256) > 0
    assert [told[sha] for sha in held.sha256] == held.labels.tolist()
    decision = decision_from(read_header(climbed / "model.safetensors"))
    assert decision.fitted_on == len(held)
    assert decision.temperature == fit_temperature(held.logits, held.labels)


def test_the_answers_kept_are_those_of_the_rung_that_was_kept(squares, tiny_source, tmp_path):
    for name, rate in (("tuned", 0.01), ("probe", 1e30)):
        settings = {**SMALL, "learning_rate": rate, "epochs": 6}
        relish.fit(squares, weights=tiny_source, settings=settings, out=tmp_path / name)
        rungs = [e for e in relish_records(tmp_path / name) if e["event"] == "rung"]
        last = [r for r in rungs if r.get("kept", True)][-1]
        held = read_held_out(tmp_path / name / "held_out.npz")
        assert (int((held.logits.argmax(1) == held.labels).sum()), len(held)) == (last["correct"], last["count"])


def relish_records(run):
    from relish.core.run_folder import RunFolder

    return RunFolder.open(run).records()


def test_the_temperature_is_in_every_probability_the_run_gives(climbed):
    colours = climbed.parent / "colours"
    decision = decision_from(read_header(climbed / "model.safetensors"))
    kept = np.load(climbed / "predictions.npz")
    expected = softmax(kept["logits"], decision.temperature)
    np.testing.assert_allclose(kept["probabilities"], expected, atol=1e-7)
    assert not np.allclose(kept["probabilities"], softmax(kept["logits"]), atol=1e-4)
    files = sorted((colours / "test").rglob("*.png"))
    said = [list(p.probabilities.values()) for p in relish.load(climbed).predict(files)]
    np.testing.assert_allclose(said, expected, atol=1e-6)
    evaluation = read_json(climbed / "evaluation.json")
    again = relish.load(climbed).evaluate(colours).as_json()
    assert again == {key: evaluation[key] for key in again}


def test_a_loop_without_validation_pictures_keeps_temperature_1(colours, tiny_source, tmp_path):
    settings = {**SMALL, "epochs": 0}
    relish.fit(colours, weights=tiny_source, recipe="book", settings=settings, out=tmp_path / "run")
    assert not (tmp_path / "run" / "held_out.npz").exists()
    found = read_json(tmp_path / "run" / "evaluation.json")
    assert (found["decision"]["temperature"], found["decision"]["fitted_on"]) == (1.0, 0)
    assert found["before_temperature"] == {key: found[key] for key in ("log_loss", "brier", "ece")}


def test_a_loop_fits_its_temperature_on_the_validation_split(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", train=10, test=6)
    relish.fit(root, weights=tiny_source, recipe="book", settings=SMALL, val_split=0.2, out=tmp_path / "run")
    listed = read_json(tmp_path / "run" / "dataset.json")["splits"]["validation"]
    held = read_held_out(tmp_path / "run" / "held_out.npz")
    assert list(held.sha256) == [row["sha256"] for row in listed]
    assert read_json(tmp_path / "run" / "evaluation.json")["decision"]["fitted_on"] == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_real_photographs_the_calibration_error_is_lower_with_the_temperature(shared, tmp_path):
    """Fine-tuning until it is too sure of itself: 80 photographs a class to learn from, 20 to fit on, 100 to judge by;
    of one run, or by the mean of five."""
    import zipfile

    archive = shared / "data" / "hotdog.zip"
    if not archive.is_file():
        pytest.skip(f"needs the real photographs in {archive}")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "all")
    (root,) = (tmp_path / "all").iterdir()
    for folder in root.glob("*/*/"):
        for path in sorted(folder.iterdir())[100:]:
            path.unlink()
    settings = {
        "image_size": 64, "epochs": 8, "batch_size": 32, "optimiser": "adamw", "learning_rate": 1e-3, "loss": "mean",
    }  # fmt: skip
    gaps = []
    for seed in range(5) if TORTURE else [3]:
        out = tmp_path / f"run-{seed}"
        relish.fit(root, recipe="book", settings=settings, val_split=0.2, seed=seed, out=out)
        found = read_json(out / "evaluation.json")
        gaps.append((found["before_temperature"]["ece"], found["ece"]))
    print("\n" + "\n".join(f"calibration error {before:.3f} → {after:.3f}" for before, after in gaps))
    before, after = np.mean(gaps, axis=0)
    assert after < before


# ---- what a run says ------------------------------------------------------------------------------------------------


def said_by(*words):
    from tests.commands import done

    return done(*words).err


def test_a_run_says_its_temperature_or_why_it_has_none(squares, tiny_source, tmp_path):
    words = ("fit", squares, "--weights", tiny_source, "--image-size", 32)
    probe = said_by(*words, "--recipe", "probe", "--out", tmp_path / "a")
    temperature = read_json(tmp_path / "a" / "evaluation.json")["decision"]["temperature"]
    assert f"temperature {temperature:.3g}, fitted on 20 pictures held out: log-loss" in probe
    book = said_by(*words, "--recipe", "book", "--epochs", 0, "--out", tmp_path / "b")
    assert "temperature 1: no pictures were held out to fit it on" in book


def test_a_run_judged_on_what_it_was_chosen_by_says_so(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", train=10, test=0) / "train"
    words = ("fit", root, "--weights", tiny_source, "--image-size", 32, "--recipe", "book", "--epochs", 0)
    assert "chosen on the pictures they are judged on" in said_by(*words, "--out", tmp_path / "a")


def test_evaluating_on_the_pictures_that_a_temperature_was_fitted_on_is_said(tiny_source, tmp_path):
    from tests.commands import done

    root = draw_dataset(tmp_path / "d", train=10, test=3)
    words = ("fit", root, "--weights", tiny_source, "--image-size", 32, "--recipe", "book", "--epochs", 0)
    done(*words, "--val-split", 0.2, "--out", tmp_path / "run")
    listed = read_json(tmp_path / "run" / "dataset.json")
    for row in listed["splits"]["validation"]:
        kept = tmp_path / "held" / row["path"].split("/", 1)[1]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes((root / row["path"]).read_bytes())
    assert "were chosen on 4 of these pictures" in done("evaluate", tmp_path / "run", tmp_path / "held").err
    assert "chosen on" not in done("evaluate", tmp_path / "run", root).err


def test_copies_of_training_pictures_are_counted_out_and_said(squares, tiny_source, tmp_path):
    twin = squares / "test" / "red" / "000.png"
    twin.write_bytes((squares / "train" / "red" / "003.png").read_bytes())
    words = ("fit", squares, "--weights", tiny_source, "--image-size", 32, "--recipe", "probe")
    said = said_by(*words, "--out", tmp_path / "run")
    found = read_json(tmp_path / "run" / "evaluation.json")
    assert (found["without_duplicates"]["count"], found["without_duplicates"]["left_out"]) == (11, 1)
    assert "without 1 picture that has a copy among those learned from: accuracy" in said


def test_near_copies_that_a_look_at_the_pictures_found_are_counted_out(squares, tiny_source, tmp_path):
    import json

    from relish.core.run_folder import RunFolder
    from relish.data.dataset import Finding
    from relish.evaluation.figures import figures
    from relish.tasks.save import judged

    run = tmp_path / "run"
    relish.fit(squares, weights=tiny_source, recipe="probe", settings={"image_size": 32}, out=run)
    kept = np.load(run / "predictions.npz")
    found = figures(kept["logits"], kept["labels"], ("blue", "red"))
    (run / "check.json").unlink(missing_ok=True)
    assert judged(RunFolder.open(run), "test", found)["without_duplicates"] is None, "nobody has looked"
    paths = ("train/red/001.png", "test/red/002.png", "test/blue/001.png")
    near = Finding(
        kind="near-duplicate", severity="warning", message="", advice="", paths=paths, across=("split", "class")
    )
    (run / "check.json").write_text(json.dumps({"findings": [near.as_json()], "pictures": 32}))
    fresh = judged(RunFolder.open(run), "test", found)["without_duplicates"]
    assert (fresh["count"], fresh["left_out"]) == (10, 2)


def test_very_uneven_classes_bring_balancing_to_mind(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", train=16, test=6, size=SQUARE)
    for part, few in (("train", 4), ("test", 3)):
        for path in sorted((root / part / "red").iterdir())[few:]:
            path.unlink()
    words = ("fit", root, "--weights", tiny_source, "--image-size", 32, "--recipe", "probe")
    said = said_by(*words, "--out", tmp_path / "a")
    assert "4 times the training pictures" in said
    assert "balanced accuracy" in said
    assert "--set balance=weights" not in said_by(*words, "--set", "balance=weights", "--out", tmp_path / "b")
