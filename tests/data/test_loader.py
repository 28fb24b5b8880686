"""Batches: transforms draw by seed, epoch and image; what is kept decoded is kept as it was read."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from relish.core.workers import Workers
from relish.data import loader as reading
from relish.data.dataset import Split
from relish.data.image import size_from_header
from relish.data.loader import training_batches
from relish.data.transforms import book_preprocessing
from tests.conftest import draw

HOW = book_preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    return [draw(tmp_path / f"{n}.png", (10 * n, 90, 90), n, size=(40 + 7 * n, 30)) for n in range(20)]


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
