"""A hand that holds food over the table: forearm and palm beneath it, fingertips and thumb over its edges.

In:   a `Relief`, the `Spot` of the food, its half-width.
Out:  the two halves of the hand, stamped before and after the food.
"""

from dataclasses import replace

import numpy as np

from relish.data.drawn.hotdog import pick
from relish.data.drawn.relief import Colour, Relief, Spot, capsule, dome, hypot, mix

SKINS: tuple[Colour, ...] = (
    (0.93, 0.73, 0.61),
    (0.86, 0.62, 0.48),
    (0.72, 0.49, 0.35),
    (0.52, 0.34, 0.24),
    (0.36, 0.23, 0.17),
)


def draw_palm(relief: Relief, spot: Spot, half_v: float, rng: np.random.Generator) -> tuple[Spot, Colour]:
    """Forearm and palm; returns where the food then lies, and the colour of the skin for the fingers."""
    skin = pick(SKINS, rng)
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
    if patch.empty:
        return
    distance = capsule(patch.u + 0.12, patch.v, 0.2, radius * (1 - 0.12 * np.clip(patch.u * 3, 0, 1)))
    nail = hypot((patch.u - 0.1) / 1.35, patch.v) - radius * 0.5
    knuckle = np.clip(1 - np.abs(np.abs(patch.u + 0.12) - 0.012) / 0.012, 0, 1) * 0.3
    flesh = mix(skin, (0.55, 0.22, 0.18), 0.1 + knuckle + 0.15 * np.clip(patch.u * 2, 0, 1))
    flesh = mix(flesh, mix(skin, (0.98, 0.82, 0.78), 0.6), 0.5 - nail * spot.size)
    patch.stamp(distance, 0.25 + dome(distance, radius), flesh, 0.25)
