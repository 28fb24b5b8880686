"""The names of Gluon's model zoo that relish builds, and what they may be told besides.

In:   a name such as `resnet18_v2`, and `model_args` as a file's header holds them.
Out:  the network, or a refusal of what could not be built.
Not here: how the networks are made (`networks.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from relish.core.errors import ModelError
from relish.models.gluon.networks import FAMILIES


@dataclass(frozen=True)
class Spec:
    """One name of the zoo."""

    family: str
    """A key of `FAMILIES`."""
    args: Mapping[str, Any]
    """What tells it from others of its family; `model_args` may give other values."""
    parameters: int
    """How many it learns, with 1000 classes."""


_BASIC, _BOTTLENECK = [64, 64, 128, 256, 512], [64, 256, 512, 1024, 2048]


def _resnet(version: int, kind: str, layers: list[int], parameters: int) -> Spec:
    channels = _BASIC if kind == "basic" else _BOTTLENECK
    return Spec(f"resnet_v{version}_{kind}", {"layers": layers, "channels": channels}, parameters)


SPECS: Mapping[str, Spec] = {
    "resnet18_v1": _resnet(1, "basic", [2, 2, 2, 2], 11_689_512),
    "resnet34_v1": _resnet(1, "basic", [3, 4, 6, 3], 21_797_672),
    "resnet50_v1": _resnet(1, "bottleneck", [3, 4, 6, 3], 25_575_912),
    "resnet101_v1": _resnet(1, "bottleneck", [3, 4, 23, 3], 44_589_800),
    "resnet152_v1": _resnet(1, "bottleneck", [3, 8, 36, 3], 60_252_648),
    "resnet18_v2": _resnet(2, "basic", [2, 2, 2, 2], 11_687_848),
    "resnet34_v2": _resnet(2, "basic", [3, 4, 6, 3], 21_796_008),
    "resnet50_v2": _resnet(2, "bottleneck", [3, 4, 6, 3], 25_549_480),
    "resnet101_v2": _resnet(2, "bottleneck", [3, 4, 23, 3], 44_541_608),
    "resnet152_v2": _resnet(2, "bottleneck", [3, 8, 36, 3], 60_185_256),
    "mobilenet1.0": Spec("mobilenet", {"multiplier": 1.0}, 4_231_976),
    "mobilenet0.75": Spec("mobilenet", {"multiplier": 0.75}, 2_585_560),
    "mobilenet0.5": Spec("mobilenet", {"multiplier": 0.5}, 1_331_592),
    "mobilenet0.25": Spec("mobilenet", {"multiplier": 0.25}, 470_072),
    "mobilenetv2_1.0": Spec("mobilenet_v2", {"multiplier": 1.0}, 3_504_960),
    "mobilenetv2_0.75": Spec("mobilenet_v2", {"multiplier": 0.75}, 2_627_592),
    "mobilenetv2_0.5": Spec("mobilenet_v2", {"multiplier": 0.5}, 1_964_736),
    "mobilenetv2_0.25": Spec("mobilenet_v2", {"multiplier": 0.25}, 1_516_392),
}
"""In the order in which they are listed; the first of a family stands for those of other depths and widths."""

MOST_STAGES, MOST_BLOCKS, MOST_CHANNELS = 8, 100, 16_384
SLIMMEST, WIDEST = 1 / 16, 8
"""Multipliers; below the first a layer of MobileNetV2 would have no channels."""


def build_gluon(architecture: str, model_args: Mapping[str, Any], num_classes: int) -> nn.Module:
    """A network of the zoo with weights drawn as the book's MXNet tab draws them.

    Args:
        architecture: a key of `SPECS`.
        model_args: `layers` and `channels` of a ResNet, `multiplier` of a MobileNet; the name's own where absent.
        num_classes: outputs of the last layer.

    Raises:
        ModelError: an argument it does not take, or one out of range.
    """
    spec = SPECS[architecture]
    unknown = sorted(set(model_args) - set(spec.args))
    if unknown:
        raise ModelError(
            f"gluon/{architecture} has no model_args {', '.join(unknown)}.", hint=f"It takes: {', '.join(spec.args)}."
        )
    args = {**spec.args, **model_args}
    _check(args)
    return FAMILIES[spec.family](num_classes, **args)


def _check(args: Mapping[str, Any]) -> None:
    if "multiplier" in args:
        multiplier = args["multiplier"]
        number = isinstance(multiplier, int | float) and not isinstance(multiplier, bool)
        if not number or not SLIMMEST <= multiplier <= WIDEST:
            raise ModelError(f"multiplier must be a number from {SLIMMEST} to {WIDEST}, got {multiplier!r}.")
        return
    layers, channels = args["layers"], args["channels"]
    if not _whole(layers, 1, MOST_BLOCKS) or not 1 <= len(layers) <= MOST_STAGES:
        raise ModelError(
            f"layers must be 1 to {MOST_STAGES} whole numbers from 1 to {MOST_BLOCKS}, the blocks of each stage, "
            f"got {layers!r}."
        )
    if not _whole(channels, 1, MOST_CHANNELS) or len(channels) != len(layers) + 1:
        raise ModelError(
            f"channels must be one more whole numbers than layers, the first convolution's and each stage's, "
            f"from 1 to {MOST_CHANNELS}, got {channels!r}."
        )


def _whole(given: Any, lowest: int, highest: int) -> bool:
    return isinstance(given, list | tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) and lowest <= n <= highest for n in given
    )
