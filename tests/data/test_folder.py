"""From a tree of folders to classes, splits and warnings: labels by name, nothing dropped without a word."""

import os
import random
import shutil
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import DataError
from relish.data.dataset import TooFewImages
from relish.data.folder import index_folder
from tests.conftest import labelled, refusal_of, touch


def index(root):
    return index_folder(root, name="pets", source="pets")


PETS = ["cat/1.jpg", "cat/2.png", "dog/1.jpg", "dog/2.JPEG"]


# ---- layouts that are understood ------------------------------------------------------------------------------------


def test_class_folders_alone_are_one_split(tmp_path):
    touch(tmp_path, *PETS)
    dataset = index(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert labelled(dataset, "all") == {name: name[:3] for name in PETS}
    assert set(dataset.splits) == {"all"}
    assert not dataset.warnings


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "validation", "Testing"),
        ("TRAIN", "valid", "TEST"),
        ("training_set", "dev", "test-set"),
        ("train_images", "eval", "test_images"),
    ],
)
def test_split_folders_go_by_many_names(tmp_path, train, validation, test):
    for split in (train, validation, test):
        touch(tmp_path, *(f"{split}/{name}" for name in PETS))
    dataset = index(tmp_path)
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert labelled(dataset, "validation") == {f"{validation}/{name}": name[:3] for name in PETS}
    assert not dataset.warnings


def test_eval_beside_train_alone_is_the_test_split(tmp_path):
    touch(tmp_path, *(f"{split}/{name}" for split in ("train", "eval") for name in PETS))
    assert list(index(tmp_path).splits) == ["train", "test"]


def test_folders_that_only_wrap_are_gone_through(tmp_path):
    """An archive unpacks to hotdog/train, Kaggle's to training_set/training_set; the dataset is the same."""
    touch(tmp_path / "plain", *(f"{split}/{name}" for split in ("train", "test") for name in PETS))
    touch(tmp_path / "wrapped", *(f"a/b/{split}/{split}/{name}" for split in ("train", "test") for name in PETS))
    plain, wrapped = index(tmp_path / "plain"), index(tmp_path / "wrapped")
    assert wrapped.root == tmp_path / "wrapped/a/b"
    for split in ("train", "test"):
        assert list(plain.splits[split].labels) == list(wrapped.splits[split].labels)


