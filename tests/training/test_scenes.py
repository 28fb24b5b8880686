"""Series stay in one fold, everything is chosen by a validation split, and what does not fit together is told."""

import numpy as np
import pytest

import relish
from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.evaluation.metrics import Proportion
from relish.evaluation.series import Series
from relish.training import probe_stage, scenes
from tests.conftest import Heard, draw, draw_dataset, read_json

SMALL = {"image_size": 32}


@pytest.fixture
def pairs(monkeypatch):
    """Every two pictures, in their order, are said to be of one scene."""

    def found(_, labels, facts, **_more):
        assert len(facts) == len(labels)
        return Series(np.arange(len(labels)) // 2, np.arange(len(labels)))

    monkeypatch.setattr(scenes, "find_series", found)


@pytest.fixture
def dealt(monkeypatch):
    """The folds of every cross-validation, with its labels."""
    seen, real = [], probe_stage.cross_validate

    def cross_validate(features, labels, classes, fold_of, *more, **named):
        seen.append((fold_of, labels[: len(fold_of)]))
        return real(features, labels, classes, fold_of, *more, **named)

    monkeypatch.setattr(probe_stage, "cross_validate", cross_validate)
    return seen


def fitted(data, source, out, **more):
    heard = Heard()
    relish.fit(data, weights=source, recipe="probe", settings=SMALL, out=out, progress=heard, **more)
    return heard


@pytest.mark.usefixtures("pairs")
def test_a_series_stays_in_one_fold_and_is_told(colours, tiny_source, tmp_path, dealt):
    heard = fitted(colours, tiny_source, tmp_path / "run")
    assert all((fold_of[0::2] == fold_of[1::2]).all() for fold_of, _ in dealt)
    (line,) = [line for line in heard.lines if line.startswith("series ")]
    assert "20 pictures in 10 series of 2 that look like one scene" in line


@pytest.mark.usefixtures("pairs")
def test_group_by_none_divides_series(colours, tiny_source, tmp_path, dealt):
    heard = fitted(colours, tiny_source, tmp_path / "run", group_by="none")
    assert any((fold_of[0::2] != fold_of[1::2]).any() for fold_of, _ in dealt)
    assert not any(line.startswith("series ") for line in heard.lines)


def test_series_that_nothing_could_be_held_out_of_are_divided(colours, tiny_source, tmp_path, monkeypatch):
    """One series a class: what was guessed is no reason to refuse the pictures."""
    monkeypatch.setattr(scenes, "find_series", lambda _, labels, facts, **more: Series(labels, np.arange(len(labels))))
    heard = fitted(colours, tiny_source, tmp_path / "run")
    assert any("series" in line and "divided" in line for line in heard.warnings)
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_strength_and_framing_are_chosen_by_the_validation_split(tiny_source, tmp_path, dealt):
    data = draw_dataset(tmp_path / "colours")
    for number, (name, colour) in enumerate((("blue", (60, 60, 190)), ("red", (190, 60, 60))) * 3):
        draw(data / "val" / name / f"{number}.png", colour, 900 + number, size=(48, 32))
    fitted(data, tiny_source, tmp_path / "run")
    assert len(dealt) > 1
    by_validation = [fold_of for fold_of, _ in dealt if len(fold_of) == 26]
    assert by_validation
    assert all((fold_of >= 0).sum() == 6 for fold_of in by_validation)
    (rung,) = [event for event in RunFolder(tmp_path / "run").records() if event["event"] == "rung"]
    assert rung["count"] == 6


def test_a_validation_split_far_from_cross_validation_is_told():
    run, heard = Context.on("cpu", Heard()), Heard()
    run = Context.on("cpu", heard)
    scenes.warn_where_apart(run, Proportion(2835, 2936), Proportion(216, 296))
    scenes.warn_where_apart(run, Proportion(950, 1000), Proportion(95, 100))
    (line,) = heard.warnings
    assert "0.966" in line
    assert "0.730" in line
    assert "one scene" in line


def test_a_test_split_that_shares_scenes_is_told(colours, tiny_source, tmp_path, monkeypatch):
    """Every scene has pictures in both splits."""

    def found(_, labels, facts, **_more):
        return Series(np.arange(len(labels)) % 6 + 6 * labels, np.arange(len(labels)))

    monkeypatch.setattr(scenes, "find_series", found)
    heard = fitted(colours, tiny_source, tmp_path / "run")
    assert any("12 of 12 test pictures" in line for line in heard.warnings)


@pytest.mark.parametrize(("recipe", "sees"), [("probe", True), ("book", False)])
def test_what_is_held_back_keeps_series_whole(tiny_source, tmp_path, monkeypatch, recipe, sees):
    """Features are computed for a recipe that uses them; without any, copies alone are kept together."""
    seen = []

    def found(features, labels, facts):
        seen.append(features)
        return Series(np.arange(len(labels)) // 2, np.arange(len(labels)))

    monkeypatch.setattr(scenes, "find_series", found)
    data = draw_dataset(tmp_path / "colours") / "train"
    settings = SMALL if recipe == "probe" else {**SMALL, "epochs": 1, "batch_size": 8}
    heard = Heard()
    relish.fit(
        data, weights=tiny_source, recipe=recipe, val_split=0.4, settings=settings, out=tmp_path / "run", progress=heard
    )
    splits = read_json(tmp_path / "run" / "dataset.json")["splits"]
    groups = {name: {row["group"] for row in rows} for name, rows in splits.items()}
    assert not groups["train"] & groups["validation"]
    assert len(splits["validation"]) == 8
    assert (seen[0] is not None) == sees
    assert len(seen) == 1  # they are known from then on
    assert sum(line.startswith("series ") for line in heard.lines) == 1
