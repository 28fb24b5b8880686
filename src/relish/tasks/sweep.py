"""`sweep`: accuracy against a number of the recipe, for one recipe or several (the book's exercises 1 and 2).

Every point is scored on validation images held out of training; the test split is used once, at the end, for the best
point of each recipe alone. Picking the best of many on the test split would flatter it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from relish.core.context import Context
from relish.core.errors import RecipeError, nearest
from relish.core.io import fingerprint, write_json, write_text
from relish.core.progress import Progress
from relish.core.runtime import keep_freed_memory
from relish.data.dataset import TEST, VALIDATION, Split
from relish.data.depth import AskedRange, range_option
from relish.data.sources import DataSource, ReadingOptions, data_name
from relish.evaluation.grouped import Ints, group_numbers, proportion
from relish.evaluation.inference import split_logits
from relish.evaluation.metrics import Proportion, SweepPoint, predicted_class
from relish.evaluation.significance import mcnemar
from relish.reporting import plots
from relish.reporting.svg import write_svg
from relish.reporting.text import text_table
from relish.tasks.classifier import Classifier
from relish.tasks.experiments import Outcome, carry_out, chosen_recipes, looked_over, notebook_view, study_folder
from relish.tasks.prepare import VAL_SPLIT, Request
from relish.tasks.run import RUNS
from relish.training.recipe import SHORT, Recipe

WHOLE = (int, int | None)
"""Types of fields that take whole numbers."""
CHART = "sweep.svg"
"""Of a sweep over learning rates."""


@dataclass(frozen=True)
class Sweep:
    """What `sweep` found."""

    field: str
    outcomes: Mapping[str, tuple[Outcome, ...]]
    """By recipe, in the order of the values."""
    tests: Mapping[str, Proportion]
    """Test accuracy of each recipe's best point; empty where the dataset has no test split."""
    conclusion: str
    folder: Path

    def table(self) -> str:
        """One row a point; the best of each recipe is marked."""
        rows = [
            [
                name,
                f"{getattr(outcome.recipe, self.field):g}",
                *_accuracy_cells(outcome),
                "best" if outcome is best_of(outcomes) else "",
            ]
            for name, outcomes in self.outcomes.items()
            for outcome in outcomes
        ]
        return text_table(["recipe", self.field, "validation accuracy", "95% interval", ""], rows, right=(1, 2))

    def _repr_mimebundle_(self, **kinds: Any) -> dict[str, str]:
        """For notebooks: table, tests and chart."""
        return notebook_view(self.lines(), self.folder / CHART)

    def lines(self) -> list[str]:
        """The table, the tests of the best, the conclusion."""
        tested = [f"test accuracy of the best {name}: {found.sentence()}" for name, found in self.tests.items()]
        return [self.table(), *tested, self.conclusion]

    def as_json(self) -> dict[str, Any]:
        """Every point, the best of each recipe, and the conclusion."""
        return {
            "field": self.field,
            "points": [
                {
                    "recipe": name,
                    "value": getattr(outcome.recipe, self.field),
                    "run": str(outcome.folder.path),
                    "diverged": outcome.scores is None,
                    "top1": outcome.scores and outcome.scores.top1.as_json(),
                    "best": outcome is best_of(outcomes),
                }
                for name, outcomes in self.outcomes.items()
                for outcome in outcomes
            ],
            "test": {name: accuracy.as_json() for name, accuracy in self.tests.items()},
            "conclusion": self.conclusion,
        }


