"""A run's model card, the README of its folder: what the model is, how good, what it was made from.

Markdown with YAML at its head, in the form of the Hugging Face Hub. Every sentence rests on a file of the run; where
there is nothing, there is no sentence.

Source: https://huggingface.co/docs/hub/model-cards, "Model card metadata" and "Evaluation Results".
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from pydantic import TypeAdapter

from relish.core.run_folder import RunFolder, read_mapping
from relish.data.dataset import CROSS_VALIDATION, SEVERITIES, Finding
from relish.data.transforms import Preprocessing
from relish.evaluation.held_out import Gap, gap_of
from relish.evaluation.metrics import Proportion, Scores
from relish.evaluation.prediction import UNLIKE
from relish.models.candidates import WEIGHTS_ENDINGS
from relish.models.saved_model import OWN, read_header
from relish.reporting.text import SOURCE_HEADINGS, group_lines, source_rows, source_sentence, three_digits

MOST_CLASSES = 50
"""Rows of the per-class table: with more classes, those of lowest F1."""
MOST_FINDINGS = 10

TASK = "image-classification"
UNKNOWN = "unknown"
"""The Hub's own word for a licence that nobody has named."""
_METRICS = (
    ("top1", "accuracy", "Accuracy", "accuracy"),
    ("without_duplicates", "", "", "accuracy without pictures that have a copy among those learned from"),
    ("balanced_accuracy", "balanced_accuracy", "Balanced accuracy", "balanced accuracy (mean recall of the classes)"),
    ("macro_f1", "f1", "Macro-F1", "macro-F1 (mean F1 of the classes)"),
    ("auc", "roc_auc", "Area under the ROC curve", "area under the ROC curve"),
    ("top5", "top_5_accuracy", "Top-5 accuracy", "true class among the five likeliest"),
)
"""Key in `evaluation.json`; type and name on the Hub, empty where it has none; what the table for people says."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|@(?=\w)|^(?=[#+=-])")


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
    sections = [
        ("Figures", _figures(evaluation)),
        ("Each class", _per_class(evaluation)),
        ("What its probabilities are worth", _calibration(evaluation)),
        ("What it learned from", _training_data(dataset)),
        ("Which source model it began with", _sources(folder.read_sources())),
        ("What a check of the pictures found", _findings(folder.read_check())),
        ("Limits", _limits(folder, evaluation)),
        ("Use it", _use(name, header)),
        ("How it was made", _made(folder, evaluation, header)),
    ]
    body = [f"# {plain(name)}", "", _about(evaluation, header)]
    for heading, lines in sections:
        if lines:  # else there is nothing of it in the run's files
            body += ["", f"## {heading}", "", *lines]
    head = card_data(name, str(dataset["name"]), evaluation, header, licence)
    return "\n".join(["---", head.strip(), "---", "", *body, ""])


def card_data(
    name: str, dataset: str, evaluation: Mapping[str, Any], header: Mapping[str, str], licence: str | None
) -> str:
    """The YAML at the head of a card, arguments as `model_card`; figures that are absent or null are omitted."""
    data = ModelCardData(
        model_name=name,
        license=licence or UNKNOWN,
        library_name="relish",
        pipeline_tag=TASK,
        tags=[TASK, "relish", *([header["library"], header["architecture"]] if "architecture" in header else [])],
        eval_results=[
            EvalResult(
                task_type=TASK,
                dataset_type="imagefolder",  # the user's own images, which the Hub does not have
                dataset_name=dataset,
                dataset_split=evaluation["split"],
                metric_type=kind,
                metric_name=title,
                metric_value=evaluation[key]["value"],
                metric_args={"interval_95": evaluation[key]["interval"]},
            )
            for key, kind, title, _ in _METRICS
            if kind and evaluation.get(key)
        ],
        **_origin(header),
    )
    return str(data.to_yaml())


def source_text(header: Mapping[str, str]) -> str:
    """The source model, without the folders that its file lay in: a card is made to be given away."""
    name, _, origin = header.get("source", "").partition(": ")
    file = re.fullmatch(r"(?:.*[/\\])?(.+? \(SHA-256 .*\))", origin, re.DOTALL)
    return f"{name}: {file[1] if file else origin}" if origin else name


def plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line: no link, no HTML, no further column of a table."""
    return _ACTIVE.sub(r"\\\g<0>", _CONTROL.sub(" ", str(text)).strip())


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[int] = ()
) -> list[str]:
    """The lines of a table; every cell is shown as it is, see `plain`.

    Args:
        right: positions of the columns that are aligned to the right.
    """
    rule = ["---:" if place in right else "---" for place in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *([plain(cell) for cell in row] for row in rows))]


