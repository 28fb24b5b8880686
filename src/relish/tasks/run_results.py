"""A finished run, read: what it predicted on the split it was evaluated on, and the images of that split, found again.

`classifier_html` shows both in a notebook: images are embedded, so a saved notebook shows them without the dataset.

Predictions are made from the logits, as they were for `evaluation.json`: probabilities are kept in fewer digits, by
which an image that lies on a threshold may come to the other side of it. An image is shown only if its bytes are still
those that the run saw.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import TypeAdapter

from relish.core.errors import ImageError, RelishError, RunError
from relish.core.io import sha256_of_file
from relish.core.run_folder import RunFolder
from relish.data.dataset import CROSS_VALIDATION, TRAIN, VALIDATION, Split, class_name, split_of
from relish.data.depth import ValueRange
from relish.data.image import open_image
from relish.evaluation.explain import most_wrong
from relish.evaluation.grouped import Ints, group_numbers, proportion
from relish.evaluation.metrics import Proportion, Scores
from relish.evaluation.prediction import Decision, softmax
from relish.reporting.page import embed, render

Row = Mapping[str, Any]
"""Of `dataset.json`: `path`, `class`, `sha256`; `group` and `columns` (a mapping of text) where they are known."""


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """Predictions and true classes of N images."""

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """(N,) int64."""
    probabilities: npt.NDArray[np.float32]
    """(N, K) float32."""
    untempered: npt.NDArray[np.float64] | None
    """(N, K) float64, before a temperature was applied; None where the run did not keep that."""
    predicted: npt.NDArray[np.int64]
    """(N,) int64."""
    unsure: npt.NDArray[np.bool_]
    """(N,) bool."""
    unfamiliarity: npt.NDArray[np.float32] | None
    """(N,) float32; None where the model cannot say, or the run did not keep it."""
    unknown: npt.NDArray[np.bool_]
    """(N,) bool: whether that is above the model's limit."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) bool."""
        return np.equal(self.predicted, self.labels)


def read_run_predictions(folder: RunFolder, evaluation: dict[str, Any]) -> RunPredictions:
    """The predictions of a run's model.

    Args:
        folder: a finished run.
        evaluation: its `evaluation.json`.

    Raises:
        RunError: a file is missing or damaged.
    """
    try:
        # Opened here: of a file that is cut short, NumPy would leave its own handle open.
        with folder.predictions.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            labels, found = kept["labels"], kept["probabilities"]
            logits, strange = (kept[key] if key in kept.files else None for key in ("logits", "unfamiliarity"))
        classes = tuple(json.loads(folder.classes.read_text(encoding="utf-8")))
        decision = TypeAdapter(Decision).validate_python(evaluation.get("decision") or {})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{folder.path}: its predictions cannot be read ({str(error).splitlines()[0]}).") from error
    predicted, unsure = decision.decide(found if logits is None else softmax(logits, decision.temperature), classes)
    untempered = None if logits is None else softmax(logits)
    unknown = np.zeros(len(labels), dtype=np.bool_) if strange is None else decision.unknown(strange)
    return RunPredictions(classes, labels, found, untempered, predicted, unsure, strange, unknown)


# ---- the images of a run --------------------------------------------------------------------------------------------


class RunImages:
    """Opens the images of a run, given its `dataset.json`, and remembers which could not be shown."""

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        self.root = Path(dataset["root"])
        self.rows: Mapping[str, list[Row]] = dataset["splits"]
        found = dataset.get("value_range")
        self.value_range = None if found is None else ValueRange(**found)
        self._known = {row["path"]: row["sha256"] for rows in self.rows.values() for row in rows}
        self._same: dict[str, bool] = {}

    @property
    def lost(self) -> int:
        """Images that were asked for and are gone or changed."""
        return sum(not same for same in self._same.values())

    def path(self, label: str) -> Path:
        """Where an image lies."""
        return self.root / label  # a label that is a whole path stays one

    def has(self, label: str) -> bool:
        """Whether the file is still the one that the run saw."""
        if label not in self._same:
            try:
                self._same[label] = sha256_of_file(self.path(label)) == self._known.get(label)
            except OSError:
                self._same[label] = False
        return self._same[label]

    def open(self, label: str) -> Image.Image | None:
        """The image, RGB; None where it is gone or changed."""
        if not self.has(label):
            return None
        try:
            return open_image(self.path(label), value_range=self.value_range)
        except ImageError:
            self._same[label] = False
            return None

    def split(self, rows: Sequence[Row], classes: Sequence[str]) -> Split:
        """Rows of `dataset.json` as a split, in their order."""
        labels = np.array([classes.index(class_name(row["class"])) for row in rows], dtype=np.int64)
        return Split(tuple(self.path(row["path"]) for row in rows), labels)


