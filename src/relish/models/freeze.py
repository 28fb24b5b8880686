"""Freeze parts of a target model: their parameters, and their running statistics too.

Batch norm moves its running statistics in train mode whether its parameters learn or not; left alone, a "frozen"
backbone drifts away from the weights it was trained with. So frozen modules run in eval mode, dropout and dropped
paths inside them included: their output is a function of the image alone. Dropout outside them, such as the one
right before the output layer, belongs to what learns and stays active.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from relish.core.errors import RecipeError
from relish.core.runtime import seeded
from relish.models.gluon.networks import GluonMobileNet
from relish.models.saved_model import OWN
from relish.models.target import TargetModel

_CONTAINERS = ("features", "encoder", "encoder.layers", "trunk_output", "layers", "blocks")
"""torchvision's modules that hold all stages of a network in a row; each of their children is a group."""
_COPIED_IN_PLACE = (nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.Mish)
"""Activations (ReLU6 is a Hardtanh) whose gradient needs their input: in place, autograd copies that first."""


def freeze(target: TargetModel, what: str | int) -> None:
    """Freeze parameters of a target model; the output layer's always learn.

    Args:
        target: a target model in which nothing was frozen yet; changed in place.
        what: `none`; `backbone`, all but the output layer; a number N, the first N groups of `layer_groups`; `early`,
            the first third of them, or the first two where that is more (a ResNet's stem and first stage, Detectron2's
            `FREEZE_AT = 2`): edges and textures, which serve any images (Yosinski et al. 2014, arXiv:1411.1792); or
            `half`, the first half, rounded up.

    Raises:
        RecipeError: another word, or more groups than there are.
    """
    if what == "none":
        return
    if what == "backbone":
        still = target.backbone_parameters()
    else:
        groups = layer_groups(target)
        shares = {"early": max(len(groups) // 3, min(2, len(groups) // 2)), "half": math.ceil(len(groups) / 2)}
        count = shares[str(what)] if str(what) in shares else _checked(what, len(groups))
        still = [parameter for group in groups[:count] for parameter in group]
    for parameter in still:
        parameter.requires_grad_(False)


@contextmanager
def half_frozen(target: TargetModel) -> Iterator[None]:
    """Freeze the first half of the groups of layers for a while."""
    learning = [parameter for parameter in target.network.parameters() if parameter.requires_grad]
    freeze(target, "half")
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def set_train_mode(network: nn.Module, target: TargetModel, *, still_norms: bool = False) -> None:
    """Put a network into train mode, all but its frozen modules.

    Activations that autograd would copy the input of are no longer computed in place: the same numbers and memory, one
    pass over the activations less. A network of the user's own class keeps them: it may rely on what happens in place.

    Args:
        network: the target's own network, or a wrapper around it.
        target: its frozen parameters say which modules are frozen.
        still_norms: keep the running statistics of batch norm still in layers that learn too.
    """
    network.train()
    for module in frozen_modules(target.network):
        module.eval()
    for module in network.modules() if target.source.description.library != OWN else ():
        if isinstance(module, _COPIED_IN_PLACE) and module.training:
            module.inplace = False
    if still_norms:
        for module in target.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def smallest_batch(target: TargetModel, image_size: int, *, still_norms: bool = False) -> int:
    """Images that a batch needs in training: 1, or 2 where a batch norm would see one value of a channel.

    That is behind pooling over the whole image, and wherever an image has shrunk to one pixel. A copy of the network is
    tried; the network, its running statistics and the generators of random numbers are left as they are.

    Args:
        image_size: side of the square, in pixels.
        still_norms: as in `set_train_mode`.

    Raises:
        RecipeError: in train mode it gives something else than (B, K) logits.
        Exception: whatever the network raises where it takes no batch of such images.
    """
    try:
        return _passed(target, 1, image_size, still_norms)
    except RecipeError:
        raise
    except Exception:  # torch's is a ValueError; a layer of the user's own may raise anything
        return _passed(target, 2, image_size, still_norms)


def _passed(target: TargetModel, images: int, side: int, still_norms: bool) -> int:
    """So many images, after they have passed through a copy of the network as it trains."""
    twin = replace(target, network=copy.deepcopy(target.network))
    set_train_mode(twin.network, twin, still_norms=still_norms)
    device = next(twin.network.parameters()).device
    with torch.no_grad(), seeded(0):
        logits = twin.network(torch.zeros(images, 3, side, side, device=device))
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (images, len(target.classes)):
        raise RecipeError(
            f"{target.source.name} gives {shape or type(logits).__name__} in training, not one logit for each of "
            f"{len(target.classes)} classes.",
            hint="Build it without auxiliary outputs, such as with aux_logits=False.",
        )
    return images


def frozen_modules(network: nn.Module) -> Iterator[nn.Module]:
    """Modules that have parameters, none of which learns; and norms without parameters beside frozen ones.

    Such a norm goes with what comes before it; at the very start of a network, as in Gluon's ResNets v2, with what
    follows.
    """
    first = next((own for module in network.modules() if (own := list(module.parameters(recurse=False)))), [])
    frozen_before = bool(first) and not any(parameter.requires_grad for parameter in first)
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        frozen_before = not any(parameter.requires_grad for parameter in own) if own else frozen_before
        whole = list(module.parameters())
        still = not any(parameter.requires_grad for parameter in whole)
        if still and (whole or (frozen_before and next(module.buffers(), None) is not None)):
            yield module


def layer_groups(target: TargetModel) -> list[list[nn.Parameter]]:
    """A network's parameters in groups from the input to the output, without the output layer.

    timm says of each architecture which tensors make a group; the others' networks go by their children, with the row
    of stages that some keep in a module of its own opened up, or by their own `layer_group`. A norm by itself goes with
    the layer before it.
    """
    network = target.network
    if isinstance(network, GluonMobileNet):
        group_of: Callable[[str], Any] = network.layer_group
    else:
        group_of = _timm_groups(network) or _torchvision_groups(network)
    head = {id(parameter) for parameter in target.head_parameters()}
    groups: dict[Any, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) not in head:
            groups.setdefault(group_of(name), []).append(parameter)
    return _with_norms([groups[key] for key in sorted(groups)])


def _with_norms(groups: list[list[nn.Parameter]]) -> list[list[nn.Parameter]]:
    joined: list[list[nn.Parameter]] = []
    for group in groups:
        if joined and all(parameter.ndim <= 1 for parameter in group):
            joined[-1] += group
        else:
            joined.append(group)
    return joined


def _checked(what: str | int, groups: int) -> int:
    if not re.fullmatch(r"\d+", str(what), re.ASCII):
        raise RecipeError(f'--freeze must be none, backbone, early, half or a number of layer groups, got "{what}".')
    if int(what) > groups:
        raise RecipeError(
            f"--freeze {what}: this network has {groups} layer groups before its output layer.",
            hint=f"Give 0 to {groups}, or backbone for all of them.",
        )
    return int(what)


def _timm_groups(network: nn.Module) -> Callable[[str], Any] | None:
    if not callable(getattr(network, "group_matcher", None)):
        return None
    from timm.models import group_parameters

    matcher: Any = network.group_matcher
    return dict(group_parameters(network, matcher(coarse=True), reverse=True)).__getitem__


def _torchvision_groups(network: nn.Module) -> Callable[[str], Any]:
    order: dict[str, int] = {}
    for name, _ in network.named_modules():
        if name not in _CONTAINERS and name.rpartition(".")[0] in ("", *_CONTAINERS):
            order[name] = len(order)

    def group_of(parameter: str) -> int:
        # A tensor of no child, such as a class token, goes with the first group: it enters right after the image.
        return max((place for name, place in order.items() if parameter.startswith(f"{name}.")), default=0)

    return group_of
