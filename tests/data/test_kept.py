"""Images that stay on a device show what is read: the same boxes and flips, the same pixels to within a level.

A processor can show all but the speed: the device here is `cpu`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.progress import SILENT
from relish.core.workers import Workers
from relish.data import kept, loader
from relish.data.dataset import Split
from relish.data.kept import KeptImages, crop_and_resize, kept_on, kept_side
from relish.data.loader import training_batches
from relish.data.transforms import book_preprocessing, resampling
from tests.conftest import TORTURE, Heard, draw

HOW = book_preprocessing(24, (0.5,) * 3, (0.5,) * 3)
SIDE = kept_side(HOW, 0.08)
CPU = torch.device("cpu")
BATCHES = [[0, 3, 6], [1, 2, 5 + 7], [5, 4, 1 + 7]]
"""Of seven images, two of them twice, as balanced batches have it."""


@pytest.fixture
def split(tmp_path) -> Split:
    """Images of just the size that stays, so that nothing is scaled twice."""
    paths = [draw(tmp_path / f"{n}.png", (30 * n, 90, 90), n, size=(SIDE, SIDE)) for n in range(7)]
    return Split(tuple(paths), np.arange(7) % 2)


@pytest.fixture
def opened(monkeypatch) -> list:
    """The paths of images as they are opened."""
    found, real = [], loader.open_image
    monkeypatch.setattr(loader, "open_image", lambda path, **more: found.append(path) or real(path, **more))
    return found


def epoch_of(split, staying=None, epoch=0, batches=BATCHES, how=HOW, **more):
    return list(training_batches(split, how, batches, seed=4, epoch=epoch, kept=staying, **more))


def furthest(ours, theirs):
    """The largest difference of pixels; labels and positions must be the same."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        assert one.positions.tolist() == other.positions.tolist()
        assert one.images.is_contiguous(memory_format=torch.channels_last)
    return max(
        int((one.images.int() - other.images.int()).abs().max()) for one, other in zip(ours, theirs, strict=True)
    )


@settings(max_examples=1000 if TORTURE else 40)
@given(st.data())
def test_a_box_is_scaled_as_pillow_scales_it(data):
    """Bicubic too, of values so far from 0 and 255 that none is cut off between the sides."""
    height, width, size = (data.draw(st.integers(1, 40)) for _ in range(3))
    interpolation = data.draw(st.sampled_from(["bilinear", "bicubic"]))
    edges = [sorted(data.draw(st.tuples(*[st.floats(0, side, width=32)] * 2))) for side in (width, height)]
    (left, right), (top, bottom) = ((low, high) if high - low > 0.01 else (0, side)
                                    for (low, high), side in zip(edges, (width, height), strict=True))  # fmt: skip
    low, high = (64, 192) if interpolation == "bicubic" else (0, 256)
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(low, high, (height, width, 3), np.uint8)
    x, y = int(left), int(top)
    cut = Image.fromarray(pixels).crop((x, y, int(np.ceil(right)), int(np.ceil(bottom))))
    how = replace(HOW, interpolation=interpolation)
    theirs = cut.resize((size, size), resampling(how), box=(left - x, top - y, right - x, bottom - y))
    for flipped in (False, True):
        ours = crop_and_resize(
            torch.from_numpy(pixels)[None], torch.tensor([[left, top, right, bottom]]), torch.tensor([flipped]), size,
            interpolation,
        )[0]  # fmt: skip
        ours = ours.flip(2) if flipped else ours
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs)).max() <= 1


def test_kept_images_are_cut_and_flipped_as_those_that_are_read(split):
    """Of noise: a box that is off by a pixel, or no flip, would be off by more than a hundred levels."""
    staying = KeptImages(split.paths, CPU)
    for epoch in range(3):
        assert furthest(epoch_of(split, staying, epoch), epoch_of(split, epoch=epoch)) <= 1
    assert furthest(epoch_of(split, staying, 3), epoch_of(split, epoch=2)) > 100


@pytest.mark.parametrize("size", [(97, 60), (31, 80)])
def test_of_a_rectangle_the_same_region_is_shown(size, tmp_path):
    """Red grows to the right and green downwards: a pixel says where it is from."""
    across, down = np.meshgrid(np.linspace(0, 250, size[0]), np.linspace(0, 250, size[1]))
    Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8)).save(tmp_path / "a.png")
    split = Split((tmp_path / "a.png",) * 20, np.zeros(20, np.int64))
    batches = [list(range(20))]
    ours, theirs = epoch_of(split, KeptImages(split.paths, CPU), batches=batches), epoch_of(split, batches=batches)
    inner = [[one._replace(images=one.images[..., 1:-1, 1:-1])] for (one,) in (ours, theirs)]
    (one,), (other,) = inner
    assert float((one.images.float() - other.images.float()).abs().mean()) < 1.5
    assert int((one.images.int() - other.images.int()).abs().max()) <= 8


