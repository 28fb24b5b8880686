"""`Classifier`: what a run folder or a saved model loads to, with its predictions and evaluations.

The preprocessing comes from the model's own header, so an image is prepared in use as it was in training.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from relish.core.errors import DataError, ImageError, ModelError
from relish.core.progress import Progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for, keep_freed_memory, to_device
from relish.data.dataset import TEST, TRAIN, Dataset, Split
from relish.data.loader import Ready, read_ahead
from relish.data.sources import find_dataset
from relish.data.survey import Survey, survey
from relish.data.transforms import (
    Preprocessing,
    book_preprocessing,
    normalise,
    preprocessing_from,
    stacked,
)
from relish.evaluation.figures import Figures, figures
from relish.evaluation.held_out import read_held_out
from relish.evaluation.inference import BATCH_SIZE, batch_logits, batch_that_fits, in_parts, split_logits
from relish.evaluation.prediction import Decision, decision_from, predictions, tempered_softmax
from relish.evaluation.prediction import Prediction as Prediction
from relish.models.precision import AskedPrecision, Precision, checked_precision, fastest
from relish.models.saved_model import load_model, read_header, says_how_to_build

Picture = str | Path | bytes | BinaryIO | Image.Image | npt.NDArray[np.uint8]
"""Whatever holds one picture."""


class Classifier:
    """A target model with its classes and its way of preparing pictures."""

    def __init__(
        self,
        network: nn.Module,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        *,
        source: str = "",
        path: Path | None = None,
        accuracy: str = "",
        decision: Decision | None = None,
        accelerator: Accelerator | None = None,
        precision: str = "f32",
    ) -> None:
        self.network = network.eval()
        self.classes = classes
        self.preprocessing = preprocessing
        self.source = source
        self.path = path
        self.accuracy = accuracy
        self.decision = decision or Decision()
        self._accelerator = accelerator or accelerator_for()
        self._precision: AskedPrecision | Precision = checked_precision(precision)
        self._batch: int | None = None
        to_device(self.network, self._accelerator.device)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "f32") -> "Classifier":
        """The model of a run folder, or of a `.safetensors` file with our header.

        Args:
            path: of either.
            device: "auto", "cpu", "cuda" or "mps".
            precision: what predictions compute in; "auto" measures f32 and bf16 on the first pictures, and takes the
                faster one if its probabilities agree. Evaluation is f32 whatever is asked for here.

        Raises:
            RunError: no such run, or not finished.
            ModelError: the file is damaged, or says nothing of its classes.
        """
        keep_freed_memory()
        path, accuracy = Path(path), ""
        file = path
        if not path.is_file():
            folder = RunFolder.open(path)
            accuracy, file = _accuracy(folder), folder.model
        if not says_how_to_build(read_header(file)):
            raise ModelError(
                f"{file} is not a model saved by relish.",
                hint="Give the folder that relish fit made, or its model.safetensors.",
            )
        network, description, extra = load_model(file)
        if description.labels is None:
            raise ModelError(f"{file} does not name its classes.", hint="A model saved by relish does.")
        data = description.data_config
        how = preprocessing_from(extra, book_preprocessing(data.input_size[1], data.mean, data.std))
        return cls(
            network,
            description.labels,
            how,
            source=extra.get("source", description.network_name),
            path=path,
            accuracy=accuracy,
            decision=decision_from(extra),
            accelerator=accelerator_for(device),
            precision=precision,
        )

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:6]) + (", …" if len(self.classes) > 6 else "")
        parts = [f"{len(self.classes)} classes: {shown}", f"from {self.source}", self.accuracy or "not evaluated"]
        return f"<Classifier {self.path or ''} | {' | '.join(parts)}>"

    def predict(self, pictures: Picture | Iterable[Picture]) -> list[Prediction]:
        """What the model says of each picture, in order.

        Args:
            pictures: one picture or several: paths, bytes, open files, PIL pictures, (H, W, 3) uint8 arrays.

        Returns:
            One `Prediction` for each; one that cannot be opened has its `error` set and stops nothing.
        """
        return list(self.stream(_several(pictures)))

    def stream(self, pictures: Iterable[Picture | ImageError]) -> Iterator[Prediction]:
        """As `predict`, one by one, holding two batches of pictures in memory at most, as the network sees them.

        While the network computes, threads read what comes next.

        Args:
            pictures: as there; a `ImageError` among them is a picture that could not be found.
        """
        names: list[str] = []
        items: list[Ready] = []
        for name, item in read_ahead(pictures, self.preprocessing, ahead=2 * BATCH_SIZE):
            names.append(name)
            items.append(item)
            if len(items) == BATCH_SIZE:
                yield from self._answer(names, items)
                names, items = [], []
        yield from self._answer(names, items)

    def evaluate(
        self, data: str | Path, split: str | None = None, *, workers: int = 0, progress: Progress | None = None
    ) -> Figures:
        """How good the model is on labelled pictures; they are never split here.

        Args:
            data: anything `fit` takes.
            split: "train", "validation" or "test"; None takes the test split where there is one, else every picture.

        Raises:
            DataError: no such split, or a class that the model does not know.
        """
        voice = progress or Progress()
        looked, chosen, part = labelled_images(data, self.classes, split, voice)
        voice.say(f"data    {looked.dataset.name}: {part}, {len(chosen)} pictures")
        learned = self._learned_from()
        known = sum(looked.sha256[path] in learned for path in chosen.paths)
        if known and split != TRAIN:
            voice.warn(f"the model learned from {known} of these pictures: it looks better here than it is.")
        chosen_on = self._decides_by() - learned
        seen = sum(looked.sha256[path] in chosen_on for path in chosen.paths)
        if seen:
            voice.warn(
                f"temperature and thresholds were chosen on {seen} of these pictures: expect less of them in use."
            )
        found = split_logits(
            self.network, chosen, self.preprocessing, self._accelerator, workers=workers, progress=progress
        )
        return figures(found, chosen.labels, self.classes, self.decision)

    def _learned_from(self) -> set[str]:
        """SHA-256 of the pictures the model was trained on; empty where it came as a file, which does not tell."""
        if self.path is None or not self.path.is_dir():
            return set()
        splits = RunFolder.open(self.path).read_dataset()["splits"]
        return {row["sha256"] for row in splits[TRAIN]}

    def _decides_by(self) -> set[str]:
        """SHA-256 of the pictures that the decision was chosen on; empty where that is not known."""
        if self.path is None or not (file := RunFolder(self.path).held_out).is_file():
            return set()
        return set(read_held_out(file).sha256)

    def _answer(self, names: list[str], items: list[Ready]) -> Iterator[Prediction]:
        tensors = [item for item in items if isinstance(item, torch.Tensor)]
        answers = iter(self.answers(stacked(tensors)) if tensors else ())
        for name, item in zip(names, items, strict=True):
            yield Prediction(name, error=item) if isinstance(item, str) else replace(next(answers), path=name)

    def _chosen_precision(self, images: torch.Tensor) -> Precision:
        """Chosen once, on the first pictures that come."""
        if self._precision == "auto":
            self._precision = fastest(self.network, normalise(images, self.preprocessing))
        return self._precision

    def answers(self, images: torch.Tensor) -> list[Prediction]:
        """The answer for each of (B, 3, S, S) uint8 pictures that `evaluation_transform` prepared, without its path."""
        logits = self._logits(images.to(self._accelerator.device))
        rows = tempered_softmax(logits, self.decision.temperature)
        return predictions([""] * len(rows), rows, self.classes, self.decision)

    def _logits(self, images: torch.Tensor) -> npt.NDArray[np.float32]:
        """(B, K) of (B, 3, S, S) uint8 pictures, so many at once as there is memory for."""
        precision = self._chosen_precision(images)

        def ask(some: torch.Tensor) -> npt.NDArray[np.float32]:
            return batch_logits(self.network, some, self.preprocessing, precision)

        if self._batch is None:
            self._batch = batch_that_fits(self.network, images, ask)
        logits, self._batch = in_parts(images, ask, self._batch)
        return logits


def _accuracy(folder: RunFolder) -> str:
    """What is known of a run's model, in words; a climb has a model before it is finished."""
    if folder.model.is_file() and not folder.finished:
        return f"not finished, its best model so far; resume with: {folder.resume_command}"
    evaluation = folder.read_evaluation()
    top1 = evaluation["top1"]
    return f"{evaluation['split']} accuracy {top1['value']:.4f} ({top1['correct']} of {top1['count']})"


