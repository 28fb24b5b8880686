"""Each check finds the fault that was planted for it, and nothing in pictures without one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from relish.checks.image_quality import balance
from relish.checks.images import ImageSet, image_set, layout
from relish.checks.label_issues import nearest_others, off_topic, out_of_fold, unit_vectors, wrong_labels
from relish.checks.near_duplicates import (
    SURE_BITS,
    group_equal,
    group_pairs,
    hamming_distances,
    members,
    similar_hashes,
)
from relish.checks.run_checks import all_findings, brief_findings
from relish.data.dataset import Dataset, Finding, Split
from relish.data.sources import find_dataset
from relish.data.survey import FACTS, survey


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Blobs of colour with grain: its hash and its detail are those of a photograph."""
    chance = np.random.default_rng(seed)
    soft = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = chance.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of two classes, 24 and 8 pictures a class, no two alike."""
    root, seed = tmp_path / "pets", 0
    for split, count in (("train", 24), ("test", 8)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed += 1
                scene(seed).save(root / split / name / f"{number:02}.png")
    return root


def brief(root: Path) -> tuple[Finding, ...]:
    found = find_dataset(root, learnable=False)
    return brief_findings(found, survey(found, learnable=False))


def of_kind(findings: tuple[Finding, ...] | list[Finding], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]


# ---- from facts alone -----------------------------------------------------------------------------------------------


def test_pictures_without_a_fault_give_no_finding_but_of_their_number(root):
    assert [(f.kind, f.message[:15]) for f in brief(root)] == [("too-few", "16 test picture")]


def test_a_file_cut_short_is_named_with_the_reason(root):
    path = root / "train/cat/05.png"
    path.write_bytes(path.read_bytes()[:900])
    (finding,) = of_kind(brief(root), "unreadable")
    assert finding.paths == ("train/cat/05.png",)
    assert "cut short" in finding.message


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


def test_blank_dark_and_blurred_pictures_are_told_apart(root):
    Image.new("RGB", (160, 120), (250, 250, 250)).save(root / "train/cat/blank.png")
    night = np.asarray(scene(900), dtype=float) / 8
    Image.fromarray(night.astype(np.uint8)).save(root / "train/cat/night.png")
    scene(901).filter(ImageFilter.GaussianBlur(6)).save(root / "train/cat/soft.png")
    findings = brief(root)
    assert {f.kind: f.paths for f in findings if f.kind in ("blank", "dark", "blurred")} == {
        "blank": ("train/cat/blank.png",),
        "dark": ("train/cat/night.png",),
        "blurred": ("train/cat/soft.png",),
    }


def test_where_most_pictures_are_dark_that_is_how_they_are(root):
    for path in root.rglob("*.png"):
        with Image.open(path) as picture:
            dim = np.asarray(picture, dtype=float) / 8
        Image.fromarray(dim.astype(np.uint8)).save(path)
    assert of_kind(brief(root), "dark") == []


def test_blank_pictures_are_no_near_duplicates_of_each_other(root):
    for number in range(4):
        Image.new("RGB", (160, 120), (250 - number, 250, 250)).save(root / f"train/cat/blank{number}.png")
    findings = brief(root)
    assert of_kind(findings, "near-duplicate") == []
    assert len(of_kind(findings, "blank")[0].paths) == 4


def test_tiny_long_and_grey_pictures_are_noted(root):
    scene(910, (40, 30)).save(root / "train/cat/tiny.png")
    scene(911, (600, 100)).save(root / "train/cat/long.png")
    scene(912).convert("L").save(root / "train/cat/grey.png")
    told = {f.message.partition(" picture is ")[2]: f.paths for f in of_kind(brief(root), "odd-size")}
    assert set(told.values()) == {
        ("train/cat/tiny.png",), ("train/cat/long.png",), ("train/cat/grey.png",)
    }  # fmt: skip


# ---- classes and layout ---------------------------------------------------------------------------------------------


def collection(counts: dict[str, dict[str, int]]) -> ImageSet:
    """A collection of so many pictures of each class in each split, without files."""
    classes = tuple(sorted({name for by_class in counts.values() for name in by_class}))
    labels, splits = [], []
    for number, by_class in enumerate(counts.values()):
        for name, count in by_class.items():
            labels += [classes.index(name)] * count
            splits += [number] * count
    names = tuple(f"{i:06}.png" for i in range(len(labels)))
    return ImageSet(
        dataset=Dataset("pets", "pets", Path("/pets"), classes, {}),
        paths=tuple(Path("/pets") / name for name in names),
        names=names,
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits, dtype=np.int64),
        split_names=tuple(counts),
        sha256=tuple(f"{i:064x}" for i in range(len(labels))),
        facts=np.zeros(len(labels), dtype=FACTS),
    )


@pytest.mark.parametrize(
    ("counts", "kinds"),
    [
        ({"train": {"a": 100, "b": 100}}, []),
        ({"train": {"a": 100, "b": 299}}, []),
        ({"train": {"a": 100, "b": 300}}, [("imbalance", "note")]),
        ({"train": {"a": 100, "b": 1000}}, [("imbalance", "warning")]),
        ({"all": {"a": 19, "b": 21}}, [("too-few", "warning")]),
        ({"train": {"a": 100, "b": 100}, "test": {"a": 5, "b": 5}}, [("too-few", "note")]),
        ({"train": {"a": 100, "b": 100}, "test": {"a": 50, "b": 50}}, []),
    ],
)
def test_uneven_and_small_classes_are_told_from_their_limits_on(counts, kinds):
    assert [(f.kind, f.severity) for f in balance(collection(counts))] == kinds


def of_classes(*classes: str) -> Dataset:
    labels = np.arange(len(classes), dtype=np.int64)
    split = Split(tuple(Path(f"/x/{name}/1.png") for name in classes), labels)
    return Dataset("x", "x", Path("/x"), classes, {"all": split})


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("cat", "train"), "like a split"),
        (("Test set", "cat"), "like a split"),
        (("cat", "images"), "folder of anything"),
        (("New folder", "cat"), "folder of anything"),
        (("New folder (2)", "cat"), "folder of anything"),
        (("Hot dog", "hot_dog"), "differ in spelling"),
        (("cat", "cat (2)"), "differ in spelling"),
        (("Copy of cat", "cat"), "differ in spelling"),
    ],
)
def test_class_names_that_suggest_a_slip_are_told(classes, words):
    (finding,) = layout(of_classes(*classes))
    assert words in finding.message


@pytest.mark.parametrize("classes", [("hotdog", "not-hotdog"), ("mask", "no_mask"), ("photo", "photocopy"), ("0", "1")])
def test_usual_class_names_are_not(classes):
    assert layout(of_classes(*classes)) == []


def test_one_class_alone_is_an_error_in_the_words_of_fit():
    (finding,) = layout(of_classes("cat"))
    assert finding.severity == "error"
    assert "one class only" in finding.message


def test_what_was_noticed_while_reading_folders_is_a_note(root):
    (root / "train" / "stray.png").write_bytes(b"")
    (finding,) = of_kind(brief(root), "layout")
    assert finding.message.startswith("train/stray.png is not inside a class folder")


# ---- hashes, groups, neighbours -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 40))
def test_every_pair_within_the_sure_distance_is_found(data, count):
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = chance.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(1, count, 2):  # half of them near another one
        turned = chance.choice(64, data.draw(st.integers(0, 12)), replace=False)
        codes[place] = codes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << turned.astype(np.uint64), initial=0)
    mirrored = chance.integers(0, 2**64, count, dtype=np.uint64)
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
    groups = members(group_equal(np.array(values, dtype=np.int64)))
    assert sorted(i for g in groups for i in g) == [i for i, v in enumerate(values) if values.count(v) > 1]
    assert all(len({values[i] for i in g}) == 1 for g in groups)


def test_nearest_others_are_those_of_a_full_comparison():
    features = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    positions, cosines = nearest_others(unit_vectors(features), 5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    product = unit @ unit.T
    np.fill_diagonal(product, -2)
    np.testing.assert_array_equal(positions, np.argsort(-product, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, np.sort(product, axis=1)[:, ::-1][:, :5], atol=1e-4)


def test_in_cells_copies_still_find_each_other(monkeypatch):
    from relish.checks import label_issues

    monkeypatch.setattr(label_issues, "CELL", 50)
    chance = np.random.default_rng(2)
    features = chance.normal(size=(1000, 16)).astype(np.float32)
    features[500:] = features[:500] + chance.normal(scale=0.02, size=(500, 16)).astype(np.float32)
    positions, _ = nearest_others(unit_vectors(features), 3)
    assert (positions[:500, 0] == np.arange(500, 1000)).mean() > 0.99


def test_equal_features_do_not_hide_a_picture_from_itself():
    positions, cosines = nearest_others(unit_vectors(np.ones((6, 4), dtype=np.float32)), 3)
    assert all(i not in row for i, row in enumerate(positions.tolist()))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


# ---- labels and strays ----------------------------------------------------------------------------------------------


def separable(count: int, seed: int = 0) -> tuple[ImageSet, np.ndarray]:
    """Two classes that a probe tells apart, and their features."""
    pictures = collection({"train": {"cat": count, "dog": count}})
    chance = np.random.default_rng(seed)
    centres = chance.normal(scale=2, size=(2, 12))
    return pictures, (centres[pictures.labels] + chance.normal(size=(2 * count, 12))).astype(np.float32)


def near(features: np.ndarray) -> np.ndarray:
    return nearest_others(unit_vectors(features), min(10, len(features) - 1))[0]


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
    pictures = collection({"train": {"cat": 100, "dog": 100}})
    chance = np.random.default_rng(3)
    features = np.abs(chance.normal(size=(200, 16))).astype(np.float32) + 2
    features[77, ::2] *= -1
    _, cosines = nearest_others(unit_vectors(features), 5)
    (finding,) = off_topic(pictures, cosines, np.zeros(0, dtype=np.int64))
    assert finding.paths[0] == pictures.names[77]
    assert len(finding.paths) <= 4
    told = np.array([77], dtype=np.int64)
    assert pictures.names[77] not in [n for f in off_topic(pictures, cosines, told) for n in f.paths]


# ---- all together ---------------------------------------------------------------------------------------------------


def test_every_path_of_a_finding_is_a_picture_of_the_dataset_and_json_goes_there_and_back(root):
    (root / "train/cat/05.png").write_bytes(b"no picture")
    (root / "train/cat/copy.png").write_bytes((root / "test/dog/03.png").read_bytes())
    found = find_dataset(root)
    looked = survey(found)
    pictures = image_set(looked)
    features = np.random.default_rng(0).normal(size=(len(pictures), 8)).astype(np.float32)
    checked = all_findings(found, looked, pictures, features)
    names = {found.label(path) for split in found.splits.values() for path in split.paths}
    assert {name for f in checked.findings for name in f.paths} <= names
    assert {"unreadable", "exact-duplicate"} <= {f.kind for f in checked.findings}
    assert [Finding.from_json(f.as_json()) for f in checked.findings] == list(checked.findings)


def test_what_is_found_does_not_depend_on_the_order_of_the_pictures(root):
    (root / "train/cat/copy.png").write_bytes((root / "test/dog/03.png").read_bytes())
    found = find_dataset(root)
    turned = replace(found, splits={name: split.take(range(len(split))[::-1]) for name, split in found.splits.items()})
    one, other = (
        {(f.kind, frozenset(f.paths), f.message, f.severity) for f in brief_findings(d, survey(d))}
        for d in (found, turned)
    )
    assert one == other


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_nearly_nothing_to_look_at_is_no_error(tmp_path, pictures):
    for number in range(2):
        path = tmp_path / "few" / ("cat", "dog")[number] / "1.png"
        path.parent.mkdir(parents=True)
        if number < pictures:
            scene(number).save(path)
        else:
            path.write_bytes(b"no picture")
    found = find_dataset(tmp_path / "few", learnable=False)
    looked = survey(found, learnable=False)
    held = image_set(looked)
    checked = all_findings(found, looked, held, np.ones((len(held), 4), dtype=np.float32))
    assert len(of_kind(list(checked.findings), "unreadable")) == 2 - pictures
    assert of_kind(list(checked.findings), "too-few")
