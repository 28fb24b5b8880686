"""How far the final figure lies from the one that a model was chosen by, and what may be behind it.

In:   a run folder, what was judged in the end.
Out:  a `Gap`.
Not here: the words around it (`tasks/remarks.py`, `reporting/model_card.py`).

A final split whose classes come in other shares is no harder for that, but where classes are not equally hard its
accuracy is another one. So before pictures are said to be of another kind, the held-out accuracy of each class is
weighted by the class's share in the final split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relish.core.errors import RunError
from relish.core.run_folder import RunFolder
from relish.evaluation.held_out import HeldOut, chosen_by, read_held_out
from relish.evaluation.metrics import Proportion, Z

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