def sweep(
    data: DataSource,
    *,
    vary: str,
    points: int = 7,
    recipes: Sequence[str | Recipe] = ("book",),
    source: str | None = None,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    mapping: Mapping[str, str | int] | None = None,
    seed: int = 0,
    val_split: float = VAL_SPLIT,
    value_range: AskedRange = None,
    workers: int | None = None,
    device: str = "auto",
    runs: str | Path = RUNS,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Sweep | None:
    """Train each recipe at each value, score on validation data, and test the best of each once.

    Args:
        data: anything `fit` takes.
        vary: a field and its values: "lr=1e-5..1e-1" (evenly spaced on a log scale) or "epochs=1,2,5".
        points: how many values a range has.
        recipes: names or `Recipe`s.
        settings: other recipe fields to change, in every recipe.
        val_split: fraction of the training images that is held out, where the dataset brings no validation split.
        reading: how the dataset is read, as in `fit`.
        value_range: as in `fit`.

    Returns:
        What was found; None in every process but the first.

    Raises:
        RecipeError: `vary` cannot be read, or names no number of a recipe.
        RelishError: what `fit` raises.
    """
    keep_freed_memory()
    context = Context.on(device, progress, workers)
    field, values = parse_vary(vary, points)
    chosen = chosen_recipes(recipes, settings or {})
    rows = {name: str(row) for name, row in (mapping or {}).items()}
    request = Request(
        data=data_name(data), source=source, weights=None if weights is None else str(weights), mapping=rows, seed=seed,
        val_split=val_split, judge=VALIDATION, value_range=range_option(value_range), **reading,
    )  # fmt: skip
    looked = looked_over(context, request, chosen)
    outcomes = {
        recipe.name: tuple(
            carry_out(context, request, recipe.with_settings({field: value}), looked, Path(runs)) for value in values
        )
        for recipe in chosen
    }
    test = looked.dataset.splits.get(TEST)
    bests = {name: best for name, found in outcomes.items() if (best := best_of(found)) is not None}
    right = {} if test is None else {name: _right(context, best, test) for name, best in bests.items()}
    groups = group_numbers([looked.dataset.groups.get(path) for path in test.paths] if test else None)
    stem = f"{looked.dataset.name}-sweep"
    identity = fingerprint([[str(o.folder.path) for o in found] for found in outcomes.values()])
    result = Sweep(
        field=field,
        outcomes=outcomes,
        tests={name: proportion(r, groups) for name, r in right.items()},
        conclusion=_conclusion(field, bests, right, groups),
        folder=study_folder(Path(runs), stem, identity),
    )
    if not context.is_main:
        return None
    _write(result, identity)
    return result


def parse_vary(vary: str, points: int) -> tuple[str, list[float]]:
    """The field and its values from "lr=1e-5..1e-1" or "lr=1e-4,1e-3".

    Raises:
        RecipeError: not of that form, not a number of a recipe, or a range without room.
    """
    name, equals, words = vary.partition("=")
    field = SHORT.get(name.strip(), name.strip())
    numbers = [f.name for f in fields(Recipe) if f.type in (float, float | None, *WHOLE)]
    if not equals or not words.strip():
        raise RecipeError(f"--vary {vary}: not of the form field=low..high or field=a,b,c, such as lr=1e-5..1e-1.")
    if field not in numbers:
        known = [*SHORT, *numbers]
        raise RecipeError(f'--vary: a recipe has no number "{name}".', hint=nearest(name, known) or ", ".join(known))
    try:
        if ".." not in words:
            values = [float(word) for word in words.split(",")]
        else:
            low, high = (float(word) for word in re.split(r"\.\.", words, maxsplit=1))
            if points < 2 or not 0 < low < high < math.inf:
                raise RecipeError(f"--vary {vary}: a range goes from above 0 up, over 2 points or more.")
            values = [float(f"{value:.6g}") for value in np.geomspace(low, high, points)]
    except ValueError:
        raise RecipeError(f"--vary {vary}: {words} are no numbers.") from None
    whole = next(f.type for f in fields(Recipe) if f.name == field) in WHOLE
    if whole and ".." not in words and not all(value.is_integer() for value in values):
        raise RecipeError(f"--vary {vary}: {field} takes whole numbers.")
    return field, sorted({round(value) if whole else value for value in values})


def best_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The highest validation accuracy, of equals the one with the smaller value; None where every run diverged."""
    fine = [(outcome, outcome.scores.top1.value) for outcome in outcomes if outcome.scores is not None]
    return max(fine, key=lambda pair: pair[1])[0] if fine else None


def _accuracy_cells(outcome: Outcome) -> list[str]:
    if outcome.scores is None:
        return ["diverged", ""]
    top1 = outcome.scores.top1
    low, high = top1.interval
    value = f"{top1.correct} of {top1.count}" if top1.few else f"{top1.value:.4f}"
    return [value, f"{low:.3f}–{high:.3f}"]


def _right(context: Context, best: Outcome, test: Split) -> npt.NDArray[np.bool_]:
    """(N,) bool over the test split: this one time."""
    model = Classifier.load(best.folder.path, device=context.device.type)
    logits = split_logits(model.network, test, model.preprocessing, context, title="testing", heads=model.heads)
    right: npt.NDArray[np.bool_] = predicted_class(logits) == test.labels
    return right


def _conclusion(
    field: str, bests: Mapping[str, Outcome], right: Mapping[str, npt.NDArray[np.bool_]], groups: Ints | None
) -> str:
    """One sentence: do the recipes still differ, each at its best?"""
    at = {name: f"{name} at {field} {getattr(best.recipe, field):g}" for name, best in bests.items()}
    if len(bests) < 2:
        return f"The best is {next(iter(at.values()))}." if at else "Every run diverged: try smaller values."
    if not right:
        return "These pictures have no test split, so the best of each recipe were not tested against each other."
    (first, mine), (second, theirs), *_ = right.items()
    found = mcnemar(mine, theirs, groups)
    verdict = "they still differ" if found.differs else "they no longer differ beyond chance"
    return f"Each at its best, {verdict}: {found.sentence(at[first], at[second])}"


def _write(result: Sweep, identity: str) -> None:
    write_text(result.folder / "sweep.txt", "\n".join(result.lines()) + "\n")
    write_json(result.folder / "study.json", {"identity": identity, **result.as_json()})
    if result.field == "learning_rate":
        points = {
            name: [SweepPoint(o.recipe.rate, o.scores.top1 if o.scores else None) for o in outcomes]
            for name, outcomes in result.outcomes.items()
        }
        if chart := plots.learning_rates(points):
            write_svg(chart, result.folder / CHART)
