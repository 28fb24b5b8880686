"""Gluon's own networks: ResNet v1 and v2, MobileNet and MobileNetV2, built as MXNet builds them, and the zoo's names.

They are not torchvision's: v1 bottlenecks have biases and take their stride in the first convolution, v2 begins with
a norm of its own and ends in one, MobileNetV2's head is a convolution without bias. Modules are nested and numbered as
in Gluon, activations included, so that `features.5.0.bn1` is the same norm in both.

Source: MXNet 1.9.1, gluon/model_zoo/vision/resnet.py and mobilenet.py; He et al. 2015, arXiv:1512.03385; He et al.
2016, arXiv:1603.05027; Howard et al. 2017, arXiv:1704.04861; Sandler et al. 2018, arXiv:1801.04381.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from relish.core.errors import ModelError

NEW_SHARE = 0.1
"""Of a batch's statistics in the running ones: torch's momentum. Gluon's, 0.9, is the share that is kept."""


class Scope(nn.Sequential):
    """A row of modules that begins a scope of Gluon's older names: `stage1_conv0_weight` is in the scope `stage1_`."""

    def __init__(self, scope: str, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.scope = scope


class Norm(nn.BatchNorm2d):
    """Gluon's batch norm, which differs from torch's in three ways (MXNet 1.9.1, measured on a processor).

    - Its running variance is the mean of *biased* variances of the batches; torch's of unbiased ones.
    - Running statistics move when the gradient comes back through the norm. Where none does, because nothing before it
      learns, they stay: so do those of the very first norm of a ResNet v2, however long it is trained.
    - With `scale=False` the factor is 1 and with `center=False` the offset does not learn. MXNet stores both all the
      same. A stored offset counts, so it is a buffer here; a stored factor does not, so there is none.
    """

    def __init__(self, channels: int, *, scale: bool = True, center: bool = True) -> None:
        super().__init__(channels, eps=1e-5, momentum=NEW_SHARE)
        if not scale:
            self.register_parameter("weight", None)
        if not center:
            del self.bias
            self.register_buffer("bias", torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float32, normed by this batch in train mode, by the running statistics in eval mode."""
        if not self.training:
            return super().forward(images)
        kept = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        # A momentum of 1 leaves the statistics of this batch alone.
        mean, variance = (torch.zeros_like(tensor) for tensor in kept)
        normed = functional.batch_norm(
            images, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        if normed.requires_grad:
            count = images.numel() // images.shape[1]
            with torch.no_grad():
                kept[0].lerp_(mean, NEW_SHARE)
                kept[1].lerp_(variance * ((count - 1) / count), NEW_SHARE)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        return normed


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size, but for its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def conv_norm(outputs: int, inputs: int, kernel: int, stride: int = 1, **options: Any) -> list[nn.Module]:
    """A convolution without bias and its norm."""
    return [conv(inputs, outputs, kernel, stride, **options), Norm(outputs)]


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Random weights as the book's MXNet tab draws them, `init.Xavier()`: every weight uniform, every bias zero.

    Source: Glorot and Bengio 2010, http://proceedings.mlr.press/v9/glorot10a.html; in MXNet the factor is the mean of
    both fans and the magnitude 3, which is the same bound.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                module.bias.zero_()


Block = Callable[[int, int, int, bool], nn.Module]
"""Channels in, channels out, stride, whether the shortcut needs a convolution."""


class _BlockV1(nn.Module):
    def __init__(self, body: list[nn.Module], inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.downsample = nn.Sequential(*conv_norm(outputs, inputs, 1, stride)) if project else None

    def forward(self, given: Tensor) -> Tensor:
        shortcut = given if self.downsample is None else self.downsample(given)
        return torch.relu_(self.body(given) + shortcut)


def _basic_v1(inputs: int, outputs: int, stride: int, project: bool) -> nn.Module:
    body = [*conv_norm(outputs, inputs, 3, stride), nn.ReLU(inplace=True), *conv_norm(outputs, outputs, 3)]
    return _BlockV1(body, inputs, outputs, stride, project)


def _bottleneck_v1(inputs: int, outputs: int, stride: int, project: bool) -> nn.Module:
    narrow = outputs // 4
    body = [
        *conv_norm(narrow, inputs, 1, stride, bias=True), nn.ReLU(inplace=True),
        *conv_norm(narrow, narrow, 3), nn.ReLU(inplace=True),
        *conv_norm(outputs, narrow, 1, bias=True),
    ]  # fmt: skip
    return _BlockV1(body, inputs, outputs, stride, project)


class _BasicV2(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.bn1, self.conv1 = Norm(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = Norm(outputs), conv(outputs, outputs, 3)
        self.downsample = conv(inputs, outputs, 1, stride) if project else None

    def forward(self, given: Tensor) -> Tensor:
        ready = torch.relu_(self.bn1(given))
        shortcut = given if self.downsample is None else self.downsample(ready)
        inner: Tensor = self.conv2(torch.relu_(self.bn2(self.conv1(ready))))
        return inner + shortcut


class _BottleneckV2(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        narrow = outputs // 4
        self.bn1, self.conv1 = Norm(inputs), conv(inputs, narrow, 1)
        self.bn2, self.conv2 = Norm(narrow), conv(narrow, narrow, 3, stride)
        self.bn3, self.conv3 = Norm(narrow), conv(narrow, outputs, 1)
        self.downsample = conv(inputs, outputs, 1, stride) if project else None

    def forward(self, given: Tensor) -> Tensor:
        ready = torch.relu_(self.bn1(given))
        shortcut = given if self.downsample is None else self.downsample(ready)
        inner = self.conv2(torch.relu_(self.bn2(self.conv1(ready))))
        outer: Tensor = self.conv3(torch.relu_(self.bn3(inner)))
        return outer + shortcut


class GluonNetwork(nn.Module):
    """Features, then an output layer; both under Gluon's names."""

    def __init__(self, features: nn.Sequential, output: nn.Module) -> None:
        super().__init__()
        self.features, self.output = features, output
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 to (B, classes) logits."""
        logits: Tensor = self.output(self.features(images))
        return logits


class GluonMobileNet(GluonNetwork):
    """The one whose layers stand in a row, not in blocks."""

    def layer_group(self, parameter: str) -> int:
        """The group of a tensor of `features`: the first convolution is one, then each depthwise with its pointwise."""
        convolution = int(parameter.split(".")[1]) // 3
        return (convolution + 1) // 2


def _stages(block: Block, layers: Sequence[int], channels: Sequence[int]) -> list[nn.Module]:
    stages: list[nn.Module] = []
    for place, (depth, inputs, outputs) in enumerate(zip(layers, channels, channels[1:], strict=False)):
        first = block(inputs, outputs, 1 if place == 0 else 2, inputs != outputs)
        rest = [block(outputs, outputs, 1, False) for _ in range(depth - 1)]
        stages.append(Scope(f"stage{place + 1}_", first, *rest))
    return stages


def _stem(outputs: int) -> list[nn.Module]:
    return [*conv_norm(outputs, 3, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]


def _resnet_v1(block: Block, classes: int, layers: Sequence[int], channels: Sequence[int]) -> nn.Module:
    features = [*_stem(channels[0]), *_stages(block, layers, channels), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return GluonNetwork(nn.Sequential(*features), nn.Linear(channels[-1], classes))


def _resnet_v2(block: Block, classes: int, layers: Sequence[int], channels: Sequence[int]) -> nn.Module:
    features = [
        Norm(3, scale=False, center=False), *_stem(channels[0]), *_stages(block, layers, channels),
        Norm(channels[-1]), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ]  # fmt: skip
    return GluonNetwork(nn.Sequential(*features), nn.Linear(channels[-1], classes))


MOBILENET_WIDTHS = (64, *(128,) * 2, *(256,) * 2, *(512,) * 6, *(1024,) * 2)
"""Channels of MobileNet's pointwise convolutions, before the multiplier."""
MOBILENET_V2_WIDTHS = (16, *(24,) * 2, *(32,) * 3, *(64,) * 4, *(96,) * 3, *(160,) * 3, 320)
"""Channels of MobileNetV2's blocks, before the multiplier."""
STEM_WIDTH, LAST_WIDTH = 32, 1280
"""Channels of both networks' first convolution, and of MobileNetV2's last, which a multiplier below 1 leaves alone."""


def _mobilenet(classes: int, multiplier: float) -> nn.Module:
    inputs = int(STEM_WIDTH * multiplier)
    features: list[nn.Module] = [*conv_norm(inputs, 3, 3, 2), nn.ReLU(inplace=True)]
    strides = (*(1, 2) * 3, *(1,) * 5, 2, 1)
    for width, stride in zip(MOBILENET_WIDTHS, strides, strict=True):
        outputs = int(width * multiplier)
        features += [*conv_norm(inputs, inputs, 3, stride, groups=inputs), nn.ReLU(inplace=True)]
        features += [*conv_norm(outputs, inputs, 1), nn.ReLU(inplace=True)]
        inputs = outputs
    return GluonMobileNet(nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(inputs, classes))


class _LinearBottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, scope: str) -> None:
        super().__init__()
        wide, self.adds = inputs * expansion, stride == 1 and inputs == outputs
        self.out = Scope(
            scope,
            *conv_norm(wide, inputs, 1), nn.ReLU6(inplace=True),
            *conv_norm(wide, wide, 3, stride, groups=wide), nn.ReLU6(inplace=True),
            *conv_norm(outputs, wide, 1),
        )  # fmt: skip

    def forward(self, given: Tensor) -> Tensor:
        out: Tensor = self.out(given)
        return out + given if self.adds else out


def _mobilenet_v2(classes: int, multiplier: float) -> nn.Module:
    inputs = int(STEM_WIDTH * multiplier)
    features: list[nn.Module] = [*conv_norm(inputs, 3, 3, 2), nn.ReLU6(inplace=True)]
    expansions = (1, *(6,) * 16)
    strides = (*(1, 2) * 2, 1, 1, 2, *(1,) * 6, 2, 1, 1, 1)
    for place, (width, expansion, stride) in enumerate(zip(MOBILENET_V2_WIDTHS, expansions, strides, strict=True)):
        outputs = int(width * multiplier)
        features.append(_LinearBottleneck(inputs, outputs, expansion, stride, f"linearbottleneck{place}_"))
        inputs = outputs
    last = int(LAST_WIDTH * max(multiplier, 1.0))
    features += [*conv_norm(last, inputs, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1)]
    output = Scope("output_", conv(last, classes, 1), nn.Flatten())
    return GluonNetwork(Scope("features_", *features), output)


FAMILIES: Mapping[str, Callable[..., nn.Module]] = {
    "resnet_v1_basic": lambda classes, **args: _resnet_v1(_basic_v1, classes, **args),
    "resnet_v1_bottleneck": lambda classes, **args: _resnet_v1(_bottleneck_v1, classes, **args),
    "resnet_v2_basic": lambda classes, **args: _resnet_v2(_BasicV2, classes, **args),
    "resnet_v2_bottleneck": lambda classes, **args: _resnet_v2(_BottleneckV2, classes, **args),
    "mobilenet": _mobilenet,
    "mobilenet_v2": _mobilenet_v2,
}
"""How each kind of network is built: from its classes, and from `layers` and `channels` or a `multiplier`."""


@dataclass(frozen=True)
class Spec:
    """One name of the zoo."""

    family: str
    """A key of `FAMILIES`."""
    args: Mapping[str, Any]
    """What tells it from others of its family; `model_args` may give other values."""
    parameters: int
    """Number of learnable parameters, with 1000 classes."""


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
