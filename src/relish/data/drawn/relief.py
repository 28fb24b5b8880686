"""A drawn scene: height, colour and gloss of every point before the light is switched on, then the photograph.

Shapes are signed distances in an object's own coordinates, stamped one after the other onto a `Relief`. Height is kept
instead of painted shadows because one lighting pass then rounds, shades and grounds everything alike. The light is one
lamp or window (Lambert and Blinn-Phong), shadows cast along its direction, creases darkened by how far a point lies
below its surroundings; the camera adds tilt, depth of field, vignette, white balance, blur and noise.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from relish.data.drawn.shapes import Array, Colour, enlarge, fractal


@dataclass(frozen=True)
class Spot:
    """Where an object lies: its centre and half-length in pixels, its turn in radians, the height it stands on."""

    x: float
    y: float
    size: float
    angle: float = 0.0
    level: float = 0.0

    def at(self, u: float, v: float, scale: float = 1.0, turn: float = 0.0) -> "Spot":
        """A spot at (u, v) of this one's own coordinates, `scale` times as large."""
        cos, sin = float(np.cos(self.angle)), float(np.sin(self.angle))
        x = self.x + self.size * (u * cos - v * sin)
        y = self.y + self.size * (u * sin + v * cos)
        return replace(self, x=x, y=y, size=self.size * scale, angle=self.angle + turn)


class Relief:
    """Height, colour and gloss of a scene, with noise to make textures of."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.shape = (height, width)
        self.height: Array = np.zeros(self.shape, np.float32)
        self.colour: Array = np.zeros((3, *self.shape), np.float32)
        self.gloss: Array = np.zeros(self.shape, np.float32)
        short = min(width, height)
        self.mottle = fractal(rng, self.shape, short / 9, short / 9)
        self.bump = fractal(rng, self.shape, short / 40, short / 40, octaves=2)
        self.grit: Array = rng.random(self.shape, np.float32) * 2 - 1

    def patch(self, spot: Spot, reach_u: float, reach_v: float | None = None, bend: float = 0.0) -> "Patch":
        """The window around `spot` that holds |u| <= reach_u and |v| <= reach_v."""
        return Patch(self, spot, reach_u, reach_u if reach_v is None else reach_v, bend)


class Patch:
    """A window of a relief in an object's own coordinates: u along it, v across it, 1 its half-length.

    With a bend the u axis is the parabola v = bend · u², so that a banana is drawn as if it were straight.
    """

    def __init__(self, relief: Relief, spot: Spot, reach_u: float, reach_v: float, bend: float) -> None:
        cos, sin = float(np.cos(spot.angle)), float(np.sin(spot.angle))
        across = reach_v + abs(bend) * reach_u**2
        half_x = spot.size * (abs(cos) * reach_u + abs(sin) * across) + 2
        half_y = spot.size * (abs(sin) * reach_u + abs(cos) * across) + 2
        rows, columns = relief.shape
        top, bottom = _inside(spot.y - half_y, rows), _inside(spot.y + half_y, rows)
        left, right = _inside(spot.x - half_x, columns), _inside(spot.x + half_x, columns)
        self.window = (slice(top, bottom), slice(left, right))
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] - spot.y) / spot.size
        x = (np.arange(left, right, dtype=np.float32)[None, :] - spot.x) / spot.size
        self.u: Array = x * cos + y * sin
        self.v: Array = y * cos - x * sin
        if bend:
            self.v = (self.v - bend * self.u**2) / np.sqrt(1 + 4 * bend * bend * self.u**2)
        self.relief, self.spot = relief, spot
        self.mottle: Array = relief.mottle[self.window]
        self.bump: Array = relief.bump[self.window]
        self.grit: Array = relief.grit[self.window]

    @property
    def empty(self) -> bool:
        """Whether the whole window lies outside the image, as that of a thing at the edge of the table may."""
        return self.u.size == 0

    def stamp(self, distance: Array, rise: Array | float, colour: Colour, gloss: float = 0.1) -> None:
        """Put a body on the spot's level; points that are higher already stay as they are.

        Args:
            distance: signed distance to the outline, negative inside, in half-lengths.
            rise: height of its surface above the spot's level, in half-lengths.
        """
        height = self.relief.height[self.window]
        new = self.spot.level + np.float32(self.spot.size) * np.asarray(rise, np.float32)
        cover = np.clip(0.5 - distance * self.spot.size, 0, 1) * np.clip(new - height + 0.5, 0, 1)
        height += (new - height) * cover
        self._tint(cover, colour, gloss)

    def coat(self, distance: Array, rise: Array | float, colour: Colour, gloss: float = 0.1, soft: float = 1.0) -> None:
        """Spread a layer over what is there, `rise` half-lengths thick; `soft` is the width of its edge in pixels."""
        cover = np.clip(0.5 - distance * (self.spot.size / soft), 0, 1)
        self.relief.height[self.window] += np.asarray(rise, np.float32) * np.float32(self.spot.size) * cover
        self._tint(cover, colour, gloss)

    def _tint(self, cover: Array, colour: Colour, gloss: float) -> None:
        planes = self.relief.colour[(slice(None), *self.window)]
        for plane, value in zip(planes, colour, strict=True):
            plane += (value - plane) * cover
        shine = self.relief.gloss[self.window]
        shine += (gloss - shine) * cover


def _inside(position: float, limit: int) -> int:
    return int(min(max(round(position), 0), limit))


def speckle(patch: Patch, spacing: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Scattered grains, one a cell of a jittered grid: seeds, sprinkles, chips, kernels.

    Returns:
        each point's coordinates (along, across) in the grain of its own cell, half-lengths of the patch, the grain
        turned at random; and that grain's own number from 0 to 1.
    """
    tables = rng.random((4, 13, 13), np.float32)
    row, column = np.floor(patch.v / spacing), np.floor(patch.u / spacing)
    at = (np.asarray(row, np.intp) % 13, np.asarray(column, np.intp) % 13)
    u = patch.u - (column + 0.3 + 0.4 * tables[0][at]) * spacing
    v = patch.v - (row + 0.3 + 0.4 * tables[1][at]) * spacing
    turn = tables[2] * np.float32(np.pi)
    cos, sin = np.cos(turn)[at], np.sin(turn)[at]
    return u * cos + v * sin, v * cos - u * sin, tables[3][at]


