"""The output layer: find it in a network, match class names to its rows, and initialise a new one.

Names come from timm's own record where the network carries one; the rule for every other is the last linear layer, or
1 × 1 convolution, with one output per class. Either way the module is checked before it is used. The random draws of a
new layer depend on the seed and on the layer's shape alone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, cast

import torch
from torch import Tensor, nn

from relish.core.errors import ModelError, RecipeError, nearest
from relish.core.runtime import derive_seed
from relish.data.dataset import class_name
from relish.models.registry import imagenet_labels, label_set_of, names_of_rows

OutputLayer = nn.Linear | nn.Conv2d


def head_names(network: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The output layer's module name; two for networks distilled with a second head, such as DeiT; none for 0 classes.

    Raises:
        ModelError: no layer has one output per class.
    """
    if num_classes == 0:
        return ()
    recorded = _recorded(network)
    modules = dict(network.named_modules())
    if recorded and all(name in modules and _gives(modules[name], num_classes) for name in recorded):
        return recorded
    found = [name for name, module in modules.items() if _gives(module, num_classes)]
    if not found:
        raise ModelError(
            f"{type(network).__name__} has no output layer of {num_classes} classes that relish can find.",
            hint="It must end in a linear layer or a 1 × 1 convolution; choose another --source.",
        )
    return (found[-1],)


def last_layer(network: nn.Module) -> str:
    """The output layer's module name where the number of classes is not known: the last layer that could be one.

    Raises:
        ModelError: there is none.
    """
    recorded = _recorded(network)
    found: list[str] = [name for name, module in network.named_modules() if _could_be_output(module)]
    if recorded and recorded[0] in found:
        return recorded[0]
    if not found or not found[-1]:
        raise ModelError(
            f"{type(network).__name__} has no output layer that relish can find: no linear layer or 1 × 1 convolution.",
            hint="It must end in one, so that it can be exchanged for one of your classes.",
        )
    return str(found[-1])


def checked_head(network: nn.Module, name: str) -> str:
    """The same name, if a layer of that name could be an output layer.

    Raises:
        ModelError: there is no such module, or it is no linear layer and no 1 × 1 convolution.
    """
    layers = [known for known, module in network.named_modules() if known and _could_be_output(module)]
    if name in layers:
        return name
    modules = dict(network.named_modules())
    what = f"is a {type(modules[name]).__name__}" if name in modules else "is none of its modules"
    offer = nearest(name, layers) or f"It has: {', '.join(layers[-8:]) or 'none'}."
    raise ModelError(
        f'head="{name}": {what}, not a linear layer or a 1 × 1 convolution of {type(network).__name__}.', hint=offer
    )


def exchange_head(network: nn.Module, name: str, num_classes: int, seed: int = 0) -> None:
    """Put a new layer of `num_classes` outputs in the place of an output layer; nothing, where it has as many.

    Args:
        network: changed in place.
        name: of the output layer.
        num_classes: outputs of the new one, whose weights are as torch draws them.
        seed: of the draws; the global random state is left as it was.

    Raises:
        ModelError: as `checked_head` does.
    """
    layer: Any = output_layer(network, checked_head(network, name))
    if outputs_of(layer) == num_classes:
        return
    bias = layer.bias is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        new = (
            nn.Linear(layer.in_features, num_classes, bias=bias)
            if isinstance(layer, nn.Linear)
            else nn.Conv2d(layer.in_channels, num_classes, 1, layer.stride, bias=bias)
        )
    network.set_submodule(name, new.to(layer.weight.device))


def output_layer(network: nn.Module, name: str) -> OutputLayer:
    """The module of that name, known to be an output layer."""
    return cast(OutputLayer, network.get_submodule(name))


def head_words(network: nn.Module, name: str) -> str:
    """The layer as the book writes it: `fc: 512 → 1000`."""
    layer = output_layer(network, name)
    return f"{name}: {_inputs(layer)} → {outputs_of(layer)}"


def _recorded(network: nn.Module) -> tuple[str, ...]:
    record: Any = getattr(network, "pretrained_cfg", None) or {}
    names: str | Sequence[str] = record.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _could_be_output(module: nn.Module) -> TypeGuard[OutputLayer]:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1})


def _gives(module: nn.Module, num_classes: int) -> bool:
    return _could_be_output(module) and outputs_of(module) == num_classes


