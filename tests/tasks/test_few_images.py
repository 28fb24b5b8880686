"""A small folder without splits: all is learned from, and the figures are those of nested cross-validation."""

import numpy as np
import pytest

import relish
from relish.core.context import Context
from relish.core.errors import DataError
from relish.core.run_folder import RunFolder
from relish.tasks.prepare import Request, prepare_data
from relish.tasks.run_results import read_run
from relish.training.recipe import named_recipe
from tests.commands import done
from tests.conftest import COLOURS, Heard, draw, read_json


def few(root, count=6):
    for place, name in enumerate(("blue", "red")):
        for number in range(count):
            draw(root / name / f"{number}.png", COLOURS[name], 100 * place + number, size=(40, 40))
    return root


@pytest.fixture(scope="module")
def made(tiny_source, tmp_path_factory, home_of_module):
    """The folder, with `pictures` and `run`, and what was said."""
    folder, heard = tmp_path_factory.mktemp("few"), Heard()
    few(folder / "pictures")
    settings = {"image_size": 32}
    relish.fit(folder / "pictures", weights=tiny_source, settings=settings, out=folder / "run", progress=heard)
    return folder, heard


def test_every_picture_is_learned_from_and_the_figure_says_how_it_came_about(made):
    folder, heard = made
    found = read_json(folder / "run" / "evaluation.json")
    assert {name: len(rows) for name, rows in read_json(folder / "run" / "dataset.json")["splits"].items()} == {
        "train": 12
    }
    assert (found["split"], found["top1"]["count"], found["nested"]) == ("cross-validation", 12, {"folds": 5})
    assert found["decision"]["fitted_on"] == 12
    assert any("in nested cross-validation: every picture was learned from" in line for line in heard.lines)
    assert any(line.startswith("few ") and "--val-split 0.2" in line for line in heard.lines)


def test_of_few_groups_there_are_as_many_folds(tiny_source, tmp_path):
    for place, name in enumerate(("blue", "red")):
        for number in range(6):
            picture = tmp_path / "d" / name / f"scene{number // 2}" / f"{number}.png"
            draw(picture, COLOURS[name], 100 * place + number, size=(40, 40))
    small = {"image_size": 32}
    relish.fit(tmp_path / "d", weights=tiny_source, settings=small, out=tmp_path / "run", group_by="FOLDER")
    assert read_json(tmp_path / "run" / "evaluation.json")["nested"] == {"folds": 3}


def test_predictions_and_held_out_logits_are_in_the_order_of_the_pictures_learned_from(made):
    folder, _ = made
    rows = read_json(folder / "run" / "dataset.json")["splits"]["train"]
    with np.load(folder / "run" / "predictions.npz") as kept, np.load(folder / "run" / "held_out.npz") as held:
        assert kept["labels"].tolist() == [("blue", "red").index(row["class"]) for row in rows]
        np.testing.assert_array_equal(kept["logits"], held["logits"])
        assert held["sha256"].tolist() == [row["sha256"] for row in rows]


def test_no_reader_of_such_a_run_stumbles(made, monkeypatch, tmp_path):
    folder, _ = made
    run = folder / "run"
    page = relish.report(run, tmp_path / "report.html").read_text()
    assert "The saved model learned from every picture" in page
    assert "relish evaluate" not in page
    card = (run / "README.md").read_text()
    assert "In nested cross-validation, each picture by a model that neither learned from it" in card
    assert "cross-validation accuracy" in repr(relish.load(run))
    assert "held-out pictures comes to" in done("decide", run).out
    done("card", run, "--overwrite")
    assert "the model learned from 12 of these pictures" in done("evaluate", run, folder / "pictures").err


def test_a_picture_is_not_shown_as_its_own_nearest(made):
    from relish.tasks.report_examples import NEIGHBOURS, Examples

    run = read_run(RunFolder.open(made[0] / "run"))
    shown = Examples(relish.load(run.folder.path), run, Context.on("cpu")).of([0, 7])
    for position, example in shown.items():
        assert run.evaluated[position]["path"] not in {one.label for one in example.neighbours}
        assert len(example.neighbours) == NEIGHBOURS


def test_an_export_is_proved_on_the_pictures_that_were_learned_from(made, tmp_path):
    pytest.importorskip("onnx")
    exported = relish.export(made[0] / "run", tmp_path / "model.onnx", limit=4)
    assert (exported.split, exported.certificate.agreed.correct) == ("train", 4)


@pytest.mark.parametrize(
    ("recipes", "given", "splits"),
    [
        (["auto", "probe"], {}, {"train": 12}),
        (["probe"], {"val_split": 0.34}, {"train": 8, "validation": 4}),
        (["probe", "book"], {}, {"train": 10, "validation": 2}),
    ],
)
def test_pictures_are_held_back_where_it_is_asked_for_or_a_recipe_needs_it(tmp_path, recipes, given, splits):
    request = Request(data=str(few(tmp_path / "d")), group_by="none", **given)
    dataset = prepare_data(Context.on("cpu"), request, [named_recipe(name) for name in recipes]).dataset
    assert {name: len(split) for name, split in dataset.splits.items()} == splits


def test_a_class_with_one_picture_is_refused_as_ever(tiny_source, tmp_path):
    root = few(tmp_path / "d")
    draw(root / "green" / "0.png", COLOURS["green"], 1)
    with pytest.raises(DataError, match='class "green" has 1 picture'):
        relish.fit(root, weights=tiny_source, settings={"image_size": 32}, out=tmp_path / "run")
