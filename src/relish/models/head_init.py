"""What a new output layer starts from.

In:   the new layer, the source's, and which source rows each class stands for.
Out:  the new layer's weight and bias, set in place.
Not here: finding the layer (`head.py`) and matching names (`matching.py`).

The draws depend on the seed and on the layer's shape alone: not on what was built before, nor on the source.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from relish.core.runtime import derive_seed
from relish.models.head import OutputLayer

HeadInit = Literal["xavier", "xavier-zero", "zeros", "source", "library"]
Unmatched = Literal["random", "mean"]


@torch.no_grad()
def initialise_head(
    layer: OutputLayer,
    source: OutputLayer,
    rows: Sequence[int | None],
    *,
    how: HeadInit,
    unmatched: Unmatched,
    seed: int,
) -> None:
    """Set the weight and bias of an output layer.

    Args:
        layer: (K, D) weight, or (K, D, 1, 1); changed in place.
        source: the source's layer, (S, D), and its bias, (S,).
        rows: for each of the K classes, the source row it starts from; read only with `how="source"`.
        how: `xavier`: Xavier-uniform weight (Glorot and Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html)
            and torch's own initial bias, as in the book's PyTorch tab; `xavier-zero`: the same weight and a bias of
            zero, as in its MXNet tab; `zeros`; `source`: rows and biases of the source head; `library`: left as the
            library built it.
        unmatched: with `source`, what a class without a row starts from: as `xavier`, or the mean of all rows.
        seed: of the draws; the global random state is left as it was.
    """
    if how == "library":
        return
    if how == "zeros":
        _zero(layer)
        return
    _xavier(layer, seed)
    if how == "xavier-zero" and layer.bias is not None:
        layer.bias.zero_()
    if how == "source":
        _copy_rows(layer.weight, source.weight, rows, unmatched)
        if layer.bias is not None and source.bias is not None:
            _copy_rows(layer.bias, source.bias, rows, unmatched)


def _xavier(layer: OutputLayer, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "head"))
        layer.reset_parameters()
        nn.init.xavier_uniform_(layer.weight)


def _zero(layer: OutputLayer) -> None:
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()


def _copy_rows(new: Tensor, source: Tensor, rows: Sequence[int | None], unmatched: Unmatched) -> None:
    for place, row in enumerate(rows):
        if row is not None:
            new[place] = source[row]
        elif unmatched == "mean":
            new[place] = source.mean(dim=0)