# ---- light and camera -----------------------------------------------------------------------------------------------


STEEPEST = 3.0


def photograph(
    relief: Relief, size: tuple[int, int], rng: np.random.Generator, *, tilted: bool = True, shadows: float = 1.0
) -> Image.Image:
    """The relief as an image of size (width, height), in light and through a camera drawn from `rng`.

    Args:
        tilted: whether the camera may look at the table from an angle.
        shadows: how much of the cast shadows is kept, 0 to 1.
    """
    lit = _expose(_lit(relief, rng, shadows), rng)
    image = Image.fromarray(np.asarray(np.clip(lit, 0, 1) * 255 + 0.5, np.uint8).transpose(1, 2, 0).copy())
    if tilted and rng.random() < 0.6:
        image = _tilt(image, rng)
    image = image.resize(size, Image.Resampling.LANCZOS if rng.random() < 0.7 else Image.Resampling.BOX)
    return _film(image, rng)


def _lit(relief: Relief, rng: np.random.Generator, shadows: float) -> Array:
    azimuth, lift = rng.uniform(-np.pi * 0.95, -np.pi * 0.05), rng.uniform(0.6, 1.05)
    lamp = (float(np.cos(azimuth) * np.cos(lift)), float(np.sin(azimuth) * np.cos(lift)), float(np.sin(lift)))
    height = relief.height
    slope_y, slope_x = np.zeros_like(height), np.zeros_like(height)
    slope_y[1:-1] = (height[2:] - height[:-2]) / 2
    slope_x[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / 2
    np.clip(slope_y, -STEEPEST, STEEPEST, out=slope_y)
    np.clip(slope_x, -STEEPEST, STEEPEST, out=slope_x)
    upright = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) * upright
    hollow = _smooth(height, 10) - height  # how far each point lies below its surroundings, in pixels
    open_sky = 1 - np.clip(hollow / (0.06 * min(relief.shape)), 0, 0.55)
    clear = 1 - rng.uniform(0.45, 0.85) * shadows * _shadow(height, lamp)
    ambient = rng.uniform(0.32, 0.5)
    diffuse = ambient * open_sky * (0.6 + 0.4 * upright) + (1.12 - ambient) * np.maximum(facing, 0) * clear
    half = np.array([lamp[0], lamp[1], lamp[2] + 1])
    half /= np.linalg.norm(half)
    mirror = np.maximum((float(half[2]) - slope_x * float(half[0]) - slope_y * float(half[1])) * upright, 0)
    for _ in range(5):
        mirror *= mirror
    glint = 0.75 * relief.gloss * mirror * clear
    return np.asarray(relief.colour * diffuse + glint, np.float32)


