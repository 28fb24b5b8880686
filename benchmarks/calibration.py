"""What a temperature fitted on held-out pictures is worth on test pictures.

    python benchmarks/calibration.py PICTURES WORK [--size 150] [--seeds 5] [--image-size 96]
        [--recipes probe,auto,tuned]

PICTURES holds `train/` and `test/` of class folders. For each seed so many training pictures of each class are drawn,
and each recipe learns from them; `tuned` is plain fine-tuning of every layer, long enough to be sure of itself (adamw,
1e-3, 8 epochs), its temperature fitted on a fifth of the pictures held back. Writes `results/calibration.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import relish
from few_pictures import drawn
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder
from relish.reporting.text import text_table
from study import write_results

TUNED = {
    "optimiser": "adamw", "learning_rate": 1e-3, "head_multiplier": 1, "loss": "mean", "epochs": 8, "batch_size": 32,
}  # fmt: skip
FIGURES = ("ece", "log_loss", "brier")


def evaluation_of(root: Path, out: Path, recipe: str, seed: int, image_size: int) -> dict[str, Any]:
    """Train, or find what was trained, and read its last figures."""
    if not RunFolder(out).finished:
        asked: dict[str, Any] = {"recipe": recipe, "settings": {"image_size": image_size}}
        if recipe == "tuned":
            asked = {"recipe": "book", "settings": {"image_size": image_size, **TUNED}, "val_split": 0.2}
        if recipe == "auto":
            asked["settings"]["epochs"] = 3
        relish.fit(root, seed=seed, out=out, progress=Screen(), **asked)
    return json.loads(RunFolder(out).evaluation.read_text())


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("pictures", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--size", type=int, default=150)
    ask.add_argument("--seeds", type=int, default=5)
    ask.add_argument("--image-size", type=int, default=96)
    ask.add_argument("--recipes", default="probe,auto,tuned")
    asked = ask.parse_args()
    rows, record = [], []
    for recipe in asked.recipes.split(","):
        for seed in range(asked.seeds):
            root = drawn(asked.pictures, asked.work, asked.size, seed)
            found = evaluation_of(
                root, asked.work / "runs" / f"{recipe}-{asked.size}-{seed}", recipe, seed, asked.image_size
            )
            before, decision = found["before_temperature"], found["decision"]
            told = [f"{before[key]:.3f} → {found[key]:.3f}" for key in FIGURES]
            rows.append([recipe, str(seed), f"{decision['temperature']:.2f}", str(decision["fitted_on"]), *told])
            record.append(
                {
                    "recipe": recipe, "seed": seed, "accuracy": found["top1"]["value"], "decision": decision,
                    "before": before, "after": {key: found[key] for key in FIGURES},
                }
            )  # fmt: skip
        mine = [one for one in record if one["recipe"] == recipe]
        means = [(np.mean([o["before"][k] for o in mine]), np.mean([o["after"][k] for o in mine])) for k in FIGURES]
        rows.append([recipe, "mean", "", "", *(f"{before:.3f} → {after:.3f}" for before, after in means)])
    heads = ["recipe", "seed", "temperature", "fitted on", "calibration error", "log-loss", "Brier score"]
    print(text_table(heads, rows, right=(2, 3)))
    write_results("calibration", {"size": asked.size, "image_size": asked.image_size, "runs": record})


if __name__ == "__main__":
    main()