def test_train_may_be_a_class_of_vehicles(tmp_path):
    touch(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    assert index(tmp_path).classes == ("bus", "car", "train")


def test_a_test_folder_alone_is_a_dataset_to_evaluate_on(tmp_path):
    touch(tmp_path, *(f"test/{name}" for name in PETS))
    assert list(index(tmp_path).splits) == ["test"]


def test_pictures_further_down_belong_to_the_class(tmp_path):
    touch(tmp_path, *PETS, "cat/indoors/night/3.jpg")
    assert labelled(index(tmp_path), "all")["cat/indoors/night/3.jpg"] == "cat"


def test_a_thousand_class_folders_are_sorted_by_code_point(tmp_path):
    names = [str(number) for number in range(1, 1001)]
    touch(tmp_path, *(f"{split}/{name}/a.jpg" for split in ("train", "test") for name in names))
    dataset = index(tmp_path)
    assert dataset.classes == tuple(sorted(names))
    assert dataset.classes[:4] == ("1", "10", "100", "1000")
    for split in ("train", "test"):
        assert all(name.split("/")[1] == label for name, label in labelled(dataset, split).items())


@given(st.lists(st.sampled_from("Zäa1_b é-ß"), min_size=2, max_size=8, unique=True), st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_on_disk_is_of_no_account(tmp_path_factory, letters, chance):
    names = [f"c{letter}x/{number}.png" for letter in letters for number in (1, 10, 2)]
    seen = []
    for _ in range(2):
        root = tmp_path_factory.mktemp("data")
        touch(root, *names)
        dataset = index(root)
        seen.append((dataset.classes, list(labelled(dataset, "all").items())))
        chance.shuffle(names)
    assert seen[0] == seen[1]
    assert list(seen[0][0]) == sorted(seen[0][0])


def test_an_accent_in_one_or_two_code_points_is_one_class(tmp_path):
    touch(tmp_path, "train/caf\u00e9/1.jpg", "train/bar/1.jpg", "test/cafe\u0301/1.jpg", "test/bar/1.jpg")
    assert index(tmp_path).classes == ("bar", "caf\u00e9")


# ---- labels by name -------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_labels_never_shift_whatever_classes_a_split_lacks(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("data")
    classes = [f"class{letter}" for letter in "abcdefg"[: data.draw(st.integers(2, 7))]]
    tested = data.draw(st.sets(st.sampled_from(classes), min_size=1))
    touch(root, *(f"train/{name}/1.jpg" for name in classes), *(f"test/{name}/1.jpg" for name in tested))
    dataset = index(root)
    assert dataset.classes == tuple(classes)
    assert labelled(dataset, "test") == {f"test/{name}/1.jpg": name for name in tested}
    missing = set(classes) - tested
    assert len(dataset.warnings) == bool(missing)
    assert all(f'"{name}"' in " ".join(dataset.warnings) for name in sorted(missing)[:3])


def test_an_empty_class_folder_in_test_is_a_class_it_lacks(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), "test/dog/1.jpg")
    (tmp_path / "test/cat").mkdir()
    dataset = index(tmp_path)
    assert 'test has no pictures of "cat"' in dataset.warnings[0]
    assert labelled(dataset, "test") == {"test/dog/1.jpg": "dog"}


def test_a_class_that_only_test_has_is_refused_by_name_and_count(tmp_path):
    touch(
        tmp_path, *(f"train/{name}" for name in PETS), "test/cat/1.jpg", "test/wolverine/1.jpg", "test/wolverine/2.jpg"
    )
    words = refusal_of(index, tmp_path)
    assert '"wolverine" (2 pictures)' in words
    assert "training has: cat 2, dog 2" in words
    assert "looks like" not in words


@pytest.mark.parametrize("other", ["Cat", "cta", "cats", "c at"])
def test_a_class_that_is_spelt_differently_in_test_is_recognised(tmp_path, other):
    touch(tmp_path, *(f"train/{name}" for name in PETS), f"test/{other}/1.jpg", "test/dog/1.jpg")
    assert f'"{other}" looks like "cat"' in refusal_of(index, tmp_path)


# ---- what is left out, and told -------------------------------------------------------------------------------------


def test_what_systems_leave_behind_is_passed_over_in_silence(tmp_path):
    junk = [".DS_Store", "Thumbs.db", "desktop.ini", "cat/._1.jpg", "cat/.hidden/2.jpg", "__MACOSX/cat/._1.jpg"]
    touch(tmp_path, *PETS, *junk, ".git/config", "@eaDir/a.jpg")
    dataset = index(tmp_path)
    assert len(dataset) == len(PETS)
    assert not dataset.warnings


def test_a_picture_beside_the_class_folders_is_reported(tmp_path):
    """Left alone, it would become a class with an empty name."""
    touch(tmp_path, *PETS, "stray.png")
    dataset = index(tmp_path)
    assert "stray.png is not inside a class folder" in dataset.warnings[0]
    assert "" not in dataset.classes


def test_many_stray_pictures_are_counted_and_the_first_named(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), *(f"train/{n}.jpg" for n in range(7)), "top.jpg")
    assert (
        index(tmp_path).warnings[0].startswith("8 files, top.jpg, train/0.jpg, train/1.jpg and 5 more are not inside")
    )


def test_what_is_no_picture_is_counted_and_named(tmp_path):
    touch(tmp_path, *PETS, "README.txt", "cat/notes.txt", "dog/deep/photo.svg", "dog/bare")
    (warning,) = index(tmp_path).warnings
    assert warning.startswith("4 files, README.txt, cat/notes.txt, dog/bare and 1 more are not pictures")


