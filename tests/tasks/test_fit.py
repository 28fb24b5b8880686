"""The main job as its user meets it: one call, a run folder, a number that can be repeated."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import relish
from relish.core.errors import DataError, ModelError, RecipeError, RunError
from tests.conftest import SMALL, Heard, draw, draw_dataset, read_json


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory):
    """A folder with `colours` and a finished `run` on them; batches of two leave their batch norms to luck, on some
    processors bad luck."""
    folder = tmp_path_factory.mktemp("made")
    settings = {**SMALL, "epochs": 8, "batch_size": 4, "learning_rate": 1e-3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        data = draw_dataset(folder / "colours")
        relish.fit(data, recipe="book", weights=tiny_source, settings=settings, out=folder / "run")
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of that run."""
    shutil.copytree(made / "run", tmp_path / "run")
    return relish.load(tmp_path / "run")


def test_a_run_folder_holds_everything_the_run_made(run, tmp_path):
    folder = tmp_path / "run"
    made = {path.name for path in folder.iterdir()} - {".lock"}
    assert made == {
        "request.json", "recipe.yaml", "check.json", "classes.json", "dataset.json", "environment.json",
        "metrics.jsonl", "checkpoints", "curves.svg", "model.safetensors", "predictions.npz",
        "README.md", "evaluation.json",
    }  # fmt: skip
    assert read_json(folder / "classes.json") == ["blue", "red"]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["name"], recipe["epochs"], recipe["weight_decay"]) == ("book", 8, 1e-3)
    listed = read_json(folder / "dataset.json")["splits"]
    assert {name: len(rows) for name, rows in listed.items()} == {"train": 20, "test": 12}
    assert listed["train"][0].keys() == {"path", "class", "sha256"}


def test_two_colours_are_learned(colours, tiny_source, tmp_path):
    """With 12 epochs rounding does not decide it: with 4, another processor's digits were enough to fail."""
    settings = {**SMALL, "epochs": 12, "batch_size": 4, "learning_rate": 1e-3}
    run = relish.fit(colours, recipe="book", weights=tiny_source, settings=settings, out=tmp_path / "run")
    assert run.predict([Image.new("RGB", (50, 40), (190, 60, 60))])[0].class_name == "red"
    assert run.predict([Image.new("RGB", (50, 40), (60, 60, 190))])[0].class_name == "blue"


def test_evaluate_repeats_the_number_that_fit_printed(run, colours, tmp_path):
    printed = read_json(tmp_path / "run" / "evaluation.json")
    again = relish.load(tmp_path / "run").evaluate(colours).as_json()
    assert again == {key: printed[key] for key in again}


def test_predict_gives_the_probabilities_that_evaluate_counted(run, colours, tmp_path):
    kept = np.load(tmp_path / "run" / "predictions.npz")
    files = sorted((colours / "test").rglob("*.png"))
    alone = [list(run.predict(path)[0].probabilities.values()) for path in files]
    np.testing.assert_allclose(alone, kept["probabilities"], rtol=0, atol=1e-6)
    together = [list(p.probabilities.values()) for p in run.predict(files)]
    np.testing.assert_array_equal(np.float32(together), kept["probabilities"])


def test_every_way_to_hand_over_a_picture_gives_the_same_answer(run, colours):
    path = colours / "test" / "red" / "000.png"
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    ways = [path, str(path), path.read_bytes(), picture, np.asarray(picture)]
    answers = [run.predict(way)[0].probabilities for way in ways]
    with path.open("rb") as file:
        answers.append(run.predict(file)[0].probabilities)
    assert all(answer == answers[0] for answer in answers)


def test_a_bad_picture_has_an_error_and_stops_nothing(run, colours, tmp_path):
    text = tmp_path / "note.jpg"
    text.write_text("not a picture at all")
    found = run.predict([text, colours / "test" / "red" / "000.png", tmp_path / "absent.png"])
    assert [p.error is None for p in found] == [False, True, False]
    assert "text" in found[0].error
    assert found[0].as_json().keys() == {"path", "error"}


def test_the_model_file_says_how_to_build_and_feed_it(run, tmp_path):
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        header = file.metadata()
    assert (header["architecture"], header["num_classes"]) == ("test_resnet", "2")
    assert json.loads(header["labels"]) == ["blue", "red"]
    assert json.loads(header["preprocessing"])["image_size"] == 32


def test_the_model_file_alone_classifies(run, colours, tmp_path):
    alone = relish.load(tmp_path / "run" / "model.safetensors")
    path = colours / "test" / "red" / "001.png"
    assert alone.predict(path) == run.predict(path)


def test_repr_says_source_classes_and_accuracy(run):
    assert "blue, red" in repr(run)
    assert "tiny.safetensors" in repr(run)
    assert "of 12" in repr(run)


def test_the_same_run_twice_gives_the_same_bytes(colours, tiny_source, tmp_path):
    for name in ("a", "b"):
        relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / name)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "c", seed=1)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != (tmp_path / "c" / "model.safetensors").read_bytes()


