"""Uneven classes: what sampling, weighted losses and adjusted logits gain in balanced accuracy, and cost in accuracy.

    python benchmarks/imbalance.py PICTURES WORK [--common 300] [--rare 30] [--draws 5] [--image-size 96]
        [--recipes probe,auto] [--epochs 3]

PICTURES holds `train/` and `test/` of two class folders. In each draw so many training pictures of one class and so few
of the other are linked into a folder of WORK, the rare class by turns the one and the other; every way of balancing
learns from the same ones, and all are judged on the whole test split, which is even. Writes `results/imbalance.json`.

On an even test split accuracy and balanced accuracy are the same; what the ways cost where pictures come as uneven as
they were learned from is worked out from the same answers, each class weighted by its share in training.
"""

import argparse
from pathlib import Path

import numpy as np

from few_pictures import link
from relish.core.run_folder import RunFolder
from relish.core.runtime import rng_for
from relish.reporting.text import text_table
from study import mean_and_spread, trained, write_results

WAYS = {"probe": ("none", "weights", "logit"), "auto": ("none", "sampling", "weights", "logit")}


def drawn(pictures: Path, work: Path, common: int, rare: int, draw: int) -> Path:
    """A dataset with many training pictures of one class, few of the other, and every test picture."""
    root = work / f"pictures-{common}-{rare}-{draw}"
    folders = sorted((pictures / "train").iterdir())
    for number, folder in enumerate(folders):
        files = sorted(folder.iterdir())
        chosen = rng_for(draw, f"uneven/{folder.name}").permutation(len(files))
        link(root / "train" / folder.name, [files[i] for i in chosen[: rare if number == draw % 2 else common]])
    for folder in sorted((pictures / "test").iterdir()):
        link(root / "test" / folder.name, sorted(folder.iterdir()))
    return root


def figures_of(run: Path, shares: tuple[float, float]) -> dict[str, float]:
    """Balanced accuracy, accuracy where classes come as in training, and the log-loss there."""
    with np.load(RunFolder(run).predictions) as kept:
        labels, p = kept["labels"], kept["probabilities"].astype(np.float64)
    recalls = [float((p[labels == k].argmax(1) == k).mean()) for k in (0, 1)]
    losses = [float(-np.log(np.maximum(p[labels == k, k], 1e-12)).mean()) for k in (0, 1)]
    return {
        "balanced": float(np.mean(recalls)),
        "as_learned": float(np.dot(shares, recalls)),
        "log_loss": float(np.dot(shares, losses)),
    }


def gap(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """How much more in points, and one standard error of that over the draws, paired."""
    differences = 100 * (np.array(ours) - theirs)
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--common", type=int, default=300)
    ask.add_argument("--rare", type=int, default=30)
    ask.add_argument("--draws", type=int, default=5)
    ask.add_argument("--image-size", type=int, default=96)
    ask.add_argument("--recipes", default="probe,auto")
    ask.add_argument("--epochs", type=int, default=3, help="of fine-tuning in auto")
    asked = ask.parse_args()
    rows, record = [], []
    for recipe in asked.recipes.split(","):
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS[recipe]}
        for draw in range(asked.draws):
            root = drawn(asked.pictures, asked.work, asked.common, asked.rare, draw)
            counts = np.array([asked.rare, asked.common] if draw % 2 == 0 else [asked.common, asked.rare])
            for way in WAYS[recipe]:
                out = asked.work / "runs" / f"{recipe}-{way}-{asked.common}-{asked.rare}-{draw}"
                more = {"epochs": asked.epochs} if recipe == "auto" else {}
                trained(root, out, recipe, seed=draw, image_size=asked.image_size, balance=way, **more)
                found[way].append(figures_of(out, tuple(counts / counts.sum())))
        for way in WAYS[recipe]:
            columns = {key: [one[key] for one in found[way]] for key in found[way][0]}
            plain = {key: [one[key] for one in found["none"]] for key in columns}
            gains = {key: gap(columns[key], plain[key]) for key in ("balanced", "as_learned")}
            told = ["", ""] if way == "none" else [f"{points:+.1f} ± {error:.1f}" for points, error in gains.values()]
            rows.append(
                [
                    recipe, way, mean_and_spread(columns["balanced"]), told[0], mean_and_spread(columns["as_learned"]),
                    told[1], f"{np.mean(columns['log_loss']):.3f}",
                ]
            )  # fmt: skip
            record.append({"recipe": recipe, "balance": way, "draws": found[way], "gains_in_points": gains})
    heads = ["recipe", "balance", "balanced accuracy", "points", "accuracy as learned", "points", "log-loss as learned"]
    print(text_table(heads, rows, right=(3, 5, 6)))
    asked_for = {key: str(value) if isinstance(value, Path) else value for key, value in vars(asked).items()}
    write_results(
        "imbalance", {key: asked_for[key] for key in asked_for if key not in ("pictures", "work")} | {"ways": record}
    )


if __name__ == "__main__":
    main()
