"""Carry out a prepared run in its folder: train, save, then judge what was saved.

In:   a `Prepared` run and a `RunFolder`.
Out:  every file of the folder; `evaluation.json` comes last.
Not here: what the user asked for (`fit.py`), finding pictures and models (`preparing.py`), the files (`writing.py`).

The final number is never the one that the loop saw: the model is loaded again from its file and judged as it will be
used.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import Failed, Stopped, WriteFailed
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import elapsed_before, give_memory_back, keep_elapsed
from relish.data.dataset import VALIDATION, Split
from relish.data.transforms import Preprocessing, preprocessing_from
from relish.evaluation.figures import figures
from relish.evaluation.held_out import HeldOut
from relish.evaluation.inference import split_logits
from relish.evaluation.prediction import decision_from
from relish.models.saved_model import load_model
from relish.tasks.preparing import Prepared
from relish.tasks.remarks import say_before, say_figures, say_gap
from relish.tasks.writing import describe_run, draw_run, save_run, write_results
from relish.training.fine_tuning import HELD_OUT
from relish.training.ladder import climb
from relish.training.loop import Lesson, train
from relish.training.precision import run_precision
from relish.training.probing import Climb
from relish.training.tracking import Tracker

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
        with folder.locked(), _tracked(prepared, folder, accelerator):
            describe_run(prepared, folder, accelerator)
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


@contextmanager
def _tracked(prepared: Prepared, folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Tell the tracker that was asked for of everything that the folder records."""
    if prepared.request.track is None:
        yield
        return
    tracker = Tracker(prepared.request.track, folder.path, accelerator.device.type)
    folder.listener = tracker.hear
    try:
        yield
    finally:
        folder.listener = None
        tracker.end()


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
    logits = split_logits(
        network, final, preprocessing_from(extra, prepared.preprocessing), accelerator,
        workers=workers, progress=progress, title="judging",
    )  # fmt: skip
    found = figures(logits, final.labels, prepared.dataset.classes, decision_from(extra))
    if accelerator.is_main_process:
        if folder.listener is not None:
            top1 = found.top1
            folder.listener(
                {"event": "judged", "split": prepared.final_name, "correct": top1.correct, "count": top1.count}
            )
        write_results(prepared, folder, found, logits)
        progress.say(f"{prepared.final_name} accuracy {found.sentence()}, computed from the saved model")
        say_gap(prepared, folder, found.likeliest, progress)
        say_figures(prepared, folder, found, progress)
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
        say_before(prepared, folder, accelerator, progress, workers)
    lesson = replace(lesson, precision=run_precision(lesson, folder, accelerator, progress))
    train(lesson, folder, accelerator, progress)
    held = _held_out(prepared, accelerator, progress, workers)
    if accelerator.is_main_process:
        save_run(prepared, folder, prepared.preprocessing, held)
        draw_run(folder, folder, prepared.score_name)


def _held_out(prepared: Prepared, accelerator: Accelerator, progress: Progress, workers: int) -> HeldOut | None:
    """What the network says of the validation split, which the loop does not learn from; None where there is none."""
    if VALIDATION not in prepared.dataset.splits:
        return None
    split = prepared.dataset.splits[VALIDATION]
    logits = split_logits(
        prepared.target.network, split, prepared.preprocessing, accelerator,
        workers=workers, progress=progress, title="held-out pictures",
    )  # fmt: skip
    return HeldOut(split.labels, logits, tuple(prepared.survey.sha256[path] for path in split.paths))


def _climb(prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int) -> None:
    """The ladder, or its lower part; each rung that is better is saved at once."""
    learn, held = prepared.learn, Split((), np.zeros(0, dtype=np.int64))
    if prepared.final_name != VALIDATION and VALIDATION in prepared.dataset.splits:
        # The probe learns from these too, and fine-tuning is chosen by them.
        held = prepared.dataset.splits[VALIDATION]
        learn = Split(learn.paths + held.paths, np.concatenate([learn.labels, held.labels]))
    job = Climb(
        target=prepared.target,
        recipe=prepared.recipe,
        learn=learn,
        contents=prepared.survey.sha256,
        held=frozenset(held.paths),
        preprocessing=prepared.preprocessing,
        seed=prepared.request.seed,
        judged=len(prepared.dataset.splits[prepared.final_name]),
        workers=workers,
        budget=prepared.request.budget or math.inf,
        target_accuracy=prepared.request.target_accuracy,
        began=time.monotonic() - elapsed_before(folder.stopwatch),
    )

    def keep(how: Preprocessing, held: HeldOut) -> None:
        if accelerator.is_main_process:
            save_run(prepared, folder, how, held)

    with keep_elapsed(folder.stopwatch, job.began) if accelerator.is_main_process else nullcontext():
        stages = climb(job, folder, keep, accelerator, progress)
    if accelerator.is_main_process and stages:
        draw_run(folder, stages[0], HELD_OUT)
