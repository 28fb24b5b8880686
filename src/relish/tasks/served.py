"""A run folder, or a saved model, as what the server serves: computed by PyTorch, and explained by Grad-CAM.

In:   a path that `Classifier.load` takes.
Out:  a `serve.model.Model` that answers as the classifier does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relish.data.transforms import evaluation_transform, stacked
from relish.evaluation.explain import heatmaps, last_feature_map, overlay, overlays_unavailable
from relish.evaluation.prediction import Prediction
from relish.tasks.classifier import Classifier


class ServedClassifier:
    """See above; `unexplained` says why no answer can be explained, and is empty where one can."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.name = classifier.path.name if classifier.path else classifier.source
        self.classes = classifier.classes
        self.decision = classifier.decision
        self._layer = last_feature_map(classifier.network, classifier.preprocessing.image_size)
        self.unexplained = overlays_unavailable() or (
            "" if self._layer else "this network has no layer laid out over the picture that relish can find"
        )
        self.explains = not self.unexplained

    def prepare(self, picture: Image.Image) -> Tensor:
        """(3, S, S) uint8: what waits for its turn is small."""
        return evaluation_transform(picture, self._classifier.preprocessing)

    def answer(self, prepared: Sequence[Tensor]) -> Sequence[Prediction]:
        """One prediction each."""
        return self._classifier.predict_prepared(stacked(prepared))

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """What the network saw, with what speaks for a class lit up, S × S."""
        assert self._layer is not None  # noqa: S101 - `explains` says whether to ask
        classifier, framed = self._classifier, self.prepare(picture)
        said = [self.classes.index(class_name)]
        heat = heatmaps(classifier.network, stacked([framed]), said, classifier.preprocessing, self._layer)
        return overlay(np.asarray(framed.permute(1, 2, 0)), heat[0])


def load_served(path: Path, *, threads: int | None, device: str) -> ServedClassifier:
    """A run folder or a saved model, ready to answer.

    Args:
        threads: of the processor for one batch; None takes all.
        device: as `Classifier.load` takes it.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return ServedClassifier(Classifier.load(path, device=device))
