"""Round foods seen from above: burgers, doughnuts, pizza, cookies, eggs, fruit, salad, sushi."""

import numpy as np

from relish.data.drawn.long_foods import CRUSTS, KETCHUP, MUSTARD, draw_cucumber_slice
from relish.data.drawn.relief import Patch, Relief, Spot, speckle
from relish.data.drawn.shapes import Array, Colour, arc, capsule, choose, dome, hypot, mix, pick, rounded_box

SPRINKLES = np.asarray(
    [[0.9, 0.2, 0.3], [0.95, 0.85, 0.2], [0.25, 0.6, 0.85], [0.98, 0.97, 0.95], [0.4, 0.75, 0.3], [0.95, 0.5, 0.15]],
    np.float32,
)


def _disc(patch: Patch, radius: float = 1.0, wobble: float = 0.03) -> Array:
    return np.asarray(hypot(patch.u, patch.v) - radius * (1 + wobble * patch.mottle), np.float32)


def draw_burger(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A burger from above: bun with seeds, and what sticks out beneath it."""
    under = spot.at(rng.normal(0, 0.06), rng.normal(0, 0.06))
    frill = relief.patch(under, 1.2)
    angle = np.arctan2(frill.v, frill.u)
    ruffle = hypot(frill.u, frill.v) - 0.98 - 0.07 * np.sin(angle * 11 + 4 * frill.mottle) - 0.05 * frill.bump
    if rng.random() < 0.8:
        green = mix((0.24, 0.46, 0.10), (0.62, 0.78, 0.28), 0.5 + 0.5 * frill.bump)
        frill.stamp(ruffle, 0.16 + 0.05 * frill.bump, green, 0.25)
    patty = _disc(frill, 0.97, 0.06)
    frill.stamp(patty, 0.24 + 0.02 * frill.bump, mix((0.22, 0.11, 0.06), (0.42, 0.23, 0.12), 0.5 + frill.bump), 0.3)
    if rng.random() < 0.6:
        cheese = relief.patch(under.at(0, 0, turn=rng.uniform(0, 1.5)), 1.1)
        square = rounded_box(cheese.u, cheese.v, 0.8, 0.8, 0.06)
        cheese.stamp(square, 0.3, pick(((0.96, 0.70, 0.14), (0.95, 0.82, 0.40)), rng), 0.4)
    if rng.random() < 0.35:
        drip = _disc(frill, 0.95, 0.16)
        frill.stamp(drip, 0.31, pick(KETCHUP + MUSTARD, rng), 0.7)
    _top_bun(relief, spot, rng)


def _top_bun(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    patch = relief.patch(spot, 1.05)
    pale, baked = choose(CRUSTS, rng)
    distance = _disc(patch, rng.uniform(0.88, 0.98), 0.015)
    depth = np.clip(-distance, 0, 1)
    colour = mix(pale, baked, depth * 2.6 - 0.1 + 0.12 * patch.mottle)
    patch.stamp(distance, 0.35 + 0.5 * arc(depth), colour, 0.3)
    if rng.random() < 0.75:
        u, v, number = speckle(patch, rng.uniform(0.13, 0.19), rng)
        seed = np.maximum(hypot(u / 1.9, v) - 0.02, hypot(patch.u, patch.v) - 0.78)
        seed = np.where(number < 0.75, seed, 1).astype(np.float32)
        patch.coat(seed, dome(seed, 0.02), (0.97, 0.91, 0.74), 0.3)


def draw_doughnut(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A ring with icing and sprinkles, or with sugar alone."""
    patch = relief.patch(spot, 1.1)
    hole = rng.uniform(0.24, 0.36)
    middle, radius = (1 + hole) / 2, (1 - hole) / 2
    reach = hypot(patch.u, patch.v)
    ring = np.abs(reach - middle) - radius * (1 + 0.02 * patch.mottle)
    pale, baked = choose(CRUSTS[:2], rng)
    dough = mix(mix(pale, (0.97, 0.90, 0.70), 0.5), baked, np.clip(-ring / radius * 2, 0, 1) + 0.15 * patch.mottle)
    patch.stamp(ring, dome(ring, radius) * 0.95 + 0.05, dough, 0.1)
    kind = rng.random()
    if kind < 0.15:
        patch.coat(ring + 0.03, 0.004 * patch.bump, mix(dough, (0.98, 0.97, 0.95), 0.6 + 0.4 * patch.bump), 0.05)
        return
    icings = ((0.93, 0.50, 0.62), (0.30, 0.16, 0.09), (0.96, 0.94, 0.90), (0.40, 0.22, 0.12), (0.92, 0.72, 0.20))
    icing = pick(icings, rng)
    angle = np.arctan2(patch.v, patch.u)
    edge = 0.04 * np.sin(angle * rng.integers(5, 9) + patch.mottle) + 0.015 * patch.mottle
    glaze = np.abs(reach - middle) - radius * 0.8 - edge
    patch.coat(glaze, dome(glaze, 0.06), icing, 0.85)
    if kind < 0.65:
        for spacing in (0.13, 0.11):
            u, v, number = speckle(patch, spacing, rng)
            colours = SPRINKLES[np.asarray(number * 5.99, np.intp)].transpose(2, 0, 1)
            grain = np.maximum(capsule(u, v, 0.035, 0.014), glaze + 0.05)
            patch.coat(grain, 0.02, colours, 0.4)
    elif kind < 0.85:
        line = np.abs((patch.u + 0.2 * np.sin(3 * patch.v)) / 0.2 % 1 - 0.5) * 0.2 - 0.02
        drizzle: Colour = (0.95, 0.92, 0.88) if icing[0] < 0.5 else (0.30, 0.15, 0.08)
        patch.coat(np.maximum(line, glaze + 0.02), 0.02, drizzle, 0.5)


def draw_pizza(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A whole pizza, one with a slice missing, or a single slice."""
    kind = rng.random()
    patch = relief.patch(spot if kind < 0.6 else spot.at(-0.9, 0, scale=1.85), 1.1)
    if kind < 0.4:
        _pizza(patch, np.full_like(patch.u, -1.0), rng)
    elif kind < 0.6:
        _pizza(patch, -_wedge(patch, rng.uniform(0.25, 0.5)), rng)
    else:
        _pizza(patch, _wedge(patch, rng.uniform(0.28, 0.42)), rng)


def _wedge(patch: Patch, half_angle: float) -> Array:
    sine, cosine = float(np.sin(half_angle)), float(np.cos(half_angle))
    return np.abs(patch.v) * cosine - patch.u * sine


def _pizza(patch: Patch, kept: Array, rng: np.random.Generator) -> None:
    reach = hypot(patch.u, patch.v)
    disc = np.maximum(reach - 1 - 0.02 * patch.mottle, kept)
    pale, baked = choose(CRUSTS, rng)
    crust = np.clip(1 - np.abs(reach - 0.92) / 0.1, 0, 1)
    blister = np.clip(patch.bump * 1.3 - 0.6, 0, 0.8)
    dough = mix(mix(pale, baked, 0.5 + 0.5 * patch.mottle), (0.2, 0.1, 0.05), blister)
    sauce = pick(KETCHUP, rng)
    cheese = mix((0.97, 0.84, 0.48), (0.84, 0.50, 0.18), np.clip(patch.bump * 0.8 + 0.2 * patch.mottle, 0, 1))
    melted = np.clip((0.83 - reach) * 30 + 3 * patch.mottle, 0, 1) * np.clip(2.2 + 3 * patch.mottle, 0, 1)
    colour = mix(dough, mix(sauce, cheese, melted), np.clip((0.88 - reach) * 40 + patch.mottle, 0, 1))
    surface = 0.06 + 0.08 * np.sqrt(crust) + 0.012 * patch.bump
    patch.stamp(disc, surface, colour, 0.35)
    for _ in range(int(rng.integers(1, 4))):
        _topping(patch, np.maximum(disc, reach - 0.78), rng)


def _topping(patch: Patch, inside: Array, rng: np.random.Generator) -> None:
    u, v, number = speckle(patch, rng.uniform(0.24, 0.34), rng)
    kind, size = rng.random(), rng.uniform(0.09, 0.13)
    reach = hypot(u, v)
    kept = np.where(number < 0.7, inside, 1)
    if kind < 0.45:
        slice_ = np.maximum(reach - size, kept)
        meat = mix((0.72, 0.20, 0.12), (0.50, 0.10, 0.06), 0.5 + patch.bump + np.clip(reach / size * 4 - 3.2, 0, 1))
        patch.coat(slice_, 0.02, meat, 0.5)
    elif kind < 0.6:
        ring = np.maximum(np.abs(reach - 0.05) - 0.028, kept)
        patch.coat(ring, dome(ring, 0.03), (0.09, 0.08, 0.09), 0.8)
    elif kind < 0.8:
        leaf = np.maximum(hypot(u / 1.8, v) - 0.05, kept)
        patch.coat(leaf, dome(leaf, 0.04), mix((0.10, 0.32, 0.08), (0.30, 0.52, 0.14), 0.5 + patch.bump), 0.3)
    else:
        piece = np.maximum(capsule(u, v, 0.05, 0.03), kept)
        patch.coat(piece, dome(piece, 0.03), pick(((0.85, 0.2, 0.1), (0.5, 0.68, 0.2), (0.85, 0.75, 0.6)), rng), 0.4)


def draw_cookie(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A cookie with chocolate chips."""
    patch = relief.patch(spot, 1.1)
    if patch.empty:
        return
    distance = _disc(patch, 0.97, 0.02)
    dough = pick(((0.80, 0.56, 0.32), (0.70, 0.44, 0.22), (0.42, 0.25, 0.15)), rng)
    brown = np.clip(1 + distance / 0.2, 0, 1) * 0.5 + 0.15 * patch.bump
    surface = dome(distance, 0.35, 0.2) + 0.006 * patch.bump + 0.006 * patch.mottle
    patch.stamp(distance, surface, mix(dough, (0.42, 0.23, 0.1), brown), 0.05)
    u, v, number = speckle(patch, 0.27, rng)
    chip = np.where(number < 0.75, hypot(u, v * 1.2) - 0.06 - 0.05 * number, 1)
    chip = np.maximum(chip, distance + 0.1)
    patch.coat(chip, dome(chip, 0.06), pick(((0.20, 0.10, 0.06), (0.95, 0.90, 0.80)), rng), 0.5)


def draw_egg(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """One or two fried eggs."""
    for number in range(int(rng.choice([1, 1, 2]))):
        place = spot.at(0.9 * number - 0.2, rng.normal(0, 0.15), scale=rng.uniform(0.8, 1.0))
        patch = relief.patch(place, 1.4)
        angle = np.arctan2(patch.v, patch.u)
        lobes = 0.1 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.07 * np.sin(5 * angle + rng.uniform(0, 6))
        white = hypot(patch.u, patch.v) - 0.9 - 0.07 * patch.mottle - lobes
        crisp = np.clip(1 + white / 0.07, 0, 1) * rng.uniform(0, 0.9)
        patch.stamp(white, 0.04 + dome(white, 0.1) * 0.5, mix((0.97, 0.96, 0.93), (0.72, 0.46, 0.2), crisp), 0.5)
        patch = relief.patch(place.at(rng.normal(0, 0.1), rng.normal(0, 0.1), scale=rng.uniform(0.36, 0.44)), 1.1)
        yolk = _disc(patch)
        colour = pick(((0.96, 0.68, 0.08), (0.95, 0.54, 0.06)), rng)
        patch.coat(yolk, dome(yolk, 0.6, 0.5), colour, 0.9)


def draw_apple(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """An apple from above, its stalk in the dimple."""
    patch = relief.patch(spot, 1.1)
    if patch.empty:
        return
    reach, distance = hypot(patch.u, patch.v), _disc(patch, 0.95, 0.004)
    skins = (((0.72, 0.10, 0.10), (0.92, 0.70, 0.30)), ((0.46, 0.66, 0.18), (0.78, 0.84, 0.40)))
    skin = choose(skins, rng)
    rays = np.sin(np.arctan2(patch.v, patch.u) * 31 + patch.mottle) * np.sin(np.arctan2(patch.v, patch.u) * 13)
    streak = np.clip(0.25 + 0.25 * rays * reach - patch.u * 0.45, 0, 1)
    dimple = np.exp(-((reach / 0.2) ** 2))
    colour = mix(mix(*skin, streak), (0.5, 0.5, 0.2), dimple)
    patch.stamp(distance, 0.9 * dome(distance, 0.95) - 0.25 * dimple, colour, 0.7)
    stalk = relief.patch(spot.at(0.1, 0.0, scale=0.22), 1.2, 0.3, 0.2)
    stalk.coat(capsule(stalk.u, stalk.v, 0.9, 0.13), 0.6, (0.30, 0.18, 0.08), 0.1)


def draw_orange(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """Half an orange, cut side up, or a whole one."""
    patch = relief.patch(spot, 1.1)
    reach, distance = hypot(patch.u, patch.v), _disc(patch, 0.96, 0.0)
    peel = pick(((0.95, 0.52, 0.06), (0.93, 0.75, 0.12), (0.86, 0.30, 0.16)), rng)
    if rng.random() < 0.35:
        patch.stamp(distance, 0.9 * dome(distance, 0.96) + 0.003 * patch.bump, peel, 0.5)
        return
    angle = np.arctan2(patch.v, patch.u)
    part = np.abs(((angle / (2 * np.pi) * 10) % 1) - 0.5) * 2
    flesh = (part * reach < reach - 0.05 - 0.02 * part) * (reach < 0.8) * (reach > 0.1)
    pulp = mix(peel, (0.98, 0.80, 0.42), 0.35 + 0.3 * patch.bump)
    colour = mix(mix((0.97, 0.92, 0.80), pulp, flesh.astype(np.float32)), peel, (reach > 0.9).astype(np.float32))
    patch.stamp(distance, 0.4 + 0.03 * flesh, colour, 0.6)


def draw_salad(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A bowl of leaves, tomatoes, cucumber and onion rings."""
    bowl = relief.patch(spot, 1.1)
    if bowl.empty:
        return
    reach = hypot(bowl.u, bowl.v)
    rim = np.clip((reach - 0.82) / 0.14, 0, 1)
    colour = pick(((0.95, 0.94, 0.92), (0.45, 0.28, 0.16), (0.3, 0.4, 0.5)), rng)
    bowl.stamp(_disc(bowl, 1.0, 0.0), 0.1 + 0.3 * rim, colour, 0.3)
    for number in range(int(rng.integers(16, 26))):
        far, way = 0.72 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        place = spot.at(float(far * np.cos(way)), float(far * np.sin(way)), turn=rng.uniform(0, 6.3))
        _salad_piece(relief, place, 0.15 + 0.012 * number, rng)


def _salad_piece(relief: Relief, spot: Spot, rise: float, rng: np.random.Generator) -> None:
    kind = rng.random()
    lifted = Spot(spot.x, spot.y, spot.size, spot.angle, spot.level + rise * spot.size)
    if kind < 0.6:
        patch = relief.patch(lifted, 0.4, 0.3, rng.normal(0, 0.4))
        leaf = hypot(patch.u / 1.4, patch.v) - 0.2 - 0.07 * patch.bump
        vein = np.clip(1 - np.abs(patch.v) / 0.02, 0, 1) * 0.5
        green = mix((0.16, 0.36, 0.07), (0.58, 0.74, 0.26), 0.4 + 0.4 * patch.mottle + 0.3 * patch.bump + vein)
        patch.stamp(leaf, 0.05 + 0.06 * patch.bump, green, 0.25)
    elif kind < 0.8:
        patch = relief.patch(lifted, 0.25)
        tomato = hypot(patch.u, patch.v) - 0.16
        patch.stamp(tomato, dome(tomato, 0.16), (0.82, 0.14, 0.07), 0.9)
    elif kind < 0.92:
        draw_cucumber_slice(relief, lifted.at(0, 0, scale=0.2), rng)
    else:
        patch = relief.patch(lifted, 0.25)
        ring = np.abs(hypot(patch.u, patch.v) - 0.17) - 0.025
        patch.stamp(ring, 0.08, (0.86, 0.74, 0.82), 0.4)


def draw_sushi(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """Rolls in a row or a ring, or two or three nigiri."""
    if rng.random() < 0.5:
        count = int(rng.integers(2, 4))
        for number in range(count):
            _nigiri(relief, spot.at(0, (number - (count - 1) / 2) * 0.62, scale=0.75, turn=rng.normal(0, 0.08)), rng)
        return
    for row in (-0.36, 0.36):
        for column in (-0.72, 0.0, 0.72):
            _roll(relief, spot.at(column, row, scale=0.33), rng)


def _nigiri(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    patch = relief.patch(spot, 1.1, 0.5, rng.normal(0, 0.04))
    rice = capsule(patch.u, patch.v, 0.6, 0.3) + 0.03 * patch.bump
    patch.stamp(rice, dome(rice, 0.3) + 0.03 * patch.bump, (0.96, 0.95, 0.91), 0.2)
    fish = capsule(patch.u, patch.v, 0.7, 0.27) + 0.015 * patch.mottle
    stripe = np.clip(np.sin((patch.u + 0.8 * patch.v) * 22 + patch.mottle) * 2 - 0.9, 0, 1)
    flesh = pick(((0.95, 0.48, 0.26), (0.80, 0.20, 0.18), (0.95, 0.80, 0.30)), rng)
    patch.stamp(fish, dome(fish, 0.27) * 0.9 + 0.16, mix(flesh, (0.98, 0.86, 0.76), stripe * 0.75), 0.6)


def _roll(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    patch = relief.patch(spot, 1.1)
    reach = hypot(patch.u, patch.v)
    rice = mix((0.95, 0.94, 0.90), (0.85, 0.83, 0.77), 0.5 + 0.5 * patch.grit)
    heart = pick(((0.95, 0.48, 0.26), (0.50, 0.70, 0.25), (0.93, 0.76, 0.20), (0.80, 0.20, 0.18)), rng)
    colour = mix(rice, heart, np.clip((0.42 + 0.1 * patch.mottle - reach) * 20, 0, 1))
    colour = mix(colour, (0.06, 0.09, 0.07), np.clip((reach - 0.88) * 30, 0, 1))
    patch.stamp(reach - 1, 0.8 + 0.04 * patch.bump * (reach < 0.85), colour, 0.25)
