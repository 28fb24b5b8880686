"""Every model that a climb fine-tunes: one for each part of the pictures that is held out, the first at two rates.

In:   a climb, its plan, the probe.
Out:  `Tuned`: a `Fold` for each part, all of one rate.
Not here: one model (`fine_tuning.py`), comparing them with the probe (`ladder.py`).

How far to move is the question of fine-tuning, and the answer lies in the pictures: where the probe is nearly right, a
high rate wrecks more than the few steps can mend, and far from the source's pictures a low one does not get there. So
the first model is fine-tuned at both, and the one that is better on the pictures held out sets the rate of the others.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator

from relish.core.errors import Diverged
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import tempered_losses
from relish.training.averaging import State
from relish.training.fine_tuning import SHARES, Fold, fine_tune
from relish.training.holding_out import held_out
from relish.training.loop import Lesson
from relish.training.planning import UpperPlan
from relish.training.plans import Plans
from relish.training.probing import Climb, Probed
from relish.training.rules import COMPARED, joint_epochs_for, rate_shares

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
    said = [np.nan_to_num(fold.said(share)) for share in SHARES]
    return min(float(tempered_losses(one, fold.out.labels).mean()) for one in said)


def _words(fold: Fold, number: int, models: int) -> str:
    right = Proportion(int((fold.logits[1.0].argmax(1) == fold.out.labels).sum()), len(fold.out))
    which = f"tuned   model {number} of {models}" if models > 1 else "tuned   model"
    return f"{which}: {right.correct} of {right.count} held-out pictures right"
