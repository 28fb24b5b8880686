"""Many classes, unevenly filled: 40 drawn ones of 12 to 200 pictures each, at equal time and with growing budgets.

    python benchmarks/many_classes.py WORK [--seeds 3] [--image-size 128]

A class is a shape and what fills it (8 times 5), drawn in any colour, size, turn and place on a cluttered ground.
`auto` runs without a budget and with 1, 2 and 5 minutes; `book` gets as many epochs as fill the time that `auto` took.
Writes `results/many_classes.json`.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from relish.core.io import atomic_folder
from relish.core.runtime import rng_for
from study import Result, finish_study, mean_and_spread, result_of

SHAPES = ("disc", "triangle", "square", "pentagon", "star", "cross", "ring", "moon")
FILLS = ("plain", "stripes", "dots", "checks", "rays")
SIDE, TEST = 160, 20
BUDGETS = (60.0, 120.0, 300.0)


def counts() -> dict[str, int]:
    """Training pictures of each class, from 12 to 200, evenly spread on a log scale and dealt out by chance."""
    names = [f"{shape}-{fill}" for shape in SHAPES for fill in FILLS]
    sizes = np.geomspace(12, 200, len(names)).round().astype(int)
    order = rng_for(0, "many/sizes").permutation(len(names))
    return {name: int(sizes[place]) for name, place in zip(names, order, strict=True)}


def outline(shape: str, centre: float, reach: float) -> Image.Image:
    """A mask of the shape, upright."""
    mask = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(mask)
    box = [centre - reach, centre - reach, centre + reach, centre + reach]
    if shape in ("disc", "ring", "moon"):
        pen.ellipse(box, fill=255)
        if shape == "ring":
            pen.ellipse([v + (1 if i < 2 else -1) * reach * 0.5 for i, v in enumerate(box)], fill=0)
        if shape == "moon":
            pen.ellipse([v + (reach * 0.55 if i % 2 == 0 else 0) for i, v in enumerate(box)], fill=0)
    elif shape == "cross":
        pen.rectangle([centre - reach, centre - reach / 3, centre + reach, centre + reach / 3], fill=255)
        pen.rectangle([centre - reach / 3, centre - reach, centre + reach / 3, centre + reach], fill=255)
    else:
        corners = {"triangle": 3, "square": 4, "pentagon": 5, "star": 10}[shape]
        radii = [reach * (0.45 if shape == "star" and i % 2 else 1.0) for i in range(corners)]
        angles = [2 * math.pi * i / corners for i in range(corners)]
        pen.polygon(
            [(centre + r * math.sin(a), centre - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)], 255
        )
    return mask


def filled(fill: str, step: float, first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    """The pattern all over."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    on = {
        "plain": np.zeros_like(x, dtype=bool),
        "stripes": (x // step) % 2 == 0,
        "dots": (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 < (0.3 * step) ** 2,
        "checks": ((x // step) + (y // step)) % 2 == 0,
        "rays": (np.arctan2(y, x) // (math.pi / 6)) % 2 == 0,
    }[fill]
    return Image.fromarray(np.where(on[..., None], second, first).astype(np.uint8))


def picture(name: str, chance: np.random.Generator) -> Image.Image:
    """One picture of a class."""
    shape, fill = name.split("-")
    noise = chance.normal(0, 40, (SIDE // 8, SIDE // 8, 3)) + chance.uniform(40, 215, 3)
    ground = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for _ in range(int(chance.integers(3, 9))):
        ends = [int(v) for v in chance.integers(0, SIDE, 4)]
        pen.line(ends, fill=tuple(int(v) for v in chance.integers(0, 256, 3)), width=int(chance.integers(1, 5)))
    first = chance.integers(0, 256, 3)
    second = (first + chance.integers(90, 166, 3)) % 256
    pattern = filled(fill, float(chance.uniform(9, 16)), tuple(first), tuple(second))
    mask, turn = outline(shape, SIDE / 2, float(chance.uniform(26, 60))), float(chance.uniform(0, 360))
    mask, pattern = mask.rotate(turn, Image.Resampling.BICUBIC), pattern.rotate(turn, Image.Resampling.BICUBIC)
    dx, dy = (int(v) for v in chance.integers(-28, 29, 2))
    ground.paste(ImageChops.offset(pattern, dx, dy), mask=ImageChops.offset(mask, dx, dy))
    blurred = ground.filter(ImageFilter.GaussianBlur(float(chance.uniform(0, 1.2))))
    return Image.fromarray((np.asarray(blurred) + chance.normal(0, 8, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8))


def draw_dataset(root: Path) -> Path:
    """`train/` and `test/` of 40 class folders, once."""
    if not root.exists():
        with atomic_folder(root) as made:
            for name, count in counts().items():
                for part, wanted in (("train", count), ("test", TEST)):
                    (made / part / name).mkdir(parents=True)
                    for number in range(wanted):
                        chance = rng_for(0, f"many/{part}/{name}", number)
                        picture(name, chance).save(made / part / name / f"{number:03}.jpg", quality=90)
    return root


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--image-size", type=int, default=128)
    asked = ask.parse_args()
    root, runs = draw_dataset(asked.work / "shapes"), asked.work / "runs"
    found: dict[str, list[Result]] = {}
    for seed in range(asked.seeds):

        def add(name: str, recipe: str, **more: object) -> Result:
            out = runs / f"{name.replace(' ', '-')}-{seed}"  # noqa: B023 - used within this turn of the loop
            one = result_of("many_classes", root, out, recipe, seed, image_size=asked.image_size, **more)  # noqa: B023  # type: ignore
            found.setdefault(name, []).append(one)
            return one

        whole = add("auto", "auto")
        add("probe", "probe")
        one_epoch = add("book, 1 epoch", "book", epochs=1)
        add("book, equal time", "book", epochs=max(1, round(whole.seconds / one_epoch.seconds)))
        for budget in BUDGETS:
            add(f"auto, {budget / 60:g} min", "auto", budget=budget)
    table = [["recipe", "balanced accuracy", "accuracy", "training"]]
    table += [
        [name, mean_and_spread([o.balanced for o in ones]), mean_and_spread([o.accuracy for o in ones]),
         f"{np.mean([o.seconds for o in ones]):.0f} s"]
        for name, ones in found.items()
    ]  # fmt: skip
    rows = [
        {"recipe": name, "balanced": [o.balanced for o in ones], "accuracy": [o.accuracy for o in ones],
         "seconds": [o.seconds for o in ones]}
        for name, ones in found.items()
    ]  # fmt: skip
    finish_study(
        "many_classes", "python benchmarks/many_classes.py WORK", asked.seeds, "seed",
        found, rows, table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
