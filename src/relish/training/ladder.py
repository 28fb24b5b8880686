"""The ladder: probe, fine-tuning from the probe's head, averaging the two; each kept only where it is better.

In:   a target model as its source left it, the pictures to learn from, a recipe, a folder.
Out:  the network, as the best rung left it; every rung's figures in the run's `metrics.jsonl`.
Not here: the loop that fine-tunes (`loop.py`), the probe (`probe.py`), saving and judging (`tasks/running.py`).

What is compared are answers on pictures that were held out: a fifth of them, or, where that is too few to tell two
models apart, every picture once, held out from one of several models, which are averaged in the end. Everything is
either kept on disk or follows from it, so a run that is killed is climbed again from the bottom, in seconds, up to
where it was.

Source: fine-tuning from a probe: Kumar et al. 2022, arXiv:2202.10054. Averaging with it: Wortsman et al. 2022,
arXiv:2109.01903; averaging models of one origin: Wortsman et al. 2022, arXiv:2203.05482.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from relish.core.errors import Stopped
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.data.folds import stratified_folds, usable_folds
from relish.data.transforms import Preprocessing
from relish.evaluation.predictions import predict_split
from relish.evaluation.selection import Verdict, judge, tempered_losses
from relish.models.target import TargetModel
from relish.training.loop import Lesson, train
from relish.training.probe import Probe
from relish.training.probing import Climb, Probed, probe_of
from relish.training.rules import epochs_for, folds_for

Floats = npt.NDArray[np.float32]
State = dict[str, Tensor]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far from the probe to the fine-tuned model: averages that are tried."""


Keep = Callable[[Preprocessing], None]
"""Called whenever the network has become the best so far, to save it; with how it wants its pictures."""


def climb(job: Climb, folder: RunFolder, keep: Keep, accelerator: Accelerator, progress: Progress) -> list[RunFolder]:
    """Climb as far as the recipe goes and as each rung is better than the one below.

    Returns:
        Where each fine-tuning was recorded; none where there was only the probe.

    Raises:
        ModelError: no probe can be trained for this network.
        Diverged, Stopped, PictureError: as the loop does.
    """
    began = time.perf_counter()
    probed = probe_of(job, accelerator, progress)
    origin = _state(job.target)
    _set_head(job.target, probed.probe)
    progress.say(f"rung    {probed.words()}")
    _record(folder, accelerator, "probe", began, **probed.as_json())
    keep(probed.preprocessing)
    if job.recipe.method == "probe":
        return []
    folds = [_fine_tuned(job, probed, origin, number, folder, accelerator, progress) for number in _folds(job)]
    labels = np.concatenate([job.learn.labels[fold.held] for fold in folds])
    standing = np.concatenate([fold.said[0.0] for fold in folds])
    said = {share: np.concatenate([fold.said[share] for fold in folds]) for share in SHARES}
    share = min(SHARES, key=lambda s: float(tempered_losses(said[s], labels).mean()))
    verdict = judge(said[share], standing, labels)
    name = "fine-tuned" if share == 1 else f"average, {share:g} of the way from the probe to the fine-tuned"
    progress.say(f"rung    {name}: {verdict.sentence()}")
    _record(
        folder, accelerator, "average", began, share=share, gain=verdict.gain, error=verdict.error, kept=verdict.better
    )
    if verdict.better:
        job.target.network.load_state_dict(_mean([_between(fold.probe, fold.tuned, share) for fold in folds]))
        keep(probed.preprocessing)
    else:
        job.target.network.load_state_dict(origin)
        _set_head(job.target, probed.probe)
    progress.say(_won(name, verdict))
    return [_stage(folder, number) for number in range(len(folds))]


def _stage(folder: RunFolder, number: int) -> RunFolder:
    stage = RunFolder(folder.path / "stages" / f"fine-tuning-{number + 1}")
    stage.path.mkdir(parents=True, exist_ok=True)
    return stage


@dataclass(frozen=True)
class _Fold:
    """One fine-tuned model, and what it and its averages with its probe say of the pictures held out from it."""

    held: npt.NDArray[np.int64]
    probe: State
    tuned: State
    said: Mapping[float, Floats]
    """By share: 0 is the probe, 1 the fine-tuned model."""


def _folds(job: Climb) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """The pictures held out from each model that is fine-tuned, (N,) bool."""
    contents = [job.contents[path] for path in job.learn.paths]
    few = folds_for(len(job.learn))
    count = usable_folds(job.learn.labels, contents, few if few > 1 else 5)
    fold_of = stratified_folds(job.learn.labels, contents, count, job.seed)
    return [(number, fold_of == number) for number in range(count if few > 1 else 1)]


def _fine_tuned(
    job: Climb,
    probed: Probed,
    origin: State,
    fold: tuple[int, npt.NDArray[np.bool_]],
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> _Fold:
    number, out = fold
    held, network = np.flatnonzero(out), job.target.network
    network.load_state_dict(origin)
    _set_head(job.target, probed.without(out))
    before = _state(job.target)
    learn = job.learn.take(np.flatnonzero(~out))
    recipe = replace(job.recipe, epochs=job.recipe.epochs or epochs_for(len(learn), job.recipe.batch_size))
    lesson = Lesson(
        job.target, recipe, learn, job.learn.take(held), "held-out", probed.preprocessing, job.seed, job.workers
    )
    try:
        train(lesson, _stage(folder, number), accelerator, progress)
    except Stopped as stopped:
        raise Stopped(stopped.message, hint=f"Go on with: {folder.resume_command}") from stopped
    tuned = _state(job.target)
    said = {}
    for share in (0.0, *SHARES):
        network.load_state_dict(_between(before, tuned, share))
        said[share] = predict_split(
            network, lesson.score, probed.preprocessing, accelerator, workers=job.workers, progress=progress,
            title=f"average {share:g}",
        )  # fmt: skip
    return _Fold(held, before, tuned, said)


def _set_head(target: TargetModel, probe: Probe) -> None:
    (head,) = target.heads
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight).view_as(head.weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(probe.bias))


def _state(target: TargetModel) -> State:
    return {name: tensor.detach().clone() for name, tensor in target.network.state_dict().items()}


def _between(first: State, second: State, share: float) -> State:
    """`share` of the way from one model to another, every number of them; counters are the second's."""
    return {
        name: torch.lerp(first[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in second.items()
    }


def _mean(states: list[State]) -> State:
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }


def _record(folder: RunFolder, accelerator: Accelerator, rung: str, began: float, **figures: Any) -> None:
    if accelerator.is_main_process:
        seconds = time.perf_counter() - began
        folder.record(event="rung", epoch=0, batch=0, rung=rung, seconds=seconds, **figures)


def _won(name: str, verdict: Verdict) -> str:
    points = 100 * (verdict.right - verdict.right_before) / verdict.count
    if verdict.better:
        return f"won     {name}: {points:+.1f} points on held-out pictures against the probe"
    return "won     probe: fine-tuning did not help on held-out pictures"
