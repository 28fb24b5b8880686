"""Training images that stay on a GPU: decoded once, then cropped, scaled and flipped there, a batch at a time.

What stays of an image is a square, both of its sides scaled to K pixels. Every crop becomes a square anyway, so a crop
whose sides are scaled along shows the same region as before; only the sharpness of small ones differs. Where an image
is cut, and whether it is flipped, is a function of (seed, epoch, turn), the same as for an image that is read.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from relish.core.progress import SILENT, Progress
from relish.core.runtime import is_out_of_memory
from relish.data.gpu_decoding import GpuDecoding
from relish.data.loader import Batch, Item, Shown, bytes_allowed, moved, read_item
from relish.data.transforms import CROP_AREA, Crop, Interpolation, Preprocessing, resampling

Numbers = npt.NDArray[np.int64]


class Square(NamedTuple):
    """What stays of an image."""

    pixels: npt.NDArray[np.uint8]
    """(K, K, 3)."""
    height: int
    """Of the image as it was opened, in pixels."""
    width: int


def kept_on(device: torch.device, paths: Iterable[Path], progress: Progress = SILENT) -> "KeptImages | None":
    """Room for these images, where they train on a GPU; a processor has `OpenedImages`."""
    if device.type != "cuda":
        return None
    return KeptImages(paths, device, progress, GpuDecoding(device, progress))


def kept_side(preprocessing: Preprocessing, smallest: float) -> int:
    """K: a crop of mean area is not scaled up, and what training shows is no smaller than what evaluation does."""
    mean_area = (smallest + CROP_AREA[1]) / 2
    return max(preprocessing.resize, math.ceil(preprocessing.image_size / math.sqrt(mean_area)))


class KeptImages:
    """Training images on the device, each from when it is first trained on; one set for all trainings of a run.

    They stay where all of them fit into `MEMORY_SHARE` of the device's free memory. Every process keeps all images,
    since it takes another part of them in each epoch.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        device: torch.device,
        progress: Progress = SILENT,
        decoding: GpuDecoding | None = None,
    ) -> None:
        """
        Args:
            paths: of the N images that a run trains on.
            progress: told how many stay, once they do.
            decoding: of images for which there is no room.
        """
        self._row = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        self._device, self._progress = device, progress
        self._squares: Tensor | None = None
        self._sizes = np.zeros((len(self._row), 2), dtype=np.int64)
        """(N, 2) height and width of each, 0 as long as it is not here."""
        self._decoding = decoding
        self._kind: tuple[object, ...] = ()
        """K, and what else the pixels depend on."""

    def batches(self, shown: Shown) -> Iterator[Batch]:
        """As `training_batches`, on the device; they end where they have to be read.

        Raises:
            ImageError, TooLittleMemory, WorkerFailed: as `training_batches` does.
        """
        rows, how = np.array([self._row.get(path, -1) for path in shown.split.paths]), shown.preprocessing
        side, filtering = kept_side(how, shown.smallest), resampling(how)
        if (rows < 0).any() or self._squares_of(side, filtering, how.value_range, shown.min_side) is None:
            if self._decoding is not None:
                yield from self._decoding.batches(shown)
            return
        read = self._read(shown, rows, partial(read_item, shown.opening(), partial(_squashed, side, filtering)))
        for batch in shown.batches:
            if self._squares is None:  # released
                return
            there = rows[np.array(batch, dtype=np.int64) % len(rows)]
            try:
                self._keep(self._squares, there, read)
                sizes = self._sizes[there].tolist()
                crops = [shown.crop(turn, *size) for turn, size in zip(batch, sizes, strict=True)]
                images = self._shown(self._squares, there, crops, how)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.release()
                return
            yield shown.batch(images, batch, self._device)

    def release(self) -> bool:
        """Free the memory for what needs it more; images are read from here on. Returns whether there was any."""
        if self._squares is None:
            return False
        self._squares = None  # for as long as images of this kind are asked for
        self._progress.warn(f"{self._device}: memory is short, so pictures are read again in each epoch.")
        return True

    def _squares_of(self, side: int, *others: object) -> Tensor | None:
        """(N, K, K, 3) uint8 on the device; None where there is too little memory.

        Args:
            side: K.
            others: what else the pixels depend on.
        """
        if self._kind != (side, *others):
            self._kind, self._squares = (side, *others), None
            self._sizes[:] = 0
            shape = (len(self._row), side, side, 3)
            try:
                if math.prod(shape) <= bytes_allowed(self._device):
                    self._squares = torch.empty(shape, dtype=torch.uint8, device=self._device)
                    size = f"{math.prod(shape) / 1e6:,.0f} MB"
                    self._progress.say(f"kept    {len(self._row):,} pictures stay on the GPU ({size})")
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        return self._squares

    def _read(self, shown: Shown, rows: Numbers, reading: Callable[[Item], Square]) -> Iterator[tuple[int, Square]]:
        """The row and the square of each image that is not here yet, in the order in which batches need them."""
        positions = dict.fromkeys(turn % len(rows) for batch in shown.batches for turn in batch)
        missing = {int(rows[p]): shown.split.paths[p] for p in positions if not self._is_here(rows[p])}
        items = (Item(path, 0, "") for path in missing.values())
        return zip(missing, shown.workers.map(reading, items), strict=True)

    def _is_here(self, row: int) -> bool:
        return bool(self._sizes[row, 0])

    def _keep(self, squares: Tensor, rows: Numbers, read: Iterator[tuple[int, Square]]) -> None:
        """Bring those images of a batch here that are not."""
        missing = {row for row in rows.tolist() if not self._is_here(row)}
        found: dict[int, Square] = {}
        while missing - found.keys():
            row, square = next(read)
            found[row] = square
        if found:
            new, pixels = np.array(list(found)), np.stack([square.pixels for square in found.values()])
            squares.index_copy_(0, moved(new, self._device), moved(pixels, self._device))
            self._sizes[new] = [(square.height, square.width) for square in found.values()]

    def _shown(self, squares: Tensor, rows: Numbers, crops: Sequence[Crop], preprocessing: Preprocessing) -> Tensor:
        """(B, 3, S, S) uint8: a crop of each of these images."""
        boxes, flipped = _boxes(crops, self._sizes[rows], len(squares[0])), np.array([one.flipped for one in crops])
        where, boxed, turned = (moved(array, self._device) for array in (rows, boxes, flipped))
        images = squares.index_select(0, where)
        return crop_and_resize(images, boxed, turned, preprocessing.image_size, preprocessing.interpolation)


