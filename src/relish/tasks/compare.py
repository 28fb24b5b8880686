"""`compare`: several recipes on the same images, in one table with paired tests, and one chart.

The recipes are evaluated on the same images, so they are compared image by image: McNemar's test sees a difference long
before two intervals stop overlapping. Table, chart and figures have a folder of their own beside the run folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from relish.core.context import Context
from relish.core.errors import RecipeError
from relish.core.io import fingerprint, write_json, write_text
from relish.core.progress import Progress
from relish.core.runtime import keep_freed_memory
from relish.data.dataset import TEST, VALIDATION
from relish.data.depth import AskedRange, range_option
from relish.data.sources import DataSource, ReadingOptions, data_name
from relish.evaluation.metrics import Proportion
from relish.evaluation.significance import McNemar, mcnemar
from relish.reporting import plots
from relish.reporting.svg import write_svg
from relish.reporting.text import text_table
from relish.tasks.experiments import Outcome, carry_out, chosen_recipes, looked_over, notebook_view, study_folder
from relish.tasks.prepare import Request
from relish.tasks.run import RUNS
from relish.tasks.save import curve_points
from relish.training.recipe import Recipe

RECIPES = ("book", "book-scratch", "frozen", "source-head")
"""The book's fine-tuning, what it is compared with, and its exercises 3 and 4."""
CHART = "curves.svg"


