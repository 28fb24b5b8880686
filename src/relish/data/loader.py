"""Batches of pictures, from our own list of positions.

In:   a `Split`, a `Preprocessing`, and which share of the work is this process's.
Out:  `Batch`es: pixels, labels, and the position of each picture in its split.
Not here: the arithmetic on them (`training/loop.py`, `evaluation/predictions.py`).

The order of an epoch is a function of (seed, epoch). PyTorch's `DataLoader` reads the pictures, but which ones, and in
what order, is decided here: a sampler that evens out the last batch would show some pictures twice and count them so.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relish.core import seeds
from relish.core.errors import PictureError
from relish.data.dataset import Split
from relish.data.image import open_picture
from relish.data.transforms import CROP_AREA, Preprocessing, as_evaluated, as_trained, as_viewed, least_side, stacked


class Look(NamedTuple):
    """A way of looking at a picture without learning from it."""

    how: Preprocessing
    view: int = 0
    """0: as the picture is evaluated; above, see `as_viewed`."""


class Batch(NamedTuple):
    """Some pictures of a split."""

    images: Tensor
    """(B, 3, S, S) uint8."""
    labels: Tensor
    """(B,) int64."""
    positions: Tensor
    """(B,) int64, into the split."""


class Looks(NamedTuple):
    """Some pictures of a split, each opened once and looked at in several ways."""

    images: tuple[Tensor, ...]
    """(B, 3, S, S) uint8 for each way."""
    labels: Tensor
    """(B,) int64."""
    positions: Tensor
    """(B,) int64, into the split."""


def evenly(total: int, count: int) -> list[int]:
    """The positions of so many pictures at most, spread over a split, which is sorted by class."""
    count = min(count, total)
    return [number * total // count for number in range(count)]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The positions of every batch of one epoch: each picture once, the last batch perhaps smaller."""
    order = seeds.generator(seed, "order", epoch).permutation(count).tolist()
    return [order[i : i + batch_size] for i in range(0, count, batch_size)]


