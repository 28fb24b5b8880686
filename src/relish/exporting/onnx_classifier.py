"""`OnnxClassifier`: use an exported file, with the same predictions as the run it was made from, without torch.

Nothing in this module, or in what it imports, imports torch or onnx: a server or a small machine needs ONNX Runtime,
Pillow and NumPy. What a file says of itself (`About`) is checked before it is used.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from relish.core.errors import DataError, Failed, ImageError, ModelError
from relish.core.runtime import raise_if_no_memory
from relish.data.dataset import class_name, is_utf8
from relish.data.depth import ValueRange
from relish.data.image import ImageSource, open_image
from relish.data.image_files import other_kind
from relish.evaluation.prediction import HEADER_KEY, Decision, Prediction, decision_from, predictions

SUFFIX = ".onnx"
FORMAT_VERSION = 1
IMAGE, PROBABILITIES, LOGITS, UNFAMILIARITY = "image", "probabilities", "logits", "unfamiliarity"
"""The graph's input and its outputs, in their order; the last one only where the model can say."""
MOST_CHARACTERS, MOST_CLASSES = 16_000_000, 100_000
"""Of all metadata together; a file beyond either was not written by relish."""
_JSON = ("classes", "preprocessing", "recipe", "certificate", "speed")


class Outputs(NamedTuple):
    """What a file says of N images."""

    probabilities: npt.NDArray[np.float32]
    """(N, K), the temperature applied."""
    logits: npt.NDArray[np.float32]
    """(N, K), before the temperature."""
    unfamiliarity: npt.NDArray[np.float32] | None
    """(N,), 0 to 2, higher is stranger; None where the file does not say."""


class About(BaseModel):
    """The metadata of an exported file: written by `relish export`, checked whenever a file is read."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    relish_format: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1, max_length=MOST_CLASSES)
    """One name an output, in their order."""
    decision: Decision
    """How a class is predicted from probabilities; its temperature is part of the graph already."""
    precision: str = Field(pattern="^(f32|int8)$")
    """What the network computes in; all else is float32 and float64."""
    preprocessing: dict[str, Any]
    """For information: the graph does it, but for `value_range`, which is for whoever opens the images."""
    source: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    model_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the `model.safetensors` that this file was made from."""
    relish_version: str
    certificate: dict[str, Any]
    """What was measured against the model in PyTorch."""
    speed: dict[str, Any] = Field(default_factory=dict)
    """How fast both were where the file was made: the only metadata that differs from one export to the next."""

    @property
    def value_range(self) -> ValueRange | None:
        """What is black and white in images deeper than 8 bits, for `open_image`."""
        found = self.preprocessing.get("value_range")
        return None if found is None else TypeAdapter(ValueRange).validate_python(found)

    @field_validator("classes")
    @classmethod
    def _each_once(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(class_name, labels))
        if len(set(names)) != len(names):
            raise ValueError("a class is named twice")
        if not all(map(is_utf8, names)):
            raise ValueError("a class name is no text")
        return names

    def words(self) -> dict[str, str]:
        """As strings for the file; `about_from` reads them back."""
        plain = {"precision", "source", "model_sha256", "relish_version"}
        return {
            "relish_format": str(self.relish_format),
            HEADER_KEY: self.decision.as_header(),
            **{name: getattr(self, name) for name in plain},
            **{name: json.dumps(getattr(self, name), ensure_ascii=False, allow_nan=False) for name in _JSON},
        }


def about_from(path: str, words: Mapping[str, str]) -> About:
    """Read and check a file's metadata.

    Args:
        path: names the file in errors.
        words: the metadata as strings.

    Raises:
        ModelError: not written by relish, written by a newer relish, or damaged.
    """
    if "relish_format" not in words:
        raise ModelError(f"{path} was not made by relish export.", hint="Export a run: relish export RUN model.onnx.")
    if sum(len(word) for word in words.values()) > MOST_CHARACTERS:
        raise ModelError(f"{path}: what it says of itself is too long to be true.", hint="Export the run again.")
    if re.fullmatch("[0-9]{1,9}", words["relish_format"]) and int(words["relish_format"]) > FORMAT_VERSION:
        raise ModelError(f"{path}: is of a newer relish; this one reads format {FORMAT_VERSION}.", hint="Install it.")
    try:
        found: dict[str, Any] = {name: _read(word) if name in _JSON else word for name, word in words.items()}
        about = About.model_validate({**found, HEADER_KEY: decision_from(words)})
        # Raises where the positive class is not one of two.
        about.decision.decide(np.full((1, len(about.classes)), 1 / len(about.classes)), about.classes)
        _ = about.value_range  # refused now, if it cannot be read
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{field}: {first['msg']}") from error
    except (ValueError, RecursionError, ModelError, DataError) as error:
        raise _damaged(path, str(error)) from error
    return about


def _read(word: str) -> Any:
    """What JSON says; Python alone would take numbers that are not finite, and no JSON could be written of them."""
    return json.loads(word, parse_float=_finite, parse_constant=_finite)


def _finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"{word:.40} is no finite number")
    return number


def _damaged(path: str, reason: str) -> ModelError:
    return ModelError(f"{path}: what it says of itself cannot be used ({reason[:200]}).", hint="Export the run again.")


