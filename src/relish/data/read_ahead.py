"""Read images for prediction: in threads, a bounded number of images and of pixels ahead of whoever takes them.

Whatever cannot be read is yielded with the reason in its place, so each image asked about has one answer.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from relish.core.errors import ImageError
from relish.core.runtime import give_memory_back, usable_cores
from relish.data.image import MAX_PIXELS, NO_MEMORY, ImageSource, open_image, size_from_header
from relish.data.transforms import Preprocessing, evaluation_transform

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
