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

import relish
from relish.core.progress import Screen
from relish.data.drawn.datasets import draw_hotdogs, draw_source_classes
from relish.training.recipe import named_recipe

SIZE = 80
TARGET = {"image_size": SIZE, "batch_size": 16, "epochs": 6, "head_multiplier": 1.0, "loss": "mean", "momentum": 0.9}
RATE = 0.01


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("work", type=Path)
    ask.add_argument("--epochs", type=int, default=20)
    ask.add_argument("--seeds", type=int, default=1)
    asked = ask.parse_args()
    things, hotdogs = asked.work / "things", asked.work / "hotdogs"
    if not things.exists():
        draw_source_classes(things, train=60, test=10, progress=Screen())
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
