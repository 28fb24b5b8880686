"""Carry out a prepared run in its folder: train, save, then judge what was saved.

In:   a `Prepared` run and a `RunFolder`.
Out:  every file of the folder; `evaluation.json` comes last.
Not here: what the user asked for (`fit.py`), finding pictures and models (`preparing.py`).

The final number is never the one that the loop saw: the model is loaded again from its file and judged as it will be
used.
"""

import json
import math
import platform
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.devices import processor_name
from relish.core.errors import Failed, Stopped, WriteFailed
from relish.core.files import atomic_path, write_json
from relish.core.fingerprints import sha256_of_file
from relish.core.memory import give_memory_back
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.transforms import Preprocessing, preprocessing_from
from relish.evaluation.curves import CurvePoint
from relish.evaluation.metrics import Proportion, Scores, score
from relish.evaluation.predictions import predict_split
from relish.evaluation.rows import prove_rows
from relish.models.header import ModelDescription, load_model, save_model
from relish.report.curves import draw_curves
from relish.tasks.preparing import Prepared
from relish.training.ladder import climb
from relish.training.loop import Lesson, train
from relish.training.precision import run_precision
from relish.training.probing import Climb

RUNS = Path("runs")
"""Where run folders go unless told otherwise."""


def open_folder(prepared: Prepared, out: Path | None, accelerator: Accelerator, runs: Path = RUNS) -> RunFolder:
    """A new run folder with what was asked for in it; the same one in every process."""
    made: list[str] = [""]
    if accelerator.is_main_process:
        request = {**prepared.request.as_dict(), "identity": prepared.identity}
        recipe = prepared.recipe.as_dict()
        stem = f"{prepared.dataset.name}-{prepared.recipe.name}"
        folder = (
            RunFolder.create_next(runs, stem, request, recipe)
            if out is None
            else RunFolder.create(out, request, recipe)
        )
        made = [str(folder.path)]
    if accelerator.num_processes > 1:
        broadcast_object_list(made)
    return RunFolder(Path(made[0]))


def run(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, *, workers: int | None = None
) -> None:
    """Train what was prepared, in its folder, from its checkpoint if there is one; save, and judge what was saved.

    Raises:
        Diverged, Stopped, PictureError: as the loop does.
        WriteFailed: the disk is full; what was saved before can be gone on from.
        Failed: the device has too little memory.
        RunError: another process works in the folder.
    """
    try:
        if not accelerator.is_main_process:
            _train_and_judge(prepared, folder, accelerator, progress, workers)
            return
        with folder.locked():
            _describe_run(prepared, folder, accelerator)
            _train_and_judge(prepared, folder, accelerator, progress, workers)
    except KeyboardInterrupt as error:  # outside the loop, or a second one in it
        raise Stopped("stopped.", hint=f"Go on with: {folder.resume_command}") from error
    except WriteFailed as error:
        raise WriteFailed(error.message, hint=f"{error.hint}\n  Go on with: {folder.resume_command}") from error
    except torch.OutOfMemoryError as error:
        raise Failed(
            f"{accelerator.device}: too little memory for batches of {prepared.recipe.batch_size} pictures "
            f"of {prepared.preprocessing.image_size} pixels.",
            hint="Fit again with half the --batch-size, or a smaller --image-size.",
        ) from error


def _train_and_judge(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int | None
) -> None:
    # On a processor the cores are busy training; an accelerator waits for its pictures.
    workers = (
        workers if workers is not None else 0 if accelerator.device.type == "cpu" else min(8, torch.get_num_threads())
    )
    if prepared.recipe.method == "train":
        _train(prepared, folder, accelerator, progress, workers)
    else:
        _climb(prepared, folder, accelerator, progress, workers)
    accelerator.wait_for_everyone()
    give_memory_back()
    network, _, extra = load_model(folder.model)
    final = prepared.dataset.splits[prepared.final_name]
    found = predict_split(
        network, final, preprocessing_from(extra, prepared.preprocessing), accelerator,
        workers=workers, progress=progress, title="judging",
    )  # fmt: skip
    scores = score(found, final.labels, prepared.dataset.classes)
    if accelerator.is_main_process:
        _write_results(prepared, folder, scores, found)
        progress.say(f"{prepared.final_name} accuracy {scores.sentence()}, computed from the saved model")
        _say_gap(folder, scores.top1, prepared.final_name, progress)
    accelerator.wait_for_everyone()  # so that no process looks for results that are being written


