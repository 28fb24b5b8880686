"""From uint8 pictures of any size to the network's input, as `evaluation_transform` and `normalise` do, in ONNX.

In:   a `Preprocessing`, and the name of the graph's input, (N, H, W, 3) uint8.
Out:  (N, 3, S, S) float32: first the pixels, whole numbers from 0 to 255, then what the network takes.
Not here: the filter (`resize.py`), the network (`network.py`).

Everything that follows from a picture's size is worked out inside the graph, so whoever feeds it cannot get it wrong.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from relish.data.transforms import Preprocessing
from relish.export.graph import DOUBLE, INT64, Graph
from relish.export.resize import Axis, resample


@dataclass(frozen=True)
class Framed:
    """Which part of the pictures is scaled to what, and what lies around it."""

    image: str
    """(N, h, w, 3) uint8: the part that is scaled."""
    down: Axis
    across: Axis
    inside: str | None = None
    """(S, S) bool: where the result is picture; None where it is everywhere."""
    turns: bool = False
    """Whether pictures may be scaled down before they are scaled across."""


ACROSS_FIRST, DOWN_FIRST = [2, 0, 3, 1], [1, 0, 3, 2]
"""(N, h, w, 3) to rows of the side that is scaled first, (w, N, 3, h) or (h, N, 3, w)."""


def pixels(g: Graph, image: str, how: Preprocessing, count: int) -> str:
    """The pictures at the network's size.

    Args:
        image: (count, H, W, 3) uint8.

    Returns:
        (count, 3, S, S) float32, the whole numbers that `evaluation_transform` gives.
    """
    framed = {"squash": _squashed, "crop": _cropped, "letterbox": _letterboxed}[how.framing](g, image, how)
    scaled = _scaled(g, framed, how, count)
    if framed.inside is None:
        return scaled
    colour = np.array([round(255 * value) for value in how.mean], dtype=np.float32).reshape(1, 3, 1, 1)
    return g.op("Where", framed.inside, scaled, g.constant(colour, np.float32))


def _scaled(g: Graph, framed: Framed, how: Preprocessing, count: int) -> str:
    """Two passes with 8 bits between them, (count, 3, S, S); which way goes first, Pillow's rule decides."""
    if not framed.turns:
        across = g.op("Transpose", framed.image, perm=ACROSS_FIRST)
        return _passes(g, across, (framed.across, framed.down), how, count)
    down_first = _down_first(g, framed)
    axes = [(framed.down, framed.across), (framed.across, framed.down)]
    first, second = (_either(g, down_first, one, other) for one, other in axes)
    rows = _turned(g, framed, down_first, (first, second), count)
    result = _passes(g, rows, (first, second), how, count)
    return g.op("Where", down_first, g.op("Transpose", result, perm=[0, 1, 3, 2]), result)


def _turned(g: Graph, framed: Framed, down_first: str, axes: tuple[Axis, Axis], count: int) -> str:
    """Rows of whichever side is first.

    An `If` would say this plainly, but OpenVINO 2026.4 reads wrong bytes behind one. Of the two ways round, one is
    made of no rows at all, so that the two joined are the other.
    """
    chosen, both = g.cast(down_first, INT64), []
    for share, perm in ((chosen, DOWN_FIRST), (g.op("Sub", g.whole(1), chosen), ACROSS_FIRST)):
        part = g.op("Slice", framed.image, g.whole(0), g.op("Mul", framed.down.length, share), g.whole(1))
        both.append(g.op("Reshape", g.op("Transpose", part, perm=perm), g.whole(-1)))
    shape = g.op("Concat", axes[0].length, g.whole(count, 3), axes[1].length, axis=0)
    return g.op("Reshape", g.op("Concat", *both, axis=0), shape)


def _passes(g: Graph, rows: str, axes: tuple[Axis, Axis], how: Preprocessing, count: int) -> str:
    """Rows are (first side, count, 3, second side) uint8; the result is (count, 3, second S, first S) float32."""
    (first, second), size = axes, how.image_size
    once = g.op("Reshape", resample(g, rows, first, size, how.interpolation), g.whole(size, count, 3, -1))
    rows = g.op("Transpose", once, perm=[3, 1, 2, 0])  # (second side, count, 3, S)
    twice = g.op("Reshape", resample(g, rows, second, size, how.interpolation), g.whole(size, count, 3, size))
    return g.op("Transpose", twice, perm=[1, 2, 0, 3])


