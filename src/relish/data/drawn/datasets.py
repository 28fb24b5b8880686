"""Draw whole datasets, such as hot dogs against other foods.

An image is a subject on a table, in a dish or a hand, with clutter, light and camera. All but the subject is drawn with
the same probabilities for every subject, so only the subject tells the class. Every image is a function of
(seed, split, class, index) alone: more images leave the first ones as they were.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from relish.core.io import atomic_folder
from relish.core.progress import SILENT, Progress
from relish.core.runtime import rng_for
from relish.data.drawn import long_foods, round_foods, side_views, things
from relish.data.drawn.relief import Relief, Spot, photograph
from relish.data.drawn.shapes import choose
from relish.data.drawn.table import backdrop, lay_ground, serve
from relish.data.drawn.things import draw_fingers, draw_palm

Draw = Callable[[Relief, Spot, np.random.Generator], None]
ROUND, LONG = 0.95, 0.36


@dataclass(frozen=True)
class Subject:
    """Something an image can be of: drawn lying, standing, or either."""

    lying: Draw | None
    wide: float
    """Half-width for a half-length of 1."""
    standing: Draw | None = None
    floor: float = 0.5
    """How far its foot is under its centre when it stands."""
    tall: float = 1.0
    """How far its top is over its foot when it stands."""
    in_hand: bool = False
    """Whether people hold it in one hand."""


HOTDOG = Subject(long_foods.lay_hotdogs, 0.5, side_views.stand_hotdog, 0.32, 0.75, in_hand=True)
SUBJECTS: dict[str, Subject] = {
    "banana": Subject(long_foods.draw_banana, 0.5, in_hand=True),
    "burger": Subject(round_foods.draw_burger, ROUND, side_views.stand_burger, 0.66, 1.5, in_hand=True),
    "carrot": Subject(long_foods.draw_carrot, LONG, in_hand=True),
    "doughnut": Subject(round_foods.draw_doughnut, ROUND, in_hand=True),
    "fries": Subject(long_foods.draw_fries, 0.7, side_views.stand_fries, 0.95, 1.9),
    "pizza": Subject(round_foods.draw_pizza, ROUND),
    "sausage": Subject(long_foods.draw_sausage, LONG, in_hand=True),
    "baguette": Subject(long_foods.draw_baguette, LONG, in_hand=True),
    "roll": Subject(long_foods.draw_roll, LONG, in_hand=True),
    "taco": Subject(None, ROUND, side_views.stand_taco, 0.45, 1.55),
    "cupcake": Subject(None, ROUND, side_views.stand_cupcake, 0.95, 2.0),
    "cucumber": Subject(long_foods.draw_cucumber, LONG, in_hand=True),
    "egg": Subject(round_foods.draw_egg, ROUND),
    "cookie": Subject(round_foods.draw_cookie, ROUND, in_hand=True),
    "salad": Subject(round_foods.draw_salad, ROUND),
    "sushi": Subject(round_foods.draw_sushi, ROUND),
    "corn": Subject(long_foods.draw_corn, LONG, in_hand=True),
    "eclair": Subject(long_foods.draw_eclair, LONG, in_hand=True),
    "apple": Subject(round_foods.draw_apple, ROUND, in_hand=True),
    "orange": Subject(round_foods.draw_orange, ROUND, in_hand=True),
}
"""Foods that are no hot dog."""

OTHERS: tuple[str, ...] = (
    *("burger", "doughnut", "pizza", "fries") * 4,
    *("taco", "cupcake", "cookie", "salad", "egg") * 2,
    *("apple", "orange", "sushi", "cucumber"),
    *("sausage", "roll", "baguette", "banana", "carrot", "eclair", "corn"),
)
"""What the other images of the hot-dog dataset are of; named twice means drawn twice as often."""


def draw_hotdogs(root: Path, *, train: int = 100, test: int = 100, seed: int = 0, progress: Progress = SILENT) -> Path:
    """Draw hot dogs and other foods to root/{train,test}/{hotdog,not-hotdog}/NNN.jpg; returns `root`.

    Args:
        root: a folder that does not exist yet; it appears whole or not at all.
        train: images a class in the training split.
        test: images a class in the test split.

    Raises:
        WriteFailed: `root` exists already, or cannot be written to.
    """
    subjects = {"hotdog": [HOTDOG], "not-hotdog": [SUBJECTS[name] for name in OTHERS]}
    return draw_classes(root, {"train": train, "test": test}, subjects, "hotdogs", seed, progress)


def draw_classes(
    root: Path,
    counts: Mapping[str, int],
    subjects: Mapping[str, Sequence[Subject]],
    purpose: str,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Path:
    """Draw class folders to root/SPLIT/CLASS/NNN.jpg; returns `root`.

    Args:
        root: a folder that does not exist yet; it appears whole or not at all.
        counts: images a class in each split.
        subjects: of each class; an image shows one of them.
        purpose: together with the seed, what the images depend on.

    Raises:
        WriteFailed: `root` exists already, or cannot be written to.
    """
    total = sum(counts.values()) * len(subjects)
    with atomic_folder(root) as folder, progress.bar("drawing pictures", total) as bar:
        for split, count in counts.items():
            for name, options in subjects.items():
                target = folder / split / name
                target.mkdir(parents=True)
                for index in range(count):
                    rng = rng_for(seed, f"drawn/{purpose}/{split}/{name}", index)
                    image = compose(choose(options, rng), rng)
                    image.save(target / f"{index:03d}.jpg", quality=int(rng.integers(60, 96)))
                    bar.advance()
    return root


# ---- one image -------------------------------------------------------------------------------------------------------


def compose(subject: Subject, rng: np.random.Generator) -> Image.Image:
    """One image of a subject: scene, place, clutter, light and camera."""
    return arrange(subject, rng)(rng)


def arrange(subject: Subject, rng: np.random.Generator) -> Callable[[np.random.Generator], Image.Image]:
    """The scene of a subject: place and clutter. It can be photographed as often as one likes, each time in a light
    and by a camera drawn from the generator that is given then."""
    size = _size(rng)
    finer = 1.25 if min(size) > 240 else 1.5
    width, height = round(size[0] * finer), round(size[1] * finer)
    relief = Relief(width, height, rng)
    standing = subject.standing if subject.lying is None or rng.random() < 0.3 else None
    if standing is not None:
        _stand(relief, standing, subject, rng)
    elif subject.lying is not None:
        _lie(relief, subject.lying, subject, rng)
    return partial(photograph, relief, size, tilted=standing is None, shadows=1.0 if standing is None else 0.3)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels: most are small, some large; landscape, portrait, panoramas."""
    short = int(120 + 280 * rng.beta(1.1, 2.2))
    ratio = float(rng.choice([1.0, 1.0, 1.25, 4 / 3, 4 / 3, 1.5, 1.5, 16 / 9, 2.2]) * rng.uniform(0.96, 1.04))
    long = min(round(short * max(ratio, 1 / ratio)), 600)
    return (short, long) if rng.random() < 0.3 else (long, short)