def _train(prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int) -> None:
    """The loop alone."""
    lesson = Lesson(
        target=prepared.target,
        recipe=prepared.recipe,
        learn=prepared.learn,
        score=prepared.dataset.splits[prepared.score_name],
        score_name=prepared.score_name,
        preprocessing=prepared.preprocessing,
        seed=prepared.request.seed,
        workers=workers,
    )
    if prepared.recipe.head == "source" and not folder.checkpoint.is_file():
        _say_before(prepared, folder, accelerator, progress, workers)
    lesson = replace(lesson, precision=run_precision(lesson, folder, accelerator, progress))
    train(lesson, folder, accelerator, progress)
    if accelerator.is_main_process:
        _save(prepared, folder, prepared.preprocessing)
        _draw(folder, folder, prepared.score_name)


def _climb(prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int) -> None:
    """The ladder, or its lower part; each rung that is better is saved at once."""
    job = Climb(
        target=prepared.target,
        recipe=prepared.recipe,
        learn=prepared.learn,
        contents=prepared.survey.sha256,
        preprocessing=prepared.preprocessing,
        seed=prepared.request.seed,
        judged=len(prepared.dataset.splits[prepared.final_name]),
        workers=workers,
        budget=prepared.request.budget or math.inf,
        target_accuracy=prepared.request.target_accuracy,
        began=time.monotonic(),
    )

    def keep(how: Preprocessing) -> None:
        if accelerator.is_main_process:
            _save(prepared, folder, how)

    stages = climb(job, folder, keep, accelerator, progress)
    if accelerator.is_main_process and stages:
        _draw(folder, stages[0], "held-out")


def _say_before(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int
) -> None:
    """Whether the rows are of these classes, and what their head scores before any training (the book's exercise 4)."""
    _prove_rows(prepared, folder, accelerator, progress, workers)
    split = prepared.dataset.splits[prepared.score_name]
    found = predict_split(
        prepared.target.network, split, prepared.preprocessing, accelerator, workers=workers, progress=progress,
        title="scoring the source rows",
    )  # fmt: skip
    scores = score(found, split.labels, prepared.dataset.classes)
    progress.say(f"before training, the head of source rows scores {prepared.score_name} {scores.sentence()}")
    if accelerator.is_main_process:
        folder.record(event="before", epoch=0, batch=0, split=prepared.score_name, **scores.as_json()["top1"])


def _say_gap(folder: RunFolder, judged: Proportion, split: str, progress: Progress) -> None:
    """How far the final figure lies from the one that the winning rung was chosen by."""
    kept = [r for r in folder.records() if r["event"] == "rung" and r.get("kept", True)]
    if not kept:
        return
    held = Proportion(kept[-1]["correct"], kept[-1]["count"])
    points = 100 * (judged.value - held.value)
    if judged.interval[1] < held.interval[0]:
        progress.warn(
            f"{split} accuracy is {-points:.1f} points lower than on held-out training pictures ({held.sentence()}): "
            f"the {split} pictures are of another kind. Expect no more than the {split} figure in use."
        )
    else:
        progress.say(f"held-out accuracy was {held.value:.3f}: {split} is {abs(points):.1f} points {_side(points)}")


def _side(points: float) -> str:
    return "higher" if points >= 0 else "lower, within what chance explains"


def _prove_rows(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int
) -> None:
    target, source = prepared.target, prepared.source
    for proof in prove_rows(
        source.network, prepared.learn, prepared.preprocessing, accelerator, classes=target.classes,
        matches=target.matches, labels=source.labels, workers=workers, progress=progress,
    ):  # fmt: skip
        progress.say(f"proof   {proof.sentence()}")
        if proof.doubtful:
            progress.warn(proof.doubt())
        if accelerator.is_main_process:
            folder.record(event="proof", epoch=0, batch=0, **proof.as_json())
    source.network.cpu()  # it has said all it is asked


def _save(prepared: Prepared, folder: RunFolder, how: Preprocessing) -> None:
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


def _draw(folder: RunFolder, stage: RunFolder, scored_on: str) -> None:
    points = curve_points(stage)
    if points:
        draw_curves(points, folder.curves, title=folder.path.name, scored_on=scored_on)


def _write_results(prepared: Prepared, folder: RunFolder, scores: Scores, found: npt.NDArray[np.float32]) -> None:
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


def _describe_run(prepared: Prepared, folder: RunFolder, accelerator: Accelerator) -> None:
    write_json(folder.classes, list(prepared.dataset.classes))
    write_json(folder.dataset, _pictures(prepared))
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
