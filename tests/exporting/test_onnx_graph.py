"""What an exported file sees of a picture is what Pillow shows PyTorch, to the last pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.data.transforms import Preprocessing, evaluation_transform
from relish.exporting import onnx_graph
from tests.exported import MEAN, STD, prepared, preparing

FRAMINGS, FILTERS = ("squash", "crop", "letterbox"), ("bilinear", "bicubic")
LONG = [(1, 1), (1, 5000), (5000, 1), (7, 900), (900, 7), (4999, 3), (3, 4999)]


def how(framing: str, interpolation: str, size: int = 40, resize: int = 47) -> Preprocessing:
    return Preprocessing(
        image_size=size, resize=resize, mean=MEAN, std=STD, framing=framing, interpolation=interpolation
    )


def noise(width: int, height: int, harsh: bool, seed: int = 0) -> Image.Image:
    """Any values, or black and white alone, where a cubic overshoots and is cut off."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.where(values > 127, 255, 0).astype(np.uint8) if harsh else values)


def assert_same(picture: Image.Image, wanted: Preprocessing) -> None:
    np.testing.assert_array_equal(prepared(picture, wanted), evaluation_transform(picture, wanted).numpy())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FRAMINGS), st.sampled_from(FILTERS), st.integers(1, 300), st.integers(1, 300), st.booleans(),
    st.integers(0, 2**20),
)  # fmt: skip
def test_a_picture_of_any_size_is_prepared_as_for_pytorch(framing, interpolation, width, height, harsh, seed):
    assert_same(noise(width, height, harsh, seed), how(framing, interpolation))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_threads_and_strips_are_prepared_as_for_pytorch(framing, interpolation):
    for width, height in LONG:
        assert_same(noise(width, height, harsh=True), how(framing, interpolation))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("size", "resize"), [(1, 1), (16, 16), (17, 20), (33, 33)])
def test_networks_of_any_size_get_their_square(framing, size, resize):
    """Around the size of a block, and with crops that leave an odd edge."""
    for width, height in ((50, 31), (5, 90), (resize, resize)):
        assert_same(noise(width, height, harsh=False), how(framing, "bicubic", size, resize))


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_large_photographs_are_prepared_as_for_pytorch(framing, interpolation):
    for width, height in ((5000, 5000), (4000, 3000), (3000, 4000), (640, 480), (256, 256), (1, 5000)):
        assert_same(noise(width, height, harsh=False), how(framing, interpolation, 224, 256))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_where_pillow_always_goes_across_first_so_does_the_file(monkeypatch, interpolation):
    """Two calls of Pillow, a side each, have that order in every version."""
    monkeypatch.setattr(onnx_graph, "pillow_scales_height_first", lambda: False)
    preparing.cache_clear()
    kind = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    for width, height in ((7, 900), (255, 257), (300, 700), (20, 30)):
        picture = noise(width, height, harsh=True)
        two_steps = picture.resize((40, height), kind).resize((40, 40), kind)
        found = prepared(picture, how("squash", interpolation, 40, 40))
        np.testing.assert_array_equal(found, np.asarray(two_steps).transpose(2, 0, 1))
    preparing.cache_clear()


def test_which_side_goes_first_matters_where_pillow_scales_height_first():
    """Were it of no account, the rule in the graph would be tested by nothing above."""
    if not onnx_graph.pillow_scales_height_first():
        pytest.skip("this Pillow goes across first whatever the picture")
    picture, kind = noise(30, 700, harsh=True), Image.Resampling.BICUBIC
    across = picture.resize((40, 700), kind).resize((40, 40), kind)
    assert np.asarray(picture.resize((40, 40), kind)).tolist() != np.asarray(across).tolist()
