"""`serve`: put a model behind HTTP until SIGTERM or Ctrl-C.

A run folder or a saved model is computed by PyTorch and explained by Grad-CAM; an exported file needs no torch. torch
and the packages of the extra `serve` are therefore imported inside the functions that need them.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from relish.core.errors import BadInput, Failed
from relish.core.progress import Progress
from relish.evaluation.prediction import Prediction
from relish.exporting.onnx_classifier import SUFFIX
from relish.server.limits import Limits
from relish.tasks.predict import refuse_choice

if TYPE_CHECKING:
    from torch import Tensor

    from relish.server.batching import Model
    from relish.tasks.classifier import Classifier

TOKEN_VARIABLE = "RELISH_TOKEN"  # noqa: S105 - its name
LONGEST_TOKEN = 4096
"""Bytes of a token file that are read."""


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    limits: Limits | None = None,
    *,
    root_path: str = "",
    threads: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Args:
        model: a run folder, a `.safetensors` file of one, or an exported `.onnx` file.
        host: where to listen; any but this computer needs a token.
        port: where to listen; 0 takes a free one.
        token_file: holds the token; None takes RELISH_TOKEN, if it is set.
        limits: of requests, uploads and concurrency; None takes the defaults of `Limits`.
        root_path: the prefix of its address behind a proxy, such as "/relish", whether the proxy takes it off or not.
        threads: of the processor for one batch; None takes all.
        device: as `Classifier.load` takes it; an exported file runs on the processor.

    Raises:
        BadInput: the token is missing or too short, the address cannot be listened on, the prefix is no path, or an
            exported file is to run on another device.
        RunError, ModelError: the model cannot be loaded.
        Failed: a package of the extra `serve` is not installed.
    """
    progress, limits = progress or Progress(), limits or Limits()
    try:
        from relish.server.app import create_app
        from relish.server.middleware import valid_root_path, valid_token
        from relish.server.server import run
    except ImportError as error:
        raise Failed(f"{error.name} is not installed.", hint="pip install 'relish-vision[serve]'") from error
    token, prefix = valid_token(read_token(token_file), host), valid_root_path(root_path)
    served = load_served(Path(model), threads=threads, device=device)
    app = create_app(served, limits, token, prefix)

    def ready(address: str) -> None:
        asks = "asks for the token" if token else "answers this computer alone"
        progress.say(f"serving {served.name}: {len(served.classes)} classes; {asks}")
        here = f"{address}{prefix}"
        progress.say(f"page    {here}/")
        progress.say(f"ask     curl -F files=@PICTURE {here}/predict   (more: {here}/docs)")
        progress.say("end     Ctrl-C")

    run(app, host, port, limits, ready)


def load_served(path: Path, *, threads: int | None = None, device: str = "auto") -> "Model":
    """The model at a path, ready to predict; arguments as `serve` takes them."""
    if path.suffix == SUFFIX:
        from relish.server.batching import ExportedModel

        refuse_choice(path, device)
        return ExportedModel(path, threads or 0)
    import torch

    from relish.tasks.classifier import Classifier

    if threads is not None:
        torch.set_num_threads(threads)
    return ServedClassifier(Classifier.load(path, device=device))


class ServedClassifier:
    """A classifier as the server calls it, computed by PyTorch.

    `unexplained` says why no prediction can be explained; it is empty where one can.
    """

    def __init__(self, classifier: "Classifier") -> None:
        from relish.evaluation.explain import last_feature_map, overlays_unavailable

        self._classifier = classifier
        self.name = classifier.path.name if classifier.path else classifier.source
        self.classes = classifier.classes
        self.decision = classifier.decision
        self.value_range = classifier.preprocessing.value_range
        self._layer = last_feature_map(classifier.network, classifier.preprocessing.image_size)
        self.unexplained = overlays_unavailable() or (
            "" if self._layer else "this network has no layer laid out over the picture that relish can find"
        )
        self.explains = not self.unexplained

    def prepare(self, image: Image.Image) -> "Tensor":
        """(3, S, S) uint8: small while it waits in the queue."""
        return self._classifier.prepare(image)

    def predict(self, prepared: "Sequence[Tensor]") -> Sequence[Prediction]:
        """One prediction each, with an empty path."""
        return self._classifier.predict_prepared(prepared)

    def explain(self, image: Image.Image, class_name: str) -> Image.Image:
        """The preprocessed image under the Grad-CAM heat map of one class, S × S."""
        from relish.data.transforms import stacked
        from relish.evaluation.explain import heatmaps, overlay

        assert self._layer is not None  # noqa: S101 - `explains` says whether to call this
        classifier, prepared = self._classifier, self.prepare(image)
        target = [self.classes.index(class_name)]
        heat = heatmaps(classifier.network, stacked([prepared]), target, classifier.preprocessing, self._layer)
        return overlay(np.asarray(prepared.permute(1, 2, 0)), heat[0])


def read_token(file: str | Path | None) -> str | None:
    """The token of a file, or of RELISH_TOKEN where none is named; None where there is neither.

    Raises:
        BadInput: the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        with Path(file).open("rb") as opened:
            return opened.read(LONGEST_TOKEN).decode()
    except OSError as error:
        raise BadInput(f"--token-file {file}: cannot be read ({error.strerror}).", hint="Name a file.") from None
    except UnicodeDecodeError:
        raise BadInput(f"--token-file {file}: not text.", hint="openssl rand -hex 16 > FILE") from None
