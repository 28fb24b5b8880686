"""Bytes that are nearly an image: opened, surveyed and predicted, or named with a reason."""

from contextlib import contextmanager
from functools import cache
from io import BytesIO
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from relish.core.errors import ImageError
from relish.data import image as images
from relish.data import survey as surveys
from relish.data.image import open_image, size_from_header
from relish.data.layout import NoImages
from relish.data.sources import find_dataset
from relish.data.survey import survey
from relish.data.transforms import book_preprocessing
from relish.tasks.classifier import Classifier
from relish.tasks.predict import images_named
from tests.fuzz.harness import assert_readable, folder, fuzz, kept_in
from tests.fuzz.mutation import mutated, with_checksums

NAMES = ("x.png", "x.JPG", "x", "x.jpg_large", "x.tif", "x.txt")
MAX_PIXELS = 1_000_000
"""Instead of 120 million: bombs are the same, and quicker."""


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@cache
def seeds() -> list[bytes]:
    """A small file of each format, and of each way to store pixels that relish treats in its own way."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (13, 17, 3), dtype=np.uint8))
    grey, palette, alpha = rgb.convert("L"), rgb.convert("P"), rgb.convert("RGBA")
    deep = Image.fromarray(rng.integers(0, 4095, (13, 17), dtype=np.uint16))
    real = Image.fromarray(rng.random((13, 17), dtype=np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = {"exif": exif.tobytes()}
    pages = {"save_all": True, "append_images": [rgb.rotate(90)]}
    made = [
        *[encoded(rgb, "PNG"), encoded(deep, "PNG"), encoded(palette, "PNG", transparency=3), encoded(alpha, "PNG")],
        *[encoded(rgb, "JPEG"), encoded(grey, "JPEG", progressive=True), encoded(rgb.convert("CMYK"), "JPEG")],
        *[encoded(rgb, "JPEG", **turned), encoded(rgb, "PNG", **turned), encoded(alpha, "WEBP", **turned)],
        *[encoded(palette, "GIF"), encoded(rgb, "GIF", **pages), encoded(rgb, "WEBP", **pages)],
        *[
            encoded(rgb, "TIFF", **pages),
            encoded(deep, "TIFF"),
            encoded(real, "TIFF"),
            encoded(deep.convert("I"), "TIFF"),
        ],
        *[encoded(rgb, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")],
        *[encoded(rgb, "BMP"), encoded(grey, "BMP"), encoded(rgb, "PPM"), encoded(deep, "PPM")],
        *[encoded(rgb.convert("1"), "PPM"), b"P3 2 2 255\n" + b"1 2 3 " * 4],
        *[encoded(rgb, "JPEG2000"), encoded(rgb, "AVIF", speed=10)],
    ]
    return [*made, b"<html>", b"version https://git-lfs.github.com/spec/v1", b""]


@cache
def classifier() -> Classifier:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    torch.nn.init.zeros_(network[2].weight)
    return Classifier(network, ("a", "b"), book_preprocessing(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


contents = st.deferred(lambda: mutated(seeds()))
FILES = st.tuples(st.one_of(contents, contents.map(with_checksums)), st.sampled_from(NAMES), st.booleans())


@contextmanager
def small_limit():
    with mock.patch.object(images, "MAX_PIXELS", MAX_PIXELS), mock.patch.object(surveys, "MAX_PIXELS", MAX_PIXELS):
        yield


@fuzz(FILES, examples=60)
def test_any_bytes_are_an_image_or_a_reason(given):
    content, name, by_pillow = given
    with small_limit(), folder() as here:
        classifier()
        opened = None
        with kept_in(here.parent):
            opened = an_image(content, name)
        if by_pillow:
            with kept_in(here.parent):
                through_pillow(content)
        with kept_in(here.parent):
            surveyed_and_predicted(here, content, name, opened is not None)


def an_image(content: bytes, name: str) -> Image.Image:
    try:
        opened = open_image(content, name=name)
    except ImageError as error:
        assert_readable(error.reason, lines=1)
        raise
    assert opened.mode == "RGB"
    assert 0 < opened.width * opened.height <= MAX_PIXELS
    assert size_from_header(content) is not None
    return opened


def through_pillow(content: bytes) -> None:
    """An image that the user's own program has opened, and not decoded."""
    try:
        image = Image.open(BytesIO(content))
    except Exception:  # what Pillow itself refuses never comes to relish
        return
    if image.width * image.height <= MAX_PIXELS:
        open_image(image)


def surveyed_and_predicted(here, content: bytes, name: str, opens: bool) -> None:
    """In a folder beside a good one, it is counted, named or left out with a word: never nothing."""
    for place in ("data/a/good.png", f"data/a/{name}", "data/b/good.png"):
        path = here / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if path.name == name else GOOD)
    path = here / "data" / "a" / name
    found = find_dataset(str(here / "data"), learnable=False)
    surveyed = survey(found, learnable=False)
    told = " ".join([*found.warnings, *surveyed.dataset.warnings])
    reasons = dict(surveyed.unreadable)
    assert (path in surveyed.facts) + (f"a/{name}" in reasons) + (f"a/{name}" in told) >= 1
    for reason in reasons.values():
        assert_readable(reason, lines=1)
    left_out = NoImages()
    rows = list(classifier().stream(images_named([str(here / "data")], left_out=left_out)))
    assert len(rows) + left_out.kinds.total() == 3
    mine = [row for row in rows if row.path == str(path)]
    if opens and mine:
        assert mine[0].error is None
    for row in rows:
        assert (row.error is None) == (row.class_name in ("a", "b"))
        if row.error is not None:
            assert_readable(row.error, lines=1)


GOOD = encoded(Image.new("RGB", (9, 9), (200, 10, 10)), "PNG")
