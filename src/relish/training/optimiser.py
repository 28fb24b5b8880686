"""The optimiser and its two groups: the backbone at the base rate, the new head at a multiple of it.

In:   a target model and a recipe.
Out:  `torch.optim.SGD` over what may learn, and the rate of any step.

Groups go by module, not by the names of parameters: whatever an architecture calls its output layer, the parameters of
that very module are the head's.
"""

import math

import torch
from torch import nn

from relish.models.target import TargetModel
from relish.training.recipe import Recipe


def learning_rates(recipe: Recipe) -> dict[str, float]:
    """The rate of each group at the start of a run."""
    return {"backbone": recipe.learning_rate, "head": recipe.learning_rate * recipe.head_multiplier}


def make_optimiser(target: TargetModel, recipe: Recipe) -> torch.optim.SGD:
    """Stochastic gradient descent with the book's groups; frozen parameters are in neither."""
    rates = learning_rates(recipe)
    parts = {"backbone": target.backbone_parameters(), "head": target.head_parameters()}
    groups = [
        {"params": learning, "lr": rates[name], "name": name, "base_lr": rates[name]}
        for name, parameters in parts.items()
        if (learning := [p for p in parameters if p.requires_grad])
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def set_rates(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Give every group its rate for one step of `steps`, counted from 0: a function of the step, so resuming seeks."""
    factor = 1.0 if recipe.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def batch_loss(losses: torch.Tensor, recipe: Recipe, pictures: int, processes: int) -> torch.Tensor:
    """The number whose gradient a step takes.

    Args:
        losses: (b,) float32, of this process's share of a batch; none of padding.
        pictures: in the whole batch, over all processes.
        processes: their gradients are averaged afterwards (as DistributedDataParallel does), which is undone here.
    """
    scale = processes / pictures if recipe.loss == "mean" else float(processes)
    return losses.sum() * scale


cross_entropy = nn.CrossEntropyLoss(reduction="none")
"""(B, K) logits and (B,) labels to (B,) losses, in nats."""
