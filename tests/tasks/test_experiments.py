"""`compare` and `sweep`: one table, paired tests, and nothing trained twice."""

import base64
import json
import re
import shutil

import numpy as np
import pytest

import relish
from relish.core.errors import RecipeError
from relish.evaluation.significance import mcnemar
from relish.tasks.sweep import parse_vary
from tests.conftest import SMALL, draw_dataset, read_json
from tests.tasks.test_fit import Heard

QUICK = {**SMALL, "epochs": 1}


@pytest.fixture(scope="module")
def once(tiny_source, tmp_path_factory):
    """A folder with `colours` and the `runs` of a comparison of two recipes; and what came of that."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        return folder, comparison(draw_dataset(folder / "colours"), tiny_source, folder / "runs")[0]


def comparison(data, source, runs, **more):
    arguments = {"recipes": ["book", "frozen"], "weights": source, "settings": QUICK, "runs": runs}
    return relish.compare(data, progress=(heard := Heard()), **{**arguments, **more}), heard


@pytest.fixture
def compared(once, tiny_source, tmp_path):
    """A comparison beside a copy of those runs."""
    shutil.copytree(once[0] / "runs", tmp_path / "runs")
    return lambda **more: comparison(once[0] / "colours", tiny_source, tmp_path / "runs", **more)


def test_a_comparison_is_one_table_with_a_paired_test(once):
    folder, found = once
    table = found.table()
    assert all(word in table for word in ("book", "frozen", "95% interval", "p = "))
    rows = found.as_json()["recipes"]
    kept = [np.load(folder / "runs" / f"colours-{name}-1" / "predictions.npz") for name in ("book", "frozen")]
    book, frozen = (k["probabilities"].argmax(1) == k["labels"] for k in kept)
    assert rows[0]["top1"]["correct"] == book.sum()
    assert rows[1]["against_first"]["p_value"] == pytest.approx(mcnemar(frozen, book).p_value)
    assert {path.name for path in found.folder.iterdir()} == {"compare.txt", "study.json", "curves.svg"}


def test_a_study_shows_table_and_chart_in_a_notebook_and_no_times(once, swept_once):
    """Times differ each time: a notebook that is executed again would differ for nothing."""
    for study, chart in ((once[1], "curves.svg"), (swept_once[1], "sweep.svg")):
        shown = study._repr_mimebundle_(include=None, exclude=None)
        drawn = base64.b64encode((study.folder / chart).read_bytes()).decode()
        assert f'src="data:image/svg+xml;base64,{drawn}"' in shown["text/html"]
        assert all(line in shown["text/html"] for line in shown["text/plain"].splitlines() if "<" not in line)
        assert not re.search(r"pictures/s|training|\d s\b", shown["text/plain"])
    assert "pictures/s" in once[1].table()


def test_the_curves_of_a_comparison_name_the_pictures_they_were_scored_on(compared):
    found, _ = compared(recipes=["book"], val_split=0.2)
    drawn = (found.folder / "curves.svg").read_text()
    assert "validation accuracy" in drawn
    assert "test" not in drawn
    tested, _ = compared(recipes=["book"])
    assert "test accuracy" in (tested.folder / "curves.svg").read_text()


def test_a_second_comparison_trains_nothing_and_says_the_same(once, tiny_source):
    folder, first = once
    again, heard = comparison(folder / "colours", tiny_source, folder / "runs")
    assert again.as_json() == first.as_json()
    assert again.folder == first.folder
    assert sum(line.startswith("kept") for line in heard.lines) == 2
    assert not any(line.startswith("training") for line in heard.lines)


def test_a_comparison_with_more_recipes_trains_only_the_new_one(once, compared):
    second, heard = compared(recipes=["book", "frozen", "book-scratch"])
    assert [line.split()[0] for line in heard.lines if line.startswith(("kept", "training"))] == [
        "kept",
        "kept",
        "training",
    ]
    assert second.folder.name != once[1].folder.name


def test_a_finished_fit_is_reused_by_compare(colours, tiny_source, tmp_path):
    relish.fit(colours, recipe="book", weights=tiny_source, settings=QUICK, out=tmp_path / "runs" / "mine")
    found, heard = comparison(colours, tiny_source, tmp_path / "runs", recipes=["book"])
    assert "mine" in found.as_json()["recipes"][0]["seeds"][0]["run"]
    assert any(line.startswith("kept") for line in heard.lines)


@pytest.mark.parametrize("change", [{"settings": {**QUICK, "learning_rate": 1e-4}}, {"seeds": 2}])
def test_what_is_not_the_same_run_is_trained(compared, change):
    _, heard = compared(recipes=["book"], **change)
    assert any(line.startswith("training") for line in heard.lines)


def test_an_interrupted_run_of_a_comparison_is_gone_on_with(compared, tmp_path):
    whole = (tmp_path / "runs" / "colours-book-1" / "model.safetensors").read_bytes()
    (tmp_path / "runs" / "colours-book-1" / "evaluation.json").unlink()
    (tmp_path / "runs" / "colours-book-1" / "model.safetensors").unlink()
    _, heard = compared(recipes=["book"])
    assert any(line.startswith("resuming") for line in heard.lines)
    assert (tmp_path / "runs" / "colours-book-1" / "model.safetensors").read_bytes() == whole
    assert len(list((tmp_path / "runs").glob("colours-book-*"))) == 1


def test_several_seeds_show_their_spread(compared):
    found, _ = compared(seeds=2)
    assert "over 2 seeds" in found.table()
    seeds = found.as_json()["recipes"][0]["seeds"]
    assert [row["seed"] for row in seeds] == [0, 1]


def test_a_recipe_twice_or_none_is_refused(colours, tiny_source, tmp_path):
    for recipes in (["book", "book"], []):
        with pytest.raises(RecipeError, match="recipes"):
            comparison(colours, tiny_source, tmp_path / "runs", recipes=recipes)


def swept(colours, tiny_source, tmp_path, **more):
    heard = Heard()
    arguments = {"vary": "lr=1e-4..1e-2", "points": 2, "recipes": ["book", "book-scratch"], "settings": QUICK}
    found = relish.sweep(colours, weights=tiny_source, runs=tmp_path / "runs", progress=heard, **{**arguments, **more})
    return found, heard


@pytest.fixture(scope="module")
def swept_once(tiny_source, tmp_path_factory):
    """A folder with `colours` and the `runs` of a sweep; and what came of that."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(folder / "home"))
        return folder, swept(draw_dataset(folder / "colours"), tiny_source, folder)[0]


