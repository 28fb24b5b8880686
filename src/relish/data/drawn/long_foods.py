"""Hot dogs, the two things that are half of one, and foods as long as a hot dog that are none.

A hot dog, a sausage without a bun and a bun without a sausage are made of the same parts in the same colours: a hot dog
is told by the sausage in the bun. The others (bread, cake, fruit and vegetables) are each one stick in bent coordinates
whose radius, colour and surface change along it.
"""

import numpy as np

from relish.data.drawn.relief import Patch, Relief, Spot, speckle
from relish.data.drawn.shapes import Array, Colour, arc, capsule, choose, dome, hypot, mix, pick, rounded_box

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


# ---- other long foods -----------------------------------------------------------------------------------------------


def _stick(patch: Patch, radius: Array, half: float = 1.0) -> tuple[Array, Array]:
    """Signed distance to, and depth (0 edge, 1 axis) in, a stick of changing radius."""
    over = np.maximum(np.abs(patch.u) - half, 0)
    distance = hypot(over * 2, patch.v) - radius
    depth = np.clip(-distance / np.maximum(radius, 0.02), 0, 1)
    return distance, depth


def draw_baguette(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A stick of bread with slashes across its crust."""
    wide = rng.uniform(0.15, 0.26)
    patch = relief.patch(spot, 1.1, wide * 1.3, rng.normal(0, 0.04))
    taper = np.sqrt(np.clip(1.02 - np.abs(patch.u) ** 4, 0, 1))
    distance, depth = _stick(patch, wide * taper * (1 + 0.05 * patch.mottle))
    pale, baked = choose(CRUSTS, rng)
    colour = mix(pale, baked, 0.3 + depth * 0.6 + 0.25 * patch.mottle)
    period, slant = rng.uniform(0.3, 0.42), rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
    slash = np.abs(((patch.u + slant * patch.v) / period) % 1 - 0.5) * period
    opened = np.clip(1 - slash / 0.05, 0, 1) * (depth > 0.3) * (np.abs(patch.u) < 0.9)
    colour = mix(colour, mix(CRUMB, pale, 0.4), opened * 1.4)
    surface = wide * arc(depth) * taper - 0.035 * opened + 0.006 * patch.bump
    patch.stamp(distance, surface, colour * (1 + 0.05 * patch.grit), 0.06)


def draw_eclair(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """Choux pastry under a glossy icing, sometimes with a zigzag of another one."""
    patch = relief.patch(spot, 1.1, 0.45, rng.normal(0, 0.03))
    wide = rng.uniform(0.27, 0.34)
    distance = capsule(patch.u, patch.v, 1 - wide, wide * (1 + 0.04 * patch.mottle))
    pale, baked = choose(CRUSTS[:2], rng)
    patch.stamp(distance, dome(distance, wide) * 0.9 + 0.04, mix(baked, pale, 0.5 + 0.3 * patch.mottle), 0.08)
    icing = pick(((0.25, 0.13, 0.07), (0.33, 0.17, 0.09), (0.93, 0.90, 0.86), (0.90, 0.62, 0.66)), rng)
    top = capsule(patch.u, patch.v, 0.93 - wide, wide * 0.72) + 0.022 * np.sin(patch.u * 17 + patch.mottle)
    patch.coat(top, dome(top, 0.05), icing, 0.9)
    if rng.random() < 0.5:
        wave = rng.uniform(14, 24)
        line = np.abs(patch.v - 0.16 * np.sin(wave * patch.u)) / np.sqrt(
            1 + (0.16 * wave * np.cos(wave * patch.u)) ** 2
        )
        drizzle: Colour = (0.95, 0.90, 0.80) if icing[0] < 0.5 else (0.35, 0.18, 0.10)
        line = np.maximum(line - 0.02, np.abs(patch.u) - 0.72)
        patch.coat(line, 0.012, drizzle, 0.5)


def draw_banana(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """One banana, or a bunch of two or three."""
    bend = rng.uniform(0.28, 0.46) * rng.choice([-1, 1])
    peel = pick(((0.93, 0.78, 0.16), (0.90, 0.80, 0.25), (0.80, 0.78, 0.22)), rng)
    spots = rng.uniform(0, 0.5)
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        place = spot.at(0.02 * number, float(np.sign(bend)) * (0.27 * number - 0.2), turn=0.05 * number)
        patch = relief.patch(place, 1.12, 0.3, bend)
        taper = np.sqrt(np.clip(1 - np.abs(patch.u * 0.97) ** 3.5, 0, 1))
        stem = np.clip((patch.u - 0.8) * 8, 0, 1)
        distance, depth = _stick(patch, 0.045 + 0.14 * taper, 0.98)
        end = np.clip((np.abs(patch.u) - 0.9) * 12, 0, 1)
        brown = end * 0.9 + spots * np.clip(patch.bump * 2 - 1, 0, 1)
        colour = mix(mix(peel, (0.62, 0.66, 0.2), stem * 0.7), (0.26, 0.17, 0.08), brown)
        # A banana has edges: its height is that of a roof more than that of a pipe.
        surface = 0.19 * (0.6 * arc(depth) + 0.4 * depth) * (0.3 + 0.7 * taper)
        patch.stamp(distance, surface + 0.02, colour, 0.2)


def draw_carrot(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """One to four carrots with their leaves."""
    count = int(rng.choice([1, 2, 3, 4]))
    wide = rng.uniform(0.12, 0.18)
    for number in range(count):
        turn = rng.normal(0, 0.1) + (np.pi if rng.random() < 0.15 else 0.0)
        place = spot.at(rng.normal(0, 0.05), (number - (count - 1) / 2) * 0.3, turn=turn)
        for _ in range(5):
            _leaf_stalk(relief, place.at(-0.95, 0, scale=0.3, turn=np.pi + rng.normal(0, 0.4)), rng)
        patch = relief.patch(place, 1.1, 0.25, rng.normal(0, 0.05))
        taper = np.clip((1 - patch.u) / 1.85, 0, 1) ** 0.6
        distance, depth = _stick(patch, wide * taper * (1 + 0.02 * patch.mottle), 0.9)
        ring = np.clip(np.sin(patch.u * 38 + 9 * patch.mottle) * 2.5 - 1.7, 0, 1)
        colour = mix((0.93, 0.46, 0.09), (0.70, 0.29, 0.05), 0.5 * ring + 0.3 * patch.mottle)
        patch.stamp(distance, wide * taper * arc(depth) - 0.008 * ring + 0.02, colour, 0.2)


def _leaf_stalk(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    patch = relief.patch(spot.at(1, 0), 1.3, 0.7, rng.normal(0, 0.2))
    feather = 0.1 + 0.35 * np.clip(patch.u + 0.4, 0, 1) * np.abs(np.sin(patch.u * 9 + patch.mottle))
    distance = capsule(patch.u, patch.v, 1.0, feather)
    green = mix((0.14, 0.34, 0.08), (0.40, 0.60, 0.18), 0.5 + 0.5 * patch.bump)
    patch.stamp(distance, 0.15 + 0.1 * patch.bump, green, 0.1)


def draw_cucumber(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A cucumber, whole or with slices cut off its end."""
    patch = relief.patch(spot, 1.1, 0.4, rng.normal(0, 0.08))
    wide, cut = rng.uniform(0.17, 0.25), rng.uniform(0.1, 0.9)
    distance, depth = _stick(patch, np.full_like(patch.u, wide), 0.92)
    distance = np.maximum(distance, patch.u - cut)
    streak = 0.5 + 0.4 * np.sin(patch.v / wide * 9 + 1.5 * patch.mottle)
    colour = mix((0.08, 0.26, 0.08), (0.30, 0.50, 0.16), streak * (0.4 + 0.5 * np.abs(patch.u)))
    patch.stamp(distance, wide * arc(depth) + 0.006 * patch.bump, colour, 0.35)
    place = cut + 0.12
    while place < 1.15:
        draw_cucumber_slice(relief, spot.at(place, rng.normal(0, 0.04), scale=wide * 1.02), rng)
        place += wide * rng.uniform(0.6, 1.0)


def draw_cucumber_slice(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """One slice: skin, flesh, seeds."""
    patch = relief.patch(spot, 1.1)
    if patch.empty:
        return
    reach = hypot(patch.u, patch.v)
    u, v, _ = speckle(patch, 0.3, rng)
    seeds = (hypot(u / 2, v) < 0.05) * (reach < 0.6)
    flesh = mix((0.80, 0.89, 0.58), (0.92, 0.95, 0.76), np.clip(1.2 - reach * 1.3, 0, 1))
    flesh = mix(flesh, (0.96, 0.95, 0.80), seeds.astype(np.float32))
    colour = mix(flesh, (0.10, 0.30, 0.10), (reach > 0.9).astype(np.float32))
    patch.stamp(reach - 1, 0.22, colour, 0.4)


def draw_corn(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A cob of corn in half its husk."""
    for side in (-1, 1):
        leaf = relief.patch(spot.at(-0.45, side * 0.16, turn=side * rng.uniform(-0.25, 0.0)), 0.85, 0.3, side * 0.2)
        if not leaf.empty:
            blade = capsule(leaf.u, leaf.v, 0.5, 0.22 * np.clip(0.8 - leaf.u, 0, 1))
            vein = 0.5 + 0.5 * np.sin(leaf.v * 90)
            leaf.stamp(blade, 0.08, mix((0.35, 0.52, 0.16), (0.66, 0.74, 0.36), vein), 0.1)
    patch = relief.patch(spot, 1.1, 0.3)
    taper = np.clip(1.0 - np.clip(patch.u, 0, 1) ** 3 * 0.75, 0.05, 1)
    wide = rng.uniform(0.21, 0.26)
    distance, depth = _stick(patch, wide * taper, 0.92)
    around = np.arcsin(np.clip(patch.v / (wide * taper), -1, 1))
    row = around / 0.42
    kernel_u = ((patch.u / 0.085 + 0.5 * np.floor(row)) % 1 - 0.5) * 2
    kernel_v = (row % 1 - 0.5) * 2
    swell = np.clip(1 - kernel_u**4 - kernel_v**4, 0, 1)
    colour = mix((0.66, 0.42, 0.06), (0.96, 0.80, 0.24), swell * 1.2 + 0.2 * patch.mottle)
    patch.stamp(distance, wide * arc(depth) * taper + 0.02 * swell + 0.03, colour, 0.45)


def draw_fries(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A heap of fries, sometimes with a blot of ketchup or mayonnaise."""
    wide, colour = rng.uniform(0.07, 0.1), pick(((1.0, 0.82, 0.38), (0.97, 0.74, 0.30), (1.0, 0.88, 0.55)), rng)
    lying = rng.uniform(0, np.pi)
    for number in range(int(rng.integers(26, 40))):
        u, v = rng.normal(0, 0.34), rng.normal(0, 0.24)
        length = rng.uniform(0.3, 0.55)
        draw_fry(relief, spot.at(u, v, turn=lying + rng.normal(0, 0.8)), length, wide, 0.022 * number**0.7, colour, rng)
    if rng.random() < 0.45:
        sauce = pick(((0.74, 0.09, 0.05), (0.96, 0.92, 0.78), (0.92, 0.72, 0.12)), rng)
        patch = relief.patch(spot.at(rng.normal(0, 0.3), rng.normal(0, 0.2)), 0.5)
        blot = hypot(patch.u, patch.v) - 0.26 * (1 + 0.35 * patch.mottle)
        patch.coat(blot, dome(blot, 0.08), sauce, 0.7)


def draw_fry(
    relief: Relief, spot: Spot, half: float, wide: float, rise: float, colour: Colour, rng: np.random.Generator
) -> None:
    """One stick of potato, `rise` above the spot."""
    patch = relief.patch(spot, half, wide, rng.normal(0, 0.06))
    if patch.empty:
        return
    distance = rounded_box(patch.u, patch.v, half, wide * 0.8, 0.015)
    brown = np.clip(np.abs(patch.u) / half * 3 - 2.2, 0, 1) * 0.6 + 0.2 * patch.mottle + rng.uniform(-0.1, 0.25)
    edge = np.clip(1 + distance / 0.03, 0, 1)
    shade = mix(colour, (0.62, 0.36, 0.10), brown + 0.15 * edge)
    patch.stamp(distance, rise + wide * 1.3 - 0.03 * edge, shade, 0.15)
