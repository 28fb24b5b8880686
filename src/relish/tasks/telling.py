"""What a run folder tells of how the run came to be: its making, its rungs, its curves, what the check found.

In:   a run folder.
Out:  parts of the report; a file that is absent is a part that is left out.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relish.core.errors import RelishError, RunError
from relish.core.run_folder import RunFolder
from relish.data.findings import SEVERITIES, Finding
from relish.evaluation.curves import Curves, SweepPoint
from relish.evaluation.metrics import Proportion
from relish.models.header import read_header
from relish.reporting.report_figures import as_percent, interval_words
from relish.reporting.report_page import Found, Rung
from relish.tasks.album import Album
from relish.tasks.report_examples import thumb
from relish.tasks.writing import curve_points
from relish.training.fine_tuning import HELD_OUT

MOST_FOUND, MOST_OF_ONE = 30, 4
"""Findings shown, the gravest first, and pictures of each."""


def facts_of(
    folder: RunFolder, dataset: Mapping[str, Any], recipe: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """What it was made from, in a few lines."""
    splits = ", ".join(f"{len(rows):,} {name}" for name, rows in dataset["splits"].items())
    classes = evaluation["classes"]
    named = ", ".join(classes[:8]) + (f" and {len(classes) - 8} more" if len(classes) > 8 else "")
    seconds = evaluation.get("training_seconds") or 0.0
    facts = [
        ("pictures", f"{dataset['name']}: {splits}"),
        ("classes", f"{len(classes)}: {named}"),
        ("source model", _source(folder)),
        ("recipe", str(recipe["name"])),
        ("training took", f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"),
    ]
    return tuple(facts)


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


def findings_of(folder: RunFolder, album: Album) -> tuple[int | None, list[Found], dict[str, int]]:
    """How many pictures the check looked over, the gravest of what it found, and how much there is of each severity.

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
    shown = [_found(one, album) for one in findings[:MOST_FOUND]]
    each = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    return checked, shown, {severity: count for severity, count in each.items() if count}


def sweep_of(folder: RunFolder) -> tuple[dict[str, list[SweepPoint]], str]:
    """The points of a sweep of learning rates on the same pictures that lies beside the run, and its conclusion."""
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
    words = (
        f"{as_percent(right.value)} ({right.correct:,} of {right.count:,}, "
        f"95% interval {interval_words(right.interval)})"
    )
    if event["rung"] != "average":
        return words
    gain, error = event.get("gain"), event.get("error")
    loss = "" if gain is None or error is None else (
        f", loss {abs(gain):.3f} ± {error:.3f} {'lower' if gain >= 0 else 'higher'} than the probe's"
    )  # fmt: skip
    return f"{words}; the probe had {event['probe_correct']} of them right{loss}"


def _found(finding: Finding, album: Album) -> Found:
    rows = {row["path"]: row for rows in album.rows.values() for row in rows} if finding.paths else {}
    shown = (thumb(album, rows[path], rows[path]["class"]) for path in finding.paths[:MOST_OF_ONE] if path in rows)
    return Found(finding, tuple(one for one in shown if one is not None))


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
