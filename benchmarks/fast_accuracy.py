"""What the speed of recipe `auto` costs: the book's recipe as it is, and trained with the shortcuts that `auto` takes.

    python benchmarks/fast_accuracy.py DATA WORK [--seeds 3] [--image-size 224]

DATA is anything `relish fit` takes. The shortcuts are those of `book_speed.py`: precision by a trial, early layers and
the norms' statistics still. The book's own runs are those of `hot_dogs.py`, where it was run before. Writes
`results/fast_accuracy.json`.
"""

import numpy as np

from book_speed import FAST
from study import Result, finish_study, gap, mean_and_spread, paired_p, result_of, seeded_arguments, told_gap


def main() -> None:
    asked = seeded_arguments(__doc__, image_size=224)
    found: dict[str, list[Result]] = {"book": [], "book, fast": []}
    for seed in range(asked.seeds):
        for name, study, settings in (("book", "hot_dogs", {}), ("book, fast", "fast_accuracy", FAST)):
            out = asked.work / "runs" / f"{name.replace(', ', '-')}-{seed}"
            size = {"image_size": asked.image_size}
            found[name].append(result_of(study, asked.data, out, "book", seed, **size, **settings))
    points, error = gap(found["book, fast"], found["book"])
    p_value = paired_p(found["book, fast"], found["book"])
    table = [["recipe", "test accuracy", "against book, in points", "training"]]
    for name, ones in found.items():
        words = "" if name == "book" else told_gap(points, error, p_value)
        seconds = np.mean([one.seconds for one in ones])
        table.append([name, mean_and_spread([one.accuracy for one in ones]), words, f"{seconds:.0f} s"])
    rows = [{"recipe": name, "accuracy": [one.accuracy for one in ones]} for name, ones in found.items()]
    finish_study(
        "fast_accuracy", "python benchmarks/fast_accuracy.py DATA WORK", asked.seeds, "seed",
        found, [*rows, {"gap": points, "error": error, "p": p_value}], table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
