"""Pictures read ahead by threads: the same pixels, in order, within bounds."""

import io
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relish.core.errors import ImageError
from relish.data.image import open_image, size_from_header
from relish.data.transforms import book_preprocessing, evaluation_transform
from relish.evaluation import inference
from relish.evaluation.inference import read_ahead
from tests.conftest import draw

HOW = book_preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    return [draw(tmp_path / f"{n}.png", (10 * n, 90, 90), n, size=(40 + 7 * n, 30)) for n in range(20)]


def test_pixels_and_order_are_those_of_opening_one_by_one(pictures):
    slow = Image.new("RGB", (3000, 3000), "red")  # not done before those behind it
    slow.save(pictures[0])
    found = list(read_ahead(pictures, HOW, ahead=7, threads=4))
    assert [name for name, _ in found] == list(map(str, pictures))
    for path, (_, pixels) in zip(pictures, found, strict=True):
        assert torch.equal(pixels, evaluation_transform(open_image(path), HOW)), path


def test_whatever_holds_a_picture_is_read_and_what_does_not_stops_nothing(pictures, tmp_path):
    (tmp_path / "text.jpg").write_text("mustard")
    content = pictures[3].read_bytes()
    given = [content, ImageError("no*", "matches no file"), io.BytesIO(content), tmp_path / "text.jpg",
             tmp_path / "absent.png", Image.open(pictures[3]), np.asarray(open_image(pictures[3]))]  # fmt: skip
    found = list(read_ahead(given, HOW, ahead=3))
    names = ["picture 1", "no*", "picture 3", str(given[3]), str(given[4]), "picture 6", "picture 7"]
    assert [name for name, _ in found] == names
    assert [item for _, item in found if isinstance(item, str)] == [
        "matches no file", "not a picture: text file", "there is no such file"
    ]  # fmt: skip
    for place in (0, 2, 5, 6):
        assert torch.equal(found[place][1], evaluation_transform(open_image(content), HOW))


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_is_asked_for_than_may_lie_ahead(pictures, ahead):
    asked = []

    def given():
        for path in pictures:
            asked.append(path)
            yield path

    for done, _ in enumerate(read_ahead(given(), HOW, ahead=ahead, threads=2)):
        assert len(asked) <= done + ahead
    assert len(asked) == len(pictures)


def test_open_files_are_read_by_whoever_asked(pictures, monkeypatch):
    """Members of one archive share one file: two threads in it would read each other's bytes."""
    readers = set()

    class Told(io.BytesIO):
        def read(self, *size):
            readers.add(threading.current_thread())
            return super().read(*size)

    list(read_ahead((Told(path.read_bytes()) for path in pictures), HOW, ahead=8, threads=4))
    assert readers == {threading.current_thread()}


def test_pictures_under_way_are_together_no_larger_than_the_largest_allowed(pictures, monkeypatch):
    """Eight threads with a picture of 120 million pixels each would need some eight gigabytes."""
    monkeypatch.setattr(inference, "MAX_PIXELS", 4000)
    lock, now, most = threading.Lock(), [0], [0]
    real = inference.open_image

    def opened(path, **more):
        pixels = math.prod(size_from_header(path))
        with lock:
            now[0] += min(pixels, 4000)
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        try:
            return real(path, **more)
        finally:
            with lock:
                now[0] -= min(pixels, 4000)

    monkeypatch.setattr(inference, "open_image", opened)
    assert len(list(read_ahead(pictures, HOW, ahead=16, threads=8))) == 20
    assert 1200 < most[0] <= 4000, "more than one at once, and no more than fit"


def test_a_picture_larger_than_allowed_is_no_deadlock(pictures, monkeypatch):
    monkeypatch.setattr(inference, "MAX_PIXELS", 10)
    assert all(isinstance(item, torch.Tensor) for _, item in read_ahead(pictures, HOW, ahead=4, threads=4))


def test_whoever_stops_early_leaves_no_thread_behind(pictures):
    before = set(threading.enumerate())
    ahead = read_ahead(pictures, HOW, ahead=4, threads=2)
    next(ahead)
    assert set(threading.enumerate()) > before & set(threading.enumerate())
    ahead.close()
    assert set(threading.enumerate()) <= before
