"""Copies are found whatever was done to them, and grouped; hashes are compared as if each with every other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from relish.checks.near_duplicates import series
from relish.data.near_copies import SURE_BITS, group_pairs, hamming_distances, members, similar_hashes
from relish.evaluation.series import Series
from tests.checks.planted import brief, image_set_of, of_kind


def test_the_same_pixels_in_two_splits_are_an_error_whatever_the_file_is(root):
    with Image.open(root / "train/dog/03.png") as picture:
        picture.save(root / "test/dog/copy.bmp")
    (finding,) = of_kind(brief(root), "exact-duplicate")
    assert set(finding.paths) == {"train/dog/03.png", "test/dog/copy.bmp"}
    assert (finding.across, finding.severity) == (("split",), "error")
    assert "in train and test" in finding.message


def test_the_same_pixels_under_two_labels_contradict_each_other(root):
    (root / "train/cat/copy.png").write_bytes((root / "train/dog/03.png").read_bytes())
    (finding,) = of_kind(brief(root), "exact-duplicate")
    assert finding.across == ("class",)
    assert "labelled cat and dog" in finding.message


def test_a_copy_in_the_same_class_and_split_is_a_note(root):
    for name in ("x", "y"):
        (root / f"train/cat/{name}.png").write_bytes((root / "train/cat/03.png").read_bytes())
    (finding,) = of_kind(brief(root), "exact-duplicate")
    assert (finding.severity, finding.across, len(finding.paths)) == ("note", (), 3)


def test_a_picture_saved_anew_and_smaller_is_a_near_duplicate(root):
    with Image.open(root / "train/dog/03.png") as picture:
        picture.convert("RGB").resize((120, 90)).save(root / "test/dog/small.jpg", quality=60)
    findings = brief(root)
    assert of_kind(findings, "exact-duplicate") == []
    (finding,) = of_kind(findings, "near-duplicate")
    assert set(finding.paths) == {"train/dog/03.png", "test/dog/small.jpg"}
    assert finding.across == ("split",)


def test_blank_pictures_are_no_near_duplicates_of_each_other(root):
    for number in range(4):
        Image.new("RGB", (160, 120), (250 - number, 250, 250)).save(root / f"train/cat/blank{number}.png")
    findings = brief(root)
    assert of_kind(findings, "near-duplicate") == []
    assert len(of_kind(findings, "blank")[0].paths) == 4


def test_a_series_is_a_finding_those_across_splits_first():
    images = image_set_of({"train": {"cat": 6}, "test": {"cat": 4}})
    images.facts["pixels"] = [bytes([i]) * 16 for i in range(10)]
    ids, alone = np.array([0, 0, 0, 1, 2, 3, 2, 2, 4, 4]), np.arange(10)
    first, second, third = series(images, Series(ids, alone), alone)
    assert (first.severity, first.across, first.paths) == ("warning", ("split",), images.named([4, 6, 7]))
    assert "3 pictures look like one scene, object or person, in train and test" in first.message
    assert [(f.severity, len(f.paths)) for f in (second, third)] == [("note", 3), ("note", 2)]
    copies = np.where(alone == 9, 8, alone)
    assert len(series(images, Series(ids, copies), copies)) == 2  # copies are no scene


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 40))
def test_every_pair_within_the_sure_distance_is_found(data, count):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(1, count, 2):  # half of them near another one
        turned = rng.choice(64, data.draw(st.integers(0, 12)), replace=False)
        codes[place] = codes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << turned.astype(np.uint64), initial=0)
    mirrored = rng.integers(0, 2**64, count, dtype=np.uint64)
    pairs, bits = similar_hashes(codes, mirrored, SURE_BITS)
    group_of = group_pairs(count, pairs[bits <= SURE_BITS])
    for i in range(count):
        for j in range(i + 1, count):
            if bin(int(codes[i] ^ codes[j])).count("1") <= SURE_BITS:
                assert group_of[i] == group_of[j]
    assert all(bits <= SURE_BITS)


def test_a_mirror_image_is_found_by_its_mirrored_hash():
    codes = np.array([0x0123456789ABCDEF, 0xFEDCBA9876543210], dtype=np.uint64)
    pairs, bits = similar_hashes(codes, codes[::-1].copy(), SURE_BITS)
    assert (pairs.tolist(), bits.tolist()) == ([[0, 1]], [0])


@given(arrays(np.uint64, 20), arrays(np.uint64, 20))
def test_bits_apart_is_a_count_of_ones(left, right):
    assert hamming_distances(left, right).tolist() == [
        bin(int(a) ^ int(b)).count("1") for a, b in zip(left, right, strict=True)
    ]


def test_a_hundred_thousand_hashes_take_seconds():
    codes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    codes[1000:1100] = codes[0]
    pairs, _ = similar_hashes(codes, codes ^ np.uint64(2**64 - 1), SURE_BITS)
    assert len(members(group_pairs(len(codes), pairs))) == 1


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_groups_are_the_connected_components_in_whatever_order_the_pairs_come(count, pairs):
    pairs = [(a % count, b % count) for a, b in pairs]
    expected = {i: {i} for i in range(count)}
    for a, b in pairs:
        whole = expected[a] | expected[b]
        for member in whole:
            expected[member] = whole
    for order in (pairs, pairs[::-1]):
        group_of = group_pairs(count, np.array(order, dtype=np.int64).reshape(-1, 2))
        assert {frozenset(np.flatnonzero(group_of == g).tolist()) for g in group_of} == {
            frozenset(members) for members in expected.values()
        }


@given(st.lists(st.integers(0, 4), max_size=30))
def test_several_are_the_groups_of_two_and_more(values):
    groups = members(np.array(values, dtype=np.int64))
    assert sorted(i for g in groups for i in g) == [i for i, v in enumerate(values) if values.count(v) > 1]
    assert all(len({values[i] for i in g}) == 1 for g in groups)
