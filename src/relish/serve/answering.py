"""From uploads to rows: decode in threads, wait for room, ask the model.

In:   `Upload`s.
Out:  a `Prediction` for each: the answer, or why there is none.

How large a picture is its header says; one that is too large is refused before a pixel of it is decoded, and the others
wait until there is room for theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from PIL import Image

from relish.core.errors import ImageError
from relish.data.image import open_image, size_from_header
from relish.evaluation.prediction import Prediction
from relish.serve.batching import Batcher
from relish.serve.limits import Limits
from relish.serve.model import Model
from relish.serve.observing import Metrics
from relish.serve.room import Room
from relish.serve.uploads import Upload


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
