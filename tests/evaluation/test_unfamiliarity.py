"""The unfamiliarity is a distance to the nearest training images; its limit keeps its share, its header is checked."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import ModelError, RecipeError
from relish.evaluation.unfamiliarity import (
    BANK_BYTES,
    HEADER_KEY,
    NEIGHBOURS,
    Unfamiliarity,
    fit_unfamiliarity,
    limit_of,
    parse_share,
    unfamiliarity_from,
)


def features(count: int, seed: int = 0, width: int = 16) -> np.ndarray:
    """As a network's last ReLU gives them: around one direction, none below 0."""
    return np.maximum(np.random.default_rng(seed).normal(1, 1, (count, width)), 0).astype(np.float32)


def scores(fitted: Unfamiliarity, new: np.ndarray) -> np.ndarray:
    return fitted.of(fitted.similarity(torch.from_numpy(new))).numpy()


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


# ---- the score ------------------------------------------------------------------------------------------------------


def test_it_is_the_cosine_distance_to_the_k_th_nearest_of_the_bank():
    learned, new = features(30), features(5, seed=1)
    fitted, _ = fit_unfamiliarity(learned, names(30))
    bank, unit = fitted.bank.astype(np.float64), new / np.linalg.norm(new, axis=1, keepdims=True)
    wanted = 1 - np.sort(unit @ bank.T, axis=1)[:, -NEIGHBOURS]
    np.testing.assert_allclose(scores(fitted, new), wanted, atol=1e-6)


def test_longer_features_are_no_stranger():
    fitted, _ = fit_unfamiliarity(features(30), names(30))
    new = features(5, seed=1)
    np.testing.assert_allclose(scores(fitted, new), scores(fitted, 100 * new), atol=1e-6)


def test_another_direction_is_stranger_than_what_was_learned():
    fitted, limit = fit_unfamiliarity(features(50), names(50))
    assert scores(fitted, features(20, seed=1)).max() < scores(fitted, -features(20, seed=2)).min() <= 2
    assert (scores(fitted, -features(20, seed=2)) > limit.above).all()


def test_features_of_length_0_have_a_score_too():
    fitted, _ = fit_unfamiliarity(features(10), names(10))
    assert scores(fitted, np.zeros((1, 16), np.float32)).tolist() == [1.0]


def test_the_bank_of_wide_features_is_an_even_sample_that_fits():
    learned = features(300, width=BANK_BYTES // 200)
    fitted, limit = fit_unfamiliarity(learned, names(300))
    assert fitted.bank.shape == (100, BANK_BYTES // 200)
    assert limit.held == 300, "those outside the bank are held out too"


# ---- the limit ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
def test_no_more_than_the_share_of_the_held_out_images_is_above_it(count, share):
    found = limit_of(np.random.default_rng(count).permutation(count).astype(np.float64), share)
    assert found.called == max(0, int(share * (count + 1) + 1e-9) - 1)
    assert found.rough == (count < round(1 / share) - 1)


def test_new_images_of_the_same_kind_are_above_it_as_often_as_was_asked():
    """Over 400 draws of 99 held-out scores and one new one, 0.05 within three standard errors."""
    rng = np.random.default_rng(3)
    draws = rng.gamma(2, size=(4000, 100))
    above = np.mean([row[99] > limit_of(row[:99], 0.05).above for row in draws])
    assert abs(above - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_where_there_are_too_few_for_the_share_the_strangest_is_the_limit_and_it_says_so():
    found = limit_of(np.array([0.1, 0.3, 0.2]), 0.01)
    assert (found.above, found.called) == (0.3, 0)
    assert found.sentence() == (
        "above 0.300: 0 of 3 held-out pictures, the strangest of which is the limit: for 0.01 of them it takes 99"
    )


def test_a_held_out_image_is_compared_without_itself_and_without_its_unit():
    """Shots of one scene are near each other: they would make every other scene look strange."""
    scenes = features(40)
    shots = np.repeat(scenes, 4, axis=0) + np.random.default_rng(1).normal(0, 0.01, (160, 16)).astype(np.float32)
    units = [str(number // 4) for number in range(160)]
    apart, together = (fit_unfamiliarity(shots, keys)[1] for keys in (names(160), units))
    assert together.above > 10 * apart.above
    new = np.repeat(features(40, seed=9), 1, axis=0)
    assert (scores(fit_unfamiliarity(shots, units)[0], new) > together.above).mean() < 0.2
    assert (scores(fit_unfamiliarity(shots, names(160))[0], new) > apart.above).all()


def test_images_that_nothing_was_fitted_to_set_the_limit_where_there_are_some():
    learned, held = features(30), features(99, seed=4) + 3
    fitted, limit = fit_unfamiliarity(learned, names(30), 0.1, held)
    assert limit.held == 99
    assert limit.above == np.sort(scores(fitted, held))[-10]


def test_images_of_one_unit_alone_cannot_be_compared():
    with pytest.raises(ModelError, match="one series"):
        fit_unfamiliarity(features(5), ["same"] * 5)


def test_two_images_are_enough():
    fitted, limit = fit_unfamiliarity(features(2), names(2))
    assert fitted.neighbours == 1
    assert limit.rough


# ---- kept, and asked for --------------------------------------------------------------------------------------------


def test_a_header_gives_back_every_number():
    fitted, _ = fit_unfamiliarity(features(30), names(30))
    again = unfamiliarity_from({HEADER_KEY: fitted.as_header()})
    assert again is not None
    assert again.neighbours == fitted.neighbours
    np.testing.assert_array_equal(again.bank, fitted.bank)
    assert unfamiliarity_from({}) is None


@pytest.mark.parametrize(
    "change", [{"rows": 31}, {"features": 0}, {"neighbours": 31}, {"bank": "???"}, {"bank": None}, {"rows": 10**30}]
)
def test_a_damaged_header_is_refused_in_words(change):
    header = json.loads(fit_unfamiliarity(features(30), names(30))[0].as_header())
    with pytest.raises(ModelError, match="the model's unfamiliarity cannot be read"):
        unfamiliarity_from({HEADER_KEY: json.dumps({**header, **change})})


@pytest.mark.parametrize(("words", "share"), [("0.05", 0.05), ("none", None), ("None", None), ("0", None)])
def test_a_share_is_read(words, share):
    assert parse_share(words) == share


@pytest.mark.parametrize("words", ["1", "-0.1", "nan", "a few", ""])
def test_what_is_no_share_is_refused(words):
    with pytest.raises(RecipeError, match="not a share of held-out pictures"):
        parse_share(words)
