"""Grad-CAM heat maps, drawn over their images, and which images to show: the most wrong and the least certain.

The layer is found by trying: the network is run once on noise, and the last output that keeps the image's spatial
layout, and that the logits depend on, is taken. Names would have to be known for every architecture.

Source: Selvaraju et al. 2017, Grad-CAM, arXiv:1610.02391, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from relish.core.errors import ModelError
from relish.core.runtime import in_smaller_parts
from relish.data.transforms import Preprocessing, normalise

Layout = Literal["channels first", "channels last", "tokens"]
Probabilities = npt.NDArray[np.floating[Any]]

BATCH = 8
"""Images explained at once: a backward pass keeps every activation."""
_NO_MAPS = (nn.Dropout, nn.Softmax, nn.Identity)
"""Inside attention their outputs are square too, but laid out over pairs of tokens, not over the image."""
_MOST_PREFIX = 8
"""Tokens before those of the image's patches: a class token, distillation tokens, registers."""

STRONGEST = 0.65
"""How much of the image the greatest heat covers, 0 to 1."""
_INFERNO = np.array(
    [
        (0, 0, 4), (12, 8, 38), (36, 12, 79), (66, 10, 104), (93, 18, 110), (120, 28, 109), (147, 38, 103),
        (174, 48, 92), (199, 62, 76), (221, 81, 58), (237, 105, 37), (248, 133, 15), (252, 165, 10), (250, 198, 45),
        (242, 230, 97), (252, 255, 164),
    ]
)  # fmt: skip
"""The colour map "inferno" at 16 evenly spaced heats, RGB in bytes; between them it is within 7 of the original.

Source: Stéfan van der Walt and Nathaniel Smith, 2015, https://bids.github.io/colormap; public domain (CC0).
"""


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output keeps the image's spatial layout."""

    layer: str
    """The module's name."""
    layout: Layout
    side: int
    """Positions along each side, 2 or more."""
    prefix: int = 0
    """With `tokens`: how many precede those of the image's patches."""

    def as_map(self, output: Tensor) -> Tensor:
        """The layer's output as (B, C, side, side)."""
        if self.layout == "channels first":
            return output
        if self.layout == "channels last":
            return output.permute(0, 3, 1, 2)
        patches = output[:, self.prefix :].transpose(1, 2)  # (B, C, side * side)
        return patches.reshape(len(output), -1, self.side, self.side)


def overlays_unavailable() -> str:
    """Why Grad-CAM cannot run on this machine, in one line; empty where it can."""
    try:
        import pytorch_grad_cam  # noqa: F401
    except (ImportError, OSError) as error:  # its OpenCV may miss a library of the system
        reason = str(error).splitlines()[0]
        return f"the package grad-cam cannot be used ({reason}); pip install 'relish-vision[explain]' brings it"
    return ""


