"""The running example: the book's fine-tuning, the probe and the ladder on the same photographs, at full size.

    python benchmarks/hot_dogs.py DATA WORK [--seeds 3] [--image-size 224]

DATA is anything `relish fit` takes. Each recipe learns from all of it with each seed, and is judged once, on the test
pictures. `auto` is set against each of the others by a paired test over the pictures, each with the mean over seeds of
what it says. Writes `results/hot_dogs.json`.
"""

import numpy as np

from study import Result, finish_study, gap, mean_and_spread, paired_p, result_of, seeded_arguments, told_gap

RECIPES = ("book", "probe", "auto")


def main() -> None:
    asked = seeded_arguments(__doc__, image_size=224)
    found: dict[str, list[Result]] = {recipe: [] for recipe in RECIPES}
    for seed in range(asked.seeds):
        for recipe in RECIPES:
            out = asked.work / "runs" / f"{recipe}-{seed}"
            found[recipe].append(result_of("hot_dogs", asked.data, out, recipe, seed, image_size=asked.image_size))
    table, rows = [["recipe", "test accuracy", "auto against it, in points", "training"]], []
    for recipe, ones in found.items():
        points, error = gap(found["auto"], ones)
        p_value = paired_p(found["auto"], ones)
        words = "" if recipe == "auto" else told_gap(points, error, p_value)
        accuracies, seconds = [one.accuracy for one in ones], [one.seconds for one in ones]
        table.append([recipe, mean_and_spread(accuracies), words, f"{np.mean(seconds):.0f} s"])
        rows.append(
            {"recipe": recipe, "accuracy": accuracies, "seconds": seconds, "gap": points, "error": error, "p": p_value}
        )
    finish_study(
        "hot_dogs", "python benchmarks/hot_dogs.py DATA WORK", asked.seeds, "seed",
        found, rows, table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
