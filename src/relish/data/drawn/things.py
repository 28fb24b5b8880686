"""What is no food: cutlery, crockery and leaves as clutter, and the hand that holds food.

Each is stamped on a `Relief` at a `Spot` (half-length 1); of the hand, one half before the food and one after it.
"""

from dataclasses import replace

import numpy as np

from relish.data.drawn.relief import Patch, Relief, Spot, speckle
from relish.data.drawn.shapes import Array, Colour, capsule, choose, dome, hypot, mix, pick, rounded_box

METALS: tuple[Colour, ...] = ((0.72, 0.73, 0.75), (0.62, 0.63, 0.66), (0.80, 0.70, 0.48), (0.22, 0.22, 0.24))


def _handle(patch: Patch, start: float, wide: float) -> Array:
    grow = wide * (0.55 + 0.45 * np.clip(patch.u, 0, 1))
    return np.asarray(capsule(patch.u - (1 + start) / 2, patch.v, (1 - start) / 2 - 0.05, grow))


def draw_fork(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A fork with four tines."""
    patch = relief.patch(spot, 1.1, 0.25)
    if patch.empty:
        return
    metal = pick(METALS, rng)
    head = hypot((patch.u + 0.42) / 1.8, patch.v) - 0.12
    row = patch.v / 0.068
    tine = np.abs((row % 1) - 0.5) * 0.068 - 0.019
    tines = np.maximum(np.maximum(tine, np.abs(patch.v) - 0.136), np.abs(patch.u + 0.7) - 0.28)
    body = np.minimum(np.minimum(head, tines), _handle(patch, -0.35, 0.06))
    patch.stamp(body, 0.05 + dome(body, 0.03), metal, 0.9)


def draw_knife(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A table knife."""
    patch = relief.patch(spot, 1.1, 0.2)
    if patch.empty:
        return
    blade = np.maximum(hypot((patch.u + 0.35) / 5.5, patch.v) - 0.115, -patch.v - 0.07)
    metal = pick(METALS, rng)
    patch.stamp(blade, 0.03, (0.78, 0.79, 0.81), 0.9)
    handle = _handle(patch, 0.2, 0.085)
    patch.stamp(handle, 0.03 + dome(handle, 0.05), metal, 0.7)


def draw_spoon(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A spoon, its bowl hollow."""
    patch = relief.patch(spot, 1.1, 0.3)
    if patch.empty:
        return
    bowl = hypot((patch.u + 0.66) / 1.55, patch.v) - 0.2
    body = np.minimum(bowl, _handle(patch, -0.4, 0.06))
    hollow = 0.12 * np.clip(-bowl / 0.2, 0, 1)
    patch.stamp(body, 0.09 + dome(body, 0.03) - hollow, pick(METALS, rng), 0.9)


def draw_mug(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A mug of coffee or tea from above, with its handle."""
    patch = relief.patch(spot, 1.5, 1.1)
    if patch.empty:
        return
    colour = pick(
        ((0.94, 0.93, 0.91), (0.70, 0.16, 0.15), (0.20, 0.38, 0.58), (0.25, 0.26, 0.28), (0.86, 0.68, 0.2)), rng
    )
    handle = np.abs(hypot((patch.u - 0.85) / 1.1, patch.v / 0.75) - 0.36) - 0.075
    patch.stamp(handle, 0.6 + dome(handle, 0.08), colour, 0.6)
    reach = hypot(patch.u, patch.v)
    wall = np.abs(reach - 0.87) - 0.07
    patch.stamp(reach - 0.9, 0.7, colour, 0.5)
    drink = pick(((0.22, 0.12, 0.06), (0.60, 0.40, 0.24), (0.62, 0.28, 0.06)), rng)
    inner = mix(drink, (0.80, 0.66, 0.48), np.clip((reach - 0.66) * 9, 0, 0.5) + 0.15 * (patch.mottle > 0.3))
    patch.coat(reach - 0.82, -0.2, inner, 0.7)
    patch.stamp(wall, 0.8 + dome(wall, 0.06), colour, 0.7)


def draw_glass(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A glass of lemonade, cola or beer from above."""
    patch = relief.patch(spot, 1.1)
    if patch.empty:
        return
    drink = pick(((0.95, 0.86, 0.52), (0.24, 0.10, 0.05), (0.90, 0.62, 0.15), (0.85, 0.90, 0.92)), rng)
    reach = hypot(patch.u, patch.v)
    u, v, number = speckle(patch, 0.75, rng)
    cube = np.maximum(rounded_box(u, v, 0.26, 0.24, 0.06), np.where(number < 0.7, reach - 0.85, 1))
    ice = np.clip(1.2 - np.abs(cube) * 16, 0.25, 1) * (cube < 0)
    colour = mix(drink, (1.0, 1.0, 1.0), 0.55 * ice + 0.25 * np.clip(patch.bump, 0, 1))
    patch.stamp(reach - 0.95, 0.5, colour, 0.8)
    rim = np.abs(reach - 0.93) - 0.05
    patch.stamp(rim, 0.9, mix(drink, (0.95, 0.97, 0.98), 0.75), 1.0)


def draw_leaf(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A leaf off a tree, green or autumnal, with a stalk and veins."""
    patch = relief.patch(spot, 1.3, 0.8, rng.normal(0, 0.1))
    if patch.empty:
        return
    along = np.clip((patch.u + 0.8) / 1.7, 0, 1)
    wide = rng.uniform(0.32, 0.55) * np.sin(np.pi * along**0.75) * (1 + 0.06 * np.sin(patch.u * rng.uniform(18, 50)))
    blade = np.abs(patch.v) - wide
    vein = np.clip(1 - np.abs(((patch.u - 0.9 * np.abs(patch.v)) / 0.2) % 1 - 0.5) * 12 + 0.2, 0, 1)
    vein = np.maximum(vein, np.abs(patch.v) < 0.02)
    pairs = (
        ((0.20, 0.42, 0.12), (0.50, 0.66, 0.28)),
        ((0.78, 0.36, 0.08), (0.92, 0.68, 0.20)),
        ((0.62, 0.14, 0.08), (0.85, 0.42, 0.2)),
    )
    dark, light = choose(pairs, rng)
    green = mix(mix(dark, light, 0.4 + 0.3 * patch.mottle), light, vein * 0.7)
    patch.stamp(blade, 0.05 + 0.02 * patch.mottle - 0.015 * vein, green, 0.2)
    stalk = capsule(patch.u + 1.0, patch.v, 0.22, 0.022)
    patch.stamp(stalk, 0.05, light, 0.1)


def draw_crumbs(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """Crumbs, salt or pepper scattered about."""
    colour = pick(((0.85, 0.64, 0.36), (0.95, 0.93, 0.90), (0.25, 0.18, 0.12), (0.35, 0.55, 0.2)), rng)
    for _ in range(int(rng.integers(8, 20))):
        patch = relief.patch(spot.at(rng.normal(0, 0.8), rng.normal(0, 0.8), scale=rng.uniform(0.012, 0.032)), 1.3)
        grain = hypot(patch.u, patch.v * 1.3) - 1
        patch.coat(grain, dome(grain, 1.0), colour, 0.1)


def draw_bottle(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A squeezy bottle of mustard or ketchup, lying down."""
    patch = relief.patch(spot, 1.1, 0.4)
    if patch.empty:
        return
    colour = pick(((0.92, 0.74, 0.10), (0.75, 0.09, 0.06)), rng)
    body = rounded_box(patch.u - 0.25, patch.v, 0.72, 0.28, 0.12)
    neck = 0.16 * np.clip((patch.u + 1.1) / 0.5, 0.25, 1)
    cap = np.maximum(np.abs(patch.v) - neck, np.abs(patch.u + 0.7) - 0.26)
    patch.stamp(cap, dome(cap, 0.14) + 0.1, mix(colour, (0.95, 0.95, 0.95), 0.2 if rng.random() < 0.5 else 0.9), 0.6)
    patch.stamp(body, dome(body, 0.28), colour, 0.7)
    label = rounded_box(patch.u - 0.3, patch.v, 0.36, 0.2, 0.05)
    patch.coat(label, 0.002, pick(((0.95, 0.95, 0.92), (0.15, 0.35, 0.2), (0.1, 0.2, 0.5)), rng), 0.4)


# ---- the hand that holds food ---------------------------------------------------------------------------------------


def draw_palm(relief: Relief, spot: Spot, half_v: float, rng: np.random.Generator) -> tuple[Spot, Colour]:
    """Forearm and palm; returns where the food then lies, and the colour of the skin for the fingers."""
    skin = pick(
        ((0.93, 0.73, 0.61), (0.86, 0.62, 0.48), (0.72, 0.49, 0.35), (0.52, 0.34, 0.24), (0.36, 0.23, 0.17)), rng
    )
    arm = spot.at(rng.normal(0, 0.1), 0, turn=rng.normal(0, 0.2))
    patch = relief.patch(arm, 0.9, 4.5)
    sleeve = pick(((0.25, 0.32, 0.5), (0.6, 0.18, 0.18), (0.85, 0.84, 0.8), (0.2, 0.2, 0.22)), rng)
    forearm = capsule(patch.v - half_v - 2.6, patch.u, 2.1, 0.3)
    palm = hypot(patch.u / 1.15, (patch.v - half_v * 0.55) / 1.05) - 0.5
    # The smaller of two distances, blended where they are close, so that the wrist has no corner.
    both = -np.log(np.exp(-8 * forearm) + np.exp(-8 * palm)) / 8
    flesh = mix(skin, (0.62, 0.25, 0.2), 0.12 + 0.1 * patch.mottle)
    covered = np.clip((patch.v - half_v - rng.uniform(1.0, 2.2)) * 20, 0, 1)
    patch.stamp(both, 0.05 + dome(both, 0.3), mix(flesh, sleeve, covered), 0.15)
    return replace(spot, level=spot.level + 0.3 * spot.size), skin


def draw_fingers(relief: Relief, spot: Spot, half_v: float, skin: Colour, rng: np.random.Generator) -> None:
    """Four fingertips over the far edge of the food, the thumb over the near one."""
    for number in range(4):
        u = (number - 1.5) * 0.27 + rng.normal(0, 0.015)
        reach = half_v - 0.02 - 0.04 * abs(number - 1.3)
        _finger(relief, spot.at(u, -reach, turn=np.pi / 2 + rng.normal(0, 0.06) - 0.08 * (number - 1.5)), 0.125, skin)
    _finger(relief, spot.at(rng.uniform(-0.25, 0.25), half_v - 0.02, turn=-np.pi / 2 + rng.normal(0, 0.3)), 0.15, skin)


def _finger(relief: Relief, spot: Spot, radius: float, skin: Colour) -> None:
    """A fingertip that points along u and ends a little past the spot's centre."""
    patch = relief.patch(spot, 0.45, 0.2)
    distance = capsule(patch.u + 0.12, patch.v, 0.2, radius * (1 - 0.12 * np.clip(patch.u * 3, 0, 1)))
    nail = hypot((patch.u - 0.1) / 1.35, patch.v) - radius * 0.5
    knuckle = np.clip(1 - np.abs(np.abs(patch.u + 0.12) - 0.012) / 0.012, 0, 1) * 0.3
    flesh = mix(skin, (0.55, 0.22, 0.18), 0.1 + knuckle + 0.15 * np.clip(patch.u * 2, 0, 1))
    flesh = mix(flesh, mix(skin, (0.98, 0.82, 0.78), 0.6), 0.5 - nail * spot.size)
    patch.stamp(distance, 0.25 + dome(distance, radius), flesh, 0.25)
