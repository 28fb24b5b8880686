"""Logits of images held out of training, saved with the run: temperature and decision are chosen on them.

Also the gap between accuracy on them and on the test split. A test split with other class frequencies may have another
accuracy without being harder, so the held-out accuracy of each class is first weighted by its frequency in the test
split.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.core.errors import RunError
from relish.core.io import atomic_path
from relish.core.run_folder import RunFolder
from relish.evaluation.metrics import Proportion, Z
from relish.evaluation.prediction import Decision, probability_of, softmax
from relish.evaluation.thresholds import Aim, choose_threshold, choose_unsure, highest_fraction, positive_class

_KNOWN = 0.9
"""Fraction of the test split, at least, whose classes have held-out images; below it a gap has no explanation."""
_LOG_TEMPERATURES = (-4.0, 4.0)
"""To search: temperatures from 0.018 to 55."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Logits of images that were held out of training."""

    labels: npt.NDArray[np.int64]
    """(n,) int64."""
    logits: npt.NDArray[np.float32]
    """(n, K) float32, at temperature 1."""
    sha256: tuple[str, ...]
    """Of each image's file."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> Proportion:
        """Of the likeliest classes."""
        return Proportion(int((self.logits.argmax(1) == self.labels).sum()), len(self))

    def save(self, path: Path) -> None:
        """Write it, atomically.

        Raises:
            WriteFailed: no space, no permission.
        """
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, labels=self.labels, logits=self.logits, sha256=np.array(self.sha256, dtype="U64"))


def read_held_out(path: Path) -> HeldOut:
    """What `HeldOut.save` wrote.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise RunError(
            f"{path.parent} has no pictures that were held out: there is nothing to choose on.",
            hint="Fit again with recipe auto or probe, or with --val-split 0.2.",
        )
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return HeldOut(arrays["labels"], arrays["logits"], tuple(arrays["sha256"].tolist()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error}).", hint="Fit again.") from error


