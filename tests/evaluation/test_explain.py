"""Grad-CAM finds the layer by itself, agrees with the formula, and is left out where it cannot be had."""

import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from relish.core.errors import ModelError
from relish.data.transforms import Preprocessing, normalise
from relish.evaluation.explain import (
    FeatureMap,
    heatmaps,
    last_feature_map,
    least_sure,
    most_wrong,
    overlay,
    overlays_unavailable,
)

PLAIN = Preprocessing(image_size=32, resize=32, mean=(0.0,) * 3, std=(1.0,) * 3)


def swin():
    return SwinTransformer(
        img_size=64, patch_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=3
    )


@pytest.mark.parametrize(
    ("build", "size", "layer"),
    [
        (lambda: timm.create_model("resnet18", num_classes=3), 64, FeatureMap("layer4", "channels first", 2)),
        (lambda: torchvision.models.resnet18(num_classes=3), 64, FeatureMap("layer4", "channels first", 2)),
        (lambda: timm.create_model("tf_efficientnet_lite0", num_classes=3), 64, FeatureMap("bn2", "channels first", 2)),
        (lambda: timm.create_model("test_convnext", num_classes=3), 96, FeatureMap("stages", "channels first", 3)),
        (swin, 64, FeatureMap("norm", "channels last", 8)),
    ],
    ids=["resnet", "torchvision", "efficientnet", "convnext", "swin"],
)
def test_the_last_layer_that_lies_over_the_picture_is_found(build, size, layer):
    assert last_feature_map(build(), size) == layer


def test_a_vision_transformer_is_read_before_its_last_attention():
    """Behind it nothing but the class token matters for the answer."""
    network = timm.create_model("test_vit", num_classes=3)
    found = last_feature_map(network, 160)
    assert found == FeatureMap(f"blocks.{len(network.blocks) - 1}.norm1", "tokens", 10, prefix=1)
    pictures = torch.randint(0, 255, (2, 3, 160, 160), dtype=torch.uint8)
    maps = heatmaps(network, pictures, [0, 2], PLAIN, found)
    assert maps.shape == (2, 160, 160)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_where_one_pixel_is_left_an_earlier_layer_is_taken(tiny_source):
    network = timm.create_model("test_resnet", num_classes=3)
    assert last_feature_map(network, 32).side > 1


def test_a_network_without_a_map_of_the_picture_says_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 2))
    assert last_feature_map(network, 32) is None


def test_before_pooling_and_a_linear_layer_the_map_is_that_of_class_activation_mapping():
    """There the two are the same (Selvaraju et al. 2017, section 3), and the older one has a closed form."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3).eval()
    pictures = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    found = heatmaps(network, pictures, [2, 0], PLAIN, last_feature_map(network, 64))
    with torch.no_grad():
        features = network.forward_features(normalise(pictures, PLAIN))
        raw = torch.einsum("bchw,bc->bhw", features, network.fc.weight[[2, 0]]).relu()
        low = raw.amin((1, 2), keepdim=True)
        wanted = nn.functional.interpolate(((raw - low) / (raw - low).amax((1, 2), keepdim=True))[:, None], size=64,
                                           mode="bilinear", align_corners=False)[:, 0]  # fmt: skip
    wanted = wanted - wanted.amin((1, 2), keepdim=True)
    np.testing.assert_allclose(found, wanted / wanted.amax((1, 2), keepdim=True), atol=2e-3)


def test_the_map_lies_where_the_thing_is():
    network = nn.Sequential(nn.Conv2d(3, 1, 4, 4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(1, 2, bias=False))  # fmt: skip
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
        network[4].weight[:] = torch.tensor([[-1.0], [1.0]])
    picture = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    picture[0, 0, 4:12, 20:28] = 255
    layer = last_feature_map(network, 32)
    seen = heatmaps(network, picture, [1], PLAIN, layer)[0]
    assert seen[8, 24] > 0.9
    assert seen[20:].max() < 0.05
    assert heatmaps(network, picture, [0], PLAIN, layer).max() == 0  # nothing speaks for the other class


def test_explaining_leaves_the_network_as_it_was():
    network = timm.create_model("test_resnet", num_classes=3).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pictures = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    heatmaps(network, pictures, [0], PLAIN, last_feature_map(network, 64))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_without_the_package_it_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    assert "relish-vision[explain]" in overlays_unavailable()
    picture, layer = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), FeatureMap("fc", "channels first", 2)
    with pytest.raises(ModelError, match="grad-cam cannot be used"):
        heatmaps(nn.Linear(1, 1), picture, [0], PLAIN, layer)


def test_an_overlay_is_grey_where_nothing_is_and_warm_where_it_is():
    pixels = np.full((8, 8, 3), (0, 0, 255), np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 1
    drawn = overlay(pixels, heat)
    assert isinstance(drawn, Image.Image)
    red, _, blue = drawn.getpixel((3, 2))
    assert red > blue + 40
    assert len(set(drawn.getpixel((7, 7)))) == 1


# ---- most wrong, least sure ------------------------------------------------------------------------------------------


def test_the_most_wrong_come_first_and_right_ones_never():
    found = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    labels, said = np.array([1, 1, 1, 0]), found.argmax(1)
    assert most_wrong(found, said, labels, 5) == [0, 3, 1]
    assert most_wrong(found, said, labels, 1) == [0]


def test_the_least_sure_are_those_whose_two_likeliest_are_closest():
    found = np.array([[0.9, 0.1, 0.0], [0.36, 0.34, 0.3], [0.5, 0.1, 0.4], [0.5, 0.45, 0.05]])
    assert least_sure(found, 3) == [1, 3, 2]
    assert least_sure(np.ones((2, 1)), 3) == []
