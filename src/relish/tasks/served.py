"""A run folder, or a saved model, as what the server serves: computed by PyTorch, and explained by Grad-CAM.

In:   a `Classifier`.
Out:  a `serve.model.Model` that answers as the classifier does.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from relish.data.transforms import as_evaluated, stacked
from relish.tasks.classifier import Classifier, Prediction


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
        raise NotImplementedError
