"""The optimiser and its groups: the backbone at the base rate, the new head at a multiple of it.

Groups go by module, not by the names of parameters: whatever an architecture calls its output layer, the parameters of
that very module are the head's.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from relish.core.errors import RecipeError
from relish.models.freeze import layer_groups
from relish.models.target import TargetModel
from relish.training.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
"""From (b, K) float32 logits and (b,) int64 labels to (b,) losses, or to one number for all."""


def learning_rates(recipe: Recipe) -> dict[str, float]:
    """The rate of each group at the start of a run."""
    return {"backbone": recipe.rate, "head": recipe.rate * recipe.head_multiplier}


def make_optimiser(target: TargetModel, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser over what learns; frozen parameters are in none of its groups.

    With `layer_decay` below 1 every group of layers has its own rate: the base rate for the last one before the head,
    and less the nearer to the image (Howard and Ruder 2018, arXiv:1801.06146, section 3.2).
    """
    groups = [
        {"params": learning, "lr": rate, "base_lr": rate, "name": name}
        for name, rate, parameters in _parts(target, recipe)
        if (learning := [p for p in parameters if p.requires_grad])
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(_without_decay_of_norms(groups, recipe.weight_decay), lr=recipe.rate)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _parts(target: TargetModel, recipe: Recipe) -> Iterator[tuple[str, float, list[nn.Parameter]]]:
    rates = learning_rates(recipe)
    if recipe.layer_decay == 1:
        yield "backbone", rates["backbone"], target.backbone_parameters()
    else:
        groups = layer_groups(target)
        for place, parameters in enumerate(groups):
            below = len(groups) - 1 - place
            yield f"layers {place}", rates["backbone"] * recipe.layer_decay**below, parameters
    yield "head", rates["head"], target.head_parameters()


def _without_decay_of_norms(groups: list[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """Each group in two, weights and the rest: pulling the scale of a norm to 0 serves nothing."""
    parts = []
    for group in groups:
        weights, rest = ([p for p in group["params"] if (p.ndim > 1) is many] for many in (True, False))
        parts += [
            {**group, "params": some, "weight_decay": share} for some, share in ((weights, decay), (rest, 0.0)) if some
        ]
    return parts


def set_rates(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Give every group its rate for one step of `steps`, counted from 0: a function of the step, so resuming seeks."""
    rising = recipe.warmup * steps
    done = max(0.0, (step - rising) / (steps - rising))
    factor = min(1.0, (step + 1) / rising) if rising else 1.0
    if recipe.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def base_rate(optimiser: torch.optim.Optimizer, recipe: Recipe) -> float:
    """The recipe's base rate as the schedule has it at this step."""
    group = max(optimiser.param_groups, key=lambda one: float(one["base_lr"]))
    return recipe.rate * float(group["lr"] / group["base_lr"]) if group["base_lr"] else 0.0


def batch_loss(losses: torch.Tensor, recipe: Recipe, images: int, processes: int) -> torch.Tensor:
    """The number whose gradient a step takes.

    Args:
        losses: (b,) float32, of this process's share of a batch; none of padding.
        images: in the whole batch, over all processes.
        processes: their gradients are averaged afterwards (as DistributedDataParallel does), which is undone here.
    """
    scale = processes / images if recipe.loss == "mean" else float(processes)
    return losses.sum() * scale


def losses_of(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """(b,) losses by a callable of the user's own.

    Args:
        loss: gives one loss for each image, or one number: the mean over the images, or, where its attribute
            `reduction` is "sum" as in torch's own, their sum. The recipe alone says which of them a step goes down.
        logits: (b, K) float32.
        labels: (b,) int64.

    Raises:
        RecipeError: it gives something else.
    """
    found = loss(logits, labels)
    if not isinstance(found, Tensor) or found.shape not in (labels.shape, ()):
        what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise RecipeError(f"loss gives {what}, not one number or one for each of {len(labels)} images.")
    if found.shape == labels.shape:
        return found
    mean = found / len(labels) if getattr(loss, "reduction", "mean") == "sum" else found
    return mean.expand(len(labels))
