"""Several runs for one question: what `compare` and `sweep` share.

A study killed at any point is continued by the same command: finished runs are recognised by their identity (recipe,
seed, images, split, weights, image size), whichever command made them.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.context import Context
from relish.core.errors import Diverged, RecipeError, RunError, Stopped
from relish.core.run_folder import RunFolder, read_mapping
from relish.core.runtime import give_memory_back
from relish.data.dataset import split_of
from relish.data.survey import Survey
from relish.evaluation.grouped import Ints, group_numbers
from relish.evaluation.metrics import Scores
from relish.reporting.page import render
from relish.tasks.prepare import Prepared, Request, prepare_data, prepare_run
from relish.tasks.run import new_folder, train_and_evaluate
from relish.tasks.run_results import read_run_predictions
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
        """(N,) bool: for each image of the final split, in its order, whether the saved model was right."""
        return read_run_predictions(self.folder, self.folder.read_evaluation()).right

    @property
    def groups(self) -> Ints | None:
        """(N,) int64: the known group of each image of the final split; None where there is none."""
        rows = self.folder.read_dataset()["splits"][split_of(self.folder.read_evaluation()["split"])]
        return group_numbers([row.get("group") for row in rows])


def notebook_view(lines: Sequence[str], chart: Path) -> dict[str, str]:
    """What a study shows of itself in a notebook, by kind of content.

    Args:
        lines: of text; a table is one of them.
        chart: an SVG file, which is left out where there is none.
    """
    text = "\n".join(lines)
    drawn = base64.b64encode(chart.read_bytes()).decode() if chart.is_file() else ""
    return {"text/plain": text, "text/html": render("study.html", text=text, chart=drawn)}


def chosen_recipes(recipes: Sequence[str | Recipe], settings: Mapping[str, Any]) -> list[Recipe]:
    """The recipes of a study, each with the same settings changed.

    Raises:
        RecipeError: there is none, one is named twice, or a setting is unknown or out of range.
    """
    chosen = [(r if isinstance(r, Recipe) else named_recipe(r)).with_settings(settings) for r in recipes]
    if not chosen or len({r.name for r in chosen}) < len(chosen):
        raise RecipeError("--recipes needs at least one recipe, each named once.")
    return chosen


def looked_over(context: Context, request: Request, recipes: Sequence[Recipe]) -> Survey:
    """As `prepare_data`; what is to be known of the images is said once for all runs."""
    looked = prepare_data(context, request, recipes)
    for warning in looked.dataset.warnings:
        context.progress.warn(warning)
    if looked.depth:
        context.progress.say(f"values  {looked.depth}")
    return looked


def carry_out(context: Context, request: Request, recipe: Recipe, surveyed: Survey, runs: Path) -> Outcome:
    """The outcome of one run: found finished, resumed, or trained now.

    Raises:
        Stopped: SIGINT, SIGTERM or SIGHUP came; the same command resumes.
        RelishError: what `fit` raises, but for a run that diverges, which is an outcome.
    """
    if recipe.head != "source":
        request = replace(request, mapping={})  # one mapping for all recipes; only heads of source rows read it
    say = context.progress.say
    prepared = prepare_run(request, recipe, surveyed, context.progress)
    folder, known = _place(context, prepared, runs)
    rate = "" if recipe.learning_rate is None else f", rate {recipe.learning_rate:g}"
    words = f"{recipe.name}{rate}, seed {request.seed}: {folder.path}"
    if folder.finished or folder.diverged:
        say(f"kept     {words}")
    else:
        say(f"{'resuming' if known else 'training'} {words}")
        try:
            train_and_evaluate(context, prepared, folder)
        except Diverged as error:
            context.progress.warn(error.message)
            context.accelerator.wait_for_everyone()  # the first process writes down what all read next
        except Stopped as stopped:
            stopped.hint = "The same command again resumes from here."
            raise
        give_memory_back()
    scores = None if folder.diverged else Scores.from_json(folder.read_evaluation())
    return Outcome(recipe, request.seed, folder, scores)


def study_folder(runs: Path, stem: str, identity: str) -> Path:
    """Where a study's tables and charts go: `runs/STEM-N`, its own folder again if it was made before."""
    number = 1
    while True:
        folder = runs / f"{stem}-{number}"
        try:
            if read_mapping(folder / "study.json")["identity"] == identity:
                return folder
        except (RunError, KeyError):
            if not folder.exists():
                return folder
        number += 1


def _place(context: Context, prepared: Prepared, runs: Path) -> tuple[RunFolder, bool]:
    """The folder of this very run if there is one, else a new one; the same in every process."""

    def found() -> str | None:
        same = [path for path in sorted(runs.glob("*/")) if _identity(path) == prepared.identity]
        return next((str(path) for path in sorted(same, key=lambda path: not RunFolder(path).finished)), None)

    known = context.from_main(found)
    if known is not None:
        return RunFolder(Path(known)), True
    return new_folder(context, prepared, None, runs), False


def _identity(path: Path) -> str | None:
    try:
        identity = RunFolder.open(path).read_request().get("identity")
    except RunError:
        return None
    return str(identity)
