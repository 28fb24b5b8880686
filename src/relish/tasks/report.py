"""`report`: one page that says how good a run's model is, where it errs, and how to make it again.

Nothing is evaluated again: figures are those of `evaluation.json`, predictions those of `predictions.npz`. The model is
loaded only to explain its predictions.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from relish.core.context import Context
from relish.core.errors import RelishError, RunError
from relish.core.io import write_text
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder, given_in_python, read_mapping
from relish.data.dataset import SEVERITIES, Finding, first_few
from relish.evaluation.explain import least_sure, most_wrong
from relish.evaluation.figures import reliability
from relish.evaluation.grouped import by_columns, class_proportions, columns_of_rows
from relish.evaluation.metrics import Curves, Proportion, SweepPoint
from relish.models.saved_model import read_header
from relish.reporting import plots, run_page
from relish.reporting.page import percent, percent_interval, render
from relish.reporting.run_page import Confusion, Example, Thumbnail
from relish.reporting.text import SOURCE_HEADINGS, group_lines, source_rows, source_sentence
from relish.tasks.classifier import Classifier, reloaded, saved_path
from relish.tasks.report_examples import Examples, changed_fields, fit_command, runs_beside, thumbnails
from relish.tasks.run_results import FinishedRun, RunImages, read_run
from relish.tasks.save import curve_points
from relish.training.finetune import HELD_OUT

MOST_WRONG, LEAST_SURE, STRANGEST = 12, 12, 6
"""Examples shown of each."""
MOST_BEHIND = 240
"""Small images behind the numbers of the confusion matrix, in all: a megabyte."""


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
    page, notes = _page(context, read_run(folder), run)
    write_text(target, page)
    for note in notes:
        context.progress.warn(note)
    return target


def _page(context: Context, run: FinishedRun, saved: str | Path | Classifier) -> tuple[str, list[str]]:
    """The page, and what is missing from it, and why."""
    evaluation, scores, predictions, folder = run.evaluation, run.scores, run.predictions, run.folder
    answers = predictions.predicted, predictions.labels, len(predictions.classes)
    confusion = run_page.confusion_matrix(*answers)
    shares = class_proportions(answers[1], answers[0], answers[2], run.groups)
    wrong = most_wrong(predictions.probabilities, predictions.predicted, predictions.labels, MOST_WRONG)
    unsure = least_sure(predictions.probabilities, LEAST_SURE)
    strange = _strangest(run)
    examples, notes = _examples(context, run, saved, [*wrong, *unsure, *strange])
    if run.nested and examples:
        notes.append("Heat maps are the saved model's, which learned from these pictures; the answers are not its own.")
    other_runs, other_runs_omitted = runs_beside(run)
    curves, scored_on = training_curves(folder)
    sweep, conclusion = sweep_of(folder)
    cell_images = _cell_images(run, confusion)
    if run.images.lost:
        notes.append(
            f"{run.images.lost:,} pictures that should be here are not: they are gone from {run.images.root}, "
            "or have changed since the run saw them."
        )
    page = {
        "title": folder.path.resolve().name,
        "facts": _facts(run),
        "split": "held-out" if run.nested else evaluation["split"],
        "nested": evaluation.get("nested"),
        "top1": scores.top1,
        "majority_share": max(one.count for one in scores.per_class) / scores.top1.count,
        "decision": run_page.decision_sentences(evaluation),
        "figures": run_page.figure_rows(evaluation),
        "other_runs": other_runs,
        "other_runs_omitted": other_runs_omitted,
        "sources": _sources(folder),
        "rungs": rungs_of(folder),
        "curves": plots.training_curves(curves, scored_on),
        **findings_of(folder, run.images),
        "confusion": confusion,
        "cell_images": cell_images,
        "classes": predictions.classes,
        "calibration": run_page.calibration_sentences(evaluation),
        "reliability": plots.reliability_diagram(evaluation.get("reliability") or [], _before(run)),
        "coverage": plots.coverage_curve(evaluation.get("coverage") or []),
        "mistakes": [examples[p] for p in wrong if p in examples],
        "mistakes_in_all": int((~predictions.right).sum()),
        "least_sure": [examples[p] for p in unsure if p in examples],
        "strangest": [examples[p] for p in strange if p in examples],
        "class_rows": run_page.class_rows(scores, shares),
        "groups": group_lines(scores),
        "subgroups": by_columns(columns_of_rows(run.evaluated), predictions.right, run.groups),
        "sweep": plots.learning_rates(sweep),
        "sweep_conclusion": conclusion,
        "recipe": run.recipe,
        "changed": changed_fields(run.recipe),
        "environment": environment_rows(folder, evaluation),
        "commands": _commands(run),
        "notes": notes,
    }
    return render("run.html", page=page), notes


def _strangest(run: FinishedRun) -> list[int]:
    """Positions of the images most unlike the training images, the strangest first; none where nobody can say."""
    found = run.predictions.unfamiliarity
    return [] if found is None else [int(p) for p in np.argsort(-found, kind="stable")[:STRANGEST]]


def _examples(
    context: Context, run: FinishedRun, saved: str | Path | Classifier, positions: Sequence[int]
) -> tuple[dict[int, Example], list[str]]:
    """The model is loaded for these alone, and only where an image is left to ask it about."""
    asked = [p for p in dict.fromkeys(positions) if run.images.has(run.evaluated[p]["path"])]
    if not asked:
        return {}, []
    made = Examples(reloaded(saved, context.device.type), run, context)
    return made.of(asked), made.notes


def _cell_images(run: FinishedRun, confusion: Confusion) -> dict[str, list[Thumbnail]]:
    behind = run_page.images_of_cells(confusion, MOST_BEHIND)
    found = {name: thumbnails(run.images, [(run.evaluated[p], "") for p in places]) for name, places in behind.items()}
    return {name: shown for name, shown in found.items() if shown}


def _before(run: FinishedRun) -> list[tuple[float, float]]:
    """Reliability before the temperature; nothing where there was none."""
    temperature = (run.evaluation.get("decision") or {}).get("temperature", 1.0)
    if temperature == 1.0 or run.predictions.untempered is None:
        return []
    bins = reliability(run.predictions.untempered, run.predictions.labels)
    return [(one.confidence, one.accuracy) for one in bins]


def _sources(folder: RunFolder) -> dict[str, Any] | None:
    """The search for a source model, as a table; None where there was none."""
    found = folder.read_sources()
    if found is None:
        return None
    return {
        "sentence": source_sentence(found),
        "headings": SOURCE_HEADINGS,
        "rows": [(row, row[0] == found["taken"]) for row in source_rows(found)],
    }


def _commands(run: FinishedRun) -> list[tuple[str, str]]:
    request, here = run.request, shlex.quote(str(run.folder.path))
    made = fit_command(request, run.recipe)
    commands = [("Make it again, from the same pictures and versions", made)]
    if "source" in given_in_python(request.get("python", {})):
        return [*commands, ("Use it", f'relish.load("{run.folder.path}", network=…)')]
    if not request.get("judge") and not run.nested:  # it has learned from all of them
        commands.append(("Judge it again", f"relish evaluate {here} {shlex.quote(str(request['data']))}"))
    commands.append(("Use it", f"relish predict {here} PICTURE…"))
    return commands


# ---- what a run folder says beside its predictions ------------------------------------------------------------------


MOST_FOUND, MOST_OF_ONE = 30, 4
"""Findings shown, the gravest first, and images of each."""


def _facts(run: FinishedRun) -> tuple[tuple[str, str], ...]:
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


def rungs_of(folder: RunFolder) -> list[tuple[str, str, bool]]:
    """Name, outcome, and whether it won, of each rung of a climb, the lowest first; none where the run was no climb."""
    events = [event for event in folder.records() if event["event"] == "rung"]
    kept = [event for event in events if event.get("kept")]
    won = (kept or events[:1])[-1:]  # where nothing above it was kept, the probe stands
    return [(_rung_name(event), _rung_words(event), event in won) for event in events]


def training_curves(folder: RunFolder) -> tuple[Curves, str]:
    """The curves of the run, or of the first model it fine-tuned; and what they were scored on."""
    own = curve_points(folder)
    if own:
        scored = [event["split"] for event in folder.records() if event["event"] == "score"]
        return own, scored[-1] if scored else "held-out"
    stages = [event["curves"] for event in folder.records() if "curves" in event] or ["fine-tuning-1"]
    return curve_points(RunFolder(folder.stages / stages[-1])), HELD_OUT


def findings_of(folder: RunFolder, images: RunImages) -> dict[str, Any]:
    """How many images the check looked over, None where there was no check; the gravest `findings`, each with some of
    its images; and the `counts` of each severity, the gravest first.

    Raises:
        RunError: check.json is damaged.
    """
    path, hint = folder.check, "Move it away to report without it."
    if not path.is_file():
        return {"checked": None, "findings": [], "counts": {}}
    try:
        check = read_mapping(path, hint=hint)
        findings = [Finding.from_json(one) for one in check["findings"]]
        findings.sort(key=lambda one: SEVERITIES.index(one.severity))
        checked = int(check["pictures"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}).", hint=hint) from error
    rows = {row["path"]: (row, row["class"]) for split in images.rows.values() for row in split}
    shown = [
        (one, thumbnails(images, [rows[path] for path in one.paths[:MOST_OF_ONE] if path in rows]))
        for one in findings[:MOST_FOUND]
    ]
    return {"checked": checked, "findings": shown, "counts": Counter(one.severity for one in findings)}


def sweep_of(folder: RunFolder) -> tuple[dict[str, list[SweepPoint]], str]:
    """The points of a sweep of learning rates on the same images that lies beside the run, and its conclusion."""
    fingerprint = folder.read_dataset().get("fingerprint")
    for path in sorted(folder.path.resolve().parent.glob("*/study.json")):
        try:
            study = read_mapping(path)
            first = RunFolder(path.parent.parent / Path(study["points"][0]["run"]).name)
            same = fingerprint is not None and first.read_dataset().get("fingerprint") == fingerprint
            if same and study.get("field") == "learning_rate":
                return _sweep_points(study), str(study.get("conclusion", ""))
        except (ValueError, KeyError, TypeError, RunError):
            continue  # not a sweep of ours, or one that is being written
    return {}, ""


def environment_rows(folder: RunFolder, evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and with what the run was made."""
    environment: dict[str, Any] = {}
    with suppress(RunError):
        environment = read_mapping(folder.environment)
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
    right = Proportion.from_json(event)
    counts = f"{right.correct:,} of {right.count:,}"
    words = f"{percent(right.value)} ({counts}, 95% interval {percent_interval(right.interval)})"
    if event["rung"] != "average":
        return words
    gain, error = event.get("gain"), event.get("error")
    loss = ""
    if gain is not None and error is not None:
        loss = f", loss {abs(gain):.3f} ± {error:.3f} {'lower' if gain >= 0 else 'higher'} than the probe's"
    return f"{words}; the probe had {event['probe_correct']} of them right{loss}"


def _sweep_points(study: Mapping[str, Any]) -> dict[str, list[SweepPoint]]:
    points: dict[str, list[SweepPoint]] = {}
    for one in study["points"]:
        top1 = one["top1"] and Proportion.from_json(one["top1"])
        points.setdefault(one["recipe"], []).append(SweepPoint(one["value"], top1))
    return points


def _plain(value: Any) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
