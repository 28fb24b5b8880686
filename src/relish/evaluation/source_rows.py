"""Check on training images that the source head's rows stand for the classes they were matched with by name.

Class names in another order than the weights' would start a class from a wrong row without any error: the book gives
row 934 for hot dogs in one place and row 713 in another. A few images show which row is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from relish.core.context import Context
from relish.data.dataset import Split
from relish.data.split import evenly_spaced
from relish.data.transforms import Preprocessing
from relish.evaluation.inference import split_logits
from relish.models.head import Match, match_words

Labels = npt.NDArray[np.int64]

MOST_OF_A_CLASS, MOST = 100, 1000
"""Images at most, of one class and of all classes; with many classes still `FEWEST` of each."""
FEWEST = 5


@dataclass(frozen=True)
class RowProof:
    """How often the row of one class has the largest logit, on images of the class and on others."""

    class_name: str
    row: int
    label: str
    """The source's name of the row; empty where the source has none."""
    wins: int
    """Images of the class on which this row has the largest logit."""
    images: int
    """Images of the class."""
    wins_elsewhere: int
    """Images of other classes on which this row has the largest logit."""
    others: int
    """Images of other classes."""
    best: int
    """The row that wins on most images of the class."""
    best_label: str
    best_wins: int

    @property
    def doubtful(self) -> bool:
        """Whether another row wins on more images of this class."""
        return self.best_wins > self.wins

    def sentence(self) -> str:
        """Such as `hotdog = row 934 "hotdog": likeliest on 71 of 100 hotdog pictures, 1 of 100 others`."""
        return (
            f"{self.class_name} = row {match_words(self.row, self.label)}: likeliest on {self.wins} of {self.images} "
            f"{self.class_name} pictures, {self.wins_elsewhere} of {self.others} others"
        )

    def doubt(self) -> str:
        """What to type where another row wins more often."""
        return (
            f"row {match_words(self.row, self.label)} wins on {self.wins} of {self.images} {self.class_name} pictures, "
            f"row {match_words(self.best, self.best_label)} on {self.best_wins}: "
            f"say --map {self.class_name}={self.best} if that is the class meant"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        return {
            "class": self.class_name, "row": self.row, "wins": self.wins, "pictures": self.images,
            "wins_elsewhere": self.wins_elsewhere, "others": self.others, "best": self.best,
            "best_wins": self.best_wins,
        }  # fmt: skip


def prove_rows(
    network: nn.Module,
    split: Split,
    preprocessing: Preprocessing,
    context: Context,
    *,
    classes: Sequence[str],
    matches: Mapping[str, list[Match]],
    labels: Sequence[str] | None,
) -> list[RowProof]:
    """Predict a few images of every class with the source network; none where no class has a row.

    Args:
        network: the source's own, with its own head; left in eval mode, on the context's device.
        split: training images, so that test images stay unseen.
        preprocessing: of the run.
        classes: the names that the labels of the split stand for.
        matches: for each class the row it starts from, none or one.
        labels: the source's names of its rows, or None.

    Returns:
        One for each class that has a row, the same in every process.

    Raises:
        ImageError: an image can no longer be opened.
    """
    if not any(matches.values()):
        return []
    some = split.take(_sample(split.labels, len(classes)))
    rows = split_logits(network, some, preprocessing, context, title="proving rows").argmax(1)
    return [
        _proof(name, matches[name][0], rows[some.labels == label], rows[_spaced(some.labels != label)], labels)
        for label, name in enumerate(classes)
        if matches[name]
    ]


def _proof(name: str, match: Match, of_class: Labels, of_others: Labels, labels: Sequence[str] | None) -> RowProof:
    rows, counts = np.unique(of_class, return_counts=True)
    best = int(rows[counts.argmax()]) if len(rows) else match[0]
    return RowProof(
        class_name=name,
        row=match[0],
        label=match[1],
        wins=int((of_class == match[0]).sum()),
        images=len(of_class),
        wins_elsewhere=int((of_others == match[0]).sum()),
        others=len(of_others),
        best=best,
        best_label=labels[best] if labels else "",
        best_wins=int(counts.max()) if len(rows) else 0,
    )


def _sample(labels: Labels, classes: int) -> Labels:
    """Positions of a few images of every class, evenly spaced."""
    each = min(MOST_OF_A_CLASS, max(FEWEST, MOST // classes))
    return np.concatenate([_spaced(labels == label, each) for label in range(classes)])


def _spaced(chosen: npt.NDArray[np.bool_], most: int = MOST_OF_A_CLASS) -> Labels:
    positions = np.flatnonzero(chosen)
    return positions[evenly_spaced(len(positions), most)]
