"""JPEG files decoded on a GPU, in training alone: what is evaluated, predicted, exported or served Pillow decodes.

Readers send files as they are, and nvJPEG decodes a batch of them at once, on a stream of its own beside the step that
is computed. Where an image is cut, and whether it is flipped, is a function of (seed, epoch, turn), as where it is
read. Pillow reads what is no plain JPEG file, and what nvJPEG cannot decode: such images are counted and named.

Source: torchcodec 0.17, `decoders.decode_jpeg`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from relish.core.progress import Progress
from relish.core.runtime import in_smaller_parts, is_out_of_memory
from relish.data.image import jpeg_sizes
from relish.data.loader import Batch, Item, Shown, moved, read_item, training_pixels
from relish.data.transforms import Crop, Preprocessing

Decode = Callable[[list[bytes]], list[Tensor]]
"""From JPEG files to (3, H, W) uint8 on the device, upright; a RuntimeError where one of them cannot be decoded."""
Reading = Callable[[Item], tuple[Tensor, ...]]


class Sent(NamedTuple):
    """What a reader sends of an image."""

    item: Item
    file: bytes = b""
    """A JPEG file."""
    opened: tuple[int, int] = (0, 0)
    """Its height and width as it would have been opened, and wholly decoded."""
    whole: tuple[int, int] = (0, 0)
    pixels: npt.NDArray[np.uint8] | None = None
    """(S, S, 3) by Pillow, where there is no file."""


def nvjpeg(device: torch.device) -> Decode | None:
    """None where torchcodec (extra `gpu`) is not installed, or not for this PyTorch."""
    with suppress(ImportError, OSError, RuntimeError, AttributeError):
        from torchcodec.decoders import decode_jpeg  # late: only this needs it

        return partial(decode_jpeg, mode="RGB", device=device)
    return None


class GpuDecoding:
    """Batches of training images that the device decodes."""

    def __init__(
        self, device: torch.device, progress: Progress, find: Callable[[torch.device], Decode | None] = nvjpeg
    ) -> None:
        """
        Args:
            find: how the device decodes, asked once there is something to decode.
        """
        self._device, self._progress, self._find = device, progress, find
        self._decode: Decode | None = None
        self._sought = self._works = False
        self._by_pillow: dict[Path, None] = {}
        self._stream: torch.cuda.Stream | None = None

    def batches(self, shown: Shown) -> Iterator[Batch]:
        """As `training_batches`, on the device; they end where it cannot decode.

        Raises:
            ImageError, TooLittleMemory, WorkerFailed: as `training_batches` does.
        """
        if not self._can_decode():
            return
        split, how = shown.split, shown.preprocessing
        pixels = partial(training_pixels, how, shown.smallest, shown.seed, shown.epoch)
        pillow = partial(read_item, shown.opening(), pixels)
        items = (Item(split.paths[turn % len(split)], turn, "") for batch in shown.batches for turn in batch)
        read, known = shown.workers.map(partial(_sent, pillow, shown.min_side), items), len(self._by_pillow)
        for batch in shown.batches:
            sent = list(islice(read, len(batch)))
            crops = [shown.crop(one.item.turn, *one.opened) if one.file else None for one in sent]
            images = self._images(sent, crops, how, pillow)
            if images is None:
                return
            yield shown.batch(images, batch, self._device)
        if len(self._by_pillow) > known:
            self._progress.say(f"decoded {len(self._by_pillow):,} by Pillow, such as {next(iter(self._by_pillow))}")

    def _can_decode(self) -> bool:
        if not self._sought:
            self._sought, self._decode = True, self._find(self._device)
            if self._decode is not None:
                if self._device.type == "cuda":
                    self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                self._progress.say("decoded training pictures by nvJPEG on the GPU, all others by Pillow")
        return self._decode is not None

    def _images(
        self, sent: list[Sent], crops: Sequence[Crop | None], preprocessing: Preprocessing, pillow: Reading
    ) -> Tensor | None:
        """(B, 3, S, S) uint8; None where the device cannot decode them, nor any others."""

        def in_parts(size: int) -> Tensor:
            parts = (slice(start, start + size) for start in range(0, len(sent), size))
            images = torch.cat([self._some(sent[part], crops[part], preprocessing, pillow) for part in parts])
            return images.contiguous(memory_format=torch.channels_last)

        try:
            with self._beside():
                images, _ = in_smaller_parts(in_parts, len(sent))
        except Exception as error:
            if not (isinstance(error, _NothingDecoded) or is_out_of_memory(error)):
                raise
            self._decode = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._progress.warn(f"{self._device}: Pillow decodes training pictures from here on ({reason}).")
            return None
        if self._stream is not None:
            images.record_stream(torch.cuda.current_stream(self._device))
        return images

    def _some(
        self, sent: list[Sent], crops: Sequence[Crop | None], preprocessing: Preprocessing, pillow: Reading
    ) -> Tensor:
        files = [one.file for one in sent if one.file]
        decoded = self._decoded(files)
        self._works |= any(image is not None for image in decoded)
        if len(files) > 1 and not self._works:
            raise _NothingDecoded("nvJPEG decodes none")
        rest = iter(decoded)
        shown: list[Tensor] = []
        for one, crop in zip(sent, crops, strict=True):
            image = next(rest) if one.file else None
            if image is not None and crop is not None and tuple(image.shape[1:]) == one.whole:
                shown.append(_cut(image, one.opened, crop, preprocessing))
            else:
                self._by_pillow[one.item.path] = None
                pixels = one.pixels if one.pixels is not None else _array(pillow(one.item))
                shown.append(moved(pixels, self._device).permute(2, 0, 1)[None].float())
        return torch.cat(shown).round_().clamp_(0, 255).to(torch.uint8)

    def _decoded(self, files: list[bytes]) -> list[Tensor | None]:
        """None for each that cannot be decoded: a batch with one is decoded one by one."""
        if not files or self._decode is None:
            return []
        try:
            return [*self._decode(files)]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
        return [None] if len(files) == 1 else [image for file in files for image in self._decoded([file])]

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Within it, the device works on a stream of its own; what comes behind waits for it there."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _NothingDecoded(Exception):
    """Not one file of several, the first ones."""


def _sent(pillow: Reading, min_side: int | None, item: Item) -> Sent:
    content = b""
    with suppress(OSError):  # Pillow says why
        content = item.path.read_bytes()
    sizes = jpeg_sizes(content, min_side)
    return Sent(item, content, *sizes) if sizes else Sent(item, pixels=_array(pillow(item)))


def _array(pixels: tuple[Tensor, ...]) -> npt.NDArray[np.uint8]:
    (image,) = pixels
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _cut(image: Tensor, opened: tuple[int, int], crop: Crop, preprocessing: Preprocessing) -> Tensor:
    """(1, 3, S, S) float32: what a crop of an opened image shows, from the image wholly decoded."""
    height, width = (whole / small for whole, small in zip(image.shape[1:], opened, strict=True))
    top, bottom = (round(height * y) for y in (crop.top, crop.top + crop.height))
    left, right = (round(width * x) for x in (crop.left, crop.left + crop.width))
    piece = image[None, :, top:bottom, left:right].float()
    size = (preprocessing.image_size, preprocessing.image_size)
    scaled = functional.interpolate(piece, size, mode=preprocessing.interpolation, antialias=True)
    return scaled.flip(3) if crop.flipped else scaled
