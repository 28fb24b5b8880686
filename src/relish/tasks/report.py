"""`report`: one page that says what a run is worth, where it errs, and how to make it again.

In:   a finished run folder; the pictures it was made from, where they still lie.
Out:  one HTML file.
Not here: how it looks (`reporting/report_page.py`), its examples (`examples.py`), its rivals (`rivals.py`).

Nothing is judged again: figures are those of `evaluation.json`, answers those of `predictions.npz`. The model is only
asked why it said what it said.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from relish.core.errors import RunError
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for
from relish.data.dataset import TRAIN, VALIDATION
from relish.evaluation.metrics import Scores
from relish.evaluation.notable import least_sure, most_wrong
from relish.reporting.confusion import Confusion, cells_to_picture, confusion_of
from relish.reporting.report_figures import calibration_words, class_rows, commonest_share, decision_words, figures_of
from relish.reporting.report_page import Example, ReportPage, Shown, write_report
from relish.reporting.run_charts import bins_of, coverage_chart, curves_chart, reliability_chart, sweep_chart
from relish.tasks.album import Album
from relish.tasks.run_results import Answers, answers_of
from relish.tasks.classifier import Classifier
from relish.tasks.report_examples import Examples, thumb
from relish.tasks.reproducing import changed_fields, fit_command
from relish.tasks.rivals import rivals_of
from relish.tasks.telling import environment_rows, facts_of, findings_of, rungs_of, sweep_of, training_curves

MOST_WRONG, LEAST_SURE = 12, 12
"""Examples shown of each."""
MOST_BEHIND = 240
"""Small pictures behind the numbers of the confusion matrix, in all: a megabyte."""


@dataclass(frozen=True, eq=False)
class _Run:
    """A finished run, read."""

    folder: RunFolder
    evaluation: dict[str, Any]
    scores: Scores
    recipe: dict[str, Any]
    dataset: dict[str, Any]
    answers: Answers
    album: Album

    @property
    def judged(self) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = self.dataset["splits"][self.evaluation["split"]]
        return rows

    @property
    def learned(self) -> list[dict[str, str]]:
        """What the model learned from: a climb learns from validation pictures too, unless it is judged by them."""
        names = [TRAIN] if self.recipe.get("method", "train") == "train" else [TRAIN, VALIDATION]
        return [
            row for name in names if name != self.evaluation["split"] for row in self.dataset["splits"].get(name, [])
        ]


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path | None:
    """Write a run's report.

    Args:
        run: a finished run folder.
        out: the HTML file; None is `report.html` in the run folder.
        device: "auto", "cpu", "cuda" or "mps"; where the heat maps are computed.

    Returns:
        The file; None in every process but the first.

    Raises:
        RunError: no such run, not finished, or a file of it is missing.
        WriteFailed: no space or no permission.
    """
    accelerator = accelerator_for(device)
    if not accelerator.is_main_process:
        return None
    voice = progress or Progress()
    folder = RunFolder.open(Path(run))
    target = folder.path / "report.html" if out is None else Path(out)
    if target.is_dir():
        raise RunError(f"--out {target} is a folder.", hint=f"Name a file in it: {target / 'report.html'}")
    page = _page(_read(folder), accelerator, voice)
    write_report(target, page)
    for note in page.notes:
        voice.warn(note)
    return target


def _read(folder: RunFolder) -> _Run:
    evaluation = folder.read_evaluation()
    dataset = folder.read_dataset()
    answers = answers_of(folder, evaluation)
    try:
        scores, judged = Scores.from_json(evaluation), dataset["splits"][evaluation["split"]]
        album = Album(dataset)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.path}: evaluation.json or dataset.json lacks {error}.") from error
    if len(answers.labels) != len(judged) or scores.classes != answers.classes:
        raise RunError(
            f"{folder.path}: predictions.npz, evaluation.json and dataset.json are not of the same pictures."
        )
    return _Run(folder, evaluation, scores, folder.read_recipe(), dataset, answers, album)


def _page(run: _Run, accelerator: Accelerator, progress: Progress) -> ReportPage:
    evaluation, scores, answers, folder = run.evaluation, run.scores, run.answers, run.folder
    confusion = confusion_of(answers.said, answers.labels, len(answers.classes))
    wrong = most_wrong(answers.probabilities, answers.said, answers.labels, MOST_WRONG)
    unsure = least_sure(answers.probabilities, LEAST_SURE)
    examples, notes = _examples(run, [*wrong, *unsure], accelerator, progress)
    rivals, rivals_left_out = rivals_of(folder, answers)
    checked, found, counts = findings_of(folder, run.album)
    curves, scored_on = training_curves(folder)
    sweep, conclusion = sweep_of(folder)
    behind = _behind(run, confusion)
    if run.album.lost:
        notes.append(
            f"{run.album.lost:,} pictures that should be here are not: they are gone from {run.album.root}, or have "
            "changed since the run saw them."
        )
    return ReportPage(
        title=folder.path.resolve().name,
        facts=facts_of(folder, run.dataset, run.recipe, evaluation),
        split=evaluation["split"],
        top1=scores.top1,
        commonest=commonest_share(scores),
        decision=decision_words(evaluation),
        figures=figures_of(evaluation),
        rivals=rivals,
        rivals_left_out=rivals_left_out,
        rungs=rungs_of(folder),
        curves=curves_chart(curves, scored_on),
        checked=checked,
        found=found,
        counts=counts,
        confusion=confusion,
        behind=behind,
        classes=answers.classes,
        calibration=calibration_words(evaluation),
        reliability=reliability_chart(evaluation.get("reliability") or [], _before(run)),
        coverage=coverage_chart(evaluation.get("coverage") or []),
        wrong=[examples[p] for p in wrong if p in examples],
        wrong_in_all=int((~answers.right).sum()),
        unsure=[examples[p] for p in unsure if p in examples],
        class_rows=class_rows(scores),
        sweep=sweep_chart(sweep),
        sweep_conclusion=conclusion,
        recipe=_recipe_rows(run.recipe),
        environment=environment_rows(folder, evaluation),
        commands=_commands(run),
        notes=notes,
    )


def _examples(
    run: _Run, positions: Sequence[int], accelerator: Accelerator, progress: Progress
) -> tuple[dict[int, Example], list[str]]:
    """The model is loaded for these alone, and only where a picture is left to ask it about."""
    asked = [p for p in dict.fromkeys(positions) if run.album.has(run.judged[p]["path"])]
    if not asked:
        return {}, []
    model = Classifier.load(run.folder.path, device=str(accelerator.device.type))
    made = Examples(model, run.answers, run.album, run.judged, run.learned, accelerator, progress)
    return made.of(asked), made.notes


def _behind(run: _Run, confusion: Confusion) -> dict[str, list[Shown]]:
    chosen = cells_to_picture(confusion, MOST_BEHIND)
    thumbs = {
        name: [shown for p in positions if (shown := thumb(run.album, run.judged[p])) is not None]
        for name, positions in chosen.items()
    }
    return {name: shown for name, shown in thumbs.items() if shown}


def _before(run: _Run) -> list[tuple[float, float]]:
    """Reliability before the temperature; nothing where there was none."""
    temperature = (run.evaluation.get("decision") or {}).get("temperature", 1.0)
    if temperature == 1.0 or run.answers.untempered is None:
        return []
    return bins_of(run.answers.untempered, run.answers.labels)


def _recipe_rows(recipe: dict[str, Any]) -> list[tuple[str, str, bool]]:
    changed = set(changed_fields(recipe))
    return [(key, "the model's" if value is None else str(value), key in changed) for key, value in recipe.items()]


def _commands(run: _Run) -> list[tuple[str, str]]:
    request, here = run.folder.read_request(), shlex.quote(str(run.folder.path))
    made = fit_command(request, run.recipe)
    commands = [("Make it again, from the same pictures and versions", made)]
    if not request.get("judge"):
        commands.append(("Judge it again", f"relish evaluate {here} {shlex.quote(str(request['data']))}"))
    commands.append(("Use it", f"relish predict {here} PICTURE…"))
    return commands
