"""The pictures of a finished run, found again.

In:   a run's `dataset.json`.
Out:  pictures by the name the dataset gave them; those that are gone, or are no longer what the run saw, are counted.

A picture is shown as what the model was judged on only if its bytes are still the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relish.core.errors import ImageError
from relish.core.io import sha256_of_file
from relish.data.dataset import Split
from relish.data.image import open_image


class Album:
    """Opens a run's pictures, and remembers which could not be shown."""

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        """
        Args:
            dataset: what `dataset.json` holds.
        """
        self.root = Path(dataset["root"])
        self.rows: Mapping[str, list[Mapping[str, str]]] = dataset["splits"]
        self._known = {row["path"]: row["sha256"] for rows in self.rows.values() for row in rows}
        self._same: dict[str, bool] = {}

    @property
    def lost(self) -> int:
        """Pictures that were asked for and are gone or changed."""
        return sum(not same for same in self._same.values())

    def path(self, label: str) -> Path:
        """Where a picture lies."""
        return self.root / label  # a label that is a whole path stays one

    def has(self, label: str) -> bool:
        """Whether the file is still the one that the run saw."""
        if label not in self._same:
            try:
                self._same[label] = sha256_of_file(self.path(label)) == self._known.get(label)
            except OSError:
                self._same[label] = False
        return self._same[label]

    def open(self, label: str) -> Image.Image | None:
        """The picture, RGB; None where it is gone or changed."""
        if not self.has(label):
            return None
        try:
            return open_image(self.path(label))
        except ImageError:
            self._same[label] = False
            return None

    def split(self, rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> Split:
        """Rows of `dataset.json` as a split, in their order."""
        labels = np.array([classes.index(row["class"]) for row in rows], dtype=np.int64)
        return Split(tuple(self.path(row["path"]) for row in rows), labels)
