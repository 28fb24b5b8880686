"""A picture inside a page: small, and without an address that anything would have to be fetched from.

In:   a Pillow picture.
Out:  an `Embedded`: a `data:` address with the picture's size.
"""

import base64
import io
from dataclasses import dataclass

from PIL import Image

SIDE = 320
"""Longest side of an embedded picture in pixels: sharp on a phone, and some 20 kB each."""


@dataclass(frozen=True)
class Embedded:
    """A JPEG as text."""

    address: str
    """Such as `data:image/jpeg;base64,…`."""
    width: int
    height: int


def embedded(picture: Image.Image, side: int = SIDE, quality: int = 85) -> Embedded:
    """The picture within a square of this side, never enlarged.

    Args:
        picture: RGB.
        side: in pixels.
        quality: JPEG's, 1 to 95.
    """
    small = picture.copy()
    small.thumbnail((side, side))
    kept = io.BytesIO()
    small.save(kept, "JPEG", quality=quality)
    return Embedded("data:image/jpeg;base64," + base64.b64encode(kept.getvalue()).decode(), small.width, small.height)