def test_an_existing_run_is_never_overwritten(run, colours, tiny_source, tmp_path):
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="never overwritten"):
        relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_runs_are_numbered(colours, tiny_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**SMALL, "epochs": 0}
    names = [relish.fit(colours, recipe="book", weights=tiny_source, settings=settings).path.name for _ in range(2)]
    assert names == ["colours-book-1", "colours-book-2"]


def test_resuming_a_finished_run_changes_nothing(run, tmp_path):
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert repr(relish.fit(resume=tmp_path / "run")) == repr(run)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("argument", "value"), [("seed", 5), ("settings", {"epochs": 9}), ("recipe", "frozen"), ("source", "timm/resnet18")]
)
def test_arguments_that_disagree_with_the_run_are_refused(run, tmp_path, argument, value):
    word = "epochs" if argument == "settings" else argument
    with pytest.raises(RunError, match=f"another {word}"):
        relish.fit(resume=tmp_path / "run", **{argument: value})


def test_arguments_that_agree_with_the_run_are_fine(run, made, tiny_source, tmp_path):
    settings = {"epochs": 8, "learning_rate": "1e-3"}
    relish.fit(made / "colours", weights=tiny_source, recipe="book", settings=settings, seed=0, resume=tmp_path / "run")


def test_pictures_that_changed_since_are_refused_on_resuming(colours, tiny_source, tmp_path):
    relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    draw(colours / "train" / "red" / "003.png", (1, 2, 3), 77)
    with pytest.raises(RunError, match="have changed"):
        relish.fit(resume=tmp_path / "run")


def test_a_run_killed_before_its_first_checkpoint_starts_over_and_says_so(colours, tiny_source, tmp_path):
    relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    whole = (tmp_path / "run" / "model.safetensors").read_bytes()
    for name in ("evaluation.json", "model.safetensors", "checkpoints/latest.pt"):
        (tmp_path / "run" / name).unlink()
    heard = Heard()
    relish.fit(resume=tmp_path / "run", progress=heard)
    assert any("starting over" in line for line in heard.lines)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole
    assert len(read_json(tmp_path / "run" / "evaluation.json")) > 0
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    from relish.core.run_folder import RunFolder

    assert sum(e["event"] == "score" for e in events) == 4  # the log keeps both
    assert sum(e["event"] == "score" for e in RunFolder.open(tmp_path / "run").records()) == 2  # one holds


