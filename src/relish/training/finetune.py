"""Fine-tuning from the probe's head: one model for each fold held out, and one model made of them all.

How far to move is the question of fine-tuning, and the answer lies in the images: where the probe is nearly right, a
high rate wrecks more than the few steps can mend, and far from the source's images a low one does not get there. So
the first model is fine-tuned at both, and the one that is better on the images held out sets the rate of the others.

Models that stayed near their origin lie in one valley, and their average is better than each of them; those that moved
far do not, and it is worse. Which it is shows on the images that they all learned from in part. Some more epochs over
all of them then bring the average back down, to below its models: it learns what each of them lacked. It is what
federated averaging does after each of its rounds (McMahan et al. 2017, arXiv:1602.05629).
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import Diverged, RunError, Stopped
from relish.core.io import write_json
from relish.core.progress import Muted, Progress
from relish.core.run_folder import RunFolder
from relish.data.dataset import Split
from relish.data.split import evenly_spaced
from relish.evaluation.inference import split_logits
from relish.evaluation.metrics import Proportion
from relish.evaluation.prediction import softmax
from relish.evaluation.significance import tempered_losses
from relish.models.target import TargetModel
from relish.training.budget import COMPARED, SHARES, Climb, Plans, UpperPlan, held_out, joint_epochs_for, rate_shares
from relish.training.checkpoint import State, between, load_network, mean_of, state_of
from relish.training.linear_probe import Probe
from relish.training.probe_stage import Probed
from relish.training.train import Lesson, train

HELD_OUT = "held-out"
_ENDED = "ended.json"
"""In a stage's folder, once it is over."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A fine-tuned model beside the probe it started from; both learned from the same pictures."""

    out: Split
    """The n pictures held out."""
    probe: State
    tuned: State
    logits: Mapping[float, npt.NDArray[np.float32]]
    """By share: (n, K) float32; 0 is the probe, 1 the fine-tuned model."""

    def probabilities(self, share: float) -> npt.NDArray[np.float64]:
        """(n, K) float64 probabilities."""
        return softmax(self.logits[share])


def fine_tune(
    lesson: Lesson,
    origin: State,
    probe: Probe,
    stage: RunFolder,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> Fold:
    """Learn from the lesson's pictures, from the probe on; the network is left somewhere between its two ends.

    Args:
        lesson: learns from some pictures and is scored on the others.
        origin: the network before anything learned.
        probe: learned from the same pictures.
        stage: where this model's checkpoint and events go; a model that is finished there is only put back.
        folder: the run's own, for what to type to go on.

    Raises:
        Diverged, Stopped, PictureError: as the loop does.
    """
    network = lesson.target.network
    network.load_state_dict(origin)
    set_head(lesson.target, probe)
    before = state_of(network)
    train_once(lesson, stage, folder, accelerator, progress)
    tuned = state_of(network)
    logits = {}
    for share in (0.0, *SHARES):
        network.load_state_dict(between(before, tuned, share))
        logits[share] = split_logits(
            network, lesson.score, lesson.preprocessing, accelerator,
            workers=lesson.workers, progress=progress, title=f"average {share:g}",
        )  # fmt: skip
    return Fold(lesson.score, before, tuned, logits)


@torch.no_grad()
def set_head(target: TargetModel, probe: Probe) -> None:
    """Make a probe the network's output layer."""
    (head,) = target.heads
    head.weight.copy_(torch.from_numpy(probe.weight).view_as(head.weight))
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(probe.bias))


