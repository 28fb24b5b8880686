"""The book's grid of images: rows and columns of cells, a caption under each, as one Pillow image.

Every cell has the same size and every image fills as much of its cell as its own proportions let it: nothing is cropped
or stretched, so a grid shows what a dataset is really made of.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import fontpkg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relish.core.errors import DataError, nearest
from relish.data.dataset import Split, class_name
from relish.data.depth import ValueRange
from relish.data.image import open_image

Captioned = tuple[Image.Image, str]
"""An image and its caption; without a caption, an empty string."""

PIXELS = 100
"""The side of a cell at scale 1, in pixels."""
SCALE = 1.4
INK, PAPER = (40, 40, 40), (255, 255, 255)
_LINES = 2


def image_grid(rows: Sequence[Sequence[Captioned]], *, scale: float = SCALE) -> Image.Image:
    """Set images in rows and columns.

    Args:
        rows: images and captions; rows may differ in length, and a short one leaves its last cells empty.
        scale: the side of a cell in hundreds of pixels, above 0.

    Returns:
        RGB on white. A row without captions takes no room for them.

    Raises:
        ValueError: scale is 0 or below.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    side = max(1, round(PIXELS * scale))
    gap = max(2, side // 16)
    font = _font(max(9, round(side / 10)))
    line = math.ceil(sum(font.getmetrics()))
    captions = [[_wrapped(caption, font, side) for _, caption in row] for row in rows]
    deep = [max((len(lines) for lines in row), default=0) * line for row in captions]
    columns = max((len(row) for row in rows), default=0)
    size = (max(1, columns * (side + gap) + gap), max(1, sum(side + gap + more for more in deep) + gap))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    top = gap
    for row, texts, more in zip(rows, captions, deep, strict=True):
        for column, ((image, _), lines) in enumerate(zip(row, texts, strict=True)):
            left, shown = gap + column * (side + gap), fitted(image, side)
            # Centred across, and standing on the caption, so that it is plain which image it belongs to.
            sheet.paste(shown, (left + (side - shown.width) // 2, top + side - shown.height))
            for number, text in enumerate(lines):
                place = (left + side / 2, top + side + 2 + number * line)
                pen.text(place, text, fill=INK, font=font, anchor="ma")
        top += side + gap + more
    return sheet


def first_and_last(
    split: Split,
    classes: Sequence[str],
    *,
    first: str | None = None,
    last: str | None = None,
    rows: int = 2,
    columns: int = 8,
    value_range: ValueRange | None = None,
) -> Image.Image:
    """The book's look at a dataset: the first images of one class over the last ones, last first, of another.

    Args:
        split: the images; those of a class stand in the order of the split.
        classes: the class names.
        first: the class of the upper rows, otherwise the first one.
        last: the class of the lower rows, otherwise the last one.
        rows: rows in all, at least 1; the upper half, and the middle row, belong to `first`.
        columns: images in a row, at least 1.
        value_range: of images deeper than 8 bits, for `open_image`.

    Returns:
        The grid, each image with its class under it; of a class with fewer images, all of them.

    Raises:
        DataError: there is no such class.
        ImageError: an image cannot be opened.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a grid needs a row and a column, got {rows} × {columns}")
    upper, lower = class_name(first or classes[0]), class_name(last or classes[-1])
    lower_rows = rows // 2
    heads = _of_class(split, classes, upper)[: (rows - lower_rows) * columns]
    tails = _of_class(split, classes, lower)[::-1][: lower_rows * columns]
    side = round(PIXELS * SCALE)
    cells = [
        # Made smaller at once: sixteen images from a good camera would fill two gigabytes.
        [(fitted(open_image(path, value_range=value_range), side), name) for path in paths]
        for found, name in ((heads, upper), (tails, lower))
        for paths in (found[i : i + columns] for i in range(0, len(found), columns))
    ]
    return image_grid(cells)


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The whole image, as large as a square of `side` pixels holds it, in its own proportions."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _of_class(split: Split, classes: Sequence[str], name: str) -> list[Path]:
    if name not in classes:
        known = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
        raise DataError(
            f'there is no class "{name}".', hint=f"{nearest(name, classes)} The classes are: {known}.".strip()
        )
    return [split.paths[i] for i in np.flatnonzero(split.labels == list(classes).index(name))]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Latin, Greek, Cyrillic, Vietnamese and Devanagari on every machine; Pillow's own font has Latin letters alone.
    return ImageFont.truetype(fontpkg.path("Noto Sans"), size)


def _wrapped(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """At most two lines that fit the width; what does not fit ends in an ellipsis."""
    rest = " ".join("".join(c if c.isprintable() else " " for c in caption).split())
    lines: list[str] = []
    while rest and len(lines) < _LINES:
        fits = _fitting(rest, font, width)
        if fits < len(rest) and len(lines) == _LINES - 1:
            lines.append(rest[: max(1, _fitting(rest, font, width - math.ceil(font.getlength("…"))))].rstrip() + "…")
            break
        # Broken at a space or after a hyphen where there is one, anywhere else otherwise.
        cut = fits if fits == len(rest) else max(rest.rfind(" ", 0, fits + 1), rest.rfind("-", 0, fits) + 1)
        cut = cut if cut > 0 else fits
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many characters from the start fit, at least 1."""
    short = text[:200]
    return next((n for n in range(len(short), 1, -1) if font.getlength(short[:n]) <= width), 1)