def _shadow(height: Array, lamp: tuple[float, float, float]) -> Array:
    """How much of the lamp is hidden from each point by what stands between, 0 to 1."""
    flat = float(np.hypot(lamp[0], lamp[1]))
    rise, reach = lamp[2] / flat, 0.3 * min(height.shape)
    hidden = np.zeros_like(height)
    for share in (0.03, 0.07, 0.12, 0.18, 0.26, 0.36, 0.5, 0.68, 0.9):
        step = share * reach
        higher = _shifted(height, step * lamp[0] / flat, step * lamp[1] / flat) - height - step * rise
        np.maximum(hidden, np.clip(higher / (1 + 0.12 * step) + 0.2, 0, 1), out=hidden)
    return _smooth(hidden, 3)


def _smooth(plane: Array, cell: int) -> Array:
    """A plane without what is finer than `cell` pixels."""
    rows, columns = plane.shape
    small = Image.fromarray(plane).resize((max(columns // cell, 1), max(rows // cell, 1)), Image.Resampling.BOX)
    return enlarge(np.asarray(small, np.float32), plane.shape)


def _shifted(height: Array, x: float, y: float) -> Array:
    """The height found (x, y) pixels further on; at the border that of the border."""
    rows = np.clip(np.arange(height.shape[0]) + round(y), 0, height.shape[0] - 1)
    columns = np.clip(np.arange(height.shape[1]) + round(x), 0, height.shape[1] - 1)
    return height.take(rows, axis=0).take(columns, axis=1)


def _expose(lit: Array, rng: np.random.Generator) -> Array:
    """Uneven light over the table, vignette, white balance, exposure and contrast."""
    _, rows, columns = lit.shape
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    falloff = 1 + rng.uniform(-0.25, 0.25) * x + rng.uniform(-0.25, 0.15) * y
    if rng.random() < 0.5:
        falloff = falloff * (1 - rng.uniform(0.1, 0.4) * (x * x + y * y) / 2)
    warmth = rng.normal(0, 0.07)
    exposure = float(np.exp(rng.normal(-0.04, 0.18)))
    balance = np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth * 1.3], np.float32).reshape(3, 1, 1)
    bright = lit * falloff * (balance * np.float32(exposure))
    # A film's shoulder: highlights run out softly instead of being cut off.
    shouldered = bright * (1 + bright * 0.12) / (1 + bright * 0.3) * 1.14
    contrast = rng.uniform(0.85, 1.2)
    return np.asarray((shouldered - 0.45) * contrast + 0.45, np.float32)


def _tilt(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Look at the table from in front: what is further away is smaller and a little out of focus."""
    width, height = image.size
    narrow, cut = rng.uniform(0.04, 0.16) * width, rng.uniform(0.0, 0.06) * height
    corners = (0.0, cut, narrow, height - cut * 0.3, width - narrow, height - cut * 0.3, float(width), cut)
    tilted = image.transform(image.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        blurred = tilted.filter(ImageFilter.GaussianBlur(rng.uniform(0.004, 0.012) * min(width, height)))
        ramp = np.linspace(255, -120, height).clip(0, 255).astype(np.uint8)
        mask = Image.fromarray(np.repeat(ramp[:, None], width, axis=1))
        tilted = Image.composite(blurred, tilted, mask)
    return tilted


def _film(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur of hand and lens, noise of the sensor."""
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.004 * min(image.size) + 0.31)))
    strength = rng.gamma(1.5, 1.5)
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape[:2], np.float32) * np.float32(strength)
    return Image.fromarray(np.asarray(np.clip(pixels + noise[..., None] + 0.5, 0, 255), np.uint8))
