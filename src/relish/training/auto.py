"""The ladder: probe, fine-tuning from the probe's head, averaging the two; each kept only where it is better.

In:   a target model as its source left it, the pictures to learn from, a recipe, a folder.
Out:  the network, as the best rung left it; every rung's figures in the run's `metrics.jsonl`.

What is compared are answers on pictures that were held out: a fifth of them, or, where that is too few to tell two
models apart, every picture once, held out from one of several models, which are averaged in the end. Everything is
either kept on disk or follows from it, so a run that is killed is climbed again from the bottom, in seconds, up to
where it was.

Source: fine-tuning from a probe: Kumar et al. 2022, arXiv:2202.10054. Averaging with it: Wortsman et al. 2022,
arXiv:2109.01903; averaging models of one origin: Wortsman et al. 2022, arXiv:2203.05482.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator

from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.transforms import Preprocessing
from relish.evaluation.held_out import HeldOut
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import Verdict, compare_losses, tempered_losses
from relish.training.budget import SHARES, Climb, Plans, joint_epochs_for
from relish.training.checkpoint import State, state_of
from relish.training.finetune import HELD_OUT, Fold, Tuned, Tuning, put_together, set_head
from relish.training.precision import run_precision
from relish.training.probe_stage import Probed, probe_of
from relish.training.train import Lesson

Keep = Callable[[Preprocessing, HeldOut], None]
"""Called whenever the network has become the best so far, to save it; with how it wants its pictures, and what it, or
the models it was put together from, said of pictures they did not learn from."""


def climb(job: Climb, folder: RunFolder, keep: Keep, accelerator: Accelerator, progress: Progress) -> list[RunFolder]:
    """Climb as far as the recipe and the time go, and as each rung is better than the one below.

    Returns:
        Where each fine-tuning was recorded; none where there was only the probe.

    Raises:
        ModelError: no probe can be trained for this network.
        Diverged, Stopped, PictureError: as the loop does.
    """
    plans = Plans(job, folder, accelerator, progress)
    probed = probe_of(job, plans.lower(), accelerator, progress)
    network = job.target.network
    origin = state_of(network)
    set_head(job.target, probed.probe)
    progress.say(f"rung    {probed.words()}")
    if not _kept_before(folder):  # a run that is resumed may have a better one by now
        keep(probed.preprocessing, _probed_held_out(job, probed))
    _record(job, folder, accelerator, "probe", **probed.as_json())
    if job.recipe.method == "probe" or _reached(job, probed.right, progress) or job.recipe.epochs == 0:
        return []
    probe, lesson = state_of(network), _lesson(job, probed)
    lesson = replace(lesson, precision=run_precision(lesson, folder, accelerator, progress))
    tuning = Tuning(
        job=job, plans=plans, plan=plans.upper(lesson), probed=probed, lesson=lesson, origin=origin, folder=folder,
        accelerator=accelerator, progress=progress,
    )  # fmt: skip
    tuned = tuning.models()
    if tuned is None:
        network.load_state_dict(probe)
        return []
    joint = replace(
        lesson,
        recipe=replace(job.recipe, epochs=joint_epochs_for(tuning.plan.epochs), learning_rate=tuned.rate),
        score=lesson.learn.take([]),
        deadline=tuning.deadline([]),
    )
    if not _top(job, joint, tuned, probe, partial(keep, probed.preprocessing), folder, accelerator, progress):
        network.load_state_dict(probe)
    return list(tuned.stages)


def _top(
    job: Climb,
    joint: Lesson,
    tuned: Tuned,
    probe: State,
    keep: Callable[[HeldOut], None],
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> bool:
    """Put what the folds come to into the network, and keep it, where it is better than the probe; whether it is."""
    folds = list(tuned.folds)
    share, verdict = _chosen(folds)
    name = "fine-tuned" if share == 1 else f"average of probe and fine-tuned, {share:g} of the way"
    progress.say(f"rung    {name}: {verdict.sentence()}")
    kept = verdict.better and put_together(joint, folds, share, probe, folder, accelerator, progress)
    if verdict.better and not kept:
        progress.warn("what the models were put together to is worse than they are, so the probe is kept after all.")
    if kept:
        keep(_tuned_held_out(job, folds, share))
    figures = {
        "probe_correct": verdict.right_before, "share": share, "gain": verdict.gain, "error": verdict.error,
        "kept": kept, "curves": tuned.stages[0].path.name, "learning_rate": tuned.rate,
    }  # fmt: skip
    _record(job, folder, accelerator, "average", **Proportion(verdict.right, verdict.count).as_json(), **figures)
    progress.say(f"won     {name if kept else 'probe'}")
    return kept


def _lesson(job: Climb, probed: Probed) -> Lesson:
    """Fine-tuning on every picture; each model that is fine-tuned takes a part of it."""
    return Lesson(
        target=job.target,
        recipe=job.recipe,
        learn=probed.learn,
        score=probed.learn,
        score_name=HELD_OUT,
        preprocessing=probed.preprocessing,
        seed=job.seed,
        workers=job.workers,
    )


def _probed_held_out(job: Climb, probed: Probed) -> HeldOut:
    """What the probe's cross-validation said of each picture that was held out from it once."""
    out = probed.learn.take(np.flatnonzero(probed.found.held))
    return HeldOut(out.labels, probed.found.logits, tuple(job.contents[path] for path in out.paths))


def _tuned_held_out(job: Climb, folds: list[Fold], share: float) -> HeldOut:
    """What each model of the average said of the pictures held out from it."""
    return HeldOut(
        np.concatenate([fold.out.labels for fold in folds]),
        np.concatenate([fold.logits[share] for fold in folds]),
        tuple(job.contents[path] for fold in folds for path in fold.out.paths),
    )


def _chosen(folds: list[Fold]) -> tuple[float, Verdict]:
    """The best average on the pictures held out, as a share of the way from the probe, and how it compares with it."""
    labels = np.concatenate([fold.out.labels for fold in folds])
    said = {share: np.concatenate([fold.probabilities(share) for fold in folds]) for share in (0.0, *SHARES)}
    # A model whose numbers are none any more says nothing.
    said = {share: np.nan_to_num(found) for share, found in said.items()}
    right = {share: int((found.argmax(1) == labels).sum()) for share, found in said.items()}
    # One that is right less often than the probe cannot win, however small its loss.
    fit = [share for share in SHARES if right[share] >= right[0.0]] or list(SHARES)
    share = min(fit, key=lambda s: float(tempered_losses(said[s], labels).mean()))
    return share, compare_losses(said[share], said[0.0], labels)


def _kept_before(folder: RunFolder) -> bool:
    """Whether an earlier start kept a model above the probe."""
    return any(event["event"] == "rung" and event["rung"] == "average" and event["kept"] for event in folder.records())


def _reached(job: Climb, right: Proportion, progress: Progress) -> bool:
    if job.target_accuracy is None or right.value < job.target_accuracy:
        return False
    progress.say(
        f"won     probe: it reaches {job.target_accuracy:g} on held-out pictures, so there is no need to climb on"
    )
    return True


def _record(job: Climb, folder: RunFolder, accelerator: Accelerator, rung: str, **figures: Any) -> None:
    """A rung's figures, once: a run that is resumed meets its rungs again."""
    if accelerator.is_main_process and not any(event.get("rung") == rung for event in folder.records()):
        told = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
        seconds = time.monotonic() - job.began
        folder.record(event="rung", epoch=0, batch=0, rung=rung, seconds=seconds, **told)
