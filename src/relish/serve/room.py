"""Room for so much and no more: who wants some waits until there is enough, first come, first served.

In:   amounts.
Out:  a block that holds its amount.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """A semaphore that counts in amounts; used from one event loop.

    Args:
        size: the whole, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self.free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Wait for room, and hold it until the end of the block.

        Args:
            amount: no more than the whole.
        """
        async with self._turn:
            while amount > self.free:
                self._given_back.clear()
                await self._given_back.wait()
            self.free -= amount
        try:
            yield
        finally:
            self.free += amount
            self._given_back.set()
