"""Series are found where images of one scene lie nearer than those of one class do, and nowhere else."""

import numpy as np
import pytest

from relish.data.near_copies import members
from relish.data.survey import FACTS
from relish.evaluation.series import find_series
from tests.conftest import TORTURE

DIMENSION, WIDTH = 30, 128
"""About each image, features of photographs have some 40 dimensions."""


def facts_for(count: int, seed: int = 0) -> np.ndarray:
    """Of images whose hashes and pixels have nothing in common."""
    rng, facts = np.random.default_rng(seed), np.zeros(count, dtype=FACTS)
    facts["pixels"] = [rng.bytes(16) for _ in range(count)]
    for name in ("phash", "mirrored", "dhash"):
        facts[name] = rng.integers(0, 2**64, count, dtype=np.uint64)
    facts["contrast"] = 50
    return facts


def features_of(scenes: int, views: int, *, near: float, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Scenes scattered about the middle of their class, views about their scene, of a low dimension as features are.

    Args:
        scenes: of each class.
        near: how far views scatter, of how far scenes do.

    Returns:
        (N, WIDTH) float32 features, (N,) labels and (N,) scenes.
    """
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 2, (classes, 1, 1, DIMENSION))
    places = middles + rng.normal(0, 1, (classes, scenes, 1, DIMENSION))
    seen = places + near * rng.normal(0, 1, (classes, scenes, views, DIMENSION))
    features = np.maximum(seen.reshape(-1, DIMENSION) @ rng.normal(0, 1, (DIMENSION, WIDTH)) + 4, 0)
    labels = np.repeat(np.arange(classes), scenes * views)
    return features.astype(np.float32), labels, np.repeat(np.arange(classes * scenes), views)


def sets_of(ids: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(group.tolist()) for group in members(ids)}


@pytest.mark.parametrize("seed", range(3 if TORTURE else 1))
@pytest.mark.parametrize(("scenes", "views"), [(40, 3), (12, 6), (8, 9)])
def test_pictures_of_one_scene_are_a_series(scenes, views, seed):
    features, labels, scene = features_of(scenes, views, near=0.15, seed=seed)
    series = find_series(features, labels, facts_for(len(labels)))
    found, true = sets_of(series.ids), sets_of(scene)
    assert len(found & true) >= 0.95 * len(true)
    assert series.sentence() == (
        f"{sum(map(len, found)):,} pictures in {len(found)} series of {series_sizes(found)} that look like one scene"
    )


def series_sizes(found: set[frozenset[int]]) -> str:
    least, most = min(map(len, found)), max(map(len, found))
    return str(least) if least == most else f"{least} to {most}"


@pytest.mark.parametrize("seed", range(3 if TORTURE else 1))
@pytest.mark.parametrize("pictures", [20, 100, 400])
def test_a_class_is_no_series_however_dense_it_is(pictures, seed):
    """The third class lies in a hundredth of the room."""
    features, labels, _ = features_of(pictures, 1, near=0, seed=seed)
    of_last = labels == 2
    features[of_last] = features[of_last].mean(0) + 0.1 * (features[of_last] - features[of_last].mean(0))
    series = find_series(features, labels, facts_for(len(labels)))
    assert sum(map(len, series.scenes)) <= 0.08 * len(labels)


@pytest.mark.parametrize(
    ("near", "sure", "least", "most"),
    [(0.25, False, 58, 66), (0.25, True, 58, 60), (0.9, False, 15, 30), (0.9, True, 0, 4)],
    ids=["scenes kept", "scenes told", "kinds kept", "kinds not told"],
)
def test_a_rare_kind_of_a_class_stays_on_one_side_and_is_not_told_as_a_scene_is(near, sure, least, most):
    """Of each class 56 pictures alone, and four times five: one cake each, or cupcakes among other foods."""
    features, labels, kind = features_of(60, 5, near=near)
    kept = (kind % 60 < 4) | (np.arange(len(kind)) % 5 == 0)
    series = find_series(features[kept], labels[kept], facts_for(int(kept.sum())), sure=sure)
    assert least <= sum(map(len, series.scenes)) <= most


def test_series_do_not_chain_into_one():
    """Frames of one walk: each is near the next, the first and the last are no longer of one scene."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 1, (300, DIMENSION)).cumsum(0)
    features = np.maximum(steps @ rng.normal(0, 1, (DIMENSION, WIDTH)) + 40, 0).astype(np.float32)
    series = find_series(features, np.zeros(300, dtype=np.int64), facts_for(300))
    assert max(map(len, members(series.ids)), default=1) < 30


def test_the_order_of_the_pictures_makes_no_difference():
    features, labels, _ = features_of(20, 3, near=0.15)
    facts, order = facts_for(len(labels)), np.random.default_rng(1).permutation(len(labels))
    contents = [f"{i:064x}" for i in range(len(labels))]
    straight = find_series(features, labels, facts).keys(contents)
    mixed = find_series(features[order], labels[order], facts[order]).keys([contents[i] for i in order])
    assert mixed == [straight[i] for i in order]


def test_copies_are_of_one_series_across_classes():
    features, labels, _ = features_of(30, 1, near=0)
    facts = facts_for(len(labels))
    facts[40], features[40] = facts[0], features[0]
    series = find_series(features, labels, facts)
    assert labels[0] != labels[40]
    assert series.ids[0] == series.ids[40]
    assert series.copies[0] == series.copies[40]
    assert len(members(series.copies)) == 1


def test_without_features_there_are_copies_alone():
    facts = facts_for(9)
    facts[7] = facts[2]
    series = find_series(None, np.zeros(9, dtype=np.int64), facts)
    assert sets_of(series.ids) == {frozenset({2, 7})}
    assert series.sentence() == ""


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_pictures_have_nothing_to_be_compared_with(count):
    features = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    assert len(find_series(features, np.zeros(count, dtype=np.int64), facts_for(count)).ids) == count


def test_equal_features_are_a_series():
    """Such as frames of a camera that stands still: their distance is 0."""
    features, labels, _ = features_of(30, 1, near=0)
    features[:10] = features[0]
    ids = find_series(features, labels, facts_for(len(labels))).ids
    assert len(set(ids[:10].tolist())) == 1


def test_scenes_that_are_alike_are_apart_where_every_scene_varies_in_the_same_way():
    """Light and distance of the camera move the features further than another scene does."""
    rng = np.random.default_rng(0)
    places = rng.normal(0, 1, (3, 12, 1, DIMENSION)) + rng.normal(0, 2, (3, 1, 1, DIMENSION))
    camera = rng.normal(0, 1, (3, 12, 6, 3)) @ rng.normal(0, 0.5, (3, DIMENSION))
    seen = places + camera + 0.1 * rng.normal(0, 1, (3, 12, 6, DIMENSION))
    features = (seen.reshape(-1, DIMENSION) @ rng.normal(0, 1, (DIMENSION, WIDTH))).astype(np.float32)
    labels, scene = np.repeat(np.arange(3), 72), np.repeat(np.arange(36), 6)
    found = sets_of(find_series(features, labels, facts_for(len(labels))).ids)
    assert len(found & sets_of(scene)) >= 32


def test_a_new_scene_is_rarely_taken_for_a_known_one_where_that_has_to_be_sure():
    features, labels, scene = features_of(52, 6, near=0.25)
    kept = (scene % 52 < 12) | (np.arange(len(scene)) % 6 == 0)  # 12 scenes in six views, 40 in one
    features, labels, scene = features[kept], labels[kept], scene[kept]
    new = np.isin(scene, np.flatnonzero(np.bincount(scene) == 1))
    series = find_series(features, labels, facts_for(len(labels)), sure=True)
    assert sum(int(new[group].sum()) for group in series.scenes if not new[group].all()) <= 2
    assert sum(map(len, series.scenes)) >= 0.6 * (~new).sum()
