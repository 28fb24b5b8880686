"""How much the server takes before it says no.

In:   nothing.
Out:  `Limits`: frozen, checked numbers.

Memory is what they guard. At its fullest the server holds `held_bytes` of uploads and `held_pixels` decoded, whatever
comes in, besides the model itself.
"""

from dataclasses import dataclass, fields

from relish.core.errors import BadInput


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