def fenced(language: str, text: str) -> list[str]:
    """The lines of a block of code, fenced by more backticks than it holds."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return [f"{fence}{language}", *text.splitlines(), fence]


def _about(evaluation: Mapping[str, Any], header: Mapping[str, str]) -> str:
    classes = evaluation["classes"]
    named = ", ".join(plain(one) for one in classes[:MOST_CLASSES]) + (", …" if len(classes) > MOST_CLASSES else "")
    source = f" Its source model: {plain(source_text(header))}." if "source" in header else ""
    return f"An image classifier that tells {len(classes)} classes apart: {named}.{source}"


# ---- how good -------------------------------------------------------------------------------------------------------


def _figures(evaluation: Mapping[str, Any]) -> list[str]:
    rows = [_figure(words, evaluation[key]) for key, _, _, words in _METRICS if evaluation.get(key)]
    answered = evaluation.get("answered")
    if answered and answered["count"]:
        rows.append(_figure(f"accuracy where it is sure ({answered['count']:,} of {answered['of']:,})", answered))
    top1, scores = Proportion.from_json(evaluation["top1"]), Scores.from_json(evaluation)
    least = f", accuracy {top1.sentence()}" if top1.few else ""
    head = f"On the {top1.count:,} {evaluation['split']} pictures, computed from the saved model{least}:"
    if evaluation["split"] == CROSS_VALIDATION:
        words = "In nested cross-validation, each picture by a model that neither learned from it nor was chosen by it"
        head = f"{words}{least}:"
    return [
        head,
        *(f"{line}." for line in group_lines(scores)),
        "",
        *markdown_table(["figure", "value", "95% interval", "right"], rows, right=(1, 2, 3)),
    ]


def _figure(title: str, figure: Mapping[str, Any]) -> list[str]:
    low, high = figure["interval"]
    right = f"{figure['correct']:,} of {figure['count']:,}" if "correct" in figure else ""
    value = figure["value"] if "value" in figure else figure["accuracy"]
    return [title, f"{value:.3f}", f"{low:.3f}–{high:.3f}", right]


def _per_class(evaluation: Mapping[str, Any]) -> list[str]:
    classes = list(evaluation["per_class"])
    fewer = []
    if len(classes) > MOST_CLASSES:
        words = f"The {MOST_CLASSES} of {len(classes):,} classes with the lowest F1; evaluation.json has them all."
        fewer = [words, ""]
        classes = sorted((one for one in classes if one["count"]), key=lambda one: one["f1"])[:MOST_CLASSES]
    keys = ("precision", "recall", "f1")
    rows = [[one["class"], *(three_digits(one[key]) for key in keys), f"{one['count']:,}"] for one in classes]
    return [*fewer, *markdown_table(["class", *keys, "pictures"], rows, right=(1, 2, 3, 4))]


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
    if unknown := evaluation.get("unknown"):
        lines.append(
            f"- It calls a picture {UNLIKE} where its unfamiliarity is above {unknown['above']:.4f}: "
            f"{unknown['count']:,} of {unknown['of']:,} here."
        )
    return lines


# ---- data and limits -------------------------------------------------------------------------------------------------


def _training_data(dataset: Mapping[str, Any]) -> list[str]:
    splits: Mapping[str, list[Mapping[str, str]]] = dataset["splits"]
    counts = {split: Counter(image["class"] for image in images) for split, images in splits.items()}
    classes = sorted({image["class"] for images in splits.values() for image in images})
    total = ", ".join(f"{len(images):,} {split}" for split, images in splits.items())
    lines = [f"Pictures of {plain(dataset['name'])}: {total}."]
    if dataset.get("unreadable"):
        lines.append(f"{len(dataset['unreadable']):,} files that could not be read were left out.")
    if len(classes) > MOST_CLASSES:
        return [*lines, f"{len(classes):,} classes; dataset.json has every picture of each."]
    rows = [[name, *(f"{counts[split][name]:,}" for split in splits)] for name in classes]
    return [*lines, "", *markdown_table(["class", *splits], rows, right=range(1, len(splits) + 1))]


def _sources(search: Mapping[str, Any] | None) -> list[str]:
    if search is None:
        return []
    names = [one["name"] for one in (*search["sources"], *search["omitted"])]
    files = [name for name in names if PurePath(name).suffix in WEIGHTS_ENDINGS]

    def told(text: str) -> str:
        """Without the folders that files lay in, as in `source_text`."""
        for file in sorted(files, key=len, reverse=True):
            text = text.replace(file, PurePath(file).name)
        return text

    rows = [[told(row[0]), *row[1:]] for row in source_rows(search)]
    table = markdown_table(SOURCE_HEADINGS, rows, right=(1, 3, 4, 5)) if rows else []
    return [plain(told(source_sentence(search))), *(["", *table] if table else [])]


def _findings(check: Mapping[str, Any] | None) -> list[str]:
    if check is None:
        return []
    findings = sorted(map(Finding.from_json, check["findings"]), key=lambda one: SEVERITIES.index(one.severity))
    if not findings:
        return [f"Nothing, among {check['pictures']:,} pictures."]
    lines = [f"- {one.severity}: {plain(one.message)}" for one in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        lines.append(f"- and {len(findings) - MOST_FINDINGS:,} more, in check.json")
    return [f"Suspicions about {check['pictures']:,} pictures, for people to look at:", "", *lines]


def _limits(folder: RunFolder, evaluation: Mapping[str, Any]) -> list[str]:
    top1, split = Proportion.from_json(evaluation["top1"]), evaluation["split"]
    low, high = top1.interval
    lines = [
        f"- It gives every picture one of its {len(evaluation['classes'])} classes, also one that shows none of them.",
        f"- With {top1.count:,} pictures to judge by, chance alone leaves the accuracy anywhere from {low:.3f} to "
        f"{high:.3f}.",
    ]
    if split == CROSS_VALIDATION:
        lines.append(
            "- There was neither a test nor a validation split, and it learned from every picture: the figures are "
            "those of models that learned from most of them."
        )
    elif (evaluation.get("decision") or {}).get("threshold") is None:
        # Held-out accuracy counts the likelier class: with a threshold the two are not of the same predictions.
        lines += _gap(gap_of(folder, top1, [row["count"] for row in evaluation["per_class"]]), split)
    if split == "validation":
        lines.append("- There was no test split: it was judged on validation pictures.")
    fresh = evaluation.get("without_duplicates")
    if fresh and fresh["left_out"]:
        lines.append(f"- {fresh['left_out']:,} of the {split} pictures have a copy among those it learned from.")
    return lines


def _gap(gap: Gap | None, split: str) -> list[str]:
    """How far the final accuracy lies from that on held-out images, by which the model was chosen."""
    if gap is None:
        return []
    held, points = gap.held, gap.points
    text = "the same" if abs(points) < 0.05 else f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}"
    if gap.lower:
        text += f": {gap.reason(split)}"
        text += f", so expect no more than the {split} figure" if gap.reweighted is None else ""
    return [
        f"- On the pictures held out in training it was right on {held.value:.3f} ({held.correct:,} of "
        f"{held.count:,}); on the {split} pictures {text}."
    ]


# ---- how ------------------------------------------------------------------------------------------------------------


def _use(name: str, header: Mapping[str, str]) -> list[str]:
    own = header.get("library") == OWN
    network = f", network={header['architecture'].rpartition('.')[2]}()" if own else ""
    python = (
        f"import relish\n\nclf = relish.load({json.dumps(name, ensure_ascii=False)}{network})\n"
        '(answer,) = clf.predict("new.jpg")\nprint(answer.class_name, answer.probability, answer.unsure)'
    )
    shell = f"relish predict {shlex.quote(name)} new.jpg\nrelish predict {shlex.quote(name)} folder/ --out answers.csv"
    lines = ["From the folder that this one lies in:", "", *fenced("python", python)]
    if own:
        lines += ["", f"`network` is a new instance of the class that was trained, `{header['architecture']}`."]
    else:
        lines += ["", *fenced("bash", shell)]
    if "preprocessing" in header:
        preprocessing = TypeAdapter(Preprocessing).validate_json(header["preprocessing"])
        size = preprocessing.image_size
        lines += ["", f"Pictures of any size are {preprocessing.framing_words}, and scaled to {size} × {size} pixels."]
        if preprocessing.value_range is not None:
            lines[-1] += f" Deeper than 8 bits: {preprocessing.value_range.words} is black to white."
    return lines


def _made(folder: RunFolder, evaluation: Mapping[str, Any], header: Mapping[str, str]) -> list[str]:
    recipe, request = folder.read_recipe(), folder.read_request()
    rows: list[tuple[str, object]] = [("recipe", recipe.get("name")), ("seed", request.get("seed"))]
    lines: list[str] = []
    if folder.environment.is_file():
        made_on = read_mapping(folder.environment)
        program, *arguments = made_on["command"] or [""]
        if PurePath(program).name == "relish" or program.endswith("relish/__main__.py"):
            # Typed into a shell; the arguments of someone's own script say nothing about the run.
            lines = [*fenced("bash", shlex.join(["relish", *arguments])), ""]
        rows += [(key, made_on[key]) for key in ("began", "processor", "device", "processes", "python")]
        rows += list(made_on["versions"].items())
    if evaluation.get("training_seconds"):
        rows.append(("seconds of training", f"{evaluation['training_seconds']:.0f}"))
    if "architecture" in header:
        rows.insert(0, ("network", f"{header.get('library', 'timm')}/{header['architecture']}"))
    if "model_sha256" in evaluation:
        rows.append(("SHA-256 of model.safetensors", evaluation["model_sha256"]))
    shown = [row for row in rows if row[1] not in (None, "")]
    return [*lines, *markdown_table(["what", "which"], shown), "", "Every number of the training is in recipe.yaml."]


def _origin(header: Mapping[str, str]) -> dict[str, Any]:
    """`source` as text, and `base_model` where timm knows its name on the Hub."""
    origin: dict[str, Any] = {"source": source_text(header)} if "source" in header else {}
    weights = re.match(r"timm/([\w.]+?)(?:\.\w+)?: timm's weights (\w+) ", header.get("source", ""))
    if weights is not None:
        from timm.models import get_pretrained_cfg

        record = get_pretrained_cfg(f"{weights[1]}.{weights[2]}")
        if record is not None and record.hf_hub_id:
            origin |= {"base_model": record.hf_hub_id, "base_model_relation": "finetune"}
    return origin