def _squashed(side: int, resample: Image.Resampling, image: Image.Image, _: Item) -> Square:
    return Square(np.array(image.resize((side, side), resample)), image.height, image.width)


def _boxes(crops: Sequence[Crop], sizes: Numbers, side: int) -> npt.NDArray[np.float32]:
    """(B, 4) left, top, right and bottom of what crops of images show, in squares that the images were scaled to.

    Args:
        sizes: (B, 2) height and width of the images.
    """
    boxes = np.array([(crop.left, crop.top, crop.left + crop.width, crop.top + crop.height) for crop in crops])
    return (boxes * (side / sizes[:, [1, 0, 1, 0]])).astype(np.float32)


# ---- cutting and scaling a batch -------------------------------------------------------------------------------------


def crop_and_resize(
    images: Tensor, boxes: Tensor, flipped: Tensor, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """A box of each image, scaled to S x S with antialiasing, as Pillow scales what it has cut: two matrix products.

    Args:
        images: (B, H, W, 3) uint8.
        boxes: (B, 4) float32 left, top, right and bottom in pixels; a pixel that is only touched counts as if it was
            wholly inside, as in `image.crop(rounded outwards).resize(..., box=)`.
        flipped: (B,) bool, left to right.
        size: S.

    Returns:
        (B, 3, S, S) uint8, channels last in memory; each value at most 1 from Pillow's, which rounds after the first
        side too. (Bicubic more, where it cuts off what lies outside 0 to 255 there.)

    Source: Pillow, `src/libImaging/Resample.c`.
    """
    left, top, right, bottom = boxes.unbind(1)
    columns = _weights(left, right, images.shape[2], size, interpolation)  # (B, S, W)
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    rows = _weights(top, bottom, images.shape[1], size, interpolation)  # (B, S, H)
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    across = torch.einsum("bchw,btw->bcht", planes, columns)
    scaled = torch.einsum("bsh,bcht->bstc", rows, across)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).contiguous().permute(0, 3, 1, 2)


def _weights(low: Tensor, high: Tensor, pixels: int, size: int, interpolation: Interpolation) -> Tensor:
    """What each pixel of a line counts for where a piece of it is scaled.

    Args:
        low, high: (B,) the ends of the piece.
        pixels: P, of the line.
        size: S, pixels of the scaled piece.

    Returns:
        (B, S, P) float32; the weights of a scaled pixel sum to 1.
    """
    low, high = low[:, None, None], high[:, None, None]  # (B, 1, 1)
    scale = (high - low) / size
    middles = torch.arange(size, device=low.device)[:, None] + 0.5  # (S, 1)
    places = torch.arange(pixels, device=low.device) + 0.5  # (P,)
    shares = _filter((places - low - middles * scale) / scale.clamp(min=1), interpolation)
    shares = shares * ((places + 0.5 > low) & (places - 0.5 < high))
    return shares / shares.sum(2, keepdim=True)


def _filter(distance: Tensor, interpolation: Interpolation) -> Tensor:
    """Pillow's filters: a triangle, or the cubic of Keys 1981 (IEEE TASSP 29(6)) with a = -0.5."""
    x = distance.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp_(min=0)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
