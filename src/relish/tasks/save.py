"""The files of a run that are written once: the model, what it predicts of the final split, what it was made from."""

import json
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import ModelCard
from yaml import YAMLError

from relish.core.context import Context
from relish.core.errors import BadInput, RunError
from relish.core.io import atomic_path, sha256_of_file, write_json, write_text
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import elapsed_before, processor_name
from relish.data.dataset import CROSS_VALIDATION, TEST, TRAIN, VALIDATION, Finding
from relish.data.transforms import Preprocessing
from relish.evaluation.figures import Figures, without_duplicates
from relish.evaluation.held_out import HeldOut, choose_decision
from relish.evaluation.metrics import CurvePoint
from relish.evaluation.prediction import HEADER_KEY, softmax
from relish.models.saved_model import save_model
from relish.reporting import plots
from relish.reporting.model_card import UNKNOWN, model_card
from relish.reporting.svg import write_svg
from relish.tasks.prepare import Prepared


def save_run(prepared: Prepared, folder: RunFolder, preprocessing: Preprocessing, held: HeldOut | None) -> None:
    """Save the target model as it is now, with its classes, its preprocessing and its decision rule.

    Args:
        held: its logits on held-out images, saved beside it; None where no image was held out.
    """
    target, source = prepared.target, prepared.source
    data_config = source.data_config.with_user(input_size=(3, preprocessing.image_size, preprocessing.image_size))
    description = replace(target.description(), data_config=data_config)
    extra = {
        "preprocessing": json.dumps(preprocessing.as_dict()),
        "source": f"{source.name}: {source.origin}",
        "recipe": json.dumps(prepared.recipe.as_dict()),
    }
    if held is not None:
        held.save(folder.held_out)
        request = prepared.request
        decision = choose_decision(held, prepared.dataset.classes, request.aim, request.accuracy)
        extra[HEADER_KEY] = decision.as_header()
    save_model(folder.model, target.network, description, extra)


def draw_run(folder: RunFolder, stage: RunFolder, scored_on: str) -> None:
    """The curves of one training, into the run's folder."""
    if chart := plots.training_curves(curve_points(stage), scored_on, title=folder.path.name):
        write_svg(chart, folder.curves)


def write_results(
    prepared: Prepared,
    folder: RunFolder,
    found: Figures,
    logits: npt.NDArray[np.float32],
    unfamiliarity: npt.NDArray[np.float32] | None = None,
) -> None:
    """The saved model's (N, K) logits of the final split, its (N,) unfamiliarity if any, and the figures.

    These end the run.
    """
    final = prepared.final
    probabilities = softmax(logits, found.decision.temperature).astype(np.float32)
    with atomic_path(folder.predictions) as temporary, temporary.open("wb") as file:
        kept: dict[str, npt.NDArray[Any]] = {"labels": final.labels, "probabilities": probabilities, "logits": logits}
        if unfamiliarity is not None:
            kept["unfamiliarity"] = unfamiliarity
        np.savez_compressed(file, allow_pickle=False, **kept)
    if prepared.recipe.method == "train":
        seconds = max((event["seconds"] for event in folder.records() if event["event"] == "train"), default=0.0)
        speed = prepared.recipe.passes * len(prepared.train) / seconds if seconds else None
    else:
        seconds, speed = elapsed_before(folder.stopwatch), None
    evaluation = {
        **judged(folder, prepared.final_name, found),
        **({"nested": {"folds": _nested_folds(folder)}} if prepared.nested else {}),
        "training_seconds": seconds,
        "pictures_per_second": speed,
    }
    write_text(folder.card, model_card(folder, evaluation))
    write_json(folder.evaluation, evaluation)


def _nested_folds(folder: RunFolder) -> int:
    """As many as were made: fewer than usual where series or groups are few."""
    return next(int(event["nested_folds"]) for event in folder.records() if "nested_folds" in event)


def judged(folder: RunFolder, split: str, found: Figures) -> dict[str, Any]:
    """What `evaluation.json` says of the model as it is saved."""
    return {
        "split": split,
        **found.as_json(),
        "without_duplicates": _without_duplicates(folder, split, found),
        "model_sha256": sha256_of_file(folder.model),
    }


def _without_duplicates(folder: RunFolder, split: str, found: Figures) -> dict[str, Any] | None:
    """The accuracy without copies; None where nobody looked for any and no two files are equal.

    In cross-validation copies are held out together.
    """
    if split == CROSS_VALIDATION:
        return None
    rows, check = folder.read_dataset()["splits"], folder.read_check()
    learned = list(rows[TRAIN])
    if split == TEST and folder.read_recipe()["method"] != "train":
        learned += rows.get(VALIDATION, [])
    findings = [Finding.from_json(one) for one in check["findings"]] if check else []
    fresh = without_duplicates(findings, learned, rows[split], found.right)
    return fresh if check or (fresh and fresh["left_out"]) else None


