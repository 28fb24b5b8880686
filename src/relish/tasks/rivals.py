"""The finished runs beside a run that were judged on the same pictures, each tested against it.

In:   a run folder and what its model answered.
Out:  a `Rival` each, the best first, the run itself among them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relish.core.errors import RelishError
from relish.core.run_folder import RunFolder
from relish.evaluation.comparison import mcnemar
from relish.reporting.report_page import Rival
from relish.tasks.run_results import Answers, answers_of

MOST = 8
"""Other runs shown, the best of them."""


@dataclass(frozen=True, eq=False)
class _Judged:
    folder: RunFolder
    recipe: str
    source: str
    answers: Answers


def rivals_of(folder: RunFolder, answers: Answers) -> tuple[list[Rival], int]:
    """The run among its rivals; nothing where it has none.

    Returns:
        The runs, best first, and how many more there are.
    """
    judged_on = _pictures(folder, folder.read_evaluation()["split"])
    own = _Judged(folder, *_names(folder), answers)
    others = [found for path in _beside(folder.path) if (found := _judged(path, judged_on)) is not None]
    others.sort(key=lambda other: -other.answers.accuracy.value)
    shown = sorted([own, *others[:MOST]], key=lambda one: -one.answers.accuracy.value)
    return ([_rival(one, own) for one in shown] if others else []), max(0, len(others) - MOST)


def _beside(path: Path) -> list[Path]:
    here = path.resolve()
    return sorted(other.parent for other in here.parent.glob("*/request.json") if other.parent != here)


def _judged(path: Path, judged_on: list[tuple[str, str]]) -> _Judged | None:
    """A run judged on these very pictures; a folder that is damaged or unfinished is none."""
    folder = RunFolder(path)
    if not folder.finished:
        return None
    try:
        evaluation = folder.read_evaluation()
        if evaluation["top1"]["count"] != len(judged_on) or _pictures(folder, evaluation["split"]) != judged_on:
            return None
        return _Judged(folder, *_names(folder), answers_of(folder, evaluation))
    except (RelishError, KeyError, TypeError):
        return None


def _pictures(folder: RunFolder, split: str) -> list[tuple[str, str]]:
    """(SHA-256, class) of each picture of a split, in its order."""
    rows: list[dict[str, Any]] = folder.read_dataset()["splits"][split]
    return [(row["sha256"], row["class"]) for row in rows]


def _names(folder: RunFolder) -> tuple[str, str]:
    request, recipe = folder.read_request(), folder.read_recipe()
    weights = request.get("weights")
    source = request.get("source") or (Path(weights).name if weights else "embedded")
    return str(recipe.get("name", "")), source if recipe.get("start") != "random" else f"{source}, random weights"


def _rival(one: _Judged, own: _Judged) -> Rival:
    sentence = ""
    if one is not own:
        found = mcnemar(own.answers.right, one.answers.right)
        sentence = found.sentence(own.folder.path.resolve().name, one.folder.path.name)
    name = one.folder.path.resolve().name
    return Rival(name, one.recipe, one.source, one.answers.accuracy, sentence)
