"""What the network sees is what torchvision would show it, and every draw has its place."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from relish.core.errors import DataError, ModelError
from relish.core.runtime import rng_for
from relish.data.transforms import (
    Preprocessing,
    book_preprocessing,
    denormalise,
    evaluation_transform,
    min_side,
    normalise,
    preprocessing_from,
    random_crop,
    stacked,
    training_transform,
    user_transform,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOOK = book_preprocessing(224, MEAN, STD)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_book_scales_both_sides_to_256_and_cuts_224():
    assert (BOOK.resize, BOOK.image_size) == (256, 224)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (100, 333), (17, 500), (224, 224), (1, 1)])
def test_an_evaluated_picture_equals_torchvisions(width, height):
    theirs = v2.Compose([v2.Resize([256, 256]), v2.CenterCrop(224), v2.PILToTensor()])(picture(width, height))
    assert torch.equal(evaluation_transform(picture(width, height), BOOK), theirs)


def test_a_training_picture_equals_torchvisions_at_the_same_crop():
    shown = picture(320, 240)
    for number in range(8):
        top, left, height, width = random_crop(240, 320, rng_for(0, "t", number))
        theirs = v2.functional.pil_to_tensor(
            v2.functional.resized_crop(shown, top, left, height, width, [224, 224], antialias=True)
        )
        chance = rng_for(0, "t", number)
        ours = training_transform(shown, BOOK, chance)
        assert torch.equal(ours, theirs) or torch.equal(ours, theirs.flip(2))


@given(st.integers(60, 900), st.integers(60, 900), st.sampled_from([0.08, 0.35, 1.0]), st.integers(0, 1000))
def test_no_crop_of_a_picture_with_the_least_side_is_scaled_up(width, height, smallest, seed):
    how = book_preprocessing(48, MEAN, STD)
    least = min_side(how, smallest)
    scale = max(1.0, least / min(width, height))
    width, height = math.ceil(width * scale), math.ceil(height * scale)
    *_, cut_height, cut_width = random_crop(height, width, rng_for(seed, "t"), smallest)
    # A pixel less, where a crop's sides are rounded; and the crop of last resort may be as narrow as the ratio allows.
    assert min(cut_height, cut_width) >= min(48 - 1, math.floor(min(width, height)))


def test_normalising_equals_torchvisions_and_can_be_undone():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    theirs = v2.Normalize(MEAN, STD)(images.float() / 255)
    assert torch.equal(normalise(images, BOOK), theirs)
    assert torch.equal(denormalise(normalise(images, BOOK), BOOK), images)


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), seed=st.integers(0, 2**31))
def test_a_random_crop_lies_inside_the_picture(height, width, seed):
    top, left, h, w = random_crop(height, width, rng_for(seed, "crop"))
    assert h >= 1
    assert w >= 1
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w


def test_random_crops_are_distributed_as_torchvisions():
    """Area, width over height, and place, over 4,000 draws each; three standard errors of the difference."""
    torch.manual_seed(0)
    blank = torch.zeros(3, 240, 320)
    draw = v2.RandomResizedCrop(224).make_params
    theirs = [draw([blank]) for _ in range(4000)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs], dtype=float)
    ours = np.array([random_crop(240, 320, rng_for(1, "c", i)) for i in range(4000)], dtype=float)
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: np.log(c[:, 3] / c[:, 2]),
        lambda c: c[:, 0] + c[:, 2] / 2,
        lambda c: c[:, 1] + c[:, 3] / 2,
    ):
        a, b = measure(ours), measure(theirs)
        error = np.hypot(a.std(), b.std()) / np.sqrt(4000)
        assert abs(a.mean() - b.mean()) < 3 * error
        assert a.std() == pytest.approx(b.std(), rel=0.06)


def test_half_of_the_training_pictures_are_flipped():
    wide = Image.fromarray(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2))
    how = book_preprocessing(32, MEAN, STD)
    flipped = [
        int(pixels[0, 0, 0]) > int(pixels[0, 0, -1])
        for pixels in (training_transform(wide, how, rng_for(0, "f", i)) for i in range(400))
    ]
    assert 160 < sum(flipped) < 240  # four standard errors


def test_a_draw_depends_on_its_place_alone():
    one, again = (training_transform(picture(90, 60), BOOK, rng_for(5, "picture", 2, 7)) for _ in range(2))
    other = training_transform(picture(90, 60), BOOK, rng_for(5, "picture", 2, 8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_preprocessing_travels_in_a_header():
    how = Preprocessing(image_size=96, resize=110, mean=MEAN, std=STD, interpolation="bicubic")
    assert preprocessing_from({"preprocessing": json.dumps(how.as_dict())}, BOOK) == how
    assert preprocessing_from({}, BOOK) == BOOK


@pytest.mark.parametrize("words", ["{", "{}", '{"image_size": "a lot"}', "[1]"])
def test_preprocessing_that_cannot_be_read_is_an_error(words):
    with pytest.raises(ModelError, match="preprocessing"):
        preprocessing_from({"preprocessing": words}, BOOK)


@pytest.mark.parametrize(
    "change",
    [
        *({"resize": 999_999_999}, {"image_size": 10**30, "resize": 10**30}, {"std": [0, 1, 1]}, {"std": [1, 1, -1]}),
        *({"mean": [math.nan, 0, 0]}, {"std": [math.inf, 1, 1]}),
    ],
)
def test_preprocessing_that_no_picture_could_go_through_is_refused(change):
    with pytest.raises(ModelError, match="preprocessing"):
        preprocessing_from({"preprocessing": json.dumps(BOOK.as_dict() | change)}, BOOK)


def test_stacking_changes_the_layout_and_no_value():
    pictures = [torch.randint(0, 256, (3, 5, 5), dtype=torch.uint8) for _ in range(4)]
    found = stacked(pictures)
    assert torch.equal(found, torch.stack(pictures))
    assert found.is_contiguous(memory_format=torch.channels_last)


# ---- a user's own transform -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1),
        v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(1)]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.RandomHorizontalFlip(1)]),
    ],
)
def test_a_transform_may_give_an_image_or_a_tensor_of_any_size(transform):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    how = book_preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    wanted = torch.from_numpy(np.array(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((32, 32), 2)))
    found = user_transform(image, transform, how)
    assert found.shape == (3, 32, 32)
    assert type(found) is torch.Tensor
    scale = 255 if found.is_floating_point() else 1
    assert (found.float() * scale - wanted.permute(2, 0, 1)).abs().max() <= 1.6  # two ways to scale


def test_normalise_takes_numbers_from_0_to_1_and_leaves_them_as_they_are():
    how = book_preprocessing(8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    bytes_ = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    floats = bytes_ / 255
    before = floats.clone()
    torch.testing.assert_close(normalise(floats, how), normalise(bytes_, how))
    assert torch.equal(floats, before)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (torch.full((3, 8, 8), -2.1), "values from -2.1 to -2.1, not from 0 to 1"),
        (torch.full((3, 8, 8), torch.nan), "values from nan to nan"),
        (torch.zeros(1, 8, 8), r"a Tensor \(1, 8, 8\), not an RGB image"),
        (np.zeros((8, 8, 3)), "a ndarray, not"),
        (None, "a NoneType, not"),
    ],
)
def test_what_is_no_image_is_refused(made, words):
    how = book_preprocessing(8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    with pytest.raises(DataError, match=words):
        user_transform(Image.new("RGB", (8, 8)), lambda _: made, how)
