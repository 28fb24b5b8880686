"""The pictures of a dataset in one row, whatever split they lie in: what every check works on.

In:   a survey.
Out:  a `Collection`: paths, names, classes, splits, hashes and facts by position.
Not here: looking for anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relish.data.dataset import Dataset, Split
from relish.data.survey import Facts, Survey

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Collection:
    """N pictures that can be opened, sorted by split, class and name."""

    dataset: Dataset
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """As `Dataset.label` gives them."""
    labels: Positions
    """(N,) int64, positions in the dataset's classes."""
    splits: Positions
    """(N,) int64, positions in `split_names`."""
    split_names: tuple[str, ...]
    contents: tuple[str, ...]
    """SHA-256 of each file."""
    facts: Facts
    """(N,) of `data.facts.FACTS`."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's class names."""
        return self.dataset.classes

    def as_split(self) -> Split:
        """All of them as one."""
        return Split(self.paths, self.labels)

    def named(self, positions: Sequence[int] | Positions) -> tuple[str, ...]:
        """The names of some pictures."""
        return tuple(self.names[i] for i in positions)


def collected(looked: Survey) -> Collection:
    """Every picture of a survey, each once per split it lies in."""
    dataset = looked.dataset
    splits = list(dataset.splits.items())
    paths = tuple(path for _, split in splits for path in split.paths)
    nothing = np.zeros(0, dtype=np.int64)
    return Collection(
        dataset=dataset,
        paths=paths,
        names=tuple(map(dataset.label, paths)),
        labels=np.concatenate([nothing, *(split.labels for _, split in splits)]),
        splits=np.concatenate([nothing, *(np.full(len(s), i, dtype=np.int64) for i, (_, s) in enumerate(splits))]),
        split_names=tuple(name for name, _ in splits),
        contents=tuple(looked.sha256[path] for path in paths),
        facts=looked.facts_of(paths),
    )