def balanced_batches(labels: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of an epoch in which every class comes equally often: pictures of small classes several times, of large
    ones some, others in the next epoch. As many pictures in all as there are.

    Returns:
        Turns rather than positions: `position + N` is the second time that a picture comes, which is cropped anew.
    """
    count, (present, sizes) = len(labels), np.unique(labels, return_counts=True)
    shares = np.full(len(present), count // len(present))
    # What does not divide goes to the first ones of an order that changes from epoch to epoch.
    shares[seeds.generator(seed, "shares", epoch).permutation(len(present))[: count % len(present)]] += 1
    turns: list[int] = []
    for k, size, share in zip(present.tolist(), sizes.tolist(), shares.tolist(), strict=True):
        order = seeds.generator(seed, "class order", epoch, k).permutation(np.flatnonzero(labels == k))
        turns += [int(order[i % size]) + count * (i // size) for i in range(share)]
    mixed = np.array(turns)[seeds.generator(seed, "order", epoch).permutation(count)].tolist()
    return [mixed[i : i + batch_size] for i in range(0, count, batch_size)]


def training_batches(
    split: Split,
    how: Preprocessing,
    batches: Sequence[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    smallest: float = CROP_AREA[0],
    scaled: bool = False,
    workers: int = 0,
) -> Iterator[Batch]:
    """Augmented pictures, batch by batch; the same (seed, epoch, turn) gives the same pixels.

    Args:
        batches: of turns: a position in the split, plus N for each time that the picture has come before in this epoch.
        smallest: see `as_trained`.
        scaled: decode large JPEG files no larger than crops need, see `open_picture`.

    Raises:
        PictureError: a picture cannot be opened any more.
    """
    yield from _alone(_read(_Augmented(split, how, seed, epoch, smallest, scaled), batches, workers))


def evaluation_batches(
    split: Split, how: Preprocessing, batches: Sequence[Sequence[int]], *, workers: int = 0
) -> Iterator[Batch]:
    """Pictures as they are judged: no chance in them.

    Raises:
        PictureError: a picture cannot be opened any more.
    """
    yield from _alone(_read(_Looked(split, [Look(how)], ()), batches, workers))


def look_batches(
    split: Split,
    looks: Sequence[Look],
    batches: Sequence[Sequence[int]],
    *,
    contents: Sequence[str],
    workers: int = 0,
) -> Iterator[Looks]:
    """Every picture in every way; what is drawn for a view depends on the view and the picture's content alone.

    Raises:
        PictureError: a picture cannot be opened any more.
    """
    return _read(_Looked(split, looks, contents), batches, workers)


class _Unreadable(NamedTuple):
    """A picture that cannot be opened any more, told as words: an error itself does not come whole from a worker."""

    name: str
    reason: str


class _Pictures(Dataset["tuple[tuple[Tensor, ...], int, int] | _Unreadable"]):
    """What a `DataLoader` asks for: one picture by its turn, see `training_batches`."""

    def __init__(self, split: Split, least: int | None = None) -> None:
        self.split, self.least = split, least

    def __getitem__(self, turn: int) -> "tuple[tuple[Tensor, ...], int, int] | _Unreadable":
        position = turn % len(self.split)
        try:
            picture = open_picture(self.split.paths[position], least=self.least)
        except PictureError as error:
            return _Unreadable(error.name, error.reason)
        return self.pixels(picture, turn), int(self.split.labels[position]), position

    def pixels(self, picture: Image.Image, turn: int) -> tuple[Tensor, ...]:
        """(3, S, S) uint8 each."""
        raise NotImplementedError


class _Augmented(_Pictures):
    """A crop of each picture, drawn anew in every epoch."""

    def __init__(self, split: Split, how: Preprocessing, seed: int, epoch: int, smallest: float, scaled: bool) -> None:
        super().__init__(split, least_side(how, smallest) if scaled else None)
        self.how, self.seed, self.epoch, self.smallest = how, seed, epoch, smallest

    def pixels(self, picture: Image.Image, turn: int) -> tuple[Tensor, ...]:
        """(3, S, S) uint8."""
        chance = seeds.generator(self.seed, "picture", self.epoch, turn)
        return (as_trained(picture, self.how, chance, self.smallest),)


class _Looked(_Pictures):
    """Several looks at each picture."""

    def __init__(self, split: Split, looks: Sequence[Look], contents: Sequence[str]) -> None:
        super().__init__(split)
        self.looks, self.contents = looks, contents

    def pixels(self, picture: Image.Image, turn: int) -> tuple[Tensor, ...]:
        """(3, S, S) uint8 each."""
        return tuple(self._seen(picture, turn, *look) for look in self.looks)

    def _seen(self, picture: Image.Image, turn: int, how: Preprocessing, view: int) -> Tensor:
        if view == 0:  # nothing is drawn, so neither generator nor content is needed
            return as_evaluated(picture, how)
        return as_viewed(picture, how, view, seeds.generator(0, f"view/{self.contents[turn]}", view))


def _alone(batches: Iterator[Looks]) -> Iterator[Batch]:
    for batch in batches:
        (images,) = batch.images
        yield Batch(images, batch.labels, batch.positions)


def _read(pictures: _Pictures, batches: Sequence[Sequence[int]], workers: int) -> Iterator[Looks]:
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists of positions will do
        num_workers=min(workers, len(batches)),
        collate_fn=_stack,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, _Unreadable):
            raise PictureError(batch.name, batch.reason)
        yield batch


def _stack(items: "list[tuple[tuple[Tensor, ...], int, int] | _Unreadable]") -> Looks | _Unreadable:
    for item in items:
        if isinstance(item, _Unreadable):
            return item
    seen, labels, positions = zip(*items, strict=True)
    images = tuple(stacked(look) for look in zip(*seen, strict=True))
    return Looks(images, torch.from_numpy(np.array(labels)), torch.from_numpy(np.array(positions)))
