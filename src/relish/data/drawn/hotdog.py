"""Hot dogs, and the two things that are half of one: a sausage without a bun, a bun without a sausage.

All three are made of the same parts in the same colours: a hot dog is told by the sausage in the bun.
"""

import numpy as np

from relish.data.drawn.relief import Patch, Relief, Spot, speckle
from relish.data.drawn.shapes import Colour, arc, capsule, choose, hypot, mix, pick

MUSTARD: tuple[Colour, ...] = ((0.93, 0.74, 0.10), (0.86, 0.62, 0.08), (0.96, 0.82, 0.25))
KETCHUP: tuple[Colour, ...] = ((0.74, 0.09, 0.05), (0.62, 0.06, 0.05))
CRUSTS: tuple[tuple[Colour, Colour], ...] = (
    ((0.93, 0.74, 0.47), (0.76, 0.47, 0.20)),
    ((0.90, 0.66, 0.36), (0.64, 0.35, 0.13)),
    ((0.95, 0.84, 0.64), (0.84, 0.62, 0.36)),
    ((0.83, 0.60, 0.36), (0.52, 0.29, 0.13)),
)
"""Pale side and baked top."""
SAUSAGES: tuple[Colour, ...] = (
    *((0.78, 0.33, 0.20), (0.70, 0.27, 0.16), (0.85, 0.44, 0.30)),
    *((0.58, 0.26, 0.14), (0.76, 0.48, 0.30), (0.66, 0.18, 0.12)),
)
CRUMB: Colour = (0.97, 0.91, 0.77)


def draw_hotdog(relief: Relief, spot: Spot, rng: np.random.Generator, lean: float | None = None) -> None:
    """A sausage in a bun, with what people put on it.

    Args:
        lean: 0 seen from above, towards 1 seen from the side, the near half of the bun in front.
    """
    bend, bun, sausage = rng.normal(0, 0.07), rng.uniform(0.19, 0.25), rng.uniform(0.125, 0.17)
    length, gap = rng.uniform(0.86, 1.16), rng.uniform(0.14, 0.2)
    lean = rng.choice([0.0, 0.0, rng.uniform(0.2, 1.0)]) if lean is None else lean
    patch = relief.patch(spot, 1.3, 0.62, bend)
    crust = choose(CRUSTS, rng)
    rise, middle = 0.1, -0.09 * lean
    _half_bun(patch, -gap - 0.05 * lean, bun, rise + 0.05 * lean, crust, inner=1.0)
    patch.stamp(capsule(patch.u, patch.v, 0.8, gap), 0.1, CRUMB, 0.02)
    _sausage(patch, middle, sausage, length, rise + 0.12 + 0.02 * lean, pick(SAUSAGES, rng), rng)
    if rng.random() < 0.25:
        _bed(patch, middle, gap + 0.05, bun * 0.85 + 0.09, rng)
    _half_bun(patch, gap + 0.02 * lean, bun, rise + 0.12 * lean, crust, inner=-1.0)
    _garnish(patch, middle - 0.02 * lean, sausage, min(length, 1.0) - 0.16, rng)


