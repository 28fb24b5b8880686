"""Preprocessing as ONNX operators: (N, H, W, 3) uint8 images of any size to the network's (N, 3, S, S) float32.

`pixels` and `normalised` compute what `transforms.evaluation_transform` and `normalise` compute; everything that
follows from an image's size is worked out inside the graph. An exporter's own `interpolate` is not Pillow's resize, so
the filter is computed here from the length itself, in float64 as Pillow does, and rounded to its 22 bits. A float32
holds 24 bits, too few for the sum of such weights with 8-bit pixels: each weight is split into two halves whose sums
are exact, and the halves are added only where the result is rounded.

The weights of neighbouring rows of the result fall on neighbouring rows of the image; a matrix over all rows would be
mostly zeros. The result's rows are therefore computed in blocks, each with the window of rows it needs: the same sums
with a tenth of the work.

Source: Pillow's src/libImaging/Resample.c, `precompute_coeffs`, `normalize_coeffs_8bpc` and the two 8-bit passes.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from relish.data.transforms import Interpolation, Preprocessing

DOUBLE, FLOAT, INT64, UINT8 = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Half width of a filter in rows, at scale 1."""
BICUBIC_A = -0.5
"""Sharpness of the cubic. Source: Pillow's `bicubic_filter`; Keys 1981, IEEE Transactions on ASSP 29, section IV."""
PRECISION = 2.0**22
"""Pillow's weights are whole multiples of one part in this. Source: Resample.c, `PRECISION_BITS`."""
HALF = 2.0**11
"""The lower half of a weight is below this."""
BLOCK = 16
"""Rows of the result that share a window of the image's rows."""
WIDTH_FIRST, HEIGHT_FIRST = [2, 0, 3, 1], [1, 0, 3, 2]
"""(N, h, w, 3) to rows of the side that is scaled first, (w, N, 3, h) or (h, N, 3, w)."""


