"""What a model said of pictures it did not learn from, kept with the run: what a decision is chosen on.

In:   logits and labels of pictures held out in training.
Out:  a `HeldOut`, and the file `held_out.npz` that holds it; the `Decision` chosen on it.

With the answers on disk a temperature, a threshold or a bound can be chosen again at any time, without training.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import RunError
from relish.core.files import atomic_path
from relish.evaluation.calibration import fit_temperature
from relish.evaluation.coverage import choose_unsure
from relish.evaluation.decision import Decision, tempered_softmax
from relish.evaluation.thresholds import Aim, choose_threshold, positive_class


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers on pictures that were not learned from."""

    labels: npt.NDArray[np.int64]
    """(n,) int64."""
    logits: npt.NDArray[np.float32]
    """(n, K) float32, at temperature 1."""
    sha256: tuple[str, ...]
    """Of each picture's file: which pictures these are."""

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, path: Path) -> None:
        """Write it, atomically.

        Raises:
            WriteFailed: no space, no permission.
        """
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, labels=self.labels, logits=self.logits, sha256=np.array(self.sha256, dtype="U64"))


def read_held_out(path: Path) -> HeldOut:
    """What `save` wrote.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise RunError(
            f"{path.parent} has no pictures that were held out: there is nothing to choose on.",
            hint="Fit again with recipe auto or probe, or with --val-split 0.2.",
        )
    try:
        with np.load(path, allow_pickle=False) as kept:
            return HeldOut(kept["labels"], kept["logits"], tuple(kept["sha256"].tolist()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error}).", hint="Fit again.") from error


def temperate(held: HeldOut | None) -> Decision:
    """The decision that has the temperature of these answers; of none, temperature 1."""
    if held is None or not len(held):
        return Decision()
    return Decision(temperature=fit_temperature(held.logits, held.labels), fitted_on=len(held))


def with_threshold(decision: Decision, held: HeldOut, classes: Sequence[str], aim: Aim) -> Decision:
    """The same decision with the threshold for an aim, or with none where no threshold reaches it."""
    positive = positive_class(aim, classes)
    place = list(classes).index(positive)
    probability = tempered_softmax(held.logits, decision.temperature)[:, place]
    threshold = choose_threshold(probability, held.labels == place, aim)
    if threshold is None:
        return replace(decision, positive=None, threshold=None, aim=None)
    return replace(decision, positive=positive, threshold=threshold, aim=aim.words)


def with_unsure(decision: Decision, held: HeldOut, classes: Sequence[str], accuracy: float) -> Decision:
    """The same decision with the bound for an accuracy of its answers, or with none where no bound reaches it."""
    probabilities = tempered_softmax(held.logits, decision.temperature)
    said, _ = decision.decide(probabilities, classes)
    confidence = probabilities[np.arange(len(said)), said]
    return replace(decision, unsure_below=choose_unsure(confidence, said == held.labels, accuracy))
