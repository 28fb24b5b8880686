"""Gluon's own networks: ResNet v1 and v2, MobileNet and MobileNetV2, built as MXNet builds them.

In:   a kind of network, the number of classes, and its depths and widths.
Out:  a torch module, (B, 3, H, W) to (B, classes), drawn as the book's MXNet tab draws it.
Not here: which name has which depths and widths (`specs.py`), the layers (`layers.py`), files of weights (`params.py`).

They are not torchvision's: v1 bottlenecks have biases and take their stride in the first convolution, v2 begins with
a norm of its own and ends in one, MobileNetV2's head is a convolution without bias.

Source: MXNet 1.9.1, gluon/model_zoo/vision/resnet.py and mobilenet.py; He et al. 2015, arXiv:1512.03385; He et al.
2016, arXiv:1603.05027; Howard et al. 2017, arXiv:1704.04861; Sandler et al. 2018, arXiv:1801.04381.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from relish.models.gluon.layers import Norm, Scope, conv, conv_norm, initialise

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

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) float32 to (B, classes) logits."""
        scores: Tensor = self.output(self.features(pictures))
        return scores


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