def train_once(
    lesson: Lesson, stage: RunFolder, folder: RunFolder, accelerator: Accelerator, progress: Progress
) -> None:
    """Train the lesson's network as it is, or put back what was trained in this stage.

    Raises:
        Diverged, Stopped, PictureError: as the loop does; `Diverged` also where it did so before the run was resumed.
    """
    found = [_end_of(stage)]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    over, diverged = found[0]
    if diverged:
        raise Diverged(diverged)
    if over:
        load_network(stage.checkpoint, lesson.target.network)
        return
    try:
        train(lesson, stage, accelerator, Muted(progress))
    except Stopped as stopped:
        raise Stopped(stopped.message, hint=f"Go on with: {folder.resume_command}") from stopped
    except Diverged as error:
        _end(stage, accelerator, error.message)
        raise
    # A model cut short at its deadline is finished too: it does not go on learning when the run is resumed.
    _end(stage, accelerator, None)


def _end(stage: RunFolder, accelerator: Accelerator, diverged: str | None) -> None:
    if accelerator.is_main_process:
        write_json(stage.path / _ENDED, {"diverged": diverged})


def _end_of(stage: RunFolder) -> tuple[bool, str | None]:
    """Whether a stage is over, and with what words it diverged, if it did."""
    file = stage.path / _ENDED
    if not file.is_file():
        return False, None
    try:
        return True, json.loads(file.read_bytes())["diverged"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}).", hint=f"Delete {stage.path}, and it starts over.") from error


_LEFT_OUT = "fine-tuning is left out."


@dataclass(frozen=True, eq=False)
class Tuned:
    """What was fine-tuned, and how."""

    folds: tuple[Fold, ...]
    stages: tuple[RunFolder, ...]
    """Where each was recorded."""
    rate: float
    """The learning rate of all of them."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Fine-tunes the models of one climb."""

    job: Climb
    plans: Plans
    plan: UpperPlan
    probed: Probed
    lesson: Lesson
    """On every picture; each model takes a part of it."""
    origin: State
    """The network before anything learned."""
    folder: RunFolder
    accelerator: Accelerator
    progress: Progress

    def models(self) -> Tuned | None:
        """All of them; None where none was planned, or where training diverged.

        Raises:
            Stopped, PictureError: as the loop does.
        """
        outs, shares = held_out(self.job, self.probed.learn, self.plan.folds), rate_shares(self.plan.rates)
        if not outs:
            return None
        first: list[tuple[float, Fold, RunFolder]] = []
        for number, share in enumerate(shares):
            stage = self.folder.stage("fine-tuning-1" if share == shares[0] else "fine-tuning-1-slower")
            to_come = [outs[0]] * (len(shares) - number) + outs[1:]
            fold = self._one(share, outs[0], stage, to_come)
            if fold is not None:
                first.append((share, fold, stage))
        if not first:
            self.progress.warn(_LEFT_OUT)
            return None
        share, fold, stage = min(first, key=lambda one: _best_loss(one[1]))
        folds, stages = [fold], [stage]
        if len(shares) > 1:
            self.progress.say(f"rate    {share * self.job.recipe.learning_rate:g} is the better one here")
        self.progress.say(_words(fold, 1, len(outs)))
        for number in range(1, len(outs)):
            stage = self.folder.stage(f"fine-tuning-{number + 1}")
            one = self._one(share, outs[number], stage, outs[number:])
            if one is None:
                self.progress.warn(_LEFT_OUT)
                return None
            folds.append(one)
            stages.append(stage)
            self.progress.say(_words(one, number + 1, len(outs)))
        return Tuned(tuple(folds), tuple(stages), share * self.job.recipe.learning_rate)

    def deadline(self, to_come: Sequence[npt.NDArray[np.bool_]]) -> float:
        """By `time.monotonic`: when the next of the models still to come has to end; of none, their average."""
        job, plan = self.job, self.plan
        if not math.isfinite(job.budget):
            return math.inf
        # Each is scored once more after its last step, and judged at every share; then comes what is made of them.
        after = self.plans.forward * (job.judged + sum(int(out.sum()) for out in to_come) * (len(SHARES) + 2))
        pictures = len(self.lesson.learn)
        if plan.folds > 1:
            after += self.plans.forward * min(pictures, COMPARED) * (plan.folds + 2 if to_come else 1)
            after += pictures * joint_epochs_for(plan.epochs) * self.plans.step if to_come else 0.0
        return float(time.monotonic() + (job.left - after) / max(1, len(to_come)))

    def _one(
        self, share: float, out: npt.NDArray[np.bool_], stage: RunFolder, to_come: Sequence[npt.NDArray[np.bool_]]
    ) -> Fold | None:
        """A model that learned from all pictures but these, at a share of the rate; None where it diverged."""
        rate, learn = share * self.job.recipe.learning_rate, self.probed.learn
        part = replace(
            self.lesson,
            recipe=replace(self.job.recipe, epochs=self.plan.epochs, learning_rate=rate),
            learn=learn.take(np.flatnonzero(~out)),
            score=learn.take(np.flatnonzero(out)),
            deadline=self.deadline(to_come),
        )
        try:
            return fine_tune(
                part, self.origin, self.probed.without(out), stage, self.folder, self.accelerator, self.progress
            )
        except Diverged as error:
            self.progress.warn(f"{error.message.partition(':')[0]}, at a rate of {rate:g}.")
            return None


