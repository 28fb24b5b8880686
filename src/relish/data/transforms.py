"""From an image to the network's input: one definition for training, evaluation, prediction and export.

An RGB image of any size becomes (3, S, S) uint8; `normalise` converts a batch of them to float32. Pillow scales: its
filters are antialiased, and torchvision applies the same ones to an image. Every random number is a function of (seed,
epoch, image), so that a resumed run, or one spread over processes, crops the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional

from relish.core.errors import DataError, ModelError
from relish.data.depth import ValueRange

Interpolation = Literal["bilinear", "bicubic"]
Framing = Literal["squash", "crop", "letterbox"]

BOOK_RESIZE = 256 / 224
"""Test images are scaled to this times the crop (Dive into Deep Learning, section 14.2: 256 for a crop of 224)."""
CROP_AREA, CROP_RATIO, CROP_TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""Random crops: share of the image's area, width over height, tries (Szegedy et al. 2015, arXiv:1409.4842)."""
LARGEST = 16_384
"""Pixels of a side that images are scaled to, at most: one of them takes 0.8 GB."""
VIEW_AREA = 0.35
"""Crops for a probe keep at least this share of an image: its features are averaged over, not trained through."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image is scaled, cropped and normalised for the network; saved with every model."""

    image_size: int
    """Side of the square the network sees, in pixels."""
    resize: int
    """Length of an image's sides before the centre crop, in pixels; with framing `crop`, of the shorter side."""
    mean: tuple[float, float, float]
    """Per channel, of values from 0 to 1."""
    std: tuple[float, float, float]
    """Per channel, of values from 0 to 1."""
    interpolation: Interpolation = "bilinear"
    """Filter of every scaling; always antialiased."""
    framing: Framing = "squash"
    """How a rectangular image becomes a square: `squash` scales both sides to `resize`, as the book does; `crop` keeps
    their ratio and cuts more off the longer side; `letterbox` keeps the ratio and pads with the mean colour."""
    value_range: ValueRange | None = None
    """What is black and white in images deeper than 8 bits, for `open_image`; None where all that were learned from had
    8 bits."""

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize:
            raise ModelError(f"preprocessing: a crop of {self.image_size} px does not fit into {self.resize} px.")
        if self.resize > LARGEST:
            raise ModelError(f"preprocessing: images of {self.resize} px a side are too large; {LARGEST} px at most.")
        if not all(math.isfinite(n) for n in (*self.mean, *self.std)) or not min(self.std) > 0:
            raise ModelError(f"preprocessing: mean and std must be finite, std above 0, got {self.mean}, {self.std}.")
        if self.framing not in get_args(Framing):
            raise ModelError(f'preprocessing: framing must be squash, crop or letterbox, got "{self.framing}".')

    @property
    def framing_words(self) -> str:
        """The framing in a word or two, for sentences."""
        if self.framing == "squash":
            return "squashed" if self.resize == self.image_size else "squashed and cropped"
        return {"crop": "cropped", "letterbox": "letterboxed"}[self.framing]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without a `value_range` where there is none."""
        values = asdict(self)
        return values if self.value_range else {name: value for name, value in values.items() if name != "value_range"}


def preprocessing_from(header: Mapping[str, str], otherwise: Preprocessing) -> Preprocessing:
    """The preprocessing that a model file carries; `otherwise` for a file that carries none, such as a source model.

    Raises:
        ModelError: the entry `preprocessing` is not a result of `as_dict`.
    """
    if "preprocessing" not in header:
        return otherwise
    try:
        return TypeAdapter(Preprocessing).validate_json(header["preprocessing"])
    except ValidationError as error:
        raise ModelError(f"the model's preprocessing cannot be read ({error.errors()[0]['msg']}).") from None


def book_preprocessing(
    image_size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    value_range: ValueRange | None = None,
) -> Preprocessing:
    """The book's test images at any size: scaled in the ratio 256 to 224, then cropped in the middle."""
    resize = round(image_size * BOOK_RESIZE)
    return Preprocessing(image_size=image_size, resize=resize, mean=mean, std=std, value_range=value_range)


