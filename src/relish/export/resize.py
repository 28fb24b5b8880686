"""Pillow's antialiased resize of 8-bit pictures, written out in ONNX operators.

In:   rows of a picture, whole numbers from 0 to 255, as many as become known only when the graph runs.
Out:  (P, M) float32 whole numbers from 0 to 255: the rows at P places of the scaled picture.
Not here: which part of a picture is scaled to what (`pipeline.py`).

An exporter's own `interpolate` is not what Pillow does, so the filter is worked out here from the length itself, in
float64 as Pillow does, and rounded to its 22 bits. A float32 holds 24 bits, too few for their sum with 8-bit pixels:
each weight is split into two halves whose sums are exact, and the halves meet only where the result is rounded.

The weights of neighbouring places fall on neighbouring rows; a matrix over all rows would be mostly zeros. Places are
therefore taken in blocks, each with the window of rows it needs: the same sums with a tenth of the work.

Source: Pillow's src/libImaging/Resample.c, `precompute_coeffs`, `normalize_coeffs_8bpc` and the two 8-bit passes.
"""

from dataclasses import dataclass

import numpy as np

from relish.data.transforms import Interpolation
from relish.export.graph import DOUBLE, FLOAT, INT64, Graph

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Rows that a filter reaches to either side at scale 1."""
BICUBIC_A = -0.5
"""Sharpness of the cubic. Source: Pillow's `bicubic_filter`; Keys 1981, IEEE Transactions on ASSP 29, section IV."""
PRECISION = 2.0**22
"""Pillow's weights are whole multiples of one part in this. Source: Resample.c, `PRECISION_BITS`."""
HALF = 2.0**11
"""What the lower half of a weight counts up to."""
BLOCK = 16
"""Places that share a window of rows."""


@dataclass(frozen=True)
class Axis:
    """How places of the result lie over the rows, names of scalars in the graph."""

    length: str
    """int64: rows to scale."""
    scaled: str
    """int64: places they are scaled to, of which some are asked for."""
    first: str
    """int64: the first place asked for; below 0 before the picture begins, where the result means nothing."""


