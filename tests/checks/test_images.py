"""Files that cannot be opened and class folders that suggest a slip are told, with the words of `fit`."""

from pathlib import Path

import numpy as np
import pytest

from relish.checks.images import layout
from relish.data.dataset import Dataset, Split
from tests.checks.planted import brief, of_kind


def test_a_file_cut_short_is_named_with_the_reason(root):
    path = root / "train/cat/05.png"
    path.write_bytes(path.read_bytes()[:900])
    (finding,) = of_kind(brief(root), "unreadable")
    assert finding.paths == ("train/cat/05.png",)
    assert "cut short" in finding.message


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
        (("1", "1.0", "2"), "differ in spelling"),
        (("True", "true", "False"), "differ in spelling"),
        (("cat", "dog", "nan"), "like a missing value"),
    ],
)
def test_class_names_that_suggest_a_slip_are_told(classes, words):
    (finding,) = layout(of_classes(*classes))
    assert words in finding.message


@pytest.mark.parametrize(
    "classes",
    [
        ("hotdog", "not-hotdog"),
        ("mask", "no_mask"),
        ("photo", "photocopy"),
        ("0", "1"),
        ("1.0", "1.5"),
        ("none", "crack"),
    ],
)
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
