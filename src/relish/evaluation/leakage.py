"""Accuracy without the pictures that have a copy, or a near copy, among those that were learned from.

In:   what a look at the dataset found, which pictures were learned from and judged, and which of these were right.
Out:  a `WithoutDuplicates`.
Not here: finding copies that are not equal files (`checking/`).

A model may know such a picture by heart; the accuracy without them says what it makes of pictures it has not met.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relish.data.findings import Finding
from relish.evaluation.metrics import Proportion

Row = Mapping[str, str]
"""A picture of `dataset.json`: `path`, `class`, `sha256`."""


@dataclass(frozen=True)
class WithoutDuplicates:
    """Accuracy on the judged pictures that have no copy among those learned from."""

    right: Proportion
    left_out: int
    """Pictures that have one."""

    def as_json(self) -> dict[str, Any]:
        """The proportion, and `left_out`."""
        return {**self.right.as_json(), "left_out": self.left_out}


def without_duplicates(
    findings: Iterable[Finding], learned: Sequence[Row], judged: Sequence[Row], right: npt.NDArray[np.bool_]
) -> WithoutDuplicates | None:
    """Count again without the copies; None where every judged picture has one.

    Args:
        findings: of every kind; those that are read are duplicates across splits. Equal files are known without them.
        learned, judged: pictures as `dataset.json` lists them.
        right: (N,) bool, of the judged ones, in their order.
    """
    paths, files = {row["path"] for row in learned}, {row["sha256"] for row in learned}
    copies: set[str] = set()
    for finding in findings:
        if finding.kind in ("exact-duplicate", "near-duplicate") and paths.intersection(finding.paths):
            copies.update(finding.paths)
    fresh = np.array([row["path"] not in copies and row["sha256"] not in files for row in judged], dtype=np.bool_)
    count = int(fresh.sum())
    if count == 0:
        return None
    return WithoutDuplicates(Proportion(int((right & fresh).sum()), count), len(judged) - count)