def test_a_folder_without_splits_is_split_and_scored_on_validation(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", train=10, test=0) / "train"
    relish.fit(root, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run")
    rows = read_json(tmp_path / "run" / "dataset.json")["splits"]
    assert {name: len(pictures) for name, pictures in rows.items()} == {"train": 16, "validation": 4}
    assert read_json(tmp_path / "run" / "evaluation.json")["split"] == "validation"


def test_held_back_pictures_are_scored_and_the_test_split_is_judged(colours, tiny_source, tmp_path):
    relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, val_split=0.2, out=tmp_path / "run")
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {e["split"] for e in events if e["event"] == "score"} == {"validation"}
    assert read_json(tmp_path / "run" / "evaluation.json")["split"] == "test"


def test_an_unreadable_picture_is_named_and_left_out(colours, tiny_source, tmp_path):
    (colours / "train" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    heard = Heard()
    relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run", progress=heard)
    assert any("train/red/broken.jpg" in line for line in heard.warnings)
    rows = read_json(tmp_path / "run" / "dataset.json")
    assert len(rows["splits"]["train"]) == 20
    assert rows["unreadable"][0][0] == "train/red/broken.jpg"
    with pytest.raises(DataError, match=r"broken\.jpg"):
        relish.fit(colours, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_a_class_missing_from_test_does_not_shift_the_later_ones(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d", classes=("blue", "green", "red"))
    for path in (root / "test" / "green").iterdir():
        path.unlink()
    (root / "test" / "green").rmdir()
    heard = Heard()
    made = relish.fit(root, recipe="book", weights=tiny_source, settings=SMALL, out=tmp_path / "run", progress=heard)
    assert any("green" in line for line in heard.warnings)
    found = made.evaluate(root).as_json()
    assert [row["count"] for row in found["per_class"]] == [6, 0, 6]
    assert found["per_class"][1]["recall"] is None


def test_evaluate_matches_classes_by_name_not_by_position(run, tmp_path):
    """A folder of one class alone, where "red" would be number 0."""
    for number in range(4):
        draw(tmp_path / "only" / "red" / f"{number}.png", (190, 60, 60), 900 + number)
    found = run.evaluate(tmp_path / "only").as_json()
    assert found["per_class"][1] == found["per_class"][1] | {"class": "red", "count": 4}
    assert found["top1"]["correct"] == sum(
        p.class_name == "red" for p in run.predict(sorted((tmp_path / "only" / "red").iterdir()))
    )


def test_evaluate_refuses_a_class_the_model_does_not_know(run, tmp_path):
    draw(tmp_path / "d" / "mauve" / "0.png", (9, 9, 9), 1)
    draw(tmp_path / "d" / "red" / "0.png", (9, 9, 9), 2)
    with pytest.raises(DataError, match='"mauve"'):
        run.evaluate(tmp_path / "d")


def test_evaluating_on_pictures_it_learned_from_is_said(run, colours):
    heard = Heard()
    run.evaluate(colours / "train", progress=heard)
    assert any("learned from 20 of these" in line for line in heard.warnings)
    fine = Heard()
    run.evaluate(colours, progress=fine)
    assert not fine.warnings


def test_evaluate_refuses_a_split_that_is_not_there(run, colours):
    with pytest.raises(DataError, match="validation"):
        run.evaluate(colours, "validation")


def test_a_head_of_source_rows_is_scored_before_training(colours, tiny_source, tmp_path):
    """`red` is a class of the tiny source model, `blue` is not."""
    heard = Heard()
    settings = {**SMALL, "epochs": 0}
    made = relish.fit(
        colours, weights=tiny_source, recipe="source-head", settings=settings, out=tmp_path / "r", progress=heard
    )
    said = next(line for line in heard.lines if "before training" in line)
    final = read_json(tmp_path / "r" / "evaluation.json")["top1"]
    assert f"{final['correct']} of 12" in said  # nothing was trained, so both are the same
    source = relish.source_model("timm/test_resnet", tiny_source)
    head, row = made.network.get_classifier(), source.get_classifier()
    assert torch.equal(head.weight[1], row.weight[0])
    assert torch.equal(head.bias[1], row.bias[0])


def test_a_class_can_be_mapped_to_a_source_row(colours, tiny_source, tmp_path):
    settings = {**SMALL, "epochs": 0}
    made = relish.fit(
        colours, weights=tiny_source, recipe="source-head", settings=settings, out=tmp_path / "r", mapping={"blue": 2}
    )
    source = relish.source_model("timm/test_resnet", tiny_source)
    assert torch.equal(made.network.get_classifier().weight[0], source.get_classifier().weight[2])


def test_a_run_folder_is_a_source_model_by_itself(run, tmp_path):
    """Step 1 and the rest: what one run made, another starts from, its own head replaced."""
    root = draw_dataset(tmp_path / "next", classes=("blue", "green", "red"))
    made = relish.fit(
        root, recipe="book", weights=tmp_path / "run", settings={**SMALL, "epochs": 0}, out=tmp_path / "second"
    )
    assert made.network.get_classifier().out_features == 3
    first = {k: v for k, v in run.network.state_dict().items() if not k.startswith("fc")}
    assert all(torch.equal(made.network.state_dict()[k], v) for k, v in first.items())


def test_a_source_name_that_is_not_the_files_is_refused(colours, tiny_source, tmp_path):
    with pytest.raises(ModelError, match="test_resnet"):
        relish.fit(
            colours, recipe="book", source="timm/resnet18", weights=tiny_source, settings=SMALL, out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("source", "size"), [("timm/test_vit", 17), ("timm/swin_tiny_patch4_window7_224", 256)])
def test_a_picture_size_the_network_does_not_take_is_refused_with_one_that_it_takes(colours, tmp_path, source, size):
    choices = {"recipe": "book", "source": source, "weights": "none"}
    with pytest.raises(RecipeError, match=f"does not take pictures of {size} × {size}") as refused:
        relish.fit(colours, **choices, settings={**SMALL, "image_size": size}, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    advised = int(refused.value.hint.partition("--image-size ")[2].partition(":")[0])
    relish.fit(colours, **choices, settings={**SMALL, "image_size": advised, "epochs": 0}, out=tmp_path / "r")


@pytest.mark.parametrize("recipe", ["book", "pretrain"])
def test_a_last_batch_of_one_picture_trains_whatever_the_network_normalises(recipe, colours, tmp_path):
    """20 pictures at 19 a batch; MobileNetV4 normalises pooled vectors, of which one picture gives one."""
    heard, settings = Heard(), {"image_size": 64, "batch_size": 19, "epochs": 1}
    choices = {"source": "timm/mobilenetv4_conv_small_035", "weights": "none", "settings": settings}
    relish.fit(colours, recipe=recipe, **choices, out=tmp_path / "run", progress=heard)
    assert any("the last picture of an epoch joins the batch before" in line for line in heard.lines)


def test_batches_of_one_are_refused_before_training_where_the_network_cannot_take_them(colours, tiny_source, tmp_path):
    choices = {"recipe": "book", "weights": tiny_source, "out": tmp_path / "run"}
    with pytest.raises(RecipeError, match="normalises over a batch: of pictures of 32 × 32 pixels it needs 2") as found:
        relish.fit(colours, **choices, settings={**SMALL, "batch_size": 1})
    assert "--batch-size 2" in found.value.hint
    assert not (tmp_path / "run").exists()
    relish.fit(colours, **choices, settings={"image_size": 64, "batch_size": 1, "epochs": 1})


def test_a_file_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such run"):
        relish.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="not a run folder"):
        relish.load(tmp_path / "empty")