def evaluation_transform(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """An image as input outside training: scaled as `framing` says, then a centre crop.

    Returns:
        (3, S, S) uint8.
    """
    size = preprocessing.image_size
    if preprocessing.framing == "letterbox":
        return _pixels(_letterboxed(image, preprocessing))
    if preprocessing.framing == "crop":
        # Cut first: an image a thousand times as long as wide is never scaled whole.
        side = max(1, round(min(image.size) * size / preprocessing.resize))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return _pixels(image.crop((left, top, left + side, top + side)).resize((size, size), resampling(preprocessing)))
    edge = round((preprocessing.resize - size) / 2)
    scaled = image.resize((preprocessing.resize, preprocessing.resize), resampling(preprocessing))
    return _pixels(scaled.crop((edge, edge, edge + size, edge + size)))


def _letterboxed(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size, longer = preprocessing.image_size, max(image.size)
    width, height = (max(1, round(size * side / longer)) for side in image.size)
    square = Image.new("RGB", (size, size), tuple(round(255 * value) for value in preprocessing.mean))
    scaled = image.resize((width, height), resampling(preprocessing))
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return square


def training_transform(
    image: Image.Image, preprocessing: Preprocessing, rng: np.random.Generator, smallest: float = CROP_AREA[0]
) -> Tensor:
    """An image as input in training: a random crop scaled to S, flipped with probability 0.5.

    Args:
        smallest: share of the image's area that a crop has at least.

    Returns:
        (3, S, S) uint8.
    """
    top, left, height, width, flipped = drawn_crop(image.height, image.width, rng, smallest)
    size = preprocessing.image_size
    cut = image.crop((left, top, left + width, top + height)).resize((size, size), resampling(preprocessing))
    return _pixels(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else cut)


class Crop(NamedTuple):
    """What a training image shows, in pixels of the image, and whether flipped."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool


def drawn_crop(height: int, width: int, rng: np.random.Generator, smallest: float) -> Crop:
    """What is random in `training_transform`, of an image of this height and width."""
    return Crop(*random_crop(height, width, rng, smallest), flipped=bool(rng.random() < 0.5))


def min_side(preprocessing: Preprocessing, smallest: float) -> int:
    """Pixels of an image's shorter side with which no crop of `training_transform` has to be scaled up."""
    return math.ceil(preprocessing.image_size / math.sqrt(smallest * CROP_RATIO[0]))


def random_crop(
    height: int, width: int, rng: np.random.Generator, smallest: float = CROP_AREA[0]
) -> tuple[int, int, int, int]:
    """A crop of random area, shape and place: (top, left, height, width) in pixels, inside the image.

    The distribution is that of torchvision's `RandomResizedCrop`: area uniform, log of the ratio uniform; after ten
    misses the largest centre crop of an allowed ratio.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6.
    """
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(smallest, CROP_AREA[1])
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def view_transform(image: Image.Image, preprocessing: Preprocessing, view: int, rng: np.random.Generator) -> Tensor:
    """A further view of an image, to train a probe on: view 1 is the evaluation view flipped, the others are crops.

    Args:
        view: 1 or above; the plain view, 0, is `evaluation_transform`.

    Returns:
        (3, S, S) uint8.
    """
    if view > 1:
        return training_transform(image, preprocessing, rng, VIEW_AREA)
    return evaluation_transform(image, preprocessing).flip(2)


Transform = Callable[[Image.Image], Any]
"""A user's own: from an RGB image to an RGB image, or to (3, H, W) float from 0 to 1 or uint8."""


def user_transform(image: Image.Image, transform: Transform, preprocessing: Preprocessing) -> Tensor:
    """An image by the user's own transform, scaled to S x S where the result has another size.

    Returns:
        (3, S, S) uint8 where it returns an image or uint8; float32 from 0 to 1 where it returns floating-point numbers.

    Raises:
        DataError: it returns something else, or values outside 0 to 1, as after a normalisation.
    """
    made, size = transform(image), preprocessing.image_size
    if isinstance(made, Image.Image):
        made = made.convert("RGB")
        return _pixels(made if made.size == (size, size) else made.resize((size, size), resampling(preprocessing)))
    if not isinstance(made, Tensor) or made.ndim != 3 or made.shape[0] != 3:
        what = f"{type(made).__name__} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise DataError(
            f"transform gives a {what}, not an RGB image or a (3, H, W) tensor.",
            hint="torchvision's v2.ToImage() and v2.ToDtype(torch.float32, scale=True) make one.",
        )
    made = made.detach().as_subclass(Tensor)
    if made.dtype != torch.uint8:
        made = made.float()
        low, high = float(made.min()), float(made.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise DataError(
                f"transform gives values from {low:.3g} to {high:.3g}, not from 0 to 1.",
                hint="Omit Normalize: relish normalises with the model's own mean and std, which mean= and std= set.",
            )
    if made.shape[1:] == (size, size):
        return made
    scaled = functional.interpolate(made[None].float(), (size, size), mode="bilinear", antialias=True)[0]
    return scaled.round().to(torch.uint8) if made.dtype == torch.uint8 else scaled


_ROUNDING = 1e-3
"""How far outside 0 to 1 arithmetic may leave a value."""


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images of (3, S, S) as one batch (B, 3, S, S), channels last in memory, the fastest layout for convolutions."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(B, 3, S, S) to float32: uint8 scaled to 0 to 1; then less the mean, over the std of each channel."""
    mean, std = (_per_channel(tuple(values), images.device) for values in (preprocessing.mean, preprocessing.std))
    # On a GPU the layout is that of the network's first weights, see `runtime.to_device`; the values are the same.
    layout = torch.contiguous_format if images.device.type == "cuda" else torch.channels_last
    floats = images.to(torch.float32, memory_format=layout, copy=True)
    if images.dtype == torch.uint8:
        floats.div_(255)
    return floats.sub_(mean).div_(std)


@cache
def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(3, 1, 1) float32, made once: a GPU would have to finish its work for each copy to it."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


def denormalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """From normalised input back to (B, 3, S, S) uint8, to show it."""
    mean, std = torch.tensor(preprocessing.mean).view(3, 1, 1), torch.tensor(preprocessing.std).view(3, 1, 1)
    return (images.cpu() * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)


def resampling(preprocessing: Preprocessing) -> Image.Resampling:
    """Pillow's name of the filter."""
    return Image.Resampling.BICUBIC if preprocessing.interpolation == "bicubic" else Image.Resampling.BILINEAR


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
