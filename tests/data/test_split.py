"""The validation split: each class in proportion, copies together, and the same on every computer."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import DataError, RecipeError
from relish.data.dataset import Dataset, Split, TooFewImages
from relish.data.split import with_validation

counts = st.lists(st.integers(2, 40), min_size=2, max_size=5)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 10**9)


def split_of(root, labels, prefix="p"):
    paths = tuple(root / f"{label}/{prefix}{number}.jpg" for number, label in enumerate(labels))
    return Split(paths, np.asarray(labels, dtype=np.int64))


def dataset_of(counts, root=Path("/data"), **more):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    classes = tuple(f"class{label}" for label in range(len(counts)))
    return Dataset("pets", "pets", root, classes, {"all": split_of(root, labels), **more})


def names(dataset, split):
    return {dataset.label(path) for path in dataset.splits[split].paths}


def with_copies(dataset, sizes):
    """Fingerprints in which each class's pictures are copies of each other in groups of these sizes."""
    prints, split = {}, dataset.splits["all"]
    for label in range(len(dataset.classes)):
        mine = [p for p, i in zip(split.paths, split.labels, strict=True) if i == label]
        group, size = 0, 0
        for path in mine:
            if size == sizes[group % len(sizes)]:
                group, size = group + 1, 0
            prints[path], size = f"{label}-{group}", size + 1
    return prints


# ---- laws -----------------------------------------------------------------------------------------------------------


@given(counts, fractions, seeds)
@settings(deadline=None)
def test_every_picture_is_on_exactly_one_side_with_its_label(counts, fraction, seed):
    dataset = dataset_of(counts)
    halves = with_validation(dataset, fraction, seed)
    assert list(halves.splits) == ["train", "validation"]
    assert names(halves, "train") | names(halves, "validation") == names(dataset, "all")
    assert len(halves) == len(dataset)
    for split in halves.splits.values():
        assert [int(path.parent.name) for path in split.paths] == split.labels.tolist()


@given(counts, fractions, seeds)
@settings(deadline=None)
def test_each_class_gives_its_share_and_keeps_one_on_each_side(counts, fraction, seed):
    held = with_validation(dataset_of(counts), fraction, seed).splits["validation"].counts(len(counts))
    for count, here in zip(counts, held, strict=True):
        assert here == min(count - 1, max(1, round(fraction * count)))


@given(counts, fractions, seeds, st.randoms())
@settings(deadline=None)
def test_neither_the_order_on_disk_nor_the_place_of_the_root_matters(counts, fraction, seed, chance):
    dataset = dataset_of(counts)
    elsewhere = dataset_of(counts, Path("/mnt/other/data"))
    order = list(range(len(dataset)))
    chance.shuffle(order)
    shuffled = elsewhere.with_splits({"all": elsewhere.splits["all"].take(order)})
    one, other = (with_validation(d, fraction, seed) for d in (dataset, shuffled))
    assert names(one, "validation") == names(other, "validation")


@given(counts, fractions, seeds)
@settings(deadline=None)
def test_the_sides_keep_the_order_of_the_dataset(counts, fraction, seed):
    dataset = dataset_of(counts)
    for split in with_validation(dataset, fraction, seed).splits.values():
        places = [dataset.splits["all"].paths.index(path) for path in split.paths]
        assert places == sorted(places)


@given(counts, st.lists(st.integers(1, 5), min_size=1, max_size=4), fractions, seeds)
@settings(max_examples=200, deadline=None)
def test_copies_stay_together_and_the_share_is_met_within_one_group(counts, sizes, fraction, seed):
    dataset = dataset_of([count + 5 for count in counts])  # two groups or more in each class
    prints = with_copies(dataset, sizes)
    halves = with_validation(dataset, fraction, seed, prints)
    sides = [{prints[path] for path in halves.splits[s].paths} for s in ("train", "validation")]
    assert not sides[0] & sides[1]
    held = halves.splits["validation"].counts(len(counts))
    for count, here in zip(counts, held, strict=True):
        assert 0 < here < count + 5
        assert abs(here - fraction * (count + 5)) <= max(sizes) + 0.5


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=3, max_size=30),
    st.integers(1, 9),
    seeds,
)
@settings(max_examples=200, deadline=None)
def test_copies_under_several_labels_stay_together_too(pictures, tenths, seed):
    labels = sorted(label for label, _ in pictures)
    split = split_of(Path("/data"), labels)
    prints = {path: str(pictures[i][1]) for i, path in enumerate(split.paths)}
    dataset = Dataset("pets", "pets", Path("/data"), ("a", "b", "c"), {"all": split})
    try:
        halves = with_validation(dataset, tenths / 10, seed, prints)
    except DataError:
        return
    sides = [{prints[path] for path in halves.splits[s].paths} for s in ("train", "validation")]
    assert not sides[0] & sides[1]
    for part in halves.splits.values():
        assert all(part.counts(3)[label] > 0 for label in set(labels))