def test_first_bytes_decide_what_a_picture_is_and_not_the_ending(tmp_path):
    touch(tmp_path, *PETS)
    drawn = BytesIO()
    Image.new("RGB", (4, 4)).save(drawn, "PNG")
    names = ["cat/bare", "cat/3.jpg?w=300&h=200", "dog/3.jpg_large", "dog/3.txt", "dog/deep/HEIC"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(drawn.getvalue())
    (tmp_path / names[-1]).write_bytes(b"\0\0\0\x18ftypheic" + bytes(16))
    (tmp_path / "cat/page").write_text("<html>")
    (tmp_path / "cat/drawing.svg").write_text("<svg>")
    (tmp_path / "dog/scan.pdf").write_text("%PDF-1.7")
    dataset = index(tmp_path)
    assert labelled(dataset, "all") == {name: name[:3] for name in [*PETS, *names]}
    assert dataset.warnings == (
        "cat/drawing.svg, cat/page, dog/scan.pdf are not pictures (SVG drawing 1, HTML page 1, PDF document 1): "
        "left out.",
    )


def test_every_file_is_in_a_split_or_in_a_warning(tmp_path):
    names = ["a.txt", "cat/1.jpg", "cat/x.md", "dog/1.jpg", "dog/sub/2.jpg", "b.jpg"]
    touch(tmp_path, *names)
    dataset = index(tmp_path)
    told = " ".join(dataset.warnings)
    assert all((name in labelled(dataset, "all")) != (name in told) for name in names)


def test_a_folder_beside_the_splits_is_named_with_what_is_lost(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), "more/cat/1.jpg", "more/cat/2.jpg")
    assert "more is not the name of a split: left out (2 pictures)." in index(tmp_path).warnings


def test_a_test_folder_without_classes_is_not_used_and_said_so(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), "test/1.jpg", "test/2.jpg")
    dataset = index(tmp_path)
    assert list(dataset.splits) == ["train"]
    assert "test/1.jpg, test/2.jpg are not inside a class folder" in dataset.warnings[0]
    assert "test has no class folders" in dataset.warnings[1]


def test_a_root_one_level_too_high_is_noticed(tmp_path):
    touch(tmp_path, *(f"{top}/{name}" for top in ("pets", "strays") for name in PETS))
    dataset = index(tmp_path)
    assert dataset.classes == ("pets", "strays")
    assert 'class folders hold folders, not pictures: "cat", "dog"' in dataset.warnings[0]


needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


@needs_links
@pytest.mark.parametrize("target", [".", "..", "../cat", "../../.."])
def test_a_link_back_up_ends_and_brings_in_no_other_class(tmp_path, target):
    root = tmp_path / "pets"
    touch(root, *PETS)
    (root / "cat/loop").symlink_to(target)
    dataset = index(root)
    assert len(dataset) == len(PETS)
    assert "cat/loop is linked to a folder met before" in dataset.warnings[0]


@needs_links
def test_a_link_to_pictures_elsewhere_is_followed(tmp_path):
    touch(tmp_path, *(f"disk/{name}" for name in PETS), "pets/bird/1.jpg")
    (tmp_path / "pets/cat").symlink_to(tmp_path / "disk/cat")
    assert index(tmp_path / "pets").classes == ("bird", "cat")


