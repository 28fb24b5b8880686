"""From uploads to predictions: decode in threads, wait for memory, and run the model on batches of many requests.

An image's size is read from its header: one beyond the limits is refused before any pixel is decoded, and the others
wait until there is memory for their pixels. The first image of a batch waits a few milliseconds, and only while others
are known to be on their way: a single image is predicted at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from relish.core.errors import ImageError
from relish.core.runtime import is_out_of_memory
from relish.data.depth import ValueRange
from relish.data.image import NO_MEMORY, open_image, size_from_header
from relish.evaluation.prediction import Decision, Prediction, predictions
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.server.limits import Limits, PixelLimit, busy
from relish.server.middleware import Metrics
from relish.server.uploads import Upload


class Model(Protocol):
    """A model that can be served: a run folder's (`tasks/serve.py`), or an exported file's (`ExportedModel`)."""

    name: str
    """What to call it, such as the folder it came from."""
    classes: tuple[str, ...]
    decision: Decision
    value_range: ValueRange | None
    """What is black and white in images deeper than 8 bits."""
    explains: bool
    """Whether `explain` can be called."""

    def prepare(self, image: Image.Image) -> Any:
        """Preprocess an image into what `predict` takes; called in several threads at once."""

    def predict(self, prepared: Sequence[Any]) -> Sequence[Prediction]:
        """The prediction for each, in order, with an empty path; called in one thread."""

    def explain(self, image: Image.Image, class_name: str) -> Image.Image:
        """The preprocessed image under a heat map for one class; called in the thread of `predict`."""


Pixels = npt.NDArray[np.uint8]


class ExportedModel:
    """A file that `relish export` made, computed by ONNX Runtime without torch.

    Args:
        path: of the file.
        threads: of the processor for one batch; 0 leaves it to ONNX Runtime.
    """

    explains = False

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self._classifier = OnnxClassifier(path, threads=threads)
        self.name = self._classifier.path.name
        self.classes = self._classifier.classes
        self.decision = self._classifier.about.decision
        self.value_range = self._classifier.about.value_range

    def prepare(self, image: Image.Image) -> Pixels:
        """(H, W, 3) uint8: the file does the preprocessing."""
        return np.asarray(image)

    def predict(self, prepared: Sequence[Pixels]) -> Sequence[Prediction]:
        """One prediction each; a file that takes several images at once takes them of one size."""
        rows = np.empty((len(prepared), len(self.classes)), dtype=np.float32)
        unfamiliarity = np.full(len(prepared), np.nan, dtype=np.float32)
        by_shape = sorted(range(len(prepared)), key=lambda i: prepared[i].shape)
        for _, group in groupby(by_shape, key=lambda i: prepared[i].shape):
            positions = list(group)
            for start in range(0, len(positions), self._classifier.batch):
                some = positions[start : start + self._classifier.batch]
                found = self._classifier.probabilities(np.stack([prepared[i] for i in some]))
                rows[some] = found.probabilities
                if found.unfamiliarity is not None:
                    unfamiliarity[some] = found.unfamiliarity
        said = None if np.isnan(unfamiliarity).any() else unfamiliarity
        return predictions([""] * len(rows), rows, self.classes, self.decision, said)

    def explain(self, image: Image.Image, class_name: str) -> Image.Image:
        """Never called: a file has no gradients."""
        raise NotImplementedError


Queued = tuple[Any, "asyncio.Future[Prediction]"]
"""A preprocessed image, and where its prediction goes."""


class Batcher:
    """A queue of images of many requests, predicted in batches by one thread.

    Args:
        model: predicts.
        size: images in a batch, at most.
        seconds: how long the first image of a batch waits for others.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self, model: Model, size: int, seconds: float, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self._model = model
        self._size = size
        self._seconds = seconds
        self._on_batch = on_batch
        self._queue: asyncio.Queue[Queued] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.pending = 0
        """Images that were announced and have no prediction yet."""

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Within the block, an image is on its way to `predict`."""
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    async def predict(self, prepared: Any) -> Prediction:
        """The model's prediction for one image; raises what the model raises."""
        prediction: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((prepared, prediction))
        return await prediction

    async def run_between_batches(self, work: Callable[..., Any], *args: Any) -> Any:
        """Call something else in the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def run(self) -> None:
        """Predict batches until cancelled."""
        try:
            while True:
                await self._predict([row for row in await self._next_batch() if not row[1].done()])
        finally:
            self._thread.shutdown(wait=True)

    async def _next_batch(self) -> list[Queued]:
        clock = asyncio.get_running_loop().time
        batch = [await self._queue.get()]
        end = clock() + self._seconds
        while len(batch) < self._size and (not self._queue.empty() or len(batch) < self.pending):
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _predict(self, batch: Sequence[Queued]) -> None:
        if not batch:
            return
        self._on_batch(len(batch))
        try:
            found = await self.run_between_batches(self._model.predict, [prepared for prepared, _ in batch])
        except Exception as error:  # one batch's failure must not end the loop that serves all others
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), prediction in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(prediction)


class Predictor:
    """A model with its decoding threads and its batches; used from one event loop, inside `running()`."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self._model = model
        self._limits = limits
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decode")
        self._pixels = PixelLimit(limits.held_pixels)
        self._batcher = Batcher(model, limits.batch, limits.batch_seconds, metrics.batch.observe)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Predict inside the block; at its end the threads stop."""
        loop = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
            self._decoders.shutdown()

    @property
    def pending(self) -> int:
        """Images that have no prediction yet."""
        return self._batcher.pending

    async def predict(self, uploads: Sequence[Upload]) -> list[Prediction]:
        """The prediction for each upload, in order; one that cannot be opened has its `error` set.

        Raises:
            Refusal: 503, there is too little memory.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._predict(upload)) for upload in uploads]
        rows = [task.result() for task in tasks]
        if any(row.error == NO_MEMORY for row in rows):
            raise busy("too little memory is free")
        return rows

    async def explain(self, upload: Upload, class_name: str) -> Image.Image:
        """The preprocessed image under a heat map for one class.

        Raises:
            ImageError: it cannot be opened.
            Refusal: 503, there is too little memory.
        """
        try:
            async with self._opened(upload) as image:
                overlay: Image.Image = await self._batcher.run_between_batches(self._model.explain, image, class_name)
                return overlay
        except Exception as error:
            if is_out_of_memory(error) or is_out_of_memory(error.__cause__ or error):
                raise busy("too little memory is free") from error
            raise

    async def _predict(self, upload: Upload) -> Prediction:
        with self._batcher.announced():
            try:
                async with self._opened(upload) as image:
                    prediction = await self._batcher.predict(await self._in_decoder(self._model.prepare, image))
            except ImageError as error:
                self._metrics.pictures.labels("refused").inc()
                return Prediction(upload.name, error=error.reason)
            except Exception as error:
                if is_out_of_memory(error):
                    return Prediction(upload.name, error=NO_MEMORY)
                raise
        self._metrics.pictures.labels("unsure" if prediction.unsure else "answered").inc()
        self._metrics.unknown.inc(prediction.unknown)
        return replace(prediction, path=upload.name)

    @asynccontextmanager
    async def _opened(self, upload: Upload) -> AsyncIterator[Image.Image]:
        """The decoded image, its pixels counted until the end of the block."""
        size = await self._in_decoder(size_from_header, upload.content) or (1, 1)
        if reason := self._limits.reason_to_refuse(size):
            raise ImageError(upload.name, reason)
        async with self._pixels.acquired(size[0] * size[1]):
            opening = partial(open_image, upload.content, name=upload.name, value_range=self._model.value_range)
            yield await self._in_decoder(opening)

    async def _in_decoder(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *args)