def _down_first(g: Graph, framed: Framed) -> str:
    """Whether Pillow scales this picture's height before its width; (1,) bool.

    Source: found by trying: Pillow 13.0 does so where the height loses more than twice as many pixels as the width.
    """
    lost_down, lost_across = (g.op("Sub", axis.length, axis.scaled) for axis in (framed.down, framed.across))
    lost_across = g.op("Max", g.op("Mul", lost_across, g.whole(2)), g.whole(0))
    return g.op("Greater", lost_down, lost_across)


def _either(g: Graph, condition: str, one: Axis, other: Axis) -> Axis:
    names = zip((one.length, one.scaled, one.first), (other.length, other.scaled, other.first), strict=True)
    return Axis(*(g.op("Where", condition, a, b) for a, b in names))


def normalised(g: Graph, pictures: str, how: Preprocessing) -> str:
    """(N, 3, S, S) float32 from 0 to 255 to what the network takes."""
    mean, std = (g.constant(np.reshape(values, (1, 3, 1, 1)), np.float32) for values in (how.mean, how.std))
    return g.op("Div", g.op("Sub", g.op("Div", pictures, g.single(255.0)), mean), std)


def _sides(g: Graph, image: str) -> tuple[str, str]:
    """Height and width, (1,) int64 each."""
    shape = g.op("Shape", image)
    return tuple(g.op("Slice", shape, g.whole(i), g.whole(i + 1), g.whole(0)) for i in (1, 2))  # type: ignore[return-value]


def _squashed(g: Graph, image: str, how: Preprocessing) -> Framed:
    height, width = _sides(g, image)
    first = g.whole(round((how.resize - how.image_size) / 2))
    down, across = (Axis(side, g.whole(how.resize), first) for side in (height, width))
    return Framed(image, down, across, turns=pillow_turns())


def _cropped(g: Graph, image: str, how: Preprocessing) -> Framed:
    sides = _sides(g, image)
    kept = g.op("Mul", g.op("Min", *sides), g.whole(how.image_size))
    kept = g.op("Round", g.op("Div", g.cast(kept, DOUBLE), g.constant([how.resize], np.float64)))
    kept = g.op("Max", g.cast(kept, INT64), g.whole(1))
    starts = g.op("Concat", *(g.op("Div", g.op("Sub", side, kept), g.whole(2)) for side in sides), axis=0)
    cut = g.op("Slice", image, starts, g.op("Add", starts, kept), g.whole(1, 2))
    axis = Axis(kept, g.whole(how.image_size), g.whole(0))
    return Framed(cut, axis, axis)


def _letterboxed(g: Graph, image: str, how: Preprocessing) -> Framed:
    sides, size = _sides(g, image), g.whole(how.image_size)
    longer = g.cast(g.op("Max", *sides), DOUBLE)
    axes, inside = [], []
    for side, shape in zip(sides, ((-1, 1), (1, -1)), strict=True):
        share = g.op("Div", g.cast(g.op("Mul", side, size), DOUBLE), longer)
        scaled = g.op("Max", g.cast(g.op("Round", share), INT64), g.whole(1))
        before = g.op("Div", g.op("Sub", size, scaled), g.whole(2))
        place = g.op("Sub", g.constant(np.arange(how.image_size), np.int64), before)
        within = g.op("And", g.op("GreaterOrEqual", place, g.whole(0)), g.op("Less", place, scaled))
        inside.append(g.op("Reshape", within, g.whole(*shape)))
        axes.append(Axis(side, scaled, g.op("Neg", before)))
    return Framed(image, axes[0], axes[1], g.op("And", *inside), pillow_turns())


@cache
def pillow_turns() -> bool:
    """Whether this machine's Pillow scales tall pictures down before across, which moves some of their pixels.

    Pillow 13.0 does and 11 does not; the exported file does what the model was judged with.
    """
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 7, 3), dtype=np.uint8) * np.uint8(255))
    cubic = Image.Resampling.BICUBIC
    return picture.resize((9, 9), cubic).tobytes() == picture.resize((7, 9), cubic).resize((9, 9), cubic).tobytes()
