"""Scenes photographed several times: does cross-validation say what a probe is worth on scenes that are new?

    python benchmarks/series.py WORK [--draws 5] [--scenes 12] [--views 6] [--image-size 128]

Drawn foods of six kinds that are much alike. A scene (food, place, clutter) is photographed several times to learn
from: the camera moved, turned and nearer, another light, noise and compression. The scenes of the test are new, with a
picture each. A probe is cross-validated with the series that were found kept together, with the true scenes, and with
neither, and judged on the new scenes. One framing, so that a draw takes a minute or two. Writes `results/series.json`.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from measuring import finish
from relish.core.context import Context
from relish.core.io import atomic_folder
from relish.core.progress import Screen
from relish.core.runtime import rng_for
from relish.data.drawn.datasets import HOTDOG, SUBJECTS, Subject, arrange
from relish.data.groups import is_group, units_of
from relish.data.loader import View
from relish.data.sources import find_dataset
from relish.data.split import stratified_folds, usable_folds
from relish.data.survey import Survey, survey
from relish.data.transforms import book_preprocessing
from relish.evaluation.features import Backbone, Features, features_of
from relish.evaluation.grouped import group_numbers, proportion
from relish.evaluation.series import find_series
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training.linear_probe import cross_validate

CLASSES = {"hotdog": HOTDOG, **{name: SUBJECTS[name] for name in ("baguette", "carrot", "eclair", "roll", "sausage")}}
TEST = 40
"""New scenes of each class to be judged on."""
SHARES, EDGE, TURN = (0.55, 0.78), 0.1, 12.0
"""The camera: the share of a side that is in the picture, from the least to the most; the share at each edge that never
is; how far it is turned at most, in degrees."""


def draw_scenes(root: Path, scenes: int, views: int, seed: int, test: int = TEST) -> Path:
    """Write root/{train,test}/CLASS/SCENE-VIEW.jpg: scenes of each class in so many views, those of the test in one."""
    with atomic_folder(root) as folder:
        for split, count, times in (("train", scenes, views), ("test", test, 1)):
            for name, subject in CLASSES.items():
                (folder / split / name).mkdir(parents=True)
                for scene in range(count):
                    for number, image in enumerate(photographs(subject, times, seed, f"{split}/{name}/{scene}")):
                        image.save(folder / split / name / f"{scene:03d}-{number}.jpg", quality=85 - 5 * (number % 5))
    return root


def photographs(subject: Subject, views: int, seed: int, scene: str) -> list[Image.Image]:
    """One scene, photographed so many times."""
    photograph = arrange(subject, rng_for(seed, f"series/{scene}"))
    return [moved(photograph(rng), rng) for rng in (rng_for(seed, f"series/{scene}", view) for view in range(views))]


def moved(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The camera turned, moved and nearer."""
    width, height = image.size
    turned = image.rotate(float(rng.uniform(-TURN, TURN)), Image.Resampling.BICUBIC)
    share = float(rng.uniform(*SHARES))
    left, top = rng.uniform(EDGE, 1 - EDGE - share, 2)
    box = (left * width, top * height, (left + share) * width, (top + share) * height)
    return turned.resize(image.size, Image.Resampling.BICUBIC, box)


def looked_at(root: Path, size: int) -> tuple[Survey, dict[str, Features]]:
    """The pictures, and (N, D) features of each split."""
    looked, source = survey(find_dataset(root)), load_source()
    config = source.data_config
    view = View(book_preprocessing(size, config.mean, config.std))
    backbone = Backbone.of(make_target(source, looked.dataset.classes, head_init="zeros", seed=0))
    context = Context.on("cpu", Screen())
    return looked, {
        name: features_of(backbone, split, [view], looked.sha256, context)[0]
        for name, split in looked.dataset.splits.items()
    }


def judged(looked: Survey, features: dict[str, Features], groups: dict[Path, str]) -> tuple[float, float, float, float]:
    """What cross-validation says with these groups kept together, its interval, and the accuracy on the new scenes."""
    train, test = (looked.dataset.splits[name] for name in ("train", "test"))
    units = [units_of(looked.sha256, groups)[path] for path in train.paths]
    folds = stratified_folds(train.labels, units, usable_folds(train.labels, units, 5), 0)
    found = cross_validate(features["train"], train.labels, len(looked.dataset.classes), folds)
    keys = [unit if is_group(unit) else None for unit, held in zip(units, found.held, strict=True) if held]
    said = proportion(found.logits.argmax(1) == train.labels[found.held], group_numbers(keys))
    right = found.fit().logits(features["test"]).argmax(1) == test.labels
    return said.value, *said.interval, float(right.mean())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("--draws", type=int, default=5)
    ask.add_argument("--scenes", type=int, default=12)
    ask.add_argument("--views", type=int, default=6)
    ask.add_argument("--image-size", type=int, default=128)
    asked = ask.parse_args()
    table = [["draw", "found", "series together", "true scenes together", "neither", "new scenes"]]
    rows = []
    for draw in range(asked.draws):
        root = asked.work / f"scenes-{draw}"
        if not root.is_dir():
            draw_scenes(root, asked.scenes, asked.views, draw)
        looked, features = looked_at(root, asked.image_size)
        train = looked.dataset.splits["train"]
        series = find_series(features["train"], train.labels, looked.facts_of(train.paths))
        ways = {
            "series": series.names(train.paths, [looked.sha256[path] for path in train.paths]),
            "scenes": {path: f"{path.parent.name}/{path.stem.partition('-')[0]}" for path in train.paths},
            "neither": {},
        }
        said = {name: judged(looked, features, groups) for name, groups in ways.items()}
        rows.append({"draw": draw, "found": series.sentence(), **said})
        cells = [f"{value:.3f} ({low:.3f}–{high:.3f})" for value, low, high, _ in said.values()]
        sizes = [len(scene) for scene in series.scenes]
        table.append([str(draw), f"{sum(sizes)} in {len(sizes)}", *cells, f"{said['series'][3]:.3f}"])
    finish("series", "python benchmarks/series.py WORK", rows, table, of=f"{asked.draws} draws")


if __name__ == "__main__":
    main()