def test_an_image_is_opened_once_for_all_epochs_folds_and_models(split, opened):
    staying, fold = KeptImages(split.paths, CPU), split.take([6, 2, 4])
    before = epoch_of(fold, staying, batches=[[0, 2]])
    for epoch in range(3):
        epoch_of(split, staying, epoch)
    assert len(opened) == 7
    assert furthest(epoch_of(fold, staying, batches=[[0, 2]]), before) == 0
    assert len(opened) == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_pixels_do_not_depend_on_what_was_trained_on_before_or_who_reads(workers, split):
    """As where a run is resumed, or stops in the midst of an epoch."""
    whole, resumed = KeptImages(split.paths, CPU), KeptImages(split.paths, CPU)
    next(training_batches(split, HOW, BATCHES, seed=4, epoch=0, kept=whole))
    epoch_of(split, whole, 1)
    other = epoch_of(split, resumed, 2, BATCHES[1:], workers=Workers(workers))
    assert furthest(epoch_of(split, whole, 2)[1:], other) == 0


def test_another_image_size_or_crop_is_not_cut_from_what_stays(split):
    """As where the ladder chooses a size. The images are then scaled twice."""
    staying, small = KeptImages(split.paths, CPU), book_preprocessing(12, (0.5,) * 3, (0.5,) * 3)
    epoch_of(split, staying)
    alone = epoch_of(split, KeptImages(split.paths, CPU), how=small)
    assert furthest(epoch_of(split, staying, how=small), alone) == 0
    assert furthest(epoch_of(split, staying), epoch_of(split)) <= 1


def test_where_there_is_no_room_images_are_read(split, opened, monkeypatch):
    monkeypatch.setattr(loader, "free_memory", lambda: 7 * 3 * SIDE**2 / loader.MEMORY_SHARE - 1)
    heard = Heard()
    staying = KeptImages(split.paths, CPU, heard)
    for epoch in range(2):
        assert furthest(epoch_of(split, staying, epoch), epoch_of(split, epoch=epoch)) == 0
    assert not heard.lines
    assert len(opened) == 4 * 9


def test_where_memory_runs_out_the_other_batches_are_read(split, monkeypatch):
    calls, real = [], kept.crop_and_resize

    def short(*given):
        calls.append(given)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(*given)

    monkeypatch.setattr(kept, "crop_and_resize", short)
    heard = Heard()
    staying = KeptImages(split.paths, CPU, heard)
    first, read = epoch_of(split, staying), epoch_of(split)
    assert furthest(first, read) <= 1
    assert furthest(first[1:], read[1:]) == 0
    assert furthest(epoch_of(split, staying, 1), epoch_of(split, epoch=1)) == 0
    assert len(calls) == 2
    assert (len(heard.lines), len(heard.warnings)) == (1, 1)
    assert not staying.release()


def test_what_stays_can_be_released_in_mid_epoch(split):
    staying = KeptImages(split.paths, CPU, heard := Heard())
    found = []
    for batch in training_batches(split, HOW, BATCHES, seed=4, epoch=0, kept=staying):
        found.append(batch)
        assert staying.release() is (len(found) == 1)
    assert furthest(found[1:], epoch_of(split)[1:]) == 0
    assert len(heard.warnings) == 1


def test_a_transform_of_the_users_own_is_given_images_that_are_read(split):
    def transform(image):
        return image.resize((24, 24))

    staying = KeptImages(split.paths, CPU)
    found = epoch_of(split, staying, transform=transform)
    assert furthest(found, epoch_of(split, transform=transform)) == 0
    assert staying._squares is None


def test_only_a_gpu_keeps_them(split):
    assert kept_on(CPU, split.paths) is None
    assert kept_on(torch.device("cuda", 0), split.paths, SILENT) is not None


@pytest.mark.cuda
def test_on_a_gpu_kept_images_are_those_of_a_processor(split):
    gpu = kept_on(torch.device("cuda"), split.paths)
    for epoch in range(2):
        found = epoch_of(split, gpu, epoch)
        assert all(batch.images.is_cuda for batch in found)
        there = [batch._replace(images=batch.images.cpu()) for batch in found]
        assert furthest(there, epoch_of(split, epoch=epoch)) <= 1


@pytest.mark.cuda
def test_evaluated_images_stay_on_a_gpu_as_they_were_decoded(split, tmp_path):
    images = loader.DecodedImages(split.paths, HOW, tmp_path, torch.device("cuda"))
    expected = list(loader.evaluation_batches(split, HOW, [[2, 0], [5]]))
    for again in (False, True):
        found = list(images.batches(split, HOW, [[2, 0], [5]]))
        assert all(batch.images.is_cuda == again for batch in found)
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one.images, other.images.cpu())
