"""Batches of images for training, evaluation and features.

The order of an epoch is a function of (seed, epoch), and the pixels of an image one of (seed, epoch, turn), so it makes
no difference whether this process reads an image or a worker does.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from relish.core.errors import ImageError, TooLittleMemory
from relish.core.runtime import derive_seed, free_memory, rng_for, seeded
from relish.core.workers import Workers
from relish.data.dataset import Split
from relish.data.depth import ValueRange
from relish.data.image import open_image
from relish.data.transforms import (
    CROP_AREA,
    Crop,
    Preprocessing,
    Transform,
    drawn_crop,
    evaluation_transform,
    min_side,
    stacked,
    training_transform,
    user_transform,
    view_transform,
)

if TYPE_CHECKING:
    from relish.data.kept import KeptImages

T = TypeVar("T")
CPU = torch.device("cpu")


class View(NamedTuple):
    """One way to transform an image where nothing is trained on it."""

    preprocessing: Preprocessing
    view: int = 0
    """0: the evaluation transform; above, see `view_transform`."""


class Batch(NamedTuple):
    """Some images of a split."""

    images: Tensor
    """(B, 3, S, S) uint8; of a user's own transform perhaps float32 from 0 to 1. On a GPU, where they stay there."""
    labels: Tensor
    """(B,) int64."""
    positions: Tensor
    """(B,) int64, into the split."""


class ViewBatch(NamedTuple):
    """Some images of a split, each decoded once, in several views; otherwise as `Batch`."""

    images: tuple[Tensor, ...]
    """(B, 3, S, S) uint8 for each view."""
    labels: Tensor
    positions: Tensor


Batches = Sequence[Sequence[int]]
"""The turns of each batch, see `training_batches`."""


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, smallest: int = 1) -> list[list[int]]:
    """The positions of every batch of one epoch: each image once, the last batch perhaps smaller.

    Args:
        smallest: images of the last batch, at least; fewer join the batch before.
    """
    return _cut(rng_for(seed, "order", epoch).permutation(count).tolist(), batch_size, smallest)


def _cut(order: list[int], batch_size: int, smallest: int) -> list[list[int]]:
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < smallest:
        last = batches.pop()
        batches[-1] += last
    return batches


