"""From uploads to predictions: decode in threads, wait for memory, and run the model on batches of many requests.

An image's size is read from its header: one beyond the limits is refused before any pixel is decoded, and the others
wait until there is memory for their pixels. The first image of a batch waits a few milliseconds, and only while others
are known to be on their way: a single image is answered at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from relish.core.errors import ImageError
from relish.data.image import open_image, size_from_header
from relish.evaluation.prediction import Decision, Prediction, predictions
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.server.limits import Limits, Room
from relish.server.middleware import Metrics
from relish.server.uploads import Upload


class Model(Protocol):
    """A model that can be served."""

    name: str
    """What to call it, such as the folder it came from."""
    classes: tuple[str, ...]
    decision: Decision
    explains: bool
    """Whether `explain` can be asked."""

    def prepare(self, picture: Image.Image) -> Any:
        """What a picture becomes before it waits for its turn; called in several threads at once."""

    def answer(self, prepared: Sequence[Any]) -> Sequence[Prediction]:
        """The answer for each, in order, without its name; called in one thread."""

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """The picture as the model saw it, with what speaks for a class lit up; called in the same thread."""


Pixels = npt.NDArray[np.uint8]


class ServedFile:
    """See above.

    Args:
        path: of the file.
        threads: of the processor for one answer; 0 leaves it to ONNX Runtime.
    """

    explains = False

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self._reader = OnnxClassifier(path, threads=threads)
        self.name = self._reader.path.name
        self.classes = self._reader.classes
        self.decision = self._reader.about.decision

    def prepare(self, picture: Image.Image) -> Pixels:
        """(H, W, 3) uint8: the file scales it itself."""
        return np.asarray(picture)

    def answer(self, prepared: Sequence[Pixels]) -> Sequence[Prediction]:
        """One prediction each; a file that takes several at once takes them of one size."""
        rows = np.empty((len(prepared), len(self.classes)), dtype=np.float32)
        alike = sorted(range(len(prepared)), key=lambda place: prepared[place].shape)
        for _, group in groupby(alike, key=lambda place: prepared[place].shape):
            places = list(group)
            for start in range(0, len(places), self._reader.batch):
                some = places[start : start + self._reader.batch]
                rows[some], _ = self._reader.probabilities(np.stack([prepared[place] for place in some]))
        return predictions([""] * len(rows), rows, self.classes, self.decision)

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """Never asked: a file has no gradients."""
        raise NotImplementedError


Waiting = tuple[Any, "asyncio.Future[Prediction]"]


class Batcher:
    """A queue before a model.

    Args:
        model: who answers.
        size: pictures in a batch, at most.
        seconds: how long the first one waits for others.
        told: is called with the size of each batch.
    """

    def __init__(self, model: Model, size: int, seconds: float, told: Callable[[int], None] = lambda _: None) -> None:
        self._model = model
        self._size = size
        self._seconds = seconds
        self._told = told
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answer")
        self.coming = 0
        """Pictures that were announced and have no answer yet."""

    @contextmanager
    def announced(self) -> Iterator[None]:
        """A picture is on its way, until the end of the block."""
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    async def ask(self, prepared: Any) -> Prediction:
        """The model's answer for one picture; raises what the model raises."""
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((prepared, answer))
        return await answer

    async def alone(self, work: Callable[..., Any], *args: Any) -> Any:
        """Something else for the model's thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            while True:
                await self._answer([row for row in await self._gathered() if not row[1].done()])
        finally:
            self._thread.shutdown(wait=True)

    async def _gathered(self) -> list[Waiting]:
        clock = asyncio.get_running_loop().time
        batch = [await self._queue.get()]
        end = clock() + self._seconds
        while len(batch) < self._size and (not self._queue.empty() or len(batch) < self.coming):
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, batch: Sequence[Waiting]) -> None:
        if not batch:
            return
        self._told(len(batch))
        try:
            answers = await self.alone(self._model.answer, [prepared for prepared, _ in batch])
        except Exception as error:  # one request's misfortune must not end the loop that serves all others
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)


class Answering:
    """A model with the threads around it; used from one event loop, between `start` and `stop`."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self._model = model
        self._limits = limits
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decode")
        self._room = Room(limits.held_pixels)
        self._batcher = Batcher(model, limits.batch, limits.batch_seconds, metrics.batch.observe)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers are given inside."""
        loop = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
            self._decoders.shutdown()

    @property
    def waiting(self) -> int:
        """Pictures that have no answer yet."""
        return self._batcher.coming

    async def rows(self, uploads: Sequence[Upload]) -> list[Prediction]:
        """What is said of each, in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._row(upload)) for upload in uploads]
        return [task.result() for task in tasks]

    async def overlay(self, upload: Upload, class_name: str) -> Image.Image:
        """Where in a picture the model sees a class.

        Raises:
            ImageError: it cannot be opened.
        """
        async with self._opened(upload) as picture:
            overlay: Image.Image = await self._batcher.alone(self._model.explain, picture, class_name)
            return overlay

    async def _row(self, upload: Upload) -> Prediction:
        with self._batcher.announced():
            try:
                async with self._opened(upload) as picture:
                    prepared = await self._decoding(self._model.prepare, picture)
                    answer = await self._batcher.ask(prepared)
            except ImageError as error:
                self._metrics.pictures.labels("refused").inc()
                return Prediction(upload.name, error=error.reason)
        self._metrics.pictures.labels("unsure" if answer.unsure else "answered").inc()
        return replace(answer, path=upload.name)

    @asynccontextmanager
    async def _opened(self, upload: Upload) -> AsyncIterator[Image.Image]:
        """The picture, with room for its pixels until the end of the block."""
        size = await self._decoding(size_from_header, upload.content) or (1, 1)
        if reason := self._limits.refusal_of(size):
            raise ImageError(upload.name, reason)
        async with self._room.taken(size[0] * size[1]):
            yield await self._decoding(_open, upload)

    async def _decoding(self, work: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *args)


def _open(upload: Upload) -> Image.Image:
    return open_image(upload.content, name=upload.name)
