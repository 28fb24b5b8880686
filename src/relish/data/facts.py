"""A few numbers about each picture, taken while it is decoded for the survey anyway.

In:   a decoded picture, and the mode its file is in.
Out:  one row of `FACTS` as bytes; many of them as one structured array.
Not here: decoding (`pictures.py`), remembering (`outcomes.py`), what the numbers are suspected to mean (`checking/`).

A row is 66 bytes, so that a hundred thousand pictures are 7 megabytes. Light and sharpness are measured at one scale
for all: a large photograph would otherwise count as sharper than the same one shrunk.
"""

import hashlib
from collections.abc import Iterable

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

FACTS = np.dtype(
    [
        ("width", "<u4"),
        ("height", "<u4"),
        ("mode", "S6"),
        ("pixels", "V16"),
        ("phash", "<u8"),
        ("mirrored", "<u8"),
        ("dhash", "<u8"),
        ("brightness", "<f4"),
        ("contrast", "<f4"),
        ("sharpness", "<f4"),
    ]
)
"""Size in pixels, upright; Pillow's mode of the file; digest of size and decoded RGB pixels; perceptual hash by cosine
transform (64 bits), the same of the mirror image, and the hash by differences of neighbours (imagehash's `phash` and
`dhash`); mean and standard deviation of the grey levels, 0 to 255; variance of their Laplacian."""

Facts = npt.NDArray[np.void]
"""(N,) of `FACTS`."""

LONGEST = 256
"""Pixels of the longer side at which light and sharpness are measured; smaller pictures are measured as they are."""
_HASH_SIDE = 32
"""Pixels that `phash` scales a picture to by itself: done once for the three hashes."""
_STRIP = 2**20
"""Pixels in a strip that is hashed at a time, so that no second copy of a large picture is made."""


def facts_of(picture: Image.Image, mode: str) -> bytes:
    """One row of `FACTS`.

    Args:
        picture: RGB, wholly decoded, upright.
        mode: of the file, before it was brought to RGB.
    """
    grey = shrunk_grey(picture, LONGEST)
    levels = np.asarray(grey, dtype=np.float32)
    small = grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    row = np.array(
        (
            picture.width,
            picture.height,
            mode.encode()[:6],
            pixel_digest(picture),
            _bits(imagehash.phash(small)),
            _bits(imagehash.phash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))),
            _bits(imagehash.dhash(small)),
            levels.mean(),
            levels.std(),
            laplacian_variance(levels),
        ),
        dtype=FACTS,
    )
    return row.tobytes()


def facts_table(rows: Iterable[bytes]) -> Facts:
    """Rows as one array, in their order."""
    return np.frombuffer(b"".join(rows), dtype=FACTS)


def pixel_digest(picture: Image.Image) -> bytes:
    """16 bytes that are equal for pictures of the same size and the same RGB pixels, whatever their files are."""
    width, height = picture.size
    found = hashlib.sha256(f"{width}x{height}".encode())
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        found.update(picture.crop((0, top, width, min(height, top + rows))).tobytes())
    return found.digest()[:16]


def shrunk_grey(picture: Image.Image, longest: int) -> Image.Image:
    """The picture in grey with its longer side at most so many pixels; a box filter does most of it, for its speed."""
    factor = max(picture.size) // longest
    grey = (picture.reduce(factor) if factor > 1 else picture).convert("L")
    if max(grey.size) <= longest:
        return grey
    scale = longest / max(grey.size)
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BILINEAR)


def laplacian_variance(levels: npt.NDArray[np.float32]) -> float:
    """How much fine detail a picture has: the variance of its Laplacian; 0 where a side is under 3 pixels.

    Args:
        levels: (H, W) float32 grey levels, 0 to 255.

    Source: Pech-Pacheco, Cristobal, Chamorro-Martinez and Fernandez-Valdivia 2000, ICPR, section 2.
    """
    if min(levels.shape) < 3:
        return 0.0
    centre = levels[1:-1, 1:-1]
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    return float((around - 4 * centre).var())


def _bits(found: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(found.hash).tobytes(), "big")
