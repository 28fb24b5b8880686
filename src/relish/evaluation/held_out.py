"""Logits of images held out of training, saved with the run: decisions are chosen on them, without training again.

Also the gap between accuracy on them and on the test split. A test split with other class frequencies may have another
accuracy without being harder, so the held-out accuracy of each class is first weighted by its frequency in the test
split.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import RunError
from relish.core.io import atomic_path
from relish.core.run_folder import RunFolder
from relish.evaluation.calibration import fit_temperature
from relish.evaluation.metrics import Proportion, Z
from relish.evaluation.prediction import Decision, tempered_softmax
from relish.evaluation.thresholds import (
    Aim,
    choose_threshold,
    choose_unsure,
    highest_accuracy,
    highest_precision,
    positive_class,
)


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


def chosen_by(folder: RunFolder) -> Proportion | None:
    """What the winning rung of a climb was right on among the pictures held out; None where nothing was climbed."""
    kept = [r for r in folder.records() if r["event"] == "rung" and r.get("kept", True)]
    return Proportion(kept[-1]["correct"], kept[-1]["count"]) if kept else None


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
        # Opened here: NumPy leaves a file open that it cannot make sense of.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return HeldOut(kept["labels"], kept["logits"], tuple(kept["sha256"].tolist()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error}).", hint="Fit again.") from error


def temperate(held: HeldOut | None) -> Decision:
    """The decision that has the temperature of these answers; of none, temperature 1."""
    if held is None or not len(held):
        return Decision()
    return Decision(temperature=fit_temperature(held.logits, held.labels), fitted_on=len(held))


def choose_decision(
    held: HeldOut | None, classes: Sequence[str], aim: Aim | None = None, accuracy: float | None = None
) -> Decision:
    """The decision for these answers: temperature, then threshold, then the bound below which the model is unsure.

    Args:
        held: None where nothing was held out: the likeliest class is said, at temperature 1.
        classes: the K class names.
        aim: of the threshold; None: none.
        accuracy: wanted of the answers; None: the model is never unsure.
    """
    decision = temperate(held)
    if held is None or not decision.fitted_on:
        return decision
    if aim is not None:
        decision = with_threshold(decision, held, classes, aim)
    return decision if accuracy is None else with_unsure(decision, held, classes, accuracy)


def unreached(
    decision: Decision, held: HeldOut, classes: Sequence[str], aim: Aim | None, accuracy: float | None
) -> list[str]:
    """What was asked for and no number reaches on these answers, a sentence each, with how far they go."""
    probabilities, found = tempered_softmax(held.logits, decision.temperature), []
    if aim is not None and decision.threshold is None:
        place = list(classes).index(positive_class(aim, classes))
        best = highest_precision(probabilities[:, place], held.labels == place)
        found.append(
            f"no threshold reaches {aim.words} for {classes[place]} on the {len(held)} held-out pictures; "
            f"the highest precision is {best:.3f}."
        )
    if accuracy is not None and decision.unsure_below is None:
        said, _ = decision.decide(probabilities, classes)
        best = highest_accuracy(probabilities[np.arange(len(said)), said], said == held.labels)
        found.append(
            f"however few of the {len(held)} held-out pictures are answered, accuracy {accuracy:g} is not reached; "
            f"the highest is {best:.3f}."
        )
    return found


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


_KNOWN = 0.9
"""Share of the final split that classes with held-out pictures make up, at least, to say anything."""


@dataclass(frozen=True)
class Gap:
    """The final figure beside the one on held-out training pictures."""

    held: Proportion
    judged: Proportion
    mixed: float | None
    """Held-out accuracy with the classes in the final split's shares, where that explains what is missing."""

    @property
    def points(self) -> float:
        """How much higher the final figure is, in points; below 0 where it is lower."""
        return 100 * (self.judged.value - self.held.value)

    @property
    def lower(self) -> bool:
        """Whether it is lower than chance explains: the two intervals lie apart."""
        return self.judged.interval[1] < self.held.interval[0]

    def reason(self, split: str) -> str:
        """Why it may be lower: `the test pictures are of another kind`."""
        if self.mixed is None:
            return f"the {split} pictures are of another kind"
        return (
            f"the {split} classes come in other shares, in which accuracy on held-out pictures would be "
            f"{self.mixed:.3f}"
        )


def gap_of(folder: RunFolder, judged: Proportion, counts: Sequence[int]) -> Gap | None:
    """The gap of a finished run; None where no pictures were held out to choose by.

    Args:
        judged: right among the pictures of the final split.
        counts: how many pictures of each class those are, K numbers.
    """
    held = chosen_by(folder)
    if held is None:
        return None
    gap = Gap(held, judged, None)
    if not gap.lower:
        return gap
    try:
        found = _mixed(read_held_out(folder.held_out), counts)
    except RunError:
        return gap  # of an earlier version, or moved away
    if found is None:
        return gap
    mean, error = found
    return Gap(held, judged, mean) if judged.interval[1] >= mean - Z * error else gap


def _mixed(held: HeldOut, counts: Sequence[int]) -> tuple[float, float] | None:
    """Held-out accuracy with classes in these shares, and its standard error; None where too few were held out."""
    right = held.logits.argmax(1) == held.labels
    sizes = np.bincount(held.labels, minlength=len(counts))
    hits = np.bincount(held.labels, weights=right, minlength=len(counts))
    known = sizes > 0
    shares = np.asarray(counts, dtype=np.float64) / sum(counts)
    if shares[known].sum() < _KNOWN:
        return None
    shares = shares[known] / shares[known].sum()
    # Laplace's rule, so that a class with a few pictures, all of them right, is not taken for one without any error.
    each = (hits[known] + 1) / (sizes[known] + 2)
    error = np.sqrt((shares**2 * each * (1 - each) / sizes[known]).sum())
    return float((shares * hits[known] / sizes[known]).sum()), float(error)
