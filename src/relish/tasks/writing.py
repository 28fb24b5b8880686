"""The files of a run that are written once: the model, what it was judged by, what it was made from.

In:   a `Prepared` run and its folder.
Out:  files, each whole or not at all.
Not here: events and checkpoints, which the loop writes as it goes.
"""

import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator

from relish.core.devices import processor_name
from relish.core.files import atomic_path, write_json
from relish.core.fingerprints import sha256_of_file
from relish.core.run_folder import RunFolder
from relish.data.transforms import Preprocessing
from relish.evaluation.curves import CurvePoint
from relish.evaluation.metrics import Scores
from relish.models.header import ModelDescription, save_model
from relish.report.curves import draw_curves
from relish.tasks.preparing import Prepared


def save_run(prepared: Prepared, folder: RunFolder, how: Preprocessing) -> None:
    """The network as it is now, with its classes and how it wants its pictures."""
    network, source = prepared.target.network, prepared.source
    description = ModelDescription(
        library=source.library,
        architecture=source.architecture,
        model_args=source.model_args,
        num_classes=len(prepared.dataset.classes),
        labels=prepared.dataset.classes,
        data_config=source.data_config.with_user(input_size=(3, how.image_size, how.image_size)),
    )
    extra = {
        "preprocessing": json.dumps(how.as_dict()),
        "source": f"{source.name}: {source.origin}",
        "recipe": json.dumps(prepared.recipe.as_dict()),
    }
    save_model(folder.model, network, description, extra)


def draw_run(folder: RunFolder, stage: RunFolder, scored_on: str) -> None:
    """The curves of one training, into the run's folder."""
    points = curve_points(stage)
    if points:
        draw_curves(points, folder.curves, title=folder.path.name, scored_on=scored_on)


def write_results(prepared: Prepared, folder: RunFolder, scores: Scores, found: npt.NDArray[np.float32]) -> None:
    """What the saved model said of the final split, (N, K) probabilities, and the figures; these end the run."""
    final = prepared.dataset.splits[prepared.final_name]
    with atomic_path(folder.predictions) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, labels=final.labels, probabilities=found)
    records = folder.records()
    seconds = max((r["seconds"] for r in records if r["event"] in ("train", "rung")), default=0.0)
    looped = seconds and prepared.recipe.method == "train"
    pictures = prepared.recipe.passes * len(prepared.learn) if looped else 0
    write_json(
        folder.evaluation,
        {
            "split": prepared.final_name,
            **scores.as_json(),
            "model_sha256": sha256_of_file(folder.model),
            "training_seconds": seconds,
            "pictures_per_second": pictures / seconds if looped else None,
        },
    )


def curve_points(folder: RunFolder) -> tuple[CurvePoint, ...]:
    """The book's three curves, from the events of a run."""
    points: list[CurvePoint] = []
    for event in folder.records():
        if event["event"] == "train":
            points.append(CurvePoint(event["at"], event["loss"], event["accuracy"], None))
        elif event["event"] == "score":
            points.append(CurvePoint(event["at"], None, None, event["correct"] / event["count"]))
    return tuple(points)


def describe_run(prepared: Prepared, folder: RunFolder, accelerator: Accelerator) -> None:
    """Classes, pictures, and what the run was made on."""
    write_json(folder.classes, list(prepared.dataset.classes))
    write_json(folder.dataset, _pictures(prepared))
    looked = prepared.survey
    seen = len(prepared.dataset) + len(looked.unreadable)
    write_json(folder.check, {"findings": [finding.as_json() for finding in looked.findings], "pictures": seen})
    write_json(
        folder.environment,
        {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "device": str(accelerator.device),
            "processes": accelerator.num_processes,
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {
                name: version(name)
                for name in ("relish-vision", "torch", "torchvision", "timm", "accelerate", "pillow")
            },
        },
    )


def _pictures(prepared: Prepared) -> dict[str, Any]:
    dataset = prepared.dataset
    return {
        "name": dataset.name,
        "source": dataset.source,
        "root": str(dataset.root),
        "fingerprint": prepared.survey.fingerprint,
        "warnings": list(dataset.warnings),
        "unreadable": [list(pair) for pair in prepared.survey.unreadable],
        "splits": {
            name: [
                {"path": dataset.label(path), "class": dataset.classes[label], "sha256": prepared.survey.sha256[path]}
                for path, label in zip(split.paths, split.labels.tolist(), strict=True)
            ]
            for name, split in dataset.splits.items()
        },
    }
