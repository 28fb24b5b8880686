"""A run's model card, the README of its folder: what the model is, how good, what it was made from.

In:   a run folder, and its figures.
Out:  Markdown with a head for programs, as the Hugging Face Hub has it.
Not here: that head (`card_data.py`), asking the model anything.

Every sentence stands on something that a file of the run says; where there is nothing, there is no sentence.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from relish.core.run_folder import RunFolder
from relish.data.findings import SEVERITIES, Finding
from relish.data.transforms import Preprocessing
from relish.evaluation.held_out import Gap, gap_of
from relish.evaluation.metrics import Proportion
from relish.models.saved_model import read_header
from relish.reporting.card_data import card_data, source_words
from relish.reporting.markdown import fenced, plain, table
from relish.reporting.tables import share_words

MOST_CLASSES = 50
"""Rows of the per-class table: with more classes, those of lowest F1."""
MOST_FINDINGS = 10

Sections = list[tuple[str, list[str]]]
"""Headings with their lines; a section without lines is left out."""


def model_card(folder: RunFolder, evaluation: Mapping[str, Any], licence: str | None = None, name: str = "") -> str:
    """The card of a run whose model is saved.

    Args:
        folder: of the run; `evaluation.json` need not be there yet.
        evaluation: what it holds, or will hold.
        licence: an identifier of the Hub, such as `mit`; None says that it is unknown.
        name: of the model; empty takes the folder's.

    Raises:
        RunError, ModelError: a file of the run cannot be read.
    """
    dataset, header = folder.read_dataset(), read_header(folder.model)
    name = name or folder.path.resolve().name
    sections: Sections = [
        ("Figures", _figures(evaluation)),
        ("Each class", _per_class(evaluation)),
        ("What its probabilities are worth", _calibration(evaluation)),
        ("What it learned from", _learned_from(dataset)),
        ("What a check of the pictures found", _findings(folder.read_check())),
        ("Limits", _limits(folder, evaluation)),
        ("Use it", _use(name, header)),
        ("How it was made", _made(folder, evaluation, header)),
    ]
    body = [f"# {plain(name)}", "", _about(evaluation, header)]
    for heading, lines in sections:
        if lines:
            body += ["", f"## {heading}", "", *lines]
    head = card_data(name, str(dataset["name"]), evaluation, header, licence)
    return "\n".join(["---", head.strip(), "---", "", *body, ""])


def _about(evaluation: Mapping[str, Any], header: Mapping[str, str]) -> str:
    classes = evaluation["classes"]
    named = ", ".join(plain(one) for one in classes[:MOST_CLASSES]) + (", …" if len(classes) > MOST_CLASSES else "")
    source = f" Its source model: {plain(source_words(header))}." if "source" in header else ""
    return f"An image classifier that tells {len(classes)} classes apart: {named}.{source}"


# ---- how good -------------------------------------------------------------------------------------------------------


def _figures(evaluation: Mapping[str, Any]) -> list[str]:
    names = {
        "top1": "accuracy",
        "without_duplicates": "accuracy without pictures that have a copy among those learned from",
        "balanced_accuracy": "balanced accuracy (mean recall of the classes)",
        "macro_f1": "macro-F1 (mean F1 of the classes)",
        "auc": "area under the ROC curve",
        "top5": "true class among the five likeliest",
    }
    rows = [_figure(title, evaluation[key]) for key, title in names.items() if evaluation.get(key)]
    answered = evaluation.get("answered")
    if answered and answered["count"]:
        rows.append(_figure(f"accuracy where it is sure ({answered['count']:,} of {answered['of']:,})", answered))
    said = f"On the {evaluation['top1']['count']:,} {evaluation['split']} pictures, computed from the saved model:"
    return [said, "", *table(["figure", "value", "95% interval", "right"], rows, right=(1, 2, 3))]


def _figure(title: str, found: Mapping[str, Any]) -> list[str]:
    low, high = found["interval"]
    right = f"{found['correct']:,} of {found['count']:,}" if "correct" in found else ""
    value = found["value"] if "value" in found else found["accuracy"]
    return [title, f"{value:.3f}", f"{low:.3f}–{high:.3f}", right]


def _per_class(evaluation: Mapping[str, Any]) -> list[str]:
    found = list(evaluation["per_class"])
    fewer = []
    if len(found) > MOST_CLASSES:
        fewer = [f"The {MOST_CLASSES} of {len(found):,} classes with the lowest F1; evaluation.json has them all.", ""]
        found = sorted((one for one in found if one["count"]), key=lambda one: one["f1"])[:MOST_CLASSES]
    keys = ("precision", "recall", "f1")
    rows = [[one["class"], *(share_words(one[key]) for key in keys), f"{one['count']:,}"] for one in found]
    return [*fewer, *table(["class", *keys, "pictures"], rows, right=(1, 2, 3, 4))]


def _calibration(evaluation: Mapping[str, Any]) -> list[str]:
    decision, lines = evaluation.get("decision") or {}, []
    before = evaluation.get("before_temperature")
    if before and decision.get("fitted_on"):
        lines.append(
            f"- Temperature {decision['temperature']:.3g}, fitted on {decision['fitted_on']:,} held-out pictures: "
            f"log-loss {before['log_loss']:.3f} without it and {evaluation['log_loss']:.3f} with it, calibration error "
            f"{before['ece']:.3f} and {evaluation['ece']:.3f}, Brier score {before['brier']:.3f} and "
            f"{evaluation['brier']:.3f}."
        )
    elif "ece" in evaluation:
        lines.append(
            f"- Not calibrated: no temperature was fitted. Log-loss {evaluation['log_loss']:.3f}, calibration error "
            f"{evaluation['ece']:.3f}, Brier score {evaluation['brier']:.3f}."
        )
    if decision.get("threshold") is not None:
        lines.append(
            f"- It says {plain(decision['positive'])} where its probability is at least {decision['threshold']:.4f}, "
            f"chosen for {plain(decision['aim'])}."
        )
    if decision.get("unsure_below") is not None:
        lines.append(f"- It is unsure of a class that it gives less than {decision['unsure_below']:.4f}.")
    return lines


# ---- from what ------------------------------------------------------------------------------------------------------


def _learned_from(dataset: Mapping[str, Any]) -> list[str]:
    splits: Mapping[str, list[Mapping[str, str]]] = dataset["splits"]
    counts: dict[str, dict[str, int]] = {}
    for split, pictures in splits.items():
        for picture in pictures:
            row = counts.setdefault(picture["class"], dict.fromkeys(splits, 0))
            row[split] += 1
    total = ", ".join(f"{len(pictures):,} {split}" for split, pictures in splits.items())
    lines = [f"Pictures of {plain(dataset['name'])}: {total}."]
    if dataset.get("unreadable"):
        lines.append(f"{len(dataset['unreadable']):,} files that could not be read were left out.")
    if len(counts) > MOST_CLASSES:
        return [*lines, f"{len(counts):,} classes; dataset.json has every picture of each."]
    rows = [[name, *(f"{row[split]:,}" for split in splits)] for name, row in sorted(counts.items())]
    return [*lines, "", *table(["class", *splits], rows, right=range(1, len(splits) + 1))]


def _findings(check: Mapping[str, Any] | None) -> list[str]:
    if check is None:
        return []
    found = sorted(map(Finding.from_json, check["findings"]), key=lambda one: SEVERITIES.index(one.severity))
    if not found:
        return [f"Nothing, among {check['pictures']:,} pictures."]
    lines = [f"- {one.severity}: {plain(one.message)}" for one in found[:MOST_FINDINGS]]
    more = len(found) - MOST_FINDINGS
    return [
        f"Suspicions about {check['pictures']:,} pictures, for people to look at:",
        "",
        *lines,
        *([f"- and {more:,} more, in check.json"] if more > 0 else []),
    ]


def _limits(folder: RunFolder, evaluation: Mapping[str, Any]) -> list[str]:
    judged, split = Proportion(evaluation["top1"]["correct"], evaluation["top1"]["count"]), evaluation["split"]
    low, high = judged.interval
    lines = [
        f"- It gives every picture one of its {len(evaluation['classes'])} classes, also one that shows none of them.",
        f"- With {judged.count:,} pictures to judge by, chance alone leaves the accuracy anywhere from {low:.3f} to "
        f"{high:.3f}.",
    ]
    if (evaluation.get("decision") or {}).get("threshold") is None:
        # On held-out pictures the likelier class was counted: with a threshold the two are not of the same answers.
        lines += _gap(gap_of(folder, judged, [row["count"] for row in evaluation["per_class"]]), split)
    if split == "validation":
        lines.append("- There was no test split: it was judged on validation pictures.")
    fresh = evaluation.get("without_duplicates")
    if fresh and fresh["left_out"]:
        lines.append(f"- {fresh['left_out']:,} of the {split} pictures have a copy among those it learned from.")
    return lines


def _gap(gap: Gap | None, split: str) -> list[str]:
    """How far the last figure lies from the one on held-out pictures, by which the model was chosen."""
    if gap is None:
        return []
    held, points = gap.held, gap.points
    told = "the same" if abs(points) < 0.05 else f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}"
    if gap.lower:
        told += f": {gap.reason(split)}"
        told += f", so expect no more than the {split} figure" if gap.mixed is None else ""
    return [
        f"- On the pictures held out in training it was right on {held.value:.3f} ({held.correct:,} of "
        f"{held.count:,}); on the {split} pictures {told}."
    ]


# ---- how ------------------------------------------------------------------------------------------------------------


def _use(name: str, header: Mapping[str, str]) -> list[str]:
    python = (
        f"import relish\n\nclf = relish.load({json.dumps(name, ensure_ascii=False)})\n"
        '(answer,) = clf.predict("new.jpg")\nprint(answer.class_name, answer.probability, answer.unsure)'
    )
    shell = f"relish predict {shlex.quote(name)} new.jpg\nrelish predict {shlex.quote(name)} folder/ --out answers.csv"
    lines = ["From the folder that this one lies in:", "", *fenced("python", python), "", *fenced("bash", shell)]
    if "preprocessing" in header:
        how = Preprocessing(**json.loads(header["preprocessing"]))
        lines += [
            "",
            f"Pictures of any size are {how.framing_words}, and scaled to {how.image_size} × {how.image_size} pixels.",
        ]
    return lines


def _made(folder: RunFolder, evaluation: Mapping[str, Any], header: Mapping[str, str]) -> list[str]:
    recipe, request = folder.read_recipe(), folder.read_request()
    rows: list[tuple[str, object]] = [("recipe", recipe.get("name")), ("seed", request.get("seed"))]
    lines: list[str] = []
    if folder.environment.is_file():
        made_on = json.loads(folder.environment.read_text(encoding="utf-8"))
        if _typed(made_on["command"]):
            lines = [*fenced("bash", shlex.join(["relish", *made_on["command"][1:]])), ""]
        rows += [(key, made_on[key]) for key in ("began", "processor", "device", "processes", "python")]
        rows += list(made_on["versions"].items())
    if evaluation.get("training_seconds"):
        rows.append(("seconds of training", f"{evaluation['training_seconds']:.0f}"))
    if "architecture" in header:
        rows.insert(0, ("network", f"{header.get('library', 'timm')}/{header['architecture']}"))
    if "model_sha256" in evaluation:
        rows.append(("SHA-256 of model.safetensors", evaluation["model_sha256"]))
    shown = [row for row in rows if row[1] not in (None, "")]
    return [*lines, *table(["what", "which"], shown), "", "Every number of the training is in recipe.yaml."]


def _typed(command: list[str]) -> bool:
    """Whether a person typed it into a shell; a script of theirs says nothing by its arguments."""
    return bool(command) and (PurePath(command[0]).name == "relish" or command[0].endswith("relish/__main__.py"))