# ---- a whole run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What the files of a finished run hold; made by `read_run`."""

    folder: RunFolder
    evaluation: dict[str, Any]
    scores: Scores
    request: dict[str, Any]
    recipe: dict[str, Any]
    dataset: dict[str, Any]
    predictions: RunPredictions
    images: RunImages

    @property
    def evaluated(self) -> Sequence[Row]:
        """The images that it was evaluated on, in the order of the predictions."""
        return self.images.rows[split_of(self.evaluation["split"])]

    @property
    def nested(self) -> bool:
        """Whether it was evaluated in cross-validation, on the images it was trained on."""
        return bool(self.evaluation["split"] == CROSS_VALIDATION)

    @property
    def groups(self) -> Ints | None:
        """(N,) int64: the known group of each of them; None where there is none."""
        return group_numbers([row.get("group") for row in self.evaluated])

    @property
    def accuracy(self) -> Proportion:
        """How many of them are right."""
        return proportion(self.predictions.right, self.groups)

    @property
    def trained(self) -> Sequence[Row]:
        """The training images: a climb trains on validation images too, unless it is evaluated on them."""
        names = [TRAIN] if self.recipe.get("method", "train") == "train" else [TRAIN, VALIDATION]
        names = [name for name in names if name != self.evaluation["split"]]
        return [row for name in names for row in self.images.rows.get(name, [])]


def read_run(folder: RunFolder) -> FinishedRun:
    """Read a finished run.

    Raises:
        RunError: no finished run, or a file of it is missing, damaged, or of other images than the others.
    """
    evaluation, dataset = folder.read_evaluation(), folder.read_dataset()
    request, recipe, predictions = folder.read_request(), folder.read_recipe(), read_run_predictions(folder, evaluation)
    try:
        scores, images = Scores.from_json(evaluation), RunImages(dataset)
        run = FinishedRun(folder, evaluation, scores, request, recipe, dataset, predictions, images)
        same = len(predictions.labels) == len(run.evaluated) and scores.classes == predictions.classes
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.path}: evaluation.json or dataset.json lacks {error}.") from error
    if not same:
        raise RunError(
            f"{folder.path}: predictions.npz, evaluation.json and dataset.json are not of the same pictures."
        )
    return run


# ---- a classifier in a notebook -----------------------------------------------------------------------------------


MISTAKES = 3
TRIED = 30
"""Mistakes looked at for images that still exist."""
THUMBNAIL_SIDE = 128
"""Longest side in pixels."""


def accuracy_words(folder: RunFolder) -> str:
    """A run's accuracy in words; `auto` saves a model before it is finished."""
    if folder.model.is_file() and not folder.finished:
        return f"not finished, its best model so far; resume with: {folder.resume_command}"
    evaluation = folder.read_evaluation()
    top1 = Proportion.from_json(evaluation["top1"])
    words = top1.sentence() if top1.few else f"{top1.value:.4f} ({top1.correct} of {top1.count})"
    return f"{evaluation['split']} accuracy {words}"


def classifier_html(path: Path | None, source: str, classes: tuple[str, ...], accuracy: str) -> str:
    """An HTML fragment about a classifier.

    Args:
        path: what it was loaded from: a run folder, a model file, or None.
        accuracy: in words, shown where no evaluation can be read; may be empty.
    """
    mistakes: list[dict[str, Any]] = []
    if path is not None and path.is_dir() and (folder := RunFolder(path)).finished:
        try:
            evaluation = folder.read_evaluation()
            accuracy = f"{evaluation['split']} accuracy {Scores.from_json(evaluation).top1.sentence()}"
            mistakes = _mistakes(read_run(folder))
        except (RelishError, KeyError, TypeError):
            pass  # the fragment is shown unasked: what is damaged in a run is for `relish report` to say
    accuracy = accuracy or "not evaluated"
    return render("classifier.html", path=path, source=source, classes=classes, accuracy=accuracy, mistakes=mistakes)


def _mistakes(run: FinishedRun) -> list[dict[str, Any]]:
    found, mistakes = run.predictions, []
    for position in most_wrong(found.probabilities, found.predicted, found.labels, TRIED):
        path = run.evaluated[position]["path"]
        if (image := run.images.open(path)) is not None:
            truth, predicted = found.classes[found.labels[position]], found.classes[found.predicted[position]]
            shown = embed(image, THUMBNAIL_SIDE, 80)
            mistakes.append({"image": shown, "path": path, "truth": truth, "predicted": predicted})
        if len(mistakes) == MISTAKES:
            break
    return mistakes
