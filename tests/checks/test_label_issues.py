"""Neighbours are those of a full comparison; wrong labels and strays that were planted are found, and few others."""

from dataclasses import replace

import numpy as np

from relish.checks.images import ImageSet
from relish.checks.label_issues import off_topic, out_of_fold, wrong_labels
from relish.evaluation.features import nearest_others, unit_vectors
from tests.checks.planted import image_set_of


def test_nearest_others_are_those_of_a_full_comparison():
    features = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    positions, cosines = nearest_others(unit_vectors(features), 5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    product = unit @ unit.T
    np.fill_diagonal(product, -2)
    np.testing.assert_array_equal(positions, np.argsort(-product, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, np.sort(product, axis=1)[:, ::-1][:, :5], atol=1e-4)


def test_in_cells_copies_still_find_each_other(monkeypatch):
    from relish.evaluation import features as module

    monkeypatch.setattr(module, "CELL", 50)
    rng = np.random.default_rng(2)
    features = rng.normal(size=(1000, 16)).astype(np.float32)
    features[500:] = features[:500] + rng.normal(scale=0.02, size=(500, 16)).astype(np.float32)
    positions, _ = nearest_others(unit_vectors(features), 3)
    assert (positions[:500, 0] == np.arange(500, 1000)).mean() > 0.99


def test_equal_features_do_not_hide_a_picture_from_itself():
    positions, cosines = nearest_others(unit_vectors(np.ones((6, 4), dtype=np.float32)), 3)
    assert all(i not in row for i, row in enumerate(positions.tolist()))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def near(features: np.ndarray) -> np.ndarray:
    return nearest_others(unit_vectors(features), min(10, len(features) - 1))[0]


def separable(count: int, seed: int = 0) -> tuple[ImageSet, np.ndarray]:
    """Two classes that a probe tells apart, and their features."""
    pictures = image_set_of({"train": {"cat": count, "dog": count}})
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2, size=(2, 12))
    return pictures, (centres[pictures.labels] + rng.normal(size=(2 * count, 12))).astype(np.float32)


def test_labels_that_were_turned_are_found_with_what_they_should_be():
    pictures, features = separable(100)
    labels = pictures.labels.copy()
    turned = [3, 40, 120, 180]
    labels[turned] = 1 - labels[turned]
    pictures = replace(pictures, labels=labels)
    said = out_of_fold(pictures, features, near(features), np.arange(len(pictures)))
    assert said is not None
    found = wrong_labels(pictures, said)
    assert {f.paths[0] for f in found} >= {pictures.names[i] for i in turned}
    assert len(found) <= 8
    assert all(f.given != f.suggested and 0.5 <= f.confidence <= 1 for f in found)
    assert [f.confidence for f in found] == sorted((f.confidence for f in found), reverse=True)


def test_a_wrong_label_is_found_though_its_copy_has_it_too():
    """A probe that had learned from the copy would say what the copy says."""
    pictures, features = separable(60)
    labels = pictures.labels.copy()
    labels[:2] = 1  # one picture, twice, both times wrong, and far from all others
    features[:2] = 5 * features[0]
    pictures = replace(pictures, labels=labels)
    groups = np.arange(len(pictures))
    apart, together = (
        out_of_fold(pictures, features, near(features), groups),
        out_of_fold(pictures, features, near(features), np.maximum(groups, 1)),
    )
    assert apart is not None
    assert together is not None
    assert (together.probabilities[:2, 0] > apart.probabilities[:2, 0]).all()
    assert {f.paths[0] for f in wrong_labels(pictures, together)} >= set(pictures.names[:2])


def test_a_wrong_label_is_found_though_its_known_group_has_it_too():
    pictures, features = separable(60)
    labels = pictures.labels.copy()
    labels[:3] = 1  # one patient, always under the wrong name, and far from all others
    features[:3] = 5 * features[0]
    features[:3] += np.random.default_rng(1).normal(scale=0.1, size=(3, 12)).astype(np.float32)
    groups = dict.fromkeys(pictures.paths[:3], "patient 1")
    apart = replace(pictures, labels=labels)
    together = replace(apart, dataset=replace(apart.dataset, groups=groups))
    alone, kept = (out_of_fold(one, features, near(features), np.arange(120)) for one in (apart, together))
    assert alone is not None
    assert kept is not None
    assert (kept.probabilities[:3, 0] > alone.probabilities[:3, 0]).all()
    assert {f.paths[0] for f in wrong_labels(together, kept)} >= set(pictures.names[:3])
    everything = {path: "ab"[label] for path, label in zip(pictures.paths, pictures.labels.tolist(), strict=True)}
    one_each = replace(pictures, dataset=replace(pictures.dataset, groups=everything))
    assert out_of_fold(one_each, features, near(features), np.arange(120)) is None, "nothing can be held out"


def test_a_class_too_small_to_judge_is_left_alone_and_the_others_are_not():
    pictures, features = separable(60)
    pictures = replace(
        pictures,
        dataset=replace(pictures.dataset, classes=("cat", "dog", "emu")),
        labels=np.where(np.arange(120) < 3, 2, pictures.labels),
    )
    said = out_of_fold(pictures, features, near(features), np.arange(120))
    assert said is not None
    assert said.positions.min() == 3
    assert said.probabilities.shape == (117, 3)
    np.testing.assert_allclose(said.probabilities.sum(1), 1, atol=1e-5)
    assert all("emu" not in (f.given, f.suggested) for f in wrong_labels(pictures, said))


def test_with_fewer_than_two_classes_of_five_nothing_is_judged():
    pictures, features = separable(4)
    assert out_of_fold(pictures, features, near(features), np.arange(8)) is None


def test_many_pictures_are_judged_in_parts(monkeypatch):
    from relish.checks import label_issues as module

    monkeypatch.setattr(module, "_TOGETHER", 50)
    pictures, features = separable(100)
    said = out_of_fold(pictures, features, near(features), np.arange(200))
    assert said is not None
    assert said.positions.tolist() == list(range(200))
    assert (said.probabilities.argmax(1) == pictures.labels).mean() > 0.95


def test_a_class_that_a_part_lacks_is_no_error(monkeypatch):
    from relish.checks import label_issues as module

    monkeypatch.setattr(module, "_TOGETHER", 20)
    pictures, features = separable(50)
    rare = replace(
        pictures,
        dataset=replace(pictures.dataset, classes=("cat", "dog", "emu")),
        labels=np.where(np.arange(100) < 5, 2, pictures.labels),
    )
    said = out_of_fold(rare, features, near(features), np.arange(100))
    assert said is not None
    assert set(rare.labels[said.positions].tolist()) == {0, 1}


def test_a_picture_far_from_all_others_is_told_and_no_other():
    pictures = image_set_of({"train": {"cat": 100, "dog": 100}})
    rng = np.random.default_rng(3)
    features = np.abs(rng.normal(size=(200, 16))).astype(np.float32) + 2
    features[77, ::2] *= -1
    _, cosines = nearest_others(unit_vectors(features), 5)
    (finding,) = off_topic(pictures, cosines, np.zeros(0, dtype=np.int64))
    assert finding.paths[0] == pictures.names[77]
    assert len(finding.paths) <= 4
    told = np.array([77], dtype=np.int64)
    assert pictures.names[77] not in [n for f in off_topic(pictures, cosines, told) for n in f.paths]
