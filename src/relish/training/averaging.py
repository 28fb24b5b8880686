"""Models as points: take one's numbers, go part of the way to another's, average several.

In:   networks, or the states taken of them.
Out:  states.

Models that were fine-tuned from one origin lie in one valley of the loss, so that what lies between them is as good as
they are, and often better (Wortsman et al. 2022, arXiv:2203.05482). Models of different origins do not.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""Every tensor of a network by name, statistics and counters included."""


def state_of(network: nn.Module) -> State:
    """A copy of a network's numbers."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> State:
    """`share` of the way from one state to another, 0 to 1; counters are the second's."""
    return {
        name: torch.lerp(first[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in second.items()
    }


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> State:
    """The mean of each number over all states; counters are the first's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }
