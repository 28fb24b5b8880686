"""The limits hold under any load, and waiting is in turn."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relish.core.errors import BadInput
from relish.server.limits import Limits, PixelLimit, megabytes


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


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(BadInput, match="files must be above 0"):
        Limits(files=0)


def test_bytes_are_told_in_a_readable_unit():
    assert [megabytes(count) for count in (900, 2_500_000, 20_000_000)] == ["900 bytes", "2.5 MB", "20 MB"]
