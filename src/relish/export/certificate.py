"""Whether an exported model says what the model in PyTorch says, measured on real pictures, one by one.

In:   a network with its preprocessing and decision, sessions of its exported forms, pictures and their labels.
Out:  a `Certificate`: worst difference, agreement, accuracy of each, and their speed.
Not here: what to do about it (`tasks/export.py`), why a picture differs (`difference.py`).

Both are fed by the one function that opens pictures, and each then goes its own way from uint8 pixels to
probabilities: Pillow and torch on one side, the file alone on the other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from relish.core.progress import Progress
from relish.data.dataset import Split
from relish.data.image import open_image
from relish.data.transforms import Preprocessing, evaluation_transform, normalise, stacked
from relish.evaluation.decision import Decision, tempered_softmax
from relish.evaluation.metrics import Proportion
from relish.export.reader import run

TOLERANCE = 1e-3
"""The largest difference in a probability that an export may have."""
TIE = 1e-6
"""Classes whose probabilities in PyTorch differ by less are equal: which comes first is the last digit's doing."""

Answer = Callable[[Image.Image], npt.NDArray[np.floating[Any]]]
"""(K,) probabilities of one opened picture."""


@dataclass(frozen=True)
class Certificate:
    """One exported form against PyTorch, over the same pictures."""

    pictures: int
    worst_difference: float
    """The largest difference in a probability, 0 to 1."""
    worst_picture: str
    disagreements: tuple[str, ...]
    """Pictures for which another class is the likeliest, ties left aside."""
    ties: int
    """Pictures left aside so."""
    torch_accuracy: Proportion
    accuracy: Proportion
    torch_milliseconds: float
    """Median of a picture from uint8 pixels to probabilities, one thread."""
    milliseconds: float

    @property
    def agreed(self) -> Proportion:
        """Pictures for which the same class is the likeliest."""
        return Proportion(self.pictures - len(self.disagreements), self.pictures)

    @property
    def exact(self) -> bool:
        """Whether it is within `TOLERANCE`, and says the same class of every picture."""
        return self.worst_difference <= TOLERANCE and not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """What is the same at each export; a few of the disagreements."""
        return {
            "pictures": self.pictures,
            "tolerance": TOLERANCE,
            "worst_difference": self.worst_difference,
            "worst_picture": self.worst_picture,
            "agreed": self.agreed.as_json(),
            "ties": self.ties,
            "disagreements": list(self.disagreements[:10]),
            "torch_accuracy": self.torch_accuracy.as_json(),
            "accuracy": self.accuracy.as_json(),
        }


@dataclass
class _Tally:
    rows: list[npt.NDArray[np.floating[Any]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def ask(self, answer: Answer, picture: Image.Image) -> None:
        began = time.perf_counter()
        row = answer(picture)
        self.seconds.append(time.perf_counter() - began)
        self.rows.append(row)


def certify(
    torch_answer: Answer,
    exported: Mapping[str, Answer],
    split: Split,
    names: Sequence[str],
    decision: Decision,
    classes: Sequence[str],
    *,
    progress: Progress | None = None,
) -> dict[str, Certificate]:
    """Ask everyone about every picture, taking turns.

    Args:
        torch_answer: from `torch_model`.
        exported: forms by name, from `exported_model`.
        split: at least one picture, labels in the order of the model's classes.
        names: what to call each picture.
        decision: what all of them turn probabilities into answers by.
        classes: the K class names.

    Returns:
        A certificate a form.

    Raises:
        ImageError: a picture cannot be opened any more.
    """
    tallies = {name: _Tally() for name in ("", *exported)}
    answers = {"": torch_answer, **exported}
    with _one_thread(), (progress or Progress()).bar("comparing", len(split)) as bar:
        for path in split.paths:
            picture = open_image(path)
            for name, answer in answers.items():
                tallies[name].ask(answer, picture)
            bar.advance()
    reference = tallies.pop("")
    judge = _Judge(split.labels, names, decision, classes)
    return {name: judge.certificate(reference, tally) for name, tally in tallies.items()}


def torch_model(network: nn.Module, how: Preprocessing, decision: Decision) -> Answer:
    """What PyTorch says in float32."""

    def answer(picture: Image.Image) -> npt.NDArray[np.floating[Any]]:
        with torch.inference_mode():
            logits = network(normalise(stacked([evaluation_transform(picture, how)]), how))
        return np.asarray(tempered_softmax(logits.numpy(), decision.temperature)[0])

    return answer


def exported_model(loaded: Any, count: int) -> Answer:
    """What a session says; a file for `count` pictures is given the same one so many times."""

    def answer(picture: Image.Image) -> npt.NDArray[np.floating[Any]]:
        pixels = np.asarray(picture)
        rows, _ = run(loaded, np.broadcast_to(pixels, (count, *pixels.shape)))
        return np.asarray(rows[0])

    return answer


def failures(certificate: Certificate) -> list[str]:
    """Each way in which it is beyond tolerance, in words."""
    found = []
    if certificate.worst_difference > TOLERANCE:
        found.append(
            f"a probability differs by {certificate.worst_difference:.2g} (tolerance {TOLERANCE:g}), "
            f"most for {certificate.worst_picture}"
        )
    if certificate.disagreements:
        found.append(f"{len(certificate.disagreements)} of {certificate.pictures} pictures get another class")
    return found


class _one_thread:
    """PyTorch on one thread, as the sessions are."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.threads)


@dataclass(frozen=True, eq=False)
class _Judge:
    """Holds answers against labels and against each other."""

    labels: npt.NDArray[np.int64]
    names: Sequence[str]
    decision: Decision
    classes: Sequence[str]

    def certificate(self, reference: _Tally, tally: _Tally) -> Certificate:
        """What a form is worth beside PyTorch."""
        wanted, found = np.stack(reference.rows), np.stack(tally.rows)  # (N, K)
        # A probability that is no number differs from every other by as much as one can.
        differences = np.nan_to_num(np.abs(wanted - found), nan=1.0).max(axis=1)
        said, says = self._said(wanted), self._said(found)
        tied = (said != says) & (self._margin(wanted, said, says) <= TIE)
        differs = (said != says) & ~tied
        worst = int(differences.argmax())
        return Certificate(
            pictures=len(self.labels),
            worst_difference=float(differences[worst]),
            worst_picture=self.names[worst],
            disagreements=tuple(name for name, apart in zip(self.names, differs, strict=True) if apart),
            ties=int(tied.sum()),
            torch_accuracy=Proportion(int((said == self.labels).sum()), len(self.labels)),
            accuracy=Proportion(int((says == self.labels).sum()), len(self.labels)),
            torch_milliseconds=1000 * median(reference.seconds),
            milliseconds=1000 * median(tally.seconds),
        )

    def _said(self, rows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """(N,) the answers; of rows that are no numbers, whatever comes first."""
        return self.decision.decide(np.nan_to_num(rows), self.classes)[0]

    def _margin(
        self, wanted: npt.NDArray[np.floating[Any]], said: npt.NDArray[np.int64], says: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.floating[Any]]:
        """(N,) how far a probability would have to move for the other answer."""
        if self.decision.threshold is not None and self.decision.positive is not None:
            positive = wanted[:, list(self.classes).index(self.decision.positive)]
            return np.asarray(np.abs(positive - self.decision.threshold))
        every = np.arange(len(said))
        return np.asarray(wanted[every, said] - wanted[every, says])
