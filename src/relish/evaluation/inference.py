"""Logits of a network for every image of a split, for batches that fit in memory, and images read ahead for it.

The batches are cut before they are dealt out to processes, so that an image is computed beside the same others however
many processes there are. Results are put in place by position, so the padding of one process's part is never counted.
For prediction threads read ahead, a bounded number of images and of pixels; whatever cannot be read is yielded with the
reason in its place, so each image asked about has one answer.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from relish.core.context import Context
from relish.core.errors import ImageError, TooLittleMemory
from relish.core.runtime import (
    free_memory,
    give_memory_back,
    in_smaller_parts,
    is_out_of_memory,
    to_device,
    usable_cores,
)
from relish.data.dataset import Split
from relish.data.image import MAX_PIXELS, NO_MEMORY, ImageSource, open_image, size_from_header
from relish.data.loader import DecodedImages, evaluation_batches
from relish.data.transforms import Preprocessing, evaluation_transform, normalise
from relish.evaluation.onnx_network import faster
from relish.models.precision import Precision, computing_in

BATCH_SIZE = 64
"""Images in a batch of evaluation and prediction, at most."""
BATCH_BYTES = 64 * 2**20
"""Of their pixels, at most, short of one image."""
MEMORY_FRACTION = 0.5
"""Of the free memory, at most for one batch: other programs need some, and the measurement is not exact."""
PEAK_RATIO = 3.0
"""On a processor, the peak memory of a forward pass is at most so many times the largest module's input and output.
Measured by `benchmarks/predict_scale.py --batch`."""

Logits = npt.NDArray[np.float32]
Forward = Callable[[Tensor], Logits]
"""One pass through a network: (B, 3, S, S) images to (B, K) logits."""


def images_at_once(*sides: int) -> int:
    """Images in a batch, 1 to `BATCH_SIZE`, where each is there in squares of these sides, in pixels."""
    return max(1, min(BATCH_SIZE, BATCH_BYTES // sum(3 * side**2 for side in sides)))


def split_logits(
    network: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    context: Context,
    *,
    title: str = "evaluating",
    heads: Sequence[str] = (),
    decoded: DecodedImages | None = None,
) -> Logits:
    """Logits for every image of a split.

    Args:
        network: takes (B, 3, S, S) float32, gives (B, K) logits; left in eval mode, on the context's device.
        heads: the names of its output layers; where there is one, ONNX Runtime is used if it is faster.
        decoded: holds images that were decoded for an earlier evaluation with the same preprocessing.

    Returns:
        (N, K) float32, at temperature 1, in the order of the split; the same in every process.

    Raises:
        ImageError: an image can no longer be opened.
        TooLittleMemory: for one image.
        WorkerFailed: see `Workers`.
    """
    network.eval()
    to_device(network, context.device)
    if len(heads) == 1:
        network = faster(network, heads[0], preprocessing.image_size, len(split), context) or network
    size = images_at_once(preprocessing.image_size)
    batches = [list(range(i, min(i + size, len(split)))) for i in range(0, len(split), size)]
    mine = batches[context.process :: context.processes]
    read = decoded.batches if decoded else evaluation_batches
    computed: list[tuple[npt.NDArray[np.int64], Logits]] = []

    def forward(images: Tensor) -> Logits:
        return batch_logits(network, images, preprocessing)

    with torch.inference_mode(), context.progress.bar(title, len(split)) as bar:
        for batch in read(split, preprocessing, mine, workers=context.workers):
            rows, size = forward_in_parts(batch.images.to(context.device), forward, size)
            computed.append((batch.positions.numpy(), rows))
            bar.advance(len(batch.labels) * context.processes)
    if context.processes > 1:
        computed = gather_object(computed)
    if not computed:
        return np.zeros((0, 0), dtype=np.float32)
    logits = np.full((len(split), computed[0][1].shape[1]), np.nan, dtype=np.float32)
    for positions, rows in computed:
        logits[positions] = rows
    return logits


def batch_logits(
    network: nn.Module, images: Tensor, preprocessing: Preprocessing, precision: Precision = "f32"
) -> Logits:
    """(B, 3, S, S) uint8 images to (B, K) float32 logits, by one pass through the network."""
    with torch.inference_mode(), computing_in(precision, images.device):
        logits: Tensor = network(normalise(images, preprocessing))
        return logits.float().cpu().numpy()


def batch_that_fits(network: nn.Module, images: Tensor, forward: Forward) -> int:
    """The largest batch size, 1 to `BATCH_SIZE`, that free memory has room for; one image is measured.

    Args:
        network: on the device of `images`.
        images: (B, 3, S, S), B 1 or more, of the size that it will be used on.
        forward: one pass through the network.
    """
    try:
        if images.device.type == "cuda":
            needed, free = _peak_on_cuda(images, forward), torch.cuda.mem_get_info(images.device)[0]
        else:
            needed, free = round(PEAK_RATIO * largest_activation(network, images[:1], forward)), free_memory()
    except Exception as error:
        if is_out_of_memory(error):
            return 1
        raise
    return max(1, min(BATCH_SIZE, int(MEMORY_FRACTION * free) // max(needed, 1)))


def forward_in_parts(images: Tensor, forward: Forward, size: int) -> tuple[Logits, int]:
    """(B, K) logits of (B, 3, S, S) images, at most `size` at once, and the size that there was memory for.

    Raises:
        TooLittleMemory: for one image.
    """
    rows: list[Logits] = []
    done = 0

    def some(size: int) -> Logits:
        return forward(images[done : done + size])

    while done < len(images):
        try:
            found, size = in_smaller_parts(some, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            hint = "Free some memory, then again." if images.device.type == "cpu" else "Try --device cpu."
            raise TooLittleMemory(f"{images.device}: too little memory for one picture.", hint=hint) from None
        rows.append(found)
        done += len(found)
    return np.concatenate(rows), size


def largest_activation(network: nn.Module, image: Tensor, forward: Forward) -> int:
    """Bytes of input and output together of the module where they are largest, in one pass over (1, 3, S, S)."""
    largest = 0

    def measure(_: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max(largest, _bytes(inputs) + _bytes(output))

    handles = [module.register_forward_hook(measure) for module in network.modules()]
    try:
        forward(image)
    finally:
        for handle in handles:
            handle.remove()
    return largest


def _peak_on_cuda(images: Tensor, forward: Forward) -> int:
    forward(images[:1])  # a first time, for libraries that are loaded once
    before = torch.cuda.memory_allocated(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    forward(images[:1])
    return int(torch.cuda.max_memory_allocated(images.device)) - before


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.element_size() * value.numel()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


# ---- images read ahead for prediction -------------------------------------------------------------------------------


LARGE = MAX_PIXELS // 4
"""Pixels of an image after which freed memory is returned to the kernel: next to decoding it, that takes no time."""

Ready = Tensor | str
"""(3, S, S) uint8, or why there is none."""


def read_ahead(
    images: Iterable[ImageSource | ImageError], preprocessing: Preprocessing, *, ahead: int, threads: int | None = None
) -> Iterator[tuple[str, Ready]]:
    """Names and pixels in the order of `images`; at most `ahead` images are read before they are yielded.

    Args:
        images: an `ImageError` among them is an image that could not be found. Threads read paths and bytes; open
            files and the rest are read by the caller's thread, since they may share a source that allows one reader.
        preprocessing: see `evaluation_transform`.
        ahead: images in work or ready, 1 or more.
        threads: None takes one a processor core, 8 at most.
    """
    limit, waiting = _PixelLimit(MAX_PIXELS), deque[tuple[str, Ready | Future[Ready]]]()
    with ThreadPoolExecutor(threads or min(8, usable_cores()), thread_name_prefix="relish-read") as pool:
        try:
            for number, image in enumerate(images):
                if isinstance(image, ImageError):
                    waiting.append((image.name, image.reason))
                elif isinstance(image, str | Path):
                    waiting.append((str(image), pool.submit(_from_path, image, preprocessing, limit)))
                else:
                    in_thread = isinstance(image, bytes)
                    ready = pool.submit(_ready, image, preprocessing) if in_thread else _ready(image, preprocessing)
                    waiting.append((f"picture {number + 1}", ready))
                if len(waiting) >= ahead:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # a caller that stops early does not wait for the rest


def _result(name: str, item: Ready | Future[Ready]) -> tuple[str, Ready]:
    return name, item.result() if isinstance(item, Future) else item


def _from_path(path: Path | str, preprocessing: Preprocessing, limit: "_PixelLimit") -> Ready:
    width, height = size_from_header(path) or (0, 0)  # without a size, `_ready` gives the reason
    pixels = width * height
    with limit.reserve(pixels):
        ready = _ready(path, preprocessing)
        if pixels > LARGE:
            give_memory_back()  # the freed pieces are too small for the next large image
    if isinstance(ready, str) and ready == NO_MEMORY:
        with limit.reserve(MAX_PIXELS):  # alone
            return _ready(path, preprocessing)
    return ready


def _ready(image: ImageSource, preprocessing: Preprocessing) -> Ready:
    try:
        return evaluation_transform(open_image(image, value_range=preprocessing.value_range), preprocessing)
    except ImageError as error:
        return error.reason
    except MemoryError:
        return NO_MEMORY


class _PixelLimit:
    """Limits the pixels that threads decode at a time to one image of the largest size."""

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        wanted = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()
