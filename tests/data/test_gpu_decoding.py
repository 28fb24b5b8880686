"""Images that a device decodes are shown as those that are read; here Pillow stands for the device's decoder."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from relish.core.errors import ImageError
from relish.core.workers import Workers
from relish.data.dataset import Split
from relish.data.gpu_decoding import GpuDecoding, nvjpeg
from relish.data.image import jpeg_sizes, open_image
from relish.data.kept import KeptImages
from relish.data.loader import training_batches
from relish.data.transforms import book_preprocessing
from tests.conftest import Heard
from tests.data.test_kept import furthest

HOW = book_preprocessing(24, (0.5,) * 3, (0.5,) * 3)
CPU = torch.device("cpu")
BATCHES = [[0, 3], [1, 2, 4]]


def saved(path, size=(60, 44), turn=1, seed=0, **more):
    """A smooth picture, as JPEG keeps it; with an orientation that has a camera held on its side."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image, exif = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), Image.Exif()
    exif[0x0112] = turn
    image.save(path, exif=exif, **more)
    return path


@pytest.fixture
def split(tmp_path) -> Split:
    """A picture that was taken upright, one on its side, a grey one, one of a printer's colours, and a PNG."""
    paths = [saved(tmp_path / "a.jpg"), saved(tmp_path / "b.jpg", turn=6, seed=1)]
    Image.open(paths[0]).convert("L").save(tmp_path / "c.jpg")
    Image.open(paths[1]).convert("CMYK").save(tmp_path / "d.jpg")
    paths += [tmp_path / "c.jpg", tmp_path / "d.jpg", saved(tmp_path / "e.png", seed=2)]
    return Split(tuple(paths), np.arange(5) % 2)


class Decoder:
    """Decodes with Pillow, as often as `count` says, and refuses what is `refused`."""

    def __init__(self, refused=lambda files: False):
        self.count, self.refused = 0, refused

    def __call__(self, files):
        if self.refused(files):
            raise RuntimeError("nvjpegDecode failed: 2")
        self.count += len(files)
        return [torch.from_numpy(np.array(open_image(BytesIO(file)))).permute(2, 0, 1) for file in files]


def decoding(decoder, heard=None):
    """Of a device that has no room for a picture."""
    heard = heard or Heard()
    return KeptImages((), CPU, heard, GpuDecoding(CPU, heard, lambda device: decoder))


def epoch_of(split, kept=None, epoch=0, **more):
    return list(training_batches(split, HOW, BATCHES, seed=4, epoch=epoch, kept=kept, **more))


@pytest.mark.parametrize("workers", [0, 1])
def test_decoded_images_are_cut_and_flipped_as_those_that_are_read(split, workers):
    decoder, heard = Decoder(), Heard()
    kept = decoding(decoder, heard)
    for epoch in range(2):
        found = epoch_of(split, kept, epoch, workers=Workers(workers))
        assert furthest(found, epoch_of(split, epoch=epoch)) <= 1
    assert decoder.count == 2 * 3
    assert [line for line in heard.lines if "2 by Pillow, such as" in line and ("d.jpg" in line or "e.png" in line)]
    assert len(heard.lines) == 2
    assert not heard.warnings


def test_what_the_device_cannot_decode_pillow_reads_and_counts(split):
    """One file alone is refused; it stands in a batch with one that is not."""
    grey, heard = split.paths[2].read_bytes(), Heard()
    decoder = Decoder(lambda files: grey in files)
    assert furthest(epoch_of(split, decoding(decoder, heard)), epoch_of(split)) <= 1
    assert decoder.count == 2
    assert [line for line in heard.lines if "3 by Pillow" in line]


def test_a_device_that_decodes_nothing_is_asked_no_more_and_a_warning_says_so(split):
    calls, heard = [], Heard()
    kept = decoding(Decoder(lambda files: calls.append(files) or True), heard)
    assert furthest(epoch_of(split, kept), epoch_of(split)) == 0
    asked = len(calls)
    assert furthest(epoch_of(split, kept, 1), epoch_of(split, epoch=1)) == 0
    assert (len(calls), len(heard.warnings)) == (asked, 1)


def test_where_memory_lacks_fewer_are_decoded_at_once(split):
    def refused(files):
        if len(files) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    heard = Heard()
    assert furthest(epoch_of(split, decoding(Decoder(refused), heard)), epoch_of(split)) <= 1
    assert not heard.warnings


def test_without_torchcodec_images_are_read(split, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    assert nvjpeg(CPU) is None
    heard = Heard()
    assert furthest(epoch_of(split, decoding(None, heard)), epoch_of(split)) == 0
    assert not heard.lines


def test_of_a_large_file_the_region_is_shown_that_is_cut_from_it_decoded_smaller(tmp_path):
    """Red grows to the right and green downwards. The reader decodes at an eighth, the device wholly."""
    across, down = np.meshgrid(np.linspace(0, 250, 1200), np.linspace(0, 250, 880))
    path = tmp_path / "a.jpg"
    Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8)).save(path, quality=95)
    assert jpeg_sizes(path.read_bytes(), 100) == ((110, 150), (880, 1200))
    split = Split((path,) * 5, np.zeros(5, np.int64))
    ours, theirs = (epoch_of(split, kept, scaled=True) for kept in (decoding(Decoder()), None))
    for one, other in zip(ours, theirs, strict=True):
        assert float((one.images.float() - other.images.float()).abs().mean()) < 1.5


def test_a_picture_that_vanishes_in_mid_run_is_named(split):
    split.paths[1].unlink()
    with pytest.raises(ImageError, match=r"b\.jpg"):
        epoch_of(split, decoding(Decoder()))


def test_only_a_plain_jpeg_file_has_the_sizes_of_one(split, tmp_path):
    sizes = [jpeg_sizes(path.read_bytes()) for path in split.paths]
    assert sizes == [((44, 60), (44, 60)), ((60, 44), (60, 44)), ((44, 60), (44, 60)), None, None]
    rgb = saved(tmp_path / "rgb.jpg", keep_rgb=True)
    assert [jpeg_sizes(file) for file in (rgb.read_bytes(), b"", b"\xff\xd8\xff nothing")] == [None] * 3


@pytest.mark.cuda
def test_nvjpeg_decodes_as_pillow_but_for_a_few_levels(split):
    pytest.importorskip("torchcodec")
    device, heard = torch.device("cuda"), Heard()
    found = epoch_of(split, KeptImages((), device, heard, GpuDecoding(device, heard)))
    assert "decoded training pictures by nvJPEG" in heard.lines[0]
    assert heard.lines[-1].startswith("decoded 2 by Pillow")
    for one, other in zip(found, epoch_of(split), strict=True):
        assert one.images.is_cuda
        assert float((one.images.cpu().float() - other.images.float()).abs().mean()) < 3