def test_another_seed_holds_out_other_pictures():
    dataset = dataset_of([100, 100])
    held = [frozenset(names(with_validation(dataset, 0.2, seed), "validation")) for seed in range(5)]
    assert len(set(held)) == 5


def test_every_picture_is_held_out_equally_often():
    dataset = dataset_of([20, 20])
    times = Counter(name for seed in range(400) for name in names(with_validation(dataset, 0.25, seed), "validation"))
    # 400 draws of 1/4: 100 each, standard deviation 8.7; 40 pictures stay within 4 of these.
    assert all(65 < times[name] < 135 for name in names(dataset, "all"))


def test_a_further_picture_moves_few_others():
    """The draws belong to the pictures, so a dataset that grows keeps most of its split."""
    before, after = (names(with_validation(dataset_of([n, 50]), 0.2, 0), "validation") for n in (50, 51))
    assert len({n for n in before ^ after if n.startswith("0/")}) <= 3


# ---- what a dataset brings ------------------------------------------------------------------------------------------


def test_a_validation_split_of_its_own_is_kept():
    root = Path("/data")
    train, mine = split_of(root, [0, 0, 1, 1]), split_of(root, [0, 1], "v")
    dataset = Dataset("pets", "pets", root, ("a", "b"), {"train": train, "validation": mine})
    assert with_validation(dataset, 0.2, 0) is dataset


def test_only_training_pictures_are_held_out_and_test_stays():
    root = Path("/data")
    splits = {"train": split_of(root, [0] * 10 + [1] * 10), "test": split_of(root, [0, 1], "t")}
    halves = with_validation(Dataset("pets", "pets", root, ("a", "b"), splits), 0.2, 0)
    assert list(halves.splits) == ["train", "validation", "test"]
    assert halves.splits["test"] is splits["test"]
    assert len(halves.splits["validation"]) == 4


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(RecipeError, match="val_split"):
        with_validation(dataset_of([5, 5]), fraction, 0)


def test_a_class_with_one_picture_is_refused_with_the_counts():
    with pytest.raises(TooFewImages, match='class "class1" has 1 picture; every class needs at least 2') as caught:
        with_validation(dataset_of([5, 1, 4]), 0.2, 0)
    assert "class0 5, class1 1, class2 4" in str(caught.value)


def test_a_class_of_copies_is_refused_with_the_reason():
    dataset = dataset_of([5, 3])
    prints = {path: "same" for path in dataset.splits["all"].paths if path.parent.name == "1"}
    with pytest.raises(TooFewImages, match="copies count as one") as caught:
        with_validation(dataset, 0.2, 0, prints)
    assert 'class "class1" has 3 pictures, but not 2 different ones' in str(caught.value)


def test_a_class_without_pictures_is_refused():
    dataset = dataset_of([5, 4])
    emptied = Dataset("pets", "pets", dataset.root, ("class0", "class1", "class2"), dataset.splits)
    with pytest.raises(TooFewImages, match='class "class2" has no pictures'):
        with_validation(emptied, 0.2, 0)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="one class only"):
        with_validation(dataset_of([5]), 0.2, 0)


def test_a_dataset_with_nothing_to_learn_from_is_refused():
    dataset = dataset_of([5, 5])
    with pytest.raises(DataError, match="no pictures to learn from"):
        with_validation(dataset.with_splits({"test": dataset.splits["all"]}), 0.2, 0)
