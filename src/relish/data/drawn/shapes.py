"""What everything is drawn with: random choices, colours, noise, and shapes as signed distances.

A signed distance is negative inside an outline, in half-lengths of the object whose coordinates (u, v) it is given.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array: TypeAlias = NDArray[np.floating[Any]]
Colour: TypeAlias = tuple[float, float, float] | Array
"""Red, green and blue from 0 to 1, or three planes of them."""
Option = TypeVar("Option")


def choose(options: Sequence[Option], rng: np.random.Generator) -> Option:
    """One of the options, each with the same probability."""
    return options[int(rng.integers(len(options)))]


def pick(colours: Sequence[Colour], rng: np.random.Generator) -> Colour:
    """One of the colours, a little off."""
    colour = np.asarray(choose(colours, rng), np.float32)
    off = rng.normal(0, 0.03, 3).astype(np.float32) + np.float32(rng.normal(0, 0.03))
    red, green, blue = (float(part) for part in np.clip(colour * (1 + off), 0.02, 1))
    return red, green, blue


def mix(first: Colour, second: Colour, share: Array | float) -> Array:
    """`first` where share is 0, `second` where it is 1, as three planes."""
    a, b = (np.asarray(colour, np.float32) for colour in (first, second))
    a, b = (colour.reshape(3, 1, 1) if colour.ndim == 1 else colour for colour in (a, b))
    return np.asarray(a + (b - a) * np.clip(np.asarray(share, np.float32), 0, 1), np.float32)


def hypot(x: Array, y: Array) -> Array:
    """The distance of (x, y) from the origin; NumPy's own guards against overflow and takes five times as long."""
    return np.asarray(np.sqrt(x * x + y * y), np.float32)


def capsule(u: Array, v: Array, half: float, radius: Array | float) -> Array:
    """Signed distance to a stick with round ends, `half` long on each side before the ends."""
    return np.asarray(hypot(np.maximum(np.abs(u) - half, 0), v) - radius, np.float32)


def rounded_box(u: Array, v: Array, half_u: float, half_v: float, radius: float) -> Array:
    """Signed distance to a rectangle with rounded corners."""
    over_u, over_v = np.abs(u) - (half_u - radius), np.abs(v) - (half_v - radius)
    outside = hypot(np.maximum(over_u, 0), np.maximum(over_v, 0))
    return np.asarray(outside + np.minimum(np.maximum(over_u, over_v), 0) - radius, np.float32)


def dome(distance: Array, radius: float, height: float | None = None) -> Array:
    """The rise of a body that is as round as a ball of `radius` towards its edge and flat further in."""
    depth = np.clip(1 + distance / radius, 0, 1)
    return np.asarray((radius if height is None else height) * np.sqrt(1 - depth * depth), np.float32)


def arc(depth: Array) -> Array:
    """The rise of a pipe of radius 1 at a depth from its edge (0) to its axis (1)."""
    return np.sqrt(depth * (2 - depth))


def fractal(rng: np.random.Generator, shape: tuple[int, int], cell_y: float, cell_x: float, octaves: int = 4) -> Array:
    """Smooth noise, about -1 to 1: grids of random numbers, each twice as fine and half as strong, enlarged.

    The largest cells are cell_y × cell_x pixels: unequal ones make wood grain and brushed steel.
    """
    rows, columns = shape
    total = np.zeros(shape, np.float32)
    strength, sum_of_squares = 1.0, 0.0
    for _ in range(octaves):
        grid = rng.random((int(rows / cell_y) + 3, int(columns / cell_x) + 3), np.float32) * 2 - 1
        total += strength * enlarge(grid, shape)
        sum_of_squares += strength**2
        strength, cell_y, cell_x = strength / 2, max(cell_y / 2, 1.0), max(cell_x / 2, 1.0)
    return np.asarray(total * np.float32(1.3 / np.sqrt(sum_of_squares)), np.float32)


def enlarge(grid: Array, shape: tuple[int, int]) -> Array:
    """A small grid resized smoothly to `shape`."""
    rows, columns = shape
    return np.asarray(Image.fromarray(grid).resize((columns, rows), Image.Resampling.BICUBIC), np.float32)