def last_feature_map(network: nn.Module, image_size: int) -> FeatureMap | None:
    """The last layer whose output keeps the spatial layout and affects the logits; None where there is none.

    Args:
        network: takes (B, 3, S, S) float32; put into eval mode.
        image_size: S, in pixels.
    """
    names = {id(module): name for name, module in network.named_modules()}
    outputs: dict[str, Tensor] = {}

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.pop(names[id(module)], None)  # so that the order is that of the last calls
            outputs[names[id(module)]] = output

    modules = [module for name, module in network.named_modules() if name and not isinstance(module, _NO_MAPS)]
    hooks = [module.register_forward_hook(record) for module in modules]
    noise = torch.randn((1, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.enable_grad():
            logits = network.eval()(noise.to(_device(network)).requires_grad_())
            gradients = torch.autograd.grad(logits.max(), list(outputs.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = zip(reversed(outputs.items()), reversed(gradients), strict=True)
    prefix: Any = getattr(network, "num_prefix_tokens", None)  # as timm's transformers say
    maps = (_map_of(name, network.get_submodule(name), output, gradient, prefix) for (name, output), gradient in pairs)
    return next((layer for layer in maps if layer is not None), None)


def heatmaps(
    network: nn.Module, images: Tensor, classes: Sequence[int], preprocessing: Preprocessing, layer: FeatureMap
) -> npt.NDArray[np.float32]:
    """Grad-CAM of each image for one class each.

    Args:
        network: in eval mode; its gradients are cleared.
        images: (B, 3, S, S) uint8, cropped and scaled for the network.
        classes: B class indices, one for each image.
        preprocessing: of the model.
        layer: from `last_feature_map`.

    Returns:
        (B, S, S) float32, from 0 (no evidence for the class) to 1 (the most); all 0 where there is none.

    Raises:
        ModelError: the package grad-cam cannot be used.
    """
    if why := overlays_unavailable():
        raise ModelError(f"{why[0].upper()}{why[1:]}.")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps = []
    with torch.enable_grad(), GradCAM(network, [network.get_submodule(layer.layer)], layer.as_map) as explain:
        done, size = 0, BATCH

        def some(size: int) -> npt.NDArray[np.float32]:
            batch = normalise(images[done : done + size].to(_device(network)), preprocessing).requires_grad_()
            targets = [ClassifierOutputTarget(index) for index in classes[done : done + size]]
            return np.nan_to_num(np.asarray(explain(batch, targets), dtype=np.float32))

        while done < len(images):
            found, size = in_smaller_parts(some, size)
            maps.append(found)
            done += len(found)
    network.zero_grad(set_to_none=True)
    return np.concatenate(maps) if maps else np.zeros((0, *images.shape[2:]), dtype=np.float32)


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """Lay a heat map over the image it is of: grey where the prediction does not rest, warm and bright where it does.

    The image is grey beneath, so that no colour of its own can be taken for heat; the colours grow lighter with the
    heat, so that they can be read without telling red from green.

    Args:
        pixels: (S, S, 3) uint8, the image as the network sees it.
        heat: (S, S) floating point, 0 to 1: how much the prediction rests on each place.

    Returns:
        RGB, S × S.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[..., None]  # (S, S, 1)
    at = np.linspace(0, 1, len(_INFERNO))
    colours = np.stack([np.interp(heat, at, channel) for channel in _INFERNO.T], axis=-1)  # (S, S, 3)
    cover = STRONGEST * np.clip(heat, 0, 1)[..., None]
    return Image.fromarray(np.round(grey * (1 - cover) + colours * cover).astype(np.uint8))


def _map_of(
    name: str, module: nn.Module, output: Tensor, gradient: Tensor | None, prefix: int | None
) -> FeatureMap | None:
    if gradient is None or not bool(gradient.isfinite().all()):
        return None
    if output.ndim == 4:
        return _grid_of(name, output, gradient)
    # The input of an attention layer: after it, only the class token affects the logits.
    if output.ndim == 3 and isinstance(module, nn.LayerNorm):
        return _tokens_of(name, output, gradient, range(_MOST_PREFIX) if prefix is None else (prefix,))
    return None


def _grid_of(name: str, output: Tensor, gradient: Tensor) -> FeatureMap | None:
    _, first, second, third = output.shape
    layout: Layout = "channels first" if second == third else "channels last"
    fits = second > 1 and (second in (first, third)) and bool(gradient.any())
    return FeatureMap(name, layout, second) if fits else None


def _tokens_of(name: str, output: Tensor, gradient: Tensor, prefixes: Sequence[int]) -> FeatureMap | None:
    tokens = output.shape[1]
    for prefix in prefixes:
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 1 and side * side == tokens - prefix:
            return FeatureMap(name, "tokens", side, prefix) if bool(gradient[:, prefix:].any()) else None
    return None


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def most_wrong(
    probabilities: Probabilities, predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], most: int
) -> list[int]:
    """Positions of at most `most` wrongly predicted images, those whose true class has the lowest probability first."""
    wrong = np.flatnonzero(predicted != labels)
    worst_first = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return [int(i) for i in wrong[worst_first][:most]]


def least_sure(probabilities: Probabilities, most: int) -> list[int]:
    """Positions of at most `most` images whose two likeliest classes are closest, closest first; none for one class."""
    if probabilities.shape[1] < 2:
        return []
    best = np.sort(probabilities, axis=1)[:, -2:]
    return [int(i) for i in np.argsort(best[:, 1] - best[:, 0], kind="stable")[:most]]
