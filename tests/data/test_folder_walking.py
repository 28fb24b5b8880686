"""Folders of any size, walked in order without holding their names."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relish.core.errors import ImageError
from relish.data import folder as walking
from relish.data.folder import images_below, in_order, matches
from relish.data.image_files import IMAGE_SUFFIXES
from relish.data.layout import NoImages


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@given(st.lists(st.text(max_size=3)), st.integers(1, 7))
def test_any_block_gives_the_sorted_names(names, block):
    assert list(in_order(lambda: names, block)) == sorted(set(names))


@given(st.lists(st.integers(0, 999), unique=True, max_size=60), st.integers(1, 9))
def test_no_more_names_are_held_than_a_block(numbers, block):
    """Of the names handed out, `heapq.nsmallest` is asked for at most a block in each pass, and passes are few."""
    passes = []

    def names():
        passes.append(1)
        return (f"{number:03}" for number in numbers)

    assert list(in_order(names, block)) == sorted(f"{number:03}" for number in numbers)
    assert len(passes) == len(numbers) // block + 1


def test_the_order_is_that_of_sorted_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "BLOCK", 2)
    touch(
        tmp_path, "b.jpg", "a/z.png", "a.png", "a/b/1.JPG", "a-c/2.gif", "c/x.txt", ".hidden.jpg", ".h/3.jpg", "Z.tiff"
    )
    found = list(images_below(tmp_path))
    plain = [p for p in tmp_path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
    assert found == sorted(p for p in plain if not any(part.startswith(".") for part in p.relative_to(tmp_path).parts))
    assert len(found) == 6


def test_a_folder_named_like_a_picture_is_named_and_gone_into(tmp_path):
    touch(tmp_path, "odd.jpg/1.png")
    assert list(images_below(tmp_path)) == [tmp_path / "odd.jpg", tmp_path / "odd.jpg" / "1.png"]


def test_what_is_no_picture_is_counted_and_not_waited_for(tmp_path):
    touch(tmp_path, "a/1.png", "b.txt", "c.svg", ".hidden", "Thumbs.db")
    (tmp_path / "c.svg").write_text("<svg>")
    (tmp_path / "a/2.jpg_large").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "gone").symlink_to("nowhere.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe.png")
    left_out = NoImages()
    found = list(images_below(tmp_path, left_out))
    assert found == [tmp_path / name for name in ("a/1.png", "a/2.jpg_large", "gone", "gone.png")]
    assert dict(left_out.kinds) == {"empty file": 1, "SVG drawing": 1, "link to a folder": 1, "pipe or device": 1}
    assert left_out.sentence() == (
        f"4 files, {tmp_path}/b.txt, {tmp_path}/c.svg, {tmp_path}/link and 1 more are not pictures "
        "(empty file 1, SVG drawing 1, link to a folder 1, pipe or device 1): left out."
    )


def test_a_loop_of_links_ends(tmp_path):
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to(tmp_path / "a" / "1.png")
    assert list(images_below(tmp_path)) == [tmp_path / "a" / "1.png", tmp_path / "linked.png"]


def test_a_folder_that_cannot_be_read_is_told_in_its_place(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    real = os.scandir

    def refusing(path):
        if Path(str(path)).name == "b":  # what removes folders afterwards lists open ones, by number
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(walking.os, "scandir", refusing)
    first, error, last = images_below(tmp_path)
    assert (first, last) == (tmp_path / "a" / "1.png", tmp_path / "c" / "3.png")
    assert isinstance(error, ImageError)
    assert (error.name, error.reason) == (str(tmp_path / "b"), "cannot be read (permission denied)")


def test_a_glob_names_each_file_once_and_in_order(tmp_path):
    touch(tmp_path, "a/2.png", "a/1.png", "1.png")
    assert list(matches(f"{tmp_path}/**/**/*.png")) == [
        f"{tmp_path}/1.png",
        f"{tmp_path}/a/1.png",
        f"{tmp_path}/a/2.png",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_is_found_too(tmp_path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.png"))).touch()
    assert [os.fsencode(p.name) for p in images_below(tmp_path)] == [b"b\xff.png"]