def _lie(relief: Relief, draw: Draw, subject: Subject, rng: np.random.Generator) -> None:
    """The subject on a table, or held over it, seen from above."""
    wide = subject.wide
    lay_ground(relief, rng)
    spot = _place(relief, wide, rng)
    _clutter(relief, rng)
    if subject.in_hand and rng.random() < 0.14:
        in_palm, skin = draw_palm(relief, spot, wide, rng)
        draw(relief, in_palm, rng)
        draw_fingers(relief, in_palm, wide, skin, rng)
        return
    spot = serve(relief, spot, wide, rng)
    if rng.random() < 0.3:
        things.draw_crumbs(relief, spot, rng)
    draw(relief, spot, rng)


def _place(relief: Relief, wide: float, rng: np.random.Generator) -> Spot:
    rows, columns = relief.shape
    along = 0.0 if columns >= rows else np.pi / 2
    if wide > 0.8:
        angle, fit = rng.uniform(0, 2 * np.pi), 0.42 * min(rows, columns)
    else:
        angle = along + rng.normal(0, 0.45) + np.pi * rng.integers(2)
        cos, sin = abs(float(np.cos(angle))), abs(float(np.sin(angle)))
        fit = 0.44 * min(columns / (cos + wide * sin), rows / (sin + wide * cos))
    close = rng.uniform(0.72, 1.05) if rng.random() < 0.75 else rng.uniform(1.05, 1.4)
    shift = 0.16 if close < 1 else 0.24
    x = columns / 2 + rng.uniform(-shift, shift) * columns * 0.6
    y = rows / 2 + rng.uniform(-shift, shift) * rows * 0.6
    return Spot(float(x), float(y), float(fit * close), float(angle))


CLUTTER: tuple[tuple[Draw, float], ...] = (
    (things.draw_fork, 0.34),
    (things.draw_knife, 0.36),
    (things.draw_spoon, 0.32),
    (things.draw_glass, 0.2),
    (things.draw_mug, 0.2),
    (things.draw_leaf, 0.2),
    (things.draw_bottle, 0.34),
    (things.draw_bottle, 0.34),
    (long_foods.draw_fries, 0.28),
    (round_foods.draw_salad, 0.26),
    (round_foods.draw_cookie, 0.16),
    (round_foods.draw_apple, 0.17),
    (long_foods.draw_cucumber_slice, 0.1),
)
"""Things about the subject, with their half-length as a share of the image's short side."""


def _clutter(relief: Relief, rng: np.random.Generator) -> None:
    """Other things at the edge of the table, partly out of the image."""
    rows, columns = relief.shape
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        way, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.42, 0.62)
        x = columns * (0.5 + away * float(np.cos(way)) * 1.1)
        y = rows * (0.5 + away * float(np.sin(way)) * 1.1)
        draw, share = choose(CLUTTER, rng)
        size = min(relief.shape) * share * rng.uniform(0.85, 1.3)
        draw(relief, Spot(x, y, size, rng.uniform(0, 2 * np.pi)), rng)


def _stand(relief: Relief, draw: Draw, subject: Subject, rng: np.random.Generator) -> None:
    """The subject on a table seen from the side."""
    edge = backdrop(relief, rng)
    rows, columns = relief.shape
    foot = edge + rng.uniform(0.25, 0.75) * (rows - edge)
    size = min(columns * 0.42, foot / subject.tall) * rng.uniform(0.75, 1.08)
    spot = Spot(
        x=columns * rng.uniform(0.38, 0.62), y=foot - subject.floor * size, size=size, angle=rng.normal(0, 0.05)
    )
    side_views.side_plate(relief, spot, subject.floor, rng)
    draw(relief, replace(spot, level=0.02 * size), rng)
