"""Every limit of the server (requests, uploads, pixels, concurrency, time), and how a request beyond one is refused.

The limits guard memory: besides the model itself the server holds at most `held_bytes` of uploads and `held_pixels`
decoded pixels, whatever comes in. A refusal is a JSON response:
`{"error": {"status": 413, "reason": "…", "hint": "…"}}`.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from relish.core.errors import BadInput

if TYPE_CHECKING:
    from fastapi.responses import JSONResponse
import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

RETRY_SECONDS = 1
"""What a busy server asks for; its queue is a second or two long."""


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: HTTP's, 4xx or 5xx.
        reason: what is wrong, in words for the person behind the program.
        hint: what to do next.
        headers: that the status asks for, such as Retry-After.
        predictions: one row a picture, where each has a reason of its own.
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
        self.reason = reason
        self.hint = hint
        self.headers = headers or {}
        self.predictions = predictions

    def response(self) -> "JSONResponse":
        """What is sent."""
        from fastapi.responses import JSONResponse  # late: `Limits` alone is needed before FastAPI is known to be there

        error: dict[str, Any] = {"status": self.status, "reason": self.reason, "hint": self.hint}
        content: dict[str, Any] = {"error": error}
        if self.predictions is not None:
            content["predictions"] = self.predictions
        return JSONResponse(content, self.status, self.headers)


def busy(what: str) -> Refusal:
    """The server has as much to do as it takes."""
    return Refusal(
        503, f"the server is busy: {what}.", hint="Try again in a second.", headers={"Retry-After": str(RETRY_SECONDS)}
    )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Numbers above 0."""

    body_bytes: int = 20_000_000
    """Of one request. A 50-megapixel JPEG of a phone has about 15 million."""
    pixels: int = 50_000_000
    """Of one picture."""
    side: int = 65_500
    """Of one picture, in pixels: the longest that a JPEG can have. A filter's weights grow with it."""
    files: int = 32
    """Pictures in one request."""
    requests: int = 64
    """Requests with pictures at once; the next one is asked to come again."""
    held_bytes: int = 256_000_000
    """Of all uploads that are under way."""
    send_seconds: float = 10.0
    """How long a sender may take for a request's head, for its body besides what the bytes take at `send_rate`, and for
    the rest of a body that was refused."""
    send_rate: int = 50_000
    """Bytes a second: the slowest connection that is waited for."""
    connections: int = 512
    """Open at once, idle ones included."""
    batch: int = 16
    """Pictures that are answered together."""
    batch_seconds: float = 0.004
    """How long the first of them waits for others that are on their way."""
    decoders: int = 2
    """Threads that decode pictures."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise BadInput(f"limits: {field.name} must be above 0, got {getattr(self, field.name)}.")

    @property
    def held_pixels(self) -> int:
        """Decoded at once: two of the largest pictures."""
        return 2 * self.pixels

    def refusal_of(self, size: tuple[int, int]) -> str:
        """Why a picture of this width and height is not decoded; empty where it is."""
        width, height = size
        if width * height > self.pixels:
            return f"{width:,} x {height:,} pixels; the limit is {self.pixels / 1e6:g} million"
        if max(size) > self.side:
            return f"{width:,} x {height:,} pixels; the limit for one side is {self.side:,}"
        return ""


def megabytes(count: int) -> str:
    """`20 MB`, `2.5 MB`, `900 bytes`."""
    return f"{count / 1e6:.3g} MB" if count >= 100_000 else f"{count:,} bytes"


class Admission:
    """Counts of what is under way; used from the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.seated = 0
        self.held = 0

    @contextmanager
    def seat(self) -> Iterator["Seat"]:
        """A place for one request, given back at the end.

        Raises:
            Refusal: 503, all are taken.
        """
        if self.seated >= self.limits.requests:
            raise busy(f"{self.seated} requests are under way")
        self.seated += 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self.seated -= 1
            self.held -= seat.held


class Seat:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0

    def hold(self, count: int) -> None:
        """Count bytes that were just received.

        Raises:
            Refusal: 503, all uploads together are too much.
        """
        self.held += count
        self._admission.held += count
        if self._admission.held > self._admission.limits.held_bytes:
            raise busy(f"uploads of {megabytes(self._admission.held - count)} are under way")


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