def _inputs(layer: OutputLayer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def outputs_of(layer: OutputLayer) -> int:
    """How many classes an output layer is for."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


HeadInit = Literal["xavier", "xavier-zero", "zeros", "source", "library"]
Unmatched = Literal["random", "mean"]


@torch.no_grad()
def initialise_head(
    layer: OutputLayer,
    source: OutputLayer | None,
    rows: Sequence[int | None],
    *,
    head_init: HeadInit,
    unmatched: Unmatched,
    seed: int,
) -> None:
    """Set the weight and bias of an output layer.

    Args:
        layer: (K, D) weight, or (K, D, 1, 1); changed in place.
        source: the source's layer, (S, D), and its bias, (S,); None where it has none, and so no rows.
        rows: for each of the K classes, the source row it starts from; read only with `head_init="source"`.
        head_init: `xavier`: Xavier-uniform weight (Glorot and Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html)
            and torch's own initial bias, as in the book's PyTorch tab; `xavier-zero`: the same weight and a bias of
            zero, as in its MXNet tab; `zeros`; `source`: rows and biases of the source head; `library`: left as the
            library built it.
        unmatched: with `source`, what a class without a row starts from: as `xavier`, or the mean of all rows.
        seed: of the draws; the global random state is left as it was.
    """
    if head_init == "library":
        return
    if head_init == "zeros":
        layer.weight.zero_()
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "head"))
            layer.reset_parameters()
            nn.init.xavier_uniform_(layer.weight)
    if head_init in ("zeros", "xavier-zero") and layer.bias is not None:
        layer.bias.zero_()
    if head_init == "source" and source is not None:
        _copy_rows(layer.weight, source.weight, rows, unmatched)
        if layer.bias is not None and source.bias is not None:
            _copy_rows(layer.bias, source.bias, rows, unmatched)


def _copy_rows(new: Tensor, source: Tensor, rows: Sequence[int | None], unmatched: Unmatched) -> None:
    for place, row in enumerate(rows):
        if row is not None:
            new[place] = source[row]
        elif unmatched == "mean":
            new[place] = source.mean(dim=0)


Match = tuple[int, str]
"""A source row and its label."""


def match_words(row: int, label: str) -> str:
    """Such as `934 "hotdog"`; the number alone where the source has no name for the row."""
    return f'{row} "{label}"' if label else str(row)


def match_classes(
    classes: Sequence[str], labels: tuple[str, ...] | None, rows: int, mapping: Mapping[str, str | int]
) -> dict[str, list[Match]]:
    """Find each class among the source's rows, the user's mapping first.

    Args:
        classes: the target's class names.
        labels: one per source row; None where nobody knows them.
        rows: how many rows the source head has.
        mapping: class name to row number or source name, as `--map hotdog=934` gives it.

    Returns:
        For each class, in order, no row or one.

    Raises:
        RecipeError: the mapping names an unknown class, row or source name; or a name stands for several rows.
    """
    for name in mapping:
        if name not in classes:
            raise RecipeError(
                f'--map {name}={mapping[name]}: there is no class "{name}".',
                hint=nearest(name, classes) or f"The classes: {', '.join(classes)}.",
            )
    index: dict[str, list[int]] = defaultdict(list)
    for row, names in enumerate(names_of_rows(labels) if labels else []):
        for known in dict.fromkeys(map(normalised, names)):
            index[known].append(row)
    return {name: _match(name, mapping.get(name), labels, rows, index) for name in classes}


def normalised(name: str) -> str:
    """A name as it is compared: lower case, without spaces, hyphens and underscores."""
    return "".join(class_name(name).casefold().replace("-", "").replace("_", "").split())


def _match(
    name: str, mapped: str | int | None, labels: tuple[str, ...] | None, rows: int, index: Mapping[str, list[int]]
) -> list[Match]:
    if mapped is None:
        return _only(name, index.get(normalised(name), []), labels)
    if isinstance(mapped, int) or mapped.strip().lstrip("-").isdecimal():
        return [_row(name, int(mapped), labels, rows)]
    found = index.get(normalised(mapped), [])
    if not found:
        known = [one for row in names_of_rows(labels) for one in row] if labels else []
        offer = nearest(mapped, known) if known else "This source has no class names; give the number of a row."
        raise RecipeError(f'--map {name}={mapped}: the source has no class "{mapped}".', hint=offer)
    return _only(name, found, labels)


def _row(name: str, row: int, labels: tuple[str, ...] | None, rows: int) -> Match:
    if not 0 <= row < rows:
        raise RecipeError(
            f"--map {name}={row}: the source head has the rows 0 to {rows - 1}.",
            hint="Give one of these, or the name of a source class.",
        )
    return row, labels[row] if labels else ""


def _only(name: str, found: list[int], labels: tuple[str, ...] | None) -> list[Match]:
    if labels is None or not found:
        return []
    if len(found) > 1:
        label_set = label_set_of(labels)
        words = imagenet_labels(label_set, detailed=True) if label_set else labels
        raise RecipeError(
            f'class "{name}" could be any of these source classes: '
            + "; ".join(f"{row} ({words[row]})" for row in found),
            hint=f"Say which: --map {name}={found[0]}.",
        )
    return [(found[0], labels[found[0]])]
