"""The running example: the book's fine-tuning, the probe and the ladder on the same photographs, at full size.

    python benchmarks/hot_dogs.py DATA WORK [--seeds 3] [--image-size 224]

DATA is anything `relish fit` takes. Each recipe learns from all of it with each seed, and is judged once, on the test
pictures. `auto` is set against each of the others by McNemar's exact test over the pictures of all seeds. Writes
`results/hot_dogs.json`.
"""

import argparse
from pathlib import Path

import numpy as np

from study import Result, finish_study, mean_and_spread, pooled, result_of

RECIPES = ("book", "probe", "auto")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--image-size", type=int, default=224)
    asked = ask.parse_args()
    found: dict[str, list[Result]] = {recipe: [] for recipe in RECIPES}
    for seed in range(asked.seeds):
        for recipe in RECIPES:
            out = asked.work / "runs" / f"{recipe}-{seed}"
            found[recipe].append(result_of("hot_dogs", asked.data, out, recipe, seed, image_size=asked.image_size))
    table = [["recipe", "test accuracy", "auto against it, pictures that only one has right", "training"]]
    rows = []
    for recipe, ones in found.items():
        test = pooled(found["auto"], ones)
        words = "" if recipe == "auto" else f"{test.only_first} to {test.only_second}, {test.p_words()}"
        accuracies = [one.accuracy for one in ones]
        seconds = [one.seconds for one in ones]
        table.append([recipe, mean_and_spread(accuracies), words, f"{np.mean(seconds):.0f} s"])
        rows.append({"recipe": recipe, "accuracy": accuracies, "seconds": seconds, "p_value": test.p_value})
    finish_study(
        "hot_dogs", "python benchmarks/hot_dogs.py DATA WORK", f"{asked.seeds} seeds",
        [one for ones in found.values() for one in ones], rows, table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