class Graph:
    """Builds an ONNX graph node by node: each method returns the name of its result.

    Args:
        prefix: of every name, so that two graphs can be joined; names depend on the order of calls alone.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initialisers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, operator: str, *inputs: str, named: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        """Add one node; returns the name of its first output, `named` where that is given."""
        number = len(self.nodes)
        result = named or f"{self.prefix}/{number:03}_{operator.lower()}"
        name = f"{self.prefix}/{operator}_{number:03}"
        results = [result, *(f"{result}_{further}" for further in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, list(inputs), results, name=name, **attributes))
        return result

    def constant(self, value: Any, dtype: npt.DTypeLike) -> str:
        """A constant's name; equal constants are stored once."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"{self.prefix}/constant_{len(self._constants):03}"
            self.initialisers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def whole(self, *values: int) -> str:
        """(n,) int64, as shapes, axes and slices are given."""
        return self.constant(values, np.int64)

    def real(self, value: float) -> str:
        """A float64 scalar."""
        return self.constant(value, np.float64)

    def single(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(value, np.float32)

    def cast(self, name: str, to: int) -> str:
        """The same values in another type."""
        return self.op("Cast", name, to=to)


@dataclass(frozen=True)
class Axis:
    """How rows of the image are scaled to rows of the result; names of (1,) values in the graph."""

    length: str
    """int64: rows of the image."""
    scaled: str
    """int64: rows they are scaled to, of which a crop or all are computed."""
    first: str
    """int64: the first of these that is computed; below 0 in a letterbox, where the result is overwritten later."""


def resample(graph: Graph, rows: str, axis: Axis, count: int, interpolation: Interpolation) -> str:
    """Pillow's antialiased resize along one axis.

    Args:
        rows: (L, …) uint8 or float32, whole numbers from 0 to 255; M values in each row.
        count: P, the rows of the result that are computed, from `axis.first` on.

    Returns:
        (P, M) float32, whole numbers from 0 to 255.
    """
    g = graph
    blocks = -(-count // BLOCK)
    length, scaled = g.cast(axis.length, DOUBLE), g.cast(axis.scaled, DOUBLE)
    scale = g.op("Div", length, scaled)  # rows of the image for one of the result
    stretch = g.op("Max", scale, g.real(1.0))  # a filter is never narrower than at scale 1
    support = g.op("Mul", stretch, g.real(SUPPORT[interpolation]))
    position = g.op("Add", g.cast(axis.first, DOUBLE), g.constant(np.arange(blocks * BLOCK), np.float64))  # (blocks·B,)
    centre = g.op("Mul", g.op("Add", position, g.real(0.5)), scale)
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
    return _whole_pixels(g, sums, blocks, count)


def _rounded(g: Graph, name: str) -> str:
    return g.op("Floor", g.op("Add", name, g.real(0.5)))


def _windows(g: Graph, length: str, scale: str, support: str, start: str, blocks: int) -> str:
    """The image's rows that each block reads, (blocks, 1, W)."""
    reach = g.op("Add", g.op("Mul", scale, g.real(BLOCK - 1.0)), g.op("Mul", support, g.real(2.0)))
    window = g.op("Min", g.op("Add", g.op("Floor", reach), g.real(2.0)), length)
    begins = g.op("Slice", start, g.whole(0), g.whole(blocks * BLOCK), g.whole(0), g.whole(BLOCK))  # (blocks,)
    begins = g.op("Max", g.op("Min", begins, g.op("Sub", length, window)), g.real(0.0))
    steps = g.op("Range", g.real(0.0), window, g.real(1.0))  # (W,)
    begins = g.op("Reshape", begins, g.whole(blocks, 1, 1))
    return g.op("Add", begins, steps)


def _weights(g: Graph, distance: str, row: str, start: str, end: str, interpolation: Interpolation) -> str:
    """The weight of each row of the image in each row of the result, times PRECISION, (blocks, B, W) float64."""
    inside = g.op("And", g.op("GreaterOrEqual", row, start), g.op("Less", row, end))
    shares = g.op("Mul", _filter(g, distance, interpolation), g.cast(inside, DOUBLE))
    total = g.op("ReduceSum", shares, g.whole(2), keepdims=1)
    # Rows outside the image have no weight at all; they are overwritten later.
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


def _whole_pixels(g: Graph, sums: str, blocks: int, count: int) -> str:
    """The sums rounded to whole numbers, as adding a half and shifting by 22 bits rounds them."""
    axes = g.whole(1)
    high = g.op("Slice", sums, g.whole(0), g.whole(BLOCK), axes)
    low = g.op("Slice", sums, g.whole(BLOCK), g.whole(2 * BLOCK), axes)
    high = g.op("Add", g.op("Mul", high, g.single(HALF / PRECISION)), g.single(0.5))
    whole = g.op("Floor", high)
    rest = g.op("Add", g.op("Sub", high, whole), g.op("Mul", low, g.single(1 / PRECISION)))
    value = g.op("Clip", g.op("Add", whole, g.op("Floor", rest)), g.single(0.0), g.single(255.0))
    flat = g.op("Reshape", value, g.whole(blocks * BLOCK, -1))
    return g.op("Slice", flat, g.whole(0), g.whole(count), g.whole(0))


@dataclass(frozen=True)
class Framed:
    """Which part of the images is scaled, and to what."""

    image: str
    """(N, h, w, 3) uint8: the part that is scaled."""
    height: Axis
    width: Axis
    inside: str | None = None
    """(S, S) bool: where the result is image and no border; None where there is no border."""
    may_scale_height_first: bool = False
    """Whether Pillow scales the height of some images before their width."""


def pixels(g: Graph, image: str, preprocessing: Preprocessing, count: int) -> str:
    """The images at the network's size.

    Args:
        image: (count, H, W, 3) uint8.

    Returns:
        (count, 3, S, S) float32, the whole numbers that `evaluation_transform` gives.
    """
    framed = {"squash": _squashed, "crop": _cropped, "letterbox": _letterboxed}[preprocessing.framing](
        g, image, preprocessing
    )
    scaled = _scaled(g, framed, preprocessing, count)
    if framed.inside is None:
        return scaled
    colour = np.array([round(255 * value) for value in preprocessing.mean], dtype=np.float32).reshape(1, 3, 1, 1)
    return g.op("Where", framed.inside, scaled, g.constant(colour, np.float32))


def _scaled(g: Graph, framed: Framed, preprocessing: Preprocessing, count: int) -> str:
    """Two passes with 8-bit rounding between them, (count, 3, S, S); Pillow's rule decides which axis is first."""
    if not framed.may_scale_height_first:
        rows = g.op("Transpose", framed.image, perm=WIDTH_FIRST)
        return _passes(g, rows, (framed.width, framed.height), preprocessing, count)
    height_first = _height_first(g, framed)
    axes = [(framed.height, framed.width), (framed.width, framed.height)]
    first, second = (_either(g, height_first, one, other) for one, other in axes)
    rows = _first_axis_rows(g, framed, height_first, (first, second), count)
    result = _passes(g, rows, (first, second), preprocessing, count)
    return g.op("Where", height_first, g.op("Transpose", result, perm=[0, 1, 3, 2]), result)


def _first_axis_rows(g: Graph, framed: Framed, height_first: str, axes: tuple[Axis, Axis], count: int) -> str:
    """The image as rows of the axis that is scaled first.

    An `If` would do, but OpenVINO 2026.4 reads wrong bytes behind one. So both orders are made, one of them from an
    empty slice, and joined.
    """
    chosen, both = g.cast(height_first, INT64), []
    for share, perm in ((chosen, HEIGHT_FIRST), (g.op("Sub", g.whole(1), chosen), WIDTH_FIRST)):
        part = g.op("Slice", framed.image, g.whole(0), g.op("Mul", framed.height.length, share), g.whole(1))
        both.append(g.op("Reshape", g.op("Transpose", part, perm=perm), g.whole(-1)))
    shape = g.op("Concat", axes[0].length, g.whole(count, 3), axes[1].length, axis=0)
    return g.op("Reshape", g.op("Concat", *both, axis=0), shape)


def _passes(g: Graph, rows: str, axes: tuple[Axis, Axis], preprocessing: Preprocessing, count: int) -> str:
    """Rows are (first side, count, 3, second side) uint8; the result is (count, 3, second S, first S) float32."""
    (first, second), size = axes, preprocessing.image_size
    once = g.op("Reshape", resample(g, rows, first, size, preprocessing.interpolation), g.whole(size, count, 3, -1))
    rows = g.op("Transpose", once, perm=[3, 1, 2, 0])  # (second side, count, 3, S)
    twice = g.op("Reshape", resample(g, rows, second, size, preprocessing.interpolation), g.whole(size, count, 3, size))
    return g.op("Transpose", twice, perm=[1, 2, 0, 3])


def _height_first(g: Graph, framed: Framed) -> str:
    """Whether Pillow scales this image's height before its width; (1,) bool.

    Source: measured: Pillow 13.0 does so where the height loses more than twice as many pixels as the width.
    """
    lost_height, lost_width = (g.op("Sub", axis.length, axis.scaled) for axis in (framed.height, framed.width))
    lost_width = g.op("Max", g.op("Mul", lost_width, g.whole(2)), g.whole(0))
    return g.op("Greater", lost_height, lost_width)


def _either(g: Graph, condition: str, one: Axis, other: Axis) -> Axis:
    names = zip((one.length, one.scaled, one.first), (other.length, other.scaled, other.first), strict=True)
    return Axis(*(g.op("Where", condition, a, b) for a, b in names))


def normalised(g: Graph, images: str, preprocessing: Preprocessing) -> str:
    """(N, 3, S, S) float32 from 0 to 255 to the network's input: over 255, less the mean, over the deviation."""
    mean, std = (
        g.constant(np.reshape(values, (1, 3, 1, 1)), np.float32) for values in (preprocessing.mean, preprocessing.std)
    )
    return g.op("Div", g.op("Sub", g.op("Div", images, g.single(255.0)), mean), std)


def _sides(g: Graph, image: str) -> tuple[str, str]:
    """Height and width, (1,) int64 each."""
    shape = g.op("Shape", image)
    return tuple(g.op("Slice", shape, g.whole(i), g.whole(i + 1), g.whole(0)) for i in (1, 2))  # type: ignore[return-value]


def _squashed(g: Graph, image: str, preprocessing: Preprocessing) -> Framed:
    height, width = _sides(g, image)
    first = g.whole(round((preprocessing.resize - preprocessing.image_size) / 2))
    height_axis, width_axis = (Axis(side, g.whole(preprocessing.resize), first) for side in (height, width))
    return Framed(image, height_axis, width_axis, may_scale_height_first=pillow_scales_height_first())


def _cropped(g: Graph, image: str, preprocessing: Preprocessing) -> Framed:
    sides = _sides(g, image)
    kept = g.op("Mul", g.op("Min", *sides), g.whole(preprocessing.image_size))
    kept = g.op("Round", g.op("Div", g.cast(kept, DOUBLE), g.constant([preprocessing.resize], np.float64)))
    kept = g.op("Max", g.cast(kept, INT64), g.whole(1))
    starts = g.op("Concat", *(g.op("Div", g.op("Sub", side, kept), g.whole(2)) for side in sides), axis=0)
    cut = g.op("Slice", image, starts, g.op("Add", starts, kept), g.whole(1, 2))
    axis = Axis(kept, g.whole(preprocessing.image_size), g.whole(0))
    return Framed(cut, axis, axis)


def _letterboxed(g: Graph, image: str, preprocessing: Preprocessing) -> Framed:
    sides, size = _sides(g, image), g.whole(preprocessing.image_size)
    longer = g.cast(g.op("Max", *sides), DOUBLE)
    axes, inside = [], []
    for side, shape in zip(sides, ((-1, 1), (1, -1)), strict=True):
        share = g.op("Div", g.cast(g.op("Mul", side, size), DOUBLE), longer)
        scaled = g.op("Max", g.cast(g.op("Round", share), INT64), g.whole(1))
        before = g.op("Div", g.op("Sub", size, scaled), g.whole(2))
        row = g.op("Sub", g.constant(np.arange(preprocessing.image_size), np.int64), before)
        within = g.op("And", g.op("GreaterOrEqual", row, g.whole(0)), g.op("Less", row, scaled))
        inside.append(g.op("Reshape", within, g.whole(*shape)))
        axes.append(Axis(side, scaled, g.op("Neg", before)))
    return Framed(image, axes[0], axes[1], g.op("And", *inside), pillow_scales_height_first())


@cache
def pillow_scales_height_first() -> bool:
    """Whether this machine's Pillow scales the height of tall images before their width, which changes some pixels.

    Pillow 13.0 does and 11 does not; the exported file does as the Pillow that the model was evaluated with.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 7, 3), dtype=np.uint8) * np.uint8(255))
    cubic = Image.Resampling.BICUBIC
    return image.resize((9, 9), cubic).tobytes() == image.resize((7, 9), cubic).resize((9, 9), cubic).tobytes()