def curve_points(folder: RunFolder) -> tuple[CurvePoint, ...]:
    """The book's three curves, from the events of a run."""
    points: list[CurvePoint] = []
    for event in folder.records():
        if event["event"] == "train":
            points.append(CurvePoint(event["at"], event["loss"], event["accuracy"], None))
        elif event["event"] == "score":
            points.append(CurvePoint(event["at"], None, None, event["correct"] / event["count"]))
    return tuple(points)


def describe_run(context: Context, prepared: Prepared, folder: RunFolder) -> None:
    """Classes, images, and what the run was made on."""
    write_json(folder.classes, list(prepared.dataset.classes))
    write_json(folder.dataset, _images(prepared))
    survey = prepared.survey
    images = len(prepared.dataset) + len(survey.unreadable)
    write_json(folder.check, {"findings": [finding.as_json() for finding in survey.findings], "pictures": images})
    write_json(
        folder.environment,
        {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "device": str(context.device),
            "processes": context.processes,
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {
                name: version(name)
                for name in ("relish-vision", "torch", "torchvision", "timm", "accelerate", "pillow")
            },
        },
    )


def _images(prepared: Prepared) -> dict[str, Any]:
    dataset = prepared.dataset
    return {
        "name": dataset.name,
        "source": dataset.source,
        "root": str(dataset.root),
        "fingerprint": prepared.survey.fingerprint,
        "warnings": list(dataset.warnings),
        "value_range": prepared.survey.value_range and asdict(prepared.survey.value_range),
        "unreadable": [list(pair) for pair in prepared.survey.unreadable],
        "splits": {
            name: [_row(prepared, path, label) for path, label in zip(split.paths, split.labels.tolist(), strict=True)]
            for name, split in dataset.splits.items()
        },
    }


def _row(prepared: Prepared, path: Path, label: int) -> dict[str, Any]:
    """An image in `dataset.json`; its group and its columns only where they are known."""
    dataset = prepared.dataset
    row = {"path": dataset.label(path), "class": dataset.classes[label], "sha256": prepared.survey.sha256[path]}
    columns = {name: cells[path] for name, cells in dataset.columns.items() if path in cells}
    group = {"group": dataset.groups[path]} if path in dataset.groups else {}
    return {**row, **group, **({"columns": columns} if columns else {})}


def card(run: str | Path, *, licence: str | None = None, overwrite: bool = False) -> Path:
    """Write the card of a finished run again.

    Args:
        run: the run folder.
        licence: an identifier of the Hugging Face Hub, such as `mit`; None keeps the one the card names.
        overwrite: also where the card was changed by hand.

    Returns:
        The path of the card.

    Raises:
        BadInput: the licence is no identifier.
        RunError: no such run, not finished, or the card was changed by hand.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise BadInput(
            f'--license "{licence}": not an identifier of a licence.', hint="Such as mit, apache-2.0, other."
        )
    folder = RunFolder.open(Path(run))
    evaluation = folder.read_evaluation()
    if not overwrite and not _as_written(folder, evaluation):
        raise RunError(
            f"{folder.card} was changed since relish wrote it.", hint="Edit it, or write it anew with --overwrite."
        )
    write_text(folder.card, model_card(folder, evaluation, licence or _licence(folder)))
    return folder.card


def renew_card(folder: RunFolder, former: Mapping[str, Any], evaluation: Mapping[str, Any], progress: Progress) -> None:
    """The card with new figures, where it is as it was written with the former ones; else a warning."""
    if _as_written(folder, former):
        write_text(folder.card, model_card(folder, evaluation, _licence(folder)))
    else:
        progress.warn(f"{folder.card} was changed by hand: it is left as it is, with the former figures.")


def _as_written(folder: RunFolder, evaluation: Mapping[str, Any]) -> bool:
    if not folder.card.is_file():
        return True
    head = _head(folder)  # its name too: a folder may have been renamed
    written = model_card(folder, evaluation, _licence(folder), str(head.get("model_name") or ""))
    return folder.card.read_text(encoding="utf-8", errors="replace") == written


def _licence(folder: RunFolder) -> str | None:
    named = _head(folder).get("license")
    return named if isinstance(named, str) and named != UNKNOWN else None


def _head(folder: RunFolder) -> dict[str, Any]:
    """What the card says to programs; nothing where there is no card, or its head cannot be read."""
    try:
        return dict(vars(ModelCard.load(folder.card, ignore_metadata_errors=True).data))
    except (OSError, ValueError, YAMLError):
        return {}
