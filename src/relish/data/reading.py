"""Pictures opened and scaled by threads, while whoever asked computes on those before.

In:   any number of pictures, one after the other, and how the network wants them.
Out:  each one's name with its pixels, or with what is wrong with it, in the order they came.
Not here: batches of a split with its labels (`batches.py`), where processes read, and an unreadable picture ends it.

Pillow decodes without holding Python's lock, so threads are enough. A picture is scaled as soon as it is decoded: what
waits is S × S pixels, however large the pictures are.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from relish.core.cores import cores
from relish.core.errors import PictureError
from relish.core.memory import give_memory_back
from relish.data.image import MAX_PIXELS, PictureSource, open_picture, picture_size
from relish.data.transforms import Preprocessing, as_evaluated

LARGE = MAX_PIXELS // 4
"""Pixels of a picture after which memory is given back to the kernel: beside decoding it, that takes no time."""

Ready = Tensor | str
"""(3, S, S) uint8, or why there is none."""


def read_ahead(
    pictures: Iterable[PictureSource | PictureError], how: Preprocessing, *, ahead: int, threads: int | None = None
) -> Iterator[tuple[str, Ready]]:
    """Names and pixels in the order of `pictures`, which is asked for at most `ahead` more than were handed on.

    Args:
        pictures: a `PictureError` among them is a picture that could not be found. Paths and bytes go to the threads;
            open files and the rest are read as they come, since what they are part of may not bear two readers.
        how: see `as_evaluated`.
        ahead: pictures that may be under way or wait, 1 or more.
        threads: None takes one a processor core, 8 at most.
    """
    gate, waiting = _Gate(MAX_PIXELS), deque[tuple[str, Ready | Future[Ready]]]()
    with ThreadPoolExecutor(threads or min(8, cores()), thread_name_prefix="relish-read") as pool:
        try:
            for number, picture in enumerate(pictures):
                if isinstance(picture, PictureError):
                    waiting.append((picture.name, picture.reason))
                elif isinstance(picture, str | Path):
                    waiting.append((str(picture), pool.submit(_from_path, picture, how, gate)))
                else:
                    in_thread = isinstance(picture, bytes)
                    ready = pool.submit(_ready, picture, how) if in_thread else _ready(picture, how)
                    waiting.append((f"picture {number + 1}", ready))
                if len(waiting) >= ahead:
                    yield _settled(*waiting.popleft())
            while waiting:
                yield _settled(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # whoever stops early does not wait for what lies ahead


def _settled(name: str, item: Ready | Future[Ready]) -> tuple[str, Ready]:
    return name, item.result() if isinstance(item, Future) else item


def _from_path(path: Path | str, how: Preprocessing, gate: "_Gate") -> Ready:
    width, height = picture_size(path) or (0, 0)  # of what has none, `_ready` says why
    pixels = width * height
    with gate.room_for(pixels):
        ready = _ready(path, how)
        if pixels > LARGE:
            give_memory_back()  # what one leaves free, in pieces, is not where the next one finds room
        return ready


def _ready(picture: PictureSource, how: Preprocessing) -> Ready:
    try:
        return as_evaluated(open_picture(picture), how)
    except PictureError as error:
        return error.reason


class _Gate:
    """Lets threads decode at once what together is no more than one picture of the largest size."""

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = threading.Condition()

    @contextmanager
    def room_for(self, pixels: int) -> Iterator[None]:
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
