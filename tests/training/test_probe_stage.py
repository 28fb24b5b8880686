"""Nested cross-validation: no image is predicted by a model that it, or its label, had a part in."""

from pathlib import Path

import numpy as np
import pytest

from relish.core.context import Context
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.data.transforms import book_preprocessing
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training import probe_stage
from relish.training.budget import OUTER_FOLDS, ProbePlan, plan_probe
from relish.training.measure import Budget
from relish.training.recipe import named_recipe
from relish.training.train import TrainingSetup

COUNT = 18
PLAN = ProbePlan(image_size=32, images=COUNT, framings=False, views=1, seconds=0.0, forward=0.0)
FOLD_OF = np.arange(COUNT) % 3


@pytest.fixture
def predicted(tiny_source, tmp_path, monkeypatch):
    """A function from features and labels to the logits of nested cross-validation, in three folds that stay."""
    paths = tuple(Path(f"{number}.png") for number in range(COUNT))
    target = make_target(load_source(None, tiny_source), ("a", "b"), seed=0)
    run = Context.on("cpu").in_run(RunFolder(tmp_path), 0)
    monkeypatch.setattr(probe_stage, "nested_folds", lambda *_: FOLD_OF)

    def logits(features, labels, whole=False):
        rows = dict(zip(paths, features, strict=True))
        drawn = lambda _, split, views, *__, **___: [np.array([rows[p] for p in split.paths]) for _ in views]  # noqa: E731
        monkeypatch.setattr(probe_stage, "features_of", drawn)
        setup = TrainingSetup(
            target=target, recipe=named_recipe("probe"), preprocessing=book_preprocessing(32, (0.5,) * 3, (0.5,) * 3),
            train=Split(paths, labels), validation=Split((), labels[:0]), nested=True,
            sha256={path: path.name for path in paths}, units={path: path.name for path in paths},
        )  # fmt: skip
        found = probe_stage.probe_stage(run, setup, PLAN, Budget())
        return found if whole else found[2].logits

    return logits


@pytest.fixture
def drawn():
    rng, labels = np.random.default_rng(0), np.arange(COUNT) // 3 % 2
    return rng.normal(0, 1, (COUNT, 5)).astype("f4") + labels[:, None].astype("f4"), labels


def test_the_labels_of_a_fold_change_none_of_its_predictions_but_those_of_the_others(predicted, drawn):
    features, labels = drawn
    out = FOLD_OF == 1
    before, after = predicted(features, labels), predicted(features, np.where(out, 1 - labels, labels))
    np.testing.assert_array_equal(after[out], before[out])
    assert not np.isclose(after[~out], before[~out]).any()


def test_the_folds_that_were_made_are_counted(predicted, drawn):
    assert predicted(*drawn, whole=True)[3] == 3


def test_an_image_says_nothing_about_those_that_are_held_out_with_it(predicted, drawn):
    features, labels = drawn
    other = features.copy()
    other[1] += 100
    before, after = predicted(features, labels), predicted(other, labels)
    np.testing.assert_array_equal(after[FOLD_OF == 1][1:], before[FOLD_OF == 1][1:])


@pytest.mark.parametrize("sizes", [(3, 3), (4, 40), (3, 5, 7, 9)])
def test_every_image_is_held_out_once_beside_its_copies_and_leaves_some_of_its_class(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    contents = [f"{label}/{number}" for label, size in enumerate(sizes) for number in range(size)]
    labels, contents = np.insert(labels, 0, 0), [contents[0], *contents]
    fold_of = probe_stage.nested_folds(labels, contents, 0)
    assert set(fold_of.tolist()) == set(range(OUTER_FOLDS))
    assert fold_of[0] == fold_of[1]
    for fold in range(OUTER_FOLDS):
        assert set(labels[fold_of != fold].tolist()) == set(range(len(sizes)))


def test_few_images_are_all_learned_from_however_little_time_there_is():
    plan = plan_probe(
        images=100, evaluated=0, classes=2, forward={224: 2.0, 96: 1.0}, solving=0.1, budget=60, nested=True
    )
    assert (plan.images, plan.image_size, plan.views, plan.framings) == (100, 96, 1, False)


@pytest.mark.parametrize(
    ("recipe", "settings", "images", "nested"),
    [
        ("auto", {}, 40, True),
        ("probe", {}, 40, True),
        ("auto", {"epochs": 0}, 40, True),
        ("auto", {"epochs": 3}, 40, False),
        ("auto", {"lr": 1e-4}, 40, False),
        ("book", {}, 40, False),
        ("auto", {}, probe_stage.FEW, True),
        ("auto", {}, probe_stage.FEW + 1, False),
    ],
)
def test_whoever_gives_a_number_of_the_fine_tuning_sees_it_done(recipe, settings, images, nested):
    assert probe_stage.nested_for(named_recipe(recipe).with_settings(settings), images) is nested
