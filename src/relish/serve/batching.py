"""Micro-batches: pictures of many requests are answered together, in one thread.

In:   prepared pictures, one by one, from any request.
Out:  the answer for each.

The first picture of a batch waits a few milliseconds, and only while others are known to be on their way: a lone
picture is answered at once.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from relish.evaluation.prediction import Prediction
from relish.serve.model import Model

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
