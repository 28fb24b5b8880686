"""A run folder, or a saved model, as what the server serves: computed by PyTorch, and explained by Grad-CAM.

In:   a `Classifier`.
Out:  a `serve.model.Model` that answers as the classifier does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from relish.data.transforms import as_evaluated, stacked
from relish.evaluation.prediction import Prediction
from relish.tasks.classifier import Classifier


class ServedClassifier:
    """See above."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.name = classifier.path.name if classifier.path else classifier.source
        self.classes = classifier.classes
        self.decision = classifier.decision
        self.explains = False

    def prepare(self, picture: Image.Image) -> Tensor:
        """(3, S, S) uint8: what waits for its turn is small."""
        return as_evaluated(picture, self._classifier.preprocessing)

    def answer(self, prepared: Sequence[Any]) -> Sequence[Prediction]:
        """One prediction each."""
        return self._classifier.answers(stacked(prepared))

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """Never asked."""
        raise NotImplementedError


def load_served(path: Path, *, threads: int | None, device: str) -> ServedClassifier:
    """A run folder or a saved model, ready to answer.

    Args:
        threads: of the processor for one batch; None takes all.
        device: as `Classifier.load` takes it.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return ServedClassifier(Classifier.load(path, device=device))
