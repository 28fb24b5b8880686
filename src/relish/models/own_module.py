"""Modules that are handed in and out: `source_model`, `target_model`, and any `nn.Module` as a source model.

A network from `source_model` or `target_model` is the library's own `nn.Module`, with its own names of tensors. Beside
its parameters lie `labels` or `classes`, `data_config`, and the `description` that a file of it would begin with. A
description holds as long as the network still has the layers described; a network that was changed is of the
user's own class, like any other module.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relish.core.errors import ModelError, RecipeError, nearest
from relish.core.runtime import derive_seed
from relish.data.dataset import class_name, first_few
from relish.models.head import HeadInit, Unmatched, checked_head, head_names, last_layer, output_layer, outputs_of
from relish.models.saved_model import OWN, DataConfig, ModelDescription
from relish.models.source import SourceModel, load_source
from relish.models.target import TargetModel, make_target


def source_model(name: str | None = None, weights: str | Path | None = None) -> nn.Module:
    """Step 1: a network trained before, with its own head, in eval mode on the CPU.

    Args:
        name: as `--source` takes it, such as `timm/resnet18`; None for the network the file describes, or `embedded`.
        weights: as `--weights` takes it; None for the published ones, "none" for random ones.

    Returns:
        The network: (B, 3, H, W) float32, normalised with its mean and std, to (B, K) float32 logits. Beside its
        parameters lie `labels` (one name per output, or None) and `data_config` (size, mean, std, interpolation). One
        that is published without a classifier gives (B, D) float32 features.

    Raises:
        ModelError: an unknown name, a file that cannot be read or is of another network.
        DownloadFailed: a hub cannot be reached.
    """
    loaded = load_source(name, weights)
    network: Any = loaded.network
    network.labels, network.data_config, network.description = loaded.labels, loaded.data_config, loaded.description
    return loaded.network


def target_model(
    source: nn.Module,
    classes: Sequence[str],
    *,
    head: str | None = None,
    head_init: HeadInit = "xavier",
    mapping: Mapping[str, str | int] | None = None,
    unmatched: Unmatched = "random",
    seed: int = 0,
) -> nn.Module:
    """Steps 2 and 3: a copy of a network with a new output layer; every other tensor is bitwise the source's.

    Args:
        source: from `source_model`, or any `nn.Module` from (B, 3, H, W) to (B, S) logits; left as it is.
        classes: K names, each once; the first is output 0.
        head: the name of the output layer, a linear layer or a 1 × 1 convolution; None finds it.
        head_init: what the new layer starts from: `xavier`, `xavier-zero`, `zeros`, or `source` rows, as in
            `initialise_head`.
        mapping: with `head_init="source"`, class name to source row or source class name.
        unmatched: with `head_init="source"`, what a class without a source row starts from: `random`, or the `mean`
            of all rows.
        seed: of the new layer's weights; `fit` with this seed draws the same.

    Returns:
        The network, in eval mode on the CPU: (B, 3, H, W) float32 to (B, K) float32 logits. Beside its parameters
        lie `classes` and `data_config`; `fit(data, source=…)` trains a copy of it.

    Raises:
        ModelError: no output layer can be found, or `head` is none.
        RecipeError: no classes, a class twice, a mapping that cannot be followed.
    """
    target = make_target(
        source_of(source, head=head),
        classes,
        head_init=head_init,
        seed=derive_seed(seed, "target"),
        mapping=mapping,
        unmatched=unmatched,
    )
    network: Any = target.network
    network.classes, network.data_config = target.classes, target.source.data_config
    network.description = target.description()
    return target.network


def source_of(module: nn.Module, *, head: str | None = None, **user: Any) -> SourceModel:
    """A copy of any network as a source model.

    Args:
        module: left as it is, wherever it lies.
        head: the name of its output layer; None finds it.
        user: fields of `DataConfig` that the user asked for; None changes nothing.

    Raises:
        ModelError: it is no module, its output layer cannot be found, or a field is out of range.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"source is a {type(module).__name__}, not an nn.Module.", hint="Give a name, a module, or a target model."
        )
    network = copy.deepcopy(module).cpu().float().eval()
    description = _description(network, head)
    description = replace(description, data_config=description.data_config.with_user(**user))
    digest = tensors_sha256(network)
    origin = f"the module handed in (SHA-256 of its tensors {digest[:12]}…)"
    return SourceModel(network, description, description.network_name, origin, digest)


def kept_target(source: SourceModel, classes: Sequence[str]) -> TargetModel:
    """A target model that was handed in, its head kept, with its outputs in the order of a dataset's classes.

    Args:
        source: the target model itself, as `source_of` gives it; its labels are its classes.
        classes: of the dataset, in its order.

    Raises:
        RecipeError: the names are not the same ones.
    """
    own, wanted = source.labels or (), tuple(map(class_name, classes))
    if set(own) != set(wanted):
        missing = [name for name in wanted if name not in own]
        offer = next(filter(None, (nearest(name, own) for name in missing)), "")
        raise RecipeError(
            f"the target model's classes are {first_few(own, 8)}; the images' classes are {first_few(wanted, 8)}.",
            hint=f"{offer[:1].upper()}{offer[1:]} Make the target model with classes={list(wanted)[:8]}.".strip(),
        )
    network = copy.deepcopy(source.network)
    order = torch.tensor([own.index(name) for name in wanted])
    with torch.no_grad():
        for name in source.heads:
            layer = output_layer(network, name)
            layer.weight.copy_(layer.weight[order])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[order])
    return TargetModel(
        network=network,
        source=source,
        classes=wanted,
        head_names=source.heads,
        copied=tuple(network.state_dict()),
        new=(),
        head_init="library",
        unmatched="random",
        matches={name: [] for name in wanted},
    )


def is_target(module: nn.Module) -> bool:
    """Whether a module came from `target_model`."""
    return isinstance(getattr(module, "classes", None), tuple) and _tag(module) is not None


def tensors_sha256(network: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of every tensor, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _description(network: nn.Module, head: str | None) -> ModelDescription:
    """The one that lies beside the network, if it still holds; otherwise one of the user's own class."""
    tag = _tag(network)
    if tag is not None and tag.is_of(network) and (head is None or (head,) == head_names(network, tag.num_classes)):
        return tag
    heads = (checked_head(network, head),) if head is not None else tag.heads if tag else ()
    heads = heads or (last_layer(network),)
    outputs = outputs_of(output_layer(network, heads[-1]))
    config = getattr(network, "data_config", None)
    return ModelDescription(
        library=OWN,
        architecture=f"{type(network).__module__}.{type(network).__qualname__}",
        num_classes=outputs,
        labels=tag.labels if tag and tag.num_classes == outputs else None,
        data_config=config if isinstance(config, DataConfig) else DataConfig(),
        heads=heads,
    )


def _tag(module: nn.Module) -> ModelDescription | None:
    found = getattr(module, "description", None)
    return found if isinstance(found, ModelDescription) else None
