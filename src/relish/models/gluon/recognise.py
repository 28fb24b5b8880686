"""Work out which of Gluon's networks a file of tensors is of.

In:   the tensors of a file, under plain names.
Out:  the name of a network, its `model_args` and its number of classes.
Not here: checking that every tensor fits (`loading.py`), reading the file (`params.py`).

A few names and shapes decide. Where the depths and widths are those of a name in the zoo, it is that one; where not,
the first of its family with `model_args`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relish.core.errors import ModelError
from relish.models.gluon.networks import LAST_WIDTH, MOBILENET_V2_WIDTHS, MOBILENET_WIDTHS, STEM_WIDTH
from relish.models.gluon.specs import SPECS

Shape = tuple[int, ...]

_OUTPUTS = ("output.weight", "output.0.weight", "dense0_weight", "output_pred_weight")
_STAGE = re.compile(r"(?:stage(\d{1,3})_conv\d+_weight|features\.(\d{1,3})\.\d+\.(?:body|conv|downsample).*weight)")
_BLOCK = re.compile(r"(?:features_linearbottleneck(\d{1,3})_conv2_weight|features\.(\d{1,3})\.out\.6\.weight)")


@dataclass(frozen=True)
class Recognised:
    """What a file's tensors are of."""

    architecture: str
    model_args: Mapping[str, Any]
    num_classes: int


def recognise(tensors: Mapping[str, Tensor], told: str) -> Recognised:
    """Say which network the tensors are of, by names and shapes; `told` is what to call them in an error.

    Raises:
        ModelError: they are of none that relish knows.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    output = next((shapes[name] for name in _OUTPUTS if shapes.get(name)), None)
    if output is None:
        raise _unknown(told, shapes)
    found = _mobilenet_v2(shapes) or _resnet(shapes) or _mobilenet(shapes)
    if found is None:
        raise _unknown(told, shapes)
    family, args = found
    return Recognised(*_named(family, args), num_classes=output[0])


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


def _unknown(told: str, shapes: Mapping[str, Shape]) -> ModelError:
    few = ", ".join(name[:60] for name in list(shapes)[:3])
    return ModelError(
        f"{told}: its {len(shapes)} tensors ({few}…) are of no Gluon network that relish knows.",
        hint="It knows the ResNets v1 and v2, MobileNet and MobileNetV2 of Gluon's model zoo: relish models gluon/",
    )