def test_a_sweep_is_scored_on_validation_and_tests_the_best_alone(swept_once):
    folder, found = swept_once
    document = found.as_json()
    assert [(p["recipe"], p["value"]) for p in document["points"]] == [
        ("book", 1e-4), ("book", 1e-2), ("book-scratch", 1e-4), ("book-scratch", 1e-2),
    ]  # fmt: skip
    assert {p["top1"]["count"] for p in document["points"]} == {4}  # a fifth of 20 training pictures
    assert {accuracy["count"] for accuracy in document["test"].values()} == {12}
    assert sum(p["best"] for p in document["points"]) == 2
    for point in document["points"]:
        assert read_json(folder / "runs" / point["run"].split("/")[-1] / "evaluation.json")["split"] == "validation"
    assert "differ" in document["conclusion"]
    assert {path.name for path in found.folder.iterdir()} == {"sweep.txt", "study.json", "sweep.svg"}


def test_a_sweep_goes_on_where_it_was(swept_once, tiny_source):
    folder, first = swept_once
    again, heard = swept(folder / "colours", tiny_source, folder)
    assert json.dumps(again.as_json()) == json.dumps(first.as_json())
    assert sum(line.startswith("kept") for line in heard.lines) == 4


def test_a_run_that_diverges_is_a_point_marked_so(colours, tiny_source, tmp_path):
    found, _ = swept(
        colours, tiny_source, tmp_path, vary="lr=1e-4,1e20", recipes=["book"], settings={**QUICK, "epochs": 2}
    )
    assert [p["diverged"] for p in found.as_json()["points"]] == [False, True]
    assert "diverged" in found.table()
    again, heard = swept(
        colours, tiny_source, tmp_path, vary="lr=1e-4,1e20", recipes=["book"], settings={**QUICK, "epochs": 2}
    )
    assert sum(line.startswith("kept") for line in heard.lines) == 2  # a diverged run is not tried again
    assert again.folder == found.folder


def test_a_range_is_even_on_a_log_scale():
    assert parse_vary("lr=1e-5..1e-1", 5) == ("learning_rate", [1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert parse_vary("epochs=5,1,2", 7) == ("epochs", [1, 2, 5])


@pytest.mark.parametrize(
    "vary", ["lr", "lr=", "lr=a..b", "lr=1..1", "lr=-1..1", "lr=1e-2..1e-5", "freeze=1,2", "rl=1,2"]
)
def test_a_vary_that_cannot_be_read_is_refused(vary):
    with pytest.raises(RecipeError, match="vary"):
        parse_vary(vary, 3)


def test_uneven_classes_have_their_balanced_accuracy_in_the_table_of_a_comparison(tiny_source, tmp_path):
    root = draw_dataset(tmp_path / "d")
    settings = {**SMALL, "epochs": 0}
    even = relish.compare(root, recipes=["book"], weights=tiny_source, settings=settings, runs=tmp_path / "even")
    assert "balanced" not in even.table()
    for path in sorted((root / "test" / "red").iterdir())[2:]:
        path.unlink()
    found = relish.compare(root, recipes=["book"], weights=tiny_source, settings=settings, runs=tmp_path / "uneven")
    (side,) = found.as_json()["recipes"]
    assert f"{side['balanced_accuracy']:.4f}" in found.table()
    assert "balanced accuracy" in found.table()