@dataclass(frozen=True)
class Side:
    """One recipe of a comparison, over all its seeds."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def accuracies(self) -> list[Proportion]:
        """Of each seed that did not diverge."""
        return [outcome.scores.top1 for outcome in self.outcomes if outcome.scores is not None]

    @property
    def balanced(self) -> float | None:
        """The mean balanced accuracy where classes are uneven and accuracy speaks for the large ones; else None."""
        found = [o.scores.mean_recall for o in self.outcomes if o.scores is not None and o.scores.uneven]
        return float(np.mean(found)) if found else None

    @property
    def mean(self) -> Proportion:
        """The mean over seeds as so many right of the split's images: what the interval is computed from."""
        found = self.accuracies
        effective = min((p.effective for p in found if p.effective is not None), default=None)
        return Proportion(round(float(np.mean([p.correct for p in found]))), found[0].count, effective)

    def against(self, other: "Side") -> McNemar:
        """Paired test, seed by seed, the counts added up; by group, and an image that several seeds saw is one."""
        pairs = [(a, b) for a, b in zip(self.outcomes, other.outcomes, strict=True) if a.scores and b.scores]
        mine, theirs = (np.concatenate([pair[i].right for pair in pairs]) for i in (0, 1))
        known = pairs[0][0].groups
        groups = np.arange(len(mine) // len(pairs)) if known is None else known
        return replace(mcnemar(mine, theirs, np.tile(groups, len(pairs))), by_group=known is not None)

    def measured(self, key: str) -> float | None:
        """The mean of a figure of the runs' evaluations."""
        found = [o.folder.read_evaluation()[key] for o in self.outcomes if o.scores]
        return float(np.mean(found)) if found and None not in found else None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; the first side is what the others are tested against."""

    sides: tuple[Side, ...]
    split: str
    folder: Path

    def _repr_mimebundle_(self, **kinds: Any) -> dict[str, str]:
        """For notebooks: table and chart, without times, which are others each time."""
        return notebook_view([self.table(timed=False), *self.sentences()], self.folder / CHART)

    def table(self, *, timed: bool = True) -> str:
        """One row a recipe; where it is `timed`, with how long training took."""
        headings = ["recipe", f"{self.split} accuracy", "95% interval", f"against {self.sides[0].name}"]
        headings += ["training", "pictures/s"] if timed else []
        rows = [self._row(side)[: len(headings)] for side in self.sides]
        if any(side.balanced is not None for side in self.sides):
            headings.append("balanced accuracy")
            for row, side in zip(rows, self.sides, strict=True):
                row.append("" if side.balanced is None else f"{side.balanced:.4f}")
        return text_table(headings, rows, right=(1, *range(4, len(headings))))

    def as_json(self) -> dict[str, Any]:
        """Every figure of the table, and where the runs are."""
        return {
            "split": self.split,
            "recipes": [
                {
                    "recipe": side.name,
                    "top1": side.mean.as_json() if side.accuracies else None,
                    "balanced_accuracy": side.balanced,
                    "seeds": [
                        {"seed": o.seed, "run": str(o.folder.path), "top1": o.scores and o.scores.top1.as_json()}
                        for o in side.outcomes
                    ],
                    "against_first": self._test(side),
                    "training_seconds": side.measured("training_seconds"),
                    "pictures_per_second": side.measured("pictures_per_second"),
                }
                for side in self.sides
            ],
        }

    def sentences(self) -> list[str]:
        """What the paired tests say, in words."""
        first = self.sides[0]
        return [
            first.against(side).sentence(first.name, side.name)
            for side in self.sides[1:]
            if side.accuracies and first.accuracies
        ]

    def _row(self, side: Side) -> list[str]:
        if not side.accuracies:
            return [side.name, "diverged", "", "", "", ""]
        mean, values = side.mean, [p.value for p in side.accuracies]
        spread = f" ({min(values):.3f}–{max(values):.3f} over {len(values)} seeds)" if len(values) > 1 else ""
        low, high = mean.interval
        test = self._test(side)
        seconds, speed = side.measured("training_seconds"), side.measured("pictures_per_second")
        return [
            side.name,
            (f"{mean.correct} of {mean.count}" if mean.few else f"{np.mean(values):.4f}") + spread,
            f"{low:.3f}–{high:.3f}",
            "" if test is None else f"{test['difference']:+.4f}, p = {test['p_value']:.2g}",
            "" if seconds is None else f"{seconds:.0f} s",
            "" if speed is None else f"{speed:.1f}",
        ]

    def _test(self, side: Side) -> dict[str, float] | None:
        first = self.sides[0]
        if side is first or not side.accuracies or not first.accuracies:
            return None
        pairs = zip(side.outcomes, first.outcomes, strict=True)
        gaps = [a.scores.top1.value - b.scores.top1.value for a, b in pairs if a.scores and b.scores]
        return {"difference": float(np.mean(gaps)), "p_value": side.against(first).p_value} if gaps else None


def compare(
    data: DataSource,
    *,
    recipes: Sequence[str | Recipe] = RECIPES,
    seeds: int = 1,
    source: str | None = None,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    mapping: Mapping[str, str | int] | None = None,
    val_split: float | None = None,
    value_range: AskedRange = None,
    workers: int | None = None,
    device: str = "auto",
    runs: str | Path = RUNS,
    progress: Progress | None = None,
    **reading: Unpack[ReadingOptions],
) -> Comparison | None:
    """Train each recipe with each seed on the same images, and compare them image by image.

    Args:
        data: anything `fit` takes.
        recipes: names or `Recipe`s; the others are tested against the first.
        seeds: how many, from 0.
        settings: recipe fields to change, in every recipe.
        mapping: class name to source class, for recipes whose head begins with source rows.
        reading: how the dataset is read, as in `fit`.
        value_range: as in `fit`.
        runs: the folder where runs are kept and looked for.

    Returns:
        What was found; None in every process but the first.

    Raises:
        RecipeError: no recipes, one twice, or no seeds.
        RelishError: what `fit` raises.
    """
    keep_freed_memory()
    context = Context.on(device, progress, workers)
    chosen = chosen_recipes(recipes, settings or {})
    if seeds < 1:
        raise RecipeError(f"--seeds must be 1 or above, got {seeds}.")
    rows = {name: str(row) for name, row in (mapping or {}).items()}
    file = None if weights is None else str(weights)
    request = Request(
        data=data_name(data), source=source, weights=file, mapping=rows, val_split=val_split,
        value_range=range_option(value_range), **reading,
    )  # fmt: skip
    looked = looked_over(context, request, chosen)
    sides = []
    for recipe in chosen:
        outcomes = tuple(
            carry_out(context, replace(request, seed=seed), recipe, looked, Path(runs)) for seed in range(seeds)
        )
        sides.append(Side(recipe.name, outcomes))
    split = next((o.folder.read_evaluation()["split"] for s in sides for o in s.outcomes if o.scores), "test")
    identity = fingerprint([[str(o.folder.path) for o in side.outcomes] for side in sides])
    result = Comparison(tuple(sides), split, study_folder(Path(runs), f"{looked.dataset.name}-compare", identity))
    if not context.is_main:
        return None
    _write(result, identity, VALIDATION if VALIDATION in looked.dataset.splits else TEST)
    return result


def _write(result: Comparison, identity: str, scored_on: str) -> None:
    write_text(result.folder / "compare.txt", "\n".join([result.table(), *result.sentences()]) + "\n")
    write_json(result.folder / "study.json", {"identity": identity, **result.as_json()})
    curves = {side.name: curve_points(side.outcomes[0].folder) for side in result.sides}
    if chart := plots.comparison({name: points for name, points in curves.items() if points}, scored_on):
        write_svg(chart, result.folder / CHART)
