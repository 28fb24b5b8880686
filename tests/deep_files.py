"""Files of images deeper than 8 bits, byte by byte: Pillow writes few of them."""

import struct
import zlib

import numpy as np

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
"""Colour types of a PNG."""
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS = 0, 1, 2
"""Photometric tags of a TIFF."""


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG of (H, W) or (H, W, 2 to 4) values, with further chunks before the pixels."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    colour = {1: GREY, 2: GREY_ALPHA, 3: RGB, 4: RGBA}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def tiff(
    values: np.ndarray,
    kind: str = "u2",
    *,
    order: str = "<",
    photometric: int | None = None,
    planar: int = 1,
) -> bytes:
    """An uncompressed TIFF of (H, W) or (H, W, C) values.

    Args:
        kind: NumPy's word for a value, such as `u2`, `i4` or `f8`.
        order: `<` little-endian, `>` big-endian.
    """
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    pixels = (values.transpose(2, 0, 1) if planar == 2 else values).astype(order + kind).tobytes()
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [8 * int(kind[1])] * channels),
        259: ("H", [1]),
        262: ("H", [(BLACK_IS_ZERO if channels == 1 else COLOURS) if photometric is None else photometric]),
        273: ("I", [0]),
        277: ("H", [channels]),
        278: ("H", [height]),
        279: ("I", [len(pixels)]),
        284: ("H", [planar]),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[kind[0]]] * channels),
    }
    if channels == 4:
        tags[338] = ("H", [2])
    if planar == 2:
        each = len(pixels) // channels
        tags[273], tags[279] = ("I", [i * each for i in range(channels)]), ("I", [each] * channels)
    beside = 8 + 2 + 12 * len(tags) + 4
    long = {
        n: struct.pack(f"{order}{len(v)}{f}", *v) for n, (f, v) in tags.items() if len(v) * (2 if f == "H" else 4) > 4
    }
    start = beside + sum(map(len, long.values()))
    tags[273] = ("I", [start + offset for offset in tags[273][1]])
    entries, rest = b"", b""
    for number, (form, numbers) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        entries += struct.pack(f"{order}HHI", number, 3 if form == "H" else 4, len(numbers))
        if len(body) > 4:
            entries += struct.pack(f"{order}I", beside + len(rest))
            rest += body
        else:
            entries += body.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + rest + pixels
