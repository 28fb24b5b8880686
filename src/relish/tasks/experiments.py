"""Several runs for one question: what `compare` and `sweep` share.

In:   pictures looked over once, and the recipes and seeds to run.
Out:  an `Outcome` each, from a run trained now, gone on with, or found finished.

A study killed at any point is continued by the same command: finished runs are recognised by their identity (recipe,
seed, pictures, split, weights, picture size), whichever command made them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from relish.core.errors import Diverged, RecipeError, RunError, Stopped
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import give_memory_back
from relish.data.survey import Survey
from relish.evaluation.metrics import Curves, Scores
from relish.tasks.prepare import Prepared, Request, prepare_run
from relish.tasks.run import open_folder, run
from relish.tasks.run_results import read_run_predictions
from relish.tasks.save import curve_points
from relish.training.recipe import Recipe, named_recipe


@dataclass(frozen=True)
class Outcome:
    """One run of a study."""

    recipe: Recipe
    seed: int
    folder: RunFolder
    scores: Scores | None
    """On the run's final split; None where the run diverged."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: for each picture of the final split, in its order, whether the saved model was right."""
        return read_run_predictions(self.folder, self.folder.read_evaluation()).right

    @property
    def curves(self) -> Curves:
        """The run's training curves."""
        return curve_points(self.folder)


def chosen_recipes(recipes: Sequence[str | Recipe], settings: Mapping[str, Any]) -> list[Recipe]:
    """The recipes of a study, each with the same settings changed.

    Raises:
        RecipeError: there is none, one is named twice, or a setting is unknown or out of range.
    """
    chosen = [(r if isinstance(r, Recipe) else named_recipe(r)).with_settings(settings) for r in recipes]
    if not chosen or len({r.name for r in chosen}) < len(chosen):
        raise RecipeError("--recipes needs at least one recipe, each named once.")
    return chosen


def carry_out(
    request: Request,
    recipe: Recipe,
    looked: Survey,
    runs: Path,
    accelerator: Accelerator,
    progress: Progress,
    *,
    workers: int | None = None,
) -> Outcome:
    """The outcome of one run: found finished, gone on with, or trained now.

    Raises:
        Stopped: SIGINT or SIGTERM came; the same command goes on.
        RelishError: what `fit` raises, but for a run that diverges, which is an outcome.
    """
    if recipe.head != "source":
        request = replace(request, mapping={})  # one mapping for all recipes; only heads of source rows read it
    prepared = prepare_run(request, recipe, looked, progress)
    folder, known = _place(prepared, runs, accelerator)
    words = f"{recipe.name}, rate {recipe.learning_rate:g}, seed {request.seed}: {folder.path}"
    if folder.finished or folder.diverged:
        progress.say(f"kept     {words}")
    else:
        progress.say(f"{'going on' if known else 'training'} {words}")
        try:
            run(prepared, folder, accelerator, progress, workers=workers)
        except Diverged as error:
            progress.warn(error.message)
            accelerator.wait_for_everyone()  # the first process writes down what all read next
        except Stopped as stopped:
            raise Stopped(stopped.message, hint="The same command again goes on from here.") from stopped
        give_memory_back()
    scores = None if folder.diverged else Scores.from_json(folder.read_evaluation())
    return Outcome(recipe, request.seed, folder, scores)


def study_folder(runs: Path, stem: str, identity: str) -> Path:
    """Where a study's tables and charts go: `runs/STEM-N`, its own folder again if it was made before."""
    number = 1
    while True:
        folder = runs / f"{stem}-{number}"
        try:
            if json.loads((folder / "study.json").read_text())["identity"] == identity:
                return folder
        except (OSError, ValueError, KeyError):
            if not folder.exists():
                return folder
        number += 1


def _place(prepared: Prepared, runs: Path, accelerator: Accelerator) -> tuple[RunFolder, bool]:
    """The folder of this very run if there is one, else a new one; the same in every process."""
    found = [""]
    if accelerator.is_main_process:
        same = [path for path in sorted(runs.glob("*/")) if _identity(path) == prepared.identity]
        found = [str(path) for path in sorted(same, key=lambda path: not RunFolder(path).finished)][:1] or [""]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if found[0]:
        return RunFolder(Path(found[0])), True
    return open_folder(prepared, None, accelerator, runs), False


def _identity(path: Path) -> str | None:
    try:
        identity = RunFolder.open(path).read_request().get("identity")
    except RunError:
        return None
    return str(identity)
