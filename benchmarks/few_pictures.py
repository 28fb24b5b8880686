"""Few pictures: what each recipe makes of 10 to 100 pictures a class.

    python benchmarks/few_pictures.py PICTURES WORK [--sizes 10,25,50,100] [--draws 3] [--image-size 128]

PICTURES holds `train/` and `test/` of class folders. For each size and draw so many training pictures of each class are
linked into a folder of WORK, and every recipe learns from the same ones; all are judged on the whole test split. Writes
`results/few_pictures.json`; `charts.py` draws the learning curve from what was kept beside it.
"""

import argparse
from pathlib import Path

import numpy as np

from relish.core.runtime import rng_for
from study import Result, finish_study, gap, mean_and_spread, result_of

RECIPES = ("book", "frozen", "probe", "auto")


def drawn(pictures: Path, work: Path, size: int, draw: int) -> Path:
    """A dataset of so many training pictures of each class, and every test picture."""
    root = work / f"pictures-{size}-{draw}"
    for folder in sorted((pictures / "train").iterdir()):
        files = sorted(folder.iterdir())
        chosen = rng_for(draw, f"few/{folder.name}").permutation(len(files))[:size]
        link(root / "train" / folder.name, [files[i] for i in chosen])
    for folder in sorted((pictures / "test").iterdir()):
        link(root / "test" / folder.name, sorted(folder.iterdir()))
    return root


def link(folder: Path, files: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            (folder / file.name).hardlink_to(file.resolve())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--sizes", default="10,25,50,100")
    ask.add_argument("--draws", type=int, default=3)
    ask.add_argument("--image-size", type=int, default=128)
    asked = ask.parse_args()
    sizes = [int(word) for word in asked.sizes.split(",")]
    found: dict[tuple[str, int], list[Result]] = {}
    for draw in range(asked.draws):
        for size in sizes:
            root = drawn(asked.pictures, asked.work, size, draw)
            for recipe in RECIPES:
                out = asked.work / "runs" / f"{recipe}-{size}-{draw}"
                one = result_of("few_pictures", root, out, recipe, seed=draw, image_size=asked.image_size)
                found.setdefault((recipe, size), []).append(one)
    table, rows = [["pictures a class", *RECIPES, "auto, in points"]], []
    for size in sizes:
        means = {r: float(np.mean([one.accuracy for one in found[r, size]])) for r in RECIPES}
        best = max(RECIPES[:-1], key=means.__getitem__)
        points, error = gap(found["auto", size], found[best, size])
        cells = [mean_and_spread([one.accuracy for one in found[r, size]]) for r in RECIPES]
        table.append([str(size), *cells, f"{points:+.1f} ± {error:.1f} against {best}"])
        seconds = {r: float(np.mean([one.seconds for one in found[r, size]])) for r in RECIPES}
        rows.append({"size": size, "accuracy": means, "seconds": seconds, "gap": points, "error": error, "best": best})
    last = ["all"]
    for recipe in RECIPES:
        points, error = gap(*([one for size in sizes for one in found[r, size]] for r in ("auto", recipe)))
        mean = np.mean([one.accuracy for size in sizes for one in found[recipe, size]])
        last.append(f"{mean:.3f}" if recipe == "auto" else f"{mean:.3f}; auto {points:+.1f} ± {error:.1f}")
        rows.append({"size": "all", "recipe": recipe, "accuracy": mean, "gap": points, "error": error})
    finish_study(
        "few_pictures", "python benchmarks/few_pictures.py PICTURES WORK", asked.draws, "draw",
        found, rows, [*table, [*last, ""]],
    )  # fmt: skip


if __name__ == "__main__":
    main()
