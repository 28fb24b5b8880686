"""Parts of the server that hold under any load: the limit of pixels, batches, an image's size from its header."""

import asyncio
import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relish.core.errors import BadInput, ImageError
from relish.data.image import open_image, size_from_header
from relish.server.batching import Batcher
from relish.server.limits import Limits, PixelLimit, megabytes
from relish.server.middleware import is_loopback, valid_token
from tests.serving import Tones


@given(amounts=st.lists(st.integers(1, 10), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_no_more_pixels_are_held_than_the_limit_and_waiting_is_in_turn(amounts):
    held, most, order = 0, 0, []

    async def hold(pixels: PixelLimit, place: int) -> None:
        nonlocal held, most
        async with pixels.acquired(amounts[place]):
            order.append(place)
            held += amounts[place]
            most = max(most, held)
            for _ in range(amounts[place] % 3 + 1):
                await asyncio.sleep(0)
            held -= amounts[place]

    async def all_at_once() -> int:
        pixels = PixelLimit(10)
        await asyncio.gather(*(hold(pixels, place) for place in range(len(amounts))))
        return pixels.available

    assert asyncio.run(all_at_once()) == 10
    assert most <= 10
    assert order == sorted(order)


def test_a_cancelled_task_releases_its_pixels():
    async def cancelled() -> int:
        pixels = PixelLimit(10)

        async def hold() -> None:
            async with pixels.acquired(7):
                await asyncio.sleep(60)

        holding, waiting = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        for task in (waiting, holding):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with pixels.acquired(10):
            return pixels.available

    assert asyncio.run(cancelled()) == 0


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_pictures_size_is_known_before_it_is_decoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (37, 21), (200, 30, 30)).save(file, kind)
    assert size_from_header(file.getvalue()) == (37, 21) == open_image(file.getvalue()).size


@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]))
def test_where_a_header_tells_no_size_the_picture_cannot_be_opened_either(content, start):
    if size_from_header(start + content) is None:
        with pytest.raises(ImageError):
            open_image(start + content)


def test_limits_and_tokens_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="files must be above 0"):
        Limits(files=0)
    for bad in ("", "short", "with a blank in the middle", "ungültig-weil-nicht-ascii"):
        with pytest.raises(BadInput) as error:
            valid_token(bad, "127.0.0.1")
        assert not bad or bad not in str(error.value)
    assert valid_token(" 0123456789abcdef\n", "example") == "0123456789abcdef"
    assert valid_token(None, "::1") is None
    assert all(map(is_loopback, ("127.9.9.9", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "::", "example", "")))
    assert [megabytes(count) for count in (900, 2_500_000, 20_000_000)] == ["900 bytes", "2.5 MB", "20 MB"]
