"""Few pictures and nothing to judge by: all learned from by a probe, or four fifths of them by the whole ladder?

    python benchmarks/none_held_back.py DATA WORK [--sizes 10,20,40] [--draws 4] [--image-size 128]

So many training pictures of each class are drawn into a folder of their own. `relish fit` learns from all of them, as
it does by default with few; with `--val-split 0.2` from four fifths, climbing as far as it is worth. Both are judged on
all other training pictures. Finished runs are kept in WORK. Writes `results/none_held_back_NAME.json`.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import relish
from few_pictures import link
from measuring import finish
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder
from relish.core.runtime import processor_name, rng_for
from relish.data.sources import find_dataset
from relish.training import probe_stage

WAYS = {"all, probe": None, "four fifths, ladder": 0.2}
"""The default, and what `--val-split` makes of it."""


def drawn(data: str, work: Path, size: int, draw: int) -> tuple[Path, Path]:
    """Folders of class folders: so many pictures of each class, and all the others."""
    dataset = find_dataset(data)
    train = dataset.splits["train"]
    root = work / f"{dataset.name}-{size}-{draw}"
    for label, name in enumerate(dataset.classes):
        files = [path for path, one in zip(train.paths, train.labels.tolist(), strict=True) if one == label]
        order = rng_for(draw, f"few/{name}").permutation(len(files))
        link(root / "few" / name, [files[i] for i in order[:size]])
        link(root / "others" / name, [files[i] for i in order[size:]])
    return root / "few", root / "others"


def judged(few: Path, others: Path, out: Path, val_split: float | None, side: int, seed: int) -> tuple[float, float]:
    """Accuracy on the others, and the seconds of `fit`; of a finished run those that it took."""
    if not RunFolder(out).finished:
        began = time.monotonic()
        relish.fit(few, val_split=val_split, image_size=side, seed=seed, out=out, progress=Screen())
        (out / "seconds").write_text(f"{time.monotonic() - began}")
    if not (out / "right").is_file():
        found = relish.load(out).evaluate(others, progress=Screen())
        (out / "right").write_text(f"{found.top1.value}")
    return float((out / "right").read_text()), float((out / "seconds").read_text())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data")
    ask.add_argument("work", type=Path)
    ask.add_argument("--sizes", default="10,20,40")
    ask.add_argument("--draws", type=int, default=4)
    ask.add_argument("--image-size", type=int, default=128)
    asked = ask.parse_args()
    probe_stage.FEW = 10**6
    rows, table = [], [["pictures a class", *WAYS, "difference, in points", "seconds"]]
    for size in (int(word) for word in asked.sizes.split(",")):
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for draw in range(asked.draws):
            few, others = drawn(asked.data, asked.work, size, draw)
            for way, val_split in WAYS.items():
                out = few.parent / ("run-all" if val_split is None else "run-part")
                found[way].append(judged(few, others, out, val_split, asked.image_size, draw))
                print(size, draw, way, found[way][-1], flush=True)
        accuracy, seconds = (np.array([[one[i] for one in ones] for ones in found.values()]) for i in (0, 1))
        gaps = 100 * (accuracy[0] - accuracy[1])
        error = gaps.std(ddof=1) / len(gaps) ** 0.5
        rows.append({"size": size, "accuracy": accuracy.tolist(), "seconds": seconds.tolist()})
        cells = [f"{ones.mean():.3f} ({ones.min():.3f}–{ones.max():.3f})" for ones in accuracy]
        times = " and ".join(f"{ones.mean():.0f}" for ones in seconds)
        table.append([str(size), *cells, f"{gaps.mean():+.1f} ± {error:.1f}", times])
    command = "python benchmarks/none_held_back.py DATA WORK"
    name = f"none_held_back_{find_dataset(asked.data).name}"
    finish(name, command, rows, table, processor=processor_name(), of=f"{asked.draws} draws")


if __name__ == "__main__":
    main()