def draw_sausage(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A sausage, or a few side by side, with no bun; sometimes with a stripe of mustard or ketchup."""
    count = int(rng.choice([1, 1, 2, 3]))
    bend, radius = rng.normal(0, 0.12), rng.uniform(0.13, 0.2)
    skin = pick(SAUSAGES, rng)
    for number in range(count):
        place = spot.at(rng.normal(0, 0.06), (number - (count - 1) / 2) * radius * 2.3, turn=rng.normal(0, 0.06))
        patch = relief.patch(place, 1.15, 0.3, bend)
        _sausage(patch, 0.0, radius, rng.uniform(0.85, 1.0), radius * 0.8, skin, rng)
        if rng.random() < 0.25:
            _squeeze(patch, 0.0, radius * 0.5, 0.7, pick(MUSTARD if rng.random() < 0.5 else KETCHUP, rng), rng)


def draw_roll(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A hot-dog bun with nothing in it, closed or cut open."""
    crust = choose(CRUSTS, rng)
    bend, wide = rng.normal(0, 0.05), rng.uniform(0.26, 0.36)
    patch = relief.patch(spot, 1.2, 0.5, bend)
    if rng.random() < 0.2:
        _half_bun(patch, -0.17, 0.22, 0.1, crust, inner=1.0)
        _half_bun(patch, 0.17, 0.22, 0.1, crust, inner=-1.0)
        return
    distance = capsule(patch.u, patch.v, 0.98 - wide, wide) + 0.008 * patch.mottle
    depth = np.clip(-distance / wide, 0, 1)
    colour = mix(crust[0], crust[1], depth * 1.3 - 0.1 + 0.15 * patch.mottle)
    patch.stamp(distance, wide * 0.9 * arc(depth) + 0.05, colour, 0.14)
    if rng.random() < 0.5:
        slit = np.abs(patch.v + 0.01 * patch.mottle) - 0.012 * np.clip(1 - patch.u**2, 0, 1)
        slit = np.maximum(slit, distance + 0.05)
        patch.coat(slit, -0.04, mix(crust[1], CRUMB, 0.5), 0.02, soft=2)


def _half_bun(
    patch: Patch, middle: float, radius: float, rise: float, crust: tuple[Colour, Colour], inner: float
) -> None:
    """One half of the bun, its cut side (towards inner · v) pale and soft."""
    v = patch.v - middle
    distance = capsule(patch.u, v, 1.0 - radius, radius) + 0.006 * patch.mottle
    depth = np.clip(-distance / radius, 0, 1)
    cut = np.clip((v * inner / radius - 0.25) * 4 + 0.24 * patch.mottle, 0, 1)
    baked = mix(crust[0], crust[1], depth * 1.35 - 0.15 + 0.12 * patch.mottle + 0.05 * patch.bump)
    colour = mix(baked, CRUMB, cut)
    surface = rise + radius * 0.85 * arc(depth) - 0.05 * cut + 0.004 * patch.bump * cut
    patch.stamp(distance, surface, colour, 0.12)


def _sausage(
    patch: Patch, middle: float, radius: float, length: float, rise: float, skin: Colour, rng: np.random.Generator
) -> None:
    """One sausage along u."""
    v = patch.v - middle
    distance = capsule(patch.u, v, length - radius, radius * (1 + 0.02 * patch.mottle))
    depth = np.clip(-distance / radius, 0, 1)
    char = 0.25 * np.clip(patch.mottle, 0, 1) + 0.25 * (1 - depth)
    kind = rng.random()
    if kind < 0.35:
        period, slant = rng.uniform(0.17, 0.3), rng.uniform(-0.8, 0.8)
        stripe = np.abs(((patch.u + slant * v) / period) % 1 - 0.5)
        char = char + np.clip(0.9 - stripe * 8, 0, 0.75) * np.clip(depth * 2, 0, 1)
    elif kind < 0.5:
        char = char + np.clip(patch.bump * 0.8 - 0.2, 0, 0.6)
    colour = mix(skin, np.asarray(skin, np.float32) * np.float32(0.45), char)
    surface = rise + radius * arc(depth)
    if 0.5 < kind < 0.65:
        # Slashes that opened in the heat.
        slash = np.abs(((patch.u + 0.5 * v) / 0.28) % 1 - 0.5) * 0.28
        opened = np.clip(1 - slash / 0.02, 0, 1) * (np.abs(v) < radius * 0.6)
        colour, surface = mix(colour, (0.88, 0.62, 0.48), opened * 0.8), surface - 0.02 * opened
    patch.stamp(distance, surface, colour, rng.uniform(0.45, 0.95))


def _bed(patch: Patch, middle: float, wide: float, rise: float, rng: np.random.Generator) -> None:
    """Lettuce or sauerkraut peeping out beside the sausage."""
    leaf: tuple[Colour, Colour] = (
        ((0.30, 0.52, 0.12), (0.66, 0.80, 0.32)) if rng.random() < 0.6 else ((0.80, 0.74, 0.48), (0.95, 0.91, 0.70))
    )
    frill = 0.03 * np.sin(patch.u * 24 + 4 * patch.mottle) + 0.02 * patch.bump
    distance = capsule(patch.u, patch.v - middle, 0.85, wide) + frill
    patch.stamp(distance, rise + 0.03 * patch.bump, mix(*leaf, 0.5 + 0.5 * patch.bump), 0.2)


def _garnish(patch: Patch, middle: float, sausage: float, reach: float, rng: np.random.Generator) -> None:
    kind = rng.random()
    if kind < 0.09:
        return
    if kind > 0.72:
        _bits(patch, middle, sausage, reach, rng)
    swing = sausage * rng.uniform(0.35, 0.85)
    if kind < 0.55 or kind > 0.85:
        _squeeze(patch, middle, swing, reach, pick(MUSTARD, rng), rng)
    if 0.4 < kind < 0.8:
        _squeeze(patch, middle, swing * rng.choice([0.0, 1.0]), reach, pick(KETCHUP, rng), rng)


def _squeeze(patch: Patch, middle: float, swing: float, reach: float, colour: Colour, rng: np.random.Generator) -> None:
    """A string of sauce, straight or in a zigzag, as thick as it came out of the bottle."""
    waves, phase, width = rng.uniform(12, 26), rng.uniform(0, 6.3), rng.uniform(0.028, 0.045)
    wave = waves * patch.u + phase + 0.5 * patch.mottle
    along = patch.v - middle - swing * np.sin(wave)
    slope = swing * waves * np.cos(wave)
    distance = np.abs(along) / np.sqrt(1 + slope * slope)
    distance = hypot(distance, np.maximum(np.abs(patch.u) - reach, 0)) - width * (1 + 0.25 * patch.mottle)
    patch.coat(distance, width * 1.1 * arc(np.clip(-distance / width, 0, 1)), colour, 0.6)


def _bits(patch: Patch, middle: float, sausage: float, reach: float, rng: np.random.Generator) -> None:
    """Chopped onions, relish or fried onions along the sausage."""
    kinds: tuple[tuple[Colour, Colour], ...] = (
        ((0.95, 0.92, 0.85), (0.82, 0.76, 0.70)),
        ((0.36, 0.50, 0.10), (0.62, 0.68, 0.22)),
        ((0.72, 0.42, 0.14), (0.50, 0.25, 0.08)),
        ((0.80, 0.20, 0.12), (0.90, 0.86, 0.78)),
    )
    pair = choose(kinds, rng)
    for spacing in (0.085, 0.07):
        u, v, number = speckle(patch, spacing, rng)
        grain = np.maximum(np.abs(u) / 1.3, np.abs(v)) - 0.027
        near = hypot(np.maximum(np.abs(patch.u) - reach, 0), patch.v - middle) - sausage * 0.8
        distance = np.maximum(np.maximum(grain, near - 0.02 * patch.bump), np.where(number < 0.85, -1.0, 1.0))
        patch.coat(distance, 0.025, mix(*pair, number), 0.25)


def lay_hotdogs(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """One hot dog, or two or three side by side."""
    count = int(rng.choice([1, 1, 1, 1, 2, 2, 3]))
    smaller = spot.at(0, 0, scale=(1.0, 0.85, 0.75)[count - 1])
    for number in range(count):
        beside, slid = (number - (count - 1) / 2) * 0.78, rng.normal(0, 0.05)
        draw_hotdog(relief, smaller.at(slid, beside, turn=rng.normal(0, 0.05)), rng)
