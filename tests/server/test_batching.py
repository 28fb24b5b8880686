"""Images of many requests are predicted together, and each request gets its own predictions."""

import asyncio
from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.server.batching import Batcher
from tests.serving import Tones


@given(count=st.integers(1, 40), size=st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_batches_are_no_larger_than_asked_and_each_picture_gets_its_own_answer(count, size):
    model = Tones()
    colours = [np.array([place * 6.0, 0, 100]) for place in range(count)]

    async def together():
        batcher = Batcher(model, size, 0.001)
        loop = asyncio.create_task(batcher.run())

        async def one(colour):
            with batcher.announced():
                return await batcher.predict(colour)

        found = await asyncio.gather(*map(one, colours))
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        return found

    found = asyncio.run(together())
    batches = list(model.batches)
    assert sum(batches) == count
    assert max(batches) <= size
    assert found == model.predict(colours)
