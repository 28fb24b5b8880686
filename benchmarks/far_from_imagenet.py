"""Far from ImageNet: scans whose test pictures come from other machines than the ones to learn from.

    python benchmarks/far_from_imagenet.py DATA WORK [--seeds 3] [--image-size 128]

DATA is anything `relish fit` takes. `book` and `frozen` are each given three rates and judged at the one that is best
on the test pictures, which flatters them; `probe` and `auto` choose for themselves. Writes
`results/far_from_imagenet.json`.
"""

import numpy as np

from study import Result, finish_study, mean_and_spread, result_of, seeded_arguments

STUDY = "far_from_imagenet"
RATES = {"book": (5e-5, 2e-4, 8e-4), "frozen": (5e-5, 2e-4, 8e-4)}


def main() -> None:
    asked = seeded_arguments(__doc__, image_size=128)
    found: dict[str, list[Result]] = {}
    for seed in range(asked.seeds):
        for recipe in ("auto", "probe"):
            out = asked.work / "runs" / f"{recipe}-{seed}"
            one = result_of(STUDY, asked.data, out, recipe, seed, image_size=asked.image_size)
            found.setdefault(recipe, []).append(one)
        for recipe, rates in RATES.items():
            for rate in rates:
                out = asked.work / "runs" / f"{recipe}-{rate:g}-{seed}"
                one = result_of(STUDY, asked.data, out, recipe, seed, image_size=asked.image_size, learning_rate=rate)
                found.setdefault(f"{recipe}, rate {rate:g}", []).append(one)
    table = [["recipe", "macro-F1", "accuracy", "accuracy on held-out pictures"]]
    table += [
        [name, mean_and_spread([o.macro_f1 for o in ones]), mean_and_spread([o.accuracy for o in ones]),
         f"{np.mean([o.held_out for o in ones if o.held_out]):.3f}" if ones[0].held_out else ""]
        for name, ones in found.items()
    ]  # fmt: skip
    rows = [
        {
            "recipe": name, "macro_f1": [o.macro_f1 for o in ones], "accuracy": [o.accuracy for o in ones],
            "held_out": [o.held_out for o in ones], "seconds": [o.seconds for o in ones],
        }
        for name, ones in found.items()
    ]  # fmt: skip
    finish_study(
        STUDY, "python benchmarks/far_from_imagenet.py DATA WORK", asked.seeds, "seed",
        found, rows, table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
