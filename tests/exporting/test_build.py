"""Every kind of network is exported, in float32 and in 8 bits, and proved on odd and on real pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from relish.core.errors import Failed
from relish.data.transforms import Preprocessing
from relish.exporting import build
from relish.exporting.onnx_classifier import OnnxClassifier
from relish.models.saved_model import load_model, save_model
from relish.models.source import load_source
from relish.models.target import make_target
from relish.tasks.export import export
from tests.conftest import TORTURE, draw_dataset
from tests.exported import MEAN, STD, make_odd_pictures
from tests.gluon_files import write_gluon

SOURCES = {
    "embedded": ("embedded", None, 96),
    "torchvision": ("torchvision/resnet18", "none", 64),
    "timm": ("timm/test_vit", "none", 160),
    "gluon": (None, "gluon.params", 64),
    "mobilenet": ("timm/mobilenetv3_small_050", "none", 64),
}
PHOTOGRAPHS = 200 if TORTURE else 60
"""Real ones that an exported file is proved on."""


def model_of(name: str, folder: Path, framing: str) -> Path:
    """A model of two classes on this source network, as a fit saves it."""
    source, weights, size = SOURCES[name]
    if weights == "gluon.params":
        weights = write_gluon(folder / weights, "resnet18_v2", layers=[1, 1, 1, 1], channels=[8, 8, 16, 24, 32])
    loaded = load_source(source, weights, seed=2)
    target = make_target(loaded, ("blue", "red"), seed=3)
    stir(target.network)
    how = Preprocessing(image_size=size, resize=size + 9, mean=MEAN, std=STD, framing=framing, interpolation="bicubic")
    description = target.description()
    path = folder / "model.safetensors"
    save_model(path, target.network, description, {"preprocessing": json.dumps(how.as_dict()), "source": name})
    return path


@torch.no_grad()
def stir(network: torch.nn.Module) -> None:
    """Batch statistics that are not 0 and 1, so that folding them into a convolution shows."""
    torch.manual_seed(5)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.add_(torch.randn_like(tensor) * 0.05)
        elif key.endswith("running_var"):
            tensor.mul_(torch.rand_like(tensor) * 0.4 + 0.8)


FRAMED = [(name, "squash") for name in SOURCES] + [(name, "letterbox") for name in (SOURCES if TORTURE else ["timm"])]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framing"), FRAMED)
def test_this_kind_of_network_is_exported_and_answers_alike(name, framing, tmp_path):
    model = model_of(name, tmp_path, framing)
    draw_dataset(tmp_path / "colours", 1, 4)
    for number, path in enumerate(make_odd_pictures(tmp_path / "odd", 20)):
        path.rename(tmp_path / "colours" / "test" / ("blue", "red")[number % 2] / path.name)
    exported = export(model, tmp_path / "x.onnx", data=tmp_path / "colours")
    assert exported.certificate.pictures == 28
    assert exported.certificate.worst_difference < 1e-4
    assert exported.certificate.exact
    assert len(OnnxClassifier(exported.path).predict(tmp_path / "colours" / "test" / "red" / "000.png")) == 1


@pytest.mark.slow
def test_eight_bits_keep_the_answers_and_only_the_network_is_quantised(tmp_path):
    model = model_of("embedded", tmp_path, "squash")
    draw_dataset(tmp_path / "colours", 20, 10)
    exported = export(model, tmp_path / "x.onnx", data=tmp_path / "colours", int8=True, allow_mismatch=True)
    assert exported.f32.exact
    assert 0 < exported.certificate.worst_difference < 0.2, "no difference at all would mean nothing was quantised"
    assert exported.certificate.agreed.value >= 0.9
    about = OnnxClassifier(exported.path).about
    assert about.precision == "int8"
    assert about.certificate["f32"]["worst_difference"] < 1e-4
    assert about.speed.keys() >= {"milliseconds", "f32_milliseconds", "torch_milliseconds"}
    assert (tmp_path / "x.onnx").stat().st_size < model.stat().st_size / 2


@pytest.mark.slow
def test_eight_bits_that_lose_accuracy_are_refused(tmp_path, monkeypatch):
    """Calibrated on blank input, every activation is cut off."""
    model = model_of("embedded", tmp_path, "squash")
    draw_dataset(tmp_path / "colours", 4, 10)
    teach(model, tmp_path / "colours" / "test")
    right = build.quantised
    monkeypatch.setattr(
        "relish.exporting.build.quantised", lambda graph, inputs: right(graph, (one * 0 for one in list(inputs)[:1]))
    )
    with pytest.raises(Failed, match="int8 is right for"):
        export(model, tmp_path / "x.onnx", data=tmp_path / "colours", int8=True)
    assert not (tmp_path / "x.onnx").exists()


def teach(model: Path, pictures: Path) -> None:
    """A head that tells the two classes of `pictures` apart: the difference of their mean features."""
    from relish.data.image import open_image
    from relish.data.transforms import evaluation_transform, normalise, preprocessing_from, stacked

    network, description, extra = load_model(model)
    how = preprocessing_from(extra, None)  # type: ignore[arg-type]
    means = []
    with torch.no_grad():
        for name in ("blue", "red"):
            batch = stacked([evaluation_transform(open_image(p), how) for p in sorted((pictures / name).iterdir())])
            means.append(network.forward_head(network.forward_features(normalise(batch, how)), pre_logits=True).mean(0))
        towards = (means[1] - means[0]) / (means[1] - means[0]).norm()
        network.classifier.weight.copy_(torch.stack([-towards, towards]))
        middle = ((means[0] + means[1]) / 2) @ towards
        network.classifier.bias.copy_(torch.stack([middle, -middle]))
    save_model(model, network, description, extra)


@pytest.mark.slow
def test_the_real_photographs_get_the_same_class_and_probability(shared, tmp_path):
    """30 pictures a class, or 100, by the embedded network at its full size."""
    archive = shared / "data" / "hotdog.zip"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    source, _, _ = SOURCES["embedded"]
    loaded = load_source(source, None, seed=2)
    target = make_target(loaded, ("hotdog", "not-hotdog"), head_init="source", mapping={"hotdog": 934}, seed=0)
    how = Preprocessing(image_size=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    description = target.description()
    model = tmp_path / "model.safetensors"
    save_model(model, target.network, description, {"preprocessing": json.dumps(how.as_dict())})
    certificate = export(model, tmp_path / "x.onnx", data=archive, limit=PHOTOGRAPHS).certificate
    assert certificate.pictures == PHOTOGRAPHS
    assert certificate.worst_difference < 1e-3
    assert not certificate.disagreements
    assert np.isclose(certificate.accuracy.value, certificate.torch_accuracy.value)
