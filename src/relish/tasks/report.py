"""`report`: one page that says how good a run's model is, where it errs, and how to make it again.

Nothing is evaluated again: figures are those of `evaluation.json`, predictions those of `predictions.npz`. The model is
loaded only to explain its predictions.
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relish.core.context import Context
from relish.core.errors import RelishError, RunError
from relish.core.io import write_text
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder, given_in_python
from relish.data.dataset import SEVERITIES, TRAIN, VALIDATION, Finding, first_few
from relish.evaluation.explain import least_sure, most_wrong
from relish.evaluation.metrics import Curves, Proportion, Scores, SweepPoint
from relish.models.saved_model import read_header
from relish.reporting import plots
from relish.reporting.page import percent, percent_interval, render
from relish.reporting.run_page import (
    Confusion,
    Example,
    ReportPage,
    Rung,
    ShownFinding,
    Thumbnail,
    calibration_sentences,
    class_rows,
    confusion_matrix,
    decision_sentences,
    figure_rows,
    images_of_cells,
    majority_share,
)
from relish.tasks.classifier import Classifier, reloaded, saved_path
from relish.tasks.report_examples import Examples, changed_fields, fit_command, runs_beside, thumb
from relish.tasks.run_results import RunImages, RunPredictions, read_run_predictions
from relish.tasks.save import curve_points
from relish.training.finetune import HELD_OUT

MOST_WRONG, LEAST_SURE = 12, 12
"""Examples shown of each."""
MOST_BEHIND = 240
"""Small images behind the numbers of the confusion matrix, in all: a megabyte."""


@dataclass(frozen=True, eq=False)
class _Run:
    """A finished run, read."""

    folder: RunFolder
    evaluation: dict[str, Any]
    scores: Scores
    recipe: dict[str, Any]
    dataset: dict[str, Any]
    predictions: RunPredictions
    run_images: RunImages
    saved: str | Path | Classifier
    """What its model is loaded from."""

    @property
    def evaluated(self) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = self.dataset["splits"][self.evaluation["split"]]
        return rows

    @property
    def trained(self) -> list[dict[str, str]]:
        """The training images: a climb trains on validation images too, unless it is evaluated on them."""
        names = [TRAIN] if self.recipe.get("method", "train") == "train" else [TRAIN, VALIDATION]
        names = [name for name in names if name != self.evaluation["split"]]
        return [row for name in names for row in self.dataset["splits"].get(name, [])]


def report(
    run: str | Path | Classifier,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path | None:
    """Write a run's report.

    Args:
        run: a finished run folder, or the classifier that it was loaded to.
        out: the HTML file; None is `report.html` in the run folder.
        device: "auto", "cpu", "cuda" or "mps"; where the heat maps are computed.

    Returns:
        The file; None in every process but the first.

    Raises:
        RunError: no such run, not finished, or a file of it is missing.
        ModelError: the classifier was not loaded from a path.
        WriteFailed: no space or no permission.
    """
    context = Context.on(device, progress)
    if not context.is_main:
        return None
    folder = RunFolder.open(saved_path(run))
    target = folder.path / "report.html" if out is None else Path(out)
    if target.is_dir():
        raise RunError(f"--out {target} is a folder.", hint=f"Name a file in it: {target / 'report.html'}")
    page = _page(context, _read(folder, run))
    write_text(target, render("run.html", page=page))
    for note in page.notes:
        context.progress.warn(note)
    return target


def _read(folder: RunFolder, saved: str | Path | Classifier) -> _Run:
    evaluation = folder.read_evaluation()
    dataset = folder.read_dataset()
    predictions = read_run_predictions(folder, evaluation)
    try:
        scores, evaluated = Scores.from_json(evaluation), dataset["splits"][evaluation["split"]]
        run_images = RunImages(dataset)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.path}: evaluation.json or dataset.json lacks {error}.") from error
    if len(predictions.labels) != len(evaluated) or scores.classes != predictions.classes:
        raise RunError(
            f"{folder.path}: predictions.npz, evaluation.json and dataset.json are not of the same pictures."
        )
    return _Run(folder, evaluation, scores, folder.read_recipe(), dataset, predictions, run_images, saved)


def _page(context: Context, run: _Run) -> ReportPage:
    evaluation, scores, predictions, folder = run.evaluation, run.scores, run.predictions, run.folder
    confusion = confusion_matrix(predictions.predicted, predictions.labels, len(predictions.classes))
    wrong = most_wrong(predictions.probabilities, predictions.predicted, predictions.labels, MOST_WRONG)
    unsure = least_sure(predictions.probabilities, LEAST_SURE)
    examples, notes = _examples(context, run, [*wrong, *unsure])
    other_runs, other_runs_omitted = runs_beside(folder, predictions)
    checked, findings, counts = findings_of(folder, run.run_images)
    curves, scored_on = training_curves(folder)
    sweep, conclusion = sweep_of(folder)
    cell_images = _cell_images(run, confusion)
    if run.run_images.lost:
        notes.append(
            f"{run.run_images.lost:,} pictures that should be here are not: they are gone from {run.run_images.root}, "
            "or have changed since the run saw them."
        )
    return ReportPage(
        title=folder.path.resolve().name,
        facts=_facts(run),
        split=evaluation["split"],
        top1=scores.top1,
        majority_share=majority_share(scores),
        decision=decision_sentences(evaluation),
        figures=figure_rows(evaluation),
        other_runs=other_runs,
        other_runs_omitted=other_runs_omitted,
        rungs=rungs_of(folder),
        curves=plots.training_curves(curves, scored_on),
        checked=checked,
        findings=findings,
        counts=counts,
        confusion=confusion,
        cell_images=cell_images,
        classes=predictions.classes,
        calibration=calibration_sentences(evaluation),
        reliability=plots.reliability_diagram(evaluation.get("reliability") or [], _before(run)),
        coverage=plots.coverage_curve(evaluation.get("coverage") or []),
        mistakes=[examples[p] for p in wrong if p in examples],
        mistakes_in_all=int((~predictions.right).sum()),
        least_sure=[examples[p] for p in unsure if p in examples],
        class_rows=class_rows(scores),
        sweep=plots.learning_rates(sweep),
        sweep_conclusion=conclusion,
        recipe=_recipe_rows(run.recipe),
        environment=environment_rows(folder, evaluation),
        commands=_commands(run),
        notes=notes,
    )


def _examples(context: Context, run: _Run, positions: Sequence[int]) -> tuple[dict[int, Example], list[str]]:
    """The model is loaded for these alone, and only where an image is left to ask it about."""
    asked = [p for p in dict.fromkeys(positions) if run.run_images.has(run.evaluated[p]["path"])]
    if not asked:
        return {}, []
    model = reloaded(run.saved, context.device.type)
    made = Examples(model, run.predictions, run.run_images, run.evaluated, run.trained, context)
    return made.of(asked), made.notes


def _cell_images(run: _Run, confusion: Confusion) -> dict[str, list[Thumbnail]]:
    found = {}
    for name, positions in images_of_cells(confusion, MOST_BEHIND).items():
        thumbs = (thumb(run.run_images, run.evaluated[p]) for p in positions)
        found[name] = [shown for shown in thumbs if shown is not None]
    return {name: shown for name, shown in found.items() if shown}


def _before(run: _Run) -> list[tuple[float, float]]:
    """Reliability before the temperature; nothing where there was none."""
    temperature = (run.evaluation.get("decision") or {}).get("temperature", 1.0)
    if temperature == 1.0 or run.predictions.untempered is None:
        return []
    return plots.reliability_points(run.predictions.untempered, run.predictions.labels)


def _recipe_rows(recipe: dict[str, Any]) -> list[tuple[str, str, bool]]:
    changed = set(changed_fields(recipe))
    return [(key, "the model's" if value is None else str(value), key in changed) for key, value in recipe.items()]


def _commands(run: _Run) -> list[tuple[str, str]]:
    request, here = run.folder.read_request(), shlex.quote(str(run.folder.path))
    made = fit_command(request, run.recipe)
    commands = [("Make it again, from the same pictures and versions", made)]
    if "source" in given_in_python(request.get("python", {})):
        return [*commands, ("Use it", f'relish.load("{run.folder.path}", network=…)')]
    if not request.get("judge"):
        commands.append(("Judge it again", f"relish evaluate {here} {shlex.quote(str(request['data']))}"))
    commands.append(("Use it", f"relish predict {here} PICTURE…"))
    return commands


# ---- what a run folder says beside its predictions ------------------------------------------------------------------


MOST_FOUND, MOST_OF_ONE = 30, 4
"""Findings shown, the gravest first, and images of each."""


def _facts(run: _Run) -> tuple[tuple[str, str], ...]:
    """What the model was made from."""
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in run.dataset["splits"].items())
    classes = run.evaluation["classes"]
    seconds = run.evaluation.get("training_seconds") or 0.0
    return (
        ("pictures", f"{run.dataset['name']}: {splits}"),
        ("classes", f"{len(classes)}: {first_few(classes, 8)}"),
        ("source model", _source(run.folder)),
        ("recipe", str(run.recipe["name"])),
        ("training took", f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"),
    )


def rungs_of(folder: RunFolder) -> list[Rung]:
    """The rungs of a climb, the lowest first; none where the run was no climb."""
    events = [event for event in folder.records() if event["event"] == "rung"]
    kept = [event for event in events if event.get("kept")]
    won = (kept or events[:1])[-1:]  # where nothing above it was kept, the probe stands
    return [Rung(_rung_name(event), _rung_words(event), event in won) for event in events]


def training_curves(folder: RunFolder) -> tuple[Curves, str]:
    """The curves of the run, or of the first model it fine-tuned; and what they were scored on."""
    own = curve_points(folder)
    if own:
        scored = [event["split"] for event in folder.records() if event["event"] == "score"]
        return own, scored[-1] if scored else "held-out"
    stages = [event["curves"] for event in folder.records() if "curves" in event] or ["fine-tuning-1"]
    return curve_points(RunFolder(folder.stages / stages[-1])), HELD_OUT


def findings_of(folder: RunFolder, run_images: RunImages) -> tuple[int | None, list[ShownFinding], Mapping[str, int]]:
    """How many images the check looked over, the gravest of what it found, and how much there is of each severity.

    Raises:
        RunError: check.json is damaged.
    """
    path = folder.check
    if not path.is_file():
        return None, [], {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        findings = [Finding.from_json(one) for one in document["findings"]]
        findings.sort(key=lambda one: SEVERITIES.index(one.severity))
        checked = int(document["pictures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}).", hint="Move it away to report without it.") from error
    shown = [_found(one, run_images) for one in findings[:MOST_FOUND]]
    return checked, shown, Counter(one.severity for one in findings)  # in the order of the severities


def sweep_of(folder: RunFolder) -> tuple[dict[str, list[SweepPoint]], str]:
    """The points of a sweep of learning rates on the same images that lies beside the run, and its conclusion."""
    fingerprint = folder.read_dataset().get("fingerprint")
    for path in sorted(folder.path.resolve().parent.glob("*/study.json")):
        try:
            study = json.loads(path.read_text(encoding="utf-8"))
            if study.get("field") == "learning_rate" and _same_pictures(study, path.parent.parent, fingerprint):
                return _sweep_points(study), str(study.get("conclusion", ""))
        except (OSError, ValueError, KeyError, TypeError, RunError):
            continue  # not a sweep of ours, or one that is being written
    return {}, ""


def environment_rows(folder: RunFolder, evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and with what the run was made."""
    try:
        environment = json.loads(folder.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        environment = {}
    rows = [(name, _plain(value)) for name, value in environment.items() if name != "versions"]
    rows += [(f"{name} version", str(version)) for name, version in environment.get("versions", {}).items()]
    return [("SHA-256 of model.safetensors", str(evaluation.get("model_sha256", "not kept"))), *rows]


def _source(folder: RunFolder) -> str:
    """As the model's own header tells it; a model file that is gone takes nothing else of the report with it."""
    try:
        return read_header(folder.model).get("source", "not told")
    except RelishError:
        return "not told: the model's file cannot be read"


def _rung_name(event: Mapping[str, Any]) -> str:
    if event["rung"] == "average":
        return "fine-tuned" if event["share"] == 1 else f"average, {event['share']:g} of the way to fine-tuned"
    return str(event["rung"])


def _rung_words(event: Mapping[str, Any]) -> str:
    right = Proportion(event["correct"], event["count"])
    counts = f"{right.correct:,} of {right.count:,}"
    words = f"{percent(right.value)} ({counts}, 95% interval {percent_interval(right.interval)})"
    if event["rung"] != "average":
        return words
    gain, error = event.get("gain"), event.get("error")
    loss = ""
    if gain is not None and error is not None:
        loss = f", loss {abs(gain):.3f} ± {error:.3f} {'lower' if gain >= 0 else 'higher'} than the probe's"
    return f"{words}; the probe had {event['probe_correct']} of them right{loss}"


def _found(finding: Finding, run_images: RunImages) -> ShownFinding:
    rows = {row["path"]: row for rows in run_images.rows.values() for row in rows} if finding.paths else {}
    shown = (thumb(run_images, rows[path], rows[path]["class"]) for path in finding.paths[:MOST_OF_ONE] if path in rows)
    return ShownFinding(finding, tuple(one for one in shown if one is not None))


def _same_pictures(study: Mapping[str, Any], runs: Path, fingerprint: str | None) -> bool:
    first = RunFolder(runs / Path(study["points"][0]["run"]).name)
    return fingerprint is not None and first.read_dataset().get("fingerprint") == fingerprint


def _sweep_points(study: Mapping[str, Any]) -> dict[str, list[SweepPoint]]:
    points: dict[str, list[SweepPoint]] = {}
    for one in study["points"]:
        top1 = one["top1"] and Proportion(one["top1"]["correct"], one["top1"]["count"])
        points.setdefault(one["recipe"], []).append(SweepPoint(one["value"], top1))
    return points


def _plain(value: Any) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
