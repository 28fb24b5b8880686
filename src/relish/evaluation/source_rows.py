"""Prove on pictures that a row of the source head stands for the class it is taken to stand for.

In:   a source network, labelled pictures, and the row that each class was matched with by its name.
Out:  for each matched class how often its row wins, on pictures of the class and on others.

A list of names in another order than the weights' would start a class from a stranger's row and raise no error: the
book itself gives 934 for hot dogs in one tab and 713 in the other. Whoever shows the network a few pictures knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from torch import nn

from relish.core.progress import Progress
from relish.data.dataset import Split
from relish.data.transforms import Preprocessing
from relish.evaluation.inference import predict_split
from relish.models.head import Match

MOST_OF_A_CLASS, MOST = 100, 1000
"""Pictures looked at, of one class and altogether; of many classes there are at least `FEWEST` of each."""
FEWEST = 5


@dataclass(frozen=True)
class RowProof:
    """What the pictures say about one class and its row."""

    class_name: str
    row: int
    label: str
    """What the source calls the row; empty where nobody knows."""
    wins: int
    """Pictures of the class on which the row is the likeliest of all."""
    pictures: int
    wins_elsewhere: int
    """The same of pictures of other classes."""
    others: int
    best: int
    """The row that wins on most pictures of the class."""
    best_label: str
    best_wins: int

    @property
    def doubtful(self) -> bool:
        """Whether another row wins on more pictures of this class."""
        return self.best_wins > self.wins

    def sentence(self) -> str:
        """Such as `hotdog = row 934 "hotdog": likeliest on 71 of 100 hotdog pictures, 1 of 100 others`."""
        return (
            f"{self.class_name} = row {self.row}{_quoted(self.label)}: likeliest on {self.wins} of {self.pictures} "
            f"{self.class_name} pictures, {self.wins_elsewhere} of {self.others} others"
        )

    def doubt(self) -> str:
        """What to type where another row wins more often."""
        return (
            f"row {self.row}{_quoted(self.label)} wins on {self.wins} of {self.pictures} {self.class_name} pictures, "
            f"row {self.best}{_quoted(self.best_label)} on {self.best_wins}: say --map {self.class_name}={self.best} "
            "if that is the class meant"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        return {
            "class": self.class_name, "row": self.row, "wins": self.wins, "pictures": self.pictures,
            "wins_elsewhere": self.wins_elsewhere, "others": self.others, "best": self.best,
            "best_wins": self.best_wins,
        }  # fmt: skip


def prove_rows(
    network: nn.Module,
    split: Split,
    how: Preprocessing,
    accelerator: Accelerator,
    *,
    classes: Sequence[str],
    matches: Mapping[str, list[Match]],
    labels: Sequence[str] | None,
    workers: int = 0,
    progress: Progress | None = None,
) -> list[RowProof]:
    """Show the source network some of the pictures; nothing is shown where no class has a row.

    Args:
        network: the source's own, with its own head; left in eval mode, on the accelerator's device.
        split: pictures to learn from, so that the ones to judge with stay unseen.
        how: as the run feeds its pictures.
        classes: the names that the labels of the split stand for.
        matches: for each class the row it begins from, none or one.
        labels: one per row of the source head, or None.

    Returns:
        One for each class that has a row, the same in every process.

    Raises:
        ImageError: a picture cannot be opened any more.
    """
    if not any(matches.values()):
        return []
    some = split.take(_some(split.labels, len(classes)))
    found = predict_split(network, some, how, accelerator, workers=workers, progress=progress, title="proving rows")
    said = found.argmax(1)
    return [
        _proof(name, matches[name][0], said[some.labels == label], said[_others(some.labels, label)], labels)
        for label, name in enumerate(classes)
        if matches[name]
    ]


def _proof(
    name: str, match: Match, of_class: npt.NDArray[Any], of_others: npt.NDArray[Any], labels: Sequence[str] | None
) -> RowProof:
    rows, counts = np.unique(of_class, return_counts=True)
    best = int(rows[counts.argmax()]) if len(rows) else match[0]
    return RowProof(
        class_name=name,
        row=match[0],
        label=match[1],
        wins=int((of_class == match[0]).sum()),
        pictures=len(of_class),
        wins_elsewhere=int((of_others == match[0]).sum()),
        others=len(of_others),
        best=best,
        best_label=labels[best] if labels else "",
        best_wins=int(counts.max()) if len(rows) else 0,
    )


def _some(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Positions of a few pictures of every class, evenly spread over it."""
    each = min(MOST_OF_A_CLASS, max(FEWEST, MOST // classes))
    return np.concatenate([_spread(np.flatnonzero(labels == label), each) for label in range(classes)])


def _others(labels: npt.NDArray[np.int64], label: int) -> npt.NDArray[np.int64]:
    return _spread(np.flatnonzero(labels != label), MOST_OF_A_CLASS)


def _spread(positions: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    count = min(most, len(positions))
    return positions[np.arange(count) * len(positions) // max(count, 1)]


def _quoted(label: str) -> str:
    return f' "{label}"' if label else ""