def _best_loss(fold: Fold) -> float:
    """Mean loss in nats on what was held out, at the best temperature, of the best average with the probe."""
    probabilities = [np.nan_to_num(fold.probabilities(share)) for share in SHARES]
    return min(float(tempered_losses(one, fold.out.labels).mean()) for one in probabilities)


def _words(fold: Fold, number: int, models: int) -> str:
    right = Proportion(int((fold.logits[1.0].argmax(1) == fold.out.labels).sum()), len(fold.out))
    which = f"tuned   model {number} of {models}" if models > 1 else "tuned   model"
    return f"{which}: {right.correct} of {right.count} held-out pictures right"


def put_together(
    lesson: Lesson,
    folds: Sequence[Fold],
    share: float,
    probe: State,
    folder: RunFolder,
    accelerator: Accelerator,
    progress: Progress,
) -> bool:
    """Put the model that the folds come to into the lesson's network; whether it may stand for them.

    Of one model there is nothing to put together: it is that model. What is made of several was judged by no picture
    that it has not learned from. So it is compared with them on pictures of which each of them has learned from a part:
    that shows models that do not go together, though not one that has learned these pictures by heart.

    Args:
        lesson: on all the pictures, for an average that is worse than its models.
        share: of the way from the probe to the fine-tuned model, as it was chosen.
        probe: the network with the probe that learned from all the pictures.

    Raises:
        Stopped, PictureError: as the loop does.
    """
    network = lesson.target.network
    if len(folds) == 1:
        network.load_state_dict(between(folds[0].probe, folds[0].tuned, share))
        return True
    some = lesson.learn.take(evenly_spaced(len(lesson.learn), COMPARED))

    def loss(state: State) -> float:
        network.load_state_dict(state)
        logits = split_logits(
            network, some, lesson.preprocessing, accelerator,
            workers=lesson.workers, progress=progress, title="comparing the average",
        )  # fmt: skip
        return float(tempered_losses(np.nan_to_num(softmax(logits)), some.labels).mean())

    theirs = float(np.mean([loss(between(fold.probe, fold.tuned, share)) for fold in folds]))
    average = mean_of([fold.tuned for fold in folds])
    if loss(between(probe, average, share)) <= theirs:
        return True
    progress.say(f"average worse than its models: it learns from all pictures, {_epochs(lesson)}")
    network.load_state_dict(average)
    try:
        train_once(lesson, folder.stage("fine-tuning-all"), folder, accelerator, progress)
    except Diverged:
        return False
    return loss(between(probe, state_of(network), share)) <= theirs


def _epochs(lesson: Lesson) -> str:
    return "1 epoch" if lesson.recipe.passes == 1 else f"{lesson.recipe.passes} epochs"
