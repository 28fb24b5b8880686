"""What the studies share: a run that is trained once and kept, its figures, a table and a JSON file.

Not a command. A study that is stopped is continued by the same command, with the run that it was at: the figures of
those that are finished are kept beside the tables, in `results/runs/STUDY.jsonl`, so that they outlive their folders. A
run is trained again where its recipe, or its pictures' names, have changed since.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import permutation_test
from sklearn.metrics import balanced_accuracy_score, f1_score

import relish
from measuring import RESULTS, finish, machine
from relish.core.io import fingerprint, write_json
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder
from relish.data.sources import find_dataset
from relish.training.recipe import named_recipe, recipe_from_dict

RULES = {"ladder": 2, "probe": 1, "train": 1}
"""By a recipe's method. Raise one when it does something else than before: its kept runs are then trained again."""


@dataclass(frozen=True)
class Result:
    """The figures of one run on its test pictures."""

    right: np.ndarray
    """(N,) bool, in the order of the split."""
    accuracy: float
    balanced: float
    macro_f1: float
    seconds: float
    """Of training, judging left out."""
    held_out: float | None
    """Accuracy on the pictures that a climb chose by."""
    kept: str
    """The rung that a climb ended with; empty for a loop alone."""
    processor: str
    """That it was trained on."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; which pictures are right as a string of 0 and 1."""
        return {**vars(self), "right": "".join("01"[int(value)] for value in self.right)}


def result_of(
    study: str, data: Path, out: Path, recipe: str, seed: int = 0, budget: float | None = None, **settings: Any
) -> Result:
    """Train, or find what was trained, and read the figures."""
    wanted = named_recipe(recipe).with_settings(settings)
    asked = {
        "run": out.name, "rules": RULES[wanted.method], "pictures": _pictures(str(data)), "seed": seed,
        "budget": budget, "recipe": wanted.as_dict(),
    }  # fmt: skip
    file = RESULTS / "runs" / f"{study}.jsonl"
    for line in file.read_text().splitlines() if file.is_file() else ():
        kept = json.loads(line)
        if all(kept[key] == asked[key] for key in asked):
            found = kept["result"]
            return Result(**{**found, "right": np.array([mark == "1" for mark in found["right"]])})
    result = read_result(trained(data, out, recipe, seed, budget, **settings))
    file.parent.mkdir(parents=True, exist_ok=True)
    # One line in one write: two that work on one study at a time do not mix theirs up.
    with file.open("a") as lines:
        lines.write(json.dumps({**asked, "result": result.as_json()}) + "\n")
    return result


@cache
def _pictures(data: str) -> str:
    """The names and classes of all pictures, as a hash: quick, and enough to tell one dataset from another."""
    splits = {
        name: [[path.name, label] for path, label in zip(split.paths, split.labels.tolist(), strict=True)]
        for name, split in find_dataset(data).splits.items()
    }
    return fingerprint(splits)[:16]


def trained(
    data: Path, out: Path, recipe: str, seed: int = 0, budget: float | None = None, **settings: Any
) -> RunFolder:
    """The finished run in this folder; one that is not finished, or of another recipe, is trained from the start."""
    folder, wanted = RunFolder(out), named_recipe(recipe).with_settings(settings)
    if folder.finished and recipe_from_dict(folder.read_recipe()) == wanted:
        return folder
    shutil.rmtree(out, ignore_errors=True)
    print(f"training {out.name}", flush=True)
    relish.fit(data, recipe=recipe, seed=seed, settings=settings, budget=budget, out=out, progress=Screen())
    return folder


def read_result(folder: RunFolder) -> Result:
    """The figures of a finished run."""
    with np.load(folder.predictions) as kept:
        labels, said = kept["labels"], kept["probabilities"].argmax(1)
    rungs = [event for event in folder.records() if event["event"] == "rung" and event.get("kept", True)]
    return Result(
        right=said == labels,
        accuracy=float((said == labels).mean()),
        balanced=float(balanced_accuracy_score(labels, said)),
        macro_f1=float(f1_score(labels, said, average="macro")),
        seconds=float(folder.read_evaluation()["training_seconds"]),
        held_out=rungs[-1]["value"] if rungs else None,
        kept=rungs[-1]["rung"] if rungs else "",
        processor=json.loads(folder.environment.read_text())["processor"],
    )


def gap(ours: list[Result], theirs: list[Result]) -> tuple[float, float]:
    """How much better we are, in points, and one paired standard error of that.

    Every run is judged on the same pictures, so a picture counts once, with the mean over runs of what it says.
    """
    differences = _differences(ours, theirs)
    return 100 * float(differences.mean()), 100 * float(differences.std(ddof=1) / np.sqrt(len(differences)))


def paired_p(ours: list[Result], theirs: list[Result]) -> float:
    """How often chance would set two equally good recipes as far apart: signs of pictures' differences drawn anew."""
    differences = _differences(ours, theirs)
    if not differences.any():
        return 1.0
    found = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9_999, rng=0)
    return float(found.pvalue)


def told_gap(points: float, error: float, p_value: float) -> str:
    """Such as `+1.2 ± 0.4, p = 0.003`: what `gap` and `paired_p` found."""
    return f"{points:+.1f} ± {error:.1f}, " + ("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")


def _differences(ours: list[Result], theirs: list[Result]) -> np.ndarray:
    """(N,) float64, for each picture: in how many more of the runs we have it right, as a share of them."""
    return np.mean([a.right.astype(float) - b.right for a, b in zip(ours, theirs, strict=True)], axis=0)


def mean_and_spread(values: list[float]) -> str:
    """Such as `0.912 (0.905–0.921)`: the mean, the smallest and the largest."""
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def seeded_arguments(words: str | None, image_size: int) -> argparse.Namespace:
    """`data`, `work`, `seeds` and `image_size`, of a study that trains on one dataset with several seeds."""
    ask = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("data", type=Path)
    ask.add_argument("work", type=Path)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--image-size", type=int, default=image_size)
    return ask.parse_args()


def finish_study(
    name: str,
    command: str,
    repeats: int,
    unit: str,
    found: Mapping[Any, Sequence[Result]],
    rows: list[dict[str, Any]],
    table: list[list[str]],
) -> None:
    """Print a table of runs and write it to `results/NAME.json`, with every processor that they were trained on.

    Args:
        repeats, unit: how often everything was done, such as 3 and "seed".
        found: every run, under whatever name.
    """
    processors = " and ".join(sorted({run.processor for runs in found.values() for run in runs}))
    of = f"{repeats} {unit}{'s' if repeats > 1 else ''}"
    finish(name, command, rows, table, processor=processors, of=of)


def write_results(name: str, content: Mapping[str, Any]) -> None:
    """Put figures into `benchmarks/results/NAME.json`, with what they were measured on."""
    write_json(RESULTS / f"{name}.json", {"machine": machine(), **content})
