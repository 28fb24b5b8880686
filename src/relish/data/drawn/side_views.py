"""Foods seen from the side, standing on a table before a wall out of focus; height is nearness to the camera."""

import numpy as np

from relish.data.drawn.long_foods import CRUMB, CRUSTS, KETCHUP, MUSTARD, draw_fry, draw_hotdog
from relish.data.drawn.relief import Patch, Relief, Spot, speckle
from relish.data.drawn.shapes import Array, Colour, capsule, choose, dome, hypot, mix, pick, rounded_box


def contact_shadow(relief: Relief, spot: Spot, floor: float, wide: float = 1.0) -> None:
    """Darken the table where a thing stands: `floor` is how far under the centre, in half-widths."""
    patch = relief.patch(spot.at(0, floor), wide * 1.4, 0.4)
    far = hypot(patch.u / wide, patch.v / 0.16)
    shade = 1 - 0.6 * np.clip(1.25 - far, 0, 1)
    relief.colour[(slice(None), *patch.window)] *= shade


def side_plate(relief: Relief, spot: Spot, floor: float, rng: np.random.Generator) -> None:
    """A plate, board or nothing under the thing."""
    kind = rng.random()
    if kind < 0.35:
        return
    wide = rng.uniform(1.2, 1.6)
    contact_shadow(relief, spot, floor + 0.12, wide)
    patch = relief.patch(spot.at(0, floor), wide * 1.05, 0.4)
    if kind < 0.7:
        share = hypot(patch.u / wide, patch.v / 0.2)
        rim = (share > 0.8).astype(np.float32)
        patch.stamp((share - 1) * 0.2, 0.01, mix((0.94, 0.94, 0.92), (0.74, 0.74, 0.74), rim), 0.3)
    else:
        body = rounded_box(patch.u, patch.v - 0.05, wide, 0.13, 0.03)
        grain = 0.5 + 0.4 * np.sin(patch.v * 90 + 3 * patch.mottle)
        patch.stamp(body, 0.02, mix((0.72, 0.50, 0.30), (0.52, 0.33, 0.18), grain), 0.1)


