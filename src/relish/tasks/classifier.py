"""`Classifier`: what a run folder or a saved model loads to; predictions, probabilities, features, evaluation.

Its methods are named as scikit-learn names them. The preprocessing comes from the model's own header, so an image is
prepared in use as it was in training.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from relish.core.context import Context
from relish.core.errors import DataError, ImageError, ModelError
from relish.core.progress import Progress, default_progress
from relish.core.run_folder import RunFolder
from relish.core.runtime import accelerator_for, keep_freed_memory, to_device
from relish.core.workers import Workers
from relish.data.dataset import TEST, TRAIN, Dataset, Split, class_name, first_few, plural
from relish.data.depth import ValueRange
from relish.data.image import ImageSource
from relish.data.sources import AS_FOUND, DataSource, Reading, ReadingOptions, find_dataset
from relish.data.survey import Survey, survey
from relish.data.transforms import (
    Preprocessing,
    book_preprocessing,
    evaluation_transform,
    normalise,
    preprocessing_from,
    stacked,
)
from relish.evaluation.features import Backbone
from relish.evaluation.figures import Figures, split_figures
from relish.evaluation.grouped import columns_of
from relish.evaluation.held_out import read_held_out
from relish.evaluation.inference import (
    BATCH_SIZE,
    Forward,
    Ready,
    batch_logits,
    batch_that_fits,
    forward_in_parts,
    read_ahead,
    split_logits,
)
from relish.evaluation.prediction import Decision, decision_from, predictions, softmax
from relish.evaluation.prediction import Prediction as Prediction
from relish.evaluation.unfamiliarity import Scored, Unfamiliarity, parted, unfamiliarity_from
from relish.models.head import head_names
from relish.models.precision import AskedPrecision, Precision, checked_precision, fastest
from relish.models.saved_model import OWN, load_model, read_header, says_how_to_build
from relish.tasks.run_results import accuracy_words, classifier_html


class Classifier:
    """A target model with its classes, its preprocessing and its decision rule."""

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
        heads: tuple[str, ...] = (),
        unfamiliarity: Unfamiliarity | None = None,
    ) -> None:
        self.network = network.eval()
        self.classes = tuple(map(class_name, classes))
        self.preprocessing = preprocessing
        self.source = source
        self.path = path
        self.accuracy = accuracy
        self.decision = decision or Decision()
        self._accelerator = accelerator or accelerator_for()
        self._precision: AskedPrecision | Precision = checked_precision(precision)
        self._heads = heads
        self.unfamiliarity = unfamiliarity
        self._batch: int | None = None
        self._answering = self.network  # or the same through ONNX Runtime, see `hasten`
        to_device(self.network, self._accelerator.device)

    @classmethod
    def load(
        cls, path: str | Path, *, network: nn.Module | None = None, device: str = "auto", precision: str = "f32"
    ) -> "Classifier":
        """The model of a run folder, or of a `.safetensors` file with our header.

        Args:
            path: of either.
            network: a new instance of the class that was trained, where that is your own; left as it is.
            device: "auto", "cpu", "cuda" or "mps".
            precision: what predictions compute in; "auto" measures f32 and bf16 on the first images, and takes the
                faster one if its probabilities agree. Evaluation is f32 whatever is asked for here.

        Raises:
            RunError: no such run, or not finished.
            ModelError: the file is damaged, or says nothing of its classes; or its class is your own and there is no
                `network`.
        """
        keep_freed_memory()
        path, accuracy = Path(path), ""
        file = path
        if not path.is_file():
            folder = RunFolder.open(path)
            accuracy, file = accuracy_words(folder), folder.model
        if not says_how_to_build(read_header(file)):
            raise ModelError(
                f"{file} is not a model saved by relish.",
                hint="Give the folder that relish fit made, or its model.safetensors.",
            )
        loaded, description, extra = load_model(file, network)
        if not description.labels:
            raise ModelError(f"{file} does not name its classes.", hint="A model saved by relish does.")
        data = description.data_config
        preprocessing = preprocessing_from(extra, book_preprocessing(data.input_size[1], data.mean, data.std))
        return cls(
            loaded,
            description.labels,
            preprocessing,
            source=extra.get("source", description.network_name),
            path=path,
            accuracy=accuracy,
            decision=decision_from(extra),
            accelerator=accelerator_for(device),
            precision=precision,
            heads=description.heads,
            unfamiliarity=unfamiliarity_from(extra),
        )

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:6]) + (", …" if len(self.classes) > 6 else "")
        parts = [f"{len(self.classes)} classes: {shown}", f"from {self.source}", self.accuracy or "not evaluated"]
        return f"<Classifier {self.path or ''} | {' | '.join(parts)}>"

    def _repr_html_(self) -> str:
        """For notebooks: accuracy with its interval, classes, three mistakes; less where only a model file is there."""
        return classifier_html(self.path, self.source, self.classes, self.accuracy)

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the network's output layers: one, or two where the architecture has two."""
        return self._heads or head_names(self.network, len(self.classes))

    @property
    def scored(self) -> nn.Module:
        """The network; where it has an unfamiliarity, with that as a column behind the logits: see `parted`."""
        network, unfamiliarity = self._answering, self.unfamiliarity
        return network if unfamiliarity is None else Scored(network, self.heads[0], unfamiliarity)

    @property
    def classes_(self) -> npt.NDArray[np.str_]:
        """(K,) class names in the order of the columns of `predict_proba`."""
        return np.array(self.classes)

    def predict(self, images: ImageSource | Iterable[ImageSource]) -> list[Prediction]:
        """The model's prediction for each image, in order.

        Args:
            images: one image or several: paths, bytes, open files, PIL images, (H, W, 3) uint8 arrays.

        Returns:
            One `Prediction` for each; one that cannot be opened has its `error` set, and the others are predicted.
        """
        return list(self.stream(_as_several(images)))

    def predict_proba(self, images: ImageSource | Iterable[ImageSource]) -> npt.NDArray[np.float32]:
        """The probability of every class for each image, after the model's temperature.

        Args:
            images: as `predict` takes them.

        Returns:
            (N, K) float32, columns in the order of `classes_`; rows sum to 1.

        Raises:
            ImageError: an image cannot be opened; it is named.
        """
        batches = [self._answers(batch)[0] for batch in self._opened_batches(images)]
        return np.concatenate(batches or [np.empty((0, len(self.classes)))]).astype(np.float32)

    def score(self, images: ImageSource | Iterable[ImageSource], labels: Iterable[str]) -> float:
        """The accuracy on labelled images: the share whose predicted class is their label; 0 (worst) to 1.

        Args:
            images: as `predict` takes them.
            labels: the true class name of each.

        Raises:
            ImageError: an image cannot be opened; it is named.
            DataError: no image, not one label for each image, or a label that is no class of the model.
        """
        truth = list(map(class_name, labels))
        if unknown := [label for label in truth if label not in self.classes]:
            raise DataError(f'the model does not know the class "{unknown[0]}".', hint=_known(self.classes))
        predicted = self.predict(images)
        if len(predicted) != len(truth) or not truth:
            raise DataError(f"score needs a label for each image: got {len(predicted)} images, {len(truth)} labels.")
        for one in predicted:
            if one.error is not None:
                raise ImageError(one.path, one.error)
        return sum(one.class_name == label for one, label in zip(predicted, truth, strict=True)) / len(truth)

    def features(self, images: ImageSource | Iterable[ImageSource]) -> npt.NDArray[np.float32]:
        """The input of the network's output layer for each image, for nearest neighbours, clusters or a probe.

        Args:
            images: as `predict` takes them.

        Returns:
            (N, D) float32, in float32 arithmetic; D is the width of the output layer's input.

        Raises:
            ImageError: an image cannot be opened; it is named.
            ModelError: the network has two output layers, or computes something after its output layer.
        """
        backbone = Backbone(self.network, self.heads, self.source, self._accelerator.device)

        def forward(some: torch.Tensor) -> npt.NDArray[np.float32]:
            found: npt.NDArray[np.float32] = backbone(some, self.preprocessing).cpu().numpy()
            return found

        batches = [self._in_parts(batch, forward) for batch in self._opened_batches(images)]
        return np.concatenate(batches or [np.empty((0, backbone.width), dtype=np.float32)])

    def hasten(self, images: int, context: Context) -> None:
        """Use ONNX Runtime for what is `scored` from here on, where so many images are answered sooner so."""
        if self._precision == "f32" and len(self.heads) == 1:
            backbone = Backbone(self.network, self.heads, self.source)
            self._answering = backbone.hastened(self.preprocessing.image_size, images, context).network

    def stream(self, images: Iterable[ImageSource | ImageError]) -> Iterator[Prediction]:
        """As `predict`, one by one, with two batches of preprocessed images in memory at most.

        While the network computes, threads read the next images.

        Args:
            images: as there; an `ImageError` among them is an image that could not be found.
        """
        for names, items in self._batches(images):
            opened = [item for item in items if isinstance(item, torch.Tensor)]
            found = iter(self.predict_prepared(opened) if opened else ())
            for name, item in zip(names, items, strict=True):
                yield Prediction(name, error=item) if isinstance(item, str) else replace(next(found), path=name)

    def evaluate(
        self,
        data: DataSource,
        split: str | None = None,
        *,
        by: str | Sequence[str] = (),
        workers: int = 0,
        progress: Progress | None = None,
        **reading: Unpack[ReadingOptions],
    ) -> Figures:
        """The model's metrics on labelled images, none of which is held out here.

        Args:
            data: anything `fit` takes.
            split: "train", "validation" or "test"; None takes the test split where there is one, else every picture.
            by: columns of the table to show accuracy by, such as "camera"; "group" for known groups.
            reading: how the dataset is read, as in `fit`.

        Raises:
            DataError: no such split or column, or a class that the model does not know.
        """
        progress = progress or default_progress()
        told, value_range = Reading(**reading), self.preprocessing.value_range
        surveyed, chosen, part = labelled_images(data, self.classes, value_range, split, progress, told)
        columns = columns_of(surveyed.dataset, chosen, by)
        progress.say(f"data    {surveyed.dataset.name}: {part}, {len(chosen)} pictures")
        sha256, trained_on = [surveyed.sha256[path] for path in chosen.paths], self._trained_on()
        known = sum(one in trained_on for one in sha256)
        if known and split != TRAIN:
            progress.warn(f"the model learned from {known} of these pictures: it looks better here than it is.")
        groups = {surveyed.dataset.groups.get(path, "") for path in chosen.paths} & self._trained_on("group")
        if groups and split != TRAIN:
            names = f"{plural(len(groups), 'group')} of the same name as here ({first_few(sorted(groups))})"
            progress.warn(f"the model learned from {names}: if they are the same, it looks better than it is.")
        calibrated_on = self._calibrated_on() - trained_on
        seen = sum(one in calibrated_on for one in sha256)
        if seen:
            progress.warn(f"temperature and thresholds were chosen on {seen} of these pictures: expect less in use.")
        context = Context(accelerator=self._accelerator, progress=progress, workers=Workers(workers))
        self.hasten(len(chosen), context)
        logits, strange = parted(split_logits(self.scored, chosen, self.preprocessing, context), len(self.classes))
        return split_figures(logits, chosen, surveyed.dataset, self.classes, self.decision, columns, strange)

    def _trained_on(self, key: Literal["sha256", "group"] = "sha256") -> set[str]:
        """SHA-256, or known groups, of the training images; empty where only a model file is known."""
        if self.path is None or not self.path.is_dir():
            return set()
        splits = RunFolder.open(self.path).read_dataset()["splits"]
        return {row[key] for row in splits[TRAIN] if key in row}

    def _calibrated_on(self) -> set[str]:
        """SHA-256 of the held-out images that temperature and thresholds were chosen on; empty where not known."""
        if self.path is None or not (file := RunFolder(self.path).held_out).is_file():
            return set()
        return set(read_held_out(file).sha256)

    def _batches(self, images: Iterable[ImageSource | ImageError]) -> Iterator[tuple[list[str], list[Ready]]]:
        """Names and preprocessed images (or why one cannot be opened), a batch at a time."""
        read = read_ahead(images, self.preprocessing, ahead=2 * BATCH_SIZE)
        while batch := list(islice(read, BATCH_SIZE)):
            yield [name for name, _ in batch], [item for _, item in batch]

    def _opened_batches(self, images: ImageSource | Iterable[ImageSource]) -> Iterator[torch.Tensor]:
        """(B, 3, S, S) uint8 preprocessed images.

        Raises:
            ImageError: one cannot be opened.
        """
        for names, items in self._batches(_as_several(images)):
            for name, item in zip(names, items, strict=True):
                if isinstance(item, str):
                    raise ImageError(name, item)
            yield stacked([item for item in items if isinstance(item, torch.Tensor)])

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """(3, S, S) uint8: an RGB image as `predict_prepared` takes it."""
        return evaluation_transform(image, self.preprocessing)

    def predict_prepared(self, images: Sequence[torch.Tensor]) -> list[Prediction]:
        """The prediction for each image from `prepare`, one or more, with an empty path."""
        probabilities, unfamiliarity = self._answers(stacked(images))
        return predictions([""] * len(images), probabilities, self.classes, self.decision, unfamiliarity)

    def _answers(self, images: torch.Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32] | None]:
        """(B, K) probabilities and (B,) unfamiliarity, which may be none, of (B, 3, S, S) uint8 preprocessed images."""
        if self._precision == "auto":  # measured once, on the first images
            on_device = images.to(self._accelerator.device)
            self._precision = fastest(self.network, normalise(on_device, self.preprocessing))
        precision, scored = self._precision, self.scored

        def forward(some: torch.Tensor) -> npt.NDArray[np.float32]:
            return batch_logits(scored, some, self.preprocessing, precision)

        logits, unfamiliarity = parted(self._in_parts(images, forward), len(self.classes))
        return softmax(logits, self.decision.temperature), unfamiliarity

    def _in_parts(self, images: torch.Tensor, forward: Forward) -> npt.NDArray[np.float32]:
        """What `forward` returns for (B, 3, S, S) uint8 images, in parts that fit in the device's memory."""
        images = images.to(self._accelerator.device)
        if self._batch is None:
            plain = partial(batch_logits, self.network, preprocessing=self.preprocessing)  # shows its activations
            self._batch = batch_that_fits(self.network, images, forward if self._answering is self.network else plain)
        rows, self._batch = forward_in_parts(images, forward, self._batch)
        return rows


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


