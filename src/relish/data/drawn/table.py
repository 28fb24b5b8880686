"""What food lies on: tables of many kinds, grills, plates, trays, boards, napkins.

Every kind is drawn for every class alike, so that a background never gives the class away.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from relish.data.drawn.relief import Relief, Spot
from relish.data.drawn.shapes import Array, Colour, choose, enlarge, fractal, hypot, mix, rounded_box


def lay_ground(relief: Relief, rng: np.random.Generator) -> None:
    """Cover the whole relief with one kind of ground."""
    choose(GROUNDS, rng)(relief, rng)
    # Level 0 is where things lie: on the highest folds and bars, which would stick out through them otherwise.
    relief.height -= relief.height.max()


def _axes(relief: Relief, rng: np.random.Generator) -> tuple[Array, Array]:
    """Coordinates along and across, the short side being 1, turned a little."""
    rows, columns = relief.shape
    turn = rng.normal(0, 0.15) + (np.pi / 2 if rng.random() < 0.4 else 0.0)
    y = np.arange(rows, dtype=np.float32)[:, None] / min(relief.shape)
    x = np.arange(columns, dtype=np.float32)[None, :] / min(relief.shape)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    return x * cos + y * sin, y * cos - x * sin


def _lay(relief: Relief, colour: Array, height: Array | float, gloss: float) -> None:
    relief.colour[:] = np.clip(colour, 0.01, 1)
    relief.height[:] = height
    relief.gloss[:] = gloss


def _wood(relief: Relief, rng: np.random.Generator) -> None:
    short = min(relief.shape)
    upright = rng.random() < 0.4
    cells = (short / 30, short * 1.2) if not upright else (short * 1.2, short / 30)
    grain = fractal(rng, relief.shape, *cells, octaves=4)
    rows, columns = relief.shape
    across = (np.arange(columns)[None, :] if upright else np.arange(rows)[:, None]).astype(np.float32) / short
    plank = across / rng.uniform(0.14, 0.5) + rng.uniform(0, 1)
    number = np.floor(plank)
    tone = rng.random(64, np.float32)[np.asarray(number, np.intp) % 64]
    seam = np.minimum(plank - number, number + 1 - plank) < 0.012
    light, dark = choose(_WOODS, rng)
    colour = mix(dark, light, 0.5 + 0.3 * grain + 0.35 * (tone - 0.5))
    colour = colour * (1 - 0.6 * seam)
    _lay(relief, colour, -0.01 * short * seam + 0.15 * grain, rng.uniform(0.05, 0.25))


_WOODS: list[tuple[Colour, Colour]] = [
    ((0.87, 0.70, 0.48), (0.66, 0.46, 0.27)),
    ((0.66, 0.44, 0.26), (0.38, 0.22, 0.12)),
    ((0.42, 0.30, 0.22), (0.20, 0.13, 0.10)),
    ((0.80, 0.76, 0.70), (0.58, 0.54, 0.49)),
    ((0.74, 0.50, 0.34), (0.52, 0.29, 0.18)),
]


def _folds(relief: Relief, rng: np.random.Generator) -> Array:
    """Soft waves in a cloth, in pixels."""
    short = min(relief.shape)
    wide = rng.uniform(0.25, 0.8) * short
    waves = fractal(rng, relief.shape, wide, wide * rng.uniform(0.4, 2.5), octaves=2)
    return np.asarray(rng.uniform(0.008, 0.028) * short * waves + 0.12 * relief.grit, np.float32)


def _checks(relief: Relief, rng: np.random.Generator) -> None:
    u, v = _axes(relief, rng)
    period = rng.uniform(0.09, 0.28)
    stripes = sum(((along / period) % 1 < 0.5).astype(np.float32) for along in (u, v))
    cloth = choose(_CLOTHS, rng)
    colour = mix((0.94, 0.93, 0.9), cloth, (stripes) * 0.5)
    _lay(relief, colour * (1 + 0.03 * relief.grit), _folds(relief, rng), 0.02)


def _stripes(relief: Relief, rng: np.random.Generator) -> None:
    u, _ = _axes(relief, rng)
    period = rng.uniform(0.06, 0.3)
    wide = ((u / period) % 1 < rng.uniform(0.15, 0.5)).astype(np.float32)
    first, second = rng.permutation(len(_CLOTHS))[:2]
    ground: Colour = (0.92, 0.9, 0.85) if rng.random() < 0.6 else _CLOTHS[int(second)]
    colour = mix(ground, _CLOTHS[int(first)], wide)
    _lay(relief, colour * (1 + 0.03 * relief.grit), _folds(relief, rng), 0.02)


def _cloth(relief: Relief, rng: np.random.Generator) -> None:
    colour = mix(choose(_CLOTHS, rng), (0.95, 0.94, 0.92), rng.uniform(0, 1))
    _lay(relief, colour * (1 + 0.03 * relief.grit), _folds(relief, rng), 0.02)


_CLOTHS: tuple[Colour, ...] = (
    *((0.74, 0.12, 0.13), (0.16, 0.30, 0.56), (0.15, 0.42, 0.27), (0.86, 0.66, 0.18)),
    *((0.30, 0.30, 0.34), (0.56, 0.36, 0.24), (0.80, 0.50, 0.42), (0.25, 0.55, 0.56)),
)


def _marble(relief: Relief, rng: np.random.Generator) -> None:
    u, v = _axes(relief, rng)
    warp = fractal(rng, relief.shape, min(relief.shape) / 2, min(relief.shape) / 2)
    vein = np.abs(np.sin(rng.uniform(3, 7) * (u + 0.7 * v) + 2.2 * warp + 0.5 * relief.mottle))
    tone: Colour = (0.91, 0.90, 0.88) if rng.random() < 0.7 else (0.25, 0.25, 0.27)
    strength = 0.55 * np.exp(-vein * 9) + 0.12 * relief.mottle + 0.1
    colour = mix(tone, (0.56, 0.55, 0.55), strength)
    _lay(relief, colour, 0.0, rng.uniform(0.2, 0.4))


def _slate(relief: Relief, rng: np.random.Generator) -> None:
    tone = rng.uniform(0.14, 0.5)
    base: Colour = (tone, tone * rng.uniform(0.97, 1.03), tone * rng.uniform(0.95, 1.12))
    colour = mix(base, (0.6, 0.6, 0.6), 0.12 + 0.14 * relief.mottle + 0.06 * relief.grit)
    _lay(relief, colour, 0.006 * min(relief.shape) * relief.mottle + 0.3 * relief.bump, 0.08)


def _grass(relief: Relief, rng: np.random.Generator) -> None:
    short = min(relief.shape)
    blades = fractal(rng, relief.shape, short / 12, short / 70, octaves=3)
    other = fractal(rng, relief.shape, short / 20, short / 110, octaves=3)
    mixed = np.maximum(blades, np.roll(other, int(short / 9), axis=0))
    colour = mix((0.10, 0.24, 0.05), (0.46, 0.62, 0.20), 0.35 + 0.45 * mixed + 0.15 * relief.mottle)
    _lay(relief, colour, 0.012 * short * mixed, 0.05)


def _terrazzo(relief: Relief, rng: np.random.Generator) -> None:
    tone: Colour = (rng.uniform(0.6, 0.9), rng.uniform(0.6, 0.85), rng.uniform(0.55, 0.8))
    colour = mix(tone, (0.35, 0.3, 0.28), (relief.bump > 0.75).astype(np.float32) * 0.6)
    _lay(relief, colour * (1 + 0.04 * relief.grit), 0.0, 0.2)


def _grill(relief: Relief, rng: np.random.Generator) -> None:
    u, _ = _axes(relief, rng)
    glow = np.clip(relief.mottle * 1.2 - 0.1, 0, 1) * rng.uniform(0.2, 1.0)
    coals = mix((0.07, 0.065, 0.065), (0.85, 0.28, 0.05), glow) * (1 + 0.3 * relief.bump)
    period = rng.uniform(0.07, 0.13)
    off = ((u / period) % 1 - 0.5) * 2
    bar = np.abs(off) < 0.4
    rise = np.sqrt(np.maximum(0.16 - off * off, 0)) * period * 0.5 * min(relief.shape)
    tone = rng.uniform(0.12, 0.45)
    colour = np.where(bar, np.float32(tone) * (1 + 0.15 * relief.mottle), coals)
    _lay(relief, colour, np.where(bar, rise, -0.05 * min(relief.shape)), 0.35)


GROUNDS: tuple[Callable[[Relief, np.random.Generator], None], ...] = (
    *(_wood, _wood, _wood, _checks, _checks, _stripes, _cloth, _cloth),
    *(_marble, _slate, _slate, _grass, _terrazzo, _grill),
)
"""Named twice means laid twice as often."""


def serve(relief: Relief, spot: Spot, half_v: float, rng: np.random.Generator) -> Spot:
    """Put a dish (or nothing) under food that is 1 × half_v half-lengths large; returns where the food then stands."""
    kind = rng.random()
    if kind < 0.25:
        return spot
    if kind < 0.55:
        return plate(relief, spot, max(1.12, half_v * 1.3) * rng.uniform(1.0, 1.25), rng)
    if kind < 0.72:
        return tray(relief, spot, half_v, rng)
    if kind < 0.87:
        return board(relief, spot, half_v, rng)
    return napkin(relief, spot, max(1.0, half_v) * rng.uniform(0.75, 1.1), rng)


def plate(relief: Relief, spot: Spot, radius: float, rng: np.random.Generator) -> Spot:
    """A round plate with a raised rim, plain or with rings."""
    patch = relief.patch(spot, radius * 1.02)
    reach = hypot(patch.u, patch.v)
    share = reach / radius
    rim = np.clip((share - 0.72) / 0.28, 0, 1)
    rise = 0.03 + 0.1 * rim * rim * (3 - 2 * rim)
    body = choose(_PLATES, rng)
    ring = choose(_CLOTHS, rng)
    lines = (np.abs(share - rng.uniform(0.8, 0.97)) < rng.uniform(0.008, 0.05)) & (rng.random() < 0.5)
    patch.stamp(reach - radius, rise, mix(body, ring, lines.astype(np.float32)), rng.uniform(0.15, 0.5))
    return replace(spot, level=spot.level + 0.03 * spot.size)


_PLATES: tuple[Colour, ...] = (
    *((0.95, 0.95, 0.94), (0.95, 0.95, 0.94), (0.90, 0.87, 0.80)),
    *((0.70, 0.80, 0.86), (0.24, 0.25, 0.27), (0.85, 0.55, 0.40)),
)


def tray(relief: Relief, spot: Spot, half_v: float, rng: np.random.Generator) -> Spot:
    """A paper boat, white, brown or checked, its walls raised."""
    half_u, wide = 1.12, half_v + 0.22
    patch = relief.patch(spot, half_u + 0.1, wide + 0.1)
    distance = rounded_box(patch.u, patch.v, half_u, wide, 0.12)
    wall = np.clip(1 + distance / 0.14, 0, 1)
    paper: Colour = (0.94, 0.93, 0.90) if rng.random() < 0.6 else (0.78, 0.62, 0.43)
    print_colour = choose(_CLOTHS[:3], rng)
    period = rng.uniform(0.12, 0.22)
    printed = (np.floor(patch.u / period) + np.floor(patch.v / period)) % 2 * (rng.random() < 0.55)
    colour = mix(paper, print_colour, printed)
    patch.stamp(distance, 0.02 + 0.16 * wall, colour, 0.08)
    return replace(spot, level=spot.level + 0.02 * spot.size)


def board(relief: Relief, spot: Spot, half_v: float, rng: np.random.Generator) -> Spot:
    """A chopping board with grain along it."""
    half_u, wide = rng.uniform(1.12, 1.4), half_v + rng.uniform(0.18, 0.5)
    patch = relief.patch(spot, half_u + 0.05, wide + 0.05)
    distance = rounded_box(patch.u, patch.v, half_u, wide, 0.1)
    light, dark = choose(_WOODS, rng)
    grain = np.sin(patch.v * rng.uniform(25, 60) + 2.5 * patch.mottle + 1.5 * np.sin(patch.u * 2))
    colour = mix(dark, light, 0.55 + 0.2 * grain + 0.15 * patch.mottle)
    patch.stamp(distance, 0.06 - 0.04 * np.clip(1 + distance / 0.03, 0, 1), colour, 0.1)
    return replace(spot, level=spot.level + 0.06 * spot.size)


def napkin(relief: Relief, spot: Spot, half: float, rng: np.random.Generator) -> Spot:
    """A folded napkin or a sheet of greaseproof paper, creased."""
    turned = replace(spot, angle=spot.angle + rng.uniform(0, np.pi / 2))
    patch = relief.patch(turned, half * 1.05)
    distance = rounded_box(patch.u, patch.v, half, half * rng.uniform(0.75, 1.0), 0.02) + 0.012 * patch.bump
    tone = mix(choose(_CLOTHS, rng), (0.95, 0.94, 0.91), rng.choice([0.1, 0.9, 1.0]))
    crease = 0.006 * (np.abs(patch.u) < 0.01) + 0.006 * patch.mottle
    patch.stamp(distance, 0.025 + crease, tone * (1 + 0.04 * patch.grit), 0.03)
    return replace(spot, level=spot.level + 0.025 * spot.size)


def backdrop(relief: Relief, rng: np.random.Generator) -> float:
    """A table seen from the side before a wall out of focus; returns the row where the table begins, in pixels."""
    lay_ground(relief, rng)
    rows, columns = relief.shape
    edge = rng.uniform(0.3, 0.55) * rows
    _recede(relief, edge)
    y = np.arange(rows, dtype=np.float32)[:, None]
    x = np.arange(columns, dtype=np.float32)[None, :]
    wall: Array = mix(choose(_CLOTHS, rng), (0.75, 0.72, 0.66), rng.uniform(0.3, 1.0))
    wall = wall * rng.uniform(0.4, 1.0) * (0.8 + 0.3 * y / rows) * np.ones_like(x)
    for _ in range(int(rng.integers(3, 14))):
        radius = rng.uniform(0.02, 0.12) * min(relief.shape)
        far = hypot(x - rng.uniform(0, columns), y - rng.uniform(0, edge)) - radius
        glow: Colour = (rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.95), rng.uniform(0.3, 0.9))
        wall = mix(wall, glow, np.clip(0.5 - far / (0.3 * radius), 0, 1) * rng.uniform(0.15, 0.6))
    behind = np.clip((edge - y) / (0.012 * rows) + 0.5, 0, 1)
    relief.colour[:] = mix(relief.colour, wall, behind) * (0.75 + 0.25 * np.clip((y - edge) / (rows - edge), 0, 1))
    relief.height[:] = 0
    relief.gloss *= 1 - behind
    return float(edge)


def _recede(relief: Relief, edge: float) -> None:
    """Bend the ground back to a horizon at row `edge`: the further away, the smaller its pattern."""
    rows, columns = relief.shape
    near = np.clip((np.arange(rows, dtype=np.float32) - edge) / (rows - edge), 0, 1)
    depth = (1 / (0.4 + 0.6 * near))[:, None]
    x = columns / 2 + (np.arange(columns, dtype=np.float32)[None, :] - columns / 2) * depth * 0.5
    y = rows - 1 - (depth - 1) * 0.45 * rows
    # Past its border the pattern goes on mirrored, so that no seam shows.
    across = np.abs((x + columns) % (2 * columns) - columns).astype(np.intp).clip(0, columns - 1)
    down = np.abs((y + rows) % (2 * rows) - rows).astype(np.intp).clip(0, rows - 1)
    for plane in relief.colour:
        half = Image.fromarray(plane[down, across]).resize((columns // 2, rows // 2), Image.Resampling.BOX)
        plane[:] = enlarge(np.asarray(half, np.float32), relief.shape)
