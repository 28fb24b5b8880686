"""Classes of unequal size, evened out in what is minimised.

In:   how (`none`, `sampling`, `weights` or `logit`), the labels that are learned from.
Out:  a `Balance`: what is added to the logits, and what each picture's loss is multiplied by.
Not here: drawing pictures of small classes more often (`data/batches.py`), which is what `sampling` does in the loop.

Where nothing is sampled, as in a probe that is solved for, `sampling` is `weights`: what it comes to on average.

All three aim at every class being recognised equally well, and so the probabilities are those of a world where classes
are equally common. That costs accuracy where the pictures met later are as uneven as these.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BalanceName = Literal["none", "sampling", "weights", "logit"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Balance:
    """How a loss counts its pictures; None changes nothing."""

    offsets: Tensor | None = None
    """(K,) float32, added to the logits while learning and left away afterwards: the logarithm of each class's share
    (Menon et al. 2021, arXiv:2007.07314, equation 10, with tau 1)."""
    weights: Tensor | None = None
    """(K,) float32: what the loss of a picture of each class is multiplied by; 1 on average over the pictures."""

    def to(self, device: torch.device | str) -> "Balance":
        """The same on a device."""
        return Balance(*(None if part is None else part.to(device) for part in (self.offsets, self.weights)))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(b, K) logits and (b,) labels to (b,) losses, in nats."""
        shifted = logits if self.offsets is None else logits + self.offsets
        found = torch.nn.functional.cross_entropy(shifted, labels, reduction="none")
        return found if self.weights is None else found * self.weights[labels]


def balance_of(name: BalanceName, labels: Labels, classes: int, *, sampled: bool = False) -> Balance:
    """What a recipe's `balance` asks for.

    Args:
        labels: (N,) int64, of the pictures that are learned from.
        sampled: whether pictures are sampled, so that `sampling` leaves nothing to be done here.
    """
    # A class without pictures is taken for the rarest there can be: the logarithm of nothing is no number.
    counts = torch.from_numpy(np.bincount(labels, minlength=classes).clip(1)).double()
    if name == "logit":
        return Balance(offsets=(counts / counts.sum()).log().float())
    if name == "weights" or (name == "sampling" and not sampled):
        met = len(np.unique(labels))
        return Balance(weights=(len(labels) / (met * counts)).float())
    return Balance()