def resample(graph: Graph, rows: str, axis: Axis, places: int, interpolation: Interpolation) -> str:
    """Scale rows.

    Args:
        rows: (L, …) uint8 or float32, whole numbers from 0 to 255; M values in each row.
        places: P, how many are asked for, from `axis.first` on.

    Returns:
        (P, M) float32, whole numbers from 0 to 255.
    """
    g = graph
    blocks = -(-places // BLOCK)
    length, scale, stretch = g.cast(axis.length, DOUBLE), *_scale(g, axis)
    support = g.op("Mul", stretch, g.real(SUPPORT[interpolation]))
    place = g.op("Add", g.cast(axis.first, DOUBLE), g.constant(np.arange(blocks * BLOCK), np.float64))  # (blocks·B,)
    centre = g.op("Mul", g.op("Add", place, g.real(0.5)), scale)
    start = _rounded(g, g.op("Sub", centre, support))
    end = _rounded(g, g.op("Add", centre, support))
    row = _windows(g, length, scale, support, start, blocks)  # (blocks, 1, W)
    shape = g.whole(blocks, BLOCK, 1)
    centre, start, end = (g.op("Reshape", name, shape) for name in (centre, start, end))
    distance = g.op("Div", g.op("Add", g.op("Sub", row, centre), g.real(0.5)), stretch)  # (blocks, B, W)
    high, low = _halves(g, _weights(g, distance, row, start, end, interpolation))
    weights = g.op("Concat", high, low, axis=1)  # (blocks, 2B, W) float32
    gathered = g.op("Gather", rows, g.op("Squeeze", g.cast(row, INT64), g.whole(1)), axis=0)
    gathered = g.op("Reshape", g.cast(gathered, FLOAT), g.whole(0, 0, -1))  # (blocks, W, M)
    sums = g.op("MatMul", weights, gathered)  # (blocks, 2B, M)
    return _pixels(g, sums, blocks, places)


def _scale(g: Graph, axis: Axis) -> tuple[str, str]:
    """Rows a place, and the same but at least 1: a filter is stretched only where a picture gets smaller."""
    scale = g.op("Div", g.cast(axis.length, DOUBLE), g.cast(axis.scaled, DOUBLE))
    return scale, g.op("Max", scale, g.real(1.0))


def _rounded(g: Graph, name: str) -> str:
    return g.op("Floor", g.op("Add", name, g.real(0.5)))


def _windows(g: Graph, length: str, scale: str, support: str, start: str, blocks: int) -> str:
    """Which rows each block reads."""
    reach = g.op("Add", g.op("Mul", scale, g.real(BLOCK - 1.0)), g.op("Mul", support, g.real(2.0)))
    window = g.op("Min", g.op("Add", g.op("Floor", reach), g.real(2.0)), length)
    begins = g.op("Slice", start, g.whole(0), g.whole(blocks * BLOCK), g.whole(0), g.whole(BLOCK))  # (blocks,)
    begins = g.op("Max", g.op("Min", begins, g.op("Sub", length, window)), g.real(0.0))
    steps = g.op("Range", g.real(0.0), window, g.real(1.0))  # (W,)
    begins = g.op("Reshape", begins, g.whole(blocks, 1, 1))
    return g.op("Add", begins, steps)


def _weights(g: Graph, distance: str, row: str, start: str, end: str, interpolation: Interpolation) -> str:
    """Each row's share in each place, as whole multiples of 1 / PRECISION, (blocks, B, W) float64."""
    inside = g.op("And", g.op("GreaterOrEqual", row, start), g.op("Less", row, end))
    shares = g.op("Mul", _filter(g, distance, interpolation), g.cast(inside, DOUBLE))
    total = g.op("ReduceSum", shares, g.whole(2), keepdims=1)
    # Places outside the picture have no row at all; they are painted over later.
    none = g.cast(g.op("Equal", total, g.real(0.0)), DOUBLE)
    shares = g.op("Mul", g.op("Div", shares, g.op("Add", total, none)), g.real(PRECISION))
    return g.op("Mul", g.op("Sign", shares), _rounded(g, g.op("Abs", shares)))


def _filter(g: Graph, distance: str, interpolation: Interpolation) -> str:
    x = g.op("Abs", distance)
    if interpolation == "bilinear":
        return g.op("Max", g.op("Sub", g.real(1.0), x), g.real(0.0))
    a = BICUBIC_A
    near = g.op("Sub", g.op("Mul", x, g.real(a + 2)), g.real(a + 3))
    near = g.op("Add", g.op("Mul", g.op("Mul", near, x), x), g.real(1.0))
    far = g.op("Add", g.op("Mul", g.op("Sub", x, g.real(5.0)), x), g.real(8.0))
    far = g.op("Mul", g.op("Sub", g.op("Mul", far, x), g.real(4.0)), g.real(a))
    is_near = g.cast(g.op("Less", x, g.real(1.0)), DOUBLE)
    is_far = g.op("Sub", g.cast(g.op("Less", x, g.real(2.0)), DOUBLE), is_near)
    return g.op("Add", g.op("Mul", near, is_near), g.op("Mul", far, is_far))


def _halves(g: Graph, weights: str) -> tuple[str, str]:
    high = _rounded(g, g.op("Div", weights, g.real(HALF)))
    low = g.op("Sub", weights, g.op("Mul", high, g.real(HALF)))
    return g.cast(high, FLOAT), g.cast(low, FLOAT)


def _pixels(g: Graph, sums: str, blocks: int, places: int) -> str:
    """The nearest whole numbers, as adding a half and shifting by 22 bits gives them."""
    axes = g.whole(1)
    high = g.op("Slice", sums, g.whole(0), g.whole(BLOCK), axes)
    low = g.op("Slice", sums, g.whole(BLOCK), g.whole(2 * BLOCK), axes)
    high = g.op("Add", g.op("Mul", high, g.single(HALF / PRECISION)), g.single(0.5))
    whole = g.op("Floor", high)
    rest = g.op("Add", g.op("Sub", high, whole), g.op("Mul", low, g.single(1 / PRECISION)))
    value = g.op("Clip", g.op("Add", whole, g.op("Floor", rest)), g.single(0.0), g.single(255.0))
    flat = g.op("Reshape", value, g.whole(blocks * BLOCK, -1))
    return g.op("Slice", flat, g.whole(0), g.whole(places), g.whole(0))
