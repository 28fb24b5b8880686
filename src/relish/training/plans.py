"""Measure, plan, say so, and keep the plan in the run folder: one time each for the lower and the upper rungs.

In:   a climb and its folder.
Out:  a `LowerPlan` and an `UpperPlan`; `plan.json`.
Not here: what follows from what was measured (`planning.py`).
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import RunError
from relish.core.io import write_json
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.evaluation.features import Backbone
from relish.models.freeze import freeze, half_frozen
from relish.training.fine_tuning import SHARES
from relish.training.holding_out import held_out
from relish.training.loop import Lesson
from relish.training.planning import SIZES, LowerPlan, UpperPlan, plan_fine_tuning, plan_probe
from relish.training.probing import Climb
from relish.training.rules import folds_for, rates_for
from relish.training.timing import forward_seconds, solving_seconds, step_seconds


class Plans:
    """The two plans of a climb, read back where the run is resumed."""

    def __init__(self, job: Climb, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> None:
        self.job, self.accelerator, self.progress = job, accelerator, progress
        self.file, self.stages = folder.path / "plan.json", folder.stages
        self.kept = _read(self.file)

    def lower(self) -> LowerPlan:
        """What is done up to the probe."""
        job = self.job

        def made() -> dict[str, Any]:
            backbone = Backbone(job.target, self.accelerator.device)
            sizes = self._sizes(backbone)
            measured = forward_seconds(backbone, job.learn, job.preprocessing, sizes)
            forward = {side: seconds / self.accelerator.num_processes for side, seconds in measured.items()}
            classes = len(job.target.classes)
            plan = plan_probe(
                pictures=len(job.learn), judged=job.judged, classes=classes, forward=forward,
                solving=solving_seconds(backbone.width, classes), budget=job.left,
            )  # fmt: skip
            return {**plan.as_dict(), "forward": forward[plan.image_size]}

        found = self._agreed("probe", made, {"forward", *_fields_of(LowerPlan)})
        self.forward = found.pop("forward")
        plan = LowerPlan(**found)
        fewer = f" of {len(job.learn)}" if plan.pictures < len(job.learn) else ""
        choices = ["framings compared"] * plan.framings + [f"{plan.views} views"] * (plan.views > 1)
        more = f", {', '.join(choices)}" if choices else ""
        self.progress.say(
            f"plan    probe: {plan.pictures}{fewer} pictures of {plan.image_size} px{more}; about {_told(plan.seconds)}"
        )
        if plan.seconds > job.budget:
            self.progress.warn(
                f"the budget of {_told(job.budget)} is too small for these pictures: judging and the smallest probe "
                f"take about {_told(plan.seconds)}."
            )
        return plan

    def upper(self, lesson: Lesson) -> UpperPlan:
        """What is done from the probe on, with all the pictures of this lesson."""
        job = self.job

        def made() -> dict[str, Any]:
            step = step_seconds(lesson, self.accelerator) / self.accelerator.num_processes
            half = None
            if math.isfinite(job.budget) and job.recipe.freeze == "early":
                with half_frozen(job.target):
                    half = step_seconds(lesson, self.accelerator) / self.accelerator.num_processes
            count = len(lesson.learn)
            (alone,) = held_out(job, lesson.learn, 1)
            plan = plan_fine_tuning(
                pictures=count, judged=job.judged, classes=len(job.target.classes),
                folds=len(held_out(job, lesson.learn, folds_for(count))), held_alone=int(alone.sum()),
                rates=rates_for(count), batch_size=job.recipe.batch_size, epochs=job.recipe.epochs,
                shares=len(SHARES) + 1, forward=self.forward, step=step, half_step=half, left=job.left,
            )  # fmt: skip
            return {**plan.as_dict(), "step": half if plan.half_still else step}

        found = self._agreed("fine-tuning", made, {"step", *_fields_of(UpperPlan)})
        self.step = found.pop("step")
        plan = UpperPlan(**found)
        if plan.half_still:
            freeze(job.target, "half")
        if plan.folds:
            epochs = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
            models = f"{plan.folds} models, {epochs} each" if plan.folds > 1 else epochs
            first = "the first " if plan.folds > 1 else ""
            rates = f", {first}at {plan.rates} rates" if plan.rates > 1 else ""
            still = ", half of the layers still" if plan.half_still else ""
            self.progress.say(f"plan    fine-tuning: {models}{rates}{still}; about {_told(plan.seconds)}")
        else:
            self.progress.say("plan    fine-tuning: no time for it")
        return plan

    def _sizes(self, backbone: Backbone) -> list[int]:
        """Sides that the network takes: the wanted one, and the smaller ones where the user has not asked for it."""
        wanted = self.job.preprocessing.image_size
        if self.job.recipe.image_size is not None or not math.isfinite(self.job.budget):
            return [wanted]
        return [wanted, *(side for side in SIZES if side < wanted and backbone.takes(side))]

    def _agreed(self, name: str, made: Callable[[], dict[str, Any]], keys: set[str]) -> dict[str, Any]:
        """The plan kept under this name, or one made and kept now: the first process's, in all of them.

        What was trained by a plan that is no more, or was another version's, is trained anew.
        """
        plan: list[dict[str, Any]] = [{}]
        if self.accelerator.is_main_process:
            if self.kept.get(name, {}).keys() != keys:
                if name == "probe":
                    self.kept = {}  # what comes after it rests on it
                shutil.rmtree(self.stages, ignore_errors=True)
                self.kept[name] = made()
            plan = [self.kept[name]]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(plan)
        self.kept[name] = plan[0]
        if self.accelerator.is_main_process:
            write_json(self.file, self.kept)
        return dict(plan[0])


def _fields_of(plan: type[LowerPlan] | type[UpperPlan]) -> set[str]:
    """The names of a plan's values."""
    return {field.name for field in fields(plan)}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}).", hint="Delete it, and the run is planned afresh.") from error


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
