"""What Gluon calls the tensors of a network, in its files, and what they are called here.

In:   a network of `networks.py`, and the names and tensors of a file.
Out:  the tensors under the network's own names.
Not here: which network a file is of (`recognise.py`).

Gluon has written two kinds of names: by place, `features.5.0.bn1.gamma` (`save_parameters`), and by counting layers in
each scope, `resnetv20_stage1_batchnorm0_gamma` (`export`, `ParameterDict.save`, older versions), where what stands
before the first scope is the network's own prefix: any word, or none. In the book's fine-tuned network the prefix of
the output layer is another than that of the features it was given. `export` puts `arg:` or `aux:` before a name.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from relish.core.errors import ModelError
from relish.models.gluon.layers import Norm, Scope

_ENDS = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
"""What Gluon calls the tensors of a norm."""
_COUNTED = re.compile(
    r"(?:^|_)((?:stage\d+_|features_(?:linearbottleneck\d+_)?|output_)?"
    r"(?:(?:conv|batchnorm|dense)\d+|pred)_(?:weight|bias|gamma|beta|running_mean|running_var))$"
)


def plain_names(tensors: Mapping[str, Tensor], told: str) -> dict[str, Tensor]:
    """The tensors without `arg:`, `aux:` and the network's prefix.

    Raises:
        ModelError: two names become one.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = plain_name(name)
        if short in plain:
            raise ModelError(
                f"{told}: holds {short} twice, the second time as {name[:80]}.",
                hint="Save the network alone: net.save_parameters(FILE).",
            )
        plain[short] = tensor
    return plain


def plain_name(name: str) -> str:
    """One name without what may stand before it."""
    name = re.sub(r"^(?:arg|aux):", "", name)
    counted = _COUNTED.search(name)
    return counted[1] if counted else name


def own_names(network: nn.Module, *, counted: bool) -> dict[str, str]:
    """Gluon's plain name of every tensor in its files, to the name it has here.

    Args:
        network: one of Gluon's.
        counted: names by counting, not by place.

    Returns:
        A factor that Gluon stores and does not use (`scale=False`) has the name "" here.
    """
    names: dict[str, str] = {}
    for path, prefix, layer in _layers(network, "", "", Counter()):
        if isinstance(layer, Norm):
            ends = [(_ENDS[own], own) for own in _ENDS]
        else:
            ends = [(own, own) for own in ("weight", "bias") if getattr(layer, own) is not None]
        for theirs, own in ends:
            there = f"{prefix}_{theirs}" if counted else f"{path}.{theirs}"
            names[there] = "" if getattr(layer, own) is None else f"{path}.{own}"
    return names


def renamed(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file under the names of the network.

    Args:
        tensors: under plain names of either kind; what the network does not know keeps its name.
        network: one of Gluon's, on any device.
    """
    known = own_names(network, counted=is_counted(tensors))
    return {known.get(name, name): tensor for name, tensor in tensors.items() if known.get(name, name)}


def is_counted(tensors: Mapping[str, Tensor]) -> bool:
    """Whether names go by counting, rather than by place."""
    return not any(name.startswith("features.") for name in tensors)


def _layers(module: nn.Module, path: str, scope: str, counts: Counter[str]) -> Iterator[tuple[str, str, nn.Module]]:
    """Every layer with tensors: its place, and its scope with its number there."""
    if isinstance(module, Scope):
        scope, counts = scope + module.scope, Counter()
    kind = {nn.Conv2d: "conv", nn.Linear: "dense", Norm: "batchnorm"}.get(type(module))
    if kind is not None:
        # The only layer that Gluon's own networks name by hand: MobileNetV2's output.
        yield path, scope + ("pred" if scope == "output_" else f"{kind}{counts[kind]}"), module
        counts[kind] += 1
    for name, child in module.named_children():
        yield from _layers(child, f"{path}.{name}".lstrip("."), scope, counts)