def saved_path(model: str | Path | Classifier) -> Path:
    """The path of a saved model: the path itself, or the one that a classifier was loaded from.

    Raises:
        ModelError: the classifier was not loaded from a path.
    """
    path = model.path if isinstance(model, Classifier) else Path(model)
    if path is None:
        raise ModelError(
            "this classifier was not loaded from a file.", hint="Load it from its run folder: relish.load."
        )
    return path


def _several(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    one = isinstance(pictures, str | Path | bytes | Image.Image | np.ndarray) or hasattr(pictures, "read")
    return [pictures] if one else pictures  # type: ignore[list-item, return-value]


# ---- which labelled images a model is evaluated on ------------------------------------------------------------------


def labelled_images(
    data: str | Path, classes: tuple[str, ...], split: str | None, voice: Progress
) -> tuple[Survey, Split, str]:
    """A dataset looked over, the readable pictures of its split, and what they are called together.

    Args:
        data: anything `fit` takes.
        classes: of the model.
        split: as `chosen_split` takes it.

    Raises:
        DataError: no such split, or a class that the model does not know.
    """
    looked = survey(find_dataset(data, progress=voice), progress=voice)
    dataset = looked.dataset
    for warning in dataset.warnings:
        voice.warn(warning)
    chosen = labelled_as(classes, dataset, chosen_split(dataset, split))
    return looked, chosen, split or (TEST if TEST in dataset.splits else "every picture")


def split_of_run(folder: RunFolder, split: str, classes: tuple[str, ...]) -> Split:
    """The pictures of a run's split, where they lay when it was made.

    Raises:
        DataError: one of them is not there any more.
    """
    known = folder.read_dataset()
    rows = known["splits"][split]
    paths = tuple(Path(known["root"]) / row["path"] for row in rows)
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise DataError(
            f"{gone[0]}: a picture of the run is not there any more"
            + (f", nor are {len(gone) - 1} others." if len(gone) > 1 else "."),
            hint="Say where they are now: --data DATA.",
        )
    return Split(paths, np.array([classes.index(row["class"]) for row in rows], dtype=np.int64))


def chosen_split(dataset: Dataset, split: str | None) -> Split:
    """The split that is named; None takes the test split where there is one, else every picture.

    Raises:
        DataError: there is no such split.
    """
    if split is not None:
        if split not in dataset.splits:
            raise DataError(f'{dataset.source} has no split "{split}".', hint=f"It has: {', '.join(dataset.splits)}.")
        return dataset.splits[split]
    if TEST in dataset.splits:
        return dataset.splits[TEST]
    parts = list(dataset.splits.values())
    return Split(tuple(path for part in parts for path in part.paths), np.concatenate([part.labels for part in parts]))


def labelled_as(classes: tuple[str, ...], dataset: Dataset, split: Split) -> Split:
    """The same pictures with labels in the order of the model's classes: by name, never by position.

    Raises:
        DataError: the model does not know one of the classes.
    """
    unknown = [dataset.classes[label] for label in np.unique(split.labels) if dataset.classes[label] not in classes]
    if unknown:
        raise DataError(
            f'{dataset.source}: the model does not know the class "{unknown[0]}"'
            + (f" and {len(unknown) - 1} more." if len(unknown) > 1 else "."),
            hint=f"It knows: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}.",
        )
    place = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes], dtype=np.int64)
    return Split(split.paths, place[split.labels])
