"""Every limit of the server (requests, uploads, pixels, concurrency, time), and how a request beyond one is refused.

The limits guard memory: besides the model itself the server holds at most `held_bytes` of uploads and `held_pixels`
decoded pixels, whatever comes in. A refusal is a JSON response:
`{"error": {"status": 413, "reason": "…", "hint": "…"}}`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from relish.core.errors import BadInput, one_line

if TYPE_CHECKING:
    from fastapi.responses import JSONResponse

RETRY_SECONDS = 1
"""Retry-After of a busy server: its queue is a second or two long."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server accepts; every number is above 0."""

    body_bytes: int = 20_000_000
    """Upload limit: bytes of one request. A 50-megapixel JPEG of a phone has about 15 million."""
    pixels: int = 50_000_000
    """Pixels of one image."""
    side: int = 65_500
    """Longest side of one image in pixels: that of the largest JPEG. The weights of a resize grow with it."""
    files: int = 32
    """Images in one request."""
    requests: int = 64
    """Concurrency limit: requests with images at once; the next one gets 503."""
    held_bytes: int = 256_000_000
    """Bytes of all uploads in progress together."""
    send_seconds: float = 10.0
    """Seconds a client may take for a request's head, for its body besides what the bytes take at `send_rate`, and for
    the rest of a body that was refused."""
    send_rate: int = 50_000
    """Bytes a second: the slowest connection that is waited for."""
    connections: int = 512
    """Open connections, idle ones included."""
    batch: int = 16
    """Images predicted together."""
    batch_seconds: float = 0.004
    """Seconds that the first image of a batch waits for others that were announced."""
    decoders: int = 2
    """Threads that decode images."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise BadInput(f"limits: {field.name} must be above 0, got {getattr(self, field.name)}.")

    @property
    def held_pixels(self) -> int:
        """Pixels decoded at once: those of two of the largest images."""
        return 2 * self.pixels

    def reason_to_refuse(self, size: tuple[int, int]) -> str:
        """Why an image of this width and height is not decoded; empty where it is."""
        width, height = size
        if width * height > self.pixels:
            return f"{width:,} x {height:,} pixels; the limit is {self.pixels / 1e6:g} million"
        if max(size) > self.side:
            return f"{width:,} x {height:,} pixels; the limit for one side is {self.side:,}"
        return ""


def megabytes(count: int) -> str:
    """`20 MB`, `2.5 MB`, `900 bytes`."""
    return f"{count / 1e6:.3g} MB" if count >= 100_000 else f"{count:,} bytes"


class Refusal(Exception):
    """A request that gets an error response.

    Args:
        status: of HTTP, 4xx or 5xx.
        reason: what is wrong, in words for the person behind the program.
        hint: what to do next.
        headers: what the status asks for, such as Retry-After.
        predictions: one row an image, where each has a reason of its own.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        hint: str = "",
        headers: dict[str, str] | None = None,
        predictions: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = one_line(reason)  # a name in it is the client's
        self.hint = one_line(hint)
        self.headers = headers or {}
        self.predictions = predictions

    def response(self) -> "JSONResponse":
        """The HTTP response."""
        from fastapi.responses import JSONResponse  # late: `relish serve` says itself what is not installed

        error: dict[str, Any] = {"status": self.status, "reason": self.reason, "hint": self.hint}
        content: dict[str, Any] = {"error": error}
        if self.predictions is not None:
            content["predictions"] = self.predictions
        return JSONResponse(content, self.status, self.headers)


def busy(what: str) -> Refusal:
    """503: a concurrency limit is reached."""
    return Refusal(
        503, f"the server is busy: {what}.", hint="Try again in a second.", headers={"Retry-After": str(RETRY_SECONDS)}
    )


class ConcurrencyLimit:
    """Counts requests in progress and the bytes of their uploads; used from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def request(self) -> Iterator["RequestBytes"]:
        """Count one request until the end of the block.

        Raises:
            Refusal: 503, `Limits.requests` are in progress.
        """
        if self.requests >= self.limits.requests:
            raise busy(f"{self.requests} requests are under way")
        self.requests += 1
        held = RequestBytes(self)
        try:
            yield held
        finally:
            self.requests -= 1
            self.bytes -= held.count


class RequestBytes:
    """The bytes that one request has uploaded."""

    def __init__(self, shared: ConcurrencyLimit) -> None:
        self._shared = shared
        self.count = 0

    def add(self, count: int) -> None:
        """Count bytes that were received.

        Raises:
            Refusal: 503, all uploads together are beyond `Limits.held_bytes`.
        """
        self.count += count
        self._shared.bytes += count
        if self._shared.bytes > self._shared.limits.held_bytes:
            raise busy(f"uploads of {megabytes(self._shared.bytes - count)} are under way")


class PixelLimit:
    """A semaphore that counts pixels: decoding waits, first come first served, until there are enough.

    Args:
        pixels: held at once, 1 or more.
    """

    def __init__(self, pixels: int) -> None:
        self.available = pixels
        self._queue = asyncio.Lock()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def acquired(self, pixels: int) -> AsyncIterator[None]:
        """Wait for so many pixels, and hold them until the end of the block.

        Args:
            pixels: at most as many as the limit.
        """
        async with self._queue:
            while pixels > self.available:
                self._released.clear()
                await self._released.wait()
            self.available -= pixels
        try:
            yield
        finally:
            self.available += pixels
            self._released.set()
