"""Peak memory against the size of a dataset: 1,000, 10,000 and 100,000 pictures of 100 classes.

    python benchmarks/memory_flat.py [--sizes 1000 10000 100000]

The pictures are drawn once, a thousand small ones, and stand in the dataset as hard links. Each size is indexed, looked
over (every file read and decoded), split, and read for four batches of 128 at 32 px, in a process of its own. What
grows is a path, a label and a checksum for each picture; `bytes a picture` is the slope between two sizes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from measuring import finish, memory_table, run

CLASSES, DRAWN = 100, 1000


def draw(folder: Path) -> list[Path]:
    """Noisy pictures of 40 × 40 pixels, no two alike."""
    folder.mkdir()
    chance, files = np.random.default_rng(0), []
    for number in range(DRAWN):
        files.append(folder / f"{number}.jpg")
        Image.fromarray(chance.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(files[-1])
    return files


def link(files: list[Path], root: Path, size: int) -> None:
    for number in range(size):
        place = root / f"class-{number % CLASSES:03}" / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[number % DRAWN], place)


def look_over(root: Path) -> None:
    """Everything that a run does with its pictures before and while it trains, but the network."""
    from relish.core.runtime import keep_freed_memory
    from relish.data.loader import epoch_batches, training_batches
    from relish.data.sources import find_dataset
    from relish.data.split import with_validation
    from relish.data.survey import survey
    from relish.data.transforms import book_preprocessing

    keep_freed_memory()
    looked = survey(find_dataset(str(root)))
    learn = with_validation(looked.dataset, 0.2, 0, looked.sha256).splits["train"]
    how = book_preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for _ in training_batches(learn, how, epoch_batches(len(learn), 128, 0, 0)[:4], seed=0, epoch=0):
        pass
    print(json.dumps(len(learn)))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    ask.add_argument("--arm", type=Path, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.arm:
        look_over(asked.arm)
        return
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["RELISH_HOME"] = str(work / "home")
        files = draw(work / "drawn")
        for size in asked.sizes:
            link(files, work / str(size), size)
            began = time.perf_counter()
            _, peak = run([sys.executable, __file__, "--arm", str(work / str(size))])
            rounds.append({"pictures": size, "peak_gib": peak, "seconds": time.perf_counter() - began})
    finish("memory", "python benchmarks/memory_flat.py", rounds, memory_table(rounds))


if __name__ == "__main__":
    main()