@needs_links
def test_links_to_nothing_and_to_themselves_are_named(tmp_path):
    touch(tmp_path, *PETS)
    (tmp_path / "cat/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "cat/self.jpg").symlink_to("self.jpg")
    dataset = index(tmp_path)
    assert len(dataset) == len(PETS)
    assert "cat/gone.jpg, cat/self.jpg are not pictures" in dataset.warnings[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_called_jpg_is_left_out_and_not_waited_for(tmp_path):
    touch(tmp_path, *PETS)
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    assert "cat/pipe.jpg is not a picture" in index(tmp_path).warnings[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_told_in_words_that_can_be_printed(tmp_path):
    touch(tmp_path, *PETS)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/caf\xe9.jpg")).touch()
    (warning,) = index(tmp_path).warnings
    assert "cat/caf" in warning.encode().decode()
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    assert "is not UTF-8" in refusal_of(index, tmp_path)


@pytest.fixture
def locked(monkeypatch):
    """Folders called `locked` may not be listed; the tests may run as root, who may list everything."""
    real = os.scandir

    def guarded(folder):
        if Path(str(folder)).name == "locked":  # what removes folders afterwards lists open ones, by number
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", guarded)


@pytest.mark.usefixtures("locked")
def test_a_folder_one_may_not_read_is_named(tmp_path):
    touch(tmp_path, *PETS, "cat/locked/3.jpg")
    (warning,) = index(tmp_path).warnings
    assert warning.startswith("cat/locked cannot be read (permission denied)")


@pytest.mark.usefixtures("locked")
def test_a_class_one_may_not_read_is_refused_with_the_reason(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), "train/locked/3.jpg")
    words = refusal_of(index, tmp_path)
    assert 'class "locked" has no pictures' in words
    assert "train/locked cannot be read (permission denied)" in words


@pytest.mark.usefixtures("locked")
def test_a_root_one_may_not_read_is_refused(tmp_path):
    (tmp_path / "locked").mkdir()
    assert "cannot be read (permission denied)" in refusal_of(index, tmp_path / "locked")


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_an_empty_class_folder_is_refused_with_the_counts(tmp_path):
    touch(tmp_path, *(f"train/{name}" for name in PETS), "train/cta/photo.svg")
    with pytest.raises(TooFewImages) as caught:
        index(tmp_path)
    assert caught.value.counts == {"cat": 2, "cta": 0, "dog": 2}
    words = str(caught.value)
    assert 'class "cta" has no pictures' in words
    assert 'did you mean "cat"?' in words
    assert "train/cta/photo.svg" in words


def test_one_class_is_refused_for_training(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg")
    assert "one class only" in refusal_of(index, tmp_path)


def test_a_missing_folder_and_an_empty_one_are_refused(tmp_path):
    assert "cannot be read (no such file or directory)" in refusal_of(index, tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "no pictures found" in refusal_of(index, tmp_path / "empty")


def test_archives_in_a_folder_are_named_where_there_are_no_pictures(tmp_path):
    touch(tmp_path, "sets/train.zip", "sets/test.7z", "labels.txt")
    assert "They may be in test.7z, train.zip: unpack what is packed" in refusal_of(index, tmp_path)


def test_pictures_without_class_folders_are_refused_with_the_change_that_mends_it(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    words = refusal_of(index, tmp_path)
    assert "2 pictures" in words
    assert "path,label" in words


def test_a_table_beside_the_pictures_is_offered(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "labels.csv")
    assert "give it instead: pets/labels.csv" in refusal_of(index, tmp_path)


def test_split_folders_without_class_folders_are_refused(tmp_path):
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg")
    assert "pictures without class folders" in refusal_of(index, tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["images/1.jpg", "images/2.jpg", "labels/1.txt", "labels/2.txt"],
        ["images/train/1.jpg", "labels/train/1.txt", "data.yaml"],
        ["train/images/1.jpg", "train/labels/1.txt", "valid/images/1.jpg", "valid/labels/1.txt", "data.yaml"],
        ["train2017/1.jpg", "annotations/instances_train2017.json"],
        ["train/1.jpg", "train/_annotations.coco.json"],
        ["JPEGImages/1.jpg", "Annotations/1.xml"],
    ],
)
def test_several_labels_a_picture_are_recognised_and_a_table_is_advised(tmp_path, names):
    touch(tmp_path, *names)
    words = refusal_of(index, tmp_path)
    assert "boxes or several labels a picture" in words
    assert "found: " in words
    assert "path,label" in words


def test_classes_that_hold_splits_are_refused(tmp_path):
    touch(tmp_path, *(f"{name}/{split}/1.jpg" for name in ("cat", "dog") for split in ("train", "test")))
    assert "each class folder (cat, dog) holds split folders" in refusal_of(index, tmp_path)


def test_several_datasets_side_by_side_are_refused(tmp_path):
    touch(tmp_path, *(f"{top}/{s}/{name}" for top in ("a", "b") for s in ("train", "test") for name in PETS))
    assert "Give one of them: pets/a" in refusal_of(index, tmp_path)


def test_two_names_for_one_split_are_refused(tmp_path):
    touch(tmp_path, *(f"{split}/{name}" for split in ("train", "val", "validation") for name in PETS))
    assert "val and validation both mean the validation split" in refusal_of(index, tmp_path)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_tree_gives_a_dataset_or_a_data_error_and_loses_no_picture_in_silence(tmp_path_factory, seed):
    chance = random.Random(seed)
    root = tmp_path_factory.mktemp("tree") / "pets"
    parts = ["cat", "dog", "train", "test", "val", "images", "labels", "other"]
    names = {
        "/".join(
            [*chance.sample(parts, chance.randint(0, 3)), f"{n}{chance.choice(['.jpg', '.jpg', '.txt', '.json'])}"]
        )
        for n in range(chance.randint(1, 8))
    }
    touch(root, *names)
    with suppress(DataError):
        dataset = index(root)
        taken = {dataset.label(path) for split in dataset.splits.values() for path in split.paths}
        assert len(taken) == len(dataset)
        assert len(taken) == sum(name.endswith(".jpg") for name in names) or dataset.warnings
    shutil.rmtree(root)
