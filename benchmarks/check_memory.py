"""Peak memory and time of `relish check` against the size of a dataset: 1,000 and 10,000 pictures.

    python benchmarks/check_memory.py WORK [--sizes 1000 10000]

The pictures are noise around soft blobs of colour, 64 × 48 pixels, no two alike, in 10 classes. Each size is checked by
the command, in a process of its own, with the features of every picture computed anew; `bytes a picture` is the slope
between two sizes.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from measuring import finish, memory_table, run

CLASSES = 10


def draw(root: Path, count: int) -> None:
    """So many pictures, dealt out to the classes."""
    chance = np.random.default_rng(count)
    for number in range(count):
        grid = chance.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(grid).resize((64, 48), Image.Resampling.BICUBIC), dtype=float)
        place = root / f"class-{number % CLASSES}" / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = (soft + chance.normal(0, 10, soft.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place, quality=90)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    asked = ask.parse_args()
    rounds = []
    for size in asked.sizes:
        root, home = asked.work / str(size), asked.work / f"home-{size}"
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        draw(root, size)
        os.environ["RELISH_HOME"] = str(home)
        began = time.perf_counter()
        said, peak = run([sys.executable, "-m", "relish", "check", str(root), "--json"])
        seconds = time.perf_counter() - began
        rounds.append(
            {"pictures": size, "peak_gib": peak, "seconds": seconds, "findings": len(json.loads(said)["findings"])}
        )
        print(json.dumps(rounds[-1]), flush=True)
    finish("check_memory", "python benchmarks/check_memory.py WORK", rounds, memory_table(rounds))


if __name__ == "__main__":
    main()
