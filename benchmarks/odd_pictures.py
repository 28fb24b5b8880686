"""Pictures of every odd kind that people's folders hold: one pixel, a thread of pixels, CMYK, palettes, 16 bits.

In:   an empty folder and how many are wanted.
Out:  that many files; kind and content of each follow from its number alone.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Chance = np.random.Generator
ORIENTATION = 0x0112


def blobs(chance: Chance, width: int, height: int, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8: a few soft shapes, with noise; nothing a filter could scale without a trace."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    result = np.full((height, width, channels), chance.uniform(0, 255, channels), np.float32)
    for _ in range(4):
        middle, reach = chance.uniform(0, (width, height)), chance.uniform(0.1, 0.6) * max(width, height)
        near = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / reach**2)[..., None]
        result += near * chance.uniform(-160, 160, channels)
    return (result + chance.normal(0, 20, result.shape)).clip(0, 255).astype(np.uint8)


def _size(chance: Chance) -> tuple[int, int]:
    return int(chance.integers(20, 600)), int(chance.integers(20, 600))


def _rgb(chance: Chance, width: int = 0, height: int = 0) -> Image.Image:
    size = (width, height) if width else _size(chance)
    return Image.fromarray(blobs(chance, *size))


def _rotated(chance: Chance) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = int(chance.integers(2, 9))
    return _saved(_rgb(chance), "JPEG", exif=exif)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _sixteen_bits(chance: Chance) -> Image.Image:
    grey = blobs(chance, *_size(chance), 1)[..., 0].astype(np.uint16)
    return Image.fromarray(grey * 257 + chance.integers(0, 200, grey.shape).astype(np.uint16) // 2)


def _cut_out(chance: Chance) -> Image.Image:
    return Image.fromarray(blobs(chance, *_size(chance), 4))


KINDS: dict[str, Callable[[Chance], bytes]] = {
    "one-pixel.png": lambda c: _saved(_rgb(c, 1, 1), "PNG"),
    "thread-down.png": lambda c: _saved(_rgb(c, 1, 5000), "PNG"),
    "thread-across.png": lambda c: _saved(_rgb(c, 5000, 1), "PNG"),
    "strip-down.png": lambda c: _saved(_rgb(c, int(c.integers(2, 9)), int(c.integers(900, 3000))), "PNG"),
    "strip-across.png": lambda c: _saved(_rgb(c, int(c.integers(900, 3000)), int(c.integers(2, 9))), "PNG"),
    "small.png": lambda c: _saved(_rgb(c, int(c.integers(2, 16)), int(c.integers(2, 16))), "PNG"),
    "large.jpg": lambda c: _saved(_rgb(c, int(c.integers(1500, 2500)), int(c.integers(1000, 2500))), "JPEG"),
    "grey.jpg": lambda c: _saved(_rgb(c).convert("L"), "JPEG"),
    "grey-alpha.png": lambda c: _saved(_cut_out(c).convert("LA"), "PNG"),
    "bits.png": lambda c: _saved(_rgb(c).convert("1"), "PNG"),
    "cmyk.jpg": lambda c: _saved(_rgb(c).convert("CMYK"), "JPEG"),
    "rotated.jpg": _rotated,
    "palette.png": lambda c: _saved(_rgb(c).quantize(64), "PNG"),
    "palette-clear.png": lambda c: _saved(_rgb(c).quantize(32), "PNG", transparency=3),
    "animation.gif": lambda c: _saved(_rgb(c), "GIF"),
    "alpha.png": lambda c: _saved(_cut_out(c), "PNG"),
    "sixteen.png": lambda c: _saved(_sixteen_bits(c), "PNG"),
    "sixteen.tif": lambda c: _saved(_sixteen_bits(c), "TIFF"),
    "progressive.jpg": lambda c: _saved(_rgb(c), "JPEG", progressive=True, quality=30),
    "photo.webp": lambda c: _saved(_rgb(c), "WEBP", quality=60),
}


def make_odd_pictures(folder: Path, count: int) -> list[Path]:
    """Write `count` pictures into `folder`, all kinds in turn."""
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = list(KINDS)[number % len(KINDS)]
        path = folder / f"{number:03}-{name}"
        path.write_bytes(KINDS[name](np.random.default_rng(number)))
        paths.append(path)
    return paths
