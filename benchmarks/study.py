"""What the studies share: a run that is trained once and kept, its figures, a table and a JSON file.

Not a command. A study that is stopped is continued by the same command: finished runs are found again in its folder.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

import relish
from relish.core.devices import processor_name
from relish.core.progress import Screen
from relish.core.run_folder import RunFolder

RESULTS = Path(__file__).with_name("results")


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


def result_of(
    data: Path, out: Path, recipe: str, seed: int = 0, budget: float | None = None, **settings: Any
) -> Result:
    """Train, or find what was trained, and read the figures."""
    folder = RunFolder(out)
    if not folder.finished:
        resume = out if folder.request.is_file() else None
        asked: dict[str, Any] = {} if resume else {"recipe": recipe, "seed": seed, "settings": settings, "out": out}
        if budget and not resume:
            asked["budget"] = budget
        print(f"{'going on with' if resume else 'training'} {out.name}", flush=True)
        relish.fit(None if resume else data, resume=resume, progress=Screen(), **asked)
    with np.load(folder.predictions) as kept:
        labels, said = kept["labels"], kept["probabilities"].argmax(1)
    rungs = [event for event in folder.records() if event["event"] == "rung"]
    kept_rungs = [rung for rung in rungs if rung.get("kept", True)]
    return Result(
        right=said == labels,
        accuracy=float((said == labels).mean()),
        balanced=float(balanced_accuracy_score(labels, said)),
        macro_f1=float(f1_score(labels, said, average="macro")),
        seconds=float(folder.read_evaluation()["training_seconds"]),
        held_out=kept_rungs[-1]["value"] if kept_rungs else None,
    )


def mean_and_spread(values: list[float]) -> str:
    """Such as `0.912 (0.905–0.921)`: the mean, the smallest and the largest."""
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def write_results(name: str, content: Mapping[str, Any]) -> None:
    """Put a study's figures into `benchmarks/results/NAME.json`, with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"processor": processor_name(), "cores": os.cpu_count(), "torch": torch.__version__}
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine, **content}, indent=1) + "\n")
