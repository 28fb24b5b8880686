"""What a dataset is, once it has been found: classes, and for each split the paths and labels of its pictures.

In:   nothing; these are the types that the rest of relish passes around.
Out:  `Split` and `Dataset`, both immutable.
Not here: finding the pictures (`sources.py`), opening one (`pictures.py`).

Nothing is kept per picture beyond its path and its label, so that a hundred thousand pictures stay a few megabytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.core.errors import DataError

TRAIN, VALIDATION, TEST, WHOLE = "train", "validation", "test", "all"
"""The names splits go by, whatever their folders are called; `all` is the only split of a dataset that has none."""


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset, in a fixed order: pictures sorted by class, then by name."""

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    """(N,) int64, each an index into the dataset's `classes`."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The pictures at these positions, in the order of the positions."""
        where = np.asarray(positions, dtype=np.int64)
        return Split(tuple(self.paths[i] for i in where), self.labels[where])

    def counts(self, classes: int) -> npt.NDArray[np.int64]:
        """(classes,) int64: how many pictures each class has here."""
        return np.bincount(self.labels, minlength=classes)


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures and the names of their classes."""

    name: str
    """A short word for folders and titles, such as `hotdog`."""
    source: str
    """What the user gave: a folder, an archive, an address, a table or a registered name."""
    root: Path
    """The folder that picture names are told relative to."""
    classes: tuple[str, ...]
    """Class names sorted by code point; a label is a position in it."""
    splits: Mapping[str, Split]
    """By the names above. A dataset without splits of its own has the one split `all`."""
    warnings: tuple[str, ...] = field(default=())
    """One plain sentence each: what was skipped, is missing or looks odd."""
    problem: DataError | None = None
    """Why nothing can be learned from it, where it was asked for all the same, to be looked at."""

    def label(self, path: Path) -> str:
        """The name of a picture as a user would say it: relative to the root where it lies there."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def with_splits(self, splits: Mapping[str, Split], *warnings: str) -> "Dataset":
        """The same dataset with other splits, and further warnings."""
        return replace(self, splits=dict(splits), warnings=self.warnings + warnings)

    def __len__(self) -> int:
        return sum(len(split) for split in self.splits.values())
