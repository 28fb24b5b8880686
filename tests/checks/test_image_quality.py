"""Blank, dark, blurred, odd images and uneven classes are told from their limits on."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from relish.checks.images import balance
from tests.checks.planted import brief, image_set_of, of_kind, scene


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


def test_tiny_long_and_grey_pictures_are_noted(root):
    scene(910, (40, 30)).save(root / "train/cat/tiny.png")
    scene(911, (600, 100)).save(root / "train/cat/long.png")
    scene(912).convert("L").save(root / "train/cat/grey.png")
    told = {f.message.partition(" picture is ")[2]: f.paths for f in of_kind(brief(root), "odd-size")}
    assert set(told.values()) == {
        ("train/cat/tiny.png",), ("train/cat/long.png",), ("train/cat/grey.png",)
    }  # fmt: skip


def test_files_of_which_only_the_first_page_is_read_are_noted_however_many(root):
    assert of_kind(brief(root), "many-pages") == []
    for number in range(3):
        pages = [scene(920 + number), scene(930 + number)]
        pages[0].save(root / f"train/cat/{number}.tif", save_all=True, append_images=pages[1:])
    (found,) = of_kind(brief(root), "many-pages")
    assert found.message.startswith("3 pictures are the first of several pages or frames")
    assert sorted(found.paths) == [f"train/cat/{number}.tif" for number in range(3)]


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
    assert [(f.kind, f.severity) for f in balance(image_set_of(counts))] == kinds
