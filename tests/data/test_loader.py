"""Pictures read ahead by threads: the same pixels, in order, within bounds."""

import io
import math
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from relish.core.errors import ImageError
from relish.core.workers import Workers
from relish.data import loader as reading
from relish.data.dataset import Split
from relish.data.image import open_image, size_from_header
from relish.data.loader import training_batches
from relish.data.transforms import book_preprocessing, evaluation_transform
from relish.evaluation import inference as ahead_of
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
    monkeypatch.setattr(ahead_of, "MAX_PIXELS", 4000)
    lock, now, most = threading.Lock(), [0], [0]
    real = ahead_of.open_image

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

    monkeypatch.setattr(ahead_of, "open_image", opened)
    assert len(list(read_ahead(pictures, HOW, ahead=16, threads=8))) == 20
    assert 1200 < most[0] <= 4000, "more than one at once, and no more than fit"


def test_a_picture_larger_than_allowed_is_no_deadlock(pictures, monkeypatch):
    monkeypatch.setattr(ahead_of, "MAX_PIXELS", 10)
    assert all(isinstance(item, torch.Tensor) for _, item in read_ahead(pictures, HOW, ahead=4, threads=4))


def test_whoever_stops_early_leaves_no_thread_behind(pictures):
    before = threading.active_count()
    ahead = read_ahead(pictures, HOW, ahead=4, threads=2)
    next(ahead)
    assert threading.active_count() > before
    ahead.close()
    assert threading.active_count() == before


def test_the_header_tells_how_large_a_picture_is(tmp_path, pictures):
    assert size_from_header(pictures[2]) == size_from_header(pictures[2].read_bytes()) == (54, 30)
    Image.new("L", (70, 11)).save(tmp_path / "a.tif")
    Image.new("RGB", (70, 11)).save(tmp_path / "a.webp")
    assert size_from_header(tmp_path / "a.tif") == size_from_header(tmp_path / "a.webp") == (70, 11)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing follows")
    for none in ("bad.jpg", "absent.png", "."):
        assert size_from_header(tmp_path / none) is None


# ---- a user's own transform -----------------------------------------------------------------------------------------


OWN = book_preprocessing(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def split(pictures) -> Split:
    return Split(tuple(pictures[:3]), np.array([0, 1, 0]))


def own(image):
    """Draws from all three global generators."""
    image = image.resize((24, 24))
    if random.random() < 0.5:
        image = image.rotate(90)
    return (v2.functional.pil_to_tensor(image) / 255 * np.random.uniform(0.5, 1) * torch.rand(3, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_draws_by_seed_epoch_and_image_alone(split, workers):
    def images(seed, epoch, batches):
        found = training_batches(split, OWN, batches, seed=seed, epoch=epoch, transform=own, workers=Workers(workers))
        return torch.cat([batch.images for batch in found])

    some, others = images(0, 1, [[0, 1], [2]]), images(0, 1, [[2, 1, 0]]).flip(0)
    assert torch.equal(some, others)
    assert not torch.equal(some, images(0, 2, [[0, 1, 2]]))
    assert not torch.equal(some, images(1, 1, [[0, 1, 2]]))
    assert (some.dtype, some.shape) == (torch.float32, (3, 3, 24, 24))


def test_the_global_generators_go_on_as_if_no_transform_had_drawn(split):
    def draws(transform):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        next(training_batches(split, OWN, [[0, 1]], seed=0, epoch=0, transform=transform))
        return random.random(), np.random.uniform(), torch.rand(1).item()

    assert draws(own) == draws(None)


# ---- images that are evaluated several times ------------------------------------------------------------------------


@pytest.fixture
def five(tmp_path):
    paths = [draw(tmp_path / "images" / f"{number}.png", (90, 90, 90), number) for number in range(5)]
    return Split(tuple(paths), np.arange(5) % 2)


@pytest.mark.parametrize("share", [0.25, 0.0], ids=["in memory", "in a file"])
def test_decoded_images_are_those_that_are_read_and_are_read_once(five, tmp_path, monkeypatch, share):
    monkeypatch.setattr(reading, "MEMORY_SHARE", share)
    how, batches = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3), [[0, 1], [4, 2]]
    (tmp_path / "scratch").mkdir()
    images = reading.DecodedImages(five.paths[:4], how, tmp_path / "scratch")
    expected = list(reading.evaluation_batches(five, how, batches))
    first = list(images.batches(five, how, batches))
    opened, real = [], reading.open_image
    monkeypatch.setattr(reading, "open_image", lambda path, **more: opened.append(path) or real(path, **more))
    again = list(images.batches(five, how, batches))
    for one, *others in zip(expected, first, again, strict=True):
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
            assert other.images.is_contiguous(memory_format=torch.channels_last)
    assert opened == [five.paths[4], five.paths[2]]  # the last one has no place, and its batch is read whole
    assert not list((tmp_path / "scratch").iterdir())


def test_where_there_is_no_room_images_are_decoded_again(five, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY_SHARE", 0.0)
    how = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    images = reading.DecodedImages(five.paths, how, tmp_path / "gone")
    expected = list(reading.evaluation_batches(five, how, [[0, 1]]))
    for _ in range(2):
        assert torch.equal(next(iter(images.batches(five, how, [[0, 1]]))).images, expected[0].images)


def test_another_preprocessing_than_they_were_decoded_with_is_refused(five, tmp_path):
    how, other = (book_preprocessing(side, (0.5,) * 3, (0.5,) * 3) for side in (32, 64))
    with pytest.raises(ValueError, match="another preprocessing"):
        next(reading.DecodedImages(five.paths, how, tmp_path).batches(five, other, [[0]]))


def test_training_images_are_opened_once_for_all_epochs_as_far_as_memory_goes(five, monkeypatch):
    how, batches = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3), [[0, 1], [2, 3, 4]]
    expected = [list(training_batches(five, how, batches, seed=0, epoch=epoch)) for epoch in range(3)]
    count, real = [], reading.open_image
    monkeypatch.setattr(reading, "open_image", lambda path, **more: count.append(path) or real(path, **more))
    monkeypatch.setattr(reading, "free_memory", lambda: 3 * 4 * 40 * 32 / reading.MEMORY_SHARE)  # of three images
    opened = reading.OpenedImages()
    for epoch in range(3):
        found = training_batches(five, how, batches, seed=0, epoch=epoch, opened=opened)
        for one, other in zip(expected[epoch], found, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(count) == 5 + 2 + 2
