"""Classes of unequal size: what each way of evening them out does, against other libraries and by its laws."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import relish
from relish.core.errors import RecipeError
from relish.data.folder import index_folder
from relish.data.loader import balanced_batches, training_batches
from relish.data.transforms import book_preprocessing
from relish.evaluation.held_out import read_held_out
from relish.training.linear_probe import Problem, cross_validate, fit_probe
from relish.training.recipe import Recipe, balance_of, named_recipe, recipe_from_dict
from tests.conftest import SMALL, SQUARE, draw_dataset, read_json

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def logits(seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(100, 3)).astype(np.float32))


def test_weights_are_scikit_learns_balanced_ones_and_1_on_average():
    from sklearn.utils.class_weight import compute_class_weight

    weights = balance_of("weights", LABELS, 3).weights.numpy()
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=LABELS), rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_the_adjusted_loss_is_that_of_the_paper():
    """Menon et al. 2021, equation 10, written out."""
    share, f = np.array([0.6, 0.3, 0.1]), logits().numpy().astype(np.float64)
    theirs = [
        -np.log(share[y] * np.exp(row[y]) / (share * np.exp(row)).sum()) for row, y in zip(f, LABELS, strict=True)
    ]
    ours = balance_of("logit", LABELS, 3).losses(logits(), torch.from_numpy(LABELS))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_without_balance_a_loss_is_the_plain_one_to_the_bit():
    labels = torch.from_numpy(LABELS)
    plain = torch.nn.functional.cross_entropy(logits(), labels, reduction="none")
    assert torch.equal(balance_of("none", LABELS, 3).losses(logits(), labels), plain)
    assert torch.equal(balance_of("sampling", LABELS, 3, sampled=True).losses(logits(), labels), plain)


def test_even_classes_are_weighted_alike():
    even = np.repeat([0, 1], 10)
    assert balance_of("weights", even, 2).weights.tolist() == [1, 1]


def test_a_class_without_pictures_makes_no_loss_infinite():
    for way in ("weights", "logit"):
        assert torch.isfinite(balance_of(way, LABELS, 5).losses(torch.zeros(100, 5), torch.from_numpy(LABELS))).all()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 9), st.integers(0, 99))
def test_sampled_classes_come_equally_often_and_their_pictures_by_turns(sizes, batch_size, seed):
    labels = np.repeat(range(len(sizes)), sizes)
    batches = balanced_batches(labels, batch_size, seed, epoch=0)
    turns = np.concatenate(batches)
    assert len(turns) == len(set(turns.tolist())) == len(labels), "as many as there are, none twice in the same way"
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    times = np.bincount(turns % len(labels), minlength=len(labels))
    per_class = np.bincount(labels, times)
    assert per_class.max() - per_class.min() <= 1
    for k in range(len(sizes)):
        own = times[labels == k]
        assert own.max() - own.min() <= 1, "no picture comes again before all of its class have come"


def test_sampling_is_a_function_of_seed_and_epoch():
    assert balanced_batches(LABELS, 8, 1, 2) == balanced_batches(LABELS, 8, 1, 2)
    assert balanced_batches(LABELS, 8, 1, 2) != balanced_batches(LABELS, 8, 1, 3)


def test_a_picture_that_comes_twice_in_an_epoch_is_cropped_twice(colours):
    split = index_folder(colours, name="c", source="c").splits["train"]
    how = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    (batch,) = training_batches(split, how, [[3, 3 + len(split)]], seed=0, epoch=0)
    assert batch.positions.tolist() == [3, 3]
    assert not torch.equal(batch.images[0], batch.images[1])


# ---- the probe ------------------------------------------------------------------------------------------------------


def features(seed=0):
    chance = np.random.default_rng(seed)
    return (chance.normal(size=(100, 5)) + 1.2 * np.eye(3, 5)[LABELS]).astype(np.float32)


def test_a_weighted_probe_is_scikit_learns():
    x, strength = features(), 0.05
    scaled = Problem(x, LABELS, 3)
    theirs = LogisticRegression(C=1 / (strength * len(x)), class_weight="balanced", tol=1e-8, max_iter=5000)
    expected = theirs.fit(scaled.features.numpy(), LABELS).predict_proba(scaled.features.numpy())
    for way in ("weights", "sampling"):
        found = torch.from_numpy(fit_probe(x, LABELS, 3, strength, balance=way).logits(x)).softmax(1)
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_an_adjusted_probe_with_a_bias_is_the_plain_one_shifted():
    """The bias is free of the penalty, so it takes the offset up: the weights are the same."""
    x = features()
    plain, adjusted = (fit_probe(x, LABELS, 3, 0.05, balance=way) for way in ("none", "logit"))
    np.testing.assert_allclose(adjusted.weight, plain.weight, atol=2e-3)
    shift = plain.bias - adjusted.bias
    expected = np.log([0.6, 0.3, 0.1])
    np.testing.assert_allclose(shift - shift.mean(), expected - expected.mean(), atol=5e-3)


def test_strengths_are_chosen_by_the_loss_that_is_balanced():
    x, folds = features(), np.arange(100) % 5
    found = cross_validate(x, LABELS, 3, folds, (1.0, 0.1), balance="weights")
    weights = balance_of("weights", LABELS, 3).weights.numpy()
    p = torch.from_numpy(found.logits).double().softmax(1).numpy()
    assert found.loss == pytest.approx(np.mean(-weights[LABELS] * np.log(p[np.arange(100), LABELS])), rel=1e-5)


# ---- in a recipe ----------------------------------------------------------------------------------------------------


def test_an_unknown_way_is_refused():
    with pytest.raises(RecipeError, match="balance"):
        Recipe().with_settings({"balance": "smote"})


def test_no_recipe_balances_unless_asked():
    assert {named_recipe(name).balance for name in ("book", "auto", "probe", "frozen", "pretrain")} == {"none"}


def test_a_run_begun_before_there_was_a_choice_is_gone_on_with(colours, tiny_source, tmp_path):
    """Its recipe.yaml says nothing of balance, and its identity was made without it."""
    import yaml

    settings = {**SMALL, "epochs": 0}
    relish.fit(colours, weights=tiny_source, recipe="book", settings=settings, out=tmp_path / "run")
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    del kept["balance"]
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    (tmp_path / "run" / "evaluation.json").unlink()
    assert recipe_from_dict(kept).balance == "none"
    relish.fit(resume=tmp_path / "run")
    assert (tmp_path / "run" / "evaluation.json").is_file()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Twenty blue pictures to learn from and six red ones."""
    root = draw_dataset(tmp_path_factory.mktemp("uneven") / "uneven", train=20, test=6, size=SQUARE)
    for path in sorted((root / "train" / "red").iterdir())[6:]:
        path.unlink()
    return root