def fit_temperature(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> float:
    """The temperature that maximises the likelihood of held-out labels, with one imaginary wrong label among them.

    Without that one, a model that has every held-out image right would be made certain of everything; with a few
    hundred images it has hardly any effect. It is Platt's rule (1999, Probabilistic outputs for support vector
    machines, section 2.2) for K classes: the target of the true class is (N + 1) / (N + 2), the other classes share
    the rest.

    Args:
        logits: (N, K) of images held out of training; rows that are not finite are ignored.
        labels: (N,) int64.

    Returns:
        Above 0; 1 where there is no image, or a single class.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # late: SciPy takes long to import, and predicting does without it
    from scipy.special import log_softmax

    finite = np.isfinite(logits).all(1)
    logits, labels, classes = logits[finite].astype(np.float64), labels[finite], logits.shape[1]
    if len(labels) == 0 or classes < 2:
        return 1.0
    rest = 1 / (len(labels) + 2)
    targets = np.full(logits.shape, rest / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - rest

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(1).mean())

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def choose_decision(
    held: HeldOut | None, classes: Sequence[str], aim: Aim | None = None, accuracy: float | None = None
) -> Decision:
    """A decision chosen on held-out images: temperature, then threshold, then the bound of abstention.

    Args:
        held: None or empty: the likeliest class at temperature 1.
        classes: the K class names.
        aim: of the threshold; None: no threshold.
        accuracy: to reach on the answered images; None: the model never abstains.
    """
    if held is None or not len(held):
        return Decision()
    decision = Decision(temperature=fit_temperature(held.logits, held.labels), fitted_on=len(held))
    if aim is not None:
        decision = with_threshold(decision, held, classes, aim)
    return decision if accuracy is None else with_unsure(decision, held, classes, accuracy)


def with_threshold(decision: Decision, held: HeldOut, classes: Sequence[str], aim: Aim) -> Decision:
    """The decision with the threshold for an aim, or with none where no threshold reaches it."""
    positive, probability, is_positive = _of_positive(decision, held, classes, aim)
    threshold = choose_threshold(probability, is_positive, aim)
    if threshold is None:
        return replace(decision, positive=None, threshold=None, aim=None)
    return replace(decision, positive=positive, threshold=threshold, aim=aim.words)


def with_unsure(decision: Decision, held: HeldOut, classes: Sequence[str], accuracy: float) -> Decision:
    """The decision with the bound of abstention for an accuracy, or with none where no bound reaches it."""
    return replace(decision, unsure_below=choose_unsure(*_confidence(decision, held, classes), accuracy))


def unreached_aims(
    decision: Decision, held: HeldOut, classes: Sequence[str], aim: Aim | None, accuracy: float | None
) -> list[str]:
    """A sentence for each of the two aims that no number reaches on the held-out images, with the best reached."""
    sentences = []
    if aim is not None and decision.threshold is None:
        positive, probability, is_positive = _of_positive(decision, held, classes, aim)
        sentences.append(
            f"no threshold reaches {aim.words} for {positive} on the {len(held)} held-out pictures; "
            f"the highest precision is {highest_fraction(probability, is_positive):.3f}."
        )
    if accuracy is not None and decision.unsure_below is None:
        sentences.append(
            f"however few of the {len(held)} held-out pictures are answered, accuracy {accuracy:g} is not reached; "
            f"the highest is {highest_fraction(*_confidence(decision, held, classes)):.3f}."
        )
    return sentences


def _of_positive(
    decision: Decision, held: HeldOut, classes: Sequence[str], aim: Aim
) -> tuple[str, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The positive class, its (n,) probabilities, and which images are of it."""
    positive = positive_class(aim, classes)
    index = list(classes).index(positive)
    return positive, softmax(held.logits, decision.temperature)[:, index], held.labels == index


def _confidence(
    decision: Decision, held: HeldOut, classes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(n,) probabilities of the predicted classes, and which of these are right."""
    probabilities = softmax(held.logits, decision.temperature)
    predicted, _ = decision.decide(probabilities, classes)
    return probability_of(probabilities, predicted), predicted == held.labels


@dataclass(frozen=True)
class Gap:
    """The accuracy on the test split beside the one on held-out training images."""

    held: Proportion
    final: Proportion
    reweighted: float | None
    """Held-out accuracy with the class frequencies of the test split, where that explains the difference."""

    @property
    def points(self) -> float:
        """How much higher the final accuracy is, in percentage points; below 0 where it is lower."""
        return 100 * (self.final.value - self.held.value)

    @property
    def lower(self) -> bool:
        """Whether it is lower by more than chance explains: the two intervals do not overlap."""
        return self.final.interval[1] < self.held.interval[0]

    def reason(self, split: str) -> str:
        """Why it may be lower: `the test pictures are of another kind`."""
        if self.reweighted is None:
            return f"the {split} pictures are of another kind"
        return (
            f"the {split} classes come in other shares, in which accuracy on held-out pictures would be "
            f"{self.reweighted:.3f}"
        )


def gap_of(folder: RunFolder, final: Proportion, counts: Sequence[int]) -> Gap | None:
    """The gap of a finished run; None where its model was not chosen on held-out images.

    Args:
        final: the accuracy on the test split.
        counts: K numbers, the images of each class in the test split.
    """
    kept = [record for record in folder.records() if record["event"] == "rung" and record.get("kept", True)]
    if not kept:
        return None
    held = Proportion.from_json(kept[-1])  # of the last rung that the ladder kept
    gap = Gap(held, final, None)
    if not gap.lower:
        return gap
    try:
        found = _reweighted(read_held_out(folder.held_out), counts)
    except RunError:
        return gap  # the file was moved away
    if found is None:
        return gap
    mean, error = found
    return Gap(held, final, mean) if final.interval[1] >= mean - Z * error else gap


def _reweighted(held: HeldOut, counts: Sequence[int]) -> tuple[float, float] | None:
    """Held-out accuracy with these class frequencies, and its standard error; None where too few were held out."""
    right = held.logits.argmax(1) == held.labels
    sizes = np.bincount(held.labels, minlength=len(counts))
    hits = np.bincount(held.labels, weights=right, minlength=len(counts))
    known = sizes > 0
    weights = np.asarray(counts, dtype=np.float64) / sum(counts)
    if weights[known].sum() < _KNOWN:
        return None
    weights = weights[known] / weights[known].sum()
    # Laplace's rule, so that a class with a few images, all of them right, has a standard error above 0.
    smoothed = (hits[known] + 1) / (sizes[known] + 2)
    error = np.sqrt((weights**2 * smoothed * (1 - smoothed) / sizes[known]).sum())
    return float((weights * hits[known] / sizes[known]).sum()), float(error)
