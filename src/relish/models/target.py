"""Steps 2 and 3, the target model: the source's network with everything copied but the output layer.

The target is built afresh for its own number of classes, so that the file it is saved to can be built the same way.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import nn

from relish.core.errors import ModelError, RecipeError
from relish.core.runtime import derive_seed
from relish.data.dataset import class_name
from relish.models.head import (
    HeadInit,
    Match,
    OutputLayer,
    Unmatched,
    exchange_head,
    head_names,
    initialise_head,
    match_classes,
    output_layer,
)
from relish.models.saved_model import OWN, ModelDescription
from relish.models.source import SourceModel


@dataclass(frozen=True, eq=False)
class TargetModel:
    """A network for the user's classes, and where its tensors came from."""

    network: nn.Module
    """In eval mode, on the CPU, float32."""
    source: SourceModel
    """What it was made from; left as it was."""
    classes: tuple[str, ...]
    """One per output, in order."""
    head_names: tuple[str, ...]
    """The output layer's module name; two where the architecture has two."""
    copied: tuple[str, ...]
    """Names of the tensors that are the source's, statistics and counters included."""
    new: tuple[str, ...]
    """Names of the tensors that are not."""
    head_init: HeadInit
    """What the output layer started from."""
    unmatched: Unmatched
    """With `head_init="source"`, what classes without a source row started from."""
    matches: Mapping[str, list[Match]]
    """For each class, the source row its name stands for, none or one; empty lists unless `head_init` is `source`."""

    @property
    def heads(self) -> list[OutputLayer]:
        """The output layers themselves."""
        return [output_layer(self.network, name) for name in self.head_names]

    def head_parameters(self) -> list[nn.Parameter]:
        """The output layer's parameters."""
        return [parameter for head in self.heads for parameter in head.parameters()]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Every other parameter, frozen ones included."""
        head = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in self.network.parameters() if id(parameter) not in head]

    def count(self, names: Sequence[str]) -> tuple[int, int]:
        """Number of tensors with these names, and of parameters in them (statistics are none)."""
        parameters = dict(self.network.named_parameters())
        return len(names), sum(parameters[name].numel() for name in names if name in parameters)

    def description(self) -> ModelDescription:
        """What a file of this model carries besides its tensors."""
        return replace(self.source.description, num_classes=len(self.classes), labels=self.classes)


def make_target(
    source: SourceModel,
    classes: Sequence[str],
    *,
    head_init: HeadInit = "xavier",
    seed: int,
    mapping: Mapping[str, str | int] | None = None,
    unmatched: Unmatched = "random",
    random_weights: bool = False,
) -> TargetModel:
    """Copy everything but the output layer, and give it one output per class.

    Args:
        source: left as it is.
        classes, head_init, mapping, unmatched: as `own_module.target_model` takes them.
        seed: of every draw; the global random state is left as it was.
        random_weights: copy nothing: the same network, all of it as the library initialises it.

    Returns:
        The target in eval mode; every tensor but the output layer's is bitwise the source's.

    Raises:
        RecipeError: no classes, a class twice, a mapping that cannot be followed, settings that contradict, source rows
            of a source that is published without a classifier.
        ModelError: the architecture's output layer cannot be found or exchanged.
    """
    names = tuple(map(class_name, classes))
    mapping = {class_name(name): row for name, row in (mapping or {}).items()}
    _check(names, head_init, mapping, random_weights)
    if head_init == "source" and not source.heads:
        raise RecipeError(
            f"{source.name} is published without a classifier: it has no rows that a class could start from.",
            hint="Leave out --recipe source-head and head=source, or take a --source with a classifier.",
        )
    matches: dict[str, list[Match]] = {name: [] for name in names}
    if head_init == "source":
        matches = match_classes(names, source.labels, source.num_classes, mapping)
    network = _built(source, len(names), derive_seed(seed, "weights"), random_weights)
    heads = _heads(source, network, len(names))
    copied = () if random_weights else _copy(source, network, heads)
    rows = [found[0][0] if found else None for found in matches.values()]
    for place, head in enumerate(heads):
        initialise_head(
            output_layer(network, head),
            output_layer(source.network, head) if source.heads else None,
            rows,
            head_init="library" if random_weights else head_init,
            unmatched=unmatched,
            seed=derive_seed(seed, "output layer", place),
        )
    return TargetModel(
        network=network,
        source=source,
        classes=names,
        head_names=heads,
        copied=copied,
        new=tuple(name for name in network.state_dict() if name not in set(copied)),
        head_init="library" if random_weights else head_init,
        unmatched=unmatched,
        matches=matches,
    )


def _check(classes: tuple[str, ...], head_init: str, mapping: Mapping[str, str | int], random_weights: bool) -> None:
    if not classes or len(set(classes)) != len(classes):
        raise RecipeError(f"a target model needs classes, each named once; got {len(classes)}: {', '.join(classes)}.")
    if head_init not in get_args(HeadInit):
        raise RecipeError(f'head_init must be one of {", ".join(get_args(HeadInit))}, got "{head_init}".')
    if mapping and head_init != "source":
        raise RecipeError(
            f"--map is only read where the head starts from source rows, not with head={head_init}.",
            hint="Add --recipe source-head, or --set head=source.",
        )
    if random_weights and head_init == "source":
        raise RecipeError(
            "head=source starts the head from the source's, but all weights are to be random.",
            hint="Take another --set head=…, or a recipe that copies the source.",
        )


def _built(source: SourceModel, num_classes: int, seed: int, random_weights: bool) -> nn.Module:
    if source.description.library != OWN:
        return replace(source.description, num_classes=num_classes, labels=None).build(seed)
    if random_weights:
        raise RecipeError(
            f"this recipe starts from random weights, which relish cannot draw for {source.description.architecture}.",
            hint='Hand in a module that you initialised, and take it as it is: settings={"start": "source"}.',
        )
    network = copy.deepcopy(source.network)
    for name in source.heads:
        exchange_head(network, name, num_classes, seed)
    return network


def _heads(source: SourceModel, network: nn.Module, num_classes: int) -> tuple[str, ...]:
    if source.description.library == OWN:
        return source.heads
    heads = head_names(network, num_classes)
    if source.heads and source.heads != heads:
        raise ModelError(
            f"{source.description.network_name}: its output layer is not the same one for {num_classes} classes.",
            hint="relish cannot take this architecture as a source; choose another.",
        )
    return heads


@torch.no_grad()
def _copy(source: SourceModel, network: nn.Module, heads: Sequence[str]) -> tuple[str, ...]:
    """Every tensor but the output layer's, and whether it learns."""
    given = source.network.state_dict()
    copied = [name for name in given if not _belongs(name, heads)]
    wanted = network.state_dict()
    if lacking := [name for name in wanted if name not in given and not _belongs(name, heads)]:
        raise ModelError(f"{source.description.network_name}: its weights have no {lacking[0]}.")
    for name in copied:
        if name not in wanted or wanted[name].shape != given[name].shape:
            raise ModelError(f"{source.description.network_name}: {name} changes with the number of classes.")
        wanted[name].copy_(given[name])
    learns = {name: parameter.requires_grad for name, parameter in source.network.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_belongs(name, heads) or learns[name])
    return tuple(copied)


def _belongs(tensor: str, heads: Sequence[str]) -> bool:
    return any(tensor.startswith(f"{head}.") for head in heads)
