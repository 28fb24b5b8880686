"""Pictures from file to training batch, without a network: relish against `ImageFolder` and `DataLoader`, in turn.

    python benchmarks/pipeline.py PICTURES [--rounds 5] [--more] [--camera WORK]

Both read the same pictures with Pillow, take a random crop scaled to 224 px, flip half of them and normalise, in
batches of 128. Arms: `DataLoader` as it comes (no workers), with two workers, relish without and with two workers.
With --camera the pictures are enlarged first to 4,032 × 3,024 pixels with grain, as a telephone's camera makes them, and
an arm more decodes them no larger than crops need, as recipe `auto` does. Figures are pictures per second of wall-clock time from the first request to the last batch.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets, transforms

from measuring import earlier_rounds, finish, spread
from relish.core.memory import keep_freed_memory
from relish.data.batches import epoch_batches, training_batches
from relish.data.folders import index_folder
from relish.data.transforms import book_preprocessing, normalise

BATCH, BATCHES = 128, 5
CAMERA, CAMERA_BATCH, GRAIN = (4032, 3024), 32, 6.0
GREY = (0.5, 0.5, 0.5)


def plain(pictures: Path, workers: int) -> Iterator[Any]:
    folder = datasets.ImageFolder(
        pictures / "train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(GREY, GREY),
            ]
        ),
    )
    yield from torch.utils.data.DataLoader(folder, BATCH, shuffle=True, num_workers=workers)


def ours(pictures: Path, workers: int) -> Iterator[Any]:
    split = index_folder(pictures, name="pictures", source=str(pictures)).splits["train"]
    how = book_preprocessing(224, GREY, GREY)
    batches = epoch_batches(len(split), BATCH, 0, 0)
    for batch in training_batches(split, how, batches, seed=0, epoch=0, workers=workers):
        yield normalise(batch.images, how)


def speed(batches: Iterator[Any]) -> float:
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    seconds = time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]
    return BATCHES * BATCH / seconds


ARMS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "ImageFolder + DataLoader": lambda pictures: plain(pictures, 0),
    "the same, 2 workers": lambda pictures: plain(pictures, 2),
    "relish": lambda pictures: ours(pictures, 0),
    "relish, 2 workers": lambda pictures: ours(pictures, 2),
}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--more", action="store_true")
    asked = ask.parse_args()
    keep_freed_memory()
    rounds = earlier_rounds("pipeline", asked.more)
    for arm in ARMS.values():  # once unmeasured, so that all find the files in memory
        speed(arm(asked.pictures))
    rounds += [{name: speed(arm(asked.pictures)) for name, arm in ARMS.items()} for _ in range(asked.rounds)]
    first = next(iter(ARMS))
    table = [["training pictures, 224 px", "pictures/s", "times as fast as DataLoader"]]
    table += [
        [name, spread([row[name] for row in rounds]), spread([row[name] / row[first] for row in rounds])]
        for name in ARMS
    ]
    finish("pipeline", "python benchmarks/pipeline.py PICTURES", rounds, table)


if __name__ == "__main__":
    main()
