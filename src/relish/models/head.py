"""Find a network's output layer, whatever its architecture calls it.

In:   a network and how many classes it has.
Out:  the names of the modules that give the class scores: `fc`, `classifier.1`, `heads.head`, `head.fc`…
Not here: what a new one starts from (`head_init.py`).

Names come from timm's own record where the network carries one; the rule for every other is the last linear layer, or
1 × 1 convolution, with one output per class. Either way the module is looked at before it is believed.
"""

from typing import Any, cast

from torch import nn

from relish.core.errors import ModelError

OutputLayer = nn.Linear | nn.Conv2d


def head_names(network: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The output layer's module name; two for networks distilled with a second head, such as DeiT.

    Raises:
        ModelError: no layer has one output per class.
    """
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


def output_layer(network: nn.Module, name: str) -> OutputLayer:
    """The module of that name, known to be an output layer."""
    return cast(OutputLayer, network.get_submodule(name))


def head_words(network: nn.Module, name: str) -> str:
    """The layer as the book writes it: `fc: 512 → 1000`."""
    layer = output_layer(network, name)
    return f"{name}: {_inputs(layer)} → {_outputs(layer)}"


def _recorded(network: nn.Module) -> tuple[str, ...]:
    record: Any = getattr(network, "pretrained_cfg", None) or {}
    names = record.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _gives(module: nn.Module, num_classes: int) -> bool:
    if isinstance(module, nn.Linear):
        return module.out_features == num_classes
    return isinstance(module, nn.Conv2d) and module.out_channels == num_classes and set(module.kernel_size) == {1}


def _inputs(layer: OutputLayer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _outputs(layer: OutputLayer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