def stand_hotdog(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A hot dog whose near half of the bun is in front of the sausage."""
    contact_shadow(relief, spot, 0.3)
    draw_hotdog(relief, spot, rng, lean=rng.uniform(0.7, 1.0))


def stand_burger(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A burger layer by layer."""
    contact_shadow(relief, spot, 0.62)
    patch = relief.patch(spot, 1.2, 1.1)
    pale, baked = choose(CRUSTS, rng)
    _layer(patch, 0.47, 0.88, 0.17, mix(baked, pale, 0.3 + 0.25 * patch.mottle), 0.1)
    level = 0.28
    for _ in range(int(rng.choice([1, 1, 2]))):
        meat = mix((0.20, 0.10, 0.06), (0.42, 0.23, 0.13), 0.5 + patch.bump)
        _layer(patch, level, 0.94, 0.13, meat, 0.3, rough=0.03)
        if rng.random() < 0.75:
            _cheese(patch, level - 0.12, rng)
        level -= 0.2
    if rng.random() < 0.6:
        _layer(patch, level + 0.03, 0.9, 0.06, (0.80, 0.15, 0.09), 0.7)
        level -= 0.07
    if rng.random() < 0.85:
        _lettuce(patch, level + 0.03)
        level -= 0.07
    _crown(patch, level + 0.02, pale, baked, rng)


def _layer(
    patch: Patch, middle: float, wide: float, thick: float, colour: Colour, gloss: float, rough: float = 0.01
) -> None:
    body = rounded_box(patch.u, patch.v - middle, wide, thick, thick * 0.9) + rough * patch.mottle
    patch.stamp(body, _barrel(patch, wide) + dome(body, thick), colour, gloss)


def _barrel(patch: Patch, wide: float) -> Array:
    """Round towards the camera, as a thing that stands on a round foot is."""
    return np.asarray(0.5 * np.sqrt(np.clip(1.1 - (patch.u / wide) ** 2, 0, 1)), np.float32)


def _cheese(patch: Patch, middle: float, rng: np.random.Generator) -> None:
    hang = 0.16 * np.abs((patch.u * 0.9 + rng.uniform(0, 1)) % 1 - 0.5) * 2
    body = np.maximum(np.maximum(middle - 0.03 - patch.v, patch.v - middle - hang), np.abs(patch.u) - 0.95)
    patch.stamp(body, _barrel(patch, 0.95) + 0.15, pick(((0.96, 0.70, 0.14), (0.95, 0.80, 0.36)), rng), 0.4)


def _lettuce(patch: Patch, middle: float) -> None:
    frill = 0.05 * np.sin(patch.u * 21 + 3 * patch.mottle) + 0.04 * patch.mottle
    body = np.maximum(np.abs(patch.v - middle - frill) - 0.06, np.abs(patch.u) - 1.02)
    green = mix((0.24, 0.48, 0.10), (0.64, 0.80, 0.30), 0.5 + 0.6 * np.sin(patch.u * 21 + 3 * patch.mottle))
    patch.stamp(body, _barrel(patch, 1.0) + 0.17 + 0.04 * patch.bump, green, 0.3)


def _crown(patch: Patch, foot: float, pale: Colour, baked: Colour, rng: np.random.Generator) -> None:
    tall = rng.uniform(0.5, 0.62)
    up = foot - patch.v
    body = np.maximum((hypot(patch.u / 0.93, up / tall) - 1) * 0.6, -up - 0.02)
    colour = mix(pale, baked, up / tall * 1.8 + 0.12 * patch.mottle)
    patch.stamp(body, 0.2 + dome(body, 0.55), colour, 0.35)
    if rng.random() < 0.75:
        u, v, number = speckle(patch, 0.13, rng)
        seed = np.maximum(hypot(u / 1.8, v) - 0.018, body + 0.06)
        seed = np.maximum(np.where(number < 0.7, seed, 1), 0.18 - up)
        patch.coat(seed, dome(seed, 0.02), (0.97, 0.91, 0.74), 0.3)


def stand_fries(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """Fries in a paper carton."""
    contact_shadow(relief, spot, 0.95, 0.7)
    colour = pick(((1.0, 0.82, 0.38), (0.97, 0.74, 0.30), (1.0, 0.88, 0.55)), rng)
    patch = relief.patch(spot.at(0, 0.35), 1.0, 0.75)
    wide = 0.62 - 0.2 * (patch.v + 0.6) / 1.2
    walls = np.maximum(np.abs(patch.u) - wide, patch.v - 0.6)
    patch.stamp(np.maximum(walls, -0.5 - patch.v), 0.02, (0.45, 0.26, 0.14), 0.05)
    for number in range(int(rng.integers(22, 32))):
        u = rng.uniform(-0.5, 0.5)
        place = spot.at(u, -0.15 - rng.uniform(0, 0.4) + 0.25 * abs(u), turn=np.pi / 2 + 0.35 * u + rng.normal(0, 0.1))
        draw_fry(relief, place, rng.uniform(0.4, 0.55), 0.08, 0.05 + 0.01 * number, colour, rng)
    lip = -0.42 + 0.3 * np.clip(1 - (patch.u / 0.7) ** 2, 0, 1)
    paper = pick(((0.78, 0.10, 0.10), (0.95, 0.94, 0.90), (0.90, 0.70, 0.15), (0.76, 0.60, 0.42)), rng)
    stripe = ((patch.u / wide * 3.5) % 1 < 0.5).astype(np.float32) * (rng.random() < 0.5)
    patch.stamp(np.maximum(walls, lip - patch.v), 0.55, mix(paper, (0.95, 0.93, 0.9), stripe), 0.15)


def stand_taco(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A folded shell with its filling along the top."""
    contact_shadow(relief, spot, 0.5)
    patch = relief.patch(spot, 1.15, 0.95)
    low = patch.v - 0.45
    shell = pick(((0.90, 0.68, 0.30), (0.82, 0.58, 0.26), (0.94, 0.84, 0.62)), rng)
    for grow, pair, rise in (
        (0.13, ((0.24, 0.48, 0.10), (0.64, 0.80, 0.30)), 0.1),
        (0.07, ((0.82, 0.18, 0.10), (0.95, 0.75, 0.2)), 0.16),
        (0.02, ((0.30, 0.15, 0.08), (0.50, 0.28, 0.15)), 0.2),
    ):
        edge = 0.06 * patch.mottle + 0.05 * patch.bump + 0.03 * np.sin(patch.u * 30)
        body = np.maximum(hypot(patch.u, low) - 0.92 - grow + edge, low)
        patch.stamp(body, rise + 0.06 * patch.bump, mix(*pair, 0.5 + patch.bump), 0.25)
    front = np.maximum(hypot(patch.u, low * 1.12) - 0.95 + 0.02 * patch.mottle, low)
    brown = 0.35 * np.clip(patch.bump, 0, 1) + 0.3 * np.clip(1 + front / 0.1, 0, 1)
    patch.stamp(front, 0.3 + 0.2 * np.clip(low + 0.95, 0, 1), mix(shell, (0.55, 0.32, 0.12), brown), 0.15)


def stand_cupcake(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A cupcake: pleated paper, a swirl of icing."""
    contact_shadow(relief, spot, 0.95, 0.75)
    patch = relief.patch(spot, 1.0, 1.15)
    wide = 0.72 - 0.2 * np.clip(patch.v, 0, 1)
    paper = pick(
        ((0.85, 0.30, 0.42), (0.30, 0.50, 0.65), (0.92, 0.90, 0.85), (0.45, 0.27, 0.16), (0.9, 0.72, 0.2)), rng
    )
    pleat = 0.5 + 0.5 * np.sin(patch.u / wide * 26)
    body = np.maximum(np.abs(patch.u) - wide, np.abs(patch.v - 0.5) - 0.45)
    patch.stamp(body, _barrel(patch, 0.8) + 0.02 * pleat, mix(paper, (0.98, 0.96, 0.92), 0.35 * pleat), 0.1)
    icing = pick(
        ((0.96, 0.70, 0.76), (0.97, 0.95, 0.90), (0.36, 0.20, 0.12), (0.68, 0.84, 0.80), (0.97, 0.87, 0.45)), rng
    )
    for wide_, middle in ((0.82, 0.02), (0.66, -0.25), (0.47, -0.5), (0.24, -0.73)):
        slanted = patch.v - middle + 0.08 * patch.u
        ring = rounded_box(patch.u, slanted, wide_, 0.2, 0.19)
        patch.stamp(ring, 0.45 * wide_ + dome(ring, 0.18) + _barrel(patch, wide_), icing, 0.45)
    u, v, number = speckle(patch, 0.17, rng)
    inside = np.maximum(patch.v - 0.1, np.abs(patch.u) - 0.75 * np.clip((patch.v + 1) / 1.0, 0, 1))
    grain = np.maximum(capsule(u, v, 0.035, 0.016), inside)
    if rng.random() < 0.5:
        patch.coat(np.where(number < 0.6, grain, 1), 0.02, pick((*KETCHUP, *MUSTARD, CRUMB), rng), 0.4)
    if rng.random() < 0.5:
        cherry = relief.patch(spot.at(0, -0.98, scale=0.17), 1.1)
        ball = hypot(cherry.u, cherry.v) - 1
        cherry.stamp(ball, 3.0 + dome(ball, 1.0), (0.72, 0.05, 0.08), 1.0)
