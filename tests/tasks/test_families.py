"""A small member of every family of source models, with random weights: fitted, evaluated, exported, explained."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.models
import torch
from timm.models import metaformer

import relish
from relish.data.image import open_image
from relish.data.transforms import evaluation_transform, stacked
from relish.evaluation.explain import heatmaps, last_feature_map
from relish.models.freeze import freeze
from relish.models.saved_model import DataConfig, ModelDescription, load_model, save_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.training.optim import make_optimiser
from relish.training.recipe import named_recipe
from tests.conftest import draw_dataset

CLASSES = ("blue", "red")
SMALL_VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 2}
SETTINGS = {
    "freeze": "half", "layer_decay": 0.75, "optimiser": "adamw", "learning_rate": 3e-3, "loss": "mean", "epochs": 6,
    "batch_size": 8,
}  # fmt: skip
"""That a network with random weights tells two colours apart after them."""


@dataclass(frozen=True)
class Member:
    """One of timm's networks, made small by arguments of its own."""

    architecture: str
    arguments: dict[str, Any] = field(default_factory=lambda: SMALL_VIT)
    side: int = 32
    outputs: int = 5


FAMILIES = {
    "ViT, class token": Member("vit_tiny_patch16_224"),
    "ViT, registers": Member("vit_medium_patch16_reg4_gap_256"),
    "DINOv2": Member("vit_small_patch14_reg4_dinov2", {**SMALL_VIT, "img_size": 48}, 48, outputs=0),
    "SigLIP": Member("vit_base_patch16_siglip_224", outputs=0),
    "EVA": Member("eva02_tiny_patch14_224"),
    "Swin": Member(
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]},
    ),
    "CAFormer": Member("caformer_s18", {"depths": [1, 1, 1, 1], "dims": [16, 24, 32, 64]}, 64),
    "ConvNeXt": Member("test_convnext", {}, 64),
    "MobileNetV4": Member("mobilenetv4_conv_small_050", {}, 64),
    "ResNet": Member("test_resnet", {}, 64),
    "EfficientNet": Member("test_efficientnet", {}, 64),
}
RUN_AT = {"DINOv2": 32}
"""Pixels, where a family is fitted at another size than its weights are for."""


@pytest.fixture(autouse=True)
def _small_caformers(monkeypatch):
    """timm's own constructor of CAFormers takes no sizes."""

    def small(pretrained=False, **sizes):
        mixers = [metaformer.SepConv] * 2 + [metaformer.Attention] * 2
        norms = [metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2
        return metaformer._create_metaformer(
            "caformer_s18", pretrained, token_mixers=mixers, norm_layers=norms, **sizes
        )

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "caformer_s18", small)


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("families") / "colours", train=12, test=6, size=(64, 64))


def source_file(family: str, folder: Path) -> Path:
    """What a hub would give of this member: weights that say how to build it and which size they are for."""
    member = FAMILIES[family]
    description = ModelDescription(
        library="timm", architecture=member.architecture, model_args=member.arguments, num_classes=member.outputs,
        data_config=DataConfig.from_weights({"input_size": (3, member.side, member.side)}),
    )  # fmt: skip
    path = folder / "source.safetensors"
    save_model(path, description.build(seed=2), description, {})
    return path


def fitted_target(path: Path, side: int):
    """The target model that a run starts from, half of it frozen."""
    target = make_target(load_source(weights=path).at_size(side), CLASSES, seed=0)
    freeze(target, "half")
    return target


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_rise_towards_the_head_which_learns_ten_times_as_fast(family, tmp_path):
    path = source_file(family, tmp_path)
    target = make_target(load_source(weights=path), CLASSES, seed=0)
    recipe = named_recipe("book").with_settings({"layer_decay": 0.75})
    groups = make_optimiser(target, recipe).param_groups
    rates = [group["base_lr"] for group in groups]
    assert len(rates) >= 4
    np.testing.assert_allclose(np.divide(rates[:-2], rates[1:-1]), 0.75)
    assert rates[-1] == pytest.approx(10 * rates[-2])
    assert [id(p) for p in groups[-1]["params"]] == [id(p) for p in target.head_parameters()]
    assert sum(len(group["params"]) for group in groups) == len(list(target.network.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_fitted_evaluated_exported_and_explained(family, colours, tmp_path):
    path, side = source_file(family, tmp_path), RUN_AT.get(family, FAMILIES[family].side)
    settings = SETTINGS | ({"image_size": side} if family in RUN_AT else {})
    model = relish.fit(colours, recipe="book", weights=path, settings=settings, out=tmp_path / "run")

    # What is frozen is the source's, bit for bit; what is not has learned.
    target, after = fitted_target(path, side), load_model(tmp_path / "run" / "model.safetensors")[0].state_dict()
    before = target.network.state_dict()
    still = {name: not parameter.requires_grad for name, parameter in target.network.named_parameters()}
    assert {True, False} == set(still.values())
    assert all(torch.equal(before[name], after[name]) for name, frozen in still.items() if frozen)
    assert not all(torch.equal(before[name], after[name]) for name, frozen in still.items() if not frozen)

    # The same figures again, from PyTorch and from the file in 8-bit integers, each image's class included.
    found = relish.evaluate(tmp_path / "run", colours)
    exported = relish.export(tmp_path / "run", tmp_path / "model.onnx", int8=True)
    assert exported.f32.exact
    assert exported.certificate.torch_accuracy.correct == found.top1.correct
    images = sorted((colours / "test").glob("*/*.png"))
    predicted = [one.class_name for one in relish.OnnxClassifier(tmp_path / "model.onnx").predict(images)]
    truth = [image.parent.name for image in images]
    assert sum(map(str.__eq__, predicted, truth)) == exported.certificate.accuracy.correct
    assert sum(map(str.__eq__, [one.class_name for one in model.predict(images)], truth)) == found.top1.correct

    # A heat map of either class lies over the image, and one of them at least is not empty.
    layer = last_feature_map(model.network, side)
    assert layer is not None
    pixels = stacked([evaluation_transform(open_image(images[0]), model.preprocessing)] * 2)
    maps = heatmaps(model.network, pixels, [0, 1], model.preprocessing, layer)
    assert maps.shape == (2, side, side)
    assert 0 <= maps.min() < maps.max() <= 1
