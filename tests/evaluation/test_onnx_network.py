"""ONNX Runtime computes what PyTorch computes, for a run from its begin to its end, and never for a few images."""

import copy

import numpy as np
import pytest
import torch

from relish.core.context import Context
from relish.core.io import sha256_of_file
from relish.core.run_folder import RunFolder
from relish.data.folder import index_folder
from relish.data.loader import View
from relish.data.transforms import book_preprocessing
from relish.evaluation import onnx_network
from relish.evaluation.features import Backbone, features_of
from relish.evaluation.inference import split_logits
from relish.evaluation.onnx_network import OnnxNetwork
from relish.evaluation.unfamiliarity import Unfamiliarity
from relish.models.source import load_source
from relish.models.target import make_target
from relish.tasks.classifier import Classifier
from tests.conftest import Heard, read_json

HOW = book_preprocessing(32, (0.5,) * 3, (0.5,) * 3)
FASTER, SLOWER, AT_ONCE = (10.0, 1.0), (10.0, 20.0), (2e-3, 1e-3)
"""Seconds of an image by PyTorch and by ONNX Runtime; the last are too short to pay for an export."""


@pytest.fixture
def train(colours):
    return index_folder(colours, name="colours", source=str(colours)).splits["train"]


@pytest.fixture
def target(tiny_source):
    return make_target(load_source(None, tiny_source), ("blue", "red"), seed=0)


def features(target, split, context=None) -> np.ndarray:
    sha256 = {path: sha256_of_file(path) for path in split.paths}
    (found,) = features_of(Backbone.of(target), split, [View(HOW)], sha256, context or Context.on("cpu"))
    return found


@pytest.fixture
def measured(monkeypatch):
    """Sets what passes take, with no number of images too small; None forbids to measure."""

    def measure(seconds: tuple[float, float] | None) -> None:
        def seconds_of(network, _):
            by_torch, by_onnx = seconds or pytest.fail("measured again")
            return by_onnx if isinstance(network, OnnxNetwork) else by_torch

        monkeypatch.setattr(onnx_network, "FEWEST", 1)
        monkeypatch.setattr(onnx_network, "TRIAL_IMAGES", 0)
        monkeypatch.setattr(onnx_network, "_seconds", seconds_of)

    return measure


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The images of each pass through ONNX Runtime; 5 of a trial, and those of a first look omitted."""
    counts: list[int] = []
    forward = OnnxNetwork.forward

    def counted(self, images):
        if len(images) > onnx_network.FEW:
            counts.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(onnx_network, "IMAGES", 5)
    monkeypatch.setattr(OnnxNetwork, "forward", counted)
    return counts


def test_features_are_those_of_torch_and_cached_apart(target, train, measured, passes, tmp_path, monkeypatch):
    by_torch = features(target, train)
    measured(FASTER)
    found = features(target, train)
    np.testing.assert_allclose(found, by_torch, atol=1e-5)
    np.testing.assert_array_equal(features(target, train), found)
    assert passes == [5, 20]  # the second time they were there
    monkeypatch.setattr(onnx_network, "FEWEST", 21)
    np.testing.assert_array_equal(features(target, train), by_torch)


def test_answers_are_those_of_torch_and_one_graph_serves_all_heads_and_weights(
    target, train, measured, passes, monkeypatch
):
    bank = np.random.default_rng(0).random((3, target.heads[0].weight.shape[1])).astype(np.float16)
    model = Classifier(target.network, target.classes, HOW, unfamiliarity=Unfamiliarity(bank, 1))
    measured(FASTER)
    features(target, train)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported again"))
    with torch.no_grad():
        for number, tensor in enumerate(target.network.parameters()):
            tensor += 0.1 * np.sin(number)
    by_torch = model.predict(train.paths)
    model.hasten(len(train), Context.on("cpu"))
    for one, other in zip(model.predict(train.paths), by_torch, strict=True):
        np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5)
        assert one.unfamiliarity == pytest.approx(other.unfamiliarity, abs=1e-5)
    assert passes == [5, 20, 20]


def test_a_model_being_trained_is_evaluated_as_by_torch(target, train, measured, passes):
    def logits(heads):
        return split_logits(target.network, train, HOW, Context.on("cpu"), heads=heads)

    by_torch = logits(())
    measured(FASTER)
    np.testing.assert_allclose(logits(target.head_names), by_torch, atol=1e-5)
    assert passes == [5, 20]


def test_what_a_graph_answers_otherwise_with_some_weights_torch_computes(
    target, train, measured, passes, tmp_path, monkeypatch
):
    measured(FASTER)
    features(target, train)
    monkeypatch.setattr(
        onnx_network, "_with_weights", lambda graph, _, put=onnx_network._with_weights: put(graph, first)
    )
    first = copy.deepcopy(target.network)
    with torch.no_grad():
        next(target.network.parameters()).mul_(2)
    found = features(target, train)
    assert passes == [5, 20]
    monkeypatch.setattr(onnx_network, "FEWEST", 21)
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    np.testing.assert_array_equal(found, features(target, train))


@pytest.mark.parametrize(("began", "name"), [(FASTER, "onnx"), (SLOWER, "torch")])
def test_a_run_goes_on_as_it_began_whatever_is_measured_elsewhere(
    began, name, target, train, measured, passes, tmp_path, monkeypatch
):
    run = Context.on("cpu").in_run(RunFolder.create(tmp_path / "run", {}, {}))
    measured(began)
    features(target, train.take(np.arange(10)), run)
    kept = read_json(run.folder.engine)
    assert list(kept.values()) == [name]
    monkeypatch.setenv("RELISH_HOME", str(tmp_path / "home"))
    measured(None)
    features(target, train, run)
    assert passes == ([5, 10, 5, 20] if name == "onnx" else [5])  # where it is slower, only its answers are tried
    assert read_json(run.folder.engine) == kept


def test_for_few_images_and_for_short_passes_nothing_is_exported(target, train, measured, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("exported"))
    features(target, train)
    measured(AT_ONCE)
    features(target, train.take(np.arange(10)))
    measured(None)
    monkeypatch.setattr(onnx_network, "FEWEST", 21)
    features(target, train)


def test_without_onnx_runtime_torch_computes_and_that_is_said_once(target, train, measured, passes, monkeypatch):
    measured(FASTER)
    monkeypatch.setattr(onnx_network, "find_spec", lambda _: None)
    heard = Heard()
    for count in (10, 20):
        features(target, train.take(np.arange(count)), Context.on("cpu", heard))
    assert not passes
    assert heard.lines == ['engine  torch; ONNX Runtime may be faster here: pip install "relish-vision[export]"']


@pytest.mark.parametrize("error", [RuntimeError("no such operator"), MemoryError()])
def test_what_cannot_be_exported_is_computed_by_torch(error, target, train, measured, passes, monkeypatch):
    measured(FASTER)
    tried: list[object] = []

    def fails(*_: object, **__: object) -> None:
        tried.append(error)
        raise error

    monkeypatch.setattr(torch.onnx, "export", fails)
    for count in (10, 20):
        assert np.isfinite(features(target, train.take(np.arange(count)))).all()
    assert not passes
    assert len(tried) == (2 if isinstance(error, MemoryError) else 1)  # memory may be free again