def balanced_batches(
    labels: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int, smallest: int = 1
) -> list[list[int]]:
    """Batches of an epoch in which every class has the same number of images; the total is the split's size N.

    Images of small classes are repeated. Of large classes each epoch draws other images.

    Args:
        smallest: as in `epoch_batches`.

    Returns:
        Turns rather than positions: `position + N` is an image's second time in the epoch, with a new random crop.
    """
    count, (present, sizes) = len(labels), np.unique(labels, return_counts=True)
    shares = np.full(len(present), count // len(present))
    # What does not divide goes to the first ones of an order that changes from epoch to epoch.
    shares[rng_for(seed, "shares", epoch).permutation(len(present))[: count % len(present)]] += 1
    turns: list[int] = []
    for k, size, share in zip(present.tolist(), sizes.tolist(), shares.tolist(), strict=True):
        order = rng_for(seed, "class order", epoch, k).permutation(np.flatnonzero(labels == k))
        turns += [int(order[i % size]) + count * (i // size) for i in range(share)]
    mixed = np.array(turns)[rng_for(seed, "order", epoch).permutation(count)].tolist()
    return _cut(mixed, batch_size, smallest)


def training_batches(
    split: Split,
    preprocessing: Preprocessing,
    batches: Batches,
    *,
    seed: int,
    epoch: int,
    smallest: float = CROP_AREA[0],
    scaled: bool = False,
    transform: Transform | None = None,
    opened: "OpenedImages | None" = None,
    kept: "KeptImages | None" = None,
    workers: Workers | None = None,
) -> Iterator[Batch]:
    """Augmented images, batch by batch; the same (seed, epoch, turn) gives the same pixels.

    Args:
        batches: of turns: a position in the split, plus N for each earlier time of the image in this epoch.
        smallest: see `training_transform`.
        scaled: decode large JPEG files no larger than crops need, see `open_image`; not with a `transform`.
        transform: of the user's own, instead of `training_transform`; see `user_transform`.
        opened: keeps images for the next epoch; not with a `transform`, which might change them, nor in workers.
        kept: keeps images on the device where there is room, or decodes them there; not with a `transform`.
        workers: None reads in this process, here as below.

    Raises:
        ImageError: an image can no longer be opened.
        DataError: the transform does not return an image.
        TooLittleMemory: for one image.
        WorkerFailed: see `Workers`.
    """
    workers, side = workers or Workers(), min_side(preprocessing, smallest) if scaled and transform is None else None
    if transform is not None:
        pixels: Pixels = partial(_user_pixels, transform, preprocessing, seed, epoch)
    else:
        pixels = partial(training_pixels, preprocessing, smallest, seed, epoch)
    done = 0
    if kept is not None and transform is None:
        shown = Shown(split, preprocessing, batches, seed, epoch, smallest, side, workers)
        for batch in kept.batches(shown):
            yield batch
            done += 1
    if done == len(batches):
        return
    from_opened = opened is not None and transform is None and not workers.count
    opening = opened.open if opened is not None and from_opened else open_image
    opening = partial(opening, min_side=side, value_range=preprocessing.value_range)
    yield from _single_view(_read(partial(read_item, opening, pixels), split, batches[done:], workers))


def evaluation_batches(
    split: Split, preprocessing: Preprocessing, batches: Batches, *, workers: Workers | None = None
) -> Iterator[Batch]:
    """Images by `evaluation_transform`, batch by batch; nothing is random.

    Raises:
        ImageError, TooLittleMemory, WorkerFailed: as `training_batches` does.
    """
    yield from _single_view(view_batches(split, [View(preprocessing)], batches, contents=(), workers=workers))


def view_batches(
    split: Split, views: Sequence[View], batches: Batches, *, contents: Sequence[str], workers: Workers | None = None
) -> Iterator[ViewBatch]:
    """Every image in every view; the random crop of a view depends on the view and the image's content alone.

    Args:
        views: one or more, with the same `value_range`, since an image is opened once for all.
        contents: N hashes; only views above 0 need them.

    Raises:
        ImageError, TooLittleMemory, WorkerFailed: as `training_batches` does.
    """
    opening = partial(open_image, value_range=views[0].preprocessing.value_range)
    pixels_of = partial(read_item, opening, partial(_view_pixels, views))
    return _read(pixels_of, split, batches, workers or Workers(), contents)


class Item(NamedTuple):
    """What is needed to read an image, by whichever process."""

    path: Path
    turn: int
    """See `training_batches`."""
    content: str
    """Its hash; empty where it is not needed."""


Opening = Callable[[Path], Image.Image]
Pixels = Callable[[Image.Image, Item], tuple[Tensor, ...]]
Reading = Callable[[Item], tuple[Tensor, ...]]
"""To (3, S, S) of an opened image, or of one to be opened, in each view."""


def read_item(opening: Opening, pixels: Callable[[Image.Image, Item], T], item: Item) -> T:
    """What is made of one image, in whichever process.

    Raises:
        ImageError: it can no longer be opened.
        TooLittleMemory: for this image.
    """
    try:
        return pixels(opening(item.path), item)
    except (ImageError, MemoryError) as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            raise TooLittleMemory(f"{item.path}: too little memory to open this picture.") from None
        raise


def training_pixels(
    preprocessing: Preprocessing, smallest: float, seed: int, epoch: int, image: Image.Image, item: Item
) -> tuple[Tensor, ...]:
    """(3, S, S) uint8 of an opened image in training."""
    return (training_transform(image, preprocessing, _rng_of(seed, epoch, item.turn), smallest),)


class Shown(NamedTuple):
    """What `training_batches` shows, for whatever else makes these batches; each field as there."""

    split: Split
    preprocessing: Preprocessing
    batches: Batches
    seed: int
    epoch: int
    smallest: float
    min_side: int | None
    """See `open_image`."""
    workers: Workers

    def crop(self, turn: int, height: int, width: int) -> Crop:
        """What is shown of an image of this height and width."""
        return drawn_crop(height, width, _rng_of(self.seed, self.epoch, turn), self.smallest)

    def opening(self) -> Opening:
        """How an image is opened."""
        return partial(open_image, min_side=self.min_side, value_range=self.preprocessing.value_range)

    def batch(self, images: Tensor, turns: Sequence[int], device: torch.device) -> Batch:
        """These images with their labels, on the device."""
        positions = np.array(turns, dtype=np.int64) % len(self.split)
        return Batch(images, moved(self.split.labels[positions], device), torch.from_numpy(positions))


def _rng_of(seed: int, epoch: int, turn: int) -> np.random.Generator:
    return rng_for(seed, "picture", epoch, turn)


def _user_pixels(
    transform: Transform, preprocessing: Preprocessing, seed: int, epoch: int, image: Image.Image, item: Item
) -> tuple[Tensor, ...]:
    with seeded(derive_seed(seed, "transform", epoch, item.turn)):
        return (user_transform(image, transform, preprocessing),)


def _view_pixels(views: Sequence[View], image: Image.Image, item: Item) -> tuple[Tensor, ...]:
    return tuple(
        view_transform(image, preprocessing, view, rng_for(0, f"view/{item.content}", view))
        if view
        else evaluation_transform(image, preprocessing)
        for preprocessing, view in views
    )


def moved(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """On the device; the host does not wait for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _single_view(batches: Iterator[ViewBatch]) -> Iterator[Batch]:
    for batch in batches:
        (images,) = batch.images
        yield Batch(images, batch.labels, batch.positions)


def _read(
    pixels_of: Reading, split: Split, batches: Batches, workers: Workers, contents: Sequence[str] = ()
) -> Iterator[ViewBatch]:
    def item(turn: int) -> Item:
        position = turn % len(split)
        content = contents[position] if contents else ""
        return Item(split.paths[position], turn, content)

    items = (item(turn) for batch in batches for turn in batch)
    read: Iterator[tuple[Tensor, ...]] = map(pixels_of, items)
    if workers.count:
        # Not as tensors, which take ten times as long to pickle.
        found = workers.map(partial(_rows_of, pixels_of), items)
        read = (tuple(torch.from_numpy(one).permute(2, 0, 1) for one in rows) for rows in found)
    for batch in batches:
        positions = np.array(batch, dtype=np.int64) % len(split)
        images = tuple(map(stacked, zip(*islice(read, len(batch)), strict=True)))
        labels = torch.from_numpy(split.labels[positions])
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # a network is there then, not only a device
            images, labels = tuple(one.pin_memory() for one in images), labels.pin_memory()
        yield ViewBatch(images, labels, torch.from_numpy(positions))


Rows = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""(S, S, 3)."""


def _rows_of(pixels_of: Reading, item: Item) -> tuple[Rows, ...]:
    return tuple(np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in pixels_of(item))


# ---- images that are needed several times ----------------------------------------------------------------------------

MEMORY_SHARE = 0.25
"""Decoded images take at most this share of the memory that is free, of the processor or of a GPU."""
_UNKNOWN_SHARE = 2**30
"""Bytes, where the system does not tell how much is free."""


def bytes_allowed(device: torch.device = CPU) -> int:
    """Bytes that decoded images may take now."""
    free: int = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return int(MEMORY_SHARE * free) if free < sys.maxsize else _UNKNOWN_SHARE


class OpenedImages:
    """Training images as they were opened, decoded once for all epochs as long as they fit into `MEMORY_SHARE`."""

    def __init__(self) -> None:
        self._bytes_left = bytes_allowed()
        self._images: dict[tuple[Path, int | None, ValueRange | None], Image.Image] = {}

    def open(self, path: Path, *, min_side: int | None = None, value_range: ValueRange | None = None) -> Image.Image:
        """As `open_image`; the image is shared, so it must not be changed.

        Raises:
            ImageError: the image can no longer be opened.
        """
        key = (path, min_side, value_range)
        image = self._images.get(key)
        if image is None:
            image = self._newly_opened(*key)
            size = 4 * image.width * image.height  # Pillow keeps an RGB pixel in four bytes
            if size <= self._bytes_left:
                self._bytes_left -= size
                self._images[key] = image
        return image

    def _newly_opened(self, path: Path, min_side: int | None, value_range: ValueRange | None) -> Image.Image:
        try:
            return open_image(path, min_side=min_side, value_range=value_range)
        except ImageError as error:
            if not (isinstance(error.__cause__, MemoryError) and self._images):
                raise
        self._images, self._bytes_left = {}, 0  # memory lacks: it is better used than kept
        return open_image(path, min_side=min_side, value_range=value_range)


class DecodedImages:
    """Images by `evaluation_transform`, decoded once for several evaluations.

    They stay on a GPU or in memory where they fit into `MEMORY_SHARE` of it, else in a nameless file, which ends with
    this object or process. Where the disk has no room either, they are decoded again each time.
    """

    def __init__(
        self, paths: Iterable[Path], preprocessing: Preprocessing, folder: Path, device: torch.device = CPU
    ) -> None:
        """
        Args:
            paths: of the N images to keep; others are decoded and not kept.
            folder: of the file, where one is needed.
            device: that evaluates.
        """
        self.preprocessing = preprocessing
        self._row = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        side = preprocessing.image_size
        self._pixels = _room((len(self._row), side, side, 3), folder, device)  # (N, S, S, 3) uint8
        self._known = np.zeros(len(self._row), dtype=np.bool_)

    def batches(
        self, split: Split, preprocessing: Preprocessing, batches: Batches, *, workers: Workers | None = None
    ) -> Iterator[Batch]:
        """As `evaluation_batches`; the preprocessing must be the one of `__init__`."""
        if preprocessing != self.preprocessing:
            raise ValueError("the images were decoded with another preprocessing")
        rows_of = [np.array([self._row.get(split.paths[i], -1) for i in batch]) for batch in batches]
        is_known = [bool((rows >= 0).all() and self._known[rows].all()) for rows in rows_of]
        unknown = [batch for batch, known in zip(batches, is_known, strict=True) if not known]
        fresh = evaluation_batches(split, preprocessing, unknown, workers=workers)
        for batch, rows, known in zip(batches, rows_of, is_known, strict=True):
            if known and self._pixels is not None:
                images = self._pixels[torch.from_numpy(rows)].permute(0, 3, 1, 2)
                yield Batch(images, torch.from_numpy(split.labels[list(batch)]), torch.tensor(batch))
            else:
                decoded = next(fresh)
                self._keep(rows, decoded.images)
                yield decoded

    def _keep(self, rows: npt.NDArray[np.int64], images: Tensor) -> None:
        if self._pixels is not None:
            kept = rows >= 0
            images = images.permute(0, 2, 3, 1)[torch.from_numpy(kept)]
            self._pixels[torch.from_numpy(rows[kept])] = images.to(self._pixels.device)
            self._known[rows[kept]] = True


def _room(shape: tuple[int, ...], folder: Path, device: torch.device) -> Tensor | None:
    """Room for uint8 on a GPU, in memory or in a file; None where there is none."""
    size = math.prod(shape)
    with suppress(torch.OutOfMemoryError):
        if device.type == "cuda" and size <= bytes_allowed(device):
            return torch.empty(shape, dtype=torch.uint8, device=device)
    with suppress(MemoryError):
        if size <= bytes_allowed():
            return torch.from_numpy(np.empty(shape, dtype=np.uint8))
    try:
        with TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would kill the process
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=shape))
    except (OSError, AttributeError):  # no room; no such call on this system
        return None