def balanced_by(way, uneven, source, out):
    """The model file of a run."""
    settings = {**SMALL, "learning_rate": 1e-3, "balance": way}
    relish.fit(uneven, weights=source, recipe="book", settings=settings, out=out)
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain(uneven, tiny_source, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELISH_HOME", str(tmp_path_factory.mktemp("home")))
        return balanced_by("none", uneven, tiny_source, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize("way", ["sampling", "weights", "logit"])
def test_each_way_trains_another_model_and_repeats_it(plain, uneven, tiny_source, tmp_path, way):
    a, b = (balanced_by(way, uneven, tiny_source, tmp_path / name) for name in ("a", "b"))
    assert a == b != plain


def test_a_balanced_probe_says_the_rare_class_more_often(uneven, tiny_source, tmp_path):
    said = {}
    for way in ("none", "weights", "logit"):
        settings = {"image_size": 32, "balance": way}
        relish.fit(uneven, weights=tiny_source, recipe="probe", settings=settings, out=tmp_path / way)
        held = read_held_out(tmp_path / way / "held_out.npz")
        said[way] = float((held.logits[:, 1] - held.logits[:, 0]).mean())
    assert said["weights"] > said["none"]
    assert said["logit"] > said["none"]
    assert read_json(tmp_path / "none" / "evaluation.json")["top1"]["count"] == 12
