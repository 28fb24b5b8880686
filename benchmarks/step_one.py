"""Step 1 for real: a source model of one's own, and what it is worth.

    python benchmarks/step_one.py WORK [--epochs 20] [--seeds 1]

Draws source classes (no hot dog among them), trains ResNet-18 on them from random weights with `relish pretrain`, then
fine-tunes the file that came of it on a few drawn hot dogs, beside the same network from scratch with the same rates
and epochs. What is done already in WORK is kept. Prints both test accuracies with their intervals and the paired test.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import relish
from relish.core.progress import Screen
from relish.data.drawn.datasets import ROUND, SUBJECTS, Subject, draw_classes, draw_hotdogs
from relish.data.drawn.relief import Relief, Spot
from relish.data.drawn.shapes import arc, hypot, mix, pick
from relish.data.drawn.things import draw_leaf, draw_mug
from relish.training.recipe import named_recipe

SIZE = 80
TARGET = {"image_size": SIZE, "batch_size": 16, "epochs": 6, "head_multiplier": 1.0, "loss": "mean", "momentum": 0.9}
RATE = 0.01


def draw_fish(relief: Relief, spot: Spot, rng: np.random.Generator) -> None:
    """A whole fish with fins and scales."""
    patch = relief.patch(spot, 1.15, 0.6, rng.normal(0, 0.05))
    back, belly = pick(((0.32, 0.42, 0.52), (0.46, 0.42, 0.32), (0.86, 0.42, 0.26)), rng), (0.86, 0.86, 0.84)
    fin_shade = mix(back, (0.75, 0.66, 0.5), 0.3 + 0.3 * np.sin(patch.u * 60 + patch.v * 40))
    tail = np.maximum(
        np.abs(patch.v) - 0.36 * np.clip((patch.u - 0.5) / 0.5, 0, 1),
        patch.u - 0.98 + 0.3 * (1 - np.abs(patch.v) * 3).clip(0, 1),
    )
    tail = np.maximum(tail, 0.55 - patch.u)
    fin = np.maximum(hypot((patch.u + 0.05) / 1.9, (patch.v + 0.22)) - 0.2, -patch.u - 0.35)
    patch.stamp(np.minimum(tail, fin), 0.05, fin_shade, 0.2)
    wide = 0.29 * np.sin(np.pi * np.clip((patch.u + 1) / 1.75, 0, 1) ** 0.72) + 0.045 * (np.abs(patch.u) < 0.75)
    body = np.maximum(np.abs(patch.v) - wide, patch.u - 0.72)
    depth = np.clip(-body / 0.3, 0, 1)
    scale = np.clip(np.sin(patch.u * 50) * np.sin(patch.v * 50) + 0.2, 0, 1)
    colour = mix(mix(back, belly, (patch.v + 0.15) * 3.2), (0.95, 0.95, 0.95), 0.3 * scale)
    patch.stamp(body, 0.05 + 0.27 * arc(depth) + 0.006 * scale, colour, 0.7)
    gill = np.abs(hypot(patch.u + 0.85, patch.v) - 0.33) - 0.012
    patch.coat(np.maximum(gill, body + 0.04), -0.01, (0.35, 0.22, 0.2), 0.2)
    eye = hypot(patch.u + 0.76, patch.v + 0.05)
    patch.coat(eye - 0.06, 0.01, (0.92, 0.86, 0.6), 0.6)
    patch.coat(eye - 0.033, 0.0, (0.04, 0.04, 0.05), 0.9)


FOODS = ("banana", "burger", "carrot", "doughnut", "fries", "pizza", "sausage", "baguette", "roll")
SOURCES = {
    **{name: [SUBJECTS[name]] for name in FOODS},
    "mug": [Subject(draw_mug, ROUND)],
    "leaf": [Subject(draw_leaf, 0.6)],
    "fish": [Subject(draw_fish, 0.5)],
}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("--epochs", type=int, default=20)
    ask.add_argument("--seeds", type=int, default=1)
    asked = ask.parse_args()
    things, hotdogs = asked.work / "things", asked.work / "hotdogs"
    if not things.exists():
        draw_classes(things, {"train": 60, "test": 10}, SOURCES, "sources", progress=Screen())
    if not hotdogs.exists():
        draw_hotdogs(hotdogs, train=60, test=100, progress=Screen())
    source = asked.work / "source"
    settings = {"image_size": SIZE, "epochs": asked.epochs, "batch_size": 32, "learning_rate": 0.03}
    resume = {"resume": source} if source.exists() else {"data": things, "settings": settings, "out": source}
    relish.pretrain(progress=Screen(), **resume)
    # Everything alike but where the parameters come from.
    both = [
        replace(named_recipe(name).with_settings({**TARGET, "learning_rate": RATE}), name=name)
        for name in ("book", "book-scratch")
    ]
    found = relish.compare(
        hotdogs, recipes=both, seeds=asked.seeds, weights=source / "model.safetensors", runs=asked.work / "runs",
        progress=Screen(),
    )  # fmt: skip
    assert found is not None
    print("\n".join([found.table(), *found.sentences()]))
    print(json.dumps(found.as_json()["recipes"], indent=1))


if __name__ == "__main__":
    main()
