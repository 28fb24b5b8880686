"""What a finished run's model answered on the split it was judged on.

In:   a run folder: `predictions.npz`, `evaluation.json`, `classes.json`.
Out:  `Answers`, in the order of the split in `dataset.json`.

What is said is made of the logits, as it was for `evaluation.json`: probabilities are kept in fewer digits, by which a
picture that lies on a threshold may come to the other side of it.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from relish.core.errors import RunError
from relish.core.run_folder import RunFolder
from relish.evaluation.decision import Decision, tempered_softmax
from relish.evaluation.metrics import Proportion


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers and true classes of N pictures."""

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """(N,) int64."""
    probabilities: npt.NDArray[np.float32]
    """(N, K) float32."""
    untempered: npt.NDArray[np.float64] | None
    """(N, K) float64, before a temperature was applied; None where the run did not keep that."""
    said: npt.NDArray[np.int64]
    """(N,) int64."""
    unsure: npt.NDArray[np.bool_]
    """(N,) bool."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) bool."""
        return np.equal(self.said, self.labels)

    @property
    def accuracy(self) -> Proportion:
        """How many are right."""
        return Proportion(int(self.right.sum()), len(self.labels))


def answers_of(folder: RunFolder, evaluation: dict[str, Any]) -> Answers:
    """What the run's model said.

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
            logits = kept["logits"] if "logits" in kept.files else None
        classes = tuple(json.loads(folder.classes.read_text(encoding="utf-8")))
        decision = TypeAdapter(Decision).validate_python(evaluation.get("decision") or {})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{folder.path}: its predictions cannot be read ({str(error).splitlines()[0]}).") from error
    said, unsure = decision.decide(found if logits is None else tempered_softmax(logits, decision.temperature), classes)
    return Answers(classes, labels, found, None if logits is None else tempered_softmax(logits, 1.0), said, unsure)