class OnnxClassifier:
    """The classifier in a file that `relish export` made; predicts as `Classifier` does."""

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        """Load a file.

        Args:
            path: of the file.
            threads: of the processor for one prediction; 0 leaves it to ONNX Runtime.

        Raises:
            ModelError: no such file, not an ONNX model, not written by relish, or damaged.
        """
        self.path = Path(path)
        self.session = session(self.path, threads=threads)
        try:
            self.about: About = about_from(str(path), self.session.get_modelmeta().custom_metadata_map)
            self.batch = _batch_of(self.path, self.session, len(self.about.classes))
        except UnicodeDecodeError as error:  # a key, or the name of an input, an output or a side of one
            raise _damaged(str(path), str(error)) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.about.classes

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:6]) + (", …" if len(self.classes) > 6 else "")
        return f"<OnnxClassifier {self.path} | {len(self.classes)} classes: {shown} | {self.about.precision}>"

    def predict(self, images: ImageSource | Iterable[ImageSource]) -> list[Prediction]:
        """The prediction for each image, in order; as `relish.Classifier.predict`."""
        one = isinstance(images, str | Path | bytes | Image.Image | np.ndarray) or hasattr(images, "read")
        return list(self.stream([images] if one else images))  # type: ignore[list-item, arg-type]

    def stream(self, images: Iterable[ImageSource | ImageError]) -> Iterator[Prediction]:
        """As `predict`, one by one, with one batch of the file's in memory, which is one image by default."""
        waiting: list[tuple[str, npt.NDArray[np.uint8]]] = []
        for number, image in enumerate(images):
            name = str(image) if isinstance(image, str | Path) else f"picture {number + 1}"
            try:
                if isinstance(image, ImageError):
                    name = image.name
                    raise image
                pixels = np.asarray(open_image(image, value_range=self.about.value_range))
            except ImageError as error:
                yield from self._predicted(waiting)
                yield Prediction(name, error=error.reason)
                continue
            # A batch holds images of one size.
            if waiting and waiting[0][1].shape != pixels.shape:
                yield from self._predicted(waiting)
            waiting.append((name, pixels))
            if len(waiting) == self.batch:
                yield from self._predicted(waiting)
        yield from self._predicted(waiting)

    def probabilities(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Probabilities, logits and unfamiliarity of up to a batch of images.

        Args:
            images: (n, H, W, 3) uint8, RGB, n from 1 to the file's batch.
        """
        count = len(images)
        full = images if count == self.batch else np.concatenate([images, *[images[-1:]] * (self.batch - count)])
        found = run(self.session, full)
        if found.probabilities.shape != (self.batch, len(self.classes)):
            raise _contradicts(self.path, len(self.classes))
        strange = found.unfamiliarity
        return Outputs(found.probabilities[:count], found.logits[:count], None if strange is None else strange[:count])

    def _predicted(self, waiting: list[tuple[str, npt.NDArray[np.uint8]]]) -> list[Prediction]:
        """The predictions for the images that wait, which is none of them afterwards."""
        if not waiting:
            return []
        names, pixels = zip(*waiting, strict=True)
        waiting.clear()
        rows, _, unfamiliarity = self.probabilities(np.stack(pixels))
        return predictions(names, rows, self.classes, self.about.decision, unfamiliarity)


def session(model: Path | bytes, *, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` on the processor.

    Raises:
        ModelError: ONNX Runtime cannot load it.
        Failed: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise Failed("ONNX Runtime is not installed.", hint='pip install "relish-vision[export]"') from error
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model}: there is no such file.", hint="Make one: relish export RUN model.onnx.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        source = str(model) if isinstance(model, Path) else model
        # Without its fallback, which tries the same once more and prints that on standard output.
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises exceptions of many types
        name = str(model) if isinstance(model, Path) else "the model"
        raise_if_no_memory(error, f"to load {name}")
        reason = (isinstance(model, Path) and other_kind(model)) or _first_line(error)
        raise ModelError(
            f"{name}: is not an ONNX model that can be loaded ({reason}).", hint="Export it again."
        ) from error


def run(loaded: Any, images: npt.NDArray[np.uint8]) -> Outputs:
    """What a session says of (N, H, W, 3) uint8 images.

    Raises:
        TooLittleMemory: for so many.
        Failed: the graph has a fault.
    """
    try:
        probabilities, logits, *more = loaded.run(None, {IMAGE: images})
    except Exception as error:  # as above
        size = f"{len(images)} × {images.shape[2]} × {images.shape[1]} pixels"
        raise_if_no_memory(error, f"for {size}")
        raise Failed(f"ONNX Runtime failed at {size} ({_first_line(error)}).") from error
    return Outputs(probabilities, logits, more[0] if more else None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unreadable"])[0][:160]


def _batch_of(path: Path, loaded: Any, classes: int) -> int:
    """How many images the graph takes at once, after checking its inputs and outputs."""
    inputs, outputs = loaded.get_inputs(), loaded.get_outputs()
    image = inputs[0] if inputs else None
    batch = image.shape[0] if image and len(image.shape) == 4 else None
    fits = (
        image is not None
        and [one.name for one in inputs] == [IMAGE]
        and image.type == "tensor(uint8)"
        and image.shape[3:] == [3]
        and not any(isinstance(side, int) for side in image.shape[1:3])
        and isinstance(batch, int)
        and batch >= 1
        and [one.name for one in outputs] in ([PROBABILITIES, LOGITS], [PROBABILITIES, LOGITS, UNFAMILIARITY])
        and all(one.shape == [batch, classes] for one in outputs[:2])
        and all(one.shape == [batch] for one in outputs[2:])
        and all(one.type == "tensor(float)" for one in outputs)
    )
    if not fits or not isinstance(batch, int):
        raise _contradicts(path, classes)
    return batch


def _contradicts(path: Path, classes: int) -> ModelError:
    words = f"{path}: takes or gives something else than it says ({classes} classes)."
    return ModelError(words, hint="Export the run again.")
