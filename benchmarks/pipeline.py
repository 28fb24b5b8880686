"""Pictures from file to training batch, without a network: relish against `ImageFolder` and `DataLoader`, in turn.

    python benchmarks/pipeline.py PICTURES [--rounds 5] [--more] [--camera WORK]

Both read the same pictures with Pillow, take a random crop scaled to 224 px, flip half of them and normalise, in
batches of 128. Arms: `DataLoader` as it comes (no workers), with two workers, relish without and with two workers.
With --camera the pictures are enlarged first to the 4,032 × 3,024 pixels of a telephone's camera, with grain, and a
further arm decodes them no larger than crops of recipe `auto` need; batches are of 32 then. Figures are pictures per
second of wall-clock time from the first request to the last batch.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from measuring import earlier_rounds, finish, spread
from relish.core.io import atomic_folder
from relish.core.runtime import keep_freed_memory
from relish.core.workers import Workers
from relish.data.folder import index_folder
from relish.data.image import open_image
from relish.data.loader import epoch_batches, training_batches
from relish.data.transforms import CROP_AREA, book_preprocessing, normalise
from relish.training.recipe import named_recipe

BATCH, BATCHES = 128, 5
CAMERA, CAMERA_BATCH, GRAIN = (4032, 3024), 32, 6.0
"""Width and height in pixels, pictures in a batch, standard deviation of the grain in grey levels."""
SMALLEST = named_recipe("auto").smallest_crop
"""Of the crops that every arm takes of camera-size pictures."""
GREY = (0.5, 0.5, 0.5)


def loader(pictures: Path, batch: int, side: int, smallest: float = CROP_AREA[0], **words: Any) -> DataLoader:
    """Training batches as torch and torchvision make them; `words` go to the `DataLoader`."""
    folder = datasets.ImageFolder(
        pictures / "train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(side, scale=(smallest, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(GREY, GREY),
            ]
        ),
    )
    return DataLoader(folder, batch, shuffle=True, **words)


def plain(pictures: Path, batch: int, workers: int, smallest: float) -> Iterator[Any]:
    yield from loader(pictures, batch, 224, smallest, num_workers=workers)


def ours(pictures: Path, batch: int, workers: int, smallest: float, scaled: bool = False) -> Iterator[Any]:
    split = index_folder(pictures, name="pictures", source=str(pictures)).splits["train"]
    how = book_preprocessing(224, GREY, GREY)
    batches = epoch_batches(len(split), batch, 0, 0)
    made = training_batches(
        split, how, batches, seed=0, epoch=0, smallest=smallest, scaled=scaled, workers=Workers(workers)
    )
    for one in made:
        yield normalise(one.images, how)


def speed(batches: Iterator[Any], batch: int) -> float:
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    seconds = time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]
    return BATCHES * batch / seconds


def enlarged(pictures: Path, work: Path) -> Path:
    """The first pictures of every class as a telephone's camera would have taken them, once."""
    if not work.exists():
        with atomic_folder(work) as made:
            for folder in sorted((pictures / "train").iterdir()):
                (made / "train" / folder.name).mkdir(parents=True)
                for number, file in enumerate(sorted(folder.iterdir())[: BATCHES * CAMERA_BATCH // 2]):
                    large = np.asarray(open_image(file).resize(CAMERA, Image.Resampling.BICUBIC), dtype=np.float32)
                    grain = np.random.default_rng(number).normal(0, GRAIN, (*large.shape[:2], 1))
                    shown = Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))
                    shown.save(made / "train" / folder.name / f"{number:03}.jpg", quality=90)
    return work


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--more", action="store_true")
    ask.add_argument("--camera", type=Path, help="folder for enlarged pictures, some 600 MB")
    asked = ask.parse_args()
    name, shown = ("pipeline-camera", "4,032 × 3,024 to 224 px") if asked.camera else ("pipeline", "224 px")
    pictures = enlarged(asked.pictures, asked.camera) if asked.camera else asked.pictures
    batch, smallest = (CAMERA_BATCH, SMALLEST) if asked.camera else (BATCH, CROP_AREA[0])
    arms: dict[str, Callable[[], Iterator[Any]]] = {
        "ImageFolder + DataLoader": lambda: plain(pictures, batch, 0, smallest),
        "the same, 2 workers": lambda: plain(pictures, batch, 2, smallest),
        "relish": lambda: ours(pictures, batch, 0, smallest),
        "relish, 2 workers": lambda: ours(pictures, batch, 2, smallest),
    }
    if asked.camera:
        arms["relish, decoding=scaled"] = lambda: ours(pictures, batch, 0, smallest, scaled=True)
    keep_freed_memory()
    rounds = earlier_rounds(name, asked.more)
    for arm in arms.values():  # once unmeasured, so that all find the files in memory
        speed(arm(), batch)
    rounds += [{arm: speed(make(), batch) for arm, make in arms.items()} for _ in range(asked.rounds)]
    first = next(iter(arms))
    table = [[f"training pictures, {shown}", "pictures/s", "times as fast as DataLoader"]]
    table += [
        [arm, spread([row[arm] for row in rounds]), spread([row[arm] / row[first] for row in rounds])] for arm in arms
    ]
    finish(name, f"python benchmarks/pipeline.py PICTURES{' --camera WORK' * bool(asked.camera)}", rounds, table)


if __name__ == "__main__":
    main()
