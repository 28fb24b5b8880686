"""A Gluon file as a network: its tensors' names translated, its architecture recognised, and the network filled.

A few names and shapes decide which network a file is of. Where the depths and widths are those of a name in the zoo, it
is that one; where not, the first of its family with `model_args`.

A head of 1000 outputs is taken to be in the order of ImageNet's classes. That is a claim, not a fact: another order is
about for these very networks, so rows are checked on images before anything rests on them
(`evaluation/source_rows.py`).

Gluon has written two kinds of names: by position, `features.5.0.bn1.gamma` (`save_parameters`), and by counting layers
in each scope, `resnetv20_stage1_batchnorm0_gamma` (`export`, `ParameterDict.save`, older versions), where what stands
before the first scope is the network's own prefix: any word, or none. In the book's fine-tuned network the prefix of
the output layer is another than that of the features it was given. `export` puts `arg:` or `aux:` before a name.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relish.core.errors import ModelError
from relish.models.gluon.networks import (
    LAST_WIDTH,
    MOBILENET_V2_WIDTHS,
    MOBILENET_WIDTHS,
    SPECS,
    STEM_WIDTH,
    Norm,
    Scope,
)
from relish.models.gluon.params import read_params
from relish.models.registry import imagenet_labels
from relish.models.saved_model import DataConfig, ModelDescription
from relish.models.weights import check_fit, fill, shapes_of


def gluon_description(
    architecture: str, model_args: Mapping[str, Any] | None = None, num_classes: int = 1000
) -> ModelDescription:
    """What weights of this name are like; Gluon's published ones have a thousand classes, ImageNet's, at 224 px.

    Source: MXNet 1.9.1, gluon/model_zoo/vision/__init__.py, which gives ImageNet's mean and std.
    """
    return ModelDescription(
        library="gluon",
        architecture=architecture,
        model_args=model_args or {},
        num_classes=num_classes,
        labels=imagenet_labels() if num_classes == 1000 else None,
        data_config=DataConfig.from_weights(DataConfig().as_dict()),
    )


def load_params(path: Path, architecture: str | None = None) -> tuple[nn.Module, ModelDescription]:
    """Build the network a Gluon file is of, and fill it.

    Args:
        path: a `.params` file.
        architecture: the network it must be of; None recognises it by its tensors.

    Raises:
        ModelError: the file cannot be read, is of no network that relish knows, or of another than asked for.
    """
    tensors = plain_names(read_params(path), str(path))
    description = recognise(tensors, str(path))
    name = description.network_name
    if architecture not in (None, description.architecture):
        raise ModelError(
            f"{path}: is a {name}, not --source gluon/{architecture}.",
            hint="Omit --source: names and shapes say which network it is.",
        )
    with torch.device("meta"):
        hollow = description.build()
    fitting = renamed(tensors, hollow)
    # Before any memory is taken for the network.
    advice = "It may be another version of that network, or damaged."
    check_fit(shapes_of(fitting), shapes_of(hollow.state_dict()), str(path), name, advice=advice)
    network = description.build()
    fill(network, fitting, told=str(path), network_name=name)
    return network, description


Shape = tuple[int, ...]

_OUTPUTS = ("output.weight", "output.0.weight", "dense0_weight", "output_pred_weight")
_STAGE = re.compile(r"(?:stage(\d{1,3})_conv\d+_weight|features\.(\d{1,3})\.\d+\.(?:body|conv|downsample).*weight)")
_BLOCK = re.compile(r"(?:features_linearbottleneck(\d{1,3})_conv2_weight|features\.(\d{1,3})\.out\.6\.weight)")


def recognise(tensors: Mapping[str, Tensor], told: str) -> ModelDescription:
    """Recognise the network the tensors are of by names and shapes; errors call the file `told`.

    Raises:
        ModelError: they are of none that relish knows.
    """
    shapes = shapes_of(tensors)
    output = next((shapes[name] for name in _OUTPUTS if shapes.get(name)), None)
    found = _mobilenet_v2(shapes) or _resnet(shapes) or _mobilenet(shapes)
    if output is None or found is None:
        few = ", ".join(name[:60] for name in list(shapes)[:3])
        raise ModelError(
            f"{told}: its {len(shapes)} tensors ({few}…) are of no Gluon network that relish knows.",
            hint="It knows the ResNets v1 and v2, MobileNet and MobileNetV2 of Gluon's model zoo: relish models gluon/",
        )
    return gluon_description(*_named(*found), num_classes=output[0])


def _named(family: str, args: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    same = [name for name, spec in SPECS.items() if spec.family == family]
    for name in same:
        if dict(SPECS[name].args) == dict(args):
            return name, {}
    # A depth of the zoo in other widths keeps the name of that depth.
    best = next((name for name in same if SPECS[name].args.get("layers") == args.get("layers")), same[0])
    return best, {key: value for key, value in args.items() if SPECS[best].args[key] != value}


def _resnet(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    stages: dict[int, list[Shape]] = defaultdict(list)
    for name, shape in shapes.items():
        if len(shape) == 4 and (found := _STAGE.fullmatch(name)):
            stages[int(found[1] or found[2])].append(shape)
    second = "features.0.gamma" in shapes or "batchnorm2_gamma" in shapes
    stem = shapes.get("conv0_weight") or shapes.get("features.1.weight" if second else "features.0.weight")
    if not stages or not stem:
        return None
    in_order = [stages[number] for number in sorted(stages)]
    square = [sum(shape[2:] == (3, 3) for shape in stage) for stage in in_order]
    pointed = [sum(shape[2:] == (1, 1) for shape in stage) for stage in in_order]
    # A basic block has two convolutions of 3 × 3, a bottleneck one between two of 1 × 1; a stage may have one more.
    kind = "bottleneck" if max(pointed) > 1 else "basic"
    layers = square if kind == "bottleneck" else [count // 2 for count in square]
    if not all(layers):
        return None
    channels = [stem[0], *(max(shape[0] for shape in stage) for stage in in_order)]
    return f"resnet_v{2 if second else 1}_{kind}", {"layers": layers, "channels": channels}


def _mobilenet(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    convolutions = [
        shapes.get(f"conv{number}_weight") or shapes.get(f"features.{3 * number}.weight")
        for number in range(2 * len(MOBILENET_WIDTHS) + 1)
    ]
    if any(shape is None or len(shape) != 4 for shape in convolutions):
        return None
    widths = [(STEM_WIDTH, convolutions[0]), *zip(MOBILENET_WIDTHS, convolutions[2::2], strict=True)]
    multiplier = _multiplier([(width, shape[0]) for width, shape in widths if shape])
    return None if multiplier is None else ("mobilenet", {"multiplier": multiplier})


def _mobilenet_v2(shapes: Mapping[str, Shape]) -> tuple[str, dict[str, Any]] | None:
    blocks = {int(found[1] or found[2]): shape for name, shape in shapes.items() if (found := _BLOCK.fullmatch(name))}
    stem = shapes.get("features_conv0_weight") or shapes.get("features.0.weight")
    last = shapes.get("features_conv1_weight") or shapes.get("features.20.weight")
    if len(blocks) != len(MOBILENET_V2_WIDTHS) or not stem or not last:
        return None
    pairs = [(STEM_WIDTH, stem[0])]
    pairs += [(w, blocks[n][0]) for w, n in zip(MOBILENET_V2_WIDTHS, sorted(blocks), strict=True) if blocks[n]]
    if last[0] > LAST_WIDTH:
        pairs.append((LAST_WIDTH, last[0]))
    multiplier = _multiplier(pairs)
    return None if multiplier is None else ("mobilenet_v2", {"multiplier": multiplier})


def _multiplier(pairs: list[tuple[int, int]]) -> float | None:
    """The shortest decimal m for which `int(width * m)` is the count of channels in every pair of them; None if none.

    One of the zoo's where it fits.
    """
    low, high = max(got / width for width, got in pairs), min((got + 1) / width for width, got in pairs)
    tried = [1.0, 0.75, 0.5, 0.25, *(math.ceil(low * 10**digits) / 10**digits for digits in range(1, 7))]
    return next((m for m in tried if low <= m < high and all(int(w * m) == got for w, got in pairs)), None)


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
    """Gluon's plain name of every tensor in its files, by place or `counted`, to the name it has here.

    A factor that Gluon stores and does not use (`scale=False`) has the name "" here.
    """
    names: dict[str, str] = {}
    for path, prefix, layer in _layers(network, "", "", Counter()):
        same = {own: own for own in ("weight", "bias") if getattr(layer, own) is not None}
        for own, theirs in (_ENDS if isinstance(layer, Norm) else same).items():
            there = f"{prefix}_{theirs}" if counted else f"{path}.{theirs}"
            names[there] = "" if getattr(layer, own) is None else f"{path}.{own}"
    return names


def renamed(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Tensors under plain names of either kind, under those of the network; what it does not know keeps its name."""
    by_place = any(name.startswith("features.") for name in tensors)
    known = own_names(network, counted=not by_place)
    return {known.get(name, name): tensor for name, tensor in tensors.items() if known.get(name, name)}


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
