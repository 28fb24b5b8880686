"""Carry out a prepared run in its folder: train, save, then judge what was saved.

In:   a `Prepared` run and a `RunFolder`.
Out:  every file of the folder; `evaluation.json` comes last.

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
from relish.evaluation.figures import Figures, figures
from relish.evaluation.held_out import HeldOut, gap_of, read_held_out, unreached_aims
from relish.evaluation.inference import split_logits
from relish.evaluation.metrics import Proportion, score
from relish.evaluation.prediction import decision_from, softmax
from relish.evaluation.source_rows import prove_rows
from relish.models.saved_model import load_model
from relish.reporting.text import calibration_line, decision_lines
from relish.tasks.prepare import Prepared
from relish.tasks.save import describe_run, draw_run, save_run, write_results
from relish.training.auto import climb
from relish.training.budget import Climb
from relish.training.checkpoint import Tracker
from relish.training.finetune import HELD_OUT
from relish.training.precision import run_precision
from relish.training.train import Lesson, train

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


MUCH_MORE = 3
"""Where the largest class has more than this many times the pictures of the smallest, balancing is worth a mention."""


def say_before(
    prepared: Prepared, folder: RunFolder, accelerator: Accelerator, progress: Progress, workers: int
) -> None:
    """Whether the rows are of these classes, and what their head scores before any training (the book's exercise 4)."""
    _prove_rows(prepared, folder, accelerator, progress, workers)
    split = prepared.dataset.splits[prepared.score_name]
    logits = split_logits(
        prepared.target.network, split, prepared.preprocessing, accelerator, workers=workers, progress=progress,
        title="scoring the source rows",
    )  # fmt: skip
    scores = score(softmax(logits), split.labels, prepared.dataset.classes)
    progress.say(f"before training, the head of source rows scores {prepared.score_name} {scores.sentence()}")
    if accelerator.is_main_process:
        folder.record(event="before", epoch=0, batch=0, split=prepared.score_name, **scores.as_json()["top1"])


def say_gap(prepared: Prepared, folder: RunFolder, judged: Proportion, progress: Progress) -> None:
    """How far the final figure lies from the one that the winning rung was chosen by."""
    split = prepared.final_name
    counts = prepared.dataset.splits[split].counts(len(prepared.dataset.classes))
    gap = gap_of(folder, judged, counts.tolist())
    if gap is None:
        return
    if not gap.lower:
        progress.say(f"held-out accuracy was {gap.held.value:.3f}: {split} is {_apart(gap.points)}")
        return
    words = (
        f"{split} accuracy is {-gap.points:.1f} points lower than on held-out training pictures "
        f"({gap.held.sentence()}): {gap.reason(split)}"
    )
    if gap.reweighted is None:
        progress.warn(f"{words}. Expect no more than the {split} figure in use.")
    else:
        progress.say(words)


def say_figures(prepared: Prepared, folder: RunFolder, found: Figures, progress: Progress) -> None:
    """What stands beside the accuracy: copies, uneven classes, how the model decides and what that comes to."""
    fresh = folder.read_evaluation()["without_duplicates"]
    if fresh and fresh["left_out"]:
        pictures = "1 picture that has" if fresh["left_out"] == 1 else f"{fresh['left_out']} pictures that have"
        right = Proportion(fresh["correct"], fresh["count"]).sentence()
        progress.say(f"without {pictures} a copy among those learned from: accuracy {right}")
    _say_uneven(prepared, found, progress)
    if found.decision.fitted_on:
        _say_decision(prepared, folder, found, progress)
    else:
        progress.say("temperature 1: no pictures were held out to fit it on (--val-split 0.2 holds some back)")


def _say_uneven(prepared: Prepared, found: Figures, progress: Progress) -> None:
    if found.scores.uneven:
        sentence = found.balanced_accuracy.sentence()
        progress.say(f"balanced accuracy {sentence}: the {prepared.final_name} classes are uneven")
    counts = prepared.learn.counts(len(found.classes))
    times = counts.max() / counts[counts > 0].min()
    if times > MUCH_MORE and prepared.recipe.balance == "none":
        progress.say(
            f"the largest class has {times:.0f} times the training pictures of the smallest: "
            "where every class matters alike, fit again with --set balance=weights"
        )


def _say_decision(prepared: Prepared, folder: RunFolder, found: Figures, progress: Progress) -> None:
    held, request, split = read_held_out(folder.held_out), prepared.request, prepared.final_name
    progress.say(calibration_line(found))
    for words in unreached_aims(found.decision, held, found.classes, request.aim, request.accuracy):
        progress.warn(words)
    for line in decision_lines(found, held, split):
        progress.say(line)
    if split == VALIDATION and prepared.recipe.method == "train":
        progress.say("these were chosen on the pictures they are judged on here: expect a little less in use")


def _apart(points: float) -> str:
    if abs(points) < 0.05:
        return "the same"
    return f"{abs(points):.1f} points {'higher' if points > 0 else 'lower, within what chance explains'}"


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