def reloaded(model: str | Path | Classifier, device: str) -> Classifier:
    """A saved model on a device, loaded from its file once more where it is loaded already.

    Raises:
        RunError, ModelError: as `Classifier.load` and `saved_path` do.
    """
    path = saved_path(model)
    file = path if path.is_file() else RunFolder.open(path).model
    own = read_header(file).get("library") == OWN
    network = model.network if own and isinstance(model, Classifier) else None
    return Classifier.load(path, network=network, device=device)


def _as_several(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    one = isinstance(images, str | Path | bytes | Image.Image | np.ndarray) or hasattr(images, "read")
    return [images] if one else images  # type: ignore[list-item, return-value]


def _known(classes: tuple[str, ...]) -> str:
    return f"It knows: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}."


# ---- which labelled images a model is evaluated on ------------------------------------------------------------------


def labelled_images(
    data: DataSource, classes: tuple[str, ...], value_range: ValueRange | None, split: str | None, progress: Progress,
    reading: Reading = AS_FOUND,
) -> tuple[Survey, Split, str]:  # fmt: skip
    """A dataset surveyed, the readable images of its split with the model's labels, and what they are called.

    Args:
        data: anything `fit` takes.
        classes, value_range: of the model.
        split: None takes the test split where there is one, else every picture.
        reading: what the user says of the dataset's form.

    Raises:
        DataError: no such split, or a class that the model does not know.
    """
    found = find_dataset(data, reading=reading, progress=progress)
    surveyed = survey(found, progress=progress, value_range=value_range)
    dataset = surveyed.dataset
    for warning in dataset.warnings:
        progress.warn(warning)
    chosen = _labelled_as(classes, dataset, _chosen_split(dataset, split))
    return surveyed, chosen, split or (TEST if TEST in dataset.splits else "every picture")


def _chosen_split(dataset: Dataset, split: str | None) -> Split:
    if split is not None:
        if split not in dataset.splits:
            raise DataError(f'{dataset.source} has no split "{split}".', hint=f"It has: {', '.join(dataset.splits)}.")
        return dataset.splits[split]
    if TEST in dataset.splits:
        return dataset.splits[TEST]
    parts = list(dataset.splits.values())
    return Split(tuple(path for part in parts for path in part.paths), np.concatenate([part.labels for part in parts]))


def _labelled_as(classes: tuple[str, ...], dataset: Dataset, split: Split) -> Split:
    """The same images with labels in the order of the model's classes: by name, never by position."""
    unknown = [dataset.classes[label] for label in np.unique(split.labels) if dataset.classes[label] not in classes]
    if unknown:
        raise DataError(
            f'{dataset.source}: the model does not know the class "{unknown[0]}"'
            + (f" and {len(unknown) - 1} more." if len(unknown) > 1 else "."),
            hint=_known(classes),
        )
    place = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes], dtype=np.int64)
    return Split(split.paths, place[split.labels])
