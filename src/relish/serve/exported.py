"""An exported file as what the server serves: computed by ONNX Runtime, without torch.

In:   a file that `relish export` made.
Out:  a `Model` that answers as the file's reader does.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from relish.evaluation.prediction import Prediction, predictions
from relish.export.reader import OnnxClassifier

Pixels = npt.NDArray[np.uint8]


class ServedFile:
    """See above.

    Args:
        path: of the file.
        threads: of the processor for one answer; 0 leaves it to ONNX Runtime.
    """

    explains = False

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self._reader = OnnxClassifier(path, threads=threads)
        self.name = self._reader.path.name
        self.classes = self._reader.classes
        self.decision = self._reader.about.decision

    def prepare(self, picture: Image.Image) -> Pixels:
        """(H, W, 3) uint8: the file scales it itself."""
        return np.asarray(picture)

    def answer(self, prepared: Sequence[Pixels]) -> Sequence[Prediction]:
        """One prediction each; a file that takes several at once takes them of one size."""
        rows = np.empty((len(prepared), len(self.classes)), dtype=np.float32)
        alike = sorted(range(len(prepared)), key=lambda place: prepared[place].shape)
        for _, group in groupby(alike, key=lambda place: prepared[place].shape):
            places = list(group)
            for start in range(0, len(places), self._reader.batch):
                some = places[start : start + self._reader.batch]
                rows[some], _ = self._reader.probabilities(np.stack([prepared[place] for place in some]))
        return predictions([""] * len(rows), rows, self.classes, self.decision)

    def explain(self, picture: Image.Image, class_name: str) -> Image.Image:
        """Never asked: a file has no gradients."""
        raise NotImplementedError
